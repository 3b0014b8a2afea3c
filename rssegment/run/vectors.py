"""Any label raster to polygons."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.config import PolygonOptions
from rssegment.errors import InputError, OutputError, SceneError
from rssegment.grid import BlockGrid, Box
from rssegment.run.polygons import ClassMap, make_polygons, threads
from rssegment.run.progress import Progress
from rssegment.run.traces import LabelBlock, check_polygons
from rssegment.scene import LabelRaster
from rssegment.taxonomy import Node, Taxonomy
from rssegment.write.atomic import storage_errors
from rssegment.write.vectors import FORMATS, format_of

__all__ = ["VectorResult", "vectorize"]

WARNING = "the raster has no CRS: coordinates are pixels (col, row), and areas are unknown"


@dataclass(frozen=True)
class VectorResult:
    """What was written: the files by format, how many regions, pixels and square metres per class, seconds, warnings."""

    paths: dict[str, Path]
    counts: dict[str, Any]
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file, or the first of several."""
        return next(iter(self.paths.values()))

    def as_dict(self) -> dict[str, Any]:
        paths = {name: str(path) for name, path in self.paths.items()}
        return asdict(self) | {"paths": paths, "path": str(self.path), "warnings": list(self.warnings)}

    def __str__(self) -> str:
        files = ", ".join(str(path) for path in self.paths.values())
        lines = [f"{self.counts['regions']} regions in {self.seconds:.1f} s: {files}"]
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
        nodes = {}
        for code in raster.codes:
            name = raster.names.get(code) or f"class {code}"
            color = raster.colors.get(code, (128, 128, 128))
            nodes[code] = Node(code=code, name=name, color=color, level=1, parent=None, path=(name,))
        return cls(nodes)

    def node(self, key: int) -> Node:
        return self.by_code[key]


@dataclass(frozen=True, eq=False)
class RasterBlocks:
    """Blocks of label rasters. ``codes`` (n,): the class of each position in the raster's codes, where classes are asked
    for; without, labels are the positions."""

    labels: LabelRaster
    confidence: LabelRaster | None = None
    margin: LabelRaster | None = None
    codes: NDArray[np.uint16] | None = None

    def read(self, core: Box) -> LabelBlock:
        labels = self.labels.read(core)
        extra = (
            None if each is None else each.read_values(core).astype(np.uint8, copy=False)
            for each in (self.confidence, self.margin)
        )
        return LabelBlock(labels if self.codes is None else self.codes[labels], *extra)


def vectorize(
    labels: str | Path,
    out: str | Path | Sequence[str | Path],
    *,
    taxonomy: Taxonomy | str | Path | None = None,
    confidence: str | Path | None = None,
    margin: str | Path | None = None,
    nodata: float | None = None,
    block: int = 2048,
    overwrite: bool = False,
    progress: Progress | None = None,
    options: PolygonOptions | None = None,
    **choices: Any,
) -> VectorResult:
    """Writes each connected region of one class in the raster ``labels`` as a polygon to ``out``, one file or several,
    each in the format of its suffix: .geojson, .geojsonl, .parquet, .fgb, .gpkg, .pmtiles or .shp.

    ``choices`` are the fields of :class:`~rssegment.PolygonOptions` (``options`` gives them all at once): ``connectivity``,
    ``min_area``, ``fill_holes``, ``simplify``, ``method``, ``smooth``, ``levels``. Value 0 is no data, unless the file or
    ``nodata`` names another. ``confidence`` and ``margin`` are rasters on the same grid as :func:`segment` writes them.
    Without a CRS, coordinates are pixels and the result says so. The result does not depend on ``block`` (px), of which
    memory needs a row; traces are kept on disk beside ``out`` meanwhile.

    Raises
    ------
    InputError
        Not a label raster; a class that the taxonomy lacks; a confidence raster on another grid; unfit choices.
    OutputError
        ``out`` exists, can't be written, or has an unknown suffix.
    """
    start = time.perf_counter()
    paths = _checked_out(out, overwrite)
    chosen = _options(options, choices, paths)
    raster = LabelRaster.open(labels, nodata)
    job = _class_map(raster, taxonomy, _same_grid(confidence, raster), _same_grid(margin, raster), block)
    check_polygons(job.geobox, job.classes, chosen)
    first = next(iter(paths.values()))
    with storage_errors(first), threads() as each:
        folder = Path(tempfile.mkdtemp(prefix=f".{first.name}.", dir=first.parent))
        try:
            counts = make_polygons(job, chosen, folder, paths, each, progress)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    warnings = () if raster.georeferenced else (WARNING,)
    return VectorResult(paths, counts, round(time.perf_counter() - start, 3), warnings)


def _options(
    options: PolygonOptions | None, choices: dict[str, Any], paths: dict[str, Path]
) -> PolygonOptions:
    given = {} if options is None else options.model_dump(exclude_unset=True)
    return PolygonOptions(**given | choices | {"formats": tuple(paths)})


def _checked_out(out: str | Path | Sequence[str | Path], overwrite: bool) -> dict[str, Path]:
    """The files to write, by format."""
    files = [Path(out)] if isinstance(out, str | Path) else [Path(each) for each in out]
    if not files:
        raise OutputError("no file to write was named; give one, as regions.geojson")
    paths: dict[str, Path] = {}
    for path in files:
        name = format_of(path)
        if name in paths:
            raise OutputError(f"{paths[name]} and {path} are of one format; name one file of each")
        if path.is_dir():
            raise OutputError(f"{path} is a folder; give the file to write")
        if not path.parent.is_dir():
            raise OutputError(f"can't write {path}: there is no folder {path.parent}; make it first")
        for each in (path, *(path.with_suffix(suffix) for suffix in FORMATS[name].companions)):
            if each.exists() and not overwrite:
                raise OutputError(
                    f"{each} exists already; use --overwrite to replace it, or choose another name"
                )
        paths[name] = path
    return paths


def _class_map(
    raster: LabelRaster,
    taxonomy: Taxonomy | str | Path | None,
    confidence: LabelRaster | None,
    margin: LabelRaster | None,
    block: int,
) -> ClassMap:
    affine = raster.geobox.affine
    geobox = raster.geobox if raster.georeferenced else GeoBox(raster.shape, affine.identity(), None)
    grid = BlockGrid(raster.shape, block)
    if taxonomy is None:
        values = np.array((0, *raster.codes), np.int64)
        return ClassMap(
            RasterBlocks(raster, confidence, margin), grid, geobox, LabelClasses.of(raster), values
        )
    tree = taxonomy if isinstance(taxonomy, Taxonomy) else Taxonomy.load(taxonomy)
    _check_known(raster, tree)
    codes = np.array((0, *raster.codes), np.uint16)
    return ClassMap(RasterBlocks(raster, confidence, margin, codes), grid, geobox, tree)


def _check_known(raster: LabelRaster, tree: Taxonomy) -> None:
    known = {node.code for node in tree.nodes}
    lacking = [code for code in raster.codes if code not in known]
    if lacking:
        shown = ", ".join(map(str, lacking[:10])) + (", ..." if len(lacking) > 10 else "")
        raise InputError(
            f"{raster.path} holds {shown}, which taxonomy {tree.name!r} lacks; add these codes to it, or name the one "
            "that means no data by --nodata"
        )


def _same_grid(path: str | Path | None, raster: LabelRaster) -> LabelRaster | None:
    if path is None:
        return None
    other = LabelRaster.of_bytes(path)
    if other.geobox != raster.geobox:
        raise SceneError(
            f"{path} and {raster.path} are on different grids ({other.geobox} and {raster.geobox})"
        )
    return other
