"""The truth that regions are held against: GDAL's polygons of the whole raster."""

from __future__ import annotations

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

from rssegment.vector import Regions


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


def same(a: Regions, b: Regions) -> bool:
    """Whether two tables are equal to the last bit."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        and np.asarray(getattr(a, name)).dtype == np.asarray(getattr(b, name)).dtype
        for name in Regions.__dataclass_fields__
    )
