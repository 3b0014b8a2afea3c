"""Features as Arrow arrays: typed columns with nulls, and WKB made without a Python object a feature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.write._geometry import wkb_bytes
from rssegment.write.features import Kind, Rings, Schema

__all__ = ["ARROW_TYPES", "arrow_schema", "regrouped", "to_arrow", "to_wkb"]

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "text": pa.string(),
}
_LARGEST = 2**31 - 1
_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 1 << 26


def arrow_schema(schema: Schema) -> pa.Schema:
    """The columns of ``schema`` with Arrow's types."""
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in schema.items()])


def to_arrow(name: str, values: NDArray[Any], kind: Kind) -> pa.Array:
    """The (F,) ``values`` of column ``name``; what is masked, None or not finite is null.

    Raises
    ------
    InputError
        A value does not fit the column's type.
    """
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    plain = np.asarray(values)
    if plain.dtype.kind == "f":
        mask = ~np.isfinite(plain) | (False if mask is None else mask)
        if kind.startswith("int"):
            plain = np.where(mask, 0, plain)
    try:
        return pa.array(plain, None if kind != "text" else pa.string(), mask=mask, from_pandas=True).cast(
            ARROW_TYPES[kind]
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeError) as error:
        raise InputError(f"column {name!r} holds a value that is no {kind}: {error}") from error


def to_wkb(rings: Rings, *, multi: bool) -> pa.Array:
    """(F,) WKB, least byte first: all MultiPolygons where ``multi``, else Polygons where a feature has one part.

    Raises
    ------
    InputError
        More than 2 GB in one chunk.
    """
    size = 16 * len(rings.xy) + 4 * rings.rings.size + 9 * (rings.polygons.size + rings.features.size)
    if size > _LARGEST:
        raise InputError(
            f"{len(rings)} features take {size / 1e9:.1f} GB of coordinates, more than a chunk can have (2.1 GB); "
            "simplify them, or write GeoJSON"
        )
    out, ends = np.empty(size, np.uint8), np.empty(rings.features.size, np.int64)
    points = np.ascontiguousarray(rings.xy, "<f8").view(np.uint8).reshape(-1, 16)
    wkb_bytes(points, rings.rings, rings.polygons, rings.features, multi, out, ends)
    offsets = pa.py_buffer(ends.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(rings), [None, offsets, pa.py_buffer(out[: ends[-1]])])


def regrouped(tables: Iterable[pa.Table | pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in tables of 65536 rows, or 64 MB of geometries: what depends on their ends depends on no chunk."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        lengths = pc.binary_length(table["geometry"]).to_numpy(zero_copy_only=False).astype(np.int64)
        whole = table if isinstance(table, pa.Table) else pa.Table.from_batches([table])
        start = 0
        while start < len(whole):
            room = int(np.searchsorted(np.cumsum(lengths[start:]), _GROUP_BYTES - size, "right"))
            count = min(len(whole) - start, _GROUP_ROWS - rows, max(room, 0 if rows else 1))
            held.append(whole.slice(start, count))
            rows, size, start = rows + count, size + int(lengths[start : start + count].sum()), start + count
            if start < len(whole) or rows == _GROUP_ROWS:
                yield pa.concat_tables(held).combine_chunks()
                held, rows, size = [], 0, 0
    if rows:
        yield pa.concat_tables(held).combine_chunks()
