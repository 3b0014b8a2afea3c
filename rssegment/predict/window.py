"""Weights by which overlapping patches are averaged."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import PatchLattice

__all__ = ["Window", "axis_patches", "axis_weights"]

Window = Literal["blend", "crop"]


def axis_weights(lattice: PatchLattice, axis: int, k: int, window: Window = "blend") -> NDArray[np.float32]:
    """Weights (patch,) of the ``k``-th patch along ``axis`` (0 rows, 1 cols); a pixel's weight is rows' times columns'.

    ``blend`` rises as sin² over the overlap; ``crop`` takes the middle ``stride`` px alone. Read-only.
    Law: at every pixel of the scene the weights of all patches sum to 1, at its edges too (partition of unity).
    """
    last = lattice.lattice_shape[axis] - 1
    return _weights(replace(lattice, shape=(1, 1)), k > 0, k < last, window)


@lru_cache(maxsize=256)
def _weights(lattice: PatchLattice, before: bool, after: bool, window: Window) -> NDArray[np.float32]:
    """Weights (patch,) of a patch that has a neighbour ``before`` and one ``after`` it, or not.

    It meets no others, since the overlap is at most half of it.
    """
    raw = _profile(lattice, window)
    total = raw.copy()
    for present, by in ((before, -lattice.stride), (after, lattice.stride)):
        if present:
            total += _shifted(raw, by)
    weights = np.divide(raw, total, out=np.zeros(lattice.patch), where=raw > 0).astype(np.float32)
    weights.flags.writeable = False
    return weights


def axis_patches(lattice: PatchLattice, axis: int, start: int, stop: int, window: Window = "blend") -> range:
    """Indices along ``axis`` of the patches that have a weight in ``[start, stop)``."""
    if window == "crop":
        return range(start // lattice.stride, (stop - 1) // lattice.stride + 1)
    return lattice.axis_touching(axis, start, stop)


def _profile(lattice: PatchLattice, window: Window) -> NDArray[np.float64]:
    """Weights (patch,) before they are divided by their sum."""
    patch, overlap, place = lattice.patch, lattice.overlap, np.arange(lattice.patch)
    if window == "crop":
        middle = (place >= lattice.margin) & (place < lattice.margin + lattice.stride)
        return middle.astype(np.float64)
    if overlap == 0:
        return np.ones(patch)
    # taken at pixel centres, so that no weight is 0 and no pixel at the scene's edge is lost
    into = (np.minimum(place, patch - 1 - place) + 0.5) / overlap
    ramp: NDArray[np.float64] = np.sin(np.pi / 2 * np.minimum(into, 1)) ** 2
    return ramp


def _shifted(profile: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    """The profile of a patch that starts ``by`` px further on, seen in this one's pixels."""
    out = np.zeros_like(profile)
    length = len(profile) - abs(by)
    if length > 0:
        out[max(0, by) : max(0, by) + length] = profile[max(0, -by) : max(0, -by) + length]
    return out
