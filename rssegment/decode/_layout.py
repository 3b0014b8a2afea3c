"""What kernels are handed: pixels as one flat array with strides, and the tree as lists of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from rssegment.errors import ModelError
from rssegment.taxonomy import Taxonomy

__all__ = ["Tree", "check_channels", "chunk_of", "pixels_of"]

Int32 = NDArray[np.int32]

CACHE = 1 << 19  # bytes of a chunk's buffers: they stay in the processor's second-level cache
NARROW = 256  # px; shorter rows are put together, since a chunk never goes over rows
SLAB = 1 << 24  # bytes that are copied at a time, where probabilities lie otherwise than kernels need


@dataclass(frozen=True, eq=False)
class Tree:
    """Rows as in ``taxonomy.arrays``. ``leaves`` (L,) rows, ``levels`` (N,); children of row n, the root being N, are
    ``children[first[n] : first[n + 1]]``, in pre-order.
    """

    leaves: Int32
    levels: Int32
    parents: Int32
    first: Int32
    children: Int32

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Self:
        arrays = taxonomy.arrays
        size = len(arrays.codes)
        first = np.zeros(size + 2, np.int32)
        np.cumsum(np.bincount(arrays.parents, minlength=size + 1), out=first[1:])
        children = np.argsort(arrays.parents, kind="stable").astype(np.int32)
        return cls(arrays.leaves.copy(), arrays.levels.copy(), arrays.parents, first, children)

    @cached_property
    def spans(self) -> Int32:
        """(N + 1, 2): the leaves under row n are channels ``spans[n, 0]`` to ``spans[n, 1]`` - 1."""
        size = len(self.levels)
        spans = np.zeros((size + 1, 2), np.int32)
        spans[:, 0], spans[size] = len(self.leaves), (0, len(self.leaves))
        spans[self.leaves] = np.arange(len(self.leaves))[:, None] + (0, 1)
        for row in range(size - 1, -1, -1):  # pre-order: the row's children are complete
            parent = spans[self.parents[row]]
            parent[:] = min(parent[0], spans[row, 0]), max(parent[1], spans[row, 1])
        return spans

    def rows_at(self, level: int) -> Int32:
        """(N + 1,): each row's ancestor at ``level``; rows that aren't below it stand for themselves."""
        parents, levels = np.append(self.parents, len(self.parents)), np.append(self.levels, 0)
        rows = np.arange(len(parents))
        for _ in range(self.levels.max()):
            rows = np.where(levels[rows] > level, parents[rows], rows)
        return rows.astype(np.int32)


def check_channels(probabilities: NDArray[np.floating], taxonomy: Taxonomy) -> None:
    """Raises ModelError unless ``probabilities`` are (L, rows, columns) for the leaves of ``taxonomy``."""
    leaves = len(taxonomy.leaf_codes)
    if probabilities.ndim != 3 or len(probabilities) != leaves:
        raise ModelError(
            f"probabilities have shape {probabilities.shape}; expected ({leaves}, rows, columns), "
            f"one channel for each leaf of taxonomy {taxonomy.name!r}"
        )


def pixels_of(
    probabilities: NDArray[np.floating], nodes: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """What kernels take as ``source`` and ``shape`` for all pixels of (L, h, w).

    It is read where it lies, if a row's pixels lie side by side; else copies of some rows are made at a time.
    """
    channels, height, width = probabilities.shape
    if not height * width:
        return
    if _fits(probabilities):
        yield _flat(probabilities, 0, nodes)
        return
    rows = max(1, SLAB // (4 * channels * width))
    for row in range(0, height, rows):
        part = np.array(probabilities[:, row : row + rows], np.float32, order="C")
        yield _flat(part, row * width, nodes)


def _fits(values: NDArray[np.floating]) -> bool:
    layers, rows, columns = values.strides
    _, height, width = values.shape
    beside = columns == 4 and rows % 4 == 0 and layers % 4 == 0
    ahead = rows >= 4 * width and layers >= rows * (height - 1) + 4 * width
    long = width >= NARROW or rows == 4 * width
    usable = values.dtype == np.float32 and values.dtype.isnative and values.flags.aligned
    return usable and values.flags.writeable and beside and ahead and long


def _flat(
    values: NDArray[np.floating], place: int, nodes: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    channels, height, width = values.shape
    layers, rows = values.strides[0] // 4, values.strides[1] // 4
    flat = as_strided(values, ((channels - 1) * layers + (height - 1) * rows + width,), (4,))
    if rows == width:  # one long row
        height, width = 1, height * width
    return flat, np.array([layers, rows, height, width, chunk_of(nodes), place], np.int64)


def chunk_of(nodes: int) -> int:
    """Pixels that kernels take at a time: a buffer of all nodes fits into the cache."""
    return max(64, min(4096, CACHE // (4 * (nodes + 16)) // 64 * 64))
