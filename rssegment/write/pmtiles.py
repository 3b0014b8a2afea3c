"""PMTiles: vector tiles of a web map in one file, by GDAL's driver."""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rssegment.errors import OutputError
from rssegment.write.arrow import arrow_schema, to_wkb
from rssegment.write.features import Chunk, Layer, Rings, Schema
from rssegment.write.lonlat import Coordinates
from rssegment.write.ogr import GEOMETRY, Target, write_ogr

__all__ = ["write_pmtiles", "zooms"]

_RADIUS = 6_378_137.0
_TURN = 2 * math.pi * _RADIUS  # m round the equator, and a side of the one tile of zoom 0
_UNITS = 4096  # coordinates along a side of a tile
_EDGE = math.degrees(math.atan(math.sinh(math.pi)))  # latitude where the one tile of zoom 0 ends
_LARGEST_TILE = 2_000_000  # bytes; GDAL's own limit, a quarter of it, coarsens tiles of 10,000 regions
_LARGEST_ZOOM = 22
_LEVELS = 5  # zooms below the largest, where the scene's size is not known


def write_pmtiles(path: Path, chunks: Iterator[Chunk], schema: Schema, layer: Layer) -> int:
    """Writes vector tiles; returns the number of features that went in.

    What lies beyond 85.05 degrees is cut off, as on every web map.

    Raises
    ------
    OutputError
        The layer has no CRS, so its features have no place on a web map.
    """
    if layer.crs is None:  # as check_format says beforehand
        raise OutputError("vector tiles need a place on a web map, and the layer has no CRS")
    least, greatest = zooms(layer.crs, layer.pixel, layer.side)
    full = arrow_schema(schema).append(GEOMETRY)
    count = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal count
        for chunk in chunks:
            count += len(chunk)
            rings, kept = _on_the_map(chunk.lonlat)
            if len(rings):
                columns = [values.filter(pa.array(kept)) for values in chunk.arrow.values()]
                yield pa.record_batch([*columns, to_wkb(rings, multi=True)], schema=full)

    source = batches()
    first = next(source, None)
    if first is None:
        path.write_bytes(_empty_archive(layer.name, schema))
        return count
    options = {
        "NAME": layer.name,
        "TYPE": "overlay",
        "MINZOOM": str(least),
        "MAXZOOM": str(greatest),
        "MAX_SIZE": str(_LARGEST_TILE),
    }
    write_ogr(Target(path, "PMTiles", "EPSG:3857", layer.name, options), chain([first], source), full)
    return count


def zooms(crs: str, pixel: float, side: float | None = None) -> tuple[int, int]:
    """Least and greatest zoom for pixels of ``pixel`` CRS units in a scene of ``side`` CRS units.

    At the greatest, a unit of a tile is a quarter of a pixel or less; at the least, the scene is about one tile.
    """
    from pyproj import CRS

    system = CRS.from_user_input(crs)
    metres = system.axis_info[0].unit_conversion_factor * (_RADIUS if system.is_geographic else 1)
    greatest = math.ceil(math.log2(_TURN * 4 / (_UNITS * pixel * metres)))
    greatest = min(max(greatest, 0), _LARGEST_ZOOM)
    least = greatest - _LEVELS if side is None else math.floor(math.log2(_TURN / (side * metres)))
    return min(max(least, 0), greatest), greatest


def _on_the_map(place: Coordinates) -> tuple[Rings, NDArray[np.bool_]]:
    """Rings in Web Mercator (m), cut at its edge; (F,) which features are still there."""
    rings = Rings(place.points / 10.0**place.decimals, place.rings, place.polygons, place.features)
    kept = np.diff(place.features) > 0
    if (np.abs(rings.xy[:, 1]) > _EDGE).any() or not kept.all():
        rings, kept = _cut(rings)
    lon, lat = np.radians(rings.xy[:, 0]), np.radians(np.clip(rings.xy[:, 1], -_EDGE, _EDGE))
    xy = np.column_stack([lon, np.arctanh(np.sin(lat))]) * _RADIUS
    return Rings(xy, rings.rings, rings.polygons, rings.features), kept


def _cut(rings: Rings) -> tuple[Rings, NDArray[np.bool_]]:
    """The rings (degrees) without what lies beyond the map's edge; (F,) which features are still there."""
    import shapely

    polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, rings.xy, (rings.rings, rings.polygons)
    )
    owner = np.repeat(np.arange(len(rings)), np.diff(rings.features))
    bounds = shapely.bounds(polygons)
    beyond = (bounds[:, 1] < -_EDGE) | (bounds[:, 3] > _EDGE)
    polygons[beyond] = shapely.intersection(polygons[beyond], shapely.box(-180, -_EDGE, 180, _EDGE))
    parts, index = shapely.get_parts(polygons, return_index=True)
    areal = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    parts, owner = parts[areal], owner[index[areal]]
    if not parts.size:
        nothing = np.zeros(1, np.int64)
        return Rings(np.empty((0, 2)), nothing, nothing, nothing), np.zeros(len(rings), np.bool_)
    count = np.bincount(owner, minlength=len(rings))
    kept = count > 0
    features = np.concatenate([[0], np.cumsum(count[kept])])
    each = Rings.of(parts)
    return Rings(each.xy, each.rings, each.polygons, features).oriented(), kept


def _empty_archive(name: str, schema: Schema) -> bytes:
    """A PMTiles archive (version 3) without tiles, which GDAL refuses to make."""
    fields: dict[str, Any] = {
        column: {"text": "String", "bool": "Boolean"}.get(kind, "Number") for column, kind in schema.items()
    }
    about = {"name": name, "vector_layers": [{"id": name, "fields": fields, "minzoom": 0, "maxzoom": 0}]}
    root, metadata = gzip.compress(b"\0", mtime=0), gzip.compress(json.dumps(about).encode(), mtime=0)
    return _header(len(root), len(metadata)) + root + metadata


def _header(root: int, metadata: int) -> bytes:
    """The 127 bytes that begin an archive: https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md"""
    end = 127 + root + metadata
    places = struct.pack("<8Q", 127, root, 127 + root, metadata, end, 0, end, 0)
    counts = struct.pack("<3Q", 0, 0, 0)
    clustered, gzipped, vector = 1, 2, 1
    kinds = struct.pack("<6B", clustered, gzipped, gzipped, vector, 0, 0)
    world = struct.pack("<4i", -1_800_000_000, -850_000_000, 1_800_000_000, 850_000_000)
    return b"PMTiles\x03" + places + counts + kinds + world + struct.pack("<Bii", 0, 0, 0)
