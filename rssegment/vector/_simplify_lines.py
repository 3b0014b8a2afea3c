"""Compiled inside of :mod:`rssegment.vector.simplify`: what needs no obstacles.

The canonical order of chains, the significance of vertices by Douglas and Peucker, and the writing of what was kept.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["HALVINGS", "canonical", "significance", "write_chains"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

HALVINGS = 5  # as in rssegment.vector.simplify


@inlined
def _less(v: Int32, a: int, b: int) -> bool:
    return bool(v[a, 0] < v[b, 0] or (v[a, 0] == v[b, 0] and v[a, 1] < v[b, 1]))


@inlined
def _topmost(v: Int32, first: int, last: int) -> int:
    """Of vertices ``first`` to before ``last``, the topmost, then leftmost."""
    best = first
    for k in range(first + 1, last):
        if _less(v, k, best):
            best = k
    return best


@kernel("void(int32[:, ::1], int64[::1], boolean[::1], int32[:, ::1], boolean[::1])")
def canonical(vertices: Int32, offsets: Int64, closed: Bools, out: Int32, turned: Bools) -> None:
    """Writes each chain in the one order that doesn't depend on how it was given; ``turned`` where that is
    backwards.

    Open: from the smaller (row, col) of both ends; if they are one, the end whose neighbour is smaller. Closed:
    from the topmost, then leftmost vertex towards its smaller neighbour.
    """
    for k in range(closed.size):
        first, last = offsets[k], offsets[k + 1]
        n = last - first
        start, back = first, False
        if closed[k]:
            start = _topmost(vertices, first, last)
            back = _less(
                vertices, start - 1 if start > first else last - 1, start + 1 if start + 1 < last else first
            )
        else:
            a, b = first, last - 1
            while a < b and not _less(vertices, a, b) and not _less(vertices, b, a):
                a += 1
                b -= 1
            back = _less(vertices, b, a)
            start = last - 1 if back else first
        turned[k] = back
        at, step = start, -1 if back else 1
        for i in range(first, last):
            out[i, 0] = vertices[at, 0]
            out[i, 1] = vertices[at, 1]
            at += step
            if at == last:
                at -= n
            elif at < first:
                at += n


@inlined
def _squared_distance(v: Int32, p: int, a: int, b: int) -> float:
    """Squared distance, px², of a vertex from the segment between two others."""
    r, c = np.float64(v[p, 0]) - v[a, 0], np.float64(v[p, 1]) - v[a, 1]
    dr, dc = np.float64(v[b, 0]) - v[a, 0], np.float64(v[b, 1]) - v[a, 1]
    length = dr * dr + dc * dc
    along = r * dr + c * dc
    if along <= 0.0:
        return float(r * r + c * c)
    if along >= length:
        return float((r - dr) * (r - dr) + (c - dc) * (c - dc))
    off = r * dc - c * dr
    return float(off * off / length)


@inlined
def _split(
    v: Int32,
    first: int,
    stop: int,
    end: int,
    value: NDArray[np.float64],
    stack: Int64,
    limits: NDArray[np.float64],
) -> None:
    """Douglas and Peucker's recursion from ``first`` to ``stop``, which is vertex ``end``, without recursing."""
    size = 1
    stack[0], stack[1], limits[0] = first, stop, np.inf
    while size > 0:
        size -= 1
        a, b, limit = stack[2 * size], stack[2 * size + 1], limits[size]
        if b - a < 2:
            continue
        best, far = -1.0, a + 1
        for k in range(a + 1, b):
            distance = _squared_distance(v, k, a, end if b == stop else b)
            if distance > best:
                best, far = distance, k
        value[far] = min(best, limit)
        for low, high in ((a, far), (far, b)):
            stack[2 * size], stack[2 * size + 1], limits[size] = low, high, value[far]
            size += 1


