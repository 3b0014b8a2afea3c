"""How large a pixel grid is on the ground: areas and lengths on the WGS 84 ellipsoid, without a projection per corner.

The grid's place in space, x(row, col) in metres from the Earth's centre, is smooth everywhere, over the antimeridian
and the poles too, and unlike longitude and latitude it never jumps. On a tile of a few hundred kilometres it is a
polynomial, to about a micrometre; that is checked for each tile. Its derivatives give the ground per pixel along
rows, along columns, and per area. The area before an edge is integrated as a polynomial too, so regions that share
an edge share its term, and a partition adds up to the whole.

What the polynomials can't follow (the rim of a full-disc image, datum shifts by a grid) is measured edge by edge
by :mod:`rssegment.geodesy`.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from affine import Affine
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS

from rssegment.errors import InputError
from rssegment.geodesy import geocentric, is_on_earth, ring_areas, ring_lengths, to_lonlat, transformer
from rssegment.vector._ground_kernels import ACROSS, AREA, BOTH, DOWN, NODES, pixel_sizes, region_sizes
from rssegment.vector.regions import Regions

__all__ = ["ground_size", "pixel_area"]

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]

TILE_M = 256_000.0
_TILE_PX = 65_536  # no more: the rounding of a tile's whole area must not show in a pixel's
_MAX_TILES = 40_000  # the whole Earth has 12,000; more is a grid that isn't on it
_TOLERANCE = (
    4e-12  # of a tile's side: how far the polynomial may be from the place at points between its nodes
)
_PIECES = 16  # of a tile's side: what an edge measured for itself is cut into
_MOST_PIECES = (
    4096  # more than twice round the Earth: a grid beyond that is refused later, not before memory ends
)
_METRES_PER_DEGREE = 111_195.0

_AT = chebyshev.chebpts1(NODES)
_TO_COEFFICIENTS = np.linalg.inv(np.vander(_AT, increasing=True))
_BETWEEN = np.array([-1.0, -0.61, -0.2, 0.31, 0.72, 1.0])
_SLOPE = np.vander(_AT, increasing=True) @ np.diag(np.arange(1.0, NODES), 1) @ _TO_COEFFICIENTS
_CHECK = np.vander(_BETWEEN, NODES, increasing=True) @ _TO_COEFFICIENTS


def ground_size(regions: Regions, affine: Affine, crs: str) -> tuple[Float, Float]:
    """(R,) area in m² and (R,) perimeter in m, on the WGS 84 ellipsoid, of the polygons as they are in ``regions``.

    Edges are followed as the CRS draws them. Holes are taken off the area; the perimeter includes theirs.
    Laws: areas of regions that fill the scene add up to the scene's; an edge has one length for both of its neighbours.

    Raises
    ------
    InputError
        A corner is outside what ``crs`` can express, or ``crs`` is no map of the Earth.
    """
    areas, lengths = np.zeros(len(regions)), np.zeros(len(regions))
    if not len(regions):
        return areas, lengths
    ground = _ground(tuple(affine)[:6], crs)
    region_rings = regions.ring_offsets[regions.part_offsets]
    first = regions.corner_offsets[region_rings[:-1]]
    low = np.minimum.reduceat(regions.corners, first) / regions.scale
    high = np.maximum.reduceat(regions.corners, first) / regions.scale
    tiles = ground.tiles(low.min(axis=0), high.max(axis=0))
    lost = tiles.lost(ground, low, high)
    if not lost.all():
        corners, grid = np.ascontiguousarray(regions.corners), (*ground.rows, ground.side)
        region_sizes(
            corners, regions.corner_offsets, region_rings, float(regions.scale), *grid,
            tiles.first, tiles.values, tiles.middles, areas, lengths,
        )  # fmt: skip
    if lost.any():
        areas[lost], lengths[lost] = _by_edges(regions, lost, affine, crs)
    return areas, lengths


def pixel_area(affine: Affine, crs: str, rows: ArrayLike, cols: ArrayLike) -> Float:
    """Area in m² on the WGS 84 ellipsoid of the pixels at (``rows``, ``cols``), which broadcast.

    Law: the pixels of a box add up to the area of its outline. What lies beyond a pole counts as nothing.

    Raises
    ------
    InputError
        A pixel is outside what ``crs`` can express, or ``crs`` is no map of the Earth.
    """
    row, col = np.broadcast_arrays(np.asarray(rows, np.int64), np.asarray(cols, np.int64))
    shape, row, col = row.shape, np.ascontiguousarray(row.ravel()), np.ascontiguousarray(col.ravel())
    areas = np.zeros(row.size)
    if not row.size:
        return areas.reshape(shape)
    ground = _ground(tuple(affine)[:6], crs)
    low = np.column_stack([row, col]).astype(np.float64)
    tiles = ground.tiles(low.min(axis=0), low.max(axis=0) + 1)
    lost = tiles.lost(ground, low, low + 1)
    if not lost.all():
        pixel_sizes(row, col, *ground.rows, ground.side, tiles.first, tiles.values, tiles.middles, areas)
    if lost.any():
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
        points = (low[lost][:, None] + corners).reshape(-1, 2)
        areas[lost] = _measured(points, np.arange(0, len(points) + 1, 5), affine, crs)[0]
    return areas.reshape(shape)


@dataclass(frozen=True, eq=False)
class _Tiles:
    """Polynomials of tile rows from ``first`` on, and of all tile columns from 0 on.

    ``values`` (I, J, 4, NODES + 1, NODES) per power of u (col) and v (row): area before the column, in m² per row;
    ground per column and per row, in m; their inner product, in m². ``middles`` (I,): row of v = 0. ``good`` (I, J):
    which follow the ground.
    """

    first: int
    values: Float
    middles: Float
    good: NDArray[np.bool_]

    def lost(self, ground: _Ground, low: Float, high: Float) -> NDArray[np.bool_]:
        """(N,) which boxes from ``low`` to ``high`` (N, 2) reach a tile that doesn't follow the ground."""
        if self.good.all() and self.good.size:
            return np.zeros(len(low), np.bool_)
        if not self.good.size:
            return np.ones(len(low), np.bool_)
        counts = np.zeros((self.good.shape[0] + 1, self.good.shape[1] + 1), np.int64)
        counts[1:, 1:] = (~self.good).cumsum(0).cumsum(1)
        (i, j), (m, n) = ground.index(low).T, ground.index(high).T + 1
        i, m = i - self.first, m - self.first
        lost: NDArray[np.bool_] = counts[m, n] - counts[i, n] - counts[m, j] + counts[i, j] > 0
        return lost


