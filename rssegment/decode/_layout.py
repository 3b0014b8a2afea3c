"""What kernels are handed: pixels as one flat array with strides, and the tree as lists of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from rssegment.errors import ModelError
from rssegment.taxonomy import Taxonomy
from rssegment.taxonomy.arrays import TreeArrays

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

    tree: TreeArrays
    leaves: Int32
    levels: Int32
    parents: Int32
    first: Int32
    children: Int32

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Self:
        arrays = taxonomy.arrays
        first = np.cumsum([0, *map(len, arrays.children)], dtype=np.int32)
        children = np.array([*chain.from_iterable(arrays.children)], np.int32)
        return cls(arrays, arrays.leaves.copy(), arrays.levels.copy(), arrays.parents, first, children)

    @cached_property
    def spans(self) -> Int32:
        """(N + 1, 2): the leaves under row n are channels ``spans[n, 0]`` to ``spans[n, 1]`` - 1."""
        leaves = [(channel, channel + 1) for channel in range(len(self.leaves))]
        spans = self.tree.fold(leaves, lambda parts: (parts[0][0], parts[-1][1]))
        return np.array([*spans, (0, len(leaves))], np.int32)


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
