"""One block, one task: read, predict, decode, store, trace. The serial and the Dask runner both call this."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rssegment.decode import CONFIDENCE_NODATA, decide, quantize_confidence
from rssegment.grid import Block, Box
from rssegment.predict import (
    Leased,
    Strip,
    cached_model,
    leased,
    predict_strips,
    resample_strips,
)
from rssegment.run.planning import Plan
from rssegment.run.store import BlockResult, Pixels, Store, label_block

__all__ = ["run_block", "strips"]


def run_block(plan: Plan, block: Block) -> BlockResult:
    """Takes ``block`` from scene pixels to part files; does nothing if that was done before.

    A pure function of its arguments and the files they name: it may run anywhere, twice, and in any order.
    """
    store = Store.of(plan)
    earlier = store.result(block)
    if earlier is not None:
        return earlier
    clock = _Clock()
    with clock.stage("read"):
        empty = not plan.scene.any_valid(block.core)
    result = BlockResult(block.name, "empty") if empty else _segment(plan, block, store, clock)
    store.finish(block, result)
    return result


def _segment(plan: Plan, block: Block, store: Store, clock: _Clock) -> BlockResult:
    with clock.stage("predict"):
        pixels = _classify(plan, block.core)
    with clock.stage("trace"):
        piece = plan.traces.piece((0, *block.index), label_block(pixels))
    with clock.stage("store"):
        sizes = store.save(plan, block, pixels, piece)
    return BlockResult(block.name, "done", int(np.count_nonzero(pixels["labels"])), clock.seconds, sizes)


def _classify(plan: Plan, core: Box) -> dict[str, Pixels]:
    """What was decided for the pixels of ``core``: arrays (H, W) by the name of the raster they are for."""
    pixels: dict[str, Pixels] = {"labels": np.zeros(core.shape, np.uint16)}
    shares = ("confidence", "margin", *(f"confidence_level{level}" for level in plan.levels))
    pixels |= {name: np.full(core.shape, CONFIDENCE_NODATA, np.uint8) for name in shares}
    for strip in strips(plan, core, leased(cached_model(plan.bundle, plan.device, plan.bundle_id))):
        decision = decide(strip.probabilities, plan.taxonomy, plan.rule, strip.valid, plan.levels)
        place = strip.box.relative_to(core).slices
        pixels["labels"][place] = decision.codes
        values = (decision.confidence, decision.margin, *decision.levels)
        for name, share in zip(shares, values, strict=True):
            pixels[name][place] = quantize_confidence(share, strip.valid)
    for level in plan.levels:
        pixels[f"labels_level{level}"] = plan.legend.ancestor_lookup(level)[pixels["labels"]]
    return pixels


def strips(plan: Plan, core: Box, model: Leased) -> Iterator[Strip]:
    """Blended probabilities that ``model`` gives for ``core`` (output px), from the top down."""
    found = predict_strips(
        plan.read, plan.lattice, plan.model_box(core), model, plan.batch, plan.settings.window
    )
    if not plan.resamples:
        return found
    return resample_strips(found, core, plan.factor, plan.scene.read_valid)


@dataclass
class _Clock:
    """Seconds spent, by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
