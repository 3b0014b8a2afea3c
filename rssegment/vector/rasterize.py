"""Polygons and points to labels of pixels, the same for any window.

Everything is computed in pixel coordinates of the whole grid, (col, row) with (0, 0) at its outer corner, and never
moved to a window's own: so a pixel's label does not depend on the window it was asked in, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import shapely
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.vector._rasterize_kernels import UNCOVERED, burn_parts

__all__ = ["Burnt", "PixelShapes"]

_FAR = 2.0**40  # px; nothing real lies there, and whole numbers are exact up to it


class Burnt(NamedTuple):
    """What :meth:`PixelShapes.burn` gives.

    ``values`` (H, W) int32, -1 where no shape covers; ``contested`` (H, W): do shapes of several values cover it?
    """

    values: NDArray[np.int32]
    contested: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PixelShapes:
    """P polygons without multiplicity, or points, in their order, each with a value.

    ``xy`` (V, 2) float64 in pixels (col, row); ``rings`` (R + 1,): where rings begin in ``xy``; ``parts`` (P + 1,):
    where polygons begin among the rings, the outer one first; ``values`` (P,) int32; ``features`` (P,): the geometry
    that a part came from. A point is a part of one ring with one vertex.
    """

    xy: NDArray[np.float64]
    rings: NDArray[np.int64]
    parts: NDArray[np.int64]
    values: NDArray[np.int32]
    features: NDArray[np.int64]

    @classmethod
    def of(cls, geometries: NDArray[np.object_], values: NDArray[np.integer]) -> Self:
        """Shapes of shapely (multi)polygons and (multi)points in pixel coordinates; empty ones are left out.

        Other kinds of geometry are ignored.
        """
        parts, features = shapely.get_parts(geometries, return_index=True)
        nested = shapely.get_type_id(parts) == shapely.GeometryType.GEOMETRYCOLLECTION
        while nested.any():
            inner, index = shapely.get_parts(parts[nested], return_index=True)
            order = np.concatenate([features[~nested], features[nested][index]])
            parts = np.concatenate([parts[~nested], inner])[np.argsort(order, kind="stable")]
            features = np.sort(order, kind="stable")
            nested = shapely.get_type_id(parts) >= shapely.GeometryType.MULTIPOINT
        kinds = shapely.get_type_id(parts)
        known = np.isin(kinds, [shapely.GeometryType.POLYGON, shapely.GeometryType.POINT])
        known &= ~shapely.is_empty(parts)
        parts, features, kinds = parts[known], features[known], kinds[known]
        xy, rings, starts = _ragged(parts, kinds == shapely.GeometryType.POINT)
        return cls(xy, rings, starts, values[features].astype(np.int32), features.astype(np.int64))

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """(P, 4): least and greatest col, row, col, row of each part."""
        if not len(self):
            return np.empty((0, 4))
        first = self.rings[self.parts[:-1]]
        low = np.minimum.reduceat(self.xy, first, axis=0)
        return np.hstack([low, np.maximum.reduceat(self.xy, first, axis=0)])

    def touching(self, box: Box) -> NDArray[np.int64]:
        """Which parts may cover a pixel of ``box``, in their order."""
        left, top, right, bottom = self.boxes.T
        near = (left < box.stop_col) & (right >= box.col) & (top < box.stop_row) & (bottom >= box.row)
        return np.flatnonzero(near).astype(np.int64)

    def burn(self, box: Box) -> Burnt:
        """The value of the last shape that covers each pixel of ``box``.

        A polygon covers a pixel whose centre it covers; of two that share an edge, exactly one covers a centre on it. A
        point covers the pixel it lies in.
        """
        values = np.full(box.shape, UNCOVERED, np.int32)
        contested = np.zeros(box.shape, np.uint8)
        chosen = self.touching(box)
        if chosen.size:
            burn_parts(
                self.xy, self.rings, self.parts, self.values, chosen, box.row, box.col, values, contested
            )
        return Burnt(values, contested.view(np.bool_))


def _ragged(
    parts: NDArray[np.object_], is_point: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Coordinates, where rings begin in them, and where parts begin among the rings."""
    polygons = np.flatnonzero(~is_point)
    rings, owner = shapely.get_rings(parts[polygons], return_index=True)
    pieces = np.concatenate([rings, parts[is_point]])
    owners = np.concatenate([polygons[owner], np.flatnonzero(is_point)])
    order = np.argsort(owners, kind="stable")
    pieces, owners = pieces[order], owners[order]
    xy = shapely.get_coordinates(pieces)
    sizes = shapely.get_num_coordinates(pieces)
    counts = np.bincount(owners, minlength=len(parts))
    first, second = (np.concatenate([[0], np.cumsum(each)]).astype(np.int64) for each in (sizes, counts))
    return np.ascontiguousarray(np.clip(xy, -_FAR, _FAR)), first, second
