"""Features to files of any vector format, several at once, in one pass."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from rssegment.write.atomic import storage_errors
from rssegment.write.features import (
    REGION_SCHEMA,
    Chunk,
    Features,
    Layer,
    Rings,
    Schema,
    chunks_of,
    region_schema,
)
from rssegment.write.formats import FORMATS, check_format, format_of

__all__ = [
    "FORMATS",
    "REGION_SCHEMA",
    "Features",
    "Layer",
    "Rings",
    "check_format",
    "format_of",
    "region_schema",
    "write_vectors",
]

Writer = Callable[[Path, Iterator[Chunk], Schema, Layer], int]

_WAITING = 2  # chunks between the features and each writer


def write_vectors(paths: str | Path | Mapping[str, Path], features: Iterable[Features], layer: Layer) -> int:
    """Writes ``features`` to one file by its suffix, or to several by their formats; returns how many there are.

    The features are taken once; each format has a thread of its own, and at most two chunks wait for the slowest.
    Coordinates are in the layer's CRS where the format has a place for it, else in WGS 84; without a CRS they are
    pixels (col, row), rows downwards. Exteriors run anticlockwise in (x, y). The same features give the same bytes,
    in whatever chunks they come. Files are written in place: wrap the call in :func:`~rssegment.write.atomic.staged`.

    Raises
    ------
    InputError
        Features that can't be written: no polygons, columns that differ from the schema, coordinates off the Earth.
    OutputError
        An unknown suffix or format, a path that can't be written to, or what the format can't hold.
    StorageError
        The disk is full.
    """
    if not isinstance(paths, Mapping):
        paths = {format_of(paths): Path(paths)}
    for name in paths:
        check_format(name, layer.crs)
    chunks = chunks_of(features, layer)
    first = next(chunks, None)
    schema = first.schema if first else layer.schema or {}
    chunks = chain([first], chunks) if first else chunks
    jobs = [_Job(name, Path(path), schema, layer) for name, path in paths.items()]
    if len(jobs) == 1:
        return jobs[0].write(chunks)
    return _fan_out(jobs, chunks)


class _Job:
    """One file of one format."""

    def __init__(self, name: str, path: Path, schema: Schema, layer: Layer) -> None:
        self.name, self.path, self._schema, self._layer = name, path, schema, layer

    def write(self, chunks: Iterator[Chunk]) -> int:
        with storage_errors(self.path):
            return _writer(self.name)(self.path, chunks, self._schema, self._layer)


def _writer(name: str) -> Writer:
    """What writes a format; its libraries are imported now."""
    if name in {"geojson", "geojsonseq"}:
        return _write_text(name)
    if name == "parquet":
        from rssegment.write.parquet import write_parquet

        return write_parquet
    if name == "shp":
        from rssegment.write.shapefile import write_shapefile

        return write_shapefile
    if name == "pmtiles":
        from rssegment.write.pmtiles import write_pmtiles

        return write_pmtiles
    from rssegment.write.ogr import write_flatgeobuf, write_gpkg

    return {"flatgeobuf": write_flatgeobuf, "gpkg": write_gpkg}[name]


def _write_text(name: str) -> Writer:
    from rssegment.write.geojson import write_collection, write_lines

    inner = write_collection if name == "geojson" else write_lines

    def write(path: Path, chunks: Iterator[Chunk], schema: Schema, layer: Layer) -> int:  # noqa: ARG001
        with path.open("wb") as file:
            return inner(file, chunks)

    return write


class _CancelledError(Exception):
    """Another writer failed, or the features did."""


class _Feed:
    """The chunks for one writer, handed over from the thread that makes them."""

    def __init__(self, stop: threading.Event) -> None:
        self._queue: queue.Queue[Chunk | None] = queue.Queue(_WAITING)
        self._stop = stop

    def put(self, chunk: Chunk | None) -> None:
        """Waits for room, until all is to stop."""
        while not self._stop.is_set():
            try:
                return self._queue.put(chunk, timeout=0.1)
            except queue.Full:
                continue
        raise _CancelledError

    def __iter__(self) -> Iterator[Chunk]:
        while True:
            try:
                chunk = self._queue.get(timeout=0.1)
            except queue.Empty:
                if self._stop.is_set():
                    raise _CancelledError from None
                continue
            if chunk is None:
                return
            yield chunk


def _fan_out(jobs: list[_Job], chunks: Iterator[Chunk]) -> int:
    """Gives each chunk to all jobs; the first error stops them all, and is raised when they have stopped."""
    stop = threading.Event()
    feeds = [_Feed(stop) for _ in jobs]
    errors: list[BaseException] = []

    def work(job: _Job, feed: _Feed) -> None:
        try:
            job.write(iter(feed))
        except _CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            errors.append(error)
            stop.set()

    threads = [
        threading.Thread(target=work, args=each, name=f"write {each[0].name}", daemon=True)
        for each in zip(jobs, feeds, strict=True)
    ]
    for thread in threads:
        thread.start()
    count = 0
    try:
        for chunk in chunks:
            count += len(chunk)
            for feed in feeds:
                feed.put(chunk)
        for feed in feeds:
            feed.put(None)
    except _CancelledError:
        pass
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return count
