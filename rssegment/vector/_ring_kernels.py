"""Compiled inside of :mod:`rssegment.vector.rings`: from chains to the rings of the parts beside them.

Half-chain ``2 * c`` is chain ``c`` walked from its start, ``2 * c + 1`` from its end; the part on its left is
``sides[c, h & 1]``. Rings keep their part on the left: seen with row 0 on top, exteriors run anticlockwise.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["count_corners", "fill_slots", "name_sides", "order_rings", "place_rings", "walk_rings"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

_HOLE = 1 << 61


@kernel("int64(int32[:, ::1], int32[::1], int32[::1], int32[:, ::1])")
def name_sides(sides: Int32, group: Int32, name: Int32, named: Int32) -> int:
    """``named`` (C, 2): the ``name`` of the ``group`` of each side; -1 for negative sides and between equal groups.

    Returns how many chains have a named side.
    """
    count = 0
    for c in range(sides.shape[0]):
        a, b = sides[c, 0], sides[c, 1]
        left = group[a] if a >= 0 else np.int32(-1)
        right = group[b] if b >= 0 else np.int32(-1)
        named[c, 0] = name[left] if left >= 0 and left != right else -1
        named[c, 1] = name[right] if right >= 0 and left != right else -1
        count += int(named[c, 0] >= 0 or named[c, 1] >= 0)
    return count


@kernel("void(int32[:, ::1], int32[:, ::1], int32[:, ::1])")
def fill_slots(ends: Int32, sides: Int32, slots: Int32) -> None:
    """Writes into ``slots`` (N, 4), per node and direction, the half-chain that leaves there; -1 for none."""
    slots[:] = -1
    for c in range(ends.shape[0]):
        if ends[c, 0] >= 0 and (sides[c, 0] >= 0 or sides[c, 1] >= 0):
            slots[ends[c, 0], ends[c, 1]] = 2 * c
            slots[ends[c, 2], ends[c, 3]] = 2 * c + 1


@kernel("int64(int32[:, ::1], int32[:, ::1], int64[::1])")
def count_corners(ends: Int32, sides: Int32, offsets: Int64) -> int:
    """Number of corners of all rings together, each counted once a ring."""
    count = 0
    for c in range(ends.shape[0]):
        wanted = int(sides[c, 0] >= 0) + int(sides[c, 1] >= 0)
        count += wanted * (int(ends[c, 0] >= 0) + offsets[c + 1] - offsets[c])
    return int(count)


@inlined
def _next(node: int, leaving: int, part: int, sides: Int32, slots: Int32) -> int:
    """The half-chain that goes on along the same part at ``node``, which ``leaving`` leads back from.

    Where the part meets itself at a corner, the ring goes on across it.
    """
    left, straight, right = (
        slots[node, (leaving + 3) & 3],
        slots[node, leaving ^ 2],
        slots[node, (leaving + 1) & 3],
    )
    onward = straight if straight >= 0 else right
    onward = left if left >= 0 else onward
    if (left | straight | right) >= 0 and sides[
        right >> 1, right & 1
    ] == part:  # none is -1: one branch, not three
        onward = right
    return int(onward)


@inlined
def _is_hole(corners: Int32, start: int, first: int, stop: int) -> bool:
    """Whether the ring at ``start`` runs clockwise, by its turn at its topmost, then leftmost corner ``first``.

    Simplified, a hole may share that corner with its exterior.
    """
    before = first - 1 if first > start else stop - 1
    after = first + 1 if first + 1 < stop else start
    row, col = np.int64(corners[first, 0]), np.int64(corners[first, 1])
    come = row - corners[before, 0], col - corners[before, 1]
    go = corners[after, 0] - row, corners[after, 1] - col
    return bool(come[0] * go[1] < come[1] * go[0])


@kernel(
    "int64(int32[:, ::1], int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1], "
    "uint8[::1], int32[::1], int64[::1], int64[::1], int64[::1], int32[:, ::1])"
)
def walk_rings(
    ends: Int32,
    sides: Int32,
    offsets: Int64,
    vertices: Int32,
    nodes: Int32,
    slots: Int32,
    seen: NDArray[np.uint8],
    ring_part: Int32,
    ring_start: Int64,
    ring_first: Int64,
    ring_key: Int64,
    corners: Int32,
) -> int:
    """Writes the ``corners`` of every ring, from anywhere round; returns the number of rings.

    ``ring_part``: the part it bounds, ``ring_start`` (rings + 1,): where it begins in ``corners``, ``ring_first``:
    where its topmost, then leftmost corner is there, ``ring_key``: that corner as one number, ascending row-major,
    those of holes after all others.
    ``seen`` (2 * C,) comes in as zeros, for each half-chain.
    """
    count, place = 0, 0
    for start in range(2 * sides.shape[0]):
        part = sides[start >> 1, start & 1]
        if part < 0 or seen[start]:
            continue
        ring_part[count] = part
        ring_start[count] = place
        best, first, half = np.int64(2**62), place, start
        while not seen[half]:
            seen[half] = 1
            c, back = half >> 1, half & 1
            node = ends[c, 2 * back]
            if node >= 0:
                row, col = nodes[node, 0], nodes[node, 1]
                corners[place, 0], corners[place, 1] = row, col
                key = np.int64(row) << 32 | col
                if key < best:
                    best, first = key, place
                place += 1
            v, step = (offsets[c + 1] - 1, -1) if back else (offsets[c], 1)
            for _ in range(offsets[c + 1] - offsets[c]):
                row, col = vertices[v, 0], vertices[v, 1]
                corners[place, 0], corners[place, 1] = row, col
                key = np.int64(row) << 32 | col
                if key < best:
                    best, first = key, place
                place += 1
                v += step
            if node >= 0:
                half = _next(ends[c, 2 - 2 * back], ends[c, 3 - 2 * back], part, sides, slots)
        ring_first[count] = first
        ring_key[count] = best + (_HOLE if _is_hole(corners, ring_start[count], first, place) else 0)
        count += 1
    ring_start[count] = place
    return count


@inlined
def _second(ring: int, ring_start: Int64, ring_first: Int64, corners: Int32) -> int:
    """The corner after the first one of a ring as a number."""
    after = ring_first[ring] + 1
    at = after if after < ring_start[ring + 1] else ring_start[ring]
    return int(np.int64(corners[at, 0]) << 32 | np.int64(corners[at, 1]))


@kernel("void(int32[::1], int64[::1], int64[::1], int64[::1], int32[:, ::1], int64[::1], int64[::1])")
def order_rings(
    ring_part: Int32,
    ring_key: Int64,
    ring_start: Int64,
    ring_first: Int64,
    corners: Int32,
    part_rings: Int64,
    order: Int64,
) -> None:
    """Sorts rings by part, then by their keys: a part's exterior comes first.

    Simplified, two holes may share their first corner; their next ones differ. ``part_rings`` (P + 1,) comes in as
    zeros and becomes where the rings of each part begin in ``order``.
    """
    for k in range(ring_part.size):
        part_rings[ring_part[k] + 1] += 1
    for p in range(part_rings.size - 1):
        part_rings[p + 1] += part_rings[p]
    for k in range(ring_part.size):
        order[part_rings[ring_part[k]]] = k
        part_rings[ring_part[k]] += 1
    for p in range(part_rings.size - 1, 0, -1):
        part_rings[p] = part_rings[p - 1]  # each stood at the end of its part
    part_rings[0] = 0
    for p in range(part_rings.size - 1):
        low, high = part_rings[p], part_rings[p + 1]
        if high - low > 8:
            mine = order[low:high].copy()
            order[low:high] = mine[np.argsort(ring_key[mine])]
        for k in range(low + 1, high):
            ring, at = order[k], k
            while at > low and ring_key[order[at - 1]] >= ring_key[ring]:
                before = order[at - 1]
                if ring_key[before] == ring_key[ring]:
                    one = _second(before, ring_start, ring_first, corners)
                    if one < _second(ring, ring_start, ring_first, corners):
                        break
                order[at] = before
                at -= 1
            order[at] = ring


@kernel("void(int64[::1], int64[::1], int64[::1], int32[:, ::1], int64[::1], int32[:, ::1])")
def place_rings(
    order: Int64, ring_start: Int64, ring_first: Int64, corners: Int32, offsets: Int64, placed: Int32
) -> None:
    """Copies rings, in ``order``, each from its first corner round to it again; ``offsets``: where they begin."""
    place = 0
    for k in range(order.size):
        offsets[k] = place
        start, stop, first = ring_start[order[k]], ring_start[order[k] + 1], ring_first[order[k]]
        for v in range(first, stop):
            placed[place, 0], placed[place, 1] = corners[v, 0], corners[v, 1]
            place += 1
        for v in range(start, first + 1):
            placed[place, 0], placed[place, 1] = corners[v, 0], corners[v, 1]
            place += 1
    offsets[order.size] = place
