"""Rings of a projected grid on the ellipsoid: their curve in longitude and latitude, and the area they enclose.

An edge that is straight in the scene's CRS is a curve in longitude and latitude. It gets as many points as it needs,
a function of the edge alone, so both of its neighbours get the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError

from rssegment.errors import InputError

__all__ = [
    "LonLatRings",
    "geocentric",
    "is_on_earth",
    "ring_areas",
    "ring_lengths",
    "to_lonlat",
    "transformer",
]

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]

WGS84 = Geod(ellps="WGS84")
_POLE = 90 - 1e-7  # degrees; nearer than a centimetre, longitude means nothing
_MAX_SPLITS = 24
_LONGEST_CHORD = 500_000.0  # m; a chord over half the Earth says nothing of the arc
_BENT = 1e-6  # of its length: how much a chord may fall short; what is left after extrapolation is the square of it


@dataclass(frozen=True, eq=False)
class LonLatRings:
    """Closed rings ``offsets`` (R + 1,) over points ``xy`` (N, 2) in the CRS and ``lon``, ``lat`` (N,) in degrees.

    Longitude runs on without a jump along each ring, beyond 180 where need be; a ring begins in [-180, 180].
    ``winding`` (R,): how often the ring goes round the pole, eastward: 0 unless it encloses one.
    A ring through a pole has two points there, with the longitudes by which it comes and goes.
    """

    xy: Float
    lon: Float
    lat: Float
    offsets: Int64
    winding: Int64

    @property
    def owner(self) -> Int64:
        """(N,) which ring each point belongs to."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    @property
    def edges(self) -> NDArray[np.bool_]:
        """(N - 1,) whether points k and k + 1 are an edge (False between two rings)."""
        inside = np.ones(max(self.lon.size - 1, 0), np.bool_)
        inside[self.offsets[1:-1] - 1] = False
        return inside


@lru_cache(maxsize=8)
def _transformers(crs: str) -> tuple[CRS, Transformer, Transformer]:
    source, target = CRS.from_user_input(crs), CRS.from_epsg(4326)
    return (
        source,
        Transformer.from_crs(source, target, always_xy=True),
        Transformer.from_crs(target, source, always_xy=True),
    )


@lru_cache(maxsize=32)
def is_on_earth(crs: str) -> bool:
    """Whether ``crs`` places things on the Earth: that of a building site or of another planet does not."""
    try:
        source = _transformers(crs)[0]
    except ProjError:
        return False
    return bool(source.is_geographic or source.is_projected)


def transformer(crs: str) -> Transformer:
    """From ``crs`` (x, y) to longitude and latitude in WGS 84; made once, as that takes longer than its use."""
    return _transformers(crs)[1]


def geocentric(lon: Float, lat: Float) -> Float:
    """Metres from the centre of the WGS 84 ellipsoid, with x, y, z along a new second axis: (N, ...) to (N, 3, ...).

    Smooth over poles and antimeridian, where longitude is not.
    """
    east, north = np.radians(lon), np.radians(lat)
    normal = WGS84.a / np.sqrt(1 - WGS84.es * np.sin(north) ** 2)
    across = normal * np.cos(north)
    place: Float = np.stack(
        [across * np.cos(east), across * np.sin(east), normal * (1 - WGS84.es) * np.sin(north)], axis=1
    )
    return place


def to_lonlat(xy: Float, offsets: Int64, crs: str, pixel: float, tolerance: float = 0.02) -> LonLatRings:
    """WGS 84 longitude and latitude of closed rings, whose inside is on the left, or on the right for all holes.

    ``xy`` (N, 2): points of rings ``offsets`` (R + 1,) in ``crs`` (WKT or anything pyproj reads); ``pixel``: side of a
    pixel in CRS units. No edge of the result is further than ``tolerance`` px from the scene's edge.

    Raises
    ------
    InputError
        A point is outside what ``crs`` can express.
    """
    source, forward, backward = _transformers(crs)
    if (
        source.is_geographic and not source.is_derived
    ):  # edges are straight already; longitudes beyond 180 are meant
        unit = np.degrees(source.axis_info[0].unit_conversion_factor)
        xy = np.column_stack([xy[:, 0], np.clip(xy[:, 1], -90 / unit, 90 / unit)])  # pixels centred on a pole
        lon, lat = (np.asarray(values) for values in forward.transform(xy[:, 0], xy[:, 1]))
        _check_finite(xy, lon, lat, crs)
        degrees = xy[:, 0] * unit
        lon = lon + 360.0 * np.round((degrees - lon) / 360.0)
        return _finish(xy, lon, lat, offsets, np.diff(lon, prepend=lon[:1]))
    if not xy.size:
        return LonLatRings(xy, np.empty(0), np.empty(0), offsets, np.empty(0, np.int64))
    curve = _Curve(crs, forward, backward, pixel, tolerance)
    xy, offsets = curve.through_poles(xy, offsets)
    xy, lon, lat, offsets = curve.densify(xy, offsets)
    xy, lon, lat, offsets, steps = _open_poles(xy, lon, lat, offsets)
    return _finish(xy, lon, lat, offsets, steps)


