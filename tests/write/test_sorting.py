"""Order of rows that do not fit into memory."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.write import sorting
from rssegment.write._geometry import hilbert_keys
from rssegment.write.sorting import in_order


def batches(keys: NDArray[np.uint64], ends: list[int]) -> Iterator[tuple[NDArray[np.uint64], pa.RecordBatch]]:
    values = np.arange(keys.size)
    for each, rows in zip(np.split(keys, ends), np.split(values, ends), strict=True):
        texts = pa.array([f"row {k}" for k in rows], pa.string())
        yield each, pa.record_batch({"value": rows, "text": texts})


def many(rows: int = 3000, run: int = 10) -> tuple[NDArray[np.uint64], Iterator[Any]]:
    """Keys of which some are equal, and the rows as batches of which each is a run where a run has a byte."""
    keys = np.random.default_rng(7).integers(0, rows, rows, dtype=np.uint64)
    return keys, batches(keys, list(range(run, rows, run)))


def observed(monkeypatch: pytest.MonkeyPatch, saw: Callable[[sorting._Run], None]) -> None:
    """Calls ``saw`` with each run as soon as it is on disk."""
    usual = sorting._Run.of

    def of(parts: Iterable[sorting._Rows], path: Path) -> sorting._Run:
        run = usual(parts, path)
        saw(run)
        return run

    monkeypatch.setattr(sorting._Run, "of", of)


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 9) | st.integers(2**64 - 3, 2**64 - 1), max_size=300),
    st.lists(st.integers(0, 300), max_size=40),
    st.integers(1, 5000),
    st.integers(3, 60),
    st.integers(1, 2000),
    st.integers(2, 5) | st.just(64),
)
def test_order_is_that_of_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[int],
    ends: list[int],
    run_bytes: int,
    piece: int,
    head: int,
    fan_in: int,
) -> None:
    folder: Path = tmp_path_factory.mktemp("sorting")
    values = np.array(keys, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_PIECE", piece)
        patch.setattr(sorting, "_HEAD_BYTES", head)
        patch.setattr(sorting, "_FAN_IN", fan_in)
        tables = list(in_order(batches(values, sorted(ends)), folder, run_bytes))
    order = np.concatenate([table["value"].to_numpy() for table in tables]) if tables else np.empty(0, int)
    assert np.array_equal(order, np.argsort(values, kind="stable"))
    texts = [text for table in tables for text in table["text"].to_pylist()]
    assert texts == [f"row {k}" for k in order]
    assert not list(folder.iterdir())


def test_more_runs_than_can_be_merged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[sorting._Run] = []
    observed(monkeypatch, runs.append)
    keys, rows = many()
    merged = pa.concat_tables(in_order(rows, tmp_path, 1))
    assert len(runs) == 300 + 4  # 64 to 1 three times, then as many as leave 63
    whole = pa.concat_tables(pa.Table.from_batches([batch]) for _, batch in many()[1])
    assert merged.equals(whole.take(np.argsort(keys, kind="stable")))
    assert not list(tmp_path.iterdir())


def test_columns_keep_their_names_types_and_metadata(tmp_path: Path) -> None:
    """Also those with a name that the sorting uses itself, those with nulls, and those of several values."""
    schema = pa.schema(
        [
            pa.field("key", pa.float32(), metadata={"unit": "m"}),
            pa.field("place", pa.string(), nullable=False),
            pa.field("box", pa.struct([("least", pa.int8()), ("greatest", pa.bool_())])),
        ],
        metadata={"made": "here"},
    )
    content = [{"key": 1.5, "place": "b", "box": None}, {"key": None, "place": "a", "box": {"least": 3}}]
    batch = pa.RecordBatch.from_pylist(content, schema=schema)
    rows = [(np.array([2 * k + 1, 2 * k], np.uint64), batch) for k in range(70)]
    merged = pa.concat_tables(in_order(rows, tmp_path, 1))
    assert merged.schema.equals(schema, check_metadata=True)
    assert merged.equals(pa.Table.from_pylist(content[::-1] * 70, schema=schema))


@pytest.mark.parametrize("power", [2, 3, 4])
def test_each_row_is_moved_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, power: int) -> None:
    """Put aside once, and merged once for each power of the fan-in that the runs reach."""
    usual, moved = sorting._pieces, 0

    def pieces(parts: Iterable[sorting._Rows]) -> Iterator[pa.RecordBatch]:
        nonlocal moved
        for batch in usual(parts):
            moved += len(batch)
            yield batch

    monkeypatch.setattr(sorting, "_pieces", pieces)
    monkeypatch.setattr(sorting, "_FAN_IN", 4)
    rows = 10 * 4**power
    deque(in_order(many(rows)[1], tmp_path, 1), maxlen=0)
    assert rows < moved <= (1 + power) * rows


def test_disk_is_at_most_twice_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def used() -> int:
        return sum(path.stat().st_size for path in tmp_path.glob("*/*"))

    def interleaved(pieces: list[sorting._Rows]) -> sorting._Rows:
        merging.append(used())
        return usual(pieces)

    usual, merging, made = sorting._interleaved, [0], [0]
    monkeypatch.setattr(sorting, "_interleaved", interleaved)
    monkeypatch.setattr(sorting, "_HEAD_BYTES", 64)
    monkeypatch.setattr(sorting, "_FAN_IN", 8)
    observed(monkeypatch, lambda _: made.append(used()))
    left = [used() for _ in in_order(many(600)[1], tmp_path, 1)]
    whole = made[60]
    assert len(made) > 61
    assert whole < max(merging) <= 2 * whole
    assert max(made) == whole  # what was merged is gone by then
    assert left == sorted(left, reverse=True)
    assert len(set(left)) > 1  # each file goes once it is read
    assert left[-1] == 0


def test_memory_does_not_grow_with_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    usual = sorting._interleaved

    def interleaved(pieces: list[sorting._Rows]) -> sorting._Rows:
        rows = usual(pieces)
        seen.append(pa.total_allocated_bytes())
        return rows

    monkeypatch.setattr(sorting, "_interleaved", interleaved)
    monkeypatch.setattr(sorting, "_HEAD_BYTES", 1 << 12)
    monkeypatch.setattr(sorting, "_FAN_IN", 8)
    peaks = []
    for runs in (7, 70):
        seen.clear()
        before = pa.total_allocated_bytes()
        deque(in_order(many(1000 * runs, 1000)[1], tmp_path, 1), maxlen=0)
        peaks.append(max(seen) - before)
    assert peaks[0] > 7 << 12
    assert peaks[1] < 1.5 * peaks[0]


@given(st.lists(st.integers(0, 3) | st.integers(0, 5000), min_size=1, max_size=100), st.integers(1, 3000))
def test_pieces_fit_whatever_the_rows(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], head: int
) -> None:
    table = pa.table({"text": ["x" * size for size in sizes]})
    numbers = np.arange(len(sizes))
    rows = sorting._Rows(numbers.astype(np.uint64), numbers, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_HEAD_BYTES", head)
        run = sorting._Run.of(
            [rows[:7], rows[7:]] if len(rows) > 7 else [rows], tmp_path_factory.mktemp("a") / "run"
        )
    pieces = list(run.read())
    assert pa.concat_tables(piece.table for piece in pieces).equals(table)
    assert np.array_equal(np.concatenate([piece.places for piece in pieces]), numbers)
    assert all(piece.packed().nbytes < 2 * head or len(piece) == 1 for piece in pieces)
    assert not run.path.exists()


LOW = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from rssegment.write.sorting import in_order

resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
keys = np.arange(2000, dtype=np.uint64)[::-1].copy()
rows = ((part, pa.record_batch({"value": part})) for part in np.split(keys, 200))
values = np.concatenate([table["value"].to_numpy() for table in in_order(rows, Path(sys.argv[1]), 1)])
assert np.array_equal(values, np.arange(2000))
"""


