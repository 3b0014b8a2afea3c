"""Areas and lengths on the ground, held against geodesics between points set close together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod, Proj, Transformer

from rssegment.errors import InputError
from rssegment.vector import Regions, ground
from rssegment.vector.ground import ground_size, pixel_area
from tests.vector.tables import regions_of, traced

GEOD = Geod(ellps="WGS84")
ROTATED_POLE = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +ellps=WGS84 +type=crs"
FULL_DISC = "+proj=geos +lon_0=0 +h=35785831 +ellps=WGS84 +sweep=y +type=crs"
# 120 x 160 px each: cells small and large, over the antimeridian, round and beside poles, in degrees, grads and feet.
GRIDS = {
    "utm": ("EPSG:32633", Affine(10, 0, 700_000, 0, -10, 5_500_000)),
    "utm across 180": ("EPSG:32601", Affine(3000, 0, 70_000, 0, -3000, 6_600_000)),
    "lambert": ("EPSG:2154", Affine(0.2, 0, 700_000, 0, -0.2, 6_300_000)),
    "feet": ("EPSG:2263", Affine(3, 0, 980_000, 0, -3, 200_000)),
    "mercator": ("EPSG:3857", Affine(100, 0, 0, 0, -100, 8_399_738)),
    "mercator, wide": ("EPSG:3857", Affine(100_000, 0, 15_000_000, 0, -100_000, 6_000_000)),
    "degrees across 180": ("EPSG:4326", Affine(0.01, 0, 179.5, 0, -0.01, 60)),
    "degrees, large cells": ("EPSG:4326", Affine(0.5, 0, -30, 0, -0.5, 70)),
    "degrees to the pole": ("EPSG:4258", Affine(0.5, 0, -30, 0, -0.5, 90)),
    "degrees, turned": ("EPSG:4269", Affine(0.01, 0.004, -100, 0.003, -0.01, 45)),
    "grads from Paris": ("EPSG:4807", Affine(0.002, 0, 1, 0, -0.002, 49)),
    "rotated pole": (ROTATED_POLE, Affine(0.05, 0, -8, 0, -0.05, 5)),
    "north pole": ("EPSG:3413", Affine(1000, 0, -80_500, 0, -1000, 60_500)),
    "at the south pole": ("EPSG:3031", Affine(1000, 0, -80_000, 0, -1000, 60_000)),
    "south pole, wide": ("EPSG:3031", Affine(30_000, 0, -2_400_500, 0, -30_000, 1_800_500)),
    "equal area": ("EPSG:3035", Affine(20_000, 0, 2_500_000, 0, -20_000, 5_400_000)),
    "equal area, turned": ("EPSG:3035", Affine(80, 20, 4_000_000, 30, -90, 3_000_000)),
    "full disc": (FULL_DISC, Affine(25_000, 0, -2_000_000, 0, -25_000, 4_600_000)),
}
SHAPE = (120, 160)


def geodesic(ring: NDArray, affine: Affine, crs: str, points: int) -> NDArray:
    """Area and perimeter of one ring of corners (row, col), with geodesics between ``points`` on each edge."""
    t = np.arange(points) / points
    row, col = ((1 - t) * ring[:-1, k, None] + t * ring[1:, k, None] for k in (0, 1))
    x, y = affine * (col.ravel(), row.ravel())
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    return np.abs(GEOD.polygon_area_perimeter(lon, lat))


def truth(ring: NDArray, affine: Affine, crs: str) -> NDArray:
    """What area and perimeter go to as the points move closer: their errors go with the square of the distance.

    Not closer than a kilometre: each point adds some square centimetres to the area by its rounding.
    """
    points = int(np.clip(geodesic(ring, affine, crs, 8)[1] / 1000, 1, 400))
    return (4 * geodesic(ring, affine, crs, 2 * points) - geodesic(ring, affine, crs, points)) / 3


def star(seed: int, corners: int, scale: int) -> NDArray:
    """A closed ring round a place of the grid, of up to its size, anticlockwise seen with row 0 on top."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(0.1, 0.9, 2) * SHAPE
    reach = np.minimum(middle, SHAPE - middle)
    angle = (np.arange(corners) + rng.uniform(0, 0.5)) * 2 * np.pi / corners
    far = rng.uniform(0.3, 1, corners)
    ring = middle - np.column_stack([reach[0] * np.sin(angle), -reach[1] * np.cos(angle)]) * far[:, None]
    ring = np.rint(ring * scale)
    return np.concatenate([ring, ring[:1]])


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from(sorted(GRIDS)), st.integers(3, 9), st.sampled_from([1, 4]))
def test_any_polygon(seed: int, grid: str, corners: int, scale: int) -> None:
    crs, affine = GRIDS[grid]
    ring = star(seed, corners, scale)
    area, length = truth(ring / scale, affine, crs)
    found = ground_size(regions_of([[ring]], scale), affine, crs)
    assert found[0][0] == pytest.approx(area, rel=1e-7, abs=0.02)
    assert found[1][0] == pytest.approx(length, rel=1e-7)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(sorted(GRIDS)))
