"""Compiled inside of :mod:`rssegment.vector.simplify`: which chains may become straight between their junctions.

The helpers are compiled into ``_simplify_kernels.py``: see ``HELPERS`` there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined
from rssegment.vector._simplify_bitmap import ABSENT, Bitmap, address_of, is_set

__all__ = ["may_be_straight", "side_pixels"]

Int32 = NDArray[np.int32]


@inlined
def side_pixels(v: Int32, left: bool) -> int:
    """Number of distinct pixels that touch the chain from one side, between its ends."""
    n = v.shape[0]
    total = n
    for i in range(1, n):
        total += abs(v[i, 0] - v[i - 1, 0]) + abs(v[i, 1] - v[i - 1, 1])
    keys = np.empty(total, np.int64)
    count = 0
    for i in range(1, n):
        row, col = int(v[i - 1, 0]), int(v[i - 1, 1])
        dr, dc = np.sign(v[i, 0] - row), np.sign(v[i, 1] - col)
        # the pixel beside an edge: half a step ahead and half a step to the side
        down, right = (dr - dc, dc + dr) if left else (dr + dc, dc - dr)
        if i > 1:  # at a turn to the other side, the pixel across the corner
            before_r, before_c = np.sign(row - v[i - 2, 0]), np.sign(col - v[i - 2, 1])
            turn = before_c * -dr + before_r * dc  # 1 to the left, -1 to the right
            if (turn < 0) == left:
                out_r, out_c = before_r - dr, before_c - dc
                keys[count] = ((row + (out_r - 1) // 2) << 32) + col + (out_c - 1) // 2
                count += 1
        for _ in range(abs(v[i, 0] - v[i - 1, 0]) + abs(v[i, 1] - v[i - 1, 1])):
            keys[count] = ((row + (down - 1) // 2) << 32) + col + (right - 1) // 2
            count += 1
            row += dr
            col += dc
    keys = keys[:count]
    keys.sort()
    distinct = 1
    for i in range(1, count):
        distinct += keys[i] != keys[i - 1]
    return int(distinct)


@inlined
def may_be_straight(v: Int32, left: int, right: int, bitmap: Bitmap) -> int:
    """Whether the chain may become the straight line between its two junctions: 1, 0, or ABSENT.

    ``left``, ``right``: pixels known to be in the regions on both sides. ``swept``: twice the area between
    chain and chord, positive where it lies on the chain's left. Two chains with a region between them, on the
    left of one and the right of the other, can't both pass: see :mod:`rssegment.vector.simplify`.
    """
    n = v.shape[0]
    swept, length = np.int64(0), np.int64(n)
    for i in range(1, n):
        r, q = int(v[i - 1, 0]) - v[0, 0], int(v[i - 1, 1]) - v[0, 1]
        dr, dc = int(v[i, 0]) - v[i - 1, 0], int(v[i, 1]) - v[i - 1, 1]
        swept += r * dc - q * dr
        length += abs(dr) + abs(dc)
    if -max(1, right) < swept <= max(1, left):
        return 1
    if abs(swept) > length:
        return 0
    if swept > 0:
        return int(swept <= side_pixels(v, True))
    pixels = side_pixels(v, False)
    if n == 3 and -swept == pixels:  # a region that fills the angle is a rectangle; has it a corner there?
        across = address_of(bitmap, int(v[0, 0]) + v[2, 0] - v[1, 0], int(v[0, 1]) + v[2, 1] - v[1, 1])
        if across == ABSENT:
            return ABSENT
        return int(not is_set(bitmap[0], across))
    return int(-swept < pixels)
