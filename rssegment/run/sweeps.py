"""Passes of a model over scenes at several temperatures at once, as many as memory holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rssegment.config import Settings
from rssegment.errors import PlanError
from rssegment.grid import BlockGrid
from rssegment.model import LeafModel
from rssegment.run.planning import Plan
from rssegment.run.resources import Demand, forward_share, memory_limit
from rssegment.taxonomy import Taxonomy

__all__ = ["Effort", "Sweep", "log_loss"]

SIDES = (2048, 1024, 512, 256)  # px, of what is predicted at a time
TOGETHER = (5, 3, 2, 1)  # temperatures in a pass
LEAST = 1e-12  # the log-loss of a probability of 0 is that of this one


class Sweep:
    """A model's probabilities at several temperatures at once, as that many times its channels.

    Blending works channel by channel, so one pass over a scene gives what each temperature would give alone.
    """

    def __init__(self, model: LeafModel, temperatures: Sequence[float]) -> None:
        self.spec, self.device, self.fill = model.spec, model.device, model.fill
        self.leaves, self.temperature = model.leaves * len(temperatures), 1.0
        self._model, self._temperatures = model, temperatures

    def leaf_logits(self, values: Tensor | NDArray[Any]) -> Tensor:
        return self._model.leaf_logits(values)

    def __call__(self, values: Tensor | NDArray[Any]) -> Tensor:
        """(B, K * L, H, W)."""
        with torch.inference_mode():
            logits = self._model.leaf_logits(values)
            return torch.cat([(logits / t).softmax(1) for t in self._temperatures], 1)


@dataclass(frozen=True)
class Effort:
    """What is held at once: ``side`` px of a scene, at so many ``temperatures``. It changes time, not the result."""

    side: int
    temperatures: int

    @classmethod
    def within(cls, memory: int, plans: Sequence[Plan], sweeps: Sequence[int]) -> Self:
        """The quickest that ``memory`` bytes hold, for ``sweeps`` of so many temperatures over the scenes of ``plans``.

        Raises
        ------
        PlanError
            Not even the least fits.
        """
        each = [cls(side, temperatures) for temperatures in TOGETHER for side in SIDES]
        needs = {effort: max(effort.bytes_for(plan) for plan in plans) for effort in each}
        fitting = [effort for effort in each if needs[effort] <= memory]
        if not fitting:
            least, leaves = math.ceil(min(needs.values()) / 1e7) / 100, len(plans[0].taxonomy.leaves)
            raise PlanError(
                f"calibration needs {least:.2f} GB for a model of {leaves} classes, and there are "
                f"{memory / 1e9:.2f} GB; give it more memory, or a smaller batch in --settings"
            )
        return min(fitting, key=lambda effort: effort._seconds(plans, sweeps))

    @classmethod
    def of(cls, settings: Settings, plans: Sequence[Plan], sweeps: Sequence[int]) -> Self:
        """The same within the memory of ``settings``, or of this machine."""
        return cls.within(settings.memory or memory_limit(), plans, sweeps)

    def bytes_for(self, plan: Plan) -> int:
        """Peak bytes of a pass over the scene of ``plan``."""
        spec, on_cpu = plan.spec, plan.device == "cpu"
        leaves, nodes = len(plan.taxonomy.leaves), len(plan.taxonomy.nodes)
        channels = self.temperatures * leaves
        side = min(self.side, max(plan.blocks.shape))
        demand = Demand(
            spec=spec,
            leaves=channels,
            rasters=2,
            batch=plan.batch,
            factor=plan.factor,
            in_flight=1,
            on_cpu=on_cpu,
        )
        # of each pass logits, the softmax of each temperature and all of them together; one more batch waits
        passes = forward_share(0) + 1 if on_cpu else 2
        outputs = passes * plan.batch * spec.patch**2 * 4 * (leaves + 2 * channels)
        # a finished strip, and what is decided and counted of it
        strip = math.ceil(spec.patch * max(1.0, plan.factor[0])) * side * 4 * (channels + nodes + leaves)
        return demand.bytes_for(side, 0) + outputs + strip

    def grouped(self, count: int) -> Iterator[slice]:
        """The ``count`` temperatures of a sweep in as few passes as may be."""
        return (
            slice(start, min(start + self.temperatures, count))
            for start in range(0, count, self.temperatures)
        )

    def steps(self, plans: Sequence[Plan], sweeps: Sequence[int]) -> int:
        """How many times a block is looked at, in all."""
        passes = sum(len(list(self.grouped(count))) for count in sweeps)
        return passes * sum(len(BlockGrid(plan.blocks.shape, self.side)) for plan in plans)

    def _seconds(self, plans: Sequence[Plan], sweeps: Sequence[int]) -> float:
        """About how long it takes, in some unit: forward passes, those at the edges of blocks twice."""
        passes = sum(len(list(self.grouped(count))) for count in sweeps)
        side, patch = min(self.side, max(max(plan.blocks.shape) for plan in plans)), plans[0].spec.patch
        return passes * ((side + patch) / side) ** 2


def log_loss(
    probabilities: NDArray[np.float32], truth: NDArray[np.uint16], taxonomy: Taxonomy
) -> NDArray[np.float64]:
    """(K,) sums over pixels of -log P(true node), from leaf probabilities (K, L, h, w) and codes (h, w), 0 none.

    Raises
    ------
    TaxonomyError
        A code is no class's.
    """
    total = np.zeros(len(probabilities))
    for code in np.unique(truth[truth > 0]).tolist():
        at = truth == code
        leaves = np.flatnonzero(taxonomy.membership[taxonomy.nodes.index(taxonomy.node(code))])
        shares = np.zeros((len(probabilities), int(at.sum())))
        for leaf in leaves.tolist():  # one by one: there may be hundreds
            shares += probabilities[:, leaf, at]
        total -= np.log(np.maximum(shares, LEAST)).sum(1)
    return total
