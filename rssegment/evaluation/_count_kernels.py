"""Compiled inside of the counts: one pass over the pixels, one addition or a few for each.

Labels go through tables (65536,) to rows: N nodes, then undecided, no data or ignored, unknown.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import kernel

__all__ = ["LEFT_OUT", "PER_M2", "SPLIT", "count_backoff", "count_claims", "count_pairs", "sum_areas"]

Rows = NDArray[np.uint16]
Counts = NDArray[np.int64]

PER_M2 = 10**9  # areas are summed in whole parts of a square metre, so that sums are exact in any order
SPLIT = (
    2**32
)  # of an area in such parts, sums are of the multiples of this and of the rest: both stay in 64 bits
LEFT_OUT = 255  # in tables of verdicts, and of thresholds passed


@kernel(
    "void(uint8[::1], uint8[::1], uint16[::1], uint16[::1], int64[:, ::1])",
    "void(uint16[::1], uint16[::1], uint16[::1], uint16[::1], int64[:, ::1])",
)
def count_pairs(
    true: NDArray[Any], predicted: NDArray[Any], down: Rows, across: Rows, counts: Counts
) -> None:
    """Adds to ``counts`` (N + 3, N + 3) how often each pair of rows occurs.

    Neighbours are mostly alike, and adding to the cell just written waits for the store: so runs are counted first.
    """
    if true.size == 0:
        return
    t, p, run = true[0], predicted[0], 0
    for i in range(true.size):
        if true[i] != t or predicted[i] != p:
            counts[down[t], across[p]] += run
            t, p, run = true[i], predicted[i], 0
        run += 1
    counts[down[t], across[p]] += run


@kernel(
    "void(uint8[::1], uint8[::1], uint8[::1], uint16[::1], uint16[::1], uint8[:, ::1], int64[:, ::1])",
    "void(uint16[::1], uint16[::1], uint8[::1], uint16[::1], uint16[::1], uint8[:, ::1], int64[:, ::1])",
)
def count_claims(
    true: NDArray[Any],
    predicted: NDArray[Any],
    confidence: NDArray[np.uint8],
    down: Rows,
    across: Rows,
    verdicts: NDArray[np.uint8],
    counts: Counts,
) -> None:
    """Adds to ``counts`` (256, 2) how often each confidence (bytes) was wrong and right.

    ``verdicts`` (N + 3, N + 3): for each pair of rows 0 wrong, 1 right, or left out.
    """
    for i in range(true.size):
        verdict = verdicts[down[true[i]], across[predicted[i]]]
        if verdict != LEFT_OUT:
            counts[confidence[i], verdict] += 1


@kernel(
    "void(uint8[::1], uint8[::1], uint8[:, ::1], uint16[::1], uint16[::1], uint8[::1], uint8[:, ::1], uint8[:, ::1],"
    " int64[:, :, :, ::1])",
    "void(uint16[::1], uint16[::1], uint8[:, ::1], uint16[::1], uint16[::1], uint8[::1], uint8[:, ::1], uint8[:, ::1],"
    " int64[:, :, :, ::1])",
)
def count_backoff(
    true: NDArray[Any],
    predicted: NDArray[Any],
    confidences: NDArray[np.uint8],
    down: Rows,
    across: Rows,
    passed: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    right_to: NDArray[np.uint8],
    changes: Counts,
) -> None:
    """Adds to ``changes`` (D + 1, D + 1, 2, T + 1) where along the thresholds pixels are decided at which level.

    A pixel of full level F is decided at level l for a range of thresholds: 1 is added where it begins and taken where
    it has ended, in ``changes[F, l, right]``. ``confidences`` (D, pixels) hold a byte for each level from 1;
    ``passed`` (256,) the last threshold that a byte passes; ``levels`` (2, N + 3) each row's level, and the full one;
    ``right_to`` (N + 3, N + 3) the deepest level at which a prediction is right, or left out.
    """
    last = changes.shape[3] - 2
    for i in range(true.size):
        p = across[predicted[i]]
        deepest = right_to[down[true[i]], p]
        if deepest == LEFT_OUT:
            continue
        own, full = levels[0, p], levels[1, p]
        known = True
        for level in range(own):
            known = known and passed[confidences[level, i]] != LEFT_OUT
        if not known:
            continue
        top = last
        for level in range(own + 1):
            bottom = -1
            if level < own:
                bottom = min(top, np.int64(passed[confidences[level, i]]))
            if bottom < top:
                right = 1 if level <= deepest else 0
                changes[full, level, right, bottom + 1] += 1
                changes[full, level, right, top + 1] -= 1
            top = bottom


@kernel(
    "void(uint8[:, ::1], uint16[::1], int64[::1], float64[:, ::1], int64[:, ::1])",
    "void(uint16[:, ::1], uint16[::1], int64[::1], float64[:, ::1], int64[:, ::1])",
)
def sum_areas(
    labels: NDArray[Any], across: Rows, columns: Counts, sizes: NDArray[np.float64], sums: Counts
) -> None:
    """Adds to ``sums`` (3, N + 3) each row's pixels, and their area: multiples of SPLIT, and the rest.

    ``sizes`` (H, J): m² of the pixels in ``columns`` (J,), rising, the first at 0 or before; in between linear, after
    the last constant. Each pixel's area is rounded to whole parts for itself.
    """
    height, width = labels.shape
    for i in range(height):
        for j in range(columns.size):
            begin, end, slope = max(columns[j], 0), width, 0.0
            if j + 1 < columns.size:
                end = min(columns[j + 1], width)
                slope = (sizes[i, j + 1] - sizes[i, j]) / (columns[j + 1] - columns[j])
            k = begin
            while k < end:
                label, first, high, low = labels[i, k], k, np.int64(0), np.int64(0)
                while k < end and labels[i, k] == label:
                    units = np.rint((sizes[i, j] + (k - columns[j]) * slope) * PER_M2)
                    upper = np.floor(units * (1 / SPLIT))
                    high += np.int64(upper)
                    low += np.int64(units - upper * SPLIT)
                    k += 1
                row = across[label]
                sums[0, row] += k - first
                sums[1, row] += high
                sums[2, row] += low
