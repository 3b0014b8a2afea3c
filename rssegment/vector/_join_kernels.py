"""Compiled inside of the joining of pieces: union-find over groups, chains strung together through plain nodes.

Half-chain ``2 * c`` is chain ``c`` walked from its start, ``2 * c + 1`` from its end; the group on its left is
``sides[c, h & 1]``.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = [
    "chain_lengths",
    "flatten",
    "sum_groups",
    "unite_pairs",
    "weave",
]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@inlined
def _root(parent: Int64, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@kernel("void(int64[::1], int64[:, ::1])")
def unite_pairs(parent: Int64, pairs: Int64) -> None:
    """Unites the sets of both members of each pair; a set's root is its smallest member."""
    for k in range(pairs.shape[0]):
        a, b = _root(parent, pairs[k, 0]), _root(parent, pairs[k, 1])
        if a < b:
            parent[b] = a
        else:
            parent[a] = b


@kernel("void(int64[::1])")
def flatten(parent: Int64) -> None:
    """Points every member at its root."""
    for k in range(parent.size):
        parent[k] = parent[parent[k]]  # roots come first


@kernel("void(int32[::1], int64[:, ::1], uint8[::1], uint8[::1], int64[:, ::1], uint8[::1], uint8[::1])")
def sum_groups(
    group: Int32,
    sums: Int64,
    least: Bytes,
    touches: Bytes,
    group_sums: Int64,
    group_least: Bytes,
    group_touches: Bytes,
) -> None:
    """Adds ``sums`` (n, k), takes the least ``least`` and gathers the bits of ``touches`` within each group."""
    for k in range(group.size):
        g = group[k]
        for j in range(group_sums.shape[1]):
            group_sums[g, j] += sums[k, j]
        group_least[g] = min(group_least[g], least[k])
        group_touches[g] |= touches[k]


@kernel(
    "UniTuple(int64, 2)(int32[:, ::1], int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], "
    "uint8[::1], uint8[::1], uint8[::1], int32[:, ::1], int32[:, ::1], int64[::1], int32[:, ::1])"
)
def weave(
    ends: Int32, sides: Int32, offsets: Int64, vertices: Int32, nodes: Int32, slots: Int32,
    stop: Bytes, straight: Bytes, seen: Bytes,
    new_ends: Int32, new_sides: Int32, new_offsets: Int64, new_vertices: Int32,
) -> tuple[int, int]:  # fmt: skip
    """Strings chains together through every node that is no ``stop``; such a node has two chains.

    It becomes a vertex unless the boundary runs ``straight`` through it. ``seen`` (C,) comes in as zeros. Chains that
    meet no stop become closed. Returns the numbers of new chains and vertices.
    """
    count, place = 0, 0
    for turn in range(2):  # first from stop to stop, then round the loops
        for start in range(2 * ends.shape[0]):
            c, back = start >> 1, start & 1
            if seen[c]:
                continue
            node = ends[c, 2] if back else ends[c, 0]
            if turn == 0 and not stop[node]:
                continue
            closed = not stop[node]
            new_ends[count, 0] = -1 if closed else node
            new_ends[count, 1] = -1 if closed else (ends[c, 3] if back else ends[c, 1])
            new_sides[count, 0] = sides[c, back]
            new_sides[count, 1] = sides[c, 1 - back]
            half = start
            while True:
                c, back = half >> 1, half & 1
                seen[c] = 1
                step = -1 if back else 1
                first = offsets[c + 1] - 1 if back else offsets[c]
                for k in range(offsets[c + 1] - offsets[c]):
                    new_vertices[place, 0] = vertices[first + step * k, 0]
                    new_vertices[place, 1] = vertices[first + step * k, 1]
                    place += 1
                end = ends[c, 0] if back else ends[c, 2]
                leaving = ends[c, 1] if back else ends[c, 3]
                if stop[end]:
                    new_ends[count, 2] = end
                    new_ends[count, 3] = leaving
                    break
                if not straight[end]:
                    new_vertices[place, 0] = nodes[end, 0]
                    new_vertices[place, 1] = nodes[end, 1]
                    place += 1
                half = -1
                for d in range(4):
                    if d != leaving and slots[end, d] >= 0:
                        half = slots[end, d]
                if half == start:
                    new_ends[count, 2] = -1
                    new_ends[count, 3] = -1
                    break
            count += 1
            new_offsets[count] = place
    return count, place


@kernel("void(int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], int64[::1])")
def chain_lengths(ends: Int32, offsets: Int64, vertices: Int32, nodes: Int32, out: Int64) -> None:
    """Per chain, the pixel edges it runs along."""
    for c in range(ends.shape[0]):
        first, last = offsets[c], offsets[c + 1] - 1
        if ends[c, 0] < 0:
            row, col = vertices[last, 0], vertices[last, 1]
        else:
            row, col = nodes[ends[c, 0], 0], nodes[ends[c, 0], 1]
        total = 0
        for v in range(first, last + 1):
            total += abs(vertices[v, 0] - row) + abs(vertices[v, 1] - col)
            row, col = vertices[v, 0], vertices[v, 1]
        if ends[c, 0] >= 0:
            total += abs(nodes[ends[c, 2], 0] - row) + abs(nodes[ends[c, 2], 1] - col)
        out[c] = total
