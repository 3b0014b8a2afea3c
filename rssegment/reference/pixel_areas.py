"""How large a grid's pixels are on the ground, each at its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError
from rssegment.geodesy import transformer
from rssegment.grid import Box, ground_resolution
from rssegment.vector.ground import pixel_area

__all__ = ["PixelAreas"]

_APART = (
    30_000.0  # m between pixels that are measured: in between, areas are linear to 6e-6, (30 / 6371)² / 4
)

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class PixelAreas:
    """Areas in m², on the WGS 84 ellipsoid, of a grid's pixels: a value that can be sent to a worker.

    In each row every ``step``-th pixel is measured, and the last one. So a pixel's area depends on its place in the
    grid, never on what is asked for with it.
    """

    affine: Affine
    crs: str
    shape: tuple[int, int]
    step: int

    @classmethod
    def of(cls, geobox: GeoBox) -> Self:
        """Of a grid with a CRS."""
        along = ground_resolution(geobox)[1]
        step = max(1, int(_APART / along)) if along > 0 else 1  # NaN where the grid's centre is off the Earth
        return cls(geobox.affine, str(geobox.crs), (geobox.shape[0], geobox.shape[1]), step)

    def within(self, box: Box) -> tuple[Int64, Float]:
        """Columns (J,) counted from the box's first, and areas (h, J) of the pixels there, for all of its rows.

        Between them areas change evenly. A pixel that isn't on the Earth has that of the one before or after, or 0.
        """
        first, last = box.col // self.step, (box.stop_col - 1) // self.step + 1
        rows = np.arange(box.row, box.stop_row)[:, None]
        cols = self._measured(first, last)
        areas = self.at(rows, cols)
        if np.isnan(areas).any():
            around = self._measured(max(first - 1, 0), last + 1)
            every = self.at(rows, around)
            pad = np.pad(every, ((0, 0), (1, 1)), constant_values=np.nan)
            for beside in (pad[:, :-2], pad[:, 2:], np.zeros_like(every)):
                every = np.where(np.isnan(every), beside, every)
            areas = every[:, np.isin(around, cols)]
        return cols - box.col, areas

    def _measured(self, first: int, last: int) -> Int64:
        """Columns that are measured: those at ``first`` to ``last`` steps, as far as there are."""
        return np.unique(np.minimum(np.arange(first, last + 1) * self.step, self.shape[1] - 1))

    def at(self, rows: Int64, cols: Int64) -> Float:
        """Area of the pixels at ``rows``, ``cols``, which broadcast; NaN off the Earth, 0 beyond its poles."""
        with np.errstate(invalid="ignore"):
            try:
                return pixel_area(self.affine, self.crs, rows, cols)
            except InputError:  # some are nowhere: at the rim of a map of the whole Earth
                rows, cols = np.broadcast_arrays(rows, cols)
                there = self._on_earth(rows, cols)
                if there.all():
                    raise
                areas = np.full(rows.shape, np.nan)
                areas[there] = pixel_area(self.affine, self.crs, rows[there], cols[there])
                return areas

    def _on_earth(self, rows: Int64, cols: Int64) -> NDArray[np.bool_]:
        """Which pixels have all of their corners in what the CRS can express."""
        there = np.ones(rows.shape, np.bool_)
        a, b, c, d, e, f = self.affine[:6]
        for row, col in ((rows, cols), (rows + 1, cols), (rows, cols + 1), (rows + 1, cols + 1)):
            places = transformer(self.crs).transform(a * col + b * row + c, d * col + e * row + f)
            there &= np.isfinite(places).all(axis=0)
        return there
