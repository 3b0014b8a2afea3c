"""Attributes, and sizes on the ground against known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer

from rssegment.errors import InputError
from rssegment.taxonomy import Taxonomy
from rssegment.vector import trace_raster
from rssegment.vector.attributes import attributes, ground_size

GEOD = Geod(ellps="WGS84")
GRIDS = {
    "EPSG:32633": Affine(10, 0, 700_000, 0, -10, 5_500_000),
    "EPSG:2154": Affine(0.2, 0, 700_000, 0, -0.2, 6_300_000),
    "EPSG:3857": Affine(100, 0, 0, 0, -100, 8_399_738),
    "EPSG:4326": Affine(0.01, 0, 179.5, 0, -0.01, 60),
    "EPSG:32601": Affine(300, 0, 170_000, 0, -300, 6_600_000),
    "EPSG:3995": Affine(1000, 0, -30_500, 0, -1000, 42_500),
    "EPSG:3413": Affine(1000, 0, -30_000, 0, -1000, 42_000),
    "EPSG:3031": Affine(1000, 0, -30_500, 0, -1000, 42_500),
}


def footprint_area(shape: tuple[int, int], affine: Affine, crs: str) -> float:
    """Geodesic area of the scene's outline, followed in small steps."""
    rows, cols = shape
    t = np.linspace(0, 1, 4000, endpoint=False)
    col = np.concatenate([0 * t, t, 0 * t + 1, 1 - t]) * cols
    row = np.concatenate([t, 0 * t + 1, 1 - t, 0 * t]) * rows
    lon, lat = Transformer.from_crs(crs, 4326, always_xy=True).transform(*(affine * (col, row)))
    return GEOD.polygon_area_perimeter(lon, lat)[0]


@pytest.mark.parametrize("crs", GRIDS)
def test_partition_adds_up_to_the_footprint(crs: str) -> None:
    labels = np.random.default_rng(0).integers(1, 4, (90, 100)).astype(np.uint16)
    labels[20:60, 30:70] = 2
    labels[30:50, 40:60] = 3  # a hole and an island
    areas, _ = ground_size(trace_raster(labels), GRIDS[crs], crs)
    assert areas.min() > 0
    assert areas.sum() == pytest.approx(footprint_area(labels.shape, GRIDS[crs], crs), rel=1e-6)
    whole, _ = ground_size(trace_raster(np.ones_like(labels)), GRIDS[crs], crs)
    assert areas.sum() == pytest.approx(whole[0], rel=1e-8)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(sorted(GRIDS)), st.booleans(), st.booleans())
def test_every_partition_adds_up(seed: int, crs: str, south_up: bool, leftward: bool) -> None:
    labels = np.random.default_rng(seed).integers(1, 4, (12, 9)).astype(np.uint16)
    affine = GRIDS[crs] * Affine.scale(-1 if leftward else 1, -1 if south_up else 1)
    if "3995" in crs or "3413" in crs or "3031" in crs:
        affine = GRIDS[crs] * Affine.translation(24, 36)  # round the pole
    areas, lengths = ground_size(trace_raster(labels), affine, crs, perimeter=True)
    whole, _ = ground_size(trace_raster(np.ones_like(labels)), affine, crs)
    assert areas.min() > 0
    assert lengths.min() > 0
    assert areas.sum() == pytest.approx(whole[0], rel=1e-6)


def test_utm_square_on_the_central_meridian() -> None:
    regions = trace_raster(np.ones((100, 100), np.uint16))
    areas, lengths = ground_size(
        regions, Affine(10, 0, 499_500, 0, -10, 5_500_000), "EPSG:32633", perimeter=True
    )
    assert areas[0] == pytest.approx(1_000_000 / 0.9996**2, rel=1e-6)
    assert lengths[0] == pytest.approx(4000 / 0.9996, rel=1e-6)


def test_web_mercator_at_60_degrees_is_four_times_too_large() -> None:
    y = Transformer.from_crs(4326, 3857, always_xy=True).transform(0, 60)[1]
    areas, _ = ground_size(
        trace_raster(np.ones((1, 1), np.uint16)), Affine(1, 0, 0, 0, -1, y + 0.5), "EPSG:3857"
    )
    assert areas[0] == pytest.approx(0.25, rel=0.01)  # a sphere's quarter; the ellipsoid adds 0.4 %


