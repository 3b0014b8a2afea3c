"""Order of rows that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 9) | st.integers(2**64 - 3, 2**64 - 1), max_size=300),
    st.lists(st.integers(0, 300), max_size=6),
    st.integers(1, 5000),
    st.integers(3, 60),
    st.integers(1, 2000),
)
def test_order_is_that_of_a_stable_sort(
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[int],
    ends: list[int],
    run_bytes: int,
    piece: int,
    head: int,
) -> None:
    folder: Path = tmp_path_factory.mktemp("sorting")
    values = np.array(keys, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "_PIECE", piece)
        patch.setattr(sorting, "_HEAD_BYTES", head)
        tables = list(in_order(batches(values, sorted(ends)), folder, run_bytes))
    order = np.concatenate([table["value"].to_numpy() for table in tables]) if tables else np.empty(0, int)
    assert np.array_equal(order, np.argsort(values, kind="stable"))
    texts = [text for table in tables for text in table["text"].to_pylist()]
    assert texts == [f"row {k}" for k in order]
    assert not list(folder.iterdir())


def test_nothing_is_left_where_it_is_given_up(tmp_path: Path) -> None:
    tables = in_order(
        batches(np.arange(100, dtype=np.uint64)[::-1].copy(), list(range(10, 100, 10))), tmp_path, 10
    )
    next(tables)
    assert list(tmp_path.iterdir())
    tables.close()  # type: ignore[attr-defined]
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