_NO_TILES = _Tiles(0, np.zeros((0, 0, 4, NODES + 1, NODES)), np.zeros(0), np.zeros((0, 0), np.bool_))


@dataclass(eq=False)
class _Ground:
    """One grid's tiles, made when first asked for.

    ``side`` of a tile in px; ``rows``: from pole to pole, of a grid in degrees.
    """

    affine: Affine
    crs: str
    side: float
    rows: tuple[float, float]
    made: _Tiles = _NO_TILES
    lock: threading.Lock = field(default_factory=threading.Lock)

    def index(self, places: Float) -> Int64:
        """(N, 2) tiles of ``places`` (N, 2) (row, col), as the kernels number them."""
        row = np.clip(places[:, 0], *self.rows)
        within = np.column_stack([row, places[:, 1]])
        tiles: Int64 = np.maximum(0, np.ceil(within / self.side) - 1).astype(np.int64)
        return tiles

    def tiles(self, low: Float, high: Float) -> _Tiles:
        """Tiles that cover at least the box from ``low`` to ``high`` (row, col)."""
        (i, _), (m, n) = self.index(np.array([low, high])).tolist()
        with self.lock:
            made = self.made
            if (
                made.good.size
                and i >= made.first
                and m < made.first + made.good.shape[0]
                and n < made.good.shape[1]
            ):
                return made
            if made.good.size:
                i, m = min(i, made.first), max(m, made.first + made.good.shape[0] - 1)
                n = max(n, made.good.shape[1] - 1)
            if (m - i + 1) * (n + 1) > _MAX_TILES:
                return _NO_TILES
            self.made = self._grown(i, m + 1, n + 1)
            return self.made

    def _grown(self, start: int, stop: int, width: int) -> _Tiles:
        old = self.made
        plain = np.zeros((stop - start, width, 4, NODES + 1, NODES))
        good = np.zeros(plain.shape[:2], np.bool_)
        new = np.ones(plain.shape[:2], np.bool_)
        if old.good.size:
            there = slice(old.first - start, old.first - start + old.good.shape[0]), slice(old.good.shape[1])
            plain[there], good[there], new[there] = old.values, old.good, False
        rows, cols = np.nonzero(new)
        for k in range(0, rows.size, 1024):
            part = rows[k : k + 1024], cols[k : k + 1024]
            plain[part], good[part] = self._fitted(part[0] + start, part[1])
        _chain(plain)
        return _Tiles(start, plain, self._middles(np.arange(start, stop)), good)

    def _middles(self, rows: Int64) -> Float:
        """Row at the middle of each tile row: moved to lie between the poles altogether."""
        half = self.side / 2
        low, high = self.rows
        middles: Float = np.asarray((rows + 0.5) * self.side, np.float64)
        if high - low > self.side:
            np.clip(middles, low + half, high - half, out=middles)
        return middles

    def _fitted(self, rows: Int64, cols: Int64) -> tuple[Float, NDArray[np.bool_]]:
        """Polynomials of the tiles at ``rows``, ``cols`` (N,), and whether each follows the ground."""
        middles = np.column_stack([self._middles(rows), (cols + 0.5) * self.side])
        x = self._places(middles, _AT)
        off = np.abs(_CHECK @ x @ _CHECK.T - self._places(middles, _BETWEEN)).max(axis=(1, 2, 3))
        across, down = x @ _SLOPE.T * (2 / self.side), _SLOPE @ x * (2 / self.side)
        ground = np.sqrt((across**2).sum(1)), np.sqrt((down**2).sum(1)), (across * down).sum(1)
        area = np.sqrt((np.cross(across, down, axis=1) ** 2).sum(1))
        with np.errstate(invalid="ignore"):
            good = off <= _TOLERANCE * self.side * np.maximum(ground[0], ground[1]).max(axis=(1, 2))
        values = np.zeros((rows.size, 4, NODES + 1, NODES))
        for which, scale in ((AREA, area), (ACROSS, ground[0]), (DOWN, ground[1]), (BOTH, ground[2])):
            by_row_then_col = _TO_COEFFICIENTS @ scale @ _TO_COEFFICIENTS.T
            values[:, which, :NODES] = by_row_then_col.transpose(0, 2, 1)
        powers = np.arange(1.0, NODES + 1)
        values[:, AREA, 1:] = values[:, AREA, :NODES] * (self.side / 2) / powers[:, None]
        values[:, AREA, 0] = 0
        values[~good] = 0
        return values, good

    def _places(self, middles: Float, at: Float) -> Float:
        """(N, 3, P, P) metres from the Earth's centre at the rows and columns ``at`` (P,), -1 to 1 over each tile."""
        row = middles[:, 0, None, None] + self.side / 2 * at[None, :, None] + 0 * at
        col = middles[:, 1, None, None] + self.side / 2 * at[None, None, :] + 0 * at[:, None]
        x = self.affine.a * col + self.affine.b * row + self.affine.c
        y = self.affine.d * col + self.affine.e * row + self.affine.f
        lon, lat = transformer(self.crs).transform(x, y)
        return geocentric(np.asarray(lon), np.asarray(lat))