def test_degree_cells_by_the_formula() -> None:
    """Area of a cell between two parallels, in closed form (Snyder 1987, eq. 3-12)."""
    e = math.sqrt(GEOD.es)

    def zone(lat: float) -> float:
        s = math.sin(math.radians(lat))
        return GEOD.a**2 / 2 * (1 - e**2) * (s / (1 - (e * s) ** 2) + math.atanh(e * s) / e)

    labels = np.arange(1, 181, dtype=np.uint16)[:, None]
    areas, _ = ground_size(trace_raster(labels), Affine(1, 0, 179.5, 0, -1, 90), "EPSG:4326")
    lats = np.arange(90, -90, -1)
    expected = [(zone(lat) - zone(lat - 1)) * math.radians(1) for lat in lats]
    assert np.allclose(areas, expected, rtol=1e-9)


def test_the_whole_earth() -> None:
    areas, _ = ground_size(
        trace_raster(np.ones((18, 36), np.uint16)), Affine(10, 0, -180, 0, -10, 90), "EPSG:4326"
    )
    assert areas[0] == pytest.approx(510_065_621_724_088, rel=1e-12)


def test_columns() -> None:
    taxonomy = Taxonomy.flat("t", {1: ("built", (255, 0, 0)), 7: ("water", (0, 0, 255))})
    labels = np.array([[1, 1, 7], [0, 1, 7]], np.uint16)
    confidence = np.array([[254, 127, 255], [255, 127, 255]], np.uint8)
    regions = trace_raster(labels, 2, 4, confidence)
    columns = attributes(regions, taxonomy, GRIDS["EPSG:32633"], "EPSG:32633")
    assert list(columns) == ["id", "code", "name", "level", "path", "confidence", "pixels", "area_m2"]
    assert columns["id"].tolist() == [1, 2]
    assert columns["code"].tolist() == [1, 7]
    assert columns["name"].tolist() == ["built", "water"]
    assert columns["level"].tolist() == [1, 1]
    assert columns["path"].tolist() == ["built", "water"]
    assert columns["confidence"][0] == 0.6667
    assert np.isnan(columns["confidence"][1])
    assert columns["pixels"].tolist() == [3, 2]
    assert columns["area_m2"] == pytest.approx([300, 200], rel=2e-3)
    assert columns["area_m2"].tolist() == np.round(columns["area_m2"], 2).tolist()
    assert (
        list(attributes(regions, taxonomy, GRIDS["EPSG:32633"], "EPSG:32633", perimeter=True))[-1]
        == "perimeter_m"
    )


def test_path_names_the_ancestors() -> None:
    taxonomy = Taxonomy.load("flair")
    node = max(taxonomy.nodes, key=lambda node: node.level)
    regions = trace_raster(np.full((2, 2), node.code, np.uint16))
    columns = attributes(regions, taxonomy, Affine.identity(), None)
    assert columns["path"][0] == "/".join(node.path)
    assert columns["level"][0] == node.level > 1


def test_without_crs_there_is_no_area() -> None:
    taxonomy = Taxonomy.flat("t", {1: ("built", (255, 0, 0))})
    columns = attributes(
        trace_raster(np.ones((2, 2), np.uint16)), taxonomy, Affine.identity(), None, perimeter=True
    )
    assert np.isnan(columns["area_m2"]).all()
    assert np.isnan(columns["perimeter_m"]).all()


def test_codes_the_taxonomy_lacks_are_listed() -> None:
    taxonomy = Taxonomy.flat("t", {1: ("built", (255, 0, 0))})
    labels = np.array([[1, 5, 300]], np.uint16)
    with pytest.raises(InputError, match="2 codes that the taxonomy lacks: 5, 300"):
        attributes(trace_raster(labels), taxonomy, Affine.identity(), None)


def test_coordinates_outside_the_crs_are_refused() -> None:
    with pytest.raises(InputError, match="no longitude and latitude"):
        ground_size(trace_raster(np.ones((2, 2), np.uint16)), Affine(1e12, 0, 0, 0, -1e12, 0), "EPSG:32633")
