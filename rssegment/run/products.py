"""The files a run ends with, made from its block parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from rssegment.grid import Block
from rssegment.run.plan import Plan
from rssegment.run.store import BlockResult, Store
from rssegment.vector import BlockTrace, join
from rssegment.write.rasters import confidence_kind, label_kind, write_cog, write_vrt

__all__ = ["Products", "Result", "Work", "read_result", "write_products"]

Progress = Callable[[str, int, int, int], None]
LIBRARIES = ("rssegment", "torch", "rasterio", "numpy", "numba", "shapely", "pyproj", "distributed")


@dataclass(frozen=True)
class Result:
    """What a run made: ``status`` ("done", or "partial" where blocks are missing), paths, counts, seconds by stage."""

    status: str
    out: Path
    labels: Path
    confidence: Path
    regions: dict[str, Path]
    counts: dict[str, Any]
    seconds: dict[str, float]
    missing: tuple[dict[str, Any], ...] = ()
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Blocks by what became of them, each in the grid's order."""

    done: tuple[tuple[Block, BlockResult], ...]
    empty: tuple[Block, ...]
    failed: tuple[tuple[Block, str], ...]

    @classmethod
    def of(cls, results: Sequence[tuple[Block, BlockResult]], failed: Sequence[tuple[Block, str]]) -> Self:
        done = sorted((each for each in results if each[1].status == "done"), key=lambda each: each[0])
        empty = sorted(block for block, result in results if result.status == "empty")
        return cls(tuple(done), tuple(empty), tuple(sorted(failed, key=lambda each: each[0])))

    def write_vrts(self, plan: Plan) -> tuple[Path, Path]:
        """Writes ``labels.vrt`` and ``confidence.vrt`` over the parts there are, into the work folder."""
        store = Store(plan.work)
        labels, confidence = plan.work / "labels.vrt", plan.work / "confidence.vrt"
        names = plan.taxonomy.category_names()
        kind = label_kind(plan.taxonomy.colormap(), names)
        write_vrt(labels, [(store.labels(b), b.core) for b, _ in self.done], plan.geobox, kind)
        parts = [(store.confidence(b), b.core) for b, _ in self.done]
        write_vrt(confidence, parts, plan.geobox, confidence_kind())
        return labels, confidence


@dataclass(frozen=True)
class Products:
    """What the products are made of: the plan, what its blocks came to, and when the run began."""

    plan: Plan
    work: Work
    started: datetime
    clock: float


def write_products(products: Products, progress: Progress | None = None) -> Result:
    """Makes the final rasters, polygons and ``run.json``, each whole or not at all.

    Raises
    ------
    StorageError
        The disk is full; the parts are still there, so that the run can be resumed.
    """
    plan, work = products.plan, products.work
    steps = _Steps(progress, 2 + len(plan.settings.formats))
    seconds = _stage_seconds(work)
    paths = plan.products
    start = time.perf_counter()
    labels, confidence = work.write_vrts(plan)
    write_cog(labels, paths["labels"], label_kind(plan.taxonomy.colormap(), plan.taxonomy.category_names()))
    steps.done()
    write_cog(confidence, paths["confidence"], confidence_kind())
    steps.done()
    seconds["rasters"] = round(time.perf_counter() - start, 3)
    start = time.perf_counter()
    store = Store(plan.work)
    regions = join(
        [BlockTrace.load(store.trace(block)) for block, _ in work.done], plan.settings.connectivity
    )
    counts = write_regions(regions, plan.geobox, plan.taxonomy, {f: paths[f] for f in plan.settings.formats})
    steps.done()
    seconds["vectors"] = round(time.perf_counter() - start, 3)
    missing = _missing(plan, work)
    return _finish(products, counts, seconds, missing)
