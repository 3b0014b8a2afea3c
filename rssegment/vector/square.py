"""Outlines of buildings with right angles, that still meet nothing.

A ring A' is a closed chain, simplified: a boundary that has no junction, as of a building within one yard. A* is the
same with straight walls along two perpendicular axes and, where they are long, diagonals between. Why no chain
crosses another:

* **Moving.** There is a distance h, at most the limit, such that one can walk A' and A* around, forwards only, and
  never be farther apart than h (Fréchet distance; so the Hausdorff distance is no more). A' may become A* only if it is
  farther than h from everything that stays, and farther than h + g from every other ring B' that could become a B*
  at distance g. Then A* meets neither what stays, nor B', nor B*. And as A' turns into A* along the straight lines of
  that walk, no point farther than h from A' is passed over: what was inside stays inside, what was outside, outside.
* **Alone.** A* and h are functions of A' alone. Whether A' may become A* depends on the rings and lines near it, as
  they were before any moved. So neither order nor blocks change the result, if each call has all that is within
  twice the limit of the rings whose result is used.
* **Two outlines.** Where both a ring as it was, E, and simplified, A', are given, A* is found from E and within h of
  it, and both E and A' must be far enough from all that the others are, simplified or not. What was inside of A' was
  inside of E too, since chains that are simplified pass over none.
* **Itself.** A* is simple (tested in whole numbers), turns as A' does, and encloses the same area but for rounding.

Of all ways to cut A' into walls, dynamic programming takes the one with the least sum of what walls cost and of their
squared distances from A' beyond noise; the axes are then those for which the distances of these walls are least,
and so on in turn. It begins with several axes: of the raster, of straight pieces, of the smallest box. A shape that
an ellipse describes as well stays as it is, and so does one that has walls only if its own steps are taken for such.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, SettingsError
from rssegment.vector.pieces import ragged

__all__ = ["MAX_LIMIT", "check_limit", "square_rings"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

MAX_LIMIT = 1024  # px
DETAILS = (
    1.0,
    0.7,
    0.45,
)  # of the limit: walls are looked for this near to the ring, until their corners keep to it


def square_rings(  # noqa: PLR0917 - rings and lines are arrays side by side
    vertices: Int32,
    offsets: Int64,
    others: NDArray[np.integer[Any]],
    scale: int,
    limit: float,
    exact: tuple[Int32, Int64] | None = None,
) -> tuple[Int32, Int64, Bools]:
    """Rings with right angles where they can have them within ``limit`` px; returns ``(vertices, offsets, changed)``.

    Rings ``vertices[offsets[k] : offsets[k + 1]]``, (V, 2) rows and columns in 1 / ``scale`` px, the first not
    repeated, are simple and don't meet. ``others`` (S, 4): segments (row, col, row, col) of all other boundaries within
    ``limit`` of a ring; they stay where they are. Give every ring that another call may square, and that is within
    twice the limit of one whose result you use, as a ring here too. A ``scale`` of 16 or more keeps angles right.
    ``exact``: vertices and offsets of the same rings, in the same order and direction, before they were simplified.
    With them it is these whose walls are found, better than from what was left of them, and whose area is kept.

    Changed rings begin at their topmost, then leftmost corner and turn as they did; the rest stay as they are.

    Law: the result for a ring does not depend on which of its vertices is first, nor on its direction, nor on the
    order of the rings; moved by whole pixels, it is the same. Law: what did not meet before does not meet after.

    Raises
    ------
    SettingsError
        ``limit`` or ``scale`` is out of its range.
    InputError
        An array has the wrong shape or type, or coordinates beyond 32 bits.
    """
    from rssegment.vector import _square_checks as checks
    from rssegment.vector import _square_near as near

    check_limit(limit)
    _check_scale(scale)
    vertices, offsets = _checked(vertices, offsets)
    others = _whole("segments of other boundaries", others, 4)
    exact_vertices, exact_offsets = (vertices, offsets) if exact is None else _checked(*exact)
    n = offsets.size - 1
    if exact_offsets.size != n + 1:
        raise InputError(
            f"{n} rings have {exact_offsets.size - 1} exact ones; each must have one, in the same order"
        )
    if not n:
        return vertices.copy(), offsets.copy(), np.zeros(0, np.bool_)
    rings, turned = _canonical(exact_vertices, exact_offsets)
    made = _outlines(rings, exact_offsets, scale, limit)
    lines, owner = _segments(rings, exact_offsets)
    if exact is not None:
        more = _segments(vertices, offsets)
        lines, owner = np.concatenate([lines, more[0]]), np.concatenate([owner, more[1]])
    blocked = np.zeros(n, np.bool_)
    near.find_blocked(lines, owner, others, made.reach, blocked)
    chosen = np.where(blocked, -1, made.chosen)
    changed = chosen >= 0
    sizes = np.diff(offsets)
    sizes[changed] = np.diff(made.ends, prepend=0)[chosen[changed]]
    out_offsets = np.concatenate([[0], np.cumsum(sizes)])
    out = np.empty((int(out_offsets[-1]), 2), np.int32)
    checks.write_rings(vertices, offsets, made.corners, made.ends, chosen, turned, out_offsets, out)
    return out, out_offsets, changed


def _canonical(vertices: Int32, offsets: Int64) -> tuple[Int32, Bools]:
    """The rings in the one order that doesn't depend on how they were given, and which of them that turns round."""
    from rssegment.vector import _simplify_lines as lines

    closed = np.ones(offsets.size - 1, np.bool_)
    rings, turned = np.empty_like(vertices), np.empty(closed.size, np.bool_)
    lines.canonical(vertices, offsets, closed, rings, turned)
    return rings, turned


