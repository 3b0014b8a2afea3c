"""Areas of a grid's pixels, each at its place, against polygons on the ellipsoid."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Geod, Transformer

from rssegment.grid import Box
from rssegment.reference.pixel_areas import PixelAreas

GRIDS = {
    "Greenland": GeoBox((27_000, 15_000), Affine(100, 0, -650_000, 0, -100, -650_000), "EPSG:3413"),
    "at the pole": GeoBox((4000, 4000), Affine(1000, 0, -2e6, 0, -1000, 2e6), "EPSG:3413"),
    "zone-wide": GeoBox((9000, 67_000), Affine(10, 0, 165_000, 0, -10, 90_000), "EPSG:32631"),
    "rotated": GeoBox((5000, 3000), Affine(60, 10, 300_000, 10, -60, 5_000_000), "EPSG:32631"),
    "France": GeoBox((5_000_000, 5_500_000), Affine(0.2, 0, 90_000, 0, -0.2, 7_120_000), "EPSG:2154"),
    "degrees": GeoBox((18_000, 36_000), Affine(0.01, 0, -180, 0, -0.01, 90), "EPSG:4326"),
    "Mercator": GeoBox((50_000, 11), Affine(700, 0, 300_000, 0, -700, 1.7e7), "EPSG:3857"),
    "south up": GeoBox((9000, 9000), Affine(300, 0, 2_500_000, 0, 300, 1_500_000), "EPSG:3035"),
    "wide pixels": GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326"),
}


def limits(grid: GeoBox) -> tuple[float, float]:
    return (-90, 90) if grid.crs is not None and grid.crs.geographic else (-np.inf, np.inf)


def true_area(grid: GeoBox, row: int, col: int) -> float:
    """Of small pixels, the mean of many: a polygon's area is known to some cm² only."""
    t, more = np.linspace(0, 1, 50, endpoint=False), 500 if abs(grid.affine.determinant) == 0.2**2 else 0
    low, high = np.array([col, row]) - more, np.array([col, row]) + 1 + more
    corners = np.array([low, [high[0], low[1]], high, [low[0], high[1]], low])
    ring = (corners[:-1, None] * (1 - t)[:, None] + corners[1:, None] * t[:, None]).reshape(-1, 2)
    x, y = grid.affine * ring.T
    lon, lat = Transformer.from_crs(str(grid.crs), 4326, always_xy=True).transform(
        x, np.clip(y, *limits(grid))
    )
    return (
        abs(Geod(ellps="WGS84").polygon_area_perimeter(lon, np.clip(lat, -90, 90))[0]) / (1 + 2 * more) ** 2
    )


def area_of(areas: PixelAreas, box: Box) -> NDArray[np.float64]:
    """(h, w) of all pixels in the box."""
    columns, sizes = areas.within(box)
    return np.array([np.interp(np.arange(box.width), columns, row) for row in sizes])


@pytest.mark.parametrize("name", GRIDS)
def test_pixels_have_the_areas_of_their_polygons(name: str) -> None:
    grid = GRIDS[name]
    areas, (rows, cols) = PixelAreas.of(grid), grid.shape
    rng = np.random.default_rng(0)
    for row in (0, 1, rows // 2, rows - 1, *rng.integers(0, rows, 5).tolist()):
        for col in (0, 1, cols // 3, cols - 1, *rng.integers(0, cols, 5).tolist()):
            found = area_of(areas, Box(row, col, 1, 1))[0, 0]
            assert found == pytest.approx(true_area(grid, row, col), rel=1e-5), (row, col)


@given(st.sampled_from(sorted(GRIDS)), st.data())
def test_a_pixel_has_one_area_whatever_is_asked_for_with_it(name: str, data: st.DataObject) -> None:
    grid = GRIDS[name]
    areas = PixelAreas.of(grid)
    row, col = (data.draw(st.integers(0, n - 4)) for n in grid.shape)
    wide = min(grid.shape[1] - col, data.draw(st.sampled_from([4, 50, 5000])))
    whole = Box(row, col, 4, wide)
    cut = data.draw(st.integers(1, wide - 1))
    parts = [Box(row, col, 4, cut), Box(row, col + cut, 4, wide - cut)]
    fresh = pickle.loads(pickle.dumps(areas))
    assert area_of(fresh, whole) == pytest.approx(
        np.concatenate([area_of(areas, part) for part in parts], axis=1), rel=1e-14
    )
    columns, sizes = areas.within(whole)
    for part in parts:
        some, there = areas.within(part)
        both = np.isin(columns + whole.col, some + part.col)
        assert np.array_equal(sizes[:, both], there[:, np.isin(some + part.col, columns + whole.col)])
        assert some[0] <= 0
        assert some[-1] >= part.width - 1


def test_pixels_off_the_earth_have_none_and_do_no_harm_to_others() -> None:
    """A map of the world in an ellipse; its pixels all have one area, as it is equal-area."""
    grid = GeoBox((180, 360), Affine(100_000, 0, -18e6, 0, -100_000, 9e6), "ESRI:54009")
    areas = PixelAreas.of(grid)
    assert np.isnan(areas.at(np.array([0]), np.array([0])))[0]
    for step in (1, 7):
        coarse = PixelAreas(grid.affine, areas.crs, areas.shape, step)
        found = area_of(coarse, Box(0, 0, 180, 360))
        assert found[0, 0] == 0
        there = np.isfinite(areas.at(np.arange(180)[:, None], np.arange(360)))
        wide = there.sum(axis=1) > 3 * step  # rows that have some measured
        assert found[there & wide[:, None]] == pytest.approx(1e10, rel=1e-2)
        for col in (0, 5, 100, 353):
            part = area_of(coarse, Box(0, col, 180, 7))
            assert part[there[:, col : col + 7]] == pytest.approx(
                found[:, col : col + 7][there[:, col : col + 7]]
            )