def test_few_files_may_be_open(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", LOW, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_it_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_HEAD_BYTES", 64)
    tables = in_order(many(1000)[1], tmp_path, 1)
    next(tables)
    assert list(tmp_path.glob("*/*"))
    tables.close()  # type: ignore[attr-defined]
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_rows_fail_to_come(tmp_path: Path) -> None:
    def failing() -> Iterator[Any]:
        yield from many(1000)[1]
        assert list(tmp_path.glob("*/*"))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(in_order(failing(), tmp_path, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("runs", "failing"), [(100, 5), (100, 100), (160, 161)])
def test_nothing_is_left_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int, failing: int
) -> None:
    """Be it while rows are put aside, or while a first or second group of runs is merged."""
    usual, opened = Path.open, []

    def full(path: Path, *args: Any, **kwargs: Any) -> IO[Any]:
        opened.append(path.name)
        if path.name == f"{failing}.run":
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(path, *args, **kwargs)  # type: ignore[no-any-return]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        deque(in_order(many(10 * runs)[1], tmp_path, 1), maxlen=0)
    assert caught.value.errno == errno.ENOSPC
    assert opened == [f"{k}.run" for k in range(failing + 1)]
    assert not list(tmp_path.iterdir())


def test_the_curve_visits_every_cell_and_never_jumps() -> None:
    """The first 4^5 places of the curve are a square of 32 x 32 cells, each a step from the one before."""
    x, y = (each.ravel().astype(np.uint32) for each in np.meshgrid(np.arange(32), np.arange(32)))
    keys = np.empty(x.size, np.uint64)
    hilbert_keys(x, y, keys)
    order = np.argsort(keys)
    assert np.array_equal(keys[order], np.arange(1024))
    steps = np.abs(np.diff(x[order].astype(int))) + np.abs(np.diff(y[order].astype(int)))
    assert (steps == 1).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_cells_that_touch_share_a_square(x: int, y: int) -> None:
    """All cells of an aligned square lie together on the curve."""
    base = np.array([x & ~7, y & ~7])
    cells = np.array([(base[0] + i, base[1] + j) for i in range(8) for j in range(8)], np.uint32)
    keys = np.empty(64, np.uint64)
    hilbert_keys(np.ascontiguousarray(cells[:, 0]), np.ascontiguousarray(cells[:, 1]), keys)
    assert keys.max() - keys.min() == 63
    assert np.unique(keys).size == 64
