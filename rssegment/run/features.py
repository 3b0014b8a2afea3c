"""Polygons and points of any file that GDAL or GeoParquet's readers know, brought onto a pixel grid."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from rssegment.errors import InputError, ReadError, TaxonomyError
from rssegment.grid import ground_resolution
from rssegment.run.vector_files import Bounds, Layer, describe, read_layer, stamp
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.taxonomy.mapping import unknown_values
from rssegment.vector.rasterize import PixelShapes

__all__ = ["FeatureSource", "GridFeatures", "crs_of", "features_on"]

CODE = "code"  # the column that holds the class in the files that rssegment writes
_LISTED = 20  # columns that a message names
_EARTH = 6.4e6  # m, radius
_SAG = 0.02  # px that a straight edge may lie beside its true curve
_AREAL = [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON]
_POINTS = [shapely.GeometryType.POINT, shapely.GeometryType.MULTIPOINT]


@dataclass(frozen=True)
class FeatureSource:
    """Which features, and what class each means: a value, small and fit to travel.

    ``label``: the code that all have; else ``column`` tells, through ``mapping`` or as codes, names or paths of
    ``taxonomy``. Without any of these every feature has the value 1. ``what`` names the file in messages.
    """

    path: str
    geobox: GeoBox
    what: str = "reference"
    layer: str | None = None
    column: str | None = None
    label: int | None = None
    taxonomy: Taxonomy | None = None
    mapping: ClassMapping | None = None
    stamp: int = 0


@dataclass(frozen=True, eq=False)
class GridFeatures:
    """The features of a file that may lie on the grid, in pixel coordinates (col, row) of the whole grid.

    ``geometries`` (n,) in the file's order, ``codes`` (n,) uint16: their classes, 0 for left out or unknown;
    ``remarks``: what was not used, and why.
    """

    geometries: NDArray[np.object_]
    codes: NDArray[np.uint16]
    shapes: PixelShapes
    remarks: tuple[str, ...]


def crs_of(geobox: GeoBox) -> CRS | None:
    """The CRS of a grid as pyproj's; None if it has none."""
    return None if geobox.crs is None else CRS.from_wkt(geobox.crs.to_wkt())


def features_on(source: FeatureSource) -> GridFeatures:
    """The features that may lie on the grid of ``source``, read once per process and file version.

    Edges are cut into pieces so short that, brought to another CRS, they follow their curve to a fiftieth of a pixel.
    Memory: all features whose boxes touch the grid's, 16 bytes for each vertex and some hundred for each feature.

    Raises
    ------
    InputError
        The file can't be read or placed, has no such column, classes that are unknown, or nothing on the grid.
    ReadError
        It was replaced since the source was made.
    """
    with _lock:
        return _features(source)


_lock = threading.Lock()


@lru_cache(maxsize=4)
def _features(source: FeatureSource) -> GridFeatures:
    if stamp(source.path) != source.stamp:
        raise ReadError(f"the {source.what} {source.path} changed since it was opened; start again")
    layer = describe(source.path, source.layer, source.what)
    column = _column(source, layer)
    crs = _placing(source, layer)
    window = _window(source.geobox, layer.crs)
    geometries, values = read_layer(source.path, layer, column, window, source.what)
    codes = _codes(source, values, len(geometries))
    geometries, remarks = _usable(geometries, source)
    if values is not None and (lost := int(np.sum(_missing(values)))):
        remarks.append(
            f"{lost} features of {source.path} have no value in {column!r}: what they cover is left out"
        )
    geometries = _on_grid(geometries, source.geobox, layer.crs, crs)
    near, lost = _near(geometries, source.geobox)
    if not near.any():
        raise InputError(_no_overlap(source, layer))
    if lost:
        remarks.append(f"{lost} features of {source.path} have no place in the prediction's CRS")
    geometries, codes = geometries[near], codes[near]
    return GridFeatures(geometries, codes, PixelShapes.of(geometries, codes), tuple(remarks))


def _column(source: FeatureSource, layer: Layer) -> str | None:
    """The column that tells the class, or None where one class is all."""
    if source.label is not None or (source.taxonomy is None and source.mapping is None):
        return None
    column = source.column or (CODE if CODE in layer.columns else None)
    listing = ", ".join(layer.columns[:_LISTED]) + (", ..." if len(layer.columns) > _LISTED else "") or "none"
    if column is None:
        raise InputError(
            f"which class are the features of the {source.what} {source.path}? Say in which column it is (column: "
            f"{listing}), or give one class for all (label)"
        )
    if column not in layer.columns:
        raise InputError(f"the {source.what} {source.path} has no column {column!r}; it has {listing}")
    return column


def _placing(source: FeatureSource, layer: Layer) -> CRS | None:
    """The grid's CRS, once both sides have one or neither does."""
    crs = crs_of(source.geobox)
    if crs is None and layer.crs is not None:
        raise InputError(
            f"the prediction has no CRS, and the {source.what} {source.path} has {layer.crs.name}; give the prediction "
            "its own, as by gdal_edit.py -a_srs EPSG:XXXX"
        )
    if crs is not None and layer.crs is None:
        raise InputError(
            f"the {source.what} {source.path} has no CRS; give it its own, as by ogr2ogr -a_srs EPSG:XXXX"
        )
    return crs


