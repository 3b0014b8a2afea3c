"""How large pixels are on the ground, and how many of them a tolerance is."""

from __future__ import annotations

import numpy as np
from odc.geo.geobox import GeoBox

from rssegment.config import Length
from rssegment.errors import InputError, SettingsError
from rssegment.grid import ground_resolution
from rssegment.reference.pixel_areas import PixelAreas

__all__ = ["on_ground"]

_SAMPLED = 4096  # rows whose middle pixel is looked at, at most
_NOMINAL = (
    2e-3  # by how much pixels on the ground may differ from those in the CRS's units, and still be called so
)


def on_ground(geobox: GeoBox, tolerance: Length) -> tuple[float, tuple[float, float], PixelAreas | None]:
    """The tolerance (m), a pixel's size (m), and the areas of pixels (m²).

    Without a CRS a pixel is 1 by 1, areas are unknown, and the tolerance must be in pixels. One in pixels is taken of
    the nominal pixel (0.2 m, not 0.20003 m) where that is true to 0.2 %, so that scenes of one kind can be merged.
    """
    if geobox.crs is None:
        if tolerance.unit != "px" and tolerance.value:
            raise SettingsError(
                f"the boundary tolerance is {tolerance.value:g} m, and the prediction has no CRS that would say how "
                "large its pixels are; give the tolerance in pixels, as 3px"
            )
        return tolerance.value, (1.0, 1.0), None
    cell, areas, (rows, cols) = ground_resolution(geobox), PixelAreas.of(geobox), geobox.shape
    sampled = np.linspace(0, rows - 1, min(rows, _SAMPLED)).astype(np.int64)
    if not (np.isfinite(cell).all() and min(cell) > 0 and (areas.at(sampled, np.array(cols // 2)) > 0).all()):
        raise InputError(
            "some of the prediction's pixels have no size on the ground: its grid reaches beyond a pole, or to where "
            f"its CRS has no meaning ({_extent(geobox)}); correct its georeference, or crop it"
        )
    if tolerance.unit != "px":
        return tolerance.value, cell, areas
    a, b, _, d, e, _ = geobox.affine[:6]
    nominal = float(np.hypot(b, e)), float(np.hypot(a, d))
    same = all(abs(on_map - true) <= _NOMINAL * true for on_map, true in zip(nominal, cell, strict=True))
    side = max(nominal) if same else max(cell)
    return float(f"{tolerance.value * side:.4g}"), (nominal if same else cell), areas


def _extent(geobox: GeoBox) -> str:
    """Of a grid in its CRS, for messages."""
    rows, cols = geobox.shape
    xs, ys = zip(
        *(geobox.affine * spot for spot in ((0, 0), (cols, 0), (0, rows), (cols, rows))), strict=True
    )
    return f"x {min(xs):.6g} to {max(xs):.6g}, y {min(ys):.6g} to {max(ys):.6g}"