def _chain(values: Float) -> None:
    """Makes each tile's area polynomial count from column 0 on, by adding what the tiles before it hold."""
    area = values[:, :, AREA]
    area[:, :, 0] = 0
    area[:, :, 0] = area[:, :, 1::2].sum(axis=2) - area[:, :, 2::2].sum(axis=2)  # none left of u = -1
    ends = np.cumsum(area.sum(axis=2), axis=1)
    area[:, 1:, 0] += ends[:, :-1]


@lru_cache(maxsize=8)
def _ground(affine: tuple[float, ...], crs: str) -> _Ground:
    if not is_on_earth(crs):
        raise InputError(
            f"{CRS.from_user_input(crs).name} is no map of the Earth: areas and lengths on the ground are unknown; "
            "give the raster the CRS that it is in, or measure in pixels"
        )
    place, system = Affine(*affine), CRS.from_user_input(crs)
    unit = system.axis_info[0].unit_conversion_factor
    metres = unit * math.degrees(1) * _METRES_PER_DEGREE if system.is_geographic else unit
    pixel = max(math.hypot(place.a, place.d), math.hypot(place.b, place.e)) * metres
    rows = (-math.inf, math.inf)
    if system.is_geographic and place.b == place.d == 0:
        pole = math.pi / 2 / unit
        low, high = sorted(((pole - place.f) / place.e, (-pole - place.f) / place.e))
        rows = low, high
    return _Ground(place, crs, min(TILE_M / pixel, _TILE_PX), rows)


