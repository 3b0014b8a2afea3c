"""ESRI Shapefile within its limits: what does not fit is refused before a byte of it is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from rssegment.errors import OutputError
from rssegment.write.arrow import arrow_schema, to_wkb
from rssegment.write.features import Chunk, Kind, Layer, Rings, Schema
from rssegment.write.ogr import GEOMETRY, NO_DATE, Target, write_ogr

__all__ = ["FIELDS", "LARGEST_FILE", "field_names", "write_shapefile"]

FIELDS = {
    "perimeter_m": "perim_m",
    "confidence_min": "conf_min",
    "touches_nodata": "at_nodata",
    "touches_edge": "at_edge",
}
"""Names of columns that a Shapefile has no room for, and what they are called there."""

LARGEST_FILE = (1 << 31) - 1  # bytes that all readers can follow
_LONGEST_NAME, _LONGEST_TEXT = 10, 254  # bytes
_LONGEST_NUMBER = 18  # digits and sign; readers take longer ones for decimal numbers, and lose digits
_WIDTHS: dict[Kind, int] = {"int32": 9, "int64": 18, "float64": 24, "bool": 1, "text": 80}  # GDAL's own


def write_shapefile(
    path: Path, chunks: Iterator[Chunk], schema: Schema, layer: Layer, largest: int = LARGEST_FILE
) -> int:
    """Writes ``path`` (.shp) with its .shx, .dbf, .cpg (UTF-8) and, with a CRS, .prj; returns the number of features.

    Raises
    ------
    OutputError
        A name, a text or a number is too long, a truth value is null, or a file would grow beyond ``largest`` bytes.
    """
    names = field_names(schema)
    renamed = {names[name]: kind for name, kind in schema.items()}
    full = arrow_schema(renamed).append(GEOMETRY)
    limits = _Limits(path, schema, largest)

    def batches() -> Iterator[pa.RecordBatch]:
        for chunk in chunks:
            limits.add(chunk)
            yield pa.record_batch([*chunk.arrow.values(), to_wkb(chunk.rings, multi=True)], schema=full)

    target = Target(
        path, "ESRI Shapefile", layer.crs, path.stem, layer_options={"DBF_DATE_LAST_UPDATE": NO_DATE}
    )
    return write_ogr(target, batches(), full)


def field_names(schema: Schema) -> dict[str, str]:
    """Name in the file of each column.

    Raises
    ------
    OutputError
        One is longer than 10 bytes and not one of ours, or two are the same but for their case.
    """
    names = {name: FIELDS.get(name, name) for name in schema}
    long = [name for name in names.values() if len(name.encode()) > _LONGEST_NAME]
    if long:
        raise OutputError(
            f"a Shapefile has field names of {_LONGEST_NAME} bytes at most, and {long[0]!r} is longer; "
            "rename it, or write gpkg, flatgeobuf or parquet"
        )
    if len({name.lower() for name in names.values()}) < len(names):
        raise OutputError(
            f"a Shapefile can't tell the field names {sorted(names.values())} apart; rename them"
        )
    return names


class _Limits:
    """Sizes of the files as they grow, known before they are written."""

    def __init__(self, path: Path, schema: Schema, largest: int) -> None:
        self._path, self._largest = path, largest
        self._widths = {name: _WIDTHS[kind] for name, kind in schema.items()}
        self._features, self._shapes = 0, 100

    def add(self, chunk: Chunk) -> None:
        for name, kind in chunk.schema.items():
            self._check_values(name, kind, chunk.arrow[name])
        self._features += len(chunk)
        self._shapes += _shape_bytes(chunk.rings)
        table = 34 + 32 * len(self._widths) + self._features * (1 + sum(self._widths.values()))
        for suffix, size in ((".shp", self._shapes), (".dbf", table)):
            if size > self._largest:
                raise OutputError(
                    f"{self._path.with_suffix(suffix)} would grow beyond {self._largest / 1e9:.2f} GB, the most that a "
                    f"Shapefile can hold, after {self._features} features; write gpkg, flatgeobuf or parquet"
                )

    def _check_values(self, name: str, kind: Kind, values: pa.Array) -> None:
        if kind == "bool" and values.null_count:
            raise OutputError(
                f"a Shapefile has no null truth values, and {name!r} holds one; write gpkg or parquet"
            )
        if kind in {"int32", "int64"}:
            self._check_numbers(name, values)
        if kind != "text":
            return
        longest = pc.max(pc.binary_length(values)).as_py() or 0
        if longest > _LONGEST_TEXT:
            raise OutputError(
                f"a Shapefile holds texts of {_LONGEST_TEXT} bytes, and {name!r} has one of {longest}; "
                "shorten it, or write gpkg, flatgeobuf or parquet"
            )
        self._widths[name] = max(self._widths[name], longest)

    def _check_numbers(self, name: str, values: pa.Array) -> None:
        ends = [each for each in pc.min_max(values).as_py().values() if each is not None]
        longest = max((len(str(each)) for each in ends), default=0)
        if longest > _LONGEST_NUMBER:
            raise OutputError(
                f"a Shapefile holds whole numbers of {_LONGEST_NUMBER} digits, and {name!r} has {max(ends, key=abs)}; "
                "write gpkg, flatgeobuf or parquet"
            )
        self._widths[name] = max(self._widths[name], longest)


def _shape_bytes(rings: Rings) -> int:
    """Size of the features in a .shp: 52 bytes, 4 a ring, 16 a point (ESRI 1998, p. 8)."""
    return 52 * len(rings) + 4 * (rings.rings.size - 1) + 16 * len(rings.xy)
