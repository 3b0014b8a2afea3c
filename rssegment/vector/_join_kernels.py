"""Compiled inside of :mod:`rssegment.vector.join`: union-find over regions, and chains to rings.

Half-chain ``2 * c`` is chain ``c`` walked from its start, ``2 * c + 1`` from its end; the part on its left is
``sides[c, h & 1]``. Rings keep their part on the left: seen with row 0 on top, exteriors run anticlockwise.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.vector._compile import inlined, kernel

__all__ = [
    "chain_lengths",
    "copy_rings",
    "flatten",
    "sum_groups",
    "topmost",
    "unite_pairs",
    "walk_rings",
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


@kernel("void(int64[::1], int32[:, ::1], int64[::1])")
def topmost(offsets: Int64, vertices: Int32, top: Int64) -> None:
    """Per chain, the index of its topmost, then leftmost vertex; -1 if it has none."""
    for c in range(offsets.size - 1):
        best = -1
        for v in range(offsets[c], offsets[c + 1]):
            if best < 0 or (
                vertices[v, 0] < vertices[best, 0]
                or (vertices[v, 0] == vertices[best, 0] and vertices[v, 1] < vertices[best, 1])
            ):
                best = v
        top[c] = best


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


@inlined
def _next(half: int, ends: Int32, sides: Int32, slots: Int32) -> int:
    """The half-chain that goes on along the same part; where the part meets itself at a corner, across it."""
    c, back = half >> 1, half & 1
    if ends[c, 0] < 0:
        return half
    node = ends[c, 0] if back else ends[c, 2]
    ahead = (ends[c, 1] if back else ends[c, 3]) ^ 2
    left, straight, right = slots[node, (ahead + 1) & 3], slots[node, ahead], slots[node, (ahead + 3) & 3]
    if left >= 0 and straight >= 0 and right >= 0:
        return int(right if sides[right >> 1, right & 1] == sides[c, back] else left)
    if left >= 0:
        return int(left)
    return int(straight if straight >= 0 else right)


@kernel(
    "int64(int32[:, ::1], int32[:, ::1], int64[::1], int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], "
    "uint8[::1], int64, int32[::1], int32[::1], int64[::1], int64[::1], int32[::1], int64[::1])"
)
def walk_rings(
    ends: Int32,
    sides: Int32,
    offsets: Int64,
    vertices: Int32,
    top: Int64,
    nodes: Int32,
    slots: Int32,
    keep: NDArray[np.uint8],
    stride: int,
    following: Int32,
    ring_part: Int32,
    ring_key: Int64,
    ring_size: Int64,
    ring_half: Int32,
    ring_vertex: Int64,
) -> int:
    """Finds every ring: its part, its topmost-then-leftmost corner as ``row * stride + col``, its number of corners
    (the first counted twice), and where that corner is: half-chain and vertex, -1 for the half-chain's first node.

    ``keep``: whether a node is a corner of rings. ``following``: -1 for each half-chain on entry, then the half-chain
    that goes on along the ring. Returns the number of rings.
    """
    count = 0
    for start in range(2 * sides.shape[0]):
        part = sides[start >> 1, start & 1]
        if part < 0 or following[start] >= 0:
            continue
        best, best_half, best_vertex, size, half = np.int64(2**62), start, -1, 1, start
        while following[half] < 0:
            c = half >> 1
            size += offsets[c + 1] - offsets[c]
            v = top[c]
            if v >= 0:
                key = vertices[v, 0] * stride + vertices[v, 1]
                if key < best:
                    best, best_half, best_vertex = key, half, v
            node = ends[c, 2] if half & 1 else ends[c, 0]
            if node >= 0 and keep[node]:
                size += 1
                key = nodes[node, 0] * stride + nodes[node, 1]
                if key < best:
                    best, best_half, best_vertex = key, half, -1
            following[half] = _next(half, ends, sides, slots)
            half = following[half]
        ring_part[count] = part
        ring_key[count] = best
        ring_size[count] = size
        ring_half[count] = best_half
        ring_vertex[count] = best_vertex
        count += 1
    return count


@inlined
def _copy(out: Int32, place: int, half: int, first: int, stop: int, vertices: Int32) -> int:
    """Writes vertices ``first`` to before ``stop`` (counted downwards for a half-chain walked backwards)."""
    step = -1 if half & 1 else 1
    for v in range(first, stop, step):
        out[place, 0] = vertices[v, 0]
        out[place, 1] = vertices[v, 1]
        place += 1
    return place


@inlined
def _copy_node(out: Int32, place: int, node: int, nodes: Int32, keep: NDArray[np.uint8]) -> int:
    if node < 0 or not keep[node]:
        return place
    out[place, 0] = nodes[node, 0]
    out[place, 1] = nodes[node, 1]
    return place + 1


@kernel(
    "void(int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], uint8[::1], int32[::1], "
    "int32[::1], int64[::1], int64[::1], int64[::1], int32[:, ::1])"
)
def copy_rings(
    ends: Int32,
    offsets: Int64,
    vertices: Int32,
    nodes: Int32,
    keep: NDArray[np.uint8],
    following: Int32,
    ring_half: Int32,
    ring_vertex: Int64,
    order: Int64,
    ring_offsets: Int64,
    out: Int32,
) -> None:
    """Writes the corners of each ring, in ``order``, from its first corner round to it again."""
    for k in range(order.size):
        begin, mark = ring_half[order[k]], ring_vertex[order[k]]
        place = ring_offsets[k]
        half = begin
        first_round = True
        while first_round or half != begin:
            c, back = half >> 1, half & 1
            low, high = offsets[c], offsets[c + 1]
            start, stop = (high - 1, low - 1) if back else (low, high)
            if first_round and mark >= 0:
                start = mark
            else:
                place = _copy_node(out, place, ends[c, 2] if back else ends[c, 0], nodes, keep)
            place = _copy(out, place, half, start, stop, vertices)
            first_round = False
            half = following[half]
        if mark >= 0:
            c, back = begin >> 1, begin & 1
            place = _copy_node(out, place, ends[c, 2] if back else ends[c, 0], nodes, keep)
            place = _copy(out, place, begin, offsets[c + 1] - 1 if back else offsets[c], mark, vertices)
        out[place, 0] = out[ring_offsets[k], 0]
        out[place, 1] = out[ring_offsets[k], 1]