def _check_finite(xy: Float, lon: Float, lat: Float, crs: str) -> None:
    lost = ~(np.isfinite(lon) & np.isfinite(lat))
    if lost.any():
        x, y = xy[np.argmax(lost)]
        raise InputError(
            f"x {x:g}, y {y:g} has no longitude and latitude in {CRS.from_user_input(crs).name}; "
            "the raster's CRS or transform is wrong, or it reaches beyond where that CRS is defined"
        )


def _finish(xy: Float, lon: Float, lat: Float, offsets: Int64, steps: Float) -> LonLatRings:
    """Adds up the ``steps`` in longitude (N,) to each point from the one before, ring by ring."""
    sizes = np.diff(offsets)
    first = lon[offsets[:-1]]
    first = np.where(np.abs(first) > 180, (first + 180) % 360 - 180, first)
    steps = steps.copy()
    steps[offsets[:-1]] = 0
    run = np.cumsum(steps)
    run = run - np.repeat(run[offsets[:-1]], sizes) + np.repeat(first, sizes)
    run = lon + 360.0 * np.round((run - lon) / 360.0)  # the exact longitude, not the sum
    winding = np.round((run[offsets[1:] - 1] - first) / 360.0).astype(np.int64)
    return LonLatRings(xy, run, lat, offsets, winding)


def _wrapped(degrees: Float) -> Float:
    """The same angle in [-180, 180]."""
    return degrees - 360.0 * np.round(degrees / 360.0)


@dataclass(frozen=True)
class _Curve:
    crs: str
    forward: Transformer
    backward: Transformer
    pixel: float
    tolerance: float

    def lonlat(self, xy: Float) -> tuple[Float, Float]:
        lon, lat = self.forward.transform(xy[:, 0], xy[:, 1])
        return np.asarray(lon), np.asarray(lat)

    def densify(self, xy: Float, offsets: Int64) -> tuple[Float, Float, Float, Int64]:
        """Halves edges until each is near enough to its chord in longitude and latitude."""
        lon, lat = self.lonlat(xy)
        _check_finite(xy, lon, lat, self.crs)
        edge = _edge_starts(offsets)
        edge = edge[self._suspect(xy, lon, lat, edge)]
        for _ in range(_MAX_SPLITS):
            edge = edge[self._bends(xy, lon, lat, edge)]
            if not edge.size:
                break
            middle = (xy[edge] + xy[edge + 1]) / 2
            mid_lon, mid_lat = self.lonlat(middle)
            offsets = offsets + np.searchsorted(edge, offsets - 1, side="right")
            xy = np.insert(xy, edge + 1, middle, axis=0)
            lon, lat = np.insert(lon, edge + 1, mid_lon), np.insert(lat, edge + 1, mid_lat)
            edge = edge + np.arange(edge.size)
            edge = np.sort(np.concatenate([edge, edge + 1]))
        return xy, lon, lat, offsets

    def _suspect(self, xy: Float, lon: Float, lat: Float, edge: Int64) -> NDArray[np.bool_]:
        """Edges that may bend at all: a chord's height is its length squared times the curvature over 8.

        The curvature of meridians and parallels on a map is about tan(latitude) / radius; a tenth of it is safe.
        """
        length = np.hypot(*(xy[edge + 1] - xy[edge]).T) / self.pixel
        slope = np.radians(np.minimum(np.maximum(np.abs(lat[edge]), np.abs(lat[edge + 1])), _POLE))
        across = _wrapped(lon[edge + 1] - lon[edge]) * np.cos(slope)
        metres = 111_000 * np.hypot(lat[edge + 1] - lat[edge], across)
        suspect: NDArray[np.bool_] = length * metres * (1 + np.tan(slope)) * 10 > self.tolerance * 8 * 6.4e6
        suspect |= length > 64
        return suspect

    def _bends(self, xy: Float, lon: Float, lat: Float, edge: Int64) -> NDArray[np.bool_]:
        """Whether the chord, brought back to the CRS, leaves the edge by more than the tolerance."""
        if not edge.size:
            return np.zeros(0, np.bool_)
        a, b = xy[edge], xy[edge + 1]
        swap = (a[:, 0] > b[:, 0]) | (
            (a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1])
        )  # one answer for both directions
        p, q = np.where(swap, edge + 1, edge), np.where(swap, edge, edge + 1)
        lon_p = np.where(np.abs(lat[p]) > _POLE, lon[q], lon[p])
        step = np.where(np.abs(lat[q]) > _POLE, 0.0, _wrapped(lon[q] - lon_p))
        off = np.zeros(edge.size)
        for t in (0.25, 0.5, 0.75):
            x, y = self.backward.transform(lon_p + t * step, lat[p] + t * (lat[q] - lat[p]))
            there = xy[p] + t * (xy[q] - xy[p])
            off = np.fmax(off, np.hypot(x - there[:, 0], y - there[:, 1]))
        short = np.hypot(*(b - a).T) < self.tolerance * self.pixel
        bent: NDArray[np.bool_] = (off > self.tolerance * self.pixel) & ~short & np.isfinite(off)
        return bent

    def through_poles(self, xy: Float, offsets: Int64) -> tuple[Float, Int64]:
        """Splits edges that run through a pole at the pole itself, where longitude jumps."""
        for lat in (-90.0, 90.0):
            pole = np.array(self.backward.transform(0.0, lat))
            x, y = xy.T
            if not (x.min() <= pole[0] <= x.max() and y.min() <= pole[1] <= y.max()):
                continue  # not here, or not in this CRS at all
            if abs(self.lonlat(pole[None])[1][0] - lat) > 1e-6:
                continue
            if np.hypot(*(np.array(self.backward.transform(90.0, lat)) - pole)) > self.pixel:
                continue  # the pole is a line in this CRS, not a point
            edge = _edge_starts(offsets)
            a, way = xy[edge], xy[edge + 1] - xy[edge]
            along = ((pole - a) * way).sum(axis=1) / np.maximum((way**2).sum(axis=1), 1e-300)
            off = np.hypot(*(a + along[:, None] * way - pole).T)
            near = 1e-6 * self.pixel
            length = np.hypot(*way.T)
            hit = edge[(off < near) & (along * length > near) & ((1 - along) * length > near)]
            xy = np.insert(xy, hit + 1, pole, axis=0)
            offsets = offsets + np.searchsorted(hit, offsets - 1, side="right")
        return xy, offsets


