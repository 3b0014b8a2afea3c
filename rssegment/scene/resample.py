"""Pixels of another size over the same ground: averages of smaller pixels, interpolation of larger ones.

Every output pixel is a sum of a fixed number of input pixels in a fixed order, weighted by numbers that depend
on the pixel's place in the scene only. Law: a part of the resampled grid is byte for byte what the whole
grid has there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Taps", "best_level", "resample", "resample_valid", "taps"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Taps:
    """One axis: output pixel ``i`` is the sum over k of ``weights[i, k] * input[indices[i, k]]``.

    ``indices`` and ``weights`` are ``(n, K)``; each row of weights sums to 1.
    """

    indices: NDArray[np.int64]
    weights: Floats

    @property
    def span(self) -> tuple[int, int]:
        """First and one past the last input pixel that has a weight."""
        used = self.indices[self.weights > 0]
        return int(used.min()), int(used.max()) + 1


def taps(start: int, stop: int, factor: float, length: int) -> Taps:
    """The taps of output pixels ``[start, stop)``, each ``factor`` input pixels long, over ``length`` of those.

    Larger pixels take the mean of what they cover within the grid; smaller ones interpolate linearly
    between the two nearest centres, the edge pixel continued.
    """
    pixels = np.arange(start, stop, dtype=np.float64)
    if factor < 1:
        centres = (pixels + 0.5) * factor - 0.5
        first = np.floor(centres)
        fraction = centres - first
        indices = first[:, None] + np.arange(2)
        weights = np.stack([1 - fraction, fraction], axis=1)
    else:
        left = pixels * factor
        right = np.minimum((pixels + 1) * factor, length)
        # A left edge that rounding put just before a pixel's own edge belongs to that pixel.
        first = np.floor(left + 1e-6)
        indices = first[:, None] + np.arange(math.ceil(factor) + 1)
        weights = np.minimum(indices + 1, right[:, None]) - np.maximum(indices, left[:, None])
        weights[weights < 1e-6] = 0
        weights[weights.sum(axis=1) == 0, 0] = 1
        weights /= weights.sum(axis=1, keepdims=True)
    indices = np.clip(indices, 0, length - 1).astype(np.int64)
    return Taps(indices, weights.astype(np.float32))


def resample(
    values: Floats, valid: NDArray[np.bool_], rows: Taps, cols: Taps, origin: tuple[int, int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Values ``(C, h, w)`` and validity ``(h, w)`` from input ``(C, H, W)`` that begins at pixel ``origin``.

    Invalid input pixels (whose values are 0) have no weight; an output pixel is valid if at least half of its
    weight falls on valid ones.
    """
    down, across = _within(rows, origin[0], values.shape[1]), _within(cols, origin[1], values.shape[2])
    result = np.empty((len(values), len(rows.weights), len(cols.weights)), dtype=np.float32)
    for layer, out in zip(values, result, strict=True):
        out[:] = _apply(layer, down, across)
    if valid.all():
        return result, np.ones(result.shape[1:], dtype=np.bool_)
    # Exactly 0 where no invalid pixel takes part, so that these pixels don't depend on what the window holds.
    missing = _apply((~valid).astype(np.float32), down, across)
    kept = missing <= 0.5
    result /= np.where(kept, 1 - missing, np.float32(1))
    np.copyto(result, 0.0, where=~kept)
    return result, kept


def resample_valid(
    valid: NDArray[np.bool_], rows: Taps, cols: Taps, origin: tuple[int, int]
) -> NDArray[np.bool_]:
    """The validity that :func:`resample` gives."""
    return resample(np.empty((0, *valid.shape), dtype=np.float32), valid, rows, cols, origin)[1]


def _within(axis: Taps, first: int, length: int) -> Taps:
    """Taps counted from the input's ``first`` pixel; those of weight 0 may lie outside and are moved in."""
    return Taps(np.clip(axis.indices - first, 0, length - 1), axis.weights)


def _apply(layer: Floats, rows: Taps, cols: Taps) -> Floats:
    return _along_columns(_along_rows(layer, rows), cols)


def _along_rows(layer: Floats, axis: Taps) -> Floats:
    total = np.zeros((len(axis.indices), layer.shape[1]), dtype=np.float32)
    for k in range(axis.indices.shape[1]):
        part = layer[axis.indices[:, k]]
        part *= axis.weights[:, k, None]
        total += part
    return total


def _along_columns(layer: Floats, axis: Taps) -> Floats:
    total = np.zeros((layer.shape[0], len(axis.indices)), dtype=np.float32)
    for k in range(axis.indices.shape[1]):
        part = np.take(layer, axis.indices[:, k], axis=1)
        part *= axis.weights[:, k]
        total += part
    return total


def best_level(
    shape: tuple[int, int], overviews: tuple[tuple[int, int], ...], factor: tuple[float, float]
) -> int | None:
    """The smallest overview whose pixels are at most half of the wanted ones along both axes; None for none.

    At most half: overviews are often made by picking pixels, and the mean of four hides that.
    ``factor`` is the wanted pixel in pixels of the full grid, (down, across).
    """
    fitting = [
        level
        for level, reduced in enumerate(overviews)
        if all(n / r <= f / 2 * (1 + 1e-3) for n, r, f in zip(shape, reduced, factor, strict=True))
    ]
    return max(fitting, key=lambda level: -overviews[level][0] * overviews[level][1], default=None)
