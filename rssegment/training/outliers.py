"""Single values so far from all others that they can be no measurement: fill values that nobody declared."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Outlier", "outlier"]

_GAP = 1e6  # times the next smaller magnitude
_LARGE = 1e6  # smaller magnitudes are never taken for fill
_ABSURD = 1e30  # larger ones always are: 1e32, 9.97e36 and 3.4e38 are what programs fill with


class Outlier(NamedTuple):
    """A ``value`` and the number of the ``cell`` that it lies in."""

    cell: int
    value: float


def outlier(
    least: NDArray[np.float64], greatest: NDArray[np.float64], rms: NDArray[np.float64]
) -> Outlier | None:
    """The value of largest magnitude if it is no measurement; of each cell (K,) least, greatest and root mean square.

    What tells fill from bright targets, rivers in an accumulation of flow, or mountains in a sea of zeros is not how
    far it is from the middle, but the gap: magnitudes of measurements follow each other more or less densely, and
    between them and fill there is nothing for six orders. That holds however much of the ground is fill, and where all
    values are large, as counts of molecules are.
    """
    ends = np.stack([least, greatest])
    found = np.abs(ends)
    top = float(found.max(initial=0.0))
    if top <= _LARGE:
        return None
    sizes = np.unique(np.concatenate([found.ravel(), rms]))
    sizes = sizes[sizes > 0]
    above = sizes[1:][(sizes[1:] > _LARGE) & (sizes[1:] / _GAP > sizes[:-1])]
    if not above.size and top < _ABSURD:
        return None
    side, cell = np.unravel_index(int(found.argmax()), found.shape)
    return Outlier(int(cell), float(ends[side, cell]))
