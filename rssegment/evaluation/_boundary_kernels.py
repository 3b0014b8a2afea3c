"""Kernels of boundary scores: which pixels lie near another class, and which boundary pixels find a partner.

``labels`` (H, W) uint16 are 0 for none and 1 to K for classes. ``reach`` (V + 1,) int64 is the tolerance in whole
pixels: how many columns it spans ``v`` rows away. So the kernels compare integers only.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["find_boundary", "find_near", "list_sites", "match_sites", "measure_columns"]

_NEVER = np.int32(1 << 29)  # rows to something that isn't there; twice that is still an int32

Labels = NDArray[np.uint16]
Rows = NDArray[np.int32]
Flags = NDArray[np.uint8]
Ints = NDArray[np.int64]


@kernel("void(uint16[:, ::1], int32[:, ::1], int64)")
def measure_columns(labels: Labels, rows: Rows, step: int) -> None:
    """Rows to the nearest pixel of another class in the column, going up (``step`` -1) or down (1).

    From a pixel without label: rows to the nearest pixel with one. ``_NEVER`` or more where there is none.
    """
    height, width = labels.shape
    first, last = (0, height) if step < 0 else (height - 1, -1)
    for col in range(width):
        rows[first, col] = _NEVER
    for row in range(first - step, last, -step):
        before = row + step
        for col in range(width):
            own, other = labels[row, col], labels[before, col]
            if other == 0:  # what is there beyond it
                away = rows[before, col]
                found = away + 1
                if own != 0 and away < _NEVER and labels[before + step * away, col] == own:
                    found += rows[before + step * away, col]
                rows[row, col] = min(found, _NEVER)
            elif other == own:
                rows[row, col] = min(rows[before, col] + 1, _NEVER)
            else:
                rows[row, col] = 1


@inlined
def _span(labels: Labels, up: Rows, down: Rows, row: int, col: int, own: int, reach: Ints) -> int:
    """Columns that the nearest pixel of this column with a class other than ``own`` is near to; -1 for none."""
    above, below = up[row, col], down[row, col]
    if labels[row, col] == 0:
        if above < _NEVER and labels[row - above, col] == own:
            above += up[row - above, col]
        if below < _NEVER and labels[row + below, col] == own:
            below += down[row + below, col]
    away = min(above, below)
    return int(reach[away]) if away < len(reach) else -1


@kernel("void(uint16[:, ::1], int32[:, ::1], int32[:, ::1], int64[::1], int64, int64, uint8[:, ::1])")
def find_near(labels: Labels, up: Rows, down: Rows, reach: Ints, first: int, last: int, near: Flags) -> None:
    """Sets ``near`` to 1, in rows ``first`` to ``last``, for pixels within the tolerance of another class.

    Along a row, what lies beyond the next pixel of another class is farther than that pixel. So each pixel asks only
    the columns of its own stretch, and each column of the stretch answers with the interval of columns that it is near
    to: a running maximum, twice, whatever the tolerance.
    """
    width = labels.shape[1]
    for row in range(first, last):
        for step in (1, -1):
            start, stop = (0, width) if step > 0 else (width - 1, -1)
            own, seen = 0, start  # the stretch's class, and the last column seen with it
            far = -1  # the last column that the stretch so far answers for, counted from ``start``
            for col in range(start, stop, step):
                label = int(labels[row, col])
                if label == 0:
                    continue
                gap = (
                    seen if own == 0 else seen + step
                )  # pixels without label are of both stretches beside them
                if label != own:
                    far = -1 if own == 0 else abs(seen - start) + int(reach[0])
                    own = label
                for between in range(gap, col, step):
                    far = max(far, abs(between - start) + _span(labels, up, down, row, between, own, reach))
                away = min(up[row, col], down[row, col])
                if away < len(reach):
                    far = max(far, abs(col - start) + int(reach[away]))
                if far >= abs(col - start):
                    near[row, col] = 1
                seen = col


@kernel("void(uint16[:, ::1], uint8[:, ::1])")
def find_boundary(labels: Labels, boundary: Flags) -> None:
    """Sets ``boundary`` to 1 for pixels beside a pixel of another class, by one of their four edges."""
    height, width = labels.shape
    for row in range(height):
        for col in range(width):
            own = labels[row, col]
            if own == 0:
                continue
            if col + 1 < width:
                other = labels[row, col + 1]
                if other != 0 and other != own:  # noqa: PLR1714 - no tuples in kernels
                    boundary[row, col] = boundary[row, col + 1] = 1
            if row + 1 < height:
                other = labels[row + 1, col]
                if other != 0 and other != own:  # noqa: PLR1714 - no tuples in kernels
                    boundary[row, col] = boundary[row + 1, col] = 1


@kernel("int64(uint16[:, ::1], uint8[:, ::1], int64[:, ::1], int32[::1])")
def list_sites(labels: Labels, boundary: Flags, starts: Ints, cols: NDArray[np.int32]) -> int:
    """The columns of boundary pixels, ascending for each row and class; their number.

    ``cols[starts[row, k] : starts[row, k + 1]]`` are those of class ``k + 1`` in that row; ``starts`` (H, K + 1).
    """
    height, width = labels.shape
    classes = starts.shape[1] - 1
    total = 0
    for row in range(height):
        for k in range(classes + 1):
            starts[row, k] = 0
        for col in range(width):
            if boundary[row, col]:
                starts[row, labels[row, col]] += 1
        starts[row, 0] = total
        for k in range(classes):
            starts[row, k + 1] += starts[row, k]
        for col in range(width):  # each class's start is its cursor, and ends up as the next one's
            if boundary[row, col]:
                k = labels[row, col] - 1
                cols[starts[row, k]] = col
                starts[row, k] += 1
        for k in range(classes, 0, -1):
            starts[row, k] = starts[row, k - 1]
        starts[row, 0] = total
        total = starts[row, classes]
    return total


@inlined
def _still_alone(left: Ints, count: int, cols: NDArray[np.int32], start: int, stop: int, width: int) -> int:
    """Drops from ``left[:count]`` the columns within ``width`` of one of ``cols``, both ascending; how many stay."""
    site, kept = start, 0
    for i in range(count):
        col = left[i]
        while site < stop and cols[site] < col - width:
            site += 1
        if site == stop or cols[site] > col + width:
            left[kept] = col
            kept += 1
    return kept


@kernel("void(int64[:, ::1], int32[::1], int64[:, ::1], int32[::1], int64[::1], int64[::1], int64[:, ::1])")
def match_sites(
    starts: Ints,
    cols: NDArray[np.int32],
    other_starts: Ints,
    other_cols: NDArray[np.int32],
    reach: Ints,
    core: Ints,
    found: Ints,
) -> None:
    """Counts boundary pixels in the core and those of them with one of the same class in the other map near them.

    ``core``: its first row and column, and one past its last. ``found`` (K, 2): all, with partner. Near rows are asked
    first, and a pixel that has found its partner is not asked again.
    """
    height, classes = starts.shape[0], starts.shape[1] - 1
    left = np.empty(max(1, core[3] - core[1]), np.int64)
    for row in range(core[0], core[2]):
        for k in range(classes):
            count = 0
            for i in range(starts[row, k], starts[row, k + 1]):
                if core[1] <= cols[i] < core[3]:
                    left[count] = cols[i]
                    count += 1
            found[k, 0] += count
            found[k, 1] += count
            for away in range(len(reach)):
                for side in range(-1, 2 if away else 0, 2):
                    near = row + side * away
                    if count and 0 <= near < height:
                        first, last = other_starts[near, k], other_starts[near, k + 1]
                        if first < last:
                            count = _still_alone(left, count, other_cols, first, last, reach[away])
                if count == 0:
                    break
            found[k, 1] -= count
