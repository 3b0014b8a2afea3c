"""Features of any CRS brought onto a grid's pixels: cut to where the grid lies, then transformed along their edges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from rssegment.grid import ground_resolution
from rssegment.reference.footprint import Bounds, Window, crs_of, other_crs, same_kind, turn_of, windows_of
from rssegment.vector.clip import clip_polygon

__all__ = ["OnGrid", "on_grid", "window_to_read"]

_EARTH = 6.4e6  # m, radius
_SAG = 0.02  # px that a straight edge may lie beside its true curve
_COARSEST = 1e5  # m, of a piece of an edge: maps of the world bend more than the Earth does
_TORN = 1e7  # m: no edge that follows its curve is so long

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Geometries = NDArray[np.object_]


class OnGrid(NamedTuple):
    """``geometries`` (n,) in pixels (col, row) of the whole grid; ``near`` (n,): which may touch it; ``lost`` (n,):
    which have no place there.
    """

    geometries: Geometries
    near: Mask
    lost: Mask


def window_to_read(windows: Sequence[Window], layer: Bounds | None) -> Bounds | None:
    """What is to be read of a layer that lies within ``layer``; None for all of it."""
    if layer is None or not windows:
        return None
    wanted = [window.near for window in windows if _overlap(np.array([layer]), window.near)[0]]
    if len(wanted) > 1 or not any(layer):  # formats say 0, 0, 0, 0 where there is no geometry
        return None
    return wanted[0] if wanted else windows[0].near


def on_grid(geometries: Geometries, geobox: GeoBox, crs: CRS | None) -> OnGrid:
    """Geometries of ``crs`` in pixel coordinates of the grid.

    They are cut to the surroundings of the whole grid in ``crs`` first, never to a part of it: what lies beyond may
    have no place on its map, or a false one. Edges are cut into pieces so short that they follow their curves.
    """
    own = crs_of(geobox)
    lost = _unplaced(geometries)
    geometries = _without(geometries, lost)
    if windows := windows_of(geobox, crs):
        geometries = _cut(geometries, windows)
    if other_crs(own, crs):
        areal = shapely.get_dimensions(geometries) == 2
        geometries[areal] = shapely.segmentize(geometries[areal], _longest(geobox, crs))
        geometries = shapely.transform(geometries, _Move(geobox, crs))
        torn = _unplaced(geometries)
        if turn_of(crs) is None:  # degrees are cut at the seam before
            torn |= _torn(geometries, own)
        geometries = _without(geometries, torn)
        lost |= torn
    pixels = np.asarray(shapely.transform(geometries, _Pixels(geobox)), object)
    rows, cols = geobox.shape
    left, top, right, bottom = shapely.bounds(pixels).T
    near = (left < cols) & (right >= 0) & (top < rows) & (bottom >= 0)  # false where there is nothing
    return OnGrid(pixels, near, lost)


class _Move:
    """Coordinates of a CRS to those of a grid, without a leap where longitudes begin anew."""

    def __init__(self, geobox: GeoBox, crs: CRS | None) -> None:
        self._crs, self._own = crs, crs_of(geobox)
        self._between = Transformer.from_crs(crs, self._own, always_xy=True)
        rows, cols = geobox.shape
        self._middle = (geobox.affine * (cols / 2, rows / 2))[0]

    def __call__(self, xy: Float) -> Float:
        x, y = self._between.transform(xy[:, 0], xy[:, 1])
        if turn := turn_of(self._own):
            alike = same_kind(self._crs, self._own)
            beside = xy[:, 0] * (turn / (turn_of(self._crs) or turn)) if alike else self._middle
            known = np.isfinite(x)
            x = np.where(known, x + turn * np.round((beside - np.where(known, x, 0.0)) / turn), x)
        return np.column_stack([x, y])


class _Pixels:
    """World coordinates of a grid to its pixels (col, row)."""

    def __init__(self, geobox: GeoBox) -> None:
        self._inverse = ~geobox.affine

    def __call__(self, xy: Float) -> Float:
        to = self._inverse
        col = to.a * xy[:, 0] + to.b * xy[:, 1] + to.c
        return np.column_stack([col, to.d * xy[:, 0] + to.e * xy[:, 1] + to.f])


def _without(geometries: Geometries, which: Mask) -> Geometries:
    left = geometries.copy()
    left[which] = None
    return left


def _unplaced(geometries: Geometries) -> Mask:
    """Which geometries have a vertex that is nowhere."""
    xy, owners = shapely.get_coordinates(geometries, return_index=True)
    found = np.zeros(len(geometries), np.bool_)
    found[owners[~np.isfinite(xy).all(axis=1)]] = True
    return found


def _torn(geometries: Geometries, own: CRS | None) -> Mask:
    """Which geometries have an edge from one end of the map to the other."""
    turn = turn_of(own)
    unit = 1.0 if own is None or turn else float(own.axis_info[0].unit_conversion_factor or 1)
    limit = turn / 2 if turn else _TORN / unit
    left, low, right, high = shapely.bounds(geometries).T
    torn: Mask = np.asarray((right - left > limit) | (high - low > limit))
    for i in np.flatnonzero(torn):
        rings = shapely.get_rings(shapely.get_parts(geometries[i : i + 1]))
        edges = (np.diff(shapely.get_coordinates(ring), axis=0) for ring in rings)
        torn[i] = any((np.hypot(*edge.T) > limit).any() for edge in edges)
    return torn


def _longest(geobox: GeoBox, crs: CRS | None) -> float:
    """Longest edge (units of ``crs``) whose curve, in another CRS, bulges by less than _SAG px."""
    assert crs is not None, "nothing is transformed from no CRS"
    metres = min(math.sqrt(8 * _EARTH * _SAG * min(ground_resolution(geobox))), _COARSEST)
    if turn := turn_of(crs):
        return metres / 111_320 * turn / 360
    return metres / float(crs.axis_info[0].unit_conversion_factor or 1)


def _cut(geometries: Geometries, windows: Sequence[Window]) -> Geometries:
    """Geometries cut to the wide windows and brought to the turn of their longitudes; None where none is near.

    Those within one of them stay as they are.
    """
    bounds = shapely.bounds(geometries)
    touched = np.array([_overlap(bounds, window.near) for window in windows])
    cut = np.full(len(geometries), None, object)
    left = touched.any(axis=0)
    for window, touches in zip(windows, touched, strict=True):
        whole = left & touches & _within(bounds, window.wide) & (touched.sum(axis=0) == 1)
        cut[whole] = _shifted(geometries[whole], window.shift)
        left &= ~whole
    for i in np.flatnonzero(left):
        cut[i] = _joined(list(_pieces(geometries[i], windows)))
    return cut


def _pieces(geometry: shapely.Geometry, windows: Sequence[Window]) -> Iterator[shapely.Geometry]:
    """The points and polygons of a geometry, cut to the windows."""
    if isinstance(geometry, shapely.geometry.base.BaseMultipartGeometry):
        for part in shapely.get_parts(geometry):
            yield from _pieces(part, windows)
        return
    if not isinstance(geometry, shapely.Point | shapely.Polygon) or geometry.is_empty:
        return
    bounds = shapely.bounds(geometry)[None]
    for window in windows:
        if _within(bounds, window.wide)[0]:
            yield _shifted(geometry, window.shift)
        elif _overlap(bounds, window.wide)[0]:
            part = clip_polygon(geometry, window.wide)
            if not part.is_empty:
                yield from shapely.get_parts(_shifted(part, window.shift))


def _joined(parts: list[shapely.Geometry]) -> shapely.Geometry | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    if all(isinstance(part, shapely.Polygon) for part in parts):
        return shapely.MultiPolygon(parts)
    if all(isinstance(part, shapely.Point) for part in parts):
        return shapely.MultiPoint(parts)
    return shapely.GeometryCollection(parts)


def _shifted(geometry: shapely.Geometry | Geometries, shift: float) -> shapely.Geometry | Geometries:
    return shapely.transform(geometry, lambda xy: xy + (shift, 0.0)) if shift else geometry  # noqa: RUF005


def _overlap(bounds: Float, box: Bounds) -> Mask:
    """Which of (n, 4) bounds touch a box; none that is empty does."""
    west, south, east, north = box
    return np.asarray(
        (bounds[:, 0] <= east) & (bounds[:, 2] >= west) & (bounds[:, 1] <= north) & (bounds[:, 3] >= south)
    )


def _within(bounds: Float, box: Bounds) -> Mask:
    west, south, east, north = box
    return np.asarray(
        (bounds[:, 0] >= west) & (bounds[:, 2] <= east) & (bounds[:, 1] >= south) & (bounds[:, 3] <= north)
    )
