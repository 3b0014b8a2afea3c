"""GeoParquet 1.1 as a stream: WKB, a box for each feature, the CRS as PROJJSON, rows along a Hilbert curve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rssegment.errors import OutputError
from rssegment.write._geometry import hilbert_keys
from rssegment.write.arrow import arrow_schema, regrouped, to_wkb
from rssegment.write.features import Chunk, Layer, Schema
from rssegment.write.sorting import RUN_BYTES, in_order

__all__ = ["write_parquet"]

Float = NDArray[np.float64]

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_BOX = pa.struct([(side, pa.float64()) for side in _SIDES])


def write_parquet(
    path: Path, chunks: Iterator[Chunk], schema: Schema, layer: Layer, run_bytes: int = RUN_BYTES
) -> int:
    """Writes GeoParquet 1.1 in the layer's CRS (null where there is none); returns the number of features.

    Rows are in the order of a Hilbert curve through the centres of their boxes, over the whole file: what does not
    fit ``run_bytes`` of memory is sorted in pieces on the disk of ``path``. A row group has 65536 rows, or
    64 MB of geometries. The same features in the same order give the same bytes.

    Raises
    ------
    OutputError
        A column bears a name that the format needs.
    """
    for name in ("geometry", "bbox"):
        if name in schema:
            raise OutputError(f"GeoParquet needs the column {name!r} for itself; rename yours")
    full = (
        arrow_schema(schema)
        .append(pa.field("geometry", pa.binary(), nullable=False))
        .append(pa.field("bbox", _BOX))
    )
    extent = _Extent()
    batches = (_batch(chunk, full, extent) for chunk in chunks)
    count = 0
    with path.open("wb") as file, _writer(file, full, schema) as writer:
        for table in regrouped(in_order(batches, path.parent, run_bytes)):
            writer.write_table(table, row_group_size=len(table))
            count += len(table)
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(extent, layer.crs))})
    return count


def _writer(file: Any, full: pa.Schema, schema: Schema) -> pq.ParquetWriter:
    leaves = [*schema, *(f"bbox.{side}" for side in _SIDES)]
    return pq.ParquetWriter(
        file,
        full,
        compression="zstd",
        use_dictionary=[name for name, kind in schema.items() if kind == "text"],
        write_statistics=leaves,  # the least and greatest WKB mean nothing
    )


class _Extent:
    """The box of all features, and the kinds of geometry among them."""

    def __init__(self) -> None:
        self.box: Float = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self.kinds: set[str] = set()

    def add(self, chunk: Chunk, boxes: Float) -> None:
        self.box = np.concatenate(
            [
                np.minimum(self.box[:2], boxes[:, :2].min(axis=0)),
                np.maximum(self.box[2:], boxes[:, 2:].max(axis=0)),
            ]
        )
        several = np.diff(chunk.rings.features) != 1
        self.kinds |= (
            {"MultiPolygon"}
            if several.all()
            else {"Polygon", "MultiPolygon"}
            if several.any()
            else {"Polygon"}
        )


def _batch(chunk: Chunk, full: pa.Schema, extent: _Extent) -> tuple[NDArray[np.uint64], pa.RecordBatch]:
    boxes = chunk.rings.bounds()
    extent.add(chunk, boxes)
    sides = [pa.array(boxes[:, k]) for k in range(4)]
    columns = [
        *chunk.arrow.values(),
        to_wkb(chunk.rings, multi=False),
        pa.StructArray.from_arrays(sides, fields=list(_BOX)),
    ]
    return _keys(boxes, chunk.layer.pixel), pa.record_batch(columns, schema=full)


def _keys(boxes: Float, pixel: float) -> NDArray[np.uint64]:
    """Places of the boxes' centres along a curve through half pixels, of one lattice for all scenes of a CRS."""
    cells = np.floor((boxes[:, :2] + boxes[:, 2:]) / pixel) + 2.0**31
    cells = np.clip(cells, 0, 2.0**32 - 1).astype(np.uint32)
    keys = np.empty(len(cells), np.uint64)
    hilbert_keys(np.ascontiguousarray(cells[:, 0]), np.ascontiguousarray(cells[:, 1]), keys)
    return keys


def _metadata(extent: _Extent, crs: str | None) -> dict[str, Any]:
    """The file's ``geo`` metadata: https://geoparquet.org/releases/v1.1.0/"""
    from pyproj import CRS

    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(extent.kinds),
        "crs": None if crs is None else CRS.from_user_input(crs).to_json_dict(),
        "edges": "planar",
        "orientation": "counterclockwise",
        "covering": {"bbox": {side: ["bbox", side] for side in _SIDES}},
    }
    if extent.kinds:
        column["bbox"] = extent.box.tolist()
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
