"""Compiled inside of :mod:`rssegment.vector.ground`: sizes on the ground of what is drawn on a pixel grid."""

# ruff: noqa: PLR0917 - kernels take their arrays by position

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["NODES", "pixel_sizes", "region_sizes"]

NODES = 7
"""Coefficients of a tile's polynomials along each axis."""

AREA, ACROSS, DOWN, BOTH = 0, 1, 2, 3
_GAUSS = 0.5 / math.sqrt(3.0)  # nodes of the 2-point rule on [-0.5, 0.5]
_PIECE = 0.125  # longest step along an edge, in tiles: the rule errs by less than 1e-12 of it

Float = NDArray[np.float64]


@inlined
def _tile(place: float, side: float) -> int:
    """Which tile of an axis: a border belongs to the tile before it, so none beyond the scene's end is asked for."""
    return max(0, math.ceil(place / side) - 1)


@inlined
def _value(coefficients: Float, v: float, u: float) -> float:
    """Sum of ``coefficients[p, q] * u**p * v**q``; one column more for the antiderivative."""
    value = 0.0
    for p in range(coefficients.shape[0] - 1, -1, -1):
        row = coefficients[p, NODES - 1]
        for q in range(NODES - 2, -1, -1):
            row = row * v + coefficients[p, q]
        value = value * u + row
    return value


@inlined
def _piece(
    r1: float, c1: float, r2: float, c2: float, side: float, first: int, tiles: Float, middles: Float
) -> tuple[float, float]:
    """The integrals of area and length over a straight piece within one tile."""
    dr, dc = r2 - r1, c2 - c1
    r, c = 0.5 * (r1 + r2), 0.5 * (c1 + c2)
    i, j = _tile(r, side) - first, _tile(c, side)
    tile = tiles[i, j]
    v, u = (r - middles[i]) * 2 / side, c * 2 / side - (2 * j + 1)
    dv, du = dr * (2 * _GAUSS / side), dc * (2 * _GAUSS / side)
    if dr == 0:  # most edges lie along an axis: no area below them, or only one scale
        across = _value(tile[ACROSS, :NODES], v, u - du) + _value(tile[ACROSS, :NODES], v, u + du)
        return 0.0, 0.5 * across * abs(dc)
    area = 0.5 * dr * (_value(tile[AREA], v - dv, u - du) + _value(tile[AREA], v + dv, u + du))
    if dc == 0:
        down = _value(tile[DOWN, :NODES], v - dv, u) + _value(tile[DOWN, :NODES], v + dv, u)
        return area, 0.5 * down * abs(dr)
    length = 0.0
    for sign in (-1, 1):
        across = dc * _value(tile[ACROSS, :NODES], v + sign * dv, u + sign * du)
        down = dr * _value(tile[DOWN, :NODES], v + sign * dv, u + sign * du)
        both = dr * dc * _value(tile[BOTH, :NODES], v + sign * dv, u + sign * du)
        length += 0.5 * math.sqrt(max(0.0, across * across + 2 * both + down * down))
    return area, length


@inlined
def _next_border(place: float, way: float, side: float) -> float:
    """How far along, as a share of ``way``, the next border between tiles lies."""
    if way == 0:
        return math.inf
    border = (math.floor(place / side) + 1) * side if way > 0 else (math.ceil(place / side) - 1) * side
    return (border - place) / way


@inlined
def _edge(
    r1: float, c1: float, r2: float, c2: float, side: float, first: int, tiles: Float, middles: Float
) -> tuple[float, float]:
    """The same of a whole edge, taken in one direction for both of its neighbours, so that their areas cancel."""
    sign = 1.0
    if r1 > r2 or (r1 == r2 and c1 > c2):
        r1, c1, r2, c2, sign = r2, c2, r1, c1, -1.0
    dr, dc = r2 - r1, c2 - c1
    longest = max(dr, abs(dc))
    if longest == 0:
        return 0.0, 0.0
    if longest <= _PIECE * side and _tile(r1, side) == _tile(r2, side) and _tile(c1, side) == _tile(c2, side):
        area, length = _piece(r1, c1, r2, c2, side, first, tiles, middles)
        return sign * area, length
    area, length, t = 0.0, 0.0, 0.0
    while t < 1:
        r, c = r1 + t * dr, c1 + t * dc
        step = min(_next_border(r, dr, side), _next_border(c, dc, side), _PIECE * side / longest)
        end = min(1.0, t + max(step, 1e-12))
        a, m = _piece(r, c, r1 + end * dr, c1 + end * dc, side, first, tiles, middles)
        area, length, t = area + a, length + m, end
    return sign * area, length


@kernel(
    "void(int32[:, ::1], int64[::1], int64[::1], float64, float64, float64, float64, int64, float64[:, :, :, :, ::1], "
    "float64[::1], float64[::1], float64[::1])"
)
def region_sizes(
    corners: NDArray[np.int32],
    ring_corners: NDArray[np.int64],
    region_rings: NDArray[np.int64],
    scale: float,
    low: float,
    high: float,
    side: float,
    first: int,
    tiles: Float,
    middles: Float,
    areas: Float,
    lengths: Float,
) -> None:
    """Area in m² and length of all rings in m of each region.

    ``ring_corners`` (rings + 1,) and ``region_rings`` (R + 1,) are offsets into ``corners`` and rings. Rows are kept
    within ``low`` to ``high``, the poles of a grid in degrees. ``tiles`` begin with tile row ``first``; they are as in
    ``_Tiles``.
    """
    for region in range(region_rings.size - 1):
        area, length = 0.0, 0.0
        for ring in range(region_rings[region], region_rings[region + 1]):
            start, stop = ring_corners[ring], ring_corners[ring + 1]
            r1 = min(max(corners[start, 0] / scale, low), high)
            c1 = corners[start, 1] / scale
            for k in range(start + 1, stop):
                r2 = min(max(corners[k, 0] / scale, low), high)
                c2 = corners[k, 1] / scale
                a, m = _edge(r1, c1, r2, c2, side, first, tiles, middles)
                area -= a
                length += m
                r1, c1 = r2, c2
        areas[region], lengths[region] = area, length


@kernel(
    "void(int64[::1], int64[::1], float64, float64, float64, int64, float64[:, :, :, :, ::1], float64[::1], "
    "float64[::1])"
)
def pixel_sizes(
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    low: float,
    high: float,
    side: float,
    first: int,
    tiles: Float,
    middles: Float,
    areas: Float,
) -> None:
    """Area in m² of each pixel: the difference of what lies before its right and its left side."""
    for k in range(rows.size):
        top = min(max(float(rows[k]), low), high)
        bottom = min(max(rows[k] + 1.0, low), high)
        left, right = float(cols[k]), cols[k] + 1.0
        after = _edge(top, right, bottom, right, side, first, tiles, middles)[0]
        areas[k] = after - _edge(top, left, bottom, left, side, first, tiles, middles)[0]
