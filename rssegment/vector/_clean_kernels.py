"""Compiled inside of :mod:`rssegment.vector.clean`: union-find, lists of neighbours, absorption and enclosure.

Regions that became one are a tree of ``parent``; its root bears what holds for all of it. The neighbours of root ``r``
are ``target[offsets[r] : offsets[r + 1]]``. While regions are absorbed, the list of a union is a chain of such
segments, from ``r`` by ``following`` to ``last[r]``, each filled up to ``count``: so two lists are joined in O(1).
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = [
    "absorb_small",
    "count_neighbours",
    "find_enclosed",
    "flatten",
    "list_neighbours",
    "unite_enclosed",
]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]


@inlined
def _root(parent: Int32, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@kernel("void(int32[::1])")
def flatten(parent: Int32) -> None:
    """Points every region at its root."""
    for k in range(parent.size):
        parent[k] = _root(parent, k)


@kernel("void(int32[::1], int32[:, ::1], int64[::1], uint8[::1], int64, int64[::1])")
def count_neighbours(
    parent: Int32, pairs: Int32, lengths: Int64, wanted: UInt8, least: int, offsets: Int64
) -> None:
    """Offsets (R + 1,) of the lists of neighbours of ``wanted`` roots, over pairs of length ``least`` and more."""
    for e in range(pairs.shape[0]):
        a, b = parent[pairs[e, 0]], parent[pairs[e, 1]]
        if a != b and lengths[e] >= least:
            offsets[a + 1] += wanted[a]
            offsets[b + 1] += wanted[b]
    for k in range(offsets.size - 1):
        offsets[k + 1] += offsets[k]


@inlined
def _enter(a: int, b: int, size: int, cursor: Int64, target: Int32, length: Int64) -> None:
    target[cursor[a]] = b
    if length.size > 0:
        length[cursor[a]] = size
    cursor[a] += 1


@kernel("void(int32[::1], int32[:, ::1], int64[::1], uint8[::1], int64, int64[::1], int32[::1], int64[::1])")
def list_neighbours(
    parent: Int32,
    pairs: Int32,
    lengths: Int64,
    wanted: UInt8,
    least: int,
    offsets: Int64,
    target: Int32,
    length: Int64,
) -> None:
    """Fills the lists that :func:`count_neighbours` measured; an empty ``length`` stays so."""
    cursor = offsets[:-1].copy()
    for e in range(pairs.shape[0]):
        a, b = parent[pairs[e, 0]], parent[pairs[e, 1]]
        if a != b and lengths[e] >= least:
            if wanted[a]:
                _enter(a, b, lengths[e], cursor, target, length)
            if wanted[b]:
                _enter(b, a, lengths[e], cursor, target, length)


@inlined
def _before(heap: Int64, a: int, b: int) -> bool:
    return bool(heap[a, 0] < heap[b, 0] or (heap[a, 0] == heap[b, 0] and heap[a, 1] < heap[b, 1]))


@inlined
def _swap(heap: Int64, a: int, b: int) -> None:
    for j in range(3):
        heap[a, j], heap[b, j] = heap[b, j], heap[a, j]


@inlined
def _sink(heap: Int64, size: int, k: int) -> None:
    """Moves row ``k`` of the heap (n, 3) of pixels, key and region down to its place."""
    while 2 * k + 1 < size:
        child = 2 * k + 1
        if child + 1 < size and _before(heap, child + 1, child):
            child += 1
        if not _before(heap, child, k):
            return
        _swap(heap, k, child)
        k = child


@inlined
def _tidy(
    s: int,
    parent: Int32,
    offsets: Int64,
    target: Int32,
    length: Int64,
    count: Int32,
    following: Int32,
    last: Int32,
    slot: Int64,
) -> None:
    """Leaves one entry per neighbour in the list of ``s``, in place; ``slot`` tells where each neighbour's is."""
    read, write, filled = s, s, 0
    while read >= 0:
        for k in range(offsets[read], offsets[read] + count[read]):
            g = _root(parent, target[k])
            if g == s:
                continue
            if slot[g] >= 0:
                length[slot[g]] += length[k]
                continue
            while filled == offsets[write + 1] - offsets[write]:  # never overtakes ``read``: it wrote no more
                count[write] = filled
                write = following[write]
                filled = 0
            slot[g] = offsets[write] + filled
            target[slot[g]] = g
            length[slot[g]] = length[k]
            filled += 1
        read = following[read]
    count[write] = filled
    following[write] = -1
    last[s] = write


@inlined
def _absorber(
    s: int,
    pixels: Int64,
    key: Int64,
    offsets: Int64,
    target: Int32,
    length: Int64,
    count: Int32,
    following: Int32,
    slot: Int64,
) -> int:
    """The neighbour of ``s`` with the longest shared boundary, or -1; clears ``slot``."""
    best, best_length, segment = -1, np.int64(0), s
    while segment >= 0:
        for k in range(offsets[segment], offsets[segment] + count[segment]):
            g = target[k]
            slot[g] = -1
            if length[k] < max(best_length, 1):
                continue
            if (
                length[k] > best_length
                or pixels[g] > pixels[best]
                or (pixels[g] == pixels[best] and key[g] < key[best])
            ):
                best, best_length = g, length[k]
        segment = following[segment]
    return best


