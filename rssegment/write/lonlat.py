"""Polygons of a scene as RFC 7946 wants them: WGS 84, right-handed, cut at the antimeridian, closed over the poles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.enums import TransformDirection

from rssegment.errors import InputError
from rssegment.geodesy import LonLatRings, to_lonlat, transformer
from rssegment.write.features import Rings

__all__ = ["Coordinates", "decimals_for", "lonlat_coordinates", "plain_coordinates"]

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]
PLAIN_DECIMALS = 3
_POLE = 89.999  # degrees, from where longitude means little
_FAR = 10_000.0  # CRS units; datum shifts, there and back, differ by less
_STICKS_OUT = 3  # px


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Rings in whole units of ``10**-decimals``: ``points`` (N, 2) (x, y); offsets of ``rings`` into points, of
    ``polygons`` into rings, of ``features`` into polygons. Exteriors run anticlockwise, holes clockwise."""

    points: Int64
    rings: Int64
    polygons: Int64
    features: Int64
    decimals: int


def decimals_for(crs: str, pixel: float) -> int:
    """Decimals of a degree that place a corner to a hundredth of a ``pixel`` (CRS units) or better; 7 to 9."""
    system = CRS.from_user_input(crs)
    factor = system.axis_info[0].unit_conversion_factor
    degrees = math.degrees(pixel * factor) if system.is_geographic else pixel * factor / 111_320
    return min(9, max(7, math.ceil(-math.log10(degrees / 100))))


def plain_coordinates(rings: Rings) -> Coordinates:
    """The rings' own coordinates to a thousandth."""
    points = np.rint(rings.xy * 10**PLAIN_DECIMALS).astype(np.int64)
    return Coordinates(points, rings.rings, rings.polygons, rings.features, PLAIN_DECIMALS)


def lonlat_coordinates(shape: Rings, crs: str, pixel: float) -> Coordinates:
    """Longitude and latitude of oriented rings in ``crs``, whose pixels have sides of ``pixel`` CRS units.

    Every vertex goes where it would go in any other polygon, so neighbours keep sharing their vertices.

    Raises
    ------
    InputError
        A point is outside what ``crs`` can express, or a polygon can't be cut at the antimeridian.
    """
    decimals = decimals_for(crs, pixel)
    unit = 10**decimals
    rings = to_lonlat(shape.xy, shape.rings, crs, pixel)
    part_offsets = shape.polygons
    owner = np.repeat(np.arange(len(shape)), np.diff(shape.features))
    points = np.empty((rings.lon.size, 2), np.int64)
    points[:, 0], points[:, 1] = np.rint(rings.lon * unit), np.rint(rings.lat * unit)
    across = _shift_into_range(points, rings, 180 * unit)
    _check_there(rings, across, crs, pixel)
    ring_owner = np.repeat(np.arange(owner.size), np.diff(part_offsets))
    cut = np.unique(ring_owner[across])
    if not cut.size:
        return Coordinates(points, rings.offsets, part_offsets, shape.features, decimals)
    whole = np.flatnonzero(~np.isin(np.arange(owner.size), cut))
    pieces, piece_owner = [], []
    for part in cut:
        span = range(part_offsets[part], part_offsets[part + 1])
        own = [points[rings.offsets[ring] : rings.offsets[ring + 1]] for ring in span]
        try:
            split = _split(own, rings.winding[span.start : span.stop], 180 * unit)
        except shapely.errors.GEOSException as error:
            raise _torn(rings.xy[rings.offsets[span.start]], crs) from error
        pieces += split
        piece_owner += [owner[part]] * len(split)
    kept = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, points.astype(np.float64), (rings.offsets, part_offsets)
    )[whole]
    everything = np.concatenate([kept, np.array(pieces, object)])
    owners = np.concatenate([owner[whole], np.array(piece_owner, np.int64)])
    order = np.argsort(owners, kind="stable")
    return _gathered(everything[order], owners[order], len(shape), decimals)


def _check_there(rings: LonLatRings, across: NDArray[np.bool_], crs: str, pixel: float) -> None:
    """Refuses places that are not where their longitude and latitude are: there, the map lies over itself.

    Looks at the first point of each ring, and at all of those that go ``across`` the antimeridian (R,), as all do that
    leave the map. Pixels on the map's edge may stick out of it, and maps that go on round the Earth, cylinders, may be
    left.
    """
    if CRS.from_user_input(crs).is_geographic:
        return
    looked = np.repeat(across, np.diff(rings.offsets))
    looked[rings.offsets[:-1]] = True
    xy = rings.xy[looked & (np.abs(rings.lat) < _POLE)]
    off = _displaced(xy, crs)
    length = np.hypot(*off.T)
    lost = ~(length <= max(pixel, _FAR))
    if lost.any():
        xy, inwards = xy[lost], off[lost] / length[lost, None]
        length = np.hypot(*_displaced(xy + _STICKS_OUT * pixel * inwards, crs).T)
        lost = ~(length <= max(pixel, _FAR))
    if lost.any():
        raise _torn(xy[np.argmax(lost)], crs)


