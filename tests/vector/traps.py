"""Small rasters on which vectorising by blocks goes wrong, by what goes wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["TRAPS", "raster", "spiral"]


def raster(text: str) -> NDArray[np.uint16]:
    return np.array([[int(c) for c in row] for row in text.split()], np.uint16)


def spiral(n: int) -> NDArray[np.uint16]:
    labels = np.full((n, n), 2, np.uint16)
    row, col, step = 0, 0, (0, 1)
    box = [0, 0, n - 1, n - 1]
    while box[0] <= box[2] and box[1] <= box[3]:
        labels[row, col] = 1
        r, c = row + step[0], col + step[1]
        if not (box[0] <= r <= box[2] and box[1] <= c <= box[3]):
            if step == (0, 1):
                step, box[0] = (1, 0), box[0] + 2
            elif step == (1, 0):
                step, box[3] = (0, -1), box[3] - 2
            elif step == (0, -1):
                step, box[2] = (-1, 0), box[2] - 2
            else:
                step, box[1] = (0, 1), box[1] + 2
            r, c = row + step[0], col + step[1]
        row, col = r, c
    return labels


TRAPS = {
    "a region crossing four blocks at a corner": raster("0000 0110 0110 0000"),
    "a ring that closes only across blocks": raster("1111 1221 1221 1111"),
    "diagonal contact at a block corner": raster("1122 1122 2211 2211"),
    "diagonal contact at a block corner, no data between": raster("0000 0100 0010 0000"),
    "opposite diagonal contact at a block corner": raster("0000 0010 0100 0000"),
    "diagonal contact on a seam": raster("0000 1000 0100 0000"),
    "diagonal contact inside a block": raster("1000 0100 0000 0000"),
    "a hole spanning blocks": raster("111111 122221 122221 111111"),
    "a hole that touches its shell at a block corner": raster("2111 1211 1121 1111"),
    "two holes that touch at a block corner": raster("1111 1211 1121 1111"),
    "nested islands": raster("11111111 12222221 12333321 12344321 12344321 12333321 12222221 11111111"),
    "one-pixel regions": np.arange(1, 37, dtype=np.uint16).reshape(6, 6),
    "a checkerboard": (np.indices((7, 9)).sum(axis=0) % 2 + 1).astype(np.uint16),
    "a checkerboard with no data": (np.indices((7, 9)).sum(axis=0) % 2).astype(np.uint16),
    "no data as a hole": raster("1111 1001 1001 1111"),
    "no data as a corner": raster("0111 0011 1111 1111"),
    "one class": np.ones((6, 5), np.uint16),
    "no data alone": np.zeros((6, 5), np.uint16),
    "one row": raster("1122201110"),
    "one column": raster("1122201110").T.copy(),
    "one pixel": raster("7"),
    "a spiral": spiral(21),
    "a comb": np.where(np.arange(12) % 2, 1, np.where(np.arange(6)[:, None] == 5, 1, 2)).astype(np.uint16),
    "the highest codes": np.array([[65535, 65534], [65534, 65535]], np.uint16),
    "a ring through its own corner twice": raster("11100 10100 11111 00101 00111"),
}
