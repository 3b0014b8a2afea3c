"""Any label raster to polygons."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from rssegment.config import PolygonOptions
from rssegment.errors import InputError, OutputError, SettingsError, TaxonomyError
from rssegment.grid import BlockGrid, Box
from rssegment.run.first_time import compile_first
from rssegment.run.polygon_plan import check_polygons
from rssegment.run.polygons import ClassMap, make_polygons
from rssegment.run.progress import Progress
from rssegment.run.side_by_side import workers
from rssegment.run.traces import LabelBlock
from rssegment.scene import LabelRaster
from rssegment.taxonomy import Node, Taxonomy
from rssegment.write.atomic import scratch
from rssegment.write.leftovers import check_not_held
from rssegment.write.vectors import FORMATS, check_format, format_of

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["VectorResult", "vectorize"]


@dataclass(frozen=True)
class VectorResult:
    """What was written: files by format; regions, pixels and square metres per class; seconds, warnings."""

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

    raster: LabelRaster

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self.node(code) for code in self.raster.codes)

    def node(self, key: int) -> Node:
        name = self.raster.names.get(key) or f"class {key}"
        color = self.raster.colors.get(key, (128, 128, 128))
        return Node(code=key, name=name, color=color, level=1, parent=None, path=(name,))


@dataclass(frozen=True, eq=False)
class RasterBlocks:
    """Blocks of label rasters: labels are positions in the raster's codes."""

    labels: LabelRaster
    confidence: LabelRaster | None = None
    margin: LabelRaster | None = None

    def read(self, core: Box) -> LabelBlock:
        extra = (
            None if each is None else each.read_values(core).astype(np.uint8, copy=False)
            for each in (self.confidence, self.margin)
        )
        return LabelBlock(self.labels.read(core), *extra)


@dataclass(frozen=True, eq=False)
class CodedBlocks:
    """The same blocks, where labels are codes of a taxonomy.

    ``codes`` (n,): that of each position, 0 where the taxonomy lacks it.
    """

    blocks: RasterBlocks
    taxonomy: str
    codes: NDArray[np.uint16]

    @classmethod
    def of(cls, blocks: RasterBlocks, tree: Taxonomy) -> CodedBlocks:
        values = np.array((0, *blocks.labels.codes), np.int64)
        known = np.isin(values, [0, *(node.code for node in tree.nodes)])  # 0 is no data in every taxonomy
        return cls(blocks, tree.name, np.where(known, values, 0).astype(np.uint16))

    @cached_property
    def _nothing(self) -> NDArray[np.bool_]:
        """(n,) whether a position is no data: 0, and that of value 0 where another value marks no data."""
        nothing: NDArray[np.bool_] = np.array((0, *self.blocks.labels.codes), np.int64) == 0
        return nothing

    def read(self, core: Box) -> LabelBlock:
        """Reads a block.

        Raises
        ------
        InputError
            It has codes that the taxonomy lacks.
        """
        block = self.blocks.read(core)
        labels = self.codes[block.labels]
        lost = block.labels[(labels == 0) & ~self._nothing[block.labels]]
        if lost.size:
            lacking = [self.blocks.labels.codes[position - 1] for position in np.unique(lost).tolist()]
            shown = ", ".join(map(str, lacking[:10])) + (", ..." if len(lacking) > 10 else "")
            raise InputError(
                f"{self.blocks.labels.path} holds {shown}, which taxonomy {self.taxonomy!r} lacks; add these codes to "
                "it, or name the one that means no data by --nodata"
            )
        return replace(block, labels=labels)


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
    client: Client | str | None = None,
    progress: Progress | None = None,
    options: PolygonOptions | None = None,
    **choices: Any,
) -> VectorResult:
    """Writes each connected region of one class in the raster ``labels`` as a polygon to ``out``, one file or several,
    each in the format of its suffix: .geojson, .geojsonl, .parquet, .fgb, .gpkg, .pmtiles or .shp.

    ``choices`` are the fields of :class:`~rssegment.PolygonOptions` (``options`` gives them all at once):
    ``connectivity``, ``min_area``, ``fill_holes``, ``simplify``, ``method``, ``smooth``, ``levels``, ``square``,
    ``square_limit``. Value 0 is no data, unless the file or ``nodata`` names another. ``confidence`` and ``margin`` are
    rasters on the same grid, as :func:`segment` writes them. Without a CRS, coordinates are pixels and the result says
    so. The result does not depend on ``block`` (px), of which memory needs a row; traces are kept on disk beside
    ``out`` meanwhile.
    ``client``: a Dask cluster whose workers see the same files; without it, threads of this process work.

    Raises
    ------
    InputError
        Not a label raster; a class that the taxonomy lacks; a confidence raster on another grid; unfit choices.
    OutputError
        ``out`` exists, can't be written, or has an unknown suffix.
    """
    start = time.perf_counter()
    paths = _checked_out(out, overwrite)
    if not isinstance(block, int) or block < 16:
        raise SettingsError(f"block is {block!r}; expected a whole number of pixels, 16 or more")
    chosen = _options(options, choices, paths)
    _keep_inputs(paths, labels, confidence, margin, taxonomy)
    raster = LabelRaster.open(labels, nodata, scan=False)
    blocks = RasterBlocks(raster, _same_grid(confidence, raster), _same_grid(margin, raster))
    job = _class_map(raster, taxonomy, blocks, block)
    job = replace(job, overwrite=overwrite)
    _check_places(paths, job.geobox)
    check_polygons(job.geobox, job.classes, chosen)
    compile_first(progress)
    first = next(iter(paths.values()))
    # the folder goes last, when no thread writes there any more
    with scratch(first) as folder, workers(client, "polygons", block**2) as each:
        counts = make_polygons(job, chosen, folder, paths, each, progress=progress)
    remarks = (*raster.remarks, *_assumed(raster, counts))
    return VectorResult(paths, counts, round(time.perf_counter() - start, 3), remarks)