def _displaced(xy: Float, crs: str) -> Float:
    """(N, 2) way from each place to where its longitude and latitude are; whole turns round a cylinder are none."""
    there = transformer(crs)
    lon, lat = there.transform(xy[:, 0], xy[:, 1])
    x, y = there.transform(lon, lat, direction=TransformDirection.INVERSE)
    ends, _ = there.transform([-180.0, 180.0], [0.0, 0.0], direction=TransformDirection.INVERSE)
    turn = abs(ends[1] - ends[0])
    off = np.column_stack([x, y]) - xy
    if np.isfinite(turn) and turn > 0:
        with np.errstate(invalid="ignore"):  # off the map altogether
            near = np.abs(off[:, 0] - turn * np.round(off[:, 0] / turn)) <= _FAR
        off[near, 0] = 0
    return off


def _torn(place: Float, crs: str) -> InputError:
    name = CRS.from_user_input(crs).name
    whose = "its CRS" if name == "unknown" else name
    return InputError(
        f"the region at x {place[0]:g}, y {place[1]:g} lies outside the map that {whose} makes of the "
        "Earth, or goes over its edge, so it has no longitude and latitude; make such pixels no data, cut the "
        "raster as by gdalwarp -te, or write a format with coordinates of its own CRS, as gpkg or parquet"
    )


def _gathered(parts: NDArray[np.object_], owner: Int64, n: int, decimals: int) -> Coordinates:
    _, xy, (rings, polygons) = shapely.to_ragged_array(parts, include_z=False)
    points = np.rint(xy).astype(np.int64)
    features = np.searchsorted(owner, np.arange(n + 1))
    return Coordinates(points, rings.astype(np.int64), polygons.astype(np.int64), features, decimals)


def _shift_into_range(points: Int64, rings: LonLatRings, half: int) -> NDArray[np.bool_]:
    """Shifts each ring by whole turns into [-half, half]; returns (R,) which of them can't be."""
    starts = rings.offsets[:-1]
    low, high = np.minimum.reduceat(points[:, 0], starts), np.maximum.reduceat(points[:, 0], starts)
    turns = (low + half) // (2 * half)
    points[:, 0] -= np.repeat(2 * half * turns, np.diff(rings.offsets))
    stuck: NDArray[np.bool_] = (high - 2 * half * turns > half) | (rings.winding != 0)
    return stuck


def _split(rings: list[Int64], winding: Int64, half: int) -> list[shapely.Polygon]:
    """One polygon that crosses the antimeridian or encloses a pole, in pieces within [-half, half].

    Set operations are on whole units, so pieces stay valid as they are written.
    """
    box = shapely.box(-half, -half // 2, half, half // 2)
    area = shapely.Polygon()
    for k, (ring, turns) in enumerate(zip(rings, winding, strict=True)):
        covered = _unrolled(_with_crossings(ring, half), int(turns), half, hole=k > 0)
        inside = shapely.union_all(_areal(shapely.intersection(covered, box, grid_size=1.0)), grid_size=1.0)
        area = inside if k == 0 else shapely.difference(area, inside, grid_size=1.0)
    return sorted(shapely.orient_polygons(_areal(area)), key=lambda piece: tuple(piece.bounds))


def _areal(geometries: shapely.Geometry | NDArray[np.object_]) -> NDArray[np.object_]:
    """The polygons alone, without points and lines where only an edge touches the cut."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    polygons: NDArray[np.object_] = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return polygons


def _unrolled(ring: Int64, turns: int, half: int, *, hole: bool) -> NDArray[np.object_]:
    """Copies of what ``ring`` encloses, which together cover one whole turn, [-half, half]."""
    turn = 2 * half
    if turns == 0:
        low, high = (int(ring[:, 0].min()) + half) // turn, (int(ring[:, 0].max()) + half - 1) // turn
        copies = [shapely.Polygon(ring - np.array([k * turn, 0])) for k in range(low, high + 1)]
        return np.array(copies, object)
    pole = (half // 2) * (-1 if (turns > 0) == hole else 1)  # a region lies on the left of its rings
    step = turn if turns > 0 else -turn
    nearest = int(
        np.argmin(np.abs(ring[:-1, 1] - pole))
    )  # from here, the way to the pole crosses no boundary
    once = np.concatenate([ring[nearest:-1], ring[:nearest] + np.array([step, 0])])
    path = np.concatenate([once + np.array([k * step, 0]) for k in range(-2, 3)])
    ends = np.array(
        [once[0] + np.array([3 * step, 0]), [once[0, 0] + 3 * step, pole], [once[0, 0] - 2 * step, pole]]
    )
    return np.array([shapely.Polygon(np.concatenate([path, ends]))], object)


def _with_crossings(ring: Int64, half: int) -> Int64:
    """The ring with a point wherever an edge crosses the antimeridian: the same for both of the edge's neighbours."""
    points: list[Int64] = []
    for a, b in pairwise(ring):
        points.append(a)
        p, q = (a, b) if (a[0], a[1]) <= (b[0], b[1]) else (b, a)
        first = int((p[0] - half) // (2 * half)) * 2 * half + 3 * half
        crossed = range(first, int(q[0]), 2 * half)
        for lon in crossed if p is a else reversed(crossed):
            lat = p[1] + np.rint((lon - p[0]) / (q[0] - p[0]) * (q[1] - p[1])).astype(np.int64)
            points.append(np.array([lon, lat]))
    return np.array([*points, ring[-1]])
