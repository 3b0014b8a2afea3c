"""Scenes held out from training, cut into blocks that count as one observation each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from rssegment.config import Length
from rssegment.errors import SettingsError
from rssegment.grid import BlockGrid, Box, ground_resolution
from rssegment.model import LeafModel
from rssegment.predict import leased
from rssegment.run.block import strips
from rssegment.run.planning import Plan
from rssegment.run.progress import Progress
from rssegment.run.references import Reference
from rssegment.taxonomy import Taxonomy

__all__ = ["Ground", "Sampling", "Steps", "Sweep", "log_loss"]

BLOCK = 1024  # px: side of what is predicted at a time; several temperatures' probabilities are held at once
LEAST = 1e-12  # the log-loss of a probability of 0 is that of this one


class Steps:
    """Tells of progress over several passes."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def step(self) -> None:
        self._done += 1
        if self._progress:
            self._progress("calibrate", self._done, self._total, 0)


@dataclass(frozen=True)
class Sampling:
    """Into blocks of which ``side`` a scene is cut, and which share of them is kept back to ``check``.

    They are drawn by ``seed`` and the number of the ``scene``.
    """

    side: Length
    check: float
    seed: int
    scene: int = 0

    def cut(self, geobox: GeoBox) -> tuple[tuple[int, int], NDArray[np.bool_]]:
        """Rows and columns (px) of a block on the scene's grid, and which of the blocks are kept back.

        Raises
        ------
        SettingsError
            A block would be smaller than a pixel.
        """
        metres = (1.0, 1.0) if self.side.unit == "px" else ground_resolution(geobox)
        rows, cols = (round(self.side.value / each) for each in metres)
        if min(rows, cols) < 1:
            raise SettingsError(
                f"spatial blocks of {self.side.value:g} {self.side.unit} are smaller than a pixel; give a larger side"
            )
        shape = math.ceil(geobox.shape[0] / rows), math.ceil(geobox.shape[1] / cols)
        order = np.random.default_rng([self.seed, self.scene]).permutation(math.prod(shape))
        return (rows, cols), (order < round(self.check * order.size)).reshape(shape)


@dataclass(frozen=True)
class Ground:
    """One scene with its reference: ``side`` (px) of its spatial blocks, and which of them, (rows, cols), are kept
    back.
    """

    plan: Plan
    reference: Reference
    name: str
    side: tuple[int, int]
    kept: NDArray[np.bool_]

    def labelled(
        self, model: LeafModel, steps: Steps
    ) -> Iterator[tuple[Box, NDArray[np.float32], NDArray[np.uint16]]]:
        """What ``model`` gives for strips of the scene with a label: the box, its channels and its true codes."""
        leases = leased(model)
        for block in self.blocks:
            steps.step()
            truth = self.reference.read(block.core)
            if not truth.any():
                continue
            for strip in strips(self.plan, block.core, leases):
                rows = truth[strip.box.relative_to(block.core).slices]
                yield strip.box, strip.probabilities, np.where(strip.valid, rows, 0).astype(np.uint16)

    @property
    def blocks(self) -> BlockGrid:
        return BlockGrid(self.plan.blocks.shape, BLOCK)

    def spatial_blocks(self, box: Box) -> NDArray[np.int64]:
        """(h, w): the number of each pixel's spatial block."""
        rows = np.arange(box.row, box.stop_row) // self.side[0]
        cols = np.arange(box.col, box.stop_col) // self.side[1]
        numbers: NDArray[np.int64] = rows[:, None] * self.kept.shape[1] + cols[None, :]
        return numbers


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
        row = taxonomy.nodes.index(taxonomy.node(code))
        leaves, at = taxonomy.membership[row], truth == code
        shares = probabilities[:, leaves][..., at].sum(1, dtype=np.float64)
        total -= np.log(np.maximum(shares, LEAST)).sum(1)
    return total
