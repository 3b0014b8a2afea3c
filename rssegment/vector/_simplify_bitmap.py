"""Compiled inside of :mod:`rssegment.vector.simplify`: a sparse bitmap of pixel corners, and what of it lies in
a triangle.

A *bitmap* is ``(words, directory, row, col, asked)``: tiles of 256 x 256 bits, one per pixel corner, as int64
words of 64 corners along a row; ``directory[i, j]`` is the place of tile ``(row + i, col + j)`` in ``words``,
-1 where it is absent; ``asked`` has 1 where an absent tile was needed.

The helpers are compiled into ``_simplify_kernels.py``: see ``HELPERS`` there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = [
    "ABSENT",
    "BITMAP",
    "FREE",
    "Bitmap",
    "add_corners",
    "address_of",
    "clear",
    "first_inside",
    "is_set",
    "put",
]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Bitmap = tuple[Int64, Int32, int, int, UInt8]

BITMAP = "Tuple((int64[::1], int32[:, ::1], int64, int64, uint8[:, ::1]))"
FREE, ABSENT = -1, -2  # answers of the search for obstacles; others are the address of a bit


@inlined
def address_of(bitmap: Bitmap, row: int, col: int) -> int:
    """Address of the bit of a corner, or ABSENT; its word is ``address >> 6``."""
    _, directory, top, left, asked = bitmap
    i, j = (row >> 8) - top, (col >> 8) - left
    tile = np.int64(directory[i, j])
    if tile < 0:
        asked[i, j] = 1
        return ABSENT
    return int((tile << 16) | ((row & 255) << 8) | (col & 255))


@inlined
def is_set(words: Int64, address: int) -> bool:
    return bool((words[address >> 6] >> (address & 63)) & 1)


@inlined
def put(words: Int64, address: int) -> None:
    words[address >> 6] |= np.int64(1) << (address & 63)


@inlined
def clear(words: Int64, address: int) -> None:
    words[address >> 6] &= ~(np.int64(1) << (address & 63))


@kernel(f"void(int32[:, ::1], {BITMAP})")
def add_corners(corners: Int32, bitmap: Bitmap) -> None:
    """Sets the bits of ``corners`` (N, 2) that lie in tiles that are there; others are left out."""
    words, directory, top, left, _ = bitmap
    for k in range(corners.shape[0]):
        row, col = int(corners[k, 0]), int(corners[k, 1])
        i, j = (row >> 8) - top, (col >> 8) - left
        if 0 <= i < directory.shape[0] and 0 <= j < directory.shape[1] and directory[i, j] >= 0:
            put(words, address_of(bitmap, row, col))


@inlined
def _first_in_row(
    bitmap: Bitmap, row: int, low: int, high: int, allowed: tuple[int, int, int, int, int, int]
) -> int:
    """Address of an obstacle in columns ``low`` to ``high`` of a row other than three ``allowed`` corners."""
    words = bitmap[0]
    answer = FREE
    while low <= high:
        last = min(high, low | 63)
        address = address_of(bitmap, row, low)
        if address == ABSENT:
            answer = ABSENT
            low = last + 1
            continue
        word = words[address >> 6] & (np.int64(-1) << (low & 63)) & ~(np.int64(-2) << (last & 63))
        if word != 0:
            for k in range(0, 6, 2):
                if allowed[k] == row and low <= allowed[k + 1] <= last:
                    word &= ~(np.int64(1) << (allowed[k + 1] & 63))
            if word != 0:
                bit = 0
                while not (word >> bit) & 1:
                    bit += 1
                return int(((address >> 6) << 6) | bit)
        low = last + 1
    return answer


@inlined
def first_inside(
    bitmap: Bitmap,
    corners: tuple[int, int, int, int, int, int],
    unit: int,
    allowed: tuple[int, int, int, int, int, int],
) -> int:
    """Address of an obstacle in a closed triangle that isn't flat, other than three ``allowed`` corners; FREE
    if none.

    The triangle's ``corners`` (row, col, row, col, row, col) are in 1 / ``unit`` px. Exact: per row, the whole
    columns between its two sides. An obstacle found counts for more than a tile that is ABSENT.
    """
    r0, c0, r1, c1, r2, c2 = corners
    if r1 < r0:
        r0, c0, r1, c1 = r1, c1, r0, c0
    if r2 < r1:
        r1, c1, r2, c2 = r2, c2, r1, c1
        if r1 < r0:
            r0, c0, r1, c1 = r1, c1, r0, c0
    height, width = r2 - r0, c2 - c0
    long_is_left = (c1 - c0) * height > width * (r1 - r0)
    answer = FREE
    for row in range(-(-r0 // unit), r2 // unit + 1):
        at = row * unit
        if at <= r1 and r1 > r0:
            top, rise, side, run = r0, r1 - r0, c0, c1 - c0
        else:
            top, rise, side, run = r1, r2 - r1, c1, c2 - c1
        whole, part = c0 * height + width * (at - r0), side * rise + run * (at - top)
        if long_is_left:
            low, high = -(-whole // (height * unit)), part // (rise * unit)
        else:
            low, high = -(-part // (rise * unit)), whole // (height * unit)
        hit = _first_in_row(bitmap, row, low, high, allowed)
        if hit >= 0:
            return hit
        if hit == ABSENT:
            answer = ABSENT
    return answer
