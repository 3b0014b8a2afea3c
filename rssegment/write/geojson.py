"""GeoJSON as a stream: RFC 7946, one feature a line, the same bytes for the same features."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.write.lonlat import Coordinates, lonlat_coordinates, plain_coordinates

__all__ = ["Features", "write_geojson"]

Features = tuple[NDArray[np.object_], Mapping[str, NDArray[Any]]]
"""(F,) shapely Polygons or MultiPolygons in the scene's CRS, and columns of (F,) values: text, whole numbers, decimal
numbers (NaN is null) or truth values."""


def write_geojson(
    path: str | Path | BinaryIO, features: Iterable[Features], crs: str | None, pixel: float = 1.0
) -> int:
    """Writes ``features``, chunk by chunk, to a file or an open binary file; returns their number.

    Coordinates are WGS 84 longitude and latitude, to a hundredth of a pixel or better (7 to 9 decimals); edges get
    the points they need to stay within 0.02 px of the scene's. ``pixel``: side of a pixel in CRS units.
    Without ``crs`` there is no longitude: coordinates are written as they are, pixel (col, row) of the raster, which
    RFC 7946 does not foresee; tell the user. Memory grows with a chunk, not with the file.

    Raises
    ------
    InputError
        A geometry is not a polygon, columns differ in length, or coordinates are outside what the CRS can express.
    """
    if isinstance(path, str | Path):
        with Path(path).open("wb") as file:
            return _write(file, features, crs, pixel)
    return _write(path, features, crs, pixel)


def _write(file: BinaryIO, features: Iterable[Features], crs: str | None, pixel: float) -> int:
    count = 0
    file.write(b'{"type":"FeatureCollection","features":[')
    for polygons, columns in features:
        if not len(polygons):
            continue
        _check(polygons, columns)
        file.write(b",\n" if count else b"\n")
        place = plain_coordinates(polygons) if crs is None else lonlat_coordinates(polygons, crs, pixel)
        file.write(b",\n".join(_lines(place, columns)))
        count += len(polygons)
    file.write(b"\n]}\n")
    return count


def _check(polygons: NDArray[np.object_], columns: Mapping[str, NDArray[Any]]) -> None:
    import shapely

    kinds = shapely.get_type_id(polygons)
    wrong = ~np.isin(kinds, [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
    if wrong.any() or shapely.is_empty(polygons).any():
        raise InputError("only polygons that are not empty can be written")
    for name, values in columns.items():
        if len(values) != len(polygons):
            raise InputError(f"column {name!r} has {len(values)} values for {len(polygons)} polygons")


def _lines(place: Coordinates, columns: Mapping[str, NDArray[Any]]) -> list[bytes]:
    """One GeoJSON feature each."""
    from rssegment.write._format import BYTES_PER_POINT, format_coordinates

    size = BYTES_PER_POINT * len(place.points) + 4 * (
        place.rings.size + place.polygons.size + place.features.size
    )
    text, ends = np.empty(size, np.uint8), np.empty(place.features.size, np.int64)
    format_coordinates(place.points, place.rings, place.polygons, place.features, place.decimals, text, ends)
    coordinates = text[: ends[-1]].tobytes()
    kinds = np.where(np.diff(place.features) > 1, b"MultiPolygon", b"Polygon").tolist()
    bounds = ends.tolist()
    return [
        b'{"type":"Feature","properties":{%b},"geometry":{"type":"%b","coordinates":%b}}'
        % (properties, kind, coordinates[start:stop])
        for properties, kind, start, stop in zip(
            _properties(columns, len(kinds)), kinds, bounds, bounds[1:], strict=False
        )
    ]


def _properties(columns: Mapping[str, NDArray[Any]], n: int) -> list[bytes]:
    """The inside of each feature's ``properties``, keys in the order of ``columns``."""
    if not columns:
        return [b""] * n
    keys = [json.dumps(name, ensure_ascii=False) + ":" for name in columns]
    texts = [
        [key + value for value in _texts(values)] for key, values in zip(keys, columns.values(), strict=True)
    ]
    return [",".join(row).encode() for row in zip(*texts, strict=True)]


def _texts(values: NDArray[Any]) -> list[str]:
    """Each value as JSON."""
    kind = np.asarray(values).dtype.kind
    if kind in "iu":
        return list(map(str, values.tolist()))
    if kind == "f":
        finite = np.isfinite(values).tolist()
        return [
            repr(value) if known else "null" for value, known in zip(values.tolist(), finite, strict=True)
        ]
    written: dict[Any, str] = {}
    for value in values.tolist():
        if value not in written:
            written[value] = json.dumps(value, ensure_ascii=False)
    return [written[value] for value in values.tolist()]
