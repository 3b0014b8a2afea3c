"""Compiled inside of :mod:`rssegment.vector.square`: whether an outline may stand for a ring, and how far it moves.

Coordinates are whole units of 1 / scale px. A place on a ring is (edge, fraction), written as one number.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["LEVELS", "choose_fits", "write_rings"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Point = tuple[float, float]

LEVELS = 8  # how far a ring moves is known in so many steps up to the limit
APART = 0.162  # area that ring and outline don't share, of the ring's: intersection over union of 0.85
BLUR = 0.06  # px by which all of a ring may be off without counting: what pixels do to a small one
CHANGED = 0.005  # of the area may come or go
EXTENT = 2**29  # units; products of differences then fit in 64 bits
SAFE = 1e-3  # units; beyond all errors of rounding


@inlined
def _cross(a: Int32, b: Int32, c: Int32) -> int:
    """Twice the signed area of a triangle, exact."""
    r, q = np.int64(a[0]), np.int64(a[1])
    return int((np.int64(b[0]) - r) * (np.int64(c[1]) - q) - (np.int64(b[1]) - q) * (np.int64(c[0]) - r))


@inlined
def _between(a: Int32, b: Int32, p: Int32) -> bool:
    """Whether a point lies in the bounding box of two others."""
    return bool(min(a[0], b[0]) <= p[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= p[1] <= max(a[1], b[1]))


@inlined
def _touch(a: Int32, b: Int32, c: Int32, d: Int32) -> bool:
    """Whether two segments share a point, exact."""
    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    if max(a[1], b[1]) < min(c[1], d[1]) or max(c[1], d[1]) < min(a[1], b[1]):
        return False
    p, q, r, s = _cross(a, b, c), _cross(a, b, d), _cross(c, d, a), _cross(c, d, b)
    if (p > 0) != (q > 0) and (r > 0) != (s > 0) and p != 0 and q != 0 and r != 0 and s != 0:
        return True
    return bool(
        (p == 0 and _between(a, b, c)) or (q == 0 and _between(a, b, d))
        or (r == 0 and _between(c, d, a)) or (s == 0 and _between(c, d, b))
    )  # fmt: skip


@inlined
def _is_simple(v: Int32) -> bool:
    """Whether no two edges of a ring meet but neighbours in their vertex."""
    n = v.shape[0]
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        k = j + 1 if j + 1 < n else 0
        turn = _cross(v[i], v[j], v[k])
        ahead = (np.int64(v[j, 0]) - v[i, 0]) * (np.int64(v[k, 0]) - v[j, 0])
        ahead += (np.int64(v[j, 1]) - v[i, 1]) * (np.int64(v[k, 1]) - v[j, 1])
        if turn == 0 and ahead <= 0:
            return False
        for m in range(i + 2, n - 1 if i == 0 else n):
            if _touch(v[i], v[j], v[m], v[m + 1 if m + 1 < n else 0]):
                return False
    return True


@inlined
def _doubled_area(v: Int32) -> float:
    """Twice the area, negative where the ring turns so."""
    total = np.int64(0)
    for i in range(1, v.shape[0] - 1):
        total += _cross(v[0], v[i], v[i + 1])
    return float(total)


@inlined
def _reaches(v: Int32) -> bool:
    """Whether a ring is too large for exact arithmetic."""
    for axis in range(2):
        low, high = np.int64(v[0, axis]), np.int64(v[0, axis])
        for k in range(v.shape[0]):
            low, high = min(low, np.int64(v[k, axis])), max(high, np.int64(v[k, axis]))
        if high - low >= EXTENT:
            return True
    return False


@inlined
def _at(v: Int32, place: float) -> Point:
    """The point at a place of the ring, from its first vertex; places go around more than once."""
    n = v.shape[0]
    edge = math.floor(place)
    t = place - edge
    a, b = edge % n, (edge + 1) % n
    r, c = float(np.int64(v[a, 0]) - v[0, 0]), float(np.int64(v[a, 1]) - v[0, 1])
    return r + t * (np.int64(v[b, 0]) - v[a, 0]), c + t * (np.int64(v[b, 1]) - v[a, 1])


@inlined
def _middle(v: Int32, low: float, high: float) -> float:
    """The place halfway along the ring between two."""
    total = 0.0
    for turn in range(2):
        half, place, done = total / 2, low, 0.0
        while place < high:
            after = min(math.floor(place) + 1.0, high)
            a, b = _at(v, place), _at(v, after)
            step = math.sqrt((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2)
            if turn == 1 and done + step >= half:
                return float(place + (after - place) * (half - done) / step) if step > 0 else place
            done += step
            place = after
        total = done
    return high


@inlined
def _nearest(v: Int32, low: float, high: float, p: Point) -> tuple[float, float]:
    """Of the ring between two places, that nearest to ``p``, and its distance."""
    best, found, place = np.inf, low, low
    while place < high:
        after = min(math.floor(place) + 1.0, high)
        a, b = _at(v, place), _at(v, after)
        dr, dc = b[0] - a[0], b[1] - a[1]
        length = dr * dr + dc * dc
        t = 0.0 if length <= 0 else min(1.0, max(0.0, ((p[0] - a[0]) * dr + (p[1] - a[1]) * dc) / length))
        off = math.sqrt((a[0] + t * dr - p[0]) ** 2 + (a[1] + t * dc - p[1]) ** 2)
        if off < best:
            best, found = off, place + t * (after - place)
        place = after
    return found, best


@inlined
def _follows(v: Int32, low: float, high: float, a: Point, b: Point, reach: float) -> bool:
    """Whether one can walk the ring between two places, and the segment from ``a`` to ``b``, forwards only, and never
    be farther apart than ``reach`` (Fréchet distance)."""
    dr, dc = b[0] - a[0], b[1] - a[1]
    length = math.sqrt(dr * dr + dc * dc)
    if length <= 0:
        return False
    behind, place = 0.0, low
    while True:
        p = _at(v, place)
        along = ((p[0] - a[0]) * dr + (p[1] - a[1]) * dc) / length
        off = abs((p[0] - a[0]) * dc - (p[1] - a[1]) * dr) / length
        if off > reach:
            return False
        half = math.sqrt(reach * reach - off * off)
        behind = max(behind, along - half)
        if behind > min(along + half, length):
            return False
        if place >= high:
            return True
        place = min(math.floor(place) + 1.0, high)


@inlined
def _apart(v: Int32, low: float, high: float, a: Point, b: Point) -> float:
    """Area between the ring from one place to another and the line through ``a`` and ``b``."""
    dr, dc = b[0] - a[0], b[1] - a[1]
    length = math.sqrt(dr * dr + dc * dc)
    total, place = 0.0, low
    while place < high:
        after = min(math.floor(place) + 1.0, high)
        p, q = _at(v, place), _at(v, after)
        step = abs((q[0] - p[0]) * dr + (q[1] - p[1]) * dc) / length
        x = ((p[0] - a[0]) * dc - (p[1] - a[1]) * dr) / length
        y = ((q[0] - a[0]) * dc - (q[1] - a[1]) * dr) / length
        if x * y < 0:
            total += step * (x * x + y * y) / (abs(x) + abs(y)) / 2
        else:
            total += step * (abs(x) + abs(y)) / 2
        place = after
    return total


@inlined
def _length(v: Int32) -> float:
    total = 0.0
    for k in range(v.shape[0]):
        a, b = _at(v, float(k)), _at(v, k + 1.0)
        total += math.sqrt((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2)
    return total


@inlined
def _movement(v: Int32, w: Int32, begins: Int32, scale: int, limit: float, work: Float64) -> int:
    """In how many of LEVELS steps to ``limit`` (units) the ring ``v`` can move to ``w``; 0 if in none.

    The corners of ``w`` go with the places of ``v`` nearest to them, each among its own.
    """
    n, count = v.shape[0], w.shape[0]
    begin, middle, match = work[:, 0], work[:, 1], work[:, 2]
    for k in range(count):
        begin[k] = begins[k] / 2
        while k > 0 and begin[k] <= begin[k - 1]:
            begin[k] += n
    begin[count] = begin[0] + n
    for k in range(count):
        middle[k] = _middle(v, begin[k], begin[k + 1])
    least, unlike = 0.0, 0.0
    for k in range(count):
        p = (float(np.int64(w[k, 0]) - v[0, 0]), float(np.int64(w[k, 1]) - v[0, 1]))
        before = middle[k - 1] if k > 0 else middle[count - 1] - n
        match[k], off = _nearest(v, before, middle[k], p)
        least = max(least, off + SAFE)
    match[count] = match[0] + n
    level = max(1, math.ceil(least * LEVELS / limit))
    for k in range(count):
        b = k + 1 if k + 1 < count else 0
        p = (float(np.int64(w[k, 0]) - v[0, 0]), float(np.int64(w[k, 1]) - v[0, 1]))
        q = (float(np.int64(w[b, 0]) - v[0, 0]), float(np.int64(w[b, 1]) - v[0, 1]))
        while level <= LEVELS and not _follows(
            v, match[k], match[k + 1], p, q, level * limit / LEVELS - SAFE
        ):
            level += 1
        if level > LEVELS:
            return 0
        unlike += _apart(v, match[k], match[k + 1], p, q)
    if unlike > APART * abs(_doubled_area(v)) / 2 + BLUR * scale * _length(v):
        return 0
    return level


@inlined
def _level(v: Int32, w: Int32, begins: Int32, scale: int, limit: float, work: Float64) -> int:
    if _reaches(v) or _reaches(w):
        return 0
    area, new = _doubled_area(v), _doubled_area(w)
    if area * new <= 0 or not _is_simple(w):
        return 0
    # whole units for the corners are all that keeps the area from being the same
    if abs(new - area) > CHANGED * abs(area):
        return 0
    return _movement(v, w, begins, scale, limit, work)


@kernel(
    "void(int32[:, ::1], int64[::1], int64, float64, int32[:, ::1], int32[::1], int64[::1], int64[::1], int64[::1], "
    "int64[::1])"
)
def choose_fits(
    vertices: Int32,
    offsets: Int64,
    scale: int,
    limit: float,
    corners: Int32,
    begins: Int32,
    ends: Int64,
    fits: Int64,
    chosen: Int64,
    level: Int64,
) -> None:
    """For each ring, the first of its fits within the ``limit`` (px), or -1, and how many of LEVELS it takes."""
    most = 0
    for f in range(fits[-1]):
        most = max(most, ends[f] - (ends[f - 1] if f > 0 else 0))
    work = np.empty((most + 1, 3))
    for k in range(offsets.size - 1):
        chosen[k], level[k] = -1, 0
        v = vertices[offsets[k] : offsets[k + 1]]
        for f in range(fits[k], fits[k + 1]):
            first = ends[f - 1] if f > 0 else 0
            w = corners[first : ends[f]]
            level[k] = _level(v, w, begins[first : ends[f]], scale, limit * scale, work)
            if level[k] > 0:
                chosen[k] = f
                break


@kernel(
    "void(int32[:, ::1], int64[::1], int32[:, ::1], int64[::1], int64[::1], boolean[::1], int64[::1], "
    "int32[:, ::1])"
)
def write_rings(
    vertices: Int32,
    offsets: Int64,
    corners: Int32,
    ends: Int64,
    chosen: Int64,
    turned: NDArray[np.bool_],
    out_offsets: Int64,
    out: Int32,
) -> None:
    """Writes the rings, or the fits chosen for them: backwards where ``turned``, from the topmost, leftmost corner."""
    for k in range(offsets.size - 1):
        at = out_offsets[k]
        if chosen[k] < 0:
            for i in range(offsets[k], offsets[k + 1]):
                out[at, 0], out[at, 1] = vertices[i, 0], vertices[i, 1]
                at += 1
            continue
        first = ends[chosen[k] - 1] if chosen[k] > 0 else 0
        w = corners[first : ends[chosen[k]]]
        n, start = w.shape[0], 0
        for i in range(1, n):
            if w[i, 0] < w[start, 0] or (w[i, 0] == w[start, 0] and w[i, 1] < w[start, 1]):
                start = i
        for i in range(n):
            j = (start - i if turned[k] else start + i) % n
            out[at, 0], out[at, 1] = w[j, 0], w[j, 1]
            at += 1
