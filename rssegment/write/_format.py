"""Compiled inside of :mod:`rssegment.write.geojson`: rings of whole numbers to GeoJSON coordinates."""

# ruff: noqa: PLR0917 - kernels take their arrays by position

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["BYTES_PER_POINT", "format_coordinates"]

Bytes = NDArray[np.uint8]
Int64 = NDArray[np.int64]

BYTES_PER_POINT = 48  # "[-180.123456789,-90.123456789]," and room for pixel coordinates
_COMMA, _MINUS, _POINT, _ZERO, _OPEN, _CLOSE = 44, 45, 46, 48, 91, 93


@inlined
def _number(out: Bytes, place: int, value: int, decimals: int, digits: Bytes) -> int:
    """Writes ``value / 10**decimals`` without trailing zeros."""
    if value < 0:
        out[place] = _MINUS
        place += 1
        value = -value
    while decimals > 0 and value % 10 == 0:
        value //= 10
        decimals -= 1
    count = 0
    while value > 0 or count <= decimals:
        digits[count] = _ZERO + value % 10
        value //= 10
        count += 1
    for k in range(count - 1, -1, -1):
        out[place] = digits[k]
        place += 1
        if k == decimals and decimals > 0:
            out[place] = _POINT
            place += 1
    return place


@kernel("void(int64[:, ::1], int64[::1], int64[::1], int64[::1], int64, uint8[::1], int64[::1])")
def format_coordinates(
    points: Int64, rings: Int64, polygons: Int64, features: Int64, decimals: int, out: Bytes, ends: Int64
) -> None:
    """Writes each feature's ``coordinates`` (of a Polygon, or of a MultiPolygon if it has several) one after the other.

    ``points`` (N, 2) in units of 10**-decimals; offsets: ``rings`` into points, ``polygons`` into rings, ``features``
    into polygons. ``ends`` (F + 1,): where the text of each feature ends in ``out``; ``ends[0]`` is 0.
    """
    digits = np.empty(24, np.uint8)
    place = 0
    ends[0] = 0
    for f in range(features.size - 1):
        several = features[f + 1] - features[f] != 1  # none at all is an empty MultiPolygon
        if several:
            out[place] = _OPEN
            place += 1
        for p in range(features[f], features[f + 1]):
            if p > features[f]:
                out[place] = _COMMA
                place += 1
            out[place] = _OPEN
            place += 1
            for r in range(polygons[p], polygons[p + 1]):
                if r > polygons[p]:
                    out[place] = _COMMA
                    place += 1
                out[place] = _OPEN
                place += 1
                for k in range(rings[r], rings[r + 1]):
                    if k > rings[r]:
                        out[place] = _COMMA
                        place += 1
                    out[place] = _OPEN
                    place = _number(out, place + 1, points[k, 0], decimals, digits)
                    out[place] = _COMMA
                    place = _number(out, place + 1, points[k, 1], decimals, digits)
                    out[place] = _CLOSE
                    place += 1
                out[place] = _CLOSE
                place += 1
            out[place] = _CLOSE
            place += 1
        if several:
            out[place] = _CLOSE
            place += 1
        ends[f + 1] = place
