"""The temperature that makes probabilities tell how often a model is right (Guo et al., ICML 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rssegment.errors import InputError

__all__ = ["TEMPERATURES", "fit_temperature"]

TEMPERATURES: NDArray[np.float64] = np.geomspace(
    0.25, 4, 17
)  # each 2 ** (1 / 4) times the one before; the ninth is 1
TEMPERATURES.flags.writeable = False


def fit_temperature(temperatures: ArrayLike, losses: ArrayLike) -> float:
    """The temperature of least loss, of softmax(logits / T), given summed losses (K,) at K ``temperatures``, K >= 3.

    Losses are negative log-likelihoods of labelled pixels, summed. The minimum is that of the parabola in log T through
    the least and its neighbours; the least itself where it is at an end of the grid. Their order doesn't matter.

    Raises
    ------
    InputError
        There are too few values, one isn't finite, or all are the same: no pixel had a label, or logits tell nothing.
    """
    places, values = np.asarray(temperatures, np.float64), np.asarray(losses, np.float64)
    if places.ndim != 1 or values.shape != places.shape or len(places) < 3:
        raise InputError(
            f"losses of shape {values.shape} at temperatures of shape {places.shape}; expected three or more of each"
        )
    if not (np.isfinite(places) & (places > 0)).all() or len(np.unique(places)) < len(places):
        raise InputError("temperatures must be different numbers above 0")
    if not np.isfinite(values).all():
        raise InputError("a loss is not a number: a labelled pixel has probability 0 or NaN")
    order = np.argsort(places)
    places, values = places[order], values[order]
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        raise InputError(
            "the loss is the same at every temperature: no pixel has a label that the model can be held to"
        )
    best = int(np.argmin(values))
    if best in {0, len(values) - 1}:
        return float(places[best])
    return float(np.exp(_vertex(np.log(places[best - 1 : best + 2]), values[best - 1 : best + 2])))


def _vertex(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Where the parabola through three points, the middle one lowest, has its minimum: between the outer ones."""
    left, right = x[1] - x[0], x[2] - x[1]
    down, up = (y[1] - y[0]) / left, (y[2] - y[1]) / right  # slopes, of which the first is negative or 0
    if up == down:
        return float(x[1])
    slope = (down * right + up * left) / (left + right)  # at the middle point
    curvature = 2 * (up - down) / (left + right)
    return float(np.clip(x[1] - slope / curvature, x[0], x[2]))