@kernel("void(int32[:, ::1], int64[::1], boolean[::1], float64[::1])")
def significance(vertices: Int32, offsets: Int64, closed: Bools, value: NDArray[np.float64]) -> None:
    """Squared distance, px², by which each vertex would be kept: the least on the way to it in the recursion.

    Ends are infinite; closed chains are split at their first vertex and the one farthest from it.
    """
    longest = 0
    for k in range(closed.size):
        longest = max(longest, offsets[k + 1] - offsets[k])
    stack, limits = np.empty(2 * longest + 4, np.int64), np.empty(longest + 2, np.float64)
    for k in range(closed.size):
        first, last = offsets[k], offsets[k + 1]
        if last == first:
            continue
        value[first] = np.inf
        if not closed[k]:
            value[last - 1] = np.inf
            _split(vertices, first, last - 1, last - 1, value, stack, limits)
            continue
        far = first
        for i in range(first + 1, last):
            if _squared_distance(vertices, i, first, first) > _squared_distance(vertices, far, first, first):
                far = i
        value[far] = np.inf
        _split(vertices, first, far, far, value, stack, limits)
        _split(vertices, far, last, first, value, stack, limits)


@inlined
def _way(v: Int32, b: int, other: int, reach: float) -> tuple[int, int]:
    """The way from vertex ``b`` to another in 1 / 2**HALVINGS px, halved until it is no longer than ``reach`` px."""
    row, col = np.int64(v[other, 0]) - v[b, 0], np.int64(v[other, 1]) - v[b, 1]
    shift = HALVINGS
    length = float(row * row + col * col)
    while shift > 0 and length > reach * reach:
        length /= 4
        shift -= 1
    return row << shift, col << shift


@inlined
def _fill(v: Int32, keep: NDArray[np.uint8], weights: Int32, scale: int, reach: float, out: Int32) -> int:
    """Writes the vertices of one chain, or the points that stand for them. Returns their number."""
    n, count = v.shape[0], 0
    before = n - 1
    while before > 0 and not keep[before]:
        before -= 1
    b = 0
    while b < n:
        if not keep[b]:
            b += 1
            continue
        after = b + 1
        while after < n and not keep[after]:
            after += 1
        if keep[b] == 1:
            out[count, 0], out[count, 1] = scale * v[b, 0], scale * v[b, 1]
            count += 1
        else:
            c = after
            if c == n:
                c = 0
                while not keep[c]:
                    c += 1
            near, far = _way(v, b, before, reach), _way(v, b, c, reach)
            for k in range(weights.shape[0]):
                wa, wc = weights[k, 0], weights[k, 2]
                out[count, 0] = scale * v[b, 0] + wa * near[0] + wc * far[0]
                out[count, 1] = scale * v[b, 1] + wa * near[1] + wc * far[1]
                count += 1
        before = b
        b = after
    return count


@kernel(
    "void(int32[:, ::1], int64[::1], boolean[::1], boolean[::1], uint8[::1], int32[:, ::1], int64, float64, "
    "int64[::1], int32[:, ::1])"
)
def write_chains(
    vertices: Int32,
    offsets: Int64,
    closed: Bools,
    turned: Bools,
    keep: NDArray[np.uint8],
    weights: Int32,
    scale: int,
    reach: float,
    out_offsets: Int64,
    out: Int32,
) -> None:
    """Writes what ``keep`` left of canonical ``vertices``, in the direction the chains were given, in 1 /
    ``scale`` px.

    Cut corners become the points that ``weights`` (n, 3) of their neighbour before, themselves and the one
    after make, where neighbours further than ``reach`` px are drawn nearer by halves. Closed chains start at
    their topmost, then leftmost point.
    """
    longest = 0
    for k in range(closed.size):
        longest = max(longest, out_offsets[k + 1] - out_offsets[k])
    line = np.empty((longest, 2), np.int32)
    for k in range(closed.size):
        first, last, place = offsets[k], offsets[k + 1], out_offsets[k]
        n = _fill(vertices[first:last], keep[first:last], weights, scale, reach, line)
        at, step = 0, 1
        if turned[k]:
            at, step = n - 1, -1
        if closed[k] and n > 0:
            at = _topmost(line, 0, n)
        for i in range(place, place + n):
            out[i, 0] = line[at, 0]
            out[i, 1] = line[at, 1]
            at += step
            if at == n:
                at = 0
            elif at < 0:
                at = n - 1
