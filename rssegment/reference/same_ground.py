"""Whether scenes show the same ground, on whatever grids they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from shapely.affinity import scale, translate
from shapely.geometry.base import BaseGeometry

from rssegment.errors import InputError
from rssegment.grid import ground_resolution
from rssegment.reference.features import crs_of

__all__ = ["check_apart", "shared_ground"]

SLIVER = 4  # px: scenes that share a strip no wider than this are neighbours
LITTLE = 0.1  # of the smaller one, which may be small beside the other's pixels
EDGE = 32  # pieces of an edge, each of them straight in any CRS
DEGREE = 111_320.0  # m, of latitude


def check_apart(scenes: Sequence[tuple[str, GeoBox]]) -> None:
    """Refuses scenes, given by name and grid, of which two show the same ground.

    Raises
    ------
    InputError
        Names the two and tells what to do.
    """
    places = [(name, _Footprint(geobox)) for name, geobox in scenes]
    for (name, one), (other_name, other) in combinations(places, 2):
        if share := one.shared(other):
            raise InputError(
                f"{name} and {other_name} show the same ground: {max(share, 0.001):.1%} of the smaller one is in both. "
                "What is counted twice looks like more evidence than it is; give each piece of ground once (leave one "
                "out or crop it), and several references of one scene as one file"
            )


def shared_ground(one: GeoBox, other: GeoBox) -> float:
    """The share of the smaller grid's area that both have; 0 where it is but a strip along their edges."""
    return _Footprint(one).shared(_Footprint(other))


@dataclass(frozen=True)
class _Footprint:
    """The ground of a grid."""

    geobox: GeoBox

    @cached_property
    def crs(self) -> CRS:
        crs = crs_of(self.geobox)
        assert crs is not None, "a scene has a CRS"
        return crs

    @cached_property
    def pixel(self) -> float:
        """m, of the longer side."""
        return max(ground_resolution(self.geobox))

    @cached_property
    def corners(self) -> BaseGeometry:
        """In its own CRS."""
        rows, cols = self.geobox.shape
        ring = ((0, 0), (cols, 0), (cols, rows), (0, rows))
        return shapely.Polygon([self.geobox.affine * corner for corner in ring])

    @cached_property
    def lonlat(self) -> BaseGeometry:
        """In degrees, without a jump at the antimeridian: longitudes may go beyond 180; round a pole, up to it."""
        edge = shapely.segmentize(self.corners, self.corners.length / (4 * EDGE))
        to_lonlat = Transformer.from_crs(self.crs, CRS.from_epsg(4326), always_xy=True)
        lon, lat = to_lonlat.transform(*shapely.get_coordinates(edge).T)
        seen = np.isfinite(lon) & np.isfinite(lat)
        lon, lat = np.unwrap(lon[seen], period=360), lat[seen]
        if len(lon) < 4:
            return shapely.Polygon()
        if abs(lon[-1] - lon[0]) > 180:  # once round a pole
            pole = math.copysign(90.0, float(lat.mean()))
            lon, lat = np.append(lon, (lon[-1], lon[0])), np.append(lat, (pole, pole))
        return shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat])))

    def shared(self, other: _Footprint) -> float:
        there = _turned(other.lonlat, self.lonlat)
        if not self.lonlat.intersects(there):
            return 0.0
        margin = SLIVER / 2 * max(self.pixel, other.pixel)  # m
        if self.crs.is_projected and self.crs.equals(other.crs, ignore_axis_order=True):
            unit = self.pixel / math.sqrt(abs(self.geobox.affine.determinant))  # m to a unit of this CRS
            return _share(self.corners, other.corners, margin / unit)
        shrink = {"xfact": math.cos(math.radians(self.lonlat.centroid.y)), "origin": (0, 0)}
        return _share(scale(self.lonlat, **shrink), scale(there, **shrink), margin / DEGREE)


def _turned(shape: BaseGeometry, to: BaseGeometry) -> BaseGeometry:
    """``shape``, in degrees, by whole turns of the Earth nearest to ``to``; where it meets it at several, all of it."""
    turned = [translate(shape, 360 * turns) for turns in (-2, -1, 0, 1, 2)]
    return shapely.union_all([each for each in turned if each.intersects(to)])


def _share(one: BaseGeometry, other: BaseGeometry, margin: float) -> float:
    """The common part, of the smaller area; 0 if nothing of it is ``margin`` away from its edge and it is little."""
    common = one.intersection(other)
    if not (smaller := min(one.area, other.area)):
        return 0.0
    share = min(1.0, float(common.area / smaller))
    return 0.0 if common.buffer(-margin).is_empty and share < LITTLE else share
