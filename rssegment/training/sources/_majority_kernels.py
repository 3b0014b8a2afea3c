"""The loop over pixels behind :mod:`rssegment.training.sources.majority`."""

# ruff: noqa: PLR0917 - kernels take their arrays by position

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import kernel

__all__ = ["vote"]


@kernel("void(uint16[:, ::1], int64[::1], int64[::1], int64, int64, uint16[:, ::1])")
def vote(
    codes: NDArray[np.uint16],
    rows: NDArray[np.int64],
    cols: NDArray[np.int64],
    row: int,
    col: int,
    out: NDArray[np.uint16],
) -> None:
    """The code of the largest area in each cell of ``out``.

    ``rows`` (H + 1,) and ``cols`` (W + 1,) are the cells' edges in 1/65536 of a pixel of the whole raster, of which
    ``codes`` begins at pixel (``row``, ``col``). Areas are whole numbers, so that a tie is one.
    """
    unit = 65536
    areas = np.zeros(unit, np.int64)
    for i in range(out.shape[0]):
        top, bottom = rows[i], rows[i + 1]
        for j in range(out.shape[1]):
            left, right = cols[j], cols[j + 1]
            if bottom <= top or right <= left:
                out[i, j] = 0
                continue
            first_r, last_r = top // unit, (bottom - 1) // unit
            first_c, last_c = left // unit, (right - 1) // unit
            best = codes[first_r - row, first_c - col]
            alike = True
            for r in range(first_r, last_r + 1):
                for c in range(first_c, last_c + 1):
                    alike &= codes[r - row, c - col] == best
            if not alike:
                for r in range(first_r, last_r + 1):
                    height = min(bottom, (r + 1) * unit) - max(top, r * unit)
                    for c in range(first_c, last_c + 1):
                        width = min(right, (c + 1) * unit) - max(left, c * unit)
                        areas[codes[r - row, c - col]] += height * width
                most = np.int64(-1)
                for r in range(first_r, last_r + 1):
                    for c in range(first_c, last_c + 1):
                        code = codes[r - row, c - col]
                        if areas[code] > most or (areas[code] == most and code < best):
                            most, best = areas[code], code
                for r in range(first_r, last_r + 1):
                    for c in range(first_c, last_c + 1):
                        areas[codes[r - row, c - col]] = 0
            out[i, j] = best
