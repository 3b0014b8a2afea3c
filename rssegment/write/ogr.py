"""FlatGeobuf and GeoPackage, and what all formats share that GDAL writes: a stream of Arrow batches into a driver."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from rssegment.errors import OutputError, RssegmentError, StorageError
from rssegment.write.arrow import arrow_schema, regrouped, to_wkb
from rssegment.write.features import Chunk, Layer, Schema

__all__ = ["GEOMETRY", "NO_DATE", "Target", "batches_of", "write_flatgeobuf", "write_gpkg", "write_ogr"]

NO_DATE = "1970-01-01"  # files depend on what is in them, not on the day
GEOMETRY = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
_FULL = re.compile(r"no space left|disk (is )?full|disk I/O|write error|I/O failure|quota", re.IGNORECASE)
_DENIED = re.compile(r"permission denied|read-only|unable to open database file", re.IGNORECASE)
_LITTLE = 1 << 22  # bytes free on a disk that count as none


@dataclass(frozen=True)
class Target:
    """Where features go: GDAL's ``driver``, the CRS that is told to it, and its options."""

    path: Path
    driver: str
    crs: str | None
    layer: str
    dataset_options: Mapping[str, str] = field(default_factory=dict)
    layer_options: Mapping[str, str] = field(default_factory=dict)


def write_flatgeobuf(path: Path, chunks: Iterator[Chunk], schema: Schema, layer: Layer) -> int:
    """Writes FlatGeobuf with a packed Hilbert R-tree; returns the number of features."""
    target = Target(
        path, "FlatGeobuf", layer.crs, layer.name, layer_options={"TEMPORARY_DIR": str(path.parent)}
    )
    return write_ogr(target, batches_of(chunks, schema), _with_geometry(schema))


def write_gpkg(path: Path, chunks: Iterator[Chunk], schema: Schema, layer: Layer) -> int:
    """Writes a GeoPackage with an R-tree; returns the number of features. Its date of change is always the same.

    Raises
    ------
    OutputError
        A column bears a name that the format needs.
    """
    for name in ("fid", "geom"):
        if name in {column.lower() for column in schema}:
            raise OutputError(f"a GeoPackage needs the column {name!r} for itself; rename yours")
    options = {} if layer.crs else {"SRID": "-1"}  # pixels: "undefined Cartesian"
    count = write_ogr(
        Target(path, "GPKG", layer.crs, layer.name, layer_options=options),
        batches_of(chunks, schema),
        _with_geometry(schema),
    )
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE gpkg_contents SET last_change = ?", (f"{NO_DATE}T00:00:00.000Z",))
    return count


def batches_of(chunks: Iterable[Chunk], schema: Schema) -> Iterator[pa.RecordBatch]:
    """The chunks in their own CRS, all MultiPolygons: most of these formats want one kind of geometry."""
    full = _with_geometry(schema)
    for chunk in chunks:
        yield pa.record_batch([*chunk.arrow.values(), to_wkb(chunk.rings, multi=True)], schema=full)


def _with_geometry(schema: Schema) -> pa.Schema:
    return arrow_schema(schema).append(GEOMETRY)


def write_ogr(target: Target, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> int:
    """Streams ``batches`` into a new file of one layer; returns the number of features.

    Raises
    ------
    StorageError
        GDAL could not write it all.
    OutputError
        GDAL could not make the file at all.
    """
    import pyogrio

    source = _Source(_in_fixed_groups(batches), target.path.parent)
    target.path.open("wb").close()  # the system's refusal is plainer than GDAL's
    target.path.unlink()
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(schema, source),
            str(target.path),
            layer=target.layer,
            driver=target.driver,
            geometry_type="MultiPolygon",
            crs=target.crs,
            encoding="UTF-8" if target.driver == "ESRI Shapefile" else None,
            dataset_options=dict(target.dataset_options),
            layer_options=dict(target.layer_options),
        )
        _look_at(target, source.count)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, RuntimeError, ValueError) as error:
        if source.error is not None:  # ours, on its way through GDAL
            raise source.error from None
        if isinstance(error, RssegmentError):
            raise
        raise _told(target, str(error), source.full) from error
    return source.count


def _in_fixed_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in groups that depend on the rows alone: a database counts its transactions."""
    for table in regrouped(batches):
        yield from table.to_batches()


class _Source:
    """Batches as GDAL pulls them; keeps their number, the error that ended them, and whether the disk ran full."""

    def __init__(self, batches: Iterator[pa.RecordBatch], folder: Path) -> None:
        self._batches, self._folder = batches, folder
        self.count, self.full = 0, False
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        self.full |= _is_full(self._folder)
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        self.count += len(batch)
        return batch


def _is_full(folder: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize < _LITTLE


def _look_at(target: Target, count: int) -> None:
    """Opens what was written: GDAL can lose the error of a short write."""
    import pyogrio

    if count == 0 or target.driver == "PMTiles":
        return
    found = pyogrio.read_info(
        str(target.path), layer=None if target.driver == "ESRI Shapefile" else target.layer
    )
    if found["features"] != count:
        raise pyogrio.errors.DataLayerError(f"{found['features']} of {count} features are there")


def _told(target: Target, words: str, full: bool) -> StorageError | OutputError:
    if full or _FULL.search(words) or _is_full(target.path.parent):
        return StorageError(
            f"no space left while writing {target.path}: free some space on its disk, then run again"
        )
    if _DENIED.search(words) or not target.path.parent.is_dir():
        return OutputError(f"can't write {target.path}: {words}; choose an output folder you may write to")
    return StorageError(f"could not write {target.path}: {words}")