def _edge_starts(offsets: Int64) -> Int64:
    """Index of the first point of every edge."""
    starts = np.ones(int(offsets[-1]), np.bool_)
    starts[offsets[1:] - 1] = False
    return np.flatnonzero(starts)


def _open_poles(
    xy: Float, lon: Float, lat: Float, offsets: Int64
) -> tuple[Float, Float, Float, Int64, Float]:
    """Gives rings through a pole two points there; returns the points and the step in longitude to each."""
    steps = _wrapped(np.diff(lon, prepend=lon[:1]))
    at = np.flatnonzero(np.abs(lat) > _POLE)
    if not at.size:
        return xy, lon, lat, offsets, steps
    table = np.column_stack([xy, lon, lat, steps])
    sizes = np.diff(offsets)
    pieces, done = [], 0
    for ring in np.unique(np.searchsorted(offsets, at, side="right") - 1):
        opened = _open_ring(table[offsets[ring] : offsets[ring + 1], :4])
        pieces += [table[done : offsets[ring]], opened]
        sizes[ring], done = len(opened), int(offsets[ring + 1])
    table = np.concatenate([*pieces, table[done:]])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return table[:, :2].copy(), table[:, 2].copy(), table[:, 3].copy(), offsets, table[:, 4].copy()


def _open_ring(points: Float) -> Float:
    """One closed ring (n, 4) of x, y, lon, lat that touches a pole, with the steps in longitude as a fifth column.

    Along the pole the step keeps the inside on the left: westward at the north pole, eastward at the south pole.
    """
    ring = points[:-1]
    ring = np.roll(ring, -int(np.argmin(np.abs(ring[:, 3]) > _POLE)), axis=0)  # begin off the pole
    rows: list[Float] = []
    for k, point in enumerate(ring):
        if abs(point[3]) <= _POLE:
            step = _wrapped(point[2] - rows[-1][2]) if rows else 0.0
            rows.append(np.append(point, step))
            continue
        pole = np.copysign(90.0, point[3])
        come, go = ring[k - 1, 2], ring[(k + 1) % len(ring), 2]
        along = -((come - go) % 360) if pole > 0 else (go - come) % 360
        rows += [np.array([*point[:2], come, pole, 0.0]), np.array([*point[:2], go, pole, along])]
    last = np.append(ring[0], _wrapped(ring[0, 2] - rows[-1][2]))
    return np.array([*rows, last])


