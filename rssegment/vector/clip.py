"""Polygons cut to a rectangle, so that what they cover within it stays the same to the last pixel."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

__all__ = ["clip_polygon"]

_LARGEST = 1e100  # beyond it, differences of coordinates have no squares
_SANE = 1e15  # beyond it, GEOS may fail

Float = NDArray[np.float64]


def clip_polygon(polygon: shapely.Polygon, bounds: tuple[float, float, float, float]) -> shapely.Geometry:
    """The part of ``polygon`` within ``bounds`` (least x, y, greatest x, y); empty where there is none.

    Of one that is valid the intersection; of one that is not, what lies inside by the even-odd rule, each ring cut by
    itself (Sutherland and Hodgman 1974). Edges within the rectangle keep their vertices.
    """
    if np.abs(shapely.bounds(polygon)).max() < _SANE and shapely.is_valid(polygon):
        return _areal(shapely.intersection(polygon, shapely.box(*bounds)))
    rings = [_cut(shapely.get_coordinates(ring), bounds) for ring in shapely.get_rings(polygon)]
    rings = [ring for ring in rings if len(ring) > 3]
    return shapely.Polygon(rings[0], rings[1:]) if rings else shapely.Polygon()


def _areal(geometry: shapely.Geometry) -> shapely.Geometry:
    """Without the lines and points that remain where an edge ran along the rectangle's."""
    parts = shapely.get_parts(geometry)
    areas = parts[shapely.get_dimensions(parts) == 2]
    return areas[0] if len(areas) == 1 else shapely.MultiPolygon(areas.tolist())


def _cut(ring: Float, bounds: tuple[float, float, float, float]) -> Float:
    """A closed ring (n, 2) cut by the four sides, closed; of less than four vertices where nothing is left."""
    ring = np.clip(ring, -_LARGEST, _LARGEST)
    for side, limit in enumerate(bounds):
        ring = _beyond(ring, side % 2, limit, 1.0 if side < 2 else -1.0)
        if not len(ring):
            break
    return ring


def _beyond(ring: Float, axis: int, limit: float, sign: float) -> Float:
    """What of a closed ring lies on that side of the line where ``axis`` is ``limit``; closed again."""
    inside = sign * (ring[:, axis] - limit) >= 0
    if inside.all():
        return ring
    if not inside.any():
        return ring[:0]
    start, stop = ring[:-1], ring[1:]
    crosses = inside[:-1] != inside[1:]
    kept = np.where(
        inside[:-1, None], start, stop
    )  # from the end that stays, whichever way the edge is drawn
    gone = np.where(inside[:-1, None], stop, start)
    run = np.where(crosses, gone[:, axis] - kept[:, axis], 1.0)
    share = (limit - kept[:, axis]) / run
    places = kept + share[:, None] * (gone - kept)
    places[:, axis] = limit
    both = np.stack([start, places], axis=1).reshape(-1, 2)
    cut = both[np.stack([inside[:-1], crosses], axis=1).reshape(-1)]
    return np.concatenate([cut, cut[:1]])