def test_polynomials_and_edges_agree(seed: int, grid: str) -> None:
    """Two ways to the same: by tiles of the grid, and each edge for itself."""
    crs, affine = GRIDS[grid]
    labels = np.random.default_rng(seed).integers(1, 4, (12, 9))
    regions = traced(labels)
    fast = ground_size(regions, affine, crs)
    slow = ground._by_edges(regions, np.ones(len(regions), bool), affine, crs)
    cell = pixel_area(affine, crs, 5, 5)
    assert fast[0] == pytest.approx(slow[0], rel=1e-6, abs=1e-7 * float(cell))
    assert fast[1] == pytest.approx(slow[1], rel=1e-6)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(sorted(GRIDS)), st.booleans(), st.booleans())
def test_a_partition_adds_up(seed: int, grid: str, south_up: bool, leftward: bool) -> None:
    crs, affine = GRIDS[grid]
    rows, cols = SHAPE
    if south_up:
        affine = affine * Affine.translation(0, rows) * Affine.scale(1, -1)
    if leftward:
        affine = affine * Affine.translation(cols, 0) * Affine.scale(-1, 1)
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 4, SHAPE)
    labels[20:100, 30:120] = 2
    labels[40:80, 50:90] = 3  # a hole and an island
    areas, lengths = ground_size(traced(labels), affine, crs)
    outline = np.array([[0, 0], [rows, 0], [rows, cols], [0, cols], [0, 0]])
    whole, around = ground_size(regions_of([[outline]]), affine, crs)
    assert areas.min() > 0
    assert lengths.min() > 0
    assert areas.sum() == pytest.approx(whole[0], rel=1e-9)
    assert pixel_area(affine, crs, np.arange(rows)[:, None], np.arange(cols)).sum() == pytest.approx(
        whole[0], rel=1e-9
    )
    assert around[0] < lengths.sum()


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(["lambert", "feet", "utm"]))
def test_small_polygons_by_the_scale_of_the_map(seed: int, grid: str) -> None:
    crs, affine = GRIDS[grid]
    ring = star(seed, 7, 1)
    polygon = shapely.Polygon(np.array(affine * ring[:, ::-1].T).T)
    x, y = shapely.get_coordinates(polygon.centroid)[0]
    map_of = Proj(crs)
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
    factors, unit = map_of.get_factors(lon, lat), map_of.crs.axis_info[0].unit_conversion_factor
    area, length = ground_size(regions_of([[ring]]), affine, crs)
    assert area[0] == pytest.approx(polygon.area * unit**2 / factors.areal_scale, rel=3e-6)
    assert length[0] == pytest.approx(polygon.length * unit / factors.meridional_scale, rel=3e-6)


def test_neighbours_measure_their_edge_alike() -> None:
    crs, affine = GRIDS["equal area"]
    a, b = [0, 0], [97, 131]
    left = np.array([a, [97, 0], b, a])
    right = np.array([a, b, [0, 131], a])
    both = regions_of([[left], [right], [np.array([a, [97, 0], b, [0, 131], a])]])
    areas, lengths = ground_size(both, affine, crs)
    shared = (lengths[0] + lengths[1] - lengths[2]) / 2
    assert shared == pytest.approx(truth(np.array([a, b, a]), affine, crs)[1] / 2, rel=1e-9)
    assert areas[0] + areas[1] == pytest.approx(areas[2], rel=1e-13)