def _window(geobox: GeoBox, crs: CRS | None) -> Bounds | None:
    """The grid's box in the layer's CRS, a little larger; None where that can't be told."""
    own = crs_of(geobox)
    rows, cols = geobox.shape
    xs, ys = zip(
        *(geobox.affine * corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))), strict=True
    )
    box = (min(xs), min(ys), max(xs), max(ys))
    if own is not None and crs is not None:
        try:
            box = Transformer.from_crs(own, crs, always_xy=True).transform_bounds(*box, densify_pts=21)
        except ProjError:
            return None
    left, low, right, high = box
    if (
        not all(map(math.isfinite, box)) or left >= right or low >= high
    ):  # over the antimeridian, or round a pole
        return None
    more = 0.01 * max(right - left, high - low)
    return left - more, low - more, right + more, high + more


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values), bool)
    if values.dtype.kind != "O":
        return np.zeros(len(values), bool)
    return np.array([value is None or value == "" or value != value for value in values], bool)  # noqa: PLR0124


def _codes(source: FeatureSource, values: NDArray[Any] | None, count: int) -> NDArray[np.uint16]:
    """(n,) the class of each feature."""
    if values is None:
        return np.full(count, 1 if source.label is None else source.label, np.uint16)
    where = f"column {source.column or CODE!r} of the {source.what} {source.path}"
    if source.mapping is not None:
        return source.mapping.codes(values, where)
    assert source.taxonomy is not None, "without mapping or taxonomy no column is read"
    return _own_codes(values, source.taxonomy, where)


def _own_codes(values: NDArray[Any], taxonomy: Taxonomy, where: str) -> NDArray[np.uint16]:
    """Codes of values that are codes, names or paths of the taxonomy already; 0 where there is no value."""
    missing = _missing(values)
    distinct, places = np.unique(values[~missing].astype(object).astype(str), return_inverse=True)
    found = [_code(text, taxonomy) for text in distinct]
    unknown = [i for i, code in enumerate(found) if code is None]
    if unknown:
        times = np.bincount(places)[unknown]
        raise InputError(
            f"{where} has values that are no classes of taxonomy {taxonomy.name!r}: "
            f"{unknown_values(distinct[unknown], times, 'x')}; expected codes, names or paths, or a mapping to them"
        )
    codes = np.zeros(len(values), np.uint16)
    codes[~missing] = np.array([code or 0 for code in found], np.uint16)[places]
    return codes


def _code(text: str, taxonomy: Taxonomy) -> int | None:
    number = text.strip().removesuffix(".0")
    if number == "0":
        return 0
    for key in (text, int(number) if number.isdecimal() else None):
        try:
            if key is not None:
                return taxonomy.node(key).code
        except TaxonomyError:
            continue
    return None


def _usable(geometries: NDArray[np.object_], source: FeatureSource) -> tuple[NDArray[np.object_], list[str]]:
    """The geometries with None for those that label nothing, and what there is to say of them."""
    remarks = []
    nothing = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    if nothing.any():
        remarks.append(f"{int(nothing.sum())} features of {source.path} have no geometry")
    kinds = shapely.get_type_id(geometries)
    lines = ~nothing & ~np.isin(kinds, [*_AREAL, *_POINTS, shapely.GeometryType.GEOMETRYCOLLECTION])
    if lines.any() and lines.sum() == (~nothing).sum():
        raise InputError(
            f"the {source.what} {source.path} holds lines only; expected polygons or points "
            "(lines become polygons by buffering them to their true width)"
        )
    if lines.any():
        remarks.append(f"{int(lines.sum())} features of {source.path} are lines and label nothing")
    geometries = geometries.copy()
    geometries[lines] = None
    return shapely.force_2d(geometries), remarks


def _on_grid(
    geometries: NDArray[np.object_], geobox: GeoBox, crs: CRS | None, target: CRS | None
) -> NDArray[np.object_]:
    """Geometries in pixel coordinates (col, row); points that have no place on the grid's map are far away."""
    if crs is not None and target is not None and not crs.equals(target, ignore_axis_order=True):
        areal = np.isin(shapely.get_type_id(geometries), _AREAL)
        geometries[areal] = shapely.segmentize(geometries[areal], _longest(geobox, crs))
        to_grid = Transformer.from_crs(crs, target, always_xy=True)
        geometries = shapely.transform(
            geometries, lambda xy: np.column_stack(to_grid.transform(xy[:, 0], xy[:, 1]))
        )
    inverse = ~geobox.affine

    def to_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        col = inverse.a * xy[:, 0] + inverse.b * xy[:, 1] + inverse.c
        row = inverse.d * xy[:, 0] + inverse.e * xy[:, 1] + inverse.f
        return np.column_stack([col, row])

    return np.asarray(shapely.transform(geometries, to_pixels), object)


def _near(geometries: NDArray[np.object_], geobox: GeoBox) -> tuple[NDArray[np.bool_], int]:
    """Which geometries, in pixels, may touch the grid; and how many have no place in its CRS."""
    rows, cols = geobox.shape
    left, top, right, bottom = shapely.bounds(geometries).T
    placed = np.isfinite([left, top, right, bottom]).all(axis=0)
    near = placed & (left < cols) & (right >= 0) & (top < rows) & (bottom >= 0)
    return near, int(np.sum(~placed & ~shapely.is_missing(geometries) & ~shapely.is_empty(geometries)))


def _longest(geobox: GeoBox, crs: CRS) -> float:
    """Longest edge (units of ``crs``) whose curve, in another CRS, bulges by less than _SAG px."""
    metres = math.sqrt(8 * _EARTH * _SAG * min(ground_resolution(geobox)))
    if crs.is_geographic:
        return metres / 111_320
    return metres / float(crs.axis_info[0].unit_conversion_factor or 1)


def _no_overlap(source: FeatureSource, layer: Layer) -> str:
    if not layer.features:
        return f"the {source.what} {source.path} has no features"
    window = _window(source.geobox, layer.crs)
    there = "" if window is None else f" (in its CRS about {', '.join(f'{value:.6g}' for value in window)})"
    return (
        f"none of the {layer.features} features of the {source.what} {source.path} lies on the prediction{there}; "
        "give the polygons of that area, and see that their CRS is right"
    )
