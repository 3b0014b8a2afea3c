"""The truth that regions are held against: GDAL's polygons of the whole raster, and SciPy's labels of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray
from scipy import ndimage

from rssegment.vector import Regions

# ---------------------------------------------------------------------------- polygons, point by point


def without_collinear(ring: NDArray) -> NDArray:
    """The closed ring (N, 2) without points where it goes straight on, the first point included."""
    points = ring[:-1]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    kept = points[turns]
    return np.concatenate([kept, kept[:1]])


def _canonical(ring: NDArray) -> tuple:
    """One form for all ways to write the same ring: least of all rotations in both directions."""
    points = [tuple(map(float, point)) for point in without_collinear(np.asarray(ring, float))[:-1]]
    least = min(points)
    forms = []
    for way in (points, points[::-1]):
        forms += [tuple(way[k:] + way[:k]) for k, point in enumerate(way) if point == least]
    return min(forms)


def polygon_key(exterior: NDArray, holes: list[NDArray]) -> tuple:
    return _canonical(exterior), tuple(sorted(_canonical(hole) for hole in holes))


def gdal_polygons(labels: NDArray, connectivity: int) -> list[tuple]:
    """Sorted ``(class, polygon)`` of ``rasterio.features.shapes``."""
    shapes = rasterio.features.shapes(labels, mask=labels != 0, connectivity=connectivity)
    return sorted(
        (int(value), *polygon_key(geometry["coordinates"][0], geometry["coordinates"][1:]))
        for geometry, value in shapes
    )


def our_polygons(regions: Regions) -> list[tuple]:
    """Sorted ``(class, polygon)`` of ``regions`` in pixel coordinates (col, row)."""
    rows = []
    for code, geometry in zip(regions.code, regions.to_shapely(), strict=True):
        for part in shapely.get_parts(geometry):
            exterior = shapely.get_coordinates(part.exterior)
            rows.append(
                (int(code), *polygon_key(exterior, [shapely.get_coordinates(r) for r in part.interiors]))
            )
    return sorted(rows)


def gdal_valid(labels: NDArray, connectivity: int) -> list[tuple[int, bytes]]:
    """Sorted ``(class, WKB)`` of GDAL's polygons made valid (OGC), without collinear points."""
    shapes = rasterio.features.shapes(labels, mask=labels != 0, connectivity=connectivity)
    return _wkb((int(value), shapely.geometry.shape(geometry)) for geometry, value in shapes)


def our_valid(regions: Regions) -> list[tuple[int, bytes]]:
    """Sorted ``(class, WKB)`` of ``regions``, without collinear points."""
    return _wkb(zip(map(int, regions.code), regions.to_shapely(), strict=True))


def _wkb(rows) -> list[tuple[int, bytes]]:
    return sorted(
        (code, shapely.normalize(shapely.simplify(shapely.make_valid(geometry), 0)).wkb)
        for code, geometry in rows
    )


# ---------------------------------------------------------------------------- polygons, as sums of hashes


def gdal_hashes(labels: NDArray, connectivity: int) -> NDArray[np.uint64]:
    """Sorted hashes of GDAL's polygons: equal multisets of polygons, and only they, have equal ones."""
    codes: list[int] = []
    rings_of: list[int] = []
    sizes: list[int] = []
    parts: list[NDArray[np.int64]] = []
    pending: list = []
    for geometry, value in rasterio.features.shapes(labels, mask=labels != 0, connectivity=connectivity):
        rings = geometry["coordinates"]
        codes.append(int(value))
        rings_of.append(len(rings))
        for ring in rings:
            sizes.append(len(ring))
            pending.append(ring)
        if len(pending) > 50_000:
            parts.append(_flat(pending))
            pending = []
    parts.append(_flat(pending))
    return np.sort(
        _hashes(
            np.array(codes, np.uint64),
            np.concatenate([[0], np.cumsum(rings_of, dtype=np.int64)]),
            np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
            np.concatenate(parts),
        )
    )


def our_hashes(regions: Regions) -> NDArray[np.uint64]:
    """Sorted hashes of the polygons of ``regions``, which are not simplified."""
    codes = np.repeat(regions.code, np.diff(regions.part_offsets)).astype(np.uint64)
    xy = regions.corners[:, ::-1].astype(np.int64)
    return np.sort(_hashes(codes, regions.ring_offsets, regions.corner_offsets, xy))


def _flat(rings: list) -> NDArray[np.int64]:
    points = chain.from_iterable(chain.from_iterable(rings))
    return np.fromiter(points, np.float64).astype(np.int64).reshape(-1, 2)


