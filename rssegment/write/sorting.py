"""Rows in order of a key, however many there are: sorted runs on disk, merged in passes, a few dozen at a time.

A pass merges runs to longer ones until so few are left that the last merge can be read as it goes: n log n. Whatever
is merged with what, rows are told apart by key and place in the stream, so that the order is always the same.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["RUN_BYTES", "in_order"]

RUN_BYTES = 1 << 25  # rows held in memory before they are put aside, sorted
_FAN_IN = 64  # runs merged at once; two passes reach 128 GB, three 8 TB
_PIECE = 1 << 12  # rows moved at once
_HEAD_BYTES = 1 << 18  # of each run in memory while runs are merged, or somewhat more

UInt64 = NDArray[np.uint64]
Int64 = NDArray[np.int64]


def in_order(
    batches: Iterable[tuple[UInt64, pa.RecordBatch]], folder: Path, run_bytes: int = RUN_BYTES
) -> Iterator[pa.Table]:
    """The rows of ``batches`` by their keys, equal ones in the order they came; as tables of any length.

    Memory: about ``run_bytes`` of rows, and the first rows of 64 runs (16 MB). Disk: what does not fit is put aside in
    a hidden folder within ``folder``, 16 bytes a row on top; while runs are merged, those 64 are there twice, which is
    2 GB more up to 128 GB of rows, and never more than as much again. A file goes once it is read, and one at most is
    open at a time. Law: the order depends on neither the batches nor ``run_bytes``.
    """
    with tempfile.TemporaryDirectory(prefix=".sorting.", dir=folder, ignore_cleanup_errors=True) as name:
        paths = (Path(name) / f"{k}.run" for k in count())
        runs: deque[_Run] = deque()
        held: list[tuple[UInt64, pa.RecordBatch]] = []
        size = came = 0
        for keys, batch in batches:
            if not keys.size:
                continue
            held.append((keys, batch))
            size += batch.nbytes
            if size > run_bytes:
                rows = sum(keys.size for keys, _ in held)
                runs.append(_Run.of([_sorted(held, came)], next(paths)))
                came, size = came + rows, 0
        last = [iter([_sorted(held, came)])] if held else []
        _make_few(runs, paths)
        for merged in _merged([*(run.read() for run in runs), *last]):
            yield merged.table


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows by (key, place in the stream)."""

    keys: UInt64
    places: Int64
    table: pa.Table

    def __len__(self) -> int:
        return self.keys.size

    def __getitem__(self, rows: slice) -> _Rows:
        start, stop, _ = rows.indices(len(self))
        return _Rows(self.keys[rows], self.places[rows], self.table.slice(start, stop - start))

    def until(self, key: np.uint64, place: np.int64) -> int:
        """How many rows come before or at (``key``, ``place``)."""
        if self.keys[0] > key:  # common where runs are of places far apart, and much cheaper
            return 0
        low, high = np.searchsorted(self.keys, key, "left"), np.searchsorted(self.keys, key, "right")
        return int(low + np.searchsorted(self.places[low:high], place, "right"))

    def packed(self) -> pa.Table:
        """The rows with keys and places as the last two columns."""
        table = self.table.append_column("key", pa.array(self.keys))
        return table.append_column("place", pa.array(self.places))


@dataclass(frozen=True, eq=False)
class _Run:
    """Rows in order on disk: batches as Arrow messages, one after the other."""

    path: Path
    schema: pa.Schema  # with keys and places

    @classmethod
    def of(cls, parts: Iterable[_Rows], path: Path) -> _Run:
        """Saves ``parts``, at least one, that are in order."""
        with path.open("wb") as file:
            for batch in _pieces(parts):
                file.write(batch.serialize())
        return cls(path, batch.schema)

    def read(self) -> Iterator[_Rows]:
        """The rows, a piece at a time; once: the file goes with the last.

        It is opened for each piece anew, since systems allow as few as 256 open files.
        """
        place, size = 0, self.path.stat().st_size
        schema = pa.schema(list(self.schema)[:-2], self.schema.metadata)
        while place < size:
            with pa.OSFile(str(self.path)) as file:
                file.seek(place)
                batch = pa.ipc.read_record_batch(pa.ipc.read_message(file), self.schema)
                place = file.tell()
            if place >= size:
                self.path.unlink()
            *columns, keys, places = batch.columns
            yield _Rows(keys.to_numpy(), places.to_numpy(), pa.Table.from_arrays(columns, schema=schema))


def _pieces(parts: Iterable[_Rows]) -> Iterator[pa.RecordBatch]:
    """The rows of ``parts`` as batches of about a head: less than two, or one row that is larger."""
    held: list[pa.Table] = []
    size = 0
    for part in parts:
        held.append(part.packed())
        size += held[-1].nbytes
        if size >= _HEAD_BYTES:
            yield from _cut(pa.concat_tables(held))
            held, size = [], 0
    if held:
        yield from _cut(pa.concat_tables(held))


def _cut(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Equal numbers of rows, cut again where that is too much: some rows are a thousand times as large as others."""
    parts = min(table.nbytes // _HEAD_BYTES, len(table))
    if parts < 2:
        yield from table.combine_chunks().to_batches()
        return
    step = -(-len(table) // parts)
    for start in range(0, len(table), step):
        yield from _cut(table.slice(start, step))


def _make_few(runs: deque[_Run], paths: Iterator[Path]) -> None:
    """Merges the oldest runs to one, again and again, until there is one less than can be merged at once.

    First come first served is shortest first; and no more are merged than must be, so that most rows of a scene just
    too large for one pass are not moved twice.
    """
    while len(runs) >= _FAN_IN:
        group = [runs.popleft() for _ in range(min(_FAN_IN, len(runs) - _FAN_IN + 2))]
        runs.append(_Run.of(_merged([run.read() for run in group]), next(paths)))


def _sorted(held: list[tuple[UInt64, pa.RecordBatch]], came: int) -> _Rows:
    """What is held, in order; it is held no more."""
    keys = np.concatenate([keys for keys, _ in held])
    order = np.argsort(keys, kind="stable")
    table = pa.Table.from_batches([batch for _, batch in held])
    held.clear()
    table = _taken(table, order)
    return _Rows(keys[order], order + came, table)


def _taken(table: pa.Table, order: NDArray[Any]) -> pa.Table:
    """Rows in ``order``, in pieces of their own, so that no column's bytes outgrow 32-bit offsets."""
    table = table.combine_chunks()
    pieces = [table.take(order[start : start + _PIECE]) for start in range(0, order.size, _PIECE)]
    return pa.concat_tables(pieces) if pieces else table


def _merged(runs: list[Iterator[_Rows]]) -> Iterator[_Rows]:
    """Pieces of all runs together in order: whatever comes before the end of the piece that ends first is known."""
    heads = [(head, run) for run in runs if (head := next(run, None)) is not None]
    while heads:
        key, place = min((head.keys[-1], head.places[-1]) for head, _ in heads)
        taken, left = [], []
        for head, run in heads:
            rows = head.until(key, place)
            if rows:
                taken.append(head[:rows])
            rest = head[rows:] if rows < len(head) else next(run, None)
            if rest is not None:
                left.append((rest, run))
        heads = left
        yield _interleaved(taken)


def _interleaved(pieces: list[_Rows]) -> _Rows:
    if len(pieces) == 1:
        return pieces[0]
    keys, places = (np.concatenate([getattr(each, name) for each in pieces]) for name in ("keys", "places"))
    order = np.lexsort((places, keys))
    return _Rows(keys[order], places[order], _taken(pa.concat_tables([each.table for each in pieces]), order))
