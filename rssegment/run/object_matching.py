"""Regions of chosen classes of a map and of its reference, as polygons in pixels, matched one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from warnings import catch_warnings, simplefilter

import numpy as np
import pyarrow.parquet as pq
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.windows import Window

from rssegment.config import PolygonOptions
from rssegment.errors import InputError
from rssegment.evaluation.objects import ObjectCounts, Objects, match
from rssegment.grid import BlockGrid, Box
from rssegment.reference.references import LimitedReference, RasterReference, ShapeReference
from rssegment.run.comparison import Comparison
from rssegment.run.vectors import vectorize
from rssegment.taxonomy import Taxonomy

__all__ = ["ObjectOptions", "match_objects"]

Read = Callable[[Box], NDArray[np.uint16]]

_REST = 65535  # labelled, but of no object's class


@dataclass(frozen=True)
class ObjectOptions:
    """``classes``: codes whose regions are objects; ``table`` (65536,): the object class of each code, 0 for none;
    ``threshold``: intersection over union from which two are the same.
    """

    classes: tuple[int, ...]
    table: NDArray[np.uint16]
    threshold: float

    @classmethod
    def of(cls, objects: Sequence[int | str], taxonomy: Taxonomy, iou: float) -> Self:
        """Of classes by code, name or path.

        Raises
        ------
        InputError
            No such class, one that lies under another, or a threshold outside (0, 1].
        """
        if not 0 < iou <= 1:
            raise InputError(f"iou is {iou}; expected more than 0, and 1 at most")
        chosen = [taxonomy.node(each) for each in ([objects] if isinstance(objects, str | int) else objects)]
        table = np.zeros(65536, np.uint16)
        for node in chosen:
            under = [each.code for each in taxonomy.nodes if each.path[: node.level] == node.path]
            if table[under].any():
                other = taxonomy.node(int(table[under].max()))
                raise InputError(
                    f"objects are {other.name!r} and {node.name!r}, one of which is or lies under the other; choose one"
                )
            table[under] = node.code
        return cls(tuple(node.code for node in chosen), table, iou)


def match_objects(comparison: Comparison, options: ObjectOptions, block: int) -> ObjectCounts:
    """Counts of objects in prediction and reference, and of those that are the same.

    Where the reference is a raster, its regions that hang together by edges are objects, and only what it labels
    counts; where it is polygons, they are objects as drawn, and are taken to be complete on the whole grid, or in the
    area that it is limited to. All polygons are held in memory.
    """
    prediction, reference, ignore = comparison.prediction, comparison.reference, comparison.ignore
    mine = _objects(prediction.labels, (), options, block)
    source = reference.reference if isinstance(reference, LimitedReference) else reference
    theirs = _objects(source, ignore, options, block)
    rows, cols = prediction.shape
    areas = [shapely.box(0, 0, cols, rows)]
    if isinstance(source, RasterReference):
        areas.append(_union(theirs.area))
    if isinstance(reference, LimitedReference):
        areas.append(_union(reference.area.features.geometries))
    within = areas[0]
    for area in areas[1:]:
        within = within.intersection(area)
    return match(
        mine.objects,
        theirs.objects,
        classes=options.classes,
        threshold=options.threshold,
        within=within,
        scene=prediction.name,
    )


@dataclass(frozen=True)
class _Side:
    """One side's objects, and for a raster the polygons of all that is labelled."""

    objects: Objects
    area: NDArray[np.object_]


def _objects(
    source: RasterReference | ShapeReference, ignore: tuple[int, ...], options: ObjectOptions, block: int
) -> _Side:
    if isinstance(source, ShapeReference):
        found = source.features
        codes = np.where(np.isin(found.codes, ignore), 0, options.table[found.codes])
        return _Side(Objects(found.geometries[codes > 0], codes[codes > 0]), found.geometries)
    table = np.where(options.table > 0, options.table, np.uint16(_REST))
    table[[0, *ignore]] = 0
    rows, cols = source.geobox.shape
    geometries, codes = _traced(lambda box: table[source.read(box)], (int(rows), int(cols)), block)
    chosen = np.isin(codes, options.classes)
    return _Side(Objects(geometries[chosen], codes[chosen]), geometries)


def _traced(read: Read, shape: tuple[int, int], block: int) -> tuple[NDArray[np.object_], NDArray[np.uint16]]:
    """Connected regions as polygons in pixels (col, row), and their codes; made on disk, block by block."""
    with tempfile.TemporaryDirectory(prefix="rssegment-objects-") as folder:
        raster, vectors = Path(folder) / "labels.tif", Path(folder) / "regions.parquet"
        if not _write(read, shape, block, raster):
            return np.empty(0, object), np.empty(0, np.uint16)
        vectorize(raster, vectors, nodata=0, block=max(16, block), options=PolygonOptions())
        table = pq.read_table(vectors)
    codes = np.asarray(table.column("code").to_numpy(), np.int64).astype(np.uint16)
    return np.asarray(shapely.from_wkb(table.column("geometry").to_pylist()), object).reshape(-1), codes


def _write(read: Read, shape: tuple[int, int], block: int, path: Path) -> bool:
    """Writes the labels as a raster without CRS; whether there are any."""
    found = False
    with _raster(path, shape) as file:
        for part in BlockGrid(shape, block):
            core = part.core
            labels = read(core)
            found |= bool(labels.any())
            file.write(labels, 1, window=Window(core.col, core.row, core.width, core.height))
    return found


@contextmanager
def _raster(path: Path, shape: tuple[int, int]) -> Iterator[rasterio.io.DatasetWriter]:
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "height": shape[0], "width": shape[1]}
    tiling = {"tiled": True, "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer"}
    with catch_warnings():
        simplefilter("ignore")  # it has no place on the Earth, on purpose
        with rasterio.open(path, "w", **profile, **tiling) as file:
            yield file


def _union(geometries: NDArray[np.object_]) -> shapely.Geometry:
    areal = geometries[shapely.get_dimensions(geometries) == 2]
    broken = ~shapely.is_valid(areal)
    areal = areal.copy()
    areal[broken] = shapely.make_valid(areal[broken])
    return shapely.union_all(areal)
