"""A synthetic aerial scene with its truth, made from a seed: fields, forest, river, roads and buildings.

It stands in for imagery where none can be shipped. It is not a photograph, and scores on it say that the
pipeline works, not how well a model does on real land.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.demo.paint import PIXEL, Painting, paint
from rssegment.demo.textures import blur
from rssegment.errors import SettingsError

__all__ = ["BANDS", "Landscape", "make_landscape"]

BANDS = ("red", "green", "blue", "nir")
STRIP = 256  # rows rendered at once
PSF = (0.50, 0.22, 0.03)  # what a pixel gives to itself, to its neighbours and to the next, on each axis
SHADOW = (0.46, 0.50, 0.58, 0.42)  # what is left of each band's light where only the sky shines


@dataclass(frozen=True)
class Landscape:
    """``bands`` (4, H, W) uint8, 0 where there is no data; ``truth`` (H, W) uint16 codes; ``valid`` (H, W) bool."""

    bands: NDArray[np.uint8]
    truth: NDArray[np.uint16]
    valid: NDArray[np.bool_]
    geobox: GeoBox
    seed: int


def make_landscape(shape: tuple[int, int] = (4096, 4096), seed: int = 0, *, wedge: bool = True) -> Landscape:
    """The landscape of ``seed``: the same arguments give the same pixels.

    Pixels are 0.5 m. ``wedge`` leaves a strip at the right without data, as at the rotated edge of a flight.

    Raises
    ------
    SettingsError
        A side shorter than 64 px, or a negative seed.
    """
    if min(shape) < 64:
        raise SettingsError(f"a landscape of {shape[0]} x {shape[1]} px is too small; the least is 64 x 64")
    if seed < 0:
        raise SettingsError(f"the landscape's seed is {seed}; it must be 0 or more")
    streams = np.random.SeedSequence(seed).spawn(3)
    layout_rng, paint_rng, sensor_rng = (np.random.Generator(np.random.PCG64(s)) for s in streams)
    painting = paint(shape, layout_rng, paint_rng)
    valid = flown(shape, sensor_rng) if wedge else np.ones(shape, bool)
    bands = expose(painting, valid, sensor_rng)
    truth = np.where(valid, painting.truth, 0).astype(np.uint16)
    return Landscape(bands, truth, valid, geobox(shape), seed)


def geobox(shape: tuple[int, int]) -> GeoBox:
    """Pixels of 0.5 m in UTM zone 31 north."""
    return GeoBox(shape, Affine(PIXEL, 0.0, 431_000.0, 0.0, -PIXEL, 5_418_000.0), "EPSG:32631")


def flown(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where the sensor saw the ground: everything left of a line that is off the vertical by 3 to 7 degrees."""
    slope = math.tan(math.radians(rng.uniform(3, 7))) * (1 if rng.uniform() < 0.5 else -1)
    edge = shape[1] * rng.uniform(0.93, 0.97) + slope * (np.arange(shape[0]) - shape[0] / 2)
    return np.arange(shape[1])[None, :] < edge[:, None]


def expose(painting: Painting, valid: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light, haze, optics and sensor over the painted ground: (4, H, W) uint8, valid pixels from 1 to 255."""
    height, width = valid.shape
    image = np.zeros((4, height, width), np.uint8)
    squared = ((np.arange(width, dtype=np.float32) - width / 2) / (width / 2)) ** 2
    for start in range(0, height, STRIP):
        stop = min(height, start + STRIP)
        first, last = max(0, start - 2), min(height, stop + 2)
        rows = slice(start - first, stop - first)
        colour, shadow = painting.rows(first, last)
        light = 1 + np.float32(0.13) * painting.light.rows(start, stop)
        down = ((np.arange(start, stop, dtype=np.float32) - height / 2) / (height / 2)) ** 2
        light *= 1 - np.float32(0.05) * (squared[None, :] + down[:, None])  # vignetting
        haze = np.float32(4) + np.float32(4) * painting.haze.rows(start, stop)
        for band in range(4):
            seen = colour[band] * np.where(shadow, np.float32(SHADOW[band]), np.float32(1))
            seen = blur(seen, PSF)[rows] * light + haze * np.float32((0.8, 1.0, 1.4, 0.4)[band])
            noise = rng.standard_normal(seen.shape, np.float32)
            seen += noise * (np.float32(1.2) + np.float32(0.014) * seen)  # read-out and photon noise
            image[band, start:stop] = np.clip(np.rint(seen), 1, 255).astype(np.uint8)
    image *= valid
    return image
