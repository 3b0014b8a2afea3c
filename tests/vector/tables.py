"""Tables of regions made without our own tracing."""

from __future__ import annotations

import numpy as np
import rasterio.features
from numpy.typing import NDArray

from rssegment.vector import Regions


def regions_of(polygons: list[list[NDArray]], scale: int = 1) -> Regions:
    """A table of regions, each of one polygon: its closed rings of corners (row, col), the exterior first."""
    rings = [np.asarray(ring) for polygon in polygons for ring in polygon]
    n = len(polygons)
    flags = np.zeros(n, np.uint8)
    return Regions(
        np.arange(1, n + 1), np.zeros(n, np.int64), np.ones(n, np.uint16), np.ones((n, 5), np.int64), flags + 255,
        flags, np.zeros((n, 2), np.int64), np.arange(n + 1), np.cumsum([0, *map(len, polygons)]),
        np.cumsum([0, *map(len, rings)]), np.concatenate(rings).astype(np.int32), scale,
    )  # fmt: skip


def traced(labels: NDArray) -> Regions:
    """Regions of an array by GDAL, whose rings have the inside on the left seen with row 0 on top."""
    shapes = rasterio.features.shapes(labels.astype("int32"), connectivity=4)
    polygons = [[np.array(ring)[:, ::-1] for ring in geometry["coordinates"]] for geometry, _ in shapes]
    for polygon in polygons:
        for k, ring in enumerate(polygon):
            y, x = -ring[:, 0], ring[:, 1]
            if (float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) > 0) != (k == 0):
                polygon[k] = ring[::-1]
    return regions_of(polygons)