def test_a_parallel_is_longer_than_the_geodesic() -> None:
    """A cell of 60 by 1 degrees: its north and south edges are arcs of parallels."""
    ring = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    affine = Affine(60, 0, 0, 0, -1, 61)

    def parallel(lat: float) -> float:
        return (
            GEOD.a * math.cos(math.radians(lat)) / math.sqrt(1 - GEOD.es * math.sin(math.radians(lat)) ** 2)
        )

    meridian = GEOD.inv(0, 60, 0, 61)[2]
    expected = 2 * meridian + math.radians(60) * (parallel(60) + parallel(61))
    assert ground_size(regions_of([[ring]]), affine, "EPSG:4326")[1][0] == pytest.approx(expected, rel=1e-10)


def test_holes_are_taken_off_and_their_edges_counted() -> None:
    crs, affine = GRIDS["utm"]
    outer = np.array([[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]])
    inner = np.array([[3, 3], [3, 6], [6, 6], [6, 3], [3, 3]])
    areas, lengths = ground_size(regions_of([[outer, inner], [outer], [inner[::-1]]]), affine, crs)
    assert areas[0] == pytest.approx(areas[1] - areas[2], rel=1e-13)
    assert lengths[0] == pytest.approx(lengths[1] + lengths[2], rel=1e-13)


def test_utm_square_on_the_central_meridian() -> None:
    ring = np.array([[0, 0], [100, 0], [100, 100], [0, 100], [0, 0]])
    affine = Affine(10, 0, 499_500, 0, -10, 5_500_000)
    areas, lengths = ground_size(regions_of([[ring]]), affine, "EPSG:32633")
    assert areas[0] == pytest.approx(1_000_000 / 0.9996**2, rel=1e-7)
    assert lengths[0] == pytest.approx(4000 / 0.9996, rel=1e-7)


def zone(lat: float) -> float:
    """Area from the equator to ``lat`` per radian (Snyder 1987, eq. 3-12)."""
    e, s = math.sqrt(GEOD.es), math.sin(math.radians(lat))
    return GEOD.a**2 / 2 * (1 - e**2) * (s / (1 - (e * s) ** 2) + math.atanh(e * s) / e)


def test_degree_cells_by_the_formula() -> None:
    cells = pixel_area(Affine(1, 0, 179.5, 0, -1, 90), "EPSG:4326", np.arange(180), 0)
    lats = np.arange(90, -90, -1)
    assert cells == pytest.approx([(zone(lat) - zone(lat - 1)) * math.radians(1) for lat in lats], rel=1e-9)


def test_cells_centred_on_the_poles_end_there() -> None:
    affine = Affine(0.25, 0, -180.125, 0, -0.25, 90.125)
    cells = pixel_area(affine, "EPSG:4326", np.arange(721)[:, None], np.arange(0, 1440, 90)) * 90
    assert cells.sum() == pytest.approx(510_065_621_724_088, rel=1e-9)
    assert cells[0, 0] == pytest.approx((zone(90) - zone(89.875)) * math.radians(0.25) * 90, rel=1e-7)
    rows, cols = 721, 1440
    outline = np.array([[0, 0], [rows, 0], [rows, cols], [0, cols], [0, 0]])
    regions = regions_of([[outline]])
    areas, lengths = ground_size(regions, affine, "EPSG:4326")
    assert areas[0] == pytest.approx(510_065_621_724_088, rel=1e-9)
    assert lengths[0] == pytest.approx(2 * GEOD.inv(0, -90, 0, 90)[2], rel=1e-9)
    slow = ground._by_edges(regions, np.ones(1, bool), affine, "EPSG:4326")
    assert slow[0][0] == pytest.approx(510_065_621_724_088, rel=1e-9)
    assert slow[1][0] == pytest.approx(lengths[0], rel=1e-9)


@pytest.mark.parametrize("degrees", [10.0, 1.0])
def test_the_whole_earth(degrees: float) -> None:
    rows, cols = round(180 / degrees), round(360 / degrees)
    outline = np.array([[0, 0], [rows, 0], [rows, cols], [0, cols], [0, 0]])
    affine = Affine(degrees, 0, -180, 0, -degrees, 90)
    assert ground_size(regions_of([[outline]]), affine, "EPSG:4326")[0][0] == pytest.approx(
        510_065_621_724_088, rel=1e-11
    )


