"""Counts and sums of the cells of a part of a scene."""

from __future__ import annotations

from rssegment.kernels import kernel

__all__ = ["measure_cells"]


@kernel(
    "int64(float64[:, :, ::1], uint16[:, ::1], boolean[:, ::1], int32[::1], int64,"
    " uint16[:, :, ::1], float64[:, :, :, ::1])"
)
def measure_cells(values, labels, valid, rows, side, counts, sums):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Adds pixels to their cells of ``side`` px and returns the first label that is no code, or 0.

    ``values`` (C, H, W), ``labels`` and ``valid`` (H, W). ``rows`` (65536,): a code's column in ``counts``, the last
    for 0, -1 for no code. ``counts`` (h, w, N + 1). ``sums`` (h, w, 4, C): of values and of squares, least, greatest.
    """
    bands, height, width = values.shape
    for row in range(height):
        for col in range(width):
            if valid[row, col]:
                place = rows[labels[row, col]]
                if place < 0:
                    return labels[row, col]
                counts[row // side, col // side, place] += 1
    for band in range(bands):
        for row in range(height):
            for col in range(width):
                if valid[row, col]:
                    value = values[band, row, col]
                    cell = sums[row // side, col // side]
                    cell[0, band] += value
                    cell[1, band] += value * value
                    cell[2, band] = min(cell[2, band], value)
                    cell[3, band] = max(cell[3, band], value)
    return 0