def ring_areas(rings: LonLatRings, crs: str) -> Float:
    """(R,) area in m² on the WGS 84 ellipsoid, negative for clockwise rings.

    The sum over edges of the integral of q dλ, q the authalic function (Snyder 1987, eq. 3-12), along the scene's edge:
    λ and q are taken as quadratic between its ends and its middle. Edges shared by two rings cancel, so a partition
    adds up to the whole.
    """
    start = np.flatnonzero(rings.edges)
    a, b = start, start + 1
    step = rings.lon[b] - rings.lon[a]
    lon, lat = _transformers(crs)[1].transform(*((rings.xy[a] + rings.xy[b]) / 2).T)
    half = step / 2 + _wrapped(np.asarray(lon) - (rings.lon[a] + step / 2))
    q = _authalic(rings.lat)
    at_pole = (np.abs(rings.lat[a]) > _POLE) & (np.abs(rings.lat[b]) > _POLE)
    middle = np.where(at_pole, q[a], _authalic(np.asarray(lat)))
    half = np.where(at_pole, step / 2, half)
    reference = np.where(
        rings.winding == 0,
        q[rings.offsets[:-1]],
        np.copysign(_authalic(np.array([90.0])), rings.lat[rings.offsets[:-1]]),
    )[rings.owner[a]]
    q0, qm, q1 = q[a] - reference, middle - reference, q[b] - reference
    terms = (q0 * (4 * half - step) + qm * 4 * step + q1 * (3 * step - 4 * half)) / 6
    return -0.5 * WGS84.a**2 * _sum_by_ring(np.radians(terms), start, rings)


def _authalic(lat: Float) -> Float:
    """q of Snyder (1987), eq. 3-12: the area between the equator and ``lat`` (degrees) is a² / 2 · q per radian."""
    e = np.sqrt(WGS84.es)
    sine = np.sin(np.radians(lat))
    result: Float = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
    return result


def ring_lengths(rings: LonLatRings, crs: str) -> Float:
    """(R,) length in m on the WGS 84 ellipsoid, along the edges as ``crs`` draws them.

    An edge is longer than the geodesic between its ends where it bends on the ground, as a parallel does.
    """
    start = np.flatnonzero(rings.edges)
    a, b = rings.xy[start], rings.xy[start + 1]
    swap = (a[:, 0] > b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1]))
    a, b = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)  # one answer for both directions
    lengths, todo, pieces = np.zeros(start.size), np.arange(start.size), 2
    for split in range(_MAX_SPLITS):
        chords = _chords(a[todo], b[todo], pieces, crs)
        fine, coarse = chords[0].sum(axis=1), chords[1].sum(axis=1)
        lengths[todo] = (4 * fine - coarse) / 3  # chords fall short by the square of their length
        long = chords[0].max(axis=1, initial=0) > _LONGEST_CHORD
        todo = todo[long | (np.abs(fine - coarse) > _BENT * fine)]
        if not todo.size or (split > 12 and not long.any()):  # a corner on the ground: halving gains nothing
            break
        pieces *= 2
    return _sum_by_ring(lengths, start, rings)


def _chords(a: Float, b: Float, pieces: int, crs: str) -> tuple[Float, Float]:
    """Lengths in m, through the Earth, of ``pieces`` equal pieces of the edges ``a`` to ``b``, and of half as many.

    ``a``, ``b`` (N, 2); results (N, ``pieces``) and (N, ``pieces / 2``).
    """
    t = np.linspace(0, 1, pieces + 1)
    xy = a[:, None] + t[:, None] * (b - a)[:, None]
    lon, lat = transformer(crs).transform(xy[..., 0], xy[..., 1])
    place = geocentric(np.asarray(lon), np.asarray(lat))
    fine, coarse = np.diff(place, axis=2), np.diff(place[..., ::2], axis=2)
    return np.sqrt((fine**2).sum(axis=1)), np.sqrt((coarse**2).sum(axis=1))


def _sum_by_ring(terms: Float, start: Int64, rings: LonLatRings) -> Float:
    if not terms.size:
        return np.zeros(rings.winding.size)
    filled = np.zeros(rings.lon.size)
    filled[start] = terms
    return np.add.reduceat(filled, rings.offsets[:-1])