def _assumed(raster: LabelRaster, counts: dict[str, Any]) -> Iterator[str]:
    """Says that pixels were left out by custom alone."""
    last = max((each["level"] for each in counts["classes"]), default=0) if counts["levels"] else None
    kept = sum(each["pixels"] for each in counts["classes"] if last in {None, each["level"]})
    lost = math.prod(raster.shape) - kept
    if raster.assumed and lost:
        yield (
            f"{lost} pixels of value 0 were taken for no data, as nothing says what no data is; if 0 is a class, name "
            "another value by --nodata"
        )


def _options(
    options: PolygonOptions | None, choices: dict[str, Any], paths: dict[str, Path]
) -> PolygonOptions:
    if "formats" in choices:
        raise SettingsError("formats are those of the files' suffixes here; name one file of each instead")
    fields = set(PolygonOptions.model_fields)  # of settings of a run, only these
    given = {} if options is None else options.model_dump(include=fields, exclude_unset=True)
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


def _check_places(paths: dict[str, Path], geobox: GeoBox) -> None:
    """Refuses now what the writers would refuse in the end."""
    for name, path in paths.items():
        check_format(name, str(geobox.crs) if geobox.crs else None)
        check_not_held(path)


def _keep_inputs(paths: dict[str, Path], *inputs: object) -> None:
    """Refuses to write over what is read."""
    named = [Path(each) for each in inputs if isinstance(each, str | Path)]
    read = {each.resolve() for each in named if each.exists()}
    with suppress(RasterioError), catch_warnings():
        simplefilter("ignore")
        with rasterio.open(named[0]) as file:  # a mosaic's members too
            read |= {Path(each).resolve() for each in file.files}
    for name, path in paths.items():
        for each in (path, *(path.with_suffix(suffix) for suffix in FORMATS[name].companions)):
            if each.resolve() in read:
                raise OutputError(f"{each} is read to make it; write to another file")


def _class_map(
    raster: LabelRaster,
    taxonomy: Taxonomy | str | Path | None,
    blocks: RasterBlocks,
    block: int,
) -> ClassMap:
    geobox = raster.geobox
    if not raster.georeferenced:
        geobox = GeoBox(raster.shape, geobox.affine.identity(), None)
    grid = BlockGrid(raster.shape, block)
    if taxonomy is None:
        values = np.array((0, *raster.codes), np.int64)
        return ClassMap(blocks, grid, geobox, LabelClasses(raster), values, raster.no_class())
    tree = taxonomy if isinstance(taxonomy, Taxonomy) else Taxonomy.load(taxonomy)
    with suppress(TaxonomyError):  # a class has the code that would mean undecided
        if raster.names.get(tree.undecided) == tree.with_undecided().nodes[-1].label:
            tree = tree.with_undecided()
    return ClassMap(CodedBlocks.of(blocks, tree), grid, geobox, tree, nothing=raster.no_class())


def _same_grid(path: str | Path | None, raster: LabelRaster) -> LabelRaster | None:
    if path is None:
        return None
    other = LabelRaster.of_bytes(path)
    raster.check_same_grid(other)
    return other
