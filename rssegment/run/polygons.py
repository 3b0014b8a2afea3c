"""A class map to polygons: trace its blocks, join them, clean, simplify, and write what comes out as it comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.config import PolygonOptions
from rssegment.errors import InputError
from rssegment.grid import BlockGrid
from rssegment.run.polygon_plan import limits_of, traces_of
from rssegment.run.progress import Progress
from rssegment.run.regions import RegionOutput, write_regions
from rssegment.run.side_by_side import Each
from rssegment.run.traces import ClassTree, Source, Traces, release_knots
from rssegment.vector.adjacency import Limits, cleaned, finest_codes
from rssegment.vector.array_files import read_array
from rssegment.vector.trace import recoded
from rssegment.vector.tree import Node
from rssegment.write.atomic import staged

__all__ = ["ClassMap", "make_polygons"]


@dataclass(frozen=True)
class ClassMap:
    """What polygons are made of.

    ``values`` (n,): the class of each label where they differ; ``nothing``: what to raise if no pixel has a class;
    ``overwrite``: whether files that appeared meanwhile may be replaced.
    """

    source: Source
    grid: BlockGrid
    geobox: GeoBox
    classes: ClassTree
    values: NDArray[np.int64] | None = None
    nothing: InputError | None = None
    overwrite: bool = True


def make_polygons(
    job: ClassMap,
    options: PolygonOptions,
    folder: Path,
    paths: dict[str, Path],
    each: Each,
    *,
    progress: Progress | None = None,
    traced: bool = False,
) -> dict[str, Any]:
    """Writes the polygons of ``job`` to ``paths``, by format; returns counts. Pieces are kept in ``folder`` meanwhile.

    ``traced``: the first traces are there already. Memory grows with a row of blocks, and with what reaches the blocks'
    borders, not with the scene.
    """
    limits = limits_of(options, job.geobox)
    traces = traces_of(
        folder, job.grid, job.geobox, job.classes, options, raw=options.cleans, values=job.values
    )
    if not traced:
        _trace(traces, each, progress, "trace", partial(_trace_one, traces, job.source))
    _knit(traces, each)
    if options.cleans:
        final = traces_of(folder, job.grid, job.geobox, job.classes, options, raw=False, values=job.values)
        _recode(traces, limits)
        _trace(final, each, progress, "clean", partial(_trace_cleaned, final, traces, job.source))
        _knit(final, each)
        traces = final
    if traces.how is not None:
        traces.count()
        _follow(each(traces.outline, traces.nodes), traces, progress, "simplify")
    if traces.squaring is not None:
        _follow(each(traces.square, traces.nodes), traces, progress, "square")
        release_knots()
    coverage = traces.coverage(simplified=True)
    if job.nothing is not None and not coverage.counts(0).any():
        raise job.nothing
    output = RegionOutput(job.geobox, job.classes, job.values, job.overwrite)
    return write_regions(coverage, output, paths, progress)


def _trace(
    traces: Traces, each: Each, progress: Progress | None, stage: str, task: Callable[[Node], None]
) -> None:
    traces.create()
    _follow(each(task, traces.tree.level(0)), traces, progress, stage)


def _follow(done: Iterator[tuple[Node, None]], traces: Traces, progress: Progress | None, stage: str) -> None:
    """Waits for all nodes and tells of the blocks among them."""
    total, count, pixels = len(traces.tree.grid), 0, 0
    for node, _ in done:
        if node[0] == 0:
            count, pixels = count + 1, pixels + traces.tree.box(node).size
            if progress:
                progress(stage, count, total, pixels)


def _trace_one(traces: Traces, source: Source, node: Node) -> None:
    traces.save(node, traces.piece(node, source.read(traces.tree.box(node))))


def _trace_cleaned(final: Traces, raw: Traces, source: Source, node: Node) -> None:
    core = final.tree.box(node)
    block = source.read(core)
    path = _codes_path(raw, node)
    if path.exists():
        block = replace(block, labels=recoded(block.labels, core, read_array(path)))
    final.save(node, final.piece(node, block))


def _knit(traces: Traces, each: Each) -> None:
    for level in range(1, len(traces.tree.shapes)):
        deque(each(traces.knit, traces.tree.level(level)), maxlen=0)


def _recode(raw: Traces, limits: Limits) -> None:
    """Leaves a file with the new codes of its regions beside the piece of each block that cleaning changes."""
    coverage = raw.coverage()
    recoding = cleaned(coverage, limits)
    for node in raw.tree.level(0):
        path = _codes_path(raw, node)
        path.unlink(missing_ok=True)  # of an earlier attempt, when more blocks were missing
        if recoding.keys.size:
            piece, final = coverage.piece(node, chains=False)
            codes = finest_codes(piece, final, coverage.layers[0].regions, recoding)
            if not np.array_equal(codes, piece.tables[-1].code):
                with staged(path, durable=False) as temporary:
                    np.save(temporary, codes)


def _codes_path(raw: Traces, node: Node) -> Path:
    return raw.path(node).with_suffix(".npy")
