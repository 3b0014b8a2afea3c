"""One block, one task: read, predict, decode, store, trace. The serial and the Dask runner both call this."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from rssegment.decode import decide_leaf, quantize_confidence
from rssegment.grid import Block, Box
from rssegment.predict import (
    Strip,
    cached_model,
    leased,
    predict_strips,
    resample_strips,
)
from rssegment.run.planning import Plan
from rssegment.run.store import BlockResult, Store
from rssegment.run.traces import LabelBlock

__all__ = ["run_block"]


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
        piece = plan.traces.piece((0, *block.index), pixels)
    with clock.stage("store"):
        sizes = store.save(plan, block, pixels, piece)
    return BlockResult(block.name, "done", int(np.count_nonzero(pixels.labels)), clock.seconds, sizes)


def _classify(plan: Plan, core: Box) -> LabelBlock:
    labels = np.zeros(core.shape, np.uint16)
    confidence, margin = (np.full(core.shape, 255, np.uint8) for _ in range(2))
    for strip in _strips(plan, core):
        decision = decide_leaf(strip.probabilities, plan.taxonomy, strip.valid)
        place = strip.box.relative_to(core).slices
        labels[place] = decision.codes
        confidence[place] = quantize_confidence(decision.confidence, strip.valid)
        margin[place] = quantize_confidence(decision.margin, strip.valid)
    return LabelBlock(labels, confidence, margin)


def _strips(plan: Plan, core: Box) -> Iterator[Strip]:
    model = leased(cached_model(plan.bundle, plan.device, plan.bundle_id))
    strips = predict_strips(
        plan.read, plan.lattice, plan.model_box(core), model, plan.batch, plan.settings.window
    )
    if not plan.resamples:
        return strips
    return resample_strips(strips, core, plan.factor, plan.scene.read_valid)


@dataclass
class _Clock:
    """Seconds spent, by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
