"""Polygons and points of any file that GDAL or GeoParquet's readers know, brought onto a pixel grid."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS
from shapely.errors import ShapelyError

from rssegment.errors import InputError, ReadError, TaxonomyError
from rssegment.evaluation.lookup import undecided_code
from rssegment.reference.footprint import crs_of, windows_of
from rssegment.reference.placing import on_grid, window_to_read
from rssegment.reference.vector_files import Layer, describe, read_layer, stamp
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.taxonomy.mapping import unknown_values
from rssegment.vector.rasterize import PixelShapes

__all__ = ["FeatureSource", "GridFeatures", "crs_of", "features_on"]

CODE = "code"  # the column that holds the class in the files that rssegment writes
_LISTED = 20  # columns that a message names
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
    window = window_to_read(windows_of(source.geobox, crs), layer.bounds)
    geometries, values = read_layer(source.path, layer, column, window, source.what)
    codes = _codes(source, values, len(geometries))
    geometries, remarks = _usable(geometries, source)
    if values is not None and (lost := int(np.sum(_missing(values)))):
        remarks.append(
            f"{lost} features of {source.path} have no value in {column!r}: what they cover is left out"
        )
    try:
        found = on_grid(geometries, source.geobox, crs)
        if not found.near.any():
            raise InputError(_no_overlap(source, layer, int(found.lost.sum())))
        geometries, codes = found.geometries[found.near], codes[found.near]
        shapes = PixelShapes.of(geometries, codes)
    except ShapelyError as error:
        raise InputError(
            f"the {source.what} {source.path} has geometries that can't be used: {error}"
        ) from error
    if found.lost.any():
        remarks.append(f"{found.lost.sum()} features of {source.path} have no place in the prediction's CRS")
    return GridFeatures(geometries, codes, shapes, tuple(remarks))


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
    """The layer's CRS, once both sides have one or neither does."""
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
    return layer.crs


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
    # a map made by backing off has polygons of undecided pixels; a reference that has none of its own can't
    open_ = undecided_code(source.taxonomy) if source.what == "prediction" else None
    return _own_codes(values, source.taxonomy, where, open_)


def _own_codes(
    values: NDArray[Any], taxonomy: Taxonomy, where: str, undecided: int | None
) -> NDArray[np.uint16]:
    """Codes of values that are codes, names or paths of the taxonomy, or that of ``undecided``; 0 for no value."""
    missing = _missing(values)
    distinct, places = np.unique(values[~missing].astype(object).astype(str), return_inverse=True)
    found = [_code(text, taxonomy, undecided) for text in distinct]
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


def _whole(text: str) -> int | None:
    number = text.strip().removesuffix(".0")
    return int(number) if number.isdecimal() else None


def _code(text: str, taxonomy: Taxonomy, undecided: int | None) -> int | None:
    number = _whole(text)
    if number is not None and number in (0, undecided):
        return number
    for key in (text, number):
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
    if nothing.size and nothing.all():
        raise InputError(
            f"none of the {len(nothing)} features of the {source.what} {source.path} has a geometry: it is a table; "
            "give the file that has their polygons or points"
        )
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


def _no_overlap(source: FeatureSource, layer: Layer, lost: int) -> str:
    if not layer.features:
        return f"the {source.what} {source.path} has no features"
    windows = windows_of(source.geobox, layer.crs)
    there = f" (in its CRS about {_listed(windows[0].near)})" if windows else ""
    theirs = f"; they lie within {_listed(layer.bounds)}" if layer.bounds and any(layer.bounds) else ""
    placeless = f"; {lost} have no place in its CRS" if lost else ""
    return (
        f"none of the {layer.features} features of the {source.what} {source.path} lies on the prediction{there}"
        f"{theirs}{placeless}; give the polygons of that area, and see that their CRS is right"
    )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)
