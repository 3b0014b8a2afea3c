"""Rows in order of a key, however many there are: sorted runs on disk, merged as they are read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["RUN_BYTES", "in_order"]

RUN_BYTES = 1 << 25  # rows held in memory before they are put aside, sorted
_PIECE = 1 << 12  # rows moved at once
_HEAD_BYTES = 1 << 18  # of each run in memory while runs are merged

UInt64 = NDArray[np.uint64]
Int64 = NDArray[np.int64]


def in_order(
    batches: Iterable[tuple[UInt64, pa.RecordBatch]], folder: Path, run_bytes: int = RUN_BYTES
) -> Iterator[pa.Table]:
    """The rows of ``batches`` by their keys, equal ones in the order they came; as tables of any length.

    Holds about ``run_bytes`` of rows, or a run's first rows for each of the runs put aside in a hidden folder within
    ``folder``. Law: the order depends on neither the batches nor ``run_bytes``.
    """
    with tempfile.TemporaryDirectory(prefix=".sorting.", dir=folder, ignore_cleanup_errors=True) as name:
        runs: list[Iterator[_Rows]] = []
        held: list[tuple[UInt64, pa.RecordBatch]] = []
        size = came = 0
        for keys, batch in batches:
            if not keys.size:
                continue
            held.append((keys, batch))
            size += batch.nbytes
            if size > run_bytes:
                rows = sum(keys.size for keys, _ in held)
                runs.append(_put_aside(held, came, Path(name) / f"{len(runs)}.arrow"))
                came, size = came + rows, 0
        if held:
            runs.append(iter([_sorted(held, came)]))
        yield from _merged(runs)


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
        low, high = np.searchsorted(self.keys, key, "left"), np.searchsorted(self.keys, key, "right")
        return int(low + np.searchsorted(self.places[low:high], place, "right"))

    def save(self, path: Path) -> None:
        columns = {".key": self.keys, ".place": self.places}
        table = self.table
        for name, values in columns.items():
            table = table.append_column(name, pa.array(values))
        with path.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(1, _HEAD_BYTES * len(table) // table.nbytes))

    @staticmethod
    def read(path: Path) -> Iterator[_Rows]:
        """The rows in ``path``, a piece at a time."""
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            for k in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(k)])
                keys, places = (table[name].to_numpy() for name in (".key", ".place"))
                yield _Rows(keys, places, table.drop_columns([".key", ".place"]))


def _put_aside(held: list[tuple[UInt64, pa.RecordBatch]], came: int, path: Path) -> Iterator[_Rows]:
    """Saves what is held in order, holds it no more, and reads it again as it is asked for."""
    _sorted(held, came).save(path)
    return _Rows.read(path)


def _sorted(held: list[tuple[UInt64, pa.RecordBatch]], came: int) -> _Rows:
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


def _merged(runs: list[Iterator[_Rows]]) -> Iterator[pa.Table]:
    """Pieces of all runs together in order: whatever comes before the end of the piece that ends first is known."""
    heads = [next(run, None) for run in runs]
    while any(head is not None for head in heads):
        ends = [(head.keys[-1], head.places[-1]) for head in heads if head is not None]
        key, place = min(ends)
        taken = []
        for k, head in enumerate(heads):
            if head is None:
                continue
            count = head.until(key, place)
            taken.append(head[:count])
            heads[k] = head[count:] if count < len(head) else next(runs[k], None)
        yield _interleaved(taken)


def _interleaved(pieces: list[_Rows]) -> pa.Table:
    if len(pieces) == 1:
        return pieces[0].table
    keys, places = (np.concatenate([getattr(each, name) for each in pieces]) for name in ("keys", "places"))
    table = pa.concat_tables([each.table for each in pieces])
    return _taken(table, np.lexsort((places, keys)))