@inlined
def _unite(
    s: int,
    t: int,
    parent: Int32,
    pixels: Int64,
    key: Int64,
    is_open: UInt8,
    following: Int32,
    last: Int32,
) -> None:
    parent[s] = t
    pixels[t] += pixels[s]
    key[t] = min(key[t], key[s])
    is_open[t] |= is_open[s]
    following[last[t]] = s
    last[t] = last[s]


@kernel(
    "void(int32[::1], int64[::1], int64[::1], uint16[::1], uint8[::1], float64[::1], float64[::1], int64[:, ::1], "
    "int64[::1], int32[::1], int64[::1])"
)
def absorb_small(
    parent: Int32,
    pixels: Int64,
    key: Int64,
    code: NDArray[np.uint16],
    is_open: UInt8,
    smallest: Float64,
    hole: Float64,
    heap: Int64,
    offsets: Int64,
    target: Int32,
    length: Int64,
) -> None:
    """Absorbs too small regions, always the one with the fewest pixels of all that are left (ties: least ``key``).

    ``heap`` (n, 3): pixels, key and region of all that are too small, in any order; ``target`` and ``length`` list the
    neighbours of these. A region that is large enough needs no list: it is never absorbed, and what unites with it
    knows it. A region's row in ``heap`` is out of date once the region grew or was absorbed.
    """
    count = (offsets[1:] - offsets[:-1]).astype(np.int32)
    following = np.full(parent.size, -1, np.int32)
    last = np.arange(parent.size).astype(np.int32)
    slot = np.full(parent.size, -1, np.int64)
    size = heap.shape[0]
    for k in range(size // 2 - 1, -1, -1):
        _sink(heap, size, k)
    while size > 0:
        s, t = int(heap[0, 2]), -1
        if parent[s] == s and pixels[s] == heap[0, 0]:
            _tidy(s, parent, offsets, target, length, count, following, last, slot)
            t = _absorber(s, pixels, key, offsets, target, length, count, following, slot)
        if t >= 0:
            segment = s
            while segment >= 0:  # other neighbours of the absorber's class now share an edge with it
                for k in range(offsets[segment], offsets[segment] + count[segment]):
                    g = target[k]
                    if g != t and code[g] == code[t]:
                        smallest[t] = min(smallest[t], smallest[g])
                        hole[t] = min(hole[t], hole[g])
                        _unite(g, t, parent, pixels, key, is_open, following, last)
                segment = following[segment]
            _unite(s, t, parent, pixels, key, is_open, following, last)
        if t >= 0 and pixels[t] < smallest[t]:
            heap[0, 0], heap[0, 1], heap[0, 2] = pixels[t], key[t], t
        else:
            size -= 1
            _swap(heap, 0, size)
        _sink(heap, size, 0)


@kernel("int64(int64[::1], int32[::1], int64[::1], uint8[::1], float64[::1], int32[::1])")
def find_enclosed(
    offsets: Int64, target: Int32, pixels: Int64, is_open: UInt8, hole: Float64, owner: Int32
) -> int:
    """The region that fills each region, or -1: Tarjan's articulation points by one depth-first search from outside.

    The subtree below a child of ``a`` from which no edge leads above ``a`` is what ``a`` alone parts from the outside.
    Returns the number of regions reached. Source: Tarjan 1972, doi:10.1137/0201010.
    """
    n = pixels.size
    found = np.zeros(n, np.int32)  # 1 for the first region reached; the outside is 0
    low = np.empty(n, np.int32)
    above = np.full(n, -1, np.int32)
    order = np.empty(n, np.int32)
    cursor = offsets[:-1].copy()
    weight = pixels.copy()
    clock = 0
    for start in range(n):
        if not is_open[start] or found[start] > 0:
            continue
        v, entering = start, True
        while v >= 0:
            if entering:
                order[clock] = v
                clock += 1
                found[v] = clock
                low[v] = 0 if is_open[v] else clock
                entering = False
            if cursor[v] < offsets[v + 1]:
                w = target[cursor[v]]
                cursor[v] += 1
                if found[w] == 0:
                    above[w] = v
                    v, entering = w, True
                else:
                    low[v] = min(low[v], found[w])
                continue
            a = above[v]
            if a >= 0:
                if low[v] >= found[a] and weight[v] < hole[a]:
                    owner[v] = a
                low[a] = min(low[a], low[v])
                weight[a] += weight[v]
            v = a
    for k in range(clock):  # from the outside inwards: the outermost filled hole wins
        a = above[order[k]]
        if a >= 0 and owner[a] >= 0:
            owner[order[k]] = owner[a]
    return clock


@kernel("void(int32[::1], int32[::1], int64[::1])")
def unite_enclosed(owner: Int32, parent: Int32, pixels: Int64) -> None:
    """Makes each region that has an ``owner`` part of it; an owner's key stays: its first pixel is above its holes."""
    for k in range(owner.size):
        if owner[k] >= 0:
            parent[k] = owner[k]
            pixels[owner[k]] += pixels[k]
