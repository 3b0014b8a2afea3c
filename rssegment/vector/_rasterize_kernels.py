"""Compiled inside of :mod:`rssegment.vector.rasterize`: from rings in pixel coordinates to labels of pixels."""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["UNCOVERED", "burn_parts"]

UNCOVERED = -1

Float = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@inlined
def _first_centre(place: float) -> int:
    """The first pixel whose centre is not before ``place``."""
    return int(np.ceil(place - 0.5))


@inlined
def _mark(values: Int32, contested: Bytes, row: int, col: int, value: int) -> None:
    before = values[row, col]
    if before != UNCOVERED and before != value:  # noqa: PLR1714  (numba knows no 'in')
        contested[row, col] = 1
    values[row, col] = value


@inlined
def _crossings(xy: Float, start: int, stop: int, top: int, bottom: int, ends: Int64, places: Float) -> None:
    """Adds, for each row of [top, bottom), the columns where a ring's edges cross the line of its pixels' centres.

    ``ends`` (rows,) counts them; with ``places`` they are stored too, from where ``ends`` says. An edge is taken
    from its upper end, whichever way it is drawn: neighbours that share it get the same crossing.
    """
    for i in range(start, stop - 1):
        x0, y0, x1, y1 = xy[i, 0], xy[i, 1], xy[i + 1, 0], xy[i + 1, 1]
        if y0 == y1:
            continue
        if y1 < y0:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, last = max(top, _first_centre(y0)), min(bottom, _first_centre(y1))
        for row in range(first, last):
            if places.size:
                places[ends[row - top]] = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            ends[row - top] += 1


@inlined
def _fill(
    xy: Float, rings: Int64, first: int, last: int, top: int, bottom: int, left: int, value: int,
    values: Int32, contested: Bytes, row0: int,
) -> None:  # fmt: skip
    """Burns the polygon of the rings [first, last) into rows [top, bottom): between pairs of crossings."""
    width = values.shape[1]
    none = np.empty(0, np.float64)
    counts = np.zeros(bottom - top, np.int64)
    for ring in range(first, last):
        _crossings(xy, rings[ring], rings[ring + 1], top, bottom, counts, none)
    ends = np.zeros(bottom - top, np.int64)
    for k in range(1, bottom - top):
        ends[k] = ends[k - 1] + counts[k - 1]
    places = np.empty(max(1, counts.sum()), np.float64)
    for ring in range(first, last):
        _crossings(xy, rings[ring], rings[ring + 1], top, bottom, ends, places)
    for k in range(bottom - top):
        row = places[ends[k] - counts[k] : ends[k]]
        row.sort()
        for pair in range(0, counts[k] - 1, 2):
            start = max(0, _first_centre(row[pair]) - left)
            stop = min(width, _first_centre(row[pair + 1]) - left)
            for col in range(start, stop):
                _mark(values, contested, top + k - row0, col, value)


@kernel(
    "void(float64[:,::1],int64[::1],int64[::1],int32[::1],int64[::1],int64,int64,int32[:,::1],uint8[:,::1])"
)
def burn_parts(
    xy: Float, rings: Int64, parts: Int64, codes: Int32, chosen: Int64, row0: int, col0: int,
    values: Int32, contested: Bytes,
) -> None:  # fmt: skip
    """Burns the ``chosen`` parts, in their order, into arrays whose first pixel is (row0, col0)."""
    height, width = values.shape
    for part in chosen:
        first, last = parts[part], parts[part + 1]
        start, stop = rings[first], rings[first + 1]
        if last - first == 1 and stop - start == 1:
            row, col = int(np.floor(xy[start, 1])) - row0, int(np.floor(xy[start, 0])) - col0
            if 0 <= row < height and 0 <= col < width:
                _mark(values, contested, row, col, codes[part])
            continue
        low, high = np.inf, -np.inf
        for i in range(start, stop):
            low, high = min(low, xy[i, 1]), max(high, xy[i, 1])
        top, bottom = max(row0, _first_centre(low)), min(row0 + height, _first_centre(high))
        if top < bottom:
            _fill(xy, rings, first, last, top, bottom, col0, codes[part], values, contested, row0)
