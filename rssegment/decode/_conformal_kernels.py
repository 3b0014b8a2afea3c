"""Compiled inside of :mod:`rssegment.decode.conformal`: where the way down a tree leaves the truth."""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import kernel

__all__ = ["first_misses"]


@kernel("void(float32[:, ::1], int32[::1], int32[::1], boolean[:, ::1], int32[::1], float32[::1])")
def first_misses(
    nodes: NDArray[np.float32],
    first: NDArray[np.int32],
    children: NDArray[np.int32],
    above: NDArray[np.bool_],
    truth: NDArray[np.int32],
    scores: NDArray[np.float32],
) -> None:
    """Of pixels with probabilities ``nodes`` (N, n) and true rows ``truth`` (n,), -1 for unknown, the scores (n,).

    The score is P of the first node on the way from the root to ever the most probable child that neither holds the
    true node nor lies in it; 0 if there is none, NaN where the truth is unknown. ``above`` (N + 1, N + 1): whether the
    column's node is the row's or lies above it. Children of row n, N being the root, are
    ``children[first[n] : first[n + 1]]``.
    """
    for p in range(truth.size):
        true, at = truth[p], nodes.shape[0]
        scores[p] = np.nan if true < 0 else 0.0
        while true >= 0 and first[at] < first[at + 1]:
            best = children[first[at]]
            for k in range(first[at] + 1, first[at + 1]):
                if nodes[children[k], p] > nodes[best, p]:  # of equals, the first: as decisions do
                    best = children[k]
            at = best
            if not (above[true, at] or above[at, true]):
                scores[p] = nodes[at, p]
                break
