"""Which grids show the same ground: exactly in one CRS, by footprints on the Earth in two."""

from __future__ import annotations

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rssegment.errors import InputError
from rssegment.reference.same_ground import check_apart, shared_ground


def grid(
    x: float, y: float, crs: str = "EPSG:32631", size: float = 0.5, shape: tuple[int, int] = (400, 600)
) -> GeoBox:
    return GeoBox(shape, Affine(size, 0, x, 0, -size, y), crs)


@given(st.integers(-700, 700), st.integers(-500, 500))
def test_boxes_in_one_crs(cols: int, rows: int) -> None:
    one, other = grid(500000, 4800000), grid(500000 + cols / 2, 4800000 + rows / 2)
    wide, high = max(0, 600 - abs(cols)), max(0, 400 - abs(rows))
    expected = wide * high / 240_000 if min(wide, high) > 4 else 0.0
    assert shared_ground(one, other) == pytest.approx(expected, abs=1e-9)
    assert shared_ground(other, one) == pytest.approx(expected, abs=1e-9)


def test_a_rotated_grid() -> None:
    turned = GeoBox(
        (400, 400),
        Affine.translation(500200, 4800000) * Affine.rotation(45) * Affine.scale(0.5),
        "EPSG:32631",
    )
    assert shared_ground(grid(500180, 4800200), turned) > 0.1
    beside = grid(500000, 4800300, shape=(100, 100))  # in the box round it, not in it
    assert shared_ground(beside, turned) == 0


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32632", "EPSG:2154"])
@pytest.mark.parametrize(("apart", "same"), [(0, True), (200, True), (310, False), (5000, False)])
def test_another_crs(crs: str, apart: float, same: bool) -> None:
    one = grid(700000, 4800000)
    to = Transformer.from_crs("EPSG:32631", crs, always_xy=True)
    x, y = to.transform(700000 + apart, 4800000)
    other = grid(x, y, crs, 5e-6 if crs == "EPSG:4326" else 0.5)
    assert (shared_ground(one, other) > 0) == (shared_ground(other, one) > 0) == same


def test_over_the_antimeridian_and_round_a_pole() -> None:
    fiji = grid(179.9, -17.0, "EPSG:4326", 1e-3)  # as far as 180.5
    east, west = grid(-179.8, -17.1, "EPSG:4326", 1e-4), grid(-178.8, -17.1, "EPSG:4326", 1e-4)
    assert shared_ground(fiji, east) == shared_ground(east, fiji) == pytest.approx(1)
    assert shared_ground(fiji, west) == 0
    zone = grid(150000, 8110000, "EPSG:32701", 100)  # UTM 1 S, west of which lies 60 S
    assert shared_ground(fiji, zone) > 0
    arctic = GeoBox((1000, 1000), Affine(5000, 0, -2.5e6, 0, -5000, 2.5e6), "EPSG:3413")
    assert shared_ground(arctic, grid(20, 89, "EPSG:4326", 1e-3)) > 0
    assert shared_ground(arctic, grid(20, 40, "EPSG:4326", 1e-3)) == 0
    world = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    assert shared_ground(world, grid(500000, 4800000, size=1000)) > 0


def test_the_two_are_named() -> None:
    scenes = [
        (name, grid(500000 + 300 * place, 4800000))
        for name, place in [("a.tif", 0), ("b.tif", 1), ("c.tif", 2)]
    ]
    check_apart(scenes)
    with pytest.raises(
        InputError, match=r"b\.tif and d\.tif show the same ground: 50\.0%.*leave one out or crop"
    ):
        check_apart([*scenes, ("d.tif", grid(500300, 4800100))])
