"""How large pixels are on the ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

__all__ = ["row_areas"]

_A, _F = 6378137.0, 1 / 298.257223563  # WGS 84
_SAMPLED = 4096  # rows computed at most; between them areas are interpolated


def row_areas(geobox: GeoBox) -> NDArray[np.float64]:
    """(H,) area in m², on the ellipsoid, of the middle pixel of each row.

    From the pixel's sides as short arcs: dN = M dφ and dE = N cos φ dλ, with the radii of curvature M and N.
    """
    rows, cols = geobox.shape
    sampled = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLED)).round())
    row, col = sampled + 0.5, np.full(sampled.shape, cols / 2)
    half = 0.5
    spots = ((row, col + half), (row, col - half), (row + half, col), (row - half, col))
    assert geobox.crs is not None, "only pixels of a placed grid have an area"
    crs = CRS.from_wkt(geobox.crs.to_wkt())
    to_lonlat = Transformer.from_crs(crs, CRS.from_epsg(4326), always_xy=True)
    affine = geobox.affine
    east = np.empty((4, len(sampled)))
    north = np.empty((4, len(sampled)))
    for k, (r, c) in enumerate(spots):
        x, y = affine.a * c + affine.b * r + affine.c, affine.d * c + affine.e * r + affine.f
        east[k], north[k] = to_lonlat.transform(x, y)
    flat = 1 - (2 * _F - _F**2) * np.sin(np.radians(north.mean(axis=0))) ** 2
    across, down = (np.radians(_turned(east[k] - east[k + 1])) for k in (0, 2))
    along, up = (np.radians(north[k] - north[k + 1]) for k in (0, 2))
    prime = _A / np.sqrt(flat) * np.cos(np.radians(north.mean(axis=0)))
    meridian = _A * (1 - _F) ** 2 / flat**1.5
    areas = np.abs(across * up - down * along) * prime * meridian
    return np.asarray(np.interp(np.arange(rows), sampled, areas), np.float64)


def _turned(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differences of longitudes the short way round."""
    return (degrees + 180) % 360 - 180