@dataclass(frozen=True, eq=False)
class _Outlines:
    """Outlines ``corners`` (N, 2), which end at ``ends``; that of each ring, -1 for none, and how far it moves (R,)."""

    corners: Int32
    ends: Int64
    chosen: Int64
    reach: NDArray[np.float64]


def _outlines(rings: Int32, offsets: Int64, scale: int, limit: float) -> _Outlines:
    """Outlines of canonical rings that keep to the limit: as plain as they can be."""
    from rssegment.vector import _square_checks as checks

    n = offsets.size - 1
    chosen, reach, todo = np.full(n, -1, np.int64), np.zeros(n), np.arange(n)
    corners, sizes, count = [], [], 0
    for detail in DETAILS:
        at, own = ragged(offsets, todo)
        part = rings[at]
        fits, is_round = _fits(part, own, scale, limit, detail)
        found, level = np.empty(todo.size, np.int64), np.empty(todo.size, np.int64)
        checks.choose_fits(part, own, scale, limit, *fits, found, level)
        good = found >= 0
        chosen[todo[good]] = count + found[good]
        reach[todo] = level * (limit * scale / checks.LEVELS)
        ends = fits[2]
        corners.append(fits[0][: ends[-1] if ends.size else 0])
        sizes.append(np.diff(ends, prepend=0))
        count += ends.size
        todo = todo[~good & ~is_round]
    return _Outlines(np.concatenate(corners), np.cumsum(np.concatenate(sizes)), chosen, reach)


def _fits(
    rings: Int32, offsets: Int64, scale: int, limit: float, detail: float
) -> tuple[tuple[Int32, Int32, Int64, Int64], Bools]:
    """Outlines that may stand for the rings: corners, where on the ring their walls begin, ends, and (R + 1,) how many
    up to each ring; and which rings are round."""
    from rssegment.vector import _square_kernels as kernels

    n = offsets.size - 1
    size = kernels.FITS * (len(rings) + kernels.SPARE * n)
    corners, begins = np.empty((size, 2), np.int32), np.empty(size, np.int32)
    ends, fits, is_round = (
        np.empty(kernels.FITS * n, np.int64),
        np.empty(n + 1, np.int64),
        np.empty(n, np.bool_),
    )
    count = kernels.fit_rings(rings, offsets, scale, limit, detail, corners, begins, ends, fits, is_round)
    return (corners, begins, ends[:count], fits), is_round


def _segments(rings: Int32, offsets: Int64) -> tuple[Int32, Int64]:
    """(N, 4) the segments of rings, and (N,) the ring of each."""
    after = np.arange(1, len(rings) + 1)
    filled = np.flatnonzero(np.diff(offsets))
    after[offsets[1:][filled] - 1] = offsets[filled]
    return np.hstack([rings, rings[after]]), np.repeat(np.arange(offsets.size - 1), np.diff(offsets))


def check_limit(limit: float) -> None:
    """Raises SettingsError where outlines can't be let move by ``limit`` px."""
    if not (math.isfinite(limit) and 0 < limit <= MAX_LIMIT):
        raise SettingsError(
            f"outlines may move by {limit} px to have right angles; it must be more than 0 and at most {MAX_LIMIT}"
        )


def _check_scale(scale: int) -> None:
    if not 1 <= scale <= 2**16:
        raise SettingsError(f"coordinates are in 1/{scale} px; the scale must lie between 1 and {2**16}")


def _checked(vertices: NDArray[Any], offsets: NDArray[Any]) -> tuple[Int32, Int64]:
    """Rings in the types that kernels take."""
    if offsets.ndim != 1 or not offsets.size or offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise InputError("offsets of rings must be one ascending row of numbers that begins with 0")
    if int(offsets[-1]) != len(vertices):
        raise InputError(
            f"offsets of rings end at {int(offsets[-1])}, but there are {len(vertices)} vertices"
        )
    return _whole("vertices of rings", vertices, 2), np.ascontiguousarray(offsets, np.int64)


def _whole(name: str, values: NDArray[Any], columns: int) -> Int32:
    if values.size == 0:
        return np.empty((0, columns), np.int32)
    if values.ndim != 2 or values.shape[1] != columns or values.dtype.kind not in "iu":
        raise InputError(
            f"{name} are {values.dtype} of shape {values.shape}; expected whole numbers of shape (n, {columns})"
        )
    if values.dtype != np.int32 and (values.min() < -(2**31) or values.max() >= 2**31):
        raise InputError(f"{name} reach beyond 32 bits; use a smaller scale")
    return np.ascontiguousarray(values, np.int32)
