"""Procedural textures of the synthetic landscape: value noise, tree crowns, waves.

No transcendental functions per pixel, so that two machines agree to the last bit but one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CROWN_TILE", "CrownTile", "ValueNoise", "blur", "triangle"]

Floats = NDArray[np.float32]
CROWN_TILE = 1024  # px; the canopy texture repeats after this many


def triangle(phase: Floats) -> Floats:
    """A triangle wave of period 1 in [0, 1], peaks at whole numbers."""
    phase = phase - np.floor(phase)
    phase = phase * np.float32(2) - np.float32(1)
    return np.abs(phase, out=phase)


class ValueNoise:
    """Smooth noise of mean 0 and range [-1, 1] over a grid of ``shape``: random nodes every ``cell`` px."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int], cell: float) -> None:
        self.cell = cell
        nodes = rng.uniform(-1, 1, (int(shape[0] / cell) + 2, int(shape[1] / cell) + 2)).astype(np.float32)
        col, weight = self._weights(np.arange(shape[1]))
        self._lines = nodes[:, col] * (1 - weight) + nodes[:, col + 1] * weight  # (nodes down, W)

    def _weights(self, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        place = at / self.cell
        node = place.astype(np.int64)
        t = (place - node).astype(np.float32)
        return node, t * t * (3 - 2 * t)

    def rows(self, start: int, stop: int) -> Floats:
        """Noise (stop - start, W) of rows ``start`` to ``stop``."""
        row, weight = self._weights(np.arange(start, stop))
        above = self._lines[row]
        above += (self._lines[row + 1] - above) * weight[:, None]
        return above


class CrownTile:
    """A periodic canopy: ``height`` and ``shade`` and ``tint`` of tree crowns, each (CROWN_TILE, CROWN_TILE).

    Crowns are paraboloids on a jittered grid, lit from ``sun`` (a unit vector (x, y) that points to the sun).
    """

    def __init__(self, rng: np.random.Generator, sun: tuple[float, float], spacing: int = 8) -> None:
        count = CROWN_TILE // spacing
        at = rng.uniform(0.1, 0.9, (2, count, count)).astype(np.float32)
        top = rng.uniform(0.35, 1.0, (count, count)).astype(np.float32)
        hue = rng.uniform(-1, 1, (count, count)).astype(np.float32)
        pixel = (np.arange(CROWN_TILE, dtype=np.float32) + 0.5) / spacing
        cell = np.arange(CROWN_TILE) // spacing
        self.height = np.zeros((CROWN_TILE, CROWN_TILE), np.float32)
        self.tint = np.zeros_like(self.height)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                index = np.ix_((cell + down) % count, (cell + right) % count)
                dy = pixel[:, None] - (cell + down)[:, None] - at[0][index]
                dx = pixel[None, :] - (cell + right)[None, :] - at[1][index]
                dome = top[index] - np.float32(0.75) * (dx * dx + dy * dy)
                higher = dome > self.height
                self.height[higher] = dome[higher]
                self.tint[higher] = hue[index][higher]
        slope_x = np.roll(self.height, -1, 1) - np.roll(self.height, 1, 1)
        slope_y = np.roll(self.height, -1, 0) - np.roll(self.height, 1, 0)
        lit = -(slope_x * np.float32(sun[0]) + slope_y * np.float32(sun[1]))
        self.shade = np.clip(lit * np.float32(2.2) + (self.height - np.float32(0.5)) * np.float32(0.9), -1, 1)

    def rows(self, texture: Floats, start: int, stop: int, width: int) -> Floats:
        """Rows of one of the tile's textures, repeated to ``width`` px."""
        repeats = -(-width // CROWN_TILE)
        rows = texture[np.arange(start, stop) % CROWN_TILE]
        return np.tile(rows, (1, repeats))[:, :width]


def blur(image: Floats, kernel: tuple[float, float, float]) -> Floats:
    """``image`` (H, W) convolved along both axes with a symmetric ``kernel`` (centre, first, second); edges mirror."""
    centre, first, second = (np.float32(k) for k in kernel)
    for _ in range(2):  # down, then across
        padded = np.pad(image, ((2, 2), (0, 0)), mode="reflect")
        length = image.shape[0]
        image = centre * padded[2 : length + 2]
        image += first * (padded[1 : length + 1] + padded[3 : length + 3])
        image += second * (padded[:length] + padded[4:])
        image = image.T
    return image
