"""Compiled inside of the vector writers: the way rings run, their WKB, and their place on a Hilbert curve."""

# ruff: noqa: PLR0917 - kernels take their arrays by position

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["hilbert_keys", "oriented", "wkb_bytes"]

Bytes = NDArray[np.uint8]
Float = NDArray[np.float64]
Int64 = NDArray[np.int64]

_POLYGON, _MULTIPOLYGON = 3, 6


@kernel("boolean(float64[:, ::1], int64[::1], int64[::1], float64[:, ::1])")
def oriented(xy: Float, rings: Int64, polygons: Int64, out: Float) -> bool:
    """Copies the points of each ring to ``out``, exteriors anticlockwise, holes clockwise; whether any was turned."""
    turned = False
    for p in range(polygons.size - 1):
        for r in range(polygons[p], polygons[p + 1]):
            start, stop = rings[r], rings[r + 1]
            double = 0.0
            for k in range(start, stop - 1):
                double += (xy[k, 0] - xy[start, 0]) * (xy[k + 1, 1] - xy[start, 1])
                double -= (xy[k + 1, 0] - xy[start, 0]) * (xy[k, 1] - xy[start, 1])
            wrong = double < 0 if r == polygons[p] else double > 0
            turned |= wrong
            for k in range(start, stop):
                source = start + stop - 1 - k if wrong else k
                out[k, 0] = xy[source, 0]
                out[k, 1] = xy[source, 1]
    return turned


@inlined
def _put(out: Bytes, place: int, value: int) -> int:
    """Writes ``value`` as an unsigned 32-bit number, least byte first."""
    for k in range(4):
        out[place + k] = (value >> (8 * k)) & 255
    return place + 4


@inlined
def _head(out: Bytes, place: int, kind: int, count: int) -> int:
    out[place] = 1  # least byte first
    return _put(out, _put(out, place + 1, kind), count)


@kernel("void(uint8[:, ::1], int64[::1], int64[::1], int64[::1], boolean, uint8[::1], int64[::1])")
def wkb_bytes(
    points: Bytes, rings: Int64, polygons: Int64, features: Int64, multi: bool, out: Bytes, ends: Int64
) -> None:
    """Writes the WKB of each feature one after the other: a Polygon where it has one part, unless ``multi``.

    ``points`` (N, 16): x and y as bytes, least first; offsets: ``rings`` into points, ``polygons`` into rings,
    ``features`` into polygons. ``ends`` (F + 1,): where each feature ends in ``out``; ``ends[0]`` is 0.
    """
    place = 0
    ends[0] = 0
    for f in range(features.size - 1):
        parts = features[f + 1] - features[f]
        if multi or parts != 1:
            place = _head(out, place, _MULTIPOLYGON, parts)
        for p in range(features[f], features[f + 1]):
            place = _head(out, place, _POLYGON, polygons[p + 1] - polygons[p])
            for r in range(polygons[p], polygons[p + 1]):
                place = _put(out, place, rings[r + 1] - rings[r])
                for k in range(rings[r], rings[r + 1]):
                    for j in range(16):
                        out[place + j] = points[k, j]
                    place += 16
        ends[f + 1] = place


@kernel("void(uint32[::1], uint32[::1], uint64[::1])")
def hilbert_keys(x: NDArray[np.uint32], y: NDArray[np.uint32], keys: NDArray[np.uint64]) -> None:
    """Place of each cell (x, y) of a 2^32 square along the Hilbert curve (Warren 2013, chapter 16)."""
    for k in range(x.size):
        a, b = np.int64(x[k]), np.int64(y[k])
        key = np.uint64(0)
        for level in range(31, -1, -1):
            right, up = (a >> level) & 1, (b >> level) & 1
            key = (key << np.uint64(2)) | np.uint64((3 * right) ^ up)
            if up == 0:  # turn the quarter so that the curve inside begins where it came in
                if right == 1:
                    a, b = (1 << 32) - 1 - a, (1 << 32) - 1 - b
                a, b = b, a
        keys[k] = key
