"""Compiled inside of :mod:`rssegment.vector.square`: which rings have another line too near to move.

The segments of rings that would move lie in the cells of a grid; every other segment looks into those near it. The
grid decides how long that takes, and nothing else.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["find_blocked"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]
Grid = tuple[float, float, float, int, int]  # first row and column, side of a cell, cells down and across
Segment = tuple[float, float, float, float]

CELLS = 4  # so many for each segment
SAFE = 1e-3  # units; beyond all errors of rounding


@inlined
def _off(p: float, q: float, s: Segment) -> float:
    """Squared distance of a point from a segment."""
    dr, dc = s[2] - s[0], s[3] - s[1]
    r, c = p - s[0], q - s[1]
    length = dr * dr + dc * dc
    t = 0.0 if length <= 0 else min(1.0, max(0.0, (r * dr + c * dc) / length))
    return float((r - t * dr) ** 2 + (c - t * dc) ** 2)


@inlined
def _side(s: Segment, p: float, q: float) -> float:
    return (s[2] - s[0]) * (q - s[1]) - (s[3] - s[1]) * (p - s[0])


@inlined
def _within(s: Segment, t: Segment, reach: float) -> bool:
    """Whether two segments are nearer to each other than ``reach``, or as near."""
    if min(s[0], s[2]) - max(t[0], t[2]) > reach or min(t[0], t[2]) - max(s[0], s[2]) > reach:
        return False
    if min(s[1], s[3]) - max(t[1], t[3]) > reach or min(t[1], t[3]) - max(s[1], s[3]) > reach:
        return False
    near = reach * reach
    if _off(s[0], s[1], t) <= near or _off(s[2], s[3], t) <= near:
        return True
    if _off(t[0], t[1], s) <= near or _off(t[2], t[3], s) <= near:
        return True
    a, b, c, d = _side(s, t[0], t[1]), _side(s, t[2], t[3]), _side(t, s[0], s[1]), _side(t, s[2], s[3])
    return bool((a > 0) != (b > 0) and (c > 0) != (d > 0))


@inlined
def _columns(s: Segment, grid: Grid, row: int, reach: float) -> tuple[int, int]:
    """First and last cell of a row of the grid that a segment comes nearer to than ``reach``."""
    top, left, side, _, across = grid
    low, high = min(s[1], s[3]), max(s[1], s[3])
    if s[0] != s[2]:
        first, last = top + row * side - reach, top + (row + 1) * side + reach
        slope = (s[3] - s[1]) / (s[2] - s[0])
        p, q = s[1] + (first - s[0]) * slope, s[1] + (last - s[0]) * slope
        low, high = max(low, min(p, q) - SAFE), min(high, max(p, q) + SAFE)
    return (
        int(max(0.0, math.floor((low - reach - left) / side))),
        int(min(across - 1.0, math.floor((high + reach - left) / side))),
    )


@inlined
def _rows(s: Segment, grid: Grid, reach: float) -> tuple[int, int]:
    """First and last row of the grid that a segment comes nearer to than ``reach``."""
    top, _, side, down, _ = grid
    return (
        int(max(0.0, math.floor((min(s[0], s[2]) - reach - top) / side))),
        int(min(down - 1.0, math.floor((max(s[0], s[2]) + reach - top) / side))),
    )


@inlined
def _segment(lines: Int32, k: int) -> Segment:
    return float(lines[k, 0]), float(lines[k, 1]), float(lines[k, 2]), float(lines[k, 3])


@inlined
def _make_grid(lines: Int32, owner: Int64, reach: Float64, most: float) -> Grid:
    """The grid around all segments that would move, with CELLS for each."""
    low_r, high_r, low_c, high_c, count = np.inf, -np.inf, np.inf, -np.inf, 0
    for k in range(owner.size):
        if reach[owner[k]] > 0:
            s = _segment(lines, k)
            low_r, high_r = min(low_r, s[0], s[2]), max(high_r, s[0], s[2])
            low_c, high_c = min(low_c, s[1], s[3]), max(high_c, s[1], s[3])
            count += 1
    if count == 0:
        return 0.0, 0.0, 1.0, 0, 0
    height, width = high_r - low_r + 2 * most, high_c - low_c + 2 * most
    side = max(math.sqrt(height * width / (CELLS * count + 1024)), max(height, width) / 65536, 1.0)
    down, across = int(height / side) + 1, int(width / side) + 1
    return low_r - most, low_c - most, side, down, across


@inlined
def _enter(
    lines: Int32, owner: Int64, reach: Float64, grid: Grid, starts: Int64, inside: Int64, count: bool
) -> None:
    """Counts the segments in each cell, or writes their numbers from ``starts`` on, which moves."""
    for k in range(owner.size):
        own = reach[owner[k]]
        if own <= 0:
            continue
        s = _segment(lines, k)
        first, last = _rows(s, grid, own + SAFE)
        for row in range(first, last + 1):
            low, high = _columns(s, grid, row, own + SAFE)
            for cell in range(row * grid[4] + low, row * grid[4] + high + 1):
                if count:
                    starts[cell + 1] += 1
                else:
                    inside[starts[cell]] = k
                    starts[cell] += 1


@inlined
def _look(
    s: Segment, mine: int, lines: Int32, owner: Int64, reach: Float64, grid: Grid, cells: tuple[Int64, Int64],
    blocked: Bools,
) -> None:  # fmt: skip
    """Blocks the rings that the segment of ring ``mine`` (-1: of none) is too near to."""
    starts, inside = cells
    own = reach[mine] if mine >= 0 else 0.0
    first, last = _rows(s, grid, own + SAFE)
    for row in range(first, last + 1):
        low, high = _columns(s, grid, row, own + SAFE)
        if low > high:
            continue
        for at in range(starts[row * grid[4] + low], starts[row * grid[4] + high + 1]):
            other = owner[inside[at]]
            # of two that would move, each sees the other: it will do to block the one found
            if other == mine or blocked[other]:
                continue
            if _within(s, _segment(lines, inside[at]), own + reach[other] + SAFE):
                blocked[other] = True


@kernel("void(int32[:, ::1], int64[::1], int32[:, ::1], float64[::1], boolean[::1])")
def find_blocked(lines: Int32, owner: Int64, others: Int32, reach: Float64, blocked: Bools) -> None:
    """Marks rings that have a segment of another ring, or one of ``others``, no farther than both move together.

    ``lines`` (N, 4): the segments of rings ``owner``; ``reach`` (R,): how far each ring moves, 0 for not at all.
    """
    most = 0.0
    for k in range(reach.size):
        most = max(most, reach[k])
    grid = _make_grid(lines, owner, reach, most)
    starts = np.zeros(grid[3] * grid[4] + 2, np.int64)
    nothing = np.empty(0, np.int64)
    if grid[3] == 0:
        return
    _enter(lines, owner, reach, grid, starts[1:], nothing, True)
    starts = np.cumsum(starts)
    inside = np.empty(starts[-1], np.int64)
    _enter(lines, owner, reach, grid, starts[1:], inside, False)
    cells = (starts, inside)
    for k in range(owner.size):
        _look(_segment(lines, k), owner[k], lines, owner, reach, grid, cells, blocked)
    for k in range(others.shape[0]):
        _look(_segment(others, k), -1, lines, owner, reach, grid, cells, blocked)
