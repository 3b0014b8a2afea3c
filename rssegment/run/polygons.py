"""Any label raster to polygons."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError, OutputError, SceneError
from rssegment.grid import Block, BlockGrid
from rssegment.run.progress import Progress
from rssegment.run.regions import write_regions
from rssegment.scene import LabelRaster
from rssegment.taxonomy import Node, Taxonomy
from rssegment.vector import BlockTrace, join, trace_block

__all__ = ["VectorResult", "vectorize"]

SUFFIXES = {".geojson": "geojson", ".json": "geojson"}
WARNING = "the raster has no CRS: coordinates are pixels (col, row), and areas are unknown"


@dataclass(frozen=True)
class VectorResult:
    """What was written: the file, how many regions, pixels and square metres per class, seconds, warnings."""

    path: Path
    counts: dict[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"path": str(self.path), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        lines = [f"{self.counts['regions']} regions in {self.seconds:.1f} s: {self.path}"]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


@dataclass(frozen=True)
class LabelClasses:
    """Classes of a raster without taxonomy: one level, with the file's own names where it has them."""

    by_code: dict[int, Node]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.by_code.values())

    @classmethod
    def of(cls, raster: LabelRaster) -> LabelClasses:
        names = {code: raster.names.get(code) or f"class {code}" for code in raster.codes}
        color = raster.colors
        return cls(
            {
                code: Node(
                    code=code,
                    name=name,
                    color=color.get(code, (128, 128, 128)),
                    level=1,
                    parent=None,
                    path=(name,),
                )
                for code, name in names.items()
            }
        )

    def node(self, key: int) -> Node:
        return self.by_code[key]


def vectorize(
    labels: str | Path,
    out: str | Path,
    *,
    taxonomy: Taxonomy | str | Path | None = None,
    confidence: str | Path | None = None,
    connectivity: int = 4,
    nodata: float | None = None,
    block: int = 2048,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorResult:
    """Writes each connected region of one class in the raster ``labels`` as a polygon to ``out`` (``.geojson``).

    Regions are exact over block edges: the result does not depend on ``block`` (px). Pixels are connected over their
    edges (``connectivity`` 4), or over corners too (8). Value 0 is no data, unless the file or ``nodata`` names
    another. ``confidence`` is a raster on the same grid as :func:`segment` writes it. Without a CRS, coordinates
    are pixels and the result says so.

    Raises
    ------
    InputError
        Not a label raster; a class that the taxonomy lacks; a confidence raster on another grid.
    OutputError
        ``out`` exists, can't be written, or has an unknown suffix.
    """
    start = time.perf_counter()
    path = _checked_out(Path(out), overwrite)
    if connectivity not in (4, 8):
        raise InputError(f"connectivity is {connectivity}; expected 4 (edges) or 8 (edges and corners)")
    raster = LabelRaster.open(labels, nodata)
    classes = _classes(taxonomy, raster)
    sureness = None if confidence is None else _confidence(confidence, raster)
    traces = _trace(raster, sureness, connectivity, BlockGrid(raster.shape, block), progress)
    regions = join(traces, connectivity)
    regions = replace(regions, code=np.array((0, *raster.codes), np.int64)[regions.code])
    geobox = (
        raster.geobox if raster.georeferenced else GeoBox(raster.shape, raster.geobox.affine.identity(), None)
    )
    counts = write_regions(regions, geobox, classes, {SUFFIXES[path.suffix.lower()]: path})
    warnings = () if raster.georeferenced else (WARNING,)
    return VectorResult(path, counts, round(time.perf_counter() - start, 3), warnings)


def _checked_out(path: Path, overwrite: bool) -> Path:
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path} has the suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the file to write")
    if not path.parent.is_dir():
        raise OutputError(f"can't write {path}: there is no folder {path.parent}; make it first")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; use --overwrite to replace it, or choose another name")
    return path


def _classes(taxonomy: Taxonomy | str | Path | None, raster: LabelRaster) -> Taxonomy | LabelClasses:
    if taxonomy is None:
        return LabelClasses.of(raster)
    tree = taxonomy if isinstance(taxonomy, Taxonomy) else Taxonomy.load(taxonomy)
    known = {node.code for node in tree.nodes}
    lacking = [code for code in raster.codes if code not in known]
    if lacking:
        shown = ", ".join(map(str, lacking[:10])) + (", ..." if len(lacking) > 10 else "")
        raise InputError(
            f"{raster.path} holds {shown}, which taxonomy {tree.name!r} lacks; add these codes to it, or name the one "
            "that means no data by --nodata"
        )
    return tree


def _confidence(path: str | Path, raster: LabelRaster) -> LabelRaster:
    other = LabelRaster.of_bytes(path)
    if other.geobox != raster.geobox:
        raise SceneError(
            f"{path} and {raster.path} are on different grids ({other.geobox} and {raster.geobox})"
        )
    return other


def _trace(
    raster: LabelRaster,
    sureness: LabelRaster | None,
    connectivity: int,
    grid: BlockGrid,
    progress: Progress | None,
) -> list[BlockTrace]:
    """Traces of all blocks, on threads: the kernels release the GIL."""

    def one(block: Block) -> BlockTrace:
        values = None if sureness is None else sureness.read_values(block.core).astype(np.uint8)
        return trace_block(raster.read(block.core), block.core, connectivity, values)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(_counted(pool.map(one, grid), len(grid), progress))


def _counted(traces: Iterable[BlockTrace], total: int, progress: Progress | None) -> Iterable[BlockTrace]:
    pixels = 0
    for count, trace in enumerate(traces, 1):
        pixels += trace.core.size
        if progress:
            progress("trace", count, total, pixels)
        yield trace
