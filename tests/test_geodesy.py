"""Rings in longitude and latitude, and their lengths along what the CRS draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pyproj import Geod, Transformer

from rssegment.errors import InputError
from rssegment.geodesy import geocentric, is_on_earth, ring_areas, ring_lengths, to_lonlat

GEOD = Geod(ellps="WGS84")
WHOLE = np.array([0, 5])


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]], float)


def test_a_parallel_is_followed_all_round() -> None:
    """Its ends are one point: no chord between them says how long it is."""
    lat = math.radians(60)
    ring = np.array([[-180, 60], [180, 60], [180, 61], [-180, 61], [-180, 60]], float)
    rings = to_lonlat(ring, WHOLE, "EPSG:4326", 1.0)
    around = [
        2
        * math.pi
        * GEOD.a
        * math.cos(math.radians(y))
        / math.sqrt(1 - GEOD.es * math.sin(math.radians(y)) ** 2)
        for y in (60, 61)
    ]
    expected = sum(around) + 2 * GEOD.inv(0, 60, 0, 61)[2]
    assert lat < ring_lengths(rings, "EPSG:4326")[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32633", "EPSG:3035", "EPSG:4326", "EPSG:4258"])
def test_lengths_are_those_of_small_steps(crs: str) -> None:
    if crs in {"EPSG:4326", "EPSG:4258"}:
        ring = square(5, 40, 13)
    else:
        x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(12, 45)
        ring = square(x, y, 400_000)
    t = np.arange(20_000) / 20_000
    x, y = ((1 - t) * ring[:-1, k, None] + t * ring[1:, k, None] for k in (0, 1))
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(x.ravel(), y.ravel())
    area, length = GEOD.polygon_area_perimeter(lon, lat)
    rings = to_lonlat(ring, WHOLE, crs, 1000.0)
    assert ring_lengths(rings, crs)[0] == pytest.approx(length, rel=1e-7)
    assert ring_areas(rings, crs)[0] == pytest.approx(abs(area), rel=1e-6)


def test_an_edge_is_as_long_the_other_way_round() -> None:
    ring = square(500_000, 5_000_000, 300_000) + np.arange(10).reshape(5, 2) * [[1.0, 0.1]]
    ring[-1] = ring[0]
    one = ring_lengths(to_lonlat(ring, WHOLE, "EPSG:32633", 10.0), "EPSG:32633")
    other = ring_lengths(to_lonlat(ring[::-1].copy(), WHOLE, "EPSG:32633", 10.0), "EPSG:32633")
    assert one[0] == pytest.approx(other[0], rel=1e-15)


def test_pixels_centred_on_a_pole_end_there() -> None:
    rings = to_lonlat(square(0, 89.5, 1), WHOLE, "EPSG:4326", 1.0)
    assert rings.lat.max() == 90
    assert ring_areas(rings, "EPSG:4326")[0] == pytest.approx(
        ring_areas(
            to_lonlat(np.array([[0, 89.5], [1, 89.5], [1, 90], [0, 90], [0, 89.5]]), WHOLE, "EPSG:4326", 1.0),
            "EPSG:4326",
        )[0]
    )


def test_a_rotated_pole_bends_edges_on_the_map() -> None:
    crs = "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +ellps=WGS84 +type=crs"
    rings = to_lonlat(square(-5, -5, 10), WHOLE, crs, 0.1)
    assert rings.lon.size > 20
    assert ring_areas(rings, crs)[0] == pytest.approx(10 * 10 * 111_200**2, rel=0.01)


def test_geocentric_is_one_place_by_whatever_longitude() -> None:
    assert geocentric(np.array([-190.0]), np.array([10.0])) == pytest.approx(
        geocentric(np.array([170.0]), np.array([10.0])), abs=1e-8
    )
    assert geocentric(np.array([77.0]), np.array([90.0]))[0] == pytest.approx(
        [0, 0, 6_356_752.314245], abs=1e-6
    )


def test_what_is_on_the_earth() -> None:
    assert is_on_earth("EPSG:4326")
    assert is_on_earth("EPSG:32633+5773")
    assert not is_on_earth('LOCAL_CS["site",UNIT["metre",1]]')
    assert not is_on_earth("EPSG:4978")
    assert not is_on_earth("EPSG:5773")


def test_degrees_that_are_nowhere() -> None:
    ring = square(10, 10, 1)
    ring[2] = np.inf
    with pytest.raises(InputError, match="no longitude and latitude"):
        to_lonlat(ring, WHOLE, "EPSG:4326", 1.0)
