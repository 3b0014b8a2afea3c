"""Compiled inside of :mod:`rssegment.vector.simplify`: corners of chains are removed or cut where no obstacle
is in the way.

Chains come in canonical order, and the bitmap's directory reaches all of them.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel
from rssegment.vector._simplify_bitmap import (
    ABSENT,
    BITMAP,
    FREE,
    Bitmap,
    address_of,
    clear,
    first_inside,
    is_set,
    put,
)
from rssegment.vector._simplify_straight import may_be_straight

__all__ = ["CUT", "HELPERS", "KEPT", "NEVER", "REMOVED", "sift_chains"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Work = tuple[Int32, Int32, Int64, UInt8, Int64, Int64, Int32, UInt8]

# Numba's cache on disk knows this file alone; so that no stale helper stays in it, this is a hash of the files they are
# in, and changes with them (a test says to what).
HELPERS = "670b7cc639dc80b6"

REMOVED, KEPT, CUT = 0, 1, 2  # what becomes of a vertex
IDLE, QUEUED, BLOCKED, FIXED = 0, 1, 2, 3  # its state on the way
NEVER = np.int64(2**40)  # rank of vertices that aren't to be removed
SHIFT = 31  # keys of the heap: value, then position in the chain
MASK = 2**SHIFT - 1


@inlined
def _doubled_area(v: Int32, a: int, b: int, c: int) -> int:
    """Twice the area of a triangle of vertices, px²; 0 if they are collinear."""
    rb, cb = int(v[b, 0]) - v[a, 0], int(v[b, 1]) - v[a, 1]
    rc, cc = int(v[c, 0]) - v[a, 0], int(v[c, 1]) - v[a, 1]
    return int(abs(rb * cc - cb * rc))


@inlined
def _in_the_way(v: Int32, a: int, b: int, c: int, bitmap: Bitmap) -> int:
    """What keeps vertex ``b`` from being removed between ``a`` and ``c``: address of an obstacle, FREE or ABSENT.

    A triangle of half a pixel holds no corner but its own (Pick); a flat one is the chain itself.
    """
    if _doubled_area(v, a, b, c) <= 1:
        return FREE
    at = (
        int(v[a, 0]), int(v[a, 1]), int(v[b, 0]),
        int(v[b, 1]), int(v[c, 0]), int(v[c, 1]),
    )  # fmt: skip
    return first_inside(bitmap, at, 1, at)


@inlined
def _may_be_cut(v: Int32, a: int, b: int, c: int, bitmap: Bitmap) -> int:
    """The same for cutting corner ``b`` between the middles of its edges; where these are one line, itself."""
    area = _doubled_area(v, a, b, c)
    if area == 0:
        return address_of(bitmap, int(v[b, 0]), int(v[b, 1]))
    if area == 1:
        return FREE
    r, q = int(v[b, 0]), int(v[b, 1])
    corners = (r + v[a, 0], q + v[a, 1], 2 * r, 2 * q, r + v[c, 0], q + v[c, 1])
    return first_inside(bitmap, corners, 2, (r, q, r, q, r, q))


@inlined
def _push(heap: Int64, size: int, key: int) -> int:
    k = size
    while k > 0:
        above = (k - 1) >> 1
        if heap[above] <= key:
            break
        heap[k] = heap[above]
        k = above
    heap[k] = key
    return size + 1


@inlined
def _drop_least(heap: Int64, size: int) -> int:
    """Takes ``heap[0]`` away."""
    size -= 1
    key, k, below = heap[size], 0, 1
    while below < size:
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= key:
            break
        heap[k] = heap[below]
        k, below = below, 2 * below + 1
    heap[k] = key
    return size


@inlined
def _requeue(v: Int32, b: int, rank: Int64, limit: int, work: Work, size: int) -> int:
    """Values vertex ``b`` anew after a neighbour went, and queues it where it is below the limit."""
    before, after, value, state, _, heap, _, _ = work
    if state[b] == FIXED:
        return size
    now = rank[b] if rank.size else _doubled_area(v, before[b], b, after[b])
    if now >= limit:
        state[b] = IDLE
        value[b] = now
    elif state[b] != QUEUED or value[b] != now:
        state[b] = QUEUED
        value[b] = now
        size = _push(heap, size, (now << SHIFT) | b)
    return size


@inlined
def _release(words: Int64, work: Work, waiting: int) -> tuple[int, int]:
    """Queues the blocked vertices whose obstacle has gone. Returns the numbers queued and still waiting."""
    _, _, value, state, blocker, heap, wait, listed = work
    size, left = 0, 0
    for k in range(waiting):
        b = wait[k]
        if state[b] == BLOCKED and is_set(words, blocker[b]):
            wait[left] = b
            left += 1
            continue
        listed[b] = 0
        if state[b] == BLOCKED:
            state[b] = QUEUED
            size = _push(heap, size, (value[b] << SHIFT) | b)
    return size, left


@inlined
def _start(v: Int32, closed: bool, fixed: UInt8, rank: Int64, limit: int, work: Work) -> int:
    """Links all vertices and queues those below the limit. Returns the size of the heap."""
    before, after, value, state, _, heap, _, listed = work
    n, size = v.shape[0], 0
    for b in range(n):
        before[b] = b - 1 if b else n - 1
        after[b] = b + 1 if b + 1 < n else 0
        listed[b] = 0
        state[b] = IDLE
        if fixed[b] or (not closed and b in (0, n - 1)):
            state[b] = FIXED
        elif limit > 0:
            value[b] = rank[b] if rank.size else _doubled_area(v, before[b], b, after[b])
            if value[b] < limit:
                state[b] = QUEUED
                size = _push(heap, size, (value[b] << SHIFT) | b)
    return size


@inlined
def _remove(
    v: Int32,
    closed: bool,
    pixels: Int64,
    rank: Int64,
    limit: int,
    bitmap: Bitmap,
    keep: UInt8,
    work: Work,
    size: int,
) -> bool:
    """Removes vertices, least value first, until none is left that is below the limit and not blocked.

    Returns whether an absent tile was asked for.
    """
    before, after, value, state, blocker, heap, wait, listed = work
    left = v.shape[0]
    loop = v[0, 0] == v[left - 1, 0] and v[0, 1] == v[left - 1, 1]
    fewest = 3 if closed else (4 if loop else 2)
    absent, changed, waiting = False, False, 0
    while left > fewest:
        if size == 0:
            if not changed:
                break
            changed = False
            size, waiting = _release(bitmap[0], work, waiting)
            if size == 0:
                break
        key = heap[0]
        size = _drop_least(heap, size)
        b = key & MASK
        if state[b] != QUEUED or value[b] != key >> SHIFT:
            continue
        hit = _in_the_way(v, before[b], b, after[b], bitmap)
        if hit == FREE and left == 3 and not closed:
            straight = may_be_straight(v, pixels[0], pixels[1], bitmap)
            if straight != 1:
                return absent or straight == ABSENT
        if hit == FREE:
            a, c = before[b], after[b]
            after[a] = c
            before[c] = a
            keep[b] = REMOVED
            state[b] = IDLE
            clear(bitmap[0], address_of(bitmap, int(v[b, 0]), int(v[b, 1])))
            left -= 1
            changed = True
            size = _requeue(v, a, rank, limit, work, size)
            size = _requeue(v, c, rank, limit, work, size)
        elif hit == ABSENT:
            absent = True
            state[b] = IDLE
        else:
            state[b] = BLOCKED
            blocker[b] = hit
            if not listed[b]:
                listed[b] = 1
                wait[waiting] = b
                waiting += 1
    return absent


@inlined
def _cut(v: Int32, bitmap: Bitmap, keep: UInt8, work: Work) -> bool:
    """Marks the corners that may be cut. Returns whether an absent tile was asked for."""
    before, after, _, state, _, _, _, _ = work
    absent = False
    for b in range(v.shape[0]):
        if keep[b] == KEPT and state[b] != FIXED:
            hit = _may_be_cut(v, before[b], b, after[b], bitmap)
            if hit == FREE:
                keep[b] = CUT
            absent |= hit == ABSENT
    return absent


@inlined
def _check(v: Int32, bitmap: Bitmap) -> int:
    """0 where all vertices are obstacles, ABSENT where some lie in absent tiles, 1 where one is not set."""
    answer = 0
    for k in range(v.shape[0]):
        address = address_of(bitmap, int(v[k, 0]), int(v[k, 1]))
        if address == ABSENT:
            answer = ABSENT
        elif not is_set(bitmap[0], address):
            return 1
    return answer


@kernel(
    f"int64(int32[:, ::1], int64[::1], boolean[::1], int64[:, ::1], uint8[::1], int64[::1], int64, boolean, {BITMAP}, "
    "uint8[::1], boolean[::1])"
)
def sift_chains(
    vertices: Int32,
    offsets: Int64,
    closed: NDArray[np.bool_],
    pixels: Int64,
    fixed: UInt8,
    rank: Int64,
    limit: int,
    cut: bool,
    bitmap: Any,
    keep: UInt8,
    incomplete: NDArray[np.bool_],
) -> int:
    """Decides per vertex: REMOVED, KEPT, or CUT. ``bitmap`` comes out as it came in.

    Values are ``rank``, or doubled areas where it is empty; those below ``limit`` are removed, least first.
    ``incomplete``: whether a chain needs tiles that are absent. Returns the first chain that isn't among the
    obstacles, or -1.
    """
    longest = 0
    for k in range(closed.size):
        longest = max(longest, offsets[k + 1] - offsets[k])
    ints, longs, flags = (
        np.empty((3, longest), np.int32),
        np.empty((2, longest), np.int64),
        np.empty((2, longest), np.uint8),
    )
    work = (
        ints[0],
        ints[1],
        longs[0],
        flags[0],
        longs[1],
        np.empty(2 * longest + 2, np.int64),
        ints[2],
        flags[1],
    )
    for k in range(closed.size):
        first, last = offsets[k], offsets[k + 1]
        v, keeps = vertices[first:last], keep[first:last]
        ranks = rank[first:last] if rank.size else rank
        keeps[:] = KEPT
        state = _check(v, bitmap)
        if state == 1:
            return k
        incomplete[k] = state == ABSENT
        if state == ABSENT or v.shape[0] < 3:
            continue
        size = _start(v, closed[k], fixed[first:last], ranks, limit, work)
        if size > 0:
            incomplete[k] = _remove(v, closed[k], pixels[k], ranks, limit, bitmap, keeps, work, size)
        if cut:
            incomplete[k] |= _cut(v, bitmap, keeps, work)
        for b in range(v.shape[0]):
            if keeps[b] == REMOVED:
                put(bitmap[0], address_of(bitmap, int(v[b, 0]), int(v[b, 1])))
    return -1
