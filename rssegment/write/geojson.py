"""GeoJSON as a stream: RFC 7946, one feature a line, the same bytes for the same features."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rssegment.write.features import Chunk, Features, Layer, chunks_of

__all__ = ["Features", "write_collection", "write_geojson", "write_lines"]

_TEXT = pa.large_string()


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
    chunks = chunks_of(features, Layer(crs, pixel))
    if isinstance(path, str | Path):
        with Path(path).open("wb") as file:
            return write_collection(file, chunks)
    return write_collection(path, chunks)


def write_collection(file: BinaryIO, chunks: Iterator[Chunk]) -> int:
    """Writes a FeatureCollection, one feature a line; returns the number of features."""
    count = 0
    file.write(b'{"type":"FeatureCollection","features":[')
    for chunk in chunks:
        text = memoryview(_text(chunk, ",\n", ""))
        file.write(text if count else text[1:])  # no comma before the first
        count += len(chunk)
    file.write(b"\n]}\n")
    return count


def write_lines(file: BinaryIO, chunks: Iterator[Chunk]) -> int:
    """Writes one feature a line, each ended by a newline and nothing else; returns the number of features."""
    count = 0
    for chunk in chunks:
        file.write(_text(chunk, "", "\n"))
        count += len(chunk)
    return count


def _text(chunk: Chunk, before: str, after: str) -> pa.Buffer:
    """All features of ``chunk`` in GeoJSON, with texts between them. No Python object a feature."""
    from rssegment.write._format import BYTES_PER_POINT, format_coordinates

    place = chunk.lonlat
    size = BYTES_PER_POINT * len(place.points) + 4 * (
        place.rings.size + place.polygons.size + place.features.size
    )
    out, ends = np.empty(size, np.uint8), np.empty(place.features.size, np.int64)
    format_coordinates(place.points, place.rings, place.polygons, place.features, place.decimals, out, ends)
    coordinates = pa.Array.from_buffers(
        _TEXT, len(chunk), [None, pa.py_buffer(ends), pa.py_buffer(out[: ends[-1]])]
    )
    several = pa.array(np.diff(place.features) != 1)
    middle = pc.if_else(several, _constant(_MIDDLE % "MultiPolygon"), _constant(_MIDDLE % "Polygon"))
    parts = [*_properties(chunk, before + _START), middle, coordinates, _constant("}}" + after)]
    joined = pc.binary_join_element_wise(*parts, _constant(""))
    _, offsets, data = joined.buffers()
    first, last = np.frombuffer(offsets, np.int64)[[joined.offset, joined.offset + len(joined)]]
    return data[first:last]


_START = '{"type":"Feature","properties":{'
_MIDDLE = '},"geometry":{"type":"%s","coordinates":'


def _constant(text: str) -> pa.Scalar:
    return pa.scalar(text, _TEXT)


def _properties(chunk: Chunk, before: str) -> Iterator[pa.Scalar | pa.Array]:
    """What goes before ``}`` of the properties: keys and values in turn, keys in the order of the columns."""
    if not chunk.schema:
        yield _constant(before)
    for k, (name, values) in enumerate(chunk.arrow.items()):
        key = json.dumps(name, ensure_ascii=False) + ":"
        yield _constant((before if k == 0 else ",") + key)
        yield pc.fill_null(_json_of(values), "null")


def _json_of(values: pa.Array) -> pa.Array:
    """Each value as JSON; null stays null."""
    if pa.types.is_string(values.type):
        texts = values.dictionary_encode()
        written = [json.dumps(text, ensure_ascii=False) for text in texts.dictionary.to_pylist()]
        return pa.array(written, _TEXT).take(texts.indices)
    texts = values.cast(_TEXT)
    if pa.types.is_floating(values.type):
        whole = pc.invert(
            pc.match_substring_regex(texts, "[.e]")
        )  # readers guess a column's type by its look
        texts = pc.if_else(whole, pc.binary_join_element_wise(texts, _constant(".0"), _constant("")), texts)
    return texts