def test_equal_area_pixels_are_equal() -> None:
    crs, affine = GRIDS["equal area"]
    cells = pixel_area(affine, crs, np.arange(120)[:, None], np.arange(160))
    assert cells == pytest.approx(np.full(SHAPE, 4e8), rel=1e-9)


def test_pixels_are_smooth_over_tiles() -> None:
    """A tile of 256 km ends at column 8.53 of these; the fourth differences do not show where."""
    cells = pixel_area(Affine(30_000, 0, 0, 0, -30_000, 4e6), "EPSG:32631", 3, np.arange(30))
    assert np.ptp(np.diff(cells, 4)) < 1e-9 * cells[0]


def test_a_small_pixel_far_along_a_large_grid() -> None:
    """The area before an edge is a sum from column 0 on; its rounding must not show."""
    affine = Affine(0.05, 0, 400_000, 0, -0.05, 5_500_000)
    near = Affine(0.05, 0, 400_000 + 299_990 * 0.05, 0, -0.05, 5_500_000 - 299_990 * 0.05)
    far_cells = pixel_area(affine, "EPSG:32633", 299_990 + np.arange(5), 299_990)
    assert far_cells == pytest.approx(pixel_area(near, "EPSG:32633", np.arange(5), 0), rel=1e-8)


def test_the_order_of_asking_does_not_matter() -> None:
    """Tiles are made when first needed; what was there before must not change a bit."""
    crs, affine = GRIDS["equal area"]
    regions = traced(np.random.default_rng(3).integers(1, 4, SHAPE))
    ground._ground.cache_clear()
    whole = ground_size(regions, affine, crs)
    ground._ground.cache_clear()
    parts = [ground_size(regions[k : k + 1], affine, crs) for k in reversed(range(0, len(regions), 97))]
    for which in (0, 1):
        assert np.array_equal(whole[which][::97], np.concatenate([part[which] for part in reversed(parts)]))


def test_the_rim_of_a_full_disc_is_measured_edge_by_edge() -> None:
    crs = FULL_DISC
    affine = Affine(
        10_000, 0, 4_900_000, 0, -10_000, 250_000
    )  # 5.43e6 m is the rim, within the first tile's reach
    ring = np.array([[0, 0], [40, 0], [40, 50], [0, 50], [0, 0]])
    area, length = truth(ring, affine, crs)
    areas, lengths = ground_size(regions_of([[ring]]), affine, crs)
    assert areas[0] == pytest.approx(area, rel=1e-5)
    assert lengths[0] == pytest.approx(length, rel=1e-6)
    assert pixel_area(affine, crs, 3, 4) == pytest.approx(
        truth(ring * [1 / 40, 1 / 50] + [3, 4], affine, crs)[0], rel=1e-5
    )


def test_no_regions() -> None:
    areas, lengths = ground_size(Regions.none(), Affine.identity(), "EPSG:32633")
    assert areas.shape == lengths.shape == (0,)
    assert pixel_area(Affine.identity(), "EPSG:32633", np.empty((0, 3), int), 1).shape == (0, 3)


def test_outside_the_crs() -> None:
    square = regions_of([[np.array([[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]])]])
    with pytest.raises(InputError, match="no longitude and latitude"):
        ground_size(square, Affine(1e12, 0, 0, 0, -1e12, 0), "EPSG:32633")
    with pytest.raises(InputError, match="no map of the Earth"):
        ground_size(square, Affine.identity(), 'LOCAL_CS["site",UNIT["metre",1]]')


def test_smoothed_corners_are_fractions() -> None:
    crs, affine = GRIDS["utm"]
    ring = np.array([[0, 0], [8, 0], [8, 8], [0, 8], [0, 0]])
    whole = ground_size(regions_of([[ring]]), affine, crs)
    eighths = ground_size(regions_of([[ring * 8]], 8), affine, crs)
    assert np.array_equal(whole, eighths)
    assert shapely.area(regions_of([[ring * 8]], 8).to_shapely()[0]) == 64