def _by_edges(regions: Regions, chosen: NDArray[np.bool_], affine: Affine, crs: str) -> tuple[Float, Float]:
    """Areas and perimeters of the ``chosen`` regions, each edge measured for itself."""
    region_rings = regions.ring_offsets[regions.part_offsets]
    owner = np.repeat(np.arange(len(regions)), np.diff(region_rings))
    rings = chosen[owner]
    sizes = np.diff(regions.corner_offsets)
    points = regions.corners[np.repeat(rings, sizes)] / regions.scale
    offsets = np.concatenate([[0], np.cumsum(sizes[rings])])
    areas, lengths = _measured(points, offsets, affine, crs)
    first = np.searchsorted(owner[rings], np.flatnonzero(chosen))
    return np.add.reduceat(areas, first), np.add.reduceat(lengths, first)


def _split(points: Float, offsets: Int64, longest: float) -> tuple[Float, Int64]:
    """The same rings with edges of at most ``longest`` px: the area below an edge is taken from three of its points."""
    way = np.diff(points, axis=0, append=points[-1:])
    way[offsets[1:] - 1] = 0
    pieces = np.clip(np.ceil(np.abs(way).max(axis=1) / longest), 1, _MOST_PIECES).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(pieces)])
    share = (np.arange(starts[-1]) - np.repeat(starts[:-1], pieces)) / np.repeat(pieces, pieces)
    return np.repeat(points, pieces, axis=0) + share[:, None] * np.repeat(way, pieces, axis=0), starts[
        offsets
    ]


def _measured(points: Float, offsets: Int64, affine: Affine, crs: str) -> tuple[Float, Float]:
    """(rings,) areas and lengths of rings ``offsets`` over ``points`` (N, 2) (row, col)."""
    points, offsets = _split(points, offsets, _ground(tuple(affine)[:6], crs).side / _PIECES)
    if affine.determinant > 0:  # rows run up or columns run left: rings are mirrored
        index = np.arange(len(points))
        owner = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
        points = points[offsets[owner] + offsets[owner + 1] - 1 - index]
    x = affine.a * points[:, 1] + affine.b * points[:, 0] + affine.c
    y = affine.d * points[:, 1] + affine.e * points[:, 0] + affine.f
    pixel = math.sqrt(abs(affine.determinant))
    rings = to_lonlat(np.column_stack([x, y]), offsets, crs, pixel)
    return ring_areas(rings, crs), ring_lengths(rings, crs)
