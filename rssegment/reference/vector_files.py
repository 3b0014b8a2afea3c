"""Files of polygons and points: what GDAL reads, and GeoParquet."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from pyproj import CRS
from pyproj.exceptions import ProjError
from shapely.errors import ShapelyError

from rssegment.errors import InputError, SceneError
from rssegment.reference.footprint import Bounds
from rssegment.scene.handles import is_remote, open_dataset

__all__ = ["Layer", "describe", "is_vector", "read_layer", "stamp"]

_PARQUET = (".parquet", ".geoparquet")
_VECTOR = (
    ".geojson", ".json", ".geojsonl", ".geojsons", ".gpkg", ".shp", ".fgb", ".parquet", ".geoparquet", ".kml", ".gml",
    ".gdb", ".csv",
)  # fmt: skip


class Layer(NamedTuple):
    """One layer of a vector file: its columns, its CRS (None: it says nothing), and how many features it has.

    ``bounds``: where they lie, in its CRS; None where that is unknown, or they have no geometry.
    """

    name: str | None
    columns: tuple[str, ...]
    crs: CRS | None
    features: int
    bounds: Bounds | None = None


def describe(path: str, layer: str | None = None, what: str = "reference") -> Layer:
    """The layer of a vector file.

    Raises
    ------
    InputError
        No file that can be read, no such layer, or several and none was chosen; says which there are.
    """
    if Path(path).suffix.lower() in _PARQUET:
        return _parquet_layer(path, what)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
            chosen = _chosen(names, layer, path, what)
            info = pyogrio.read_info(path, layer=chosen, force_feature_count=True, force_total_bounds=True)
    except (DataSourceError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"can't open the {what} {path}: {error}") from error
    crs = None if info["crs"] is None else _crs(info["crs"], path, what)
    return Layer(
        chosen, tuple(map(str, info["fields"])), crs, int(info["features"]), _bounds(info["total_bounds"])
    )


def _bounds(found: Any) -> Bounds | None:
    if found is None or not np.isfinite(found).all():
        return None
    west, south, east, north = map(float, found)
    return west, south, east, north


def is_vector(path: str) -> bool:
    """Whether a file holds polygons, not pixels, as far as can be told; one that is not there goes by its name."""
    if is_remote(path) or not os.path.exists(path):
        return Path(path).suffix.lower() in _VECTOR
    if Path(path).suffix.lower() in _PARQUET:
        return True
    try:
        return len(pyogrio.list_layers(path)) > 0 and not _has_pixels(path)
    except (DataSourceError, OSError, ValueError):
        return False


def _has_pixels(path: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_dataset(path) as file:
                return bool(file.count > 0 or file.subdatasets)
    except SceneError:
        return False


def _chosen(names: Sequence[str], layer: str | None, path: str, what: str) -> str:
    listing = ", ".join(names)
    if layer is not None and layer not in names:
        raise InputError(
            f"the {what} {path} has no layer {layer!r}; it has {listing or 'none with geometries'}"
        )
    if not names:
        raise InputError(f"the {what} {path} has no layer with geometries; give a file of polygons or points")
    if layer is None and len(names) > 1:
        raise InputError(f"the {what} {path} has {len(names)} layers; say which one by layer: {listing}")
    return layer or names[0]


def _crs(text: Any, path: str, what: str) -> CRS:
    try:
        return CRS.from_user_input(text)
    except ProjError as error:
        raise InputError(f"the {what} {path} has a CRS that can't be understood: {str(text)[:80]}") from error


def _parquet_layer(path: str, what: str) -> Layer:
    try:
        schema, rows = pq.read_schema(path), pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"can't open the {what} {path}: {error}") from error
    geometry, about = _parquet_geometry(schema, path, what)
    crs = about.get("crs", "OGC:CRS84")  # what the format says of its absence
    columns = tuple(name for name in schema.names if name not in (geometry, "bbox"))
    return Layer(None, columns, None if crs is None else _crs(crs, path, what), rows)


def _parquet_geometry(schema: pa.Schema, path: str, what: str) -> tuple[str, dict[str, Any]]:
    try:
        geo = json.loads((schema.metadata or {})[b"geo"])
        name = geo["primary_column"]
        about: dict[str, Any] = geo["columns"][name]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"the {what} {path} is Parquet without geometries; expected GeoParquet, as GeoPandas or GDAL write it"
        ) from error
    if about.get("encoding") != "WKB":
        raise InputError(
            f"the {what} {path} has geometries encoded as {about.get('encoding')}; expected WKB "
            "(ogr2ogr -lco GEOMETRY_ENCODING=WKB)"
        )
    return name, about


def read_layer(
    path: str, layer: Layer, column: str | None, window: Bounds | None, what: str = "reference"
) -> tuple[NDArray[np.object_], NDArray[Any] | None]:
    """Geometries (n,), None where there is none, and values of the column; where the format can tell, of those that
    touch ``window``.

    Raises
    ------
    InputError
        The file is damaged.
    """
    columns = [] if column is None else [column]
    try:
        if layer.name is None:
            name = _parquet_geometry(pq.read_schema(path), path, what)[0]
            table = pq.read_table(path, columns=[name, *columns])
            wkb = np.array(table.column(name).to_pylist(), object)
            values = _plain_values(table.column(column)) if column else None
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _, _, wkb, fields = pyogrio.raw.read(path, layer=layer.name, columns=columns, bbox=window)
            values = fields[0] if column else None
        return np.asarray(shapely.from_wkb(wkb), object).reshape(-1), values
    except (DataSourceError, OSError, ValueError, pa.ArrowException, ShapelyError) as error:
        raise InputError(f"can't read the {what} {path}: {error}") from error


def _plain_values(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return np.asarray(column.to_numpy())


def stamp(path: str) -> int:
    """Changes when the file is replaced."""
    return os.stat(path).st_mtime_ns if os.path.exists(path) else 0