def _mixed(values: NDArray) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _hashes(codes: NDArray, ring_offsets: NDArray, offsets: NDArray, xy: NDArray) -> NDArray[np.uint64]:
    """(P,) of polygons with closed rings: sums over the edges between corners where a ring turns, in any direction."""
    if not codes.size:
        return codes
    starts, ends = offsets[:-1], offsets[1:] - 1  # the last point repeats the first
    after, before = np.arange(1, len(xy) + 1), np.arange(-1, len(xy) - 1)
    after[ends], before[starts] = starts + 1, ends - 1
    a, b = xy - xy[before], xy[after] - xy
    turns = a[:, 0] * b[:, 1] != a[:, 1] * b[:, 0]
    turns[ends] = False
    place = _mixed(xy[:, 0] * 2**32 + xy[:, 1])[turns]
    per_ring = np.add.reduceat(turns, starts, dtype=np.int64)
    first = np.cumsum(per_ring) - per_ring
    next_turn = np.arange(1, place.size + 1)
    next_turn[first + per_ring - 1] = first
    edges = _mixed(place + place[next_turn])  # a sum: no direction
    rings = _mixed(np.add.reduceat(edges, first))
    exterior = np.zeros(rings.size, np.bool_)
    exterior[ring_offsets[:-1]] = True
    rings[exterior] = _mixed(rings[exterior])
    return _mixed(np.add.reduceat(rings, ring_offsets[:-1]) + _mixed(codes))


# ---------------------------------------------------------------------------- statistics, pixel by pixel


@dataclass(frozen=True, eq=False)
class Expected:
    """Columns as in :class:`Regions`; ``of_pixel`` (H, W): the id of each pixel's region from 1, 0 for no data."""

    of_pixel: NDArray[np.int64]
    code: NDArray[np.uint16]
    sums: NDArray[np.int64]
    least: NDArray[np.uint8]
    touches: NDArray[np.uint8]
    first: NDArray[np.int64]


def expected(
    labels: NDArray,
    connectivity: int = 4,
    confidence: NDArray | None = None,
    margin: NDArray | None = None,
) -> Expected:
    """What the regions of ``labels`` (H, W) must be, from SciPy's connected components of each class."""
    found = np.zeros(labels.shape, np.int64)
    ways = np.ones((3, 3)) if connectivity == 8 else None
    for code in np.unique(labels[labels != 0]):
        parts, _ = ndimage.label(labels == code, ways)
        found[parts > 0] = parts[parts > 0] + found.max()
    _, at, member = np.unique(found[found > 0], return_index=True, return_inverse=True)
    order = np.empty(at.size, np.int64)
    order[np.argsort(at)] = np.arange(at.size)
    of_pixel = np.zeros(labels.shape, np.int64)
    of_pixel[found > 0] = order[member] + 1
    n = at.size
    group = of_pixel[of_pixel > 0] - 1
    sums, least = np.zeros((n, 5), np.int64), np.full(n, 255, np.uint8)
    sums[:, 0] = np.bincount(group, minlength=n)
    for column, values in ((1, confidence), (3, margin)):
        if values is not None:
            each = values[of_pixel > 0].astype(np.int64)
            known = each != 255
            sums[:, column] = np.bincount(group[known], each[known], n)
            sums[:, column + 1] = np.bincount(group[known], minlength=n)
    if confidence is not None:
        np.minimum.at(least, group, confidence[of_pixel > 0])
    first = np.argwhere(of_pixel > 0)[np.sort(at)] if n else np.empty((0, 2), np.int64)
    return Expected(of_pixel, labels[tuple(first.T)], sums, least, _touches(of_pixel, n), first)


def _touches(of_pixel: NDArray[np.int64], n: int) -> NDArray[np.uint8]:
    touches = np.zeros(n + 1, np.uint8)
    ring = np.pad(of_pixel, 1, constant_values=-1)
    inside = ring[1:-1, 1:-1]
    for beside in (ring[:-2, 1:-1], ring[2:, 1:-1], ring[1:-1, :-2], ring[1:-1, 2:]):
        touches[inside[beside == 0]] |= 1
        touches[inside[beside == -1]] |= 2
    return touches[1:]


def check_table(regions: Regions, known: Expected) -> None:
    """``regions`` have exactly the statistics ``known``, in that order; ids may count from any number."""
    for name in ("code", "sums", "least", "touches", "first"):
        found = getattr(regions, name)
        assert np.array_equal(found, getattr(known, name)), name
    assert np.array_equal(regions.id - (regions.id[0] if len(regions) else 0), np.arange(len(regions)))


def same(a: Regions, b: Regions) -> bool:
    """Whether two tables are equal to the last bit."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        and np.asarray(getattr(a, name)).dtype == np.asarray(getattr(b, name)).dtype
        for name in Regions.__dataclass_fields__
    )
