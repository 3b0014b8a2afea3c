"""GeoJSON output: RFC 7946 to the letter, and true at the antimeridian and at the poles."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import antimeridian
import geopandas
import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Geod, Transformer

from rssegment.errors import InputError
from rssegment.write import lonlat
from rssegment.write.geojson import write_geojson
from rssegment.write.lonlat import decimals_for
from tests.write.rfc7946 import check, polygons_of

GEOD = Geod(ellps="WGS84")
UTM33 = ("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 5_500_000))
UTM60 = ("EPSG:32660", Affine(500, 0, 760_000, 0, -500, 4_000_000))
UTM1 = ("EPSG:32601", Affine(500, 0, 180_000, 0, -500, 4_000_000))
DEGREES = ("EPSG:4326", Affine(0.5, 0, 170, 0, -0.5, 10))
NORTH = ("EPSG:3995", Affine(25_000, 0, -500_000, 0, -25_000, 500_000))
NORTH_OFF = ("EPSG:3995", Affine(25_000, 0, -512_345, 0, -25_000, 507_891))
SOUTH = ("EPSG:3031", Affine(25_000, 0, -500_000, 0, -25_000, 500_000))
GRIDS = [UTM33, UTM60, UTM1, DEGREES, NORTH, NORTH_OFF, SOUTH]


def squares(labels: NDArray[np.integer], affine: Affine) -> tuple[NDArray, dict[str, NDArray]]:
    """One polygon for each region of ``labels``, by GDAL."""
    shapes = rasterio.features.shapes(labels.astype(np.uint8), mask=labels > 0, transform=affine)
    rows = [(shapely.geometry.shape(geometry), int(value)) for geometry, value in shapes]
    geometries = np.array([row[0] for row in rows], object)
    return geometries, {"id": np.arange(1, len(rows) + 1), "code": np.array([row[1] for row in rows])}


def write(path: Path, labels: NDArray[np.integer], grid: tuple[str, Affine]) -> list[dict]:
    crs, affine = grid
    assert write_geojson(path, [squares(labels, affine)], crs, affine.a) == len(squares(labels, affine)[0])
    return check(path)


def geodesic_area(features: list[dict]) -> float:
    """Area of what was written, its edges followed in longitude and latitude."""
    total = 0.0
    for feature in features:
        for polygon in polygons_of(feature):
            for ring in polygon:
                line = shapely.segmentize(shapely.LineString(ring), 0.05)
                total += GEOD.polygon_area_perimeter(*shapely.get_coordinates(line).T)[0]
    return total


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid[0]} {grid[1].c:g}")
@pytest.mark.parametrize("kind", ["whole", "random", "hole", "rings", "quarters"])
def test_every_grid_is_valid_and_keeps_its_area(tmp_path: Path, grid: tuple[str, Affine], kind: str) -> None:
    n = 40
    distance = np.hypot(*(np.mgrid[:n, :n] - (n - 1) / 2))
    labels = {
        "whole": np.ones((n, n), int),
        "random": np.random.default_rng(3).integers(0, 4, (n, n)),
        "hole": np.where(distance < 8, 0, 1),
        "rings": (distance // 4).astype(int) % 3 + 1,
        "quarters": np.add.outer(2 * (np.arange(n) < n // 2), np.arange(n) < n // 2) + 1,
    }[kind]
    features = write(tmp_path / "out.geojson", labels, grid)
    geometries = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(shapely.is_valid(geometries)), [
        shapely.is_valid_reason(g) for g in geometries if not g.is_valid
    ]
    assert geodesic_area(features) == pytest.approx(true_area(labels, grid), rel=1e-3)


def true_area(labels: NDArray[np.integer], grid: tuple[str, Affine]) -> float:
    """Sum of the geodesic areas of the pixels, by the local scale of an equal-area map."""
    crs, affine = grid
    lat = 90 if "3995" in crs else -90 if "3031" in crs else 0
    flat = "+proj=cea +lon_0=180" if lat == 0 else f"+proj=laea +lat_0={lat}"
    to_flat = Transformer.from_crs(crs, f"{flat} +ellps=WGS84", always_xy=True)
    fine = 8
    steps = np.arange(labels.shape[0] * fine + 1) / fine
    x, y = to_flat.transform(*(affine * tuple(np.meshgrid(steps, steps))))
    dx, dy = x[1:, 1:] - x[:-1, :-1], y[1:, 1:] - y[:-1, :-1]
    ex, ey = x[:-1, 1:] - x[1:, :-1], y[:-1, 1:] - y[1:, :-1]
    cells = np.abs(dx * ey - dy * ex) / 2
    pixels = cells.reshape(labels.shape[0], fine, labels.shape[1], fine).sum(axis=(1, 3))
    return float(pixels[labels > 0].sum())


def test_crossing_feature_is_split_like_the_antimeridian_package_does(tmp_path: Path) -> None:
    features = write(tmp_path / "out.geojson", np.ones((40, 40), int), DEGREES)
    assert features[0]["geometry"]["type"] == "MultiPolygon"
    ours = shapely.geometry.shape(features[0]["geometry"])
    expected = antimeridian.fix_polygon(shapely.box(170, -10, 190, 10), great_circle=False)
    assert shapely.equals(ours, expected)
    assert {tuple(part.bounds) for part in ours.geoms} == {(170, -10, 180, 10), (-180, -10, -170, 10)}


def test_regions_that_only_touch_the_antimeridian_are_not_split(tmp_path: Path) -> None:
    labels = np.repeat([[1] * 20 + [2] * 20], 40, axis=0)
    features = write(tmp_path / "out.geojson", labels, DEGREES)
    assert [feature["geometry"]["type"] for feature in features] == ["Polygon", "Polygon"]
    bounds = [shapely.geometry.shape(feature["geometry"]).bounds for feature in features]
    assert bounds == [(170, -10, 180, 10), (-180, -10, -170, 10)]


@pytest.mark.parametrize(("grid", "pole"), [(NORTH, 90), (NORTH_OFF, 90), (SOUTH, -90)])
def test_a_region_round_the_pole_reaches_it(tmp_path: Path, grid: tuple[str, Affine], pole: int) -> None:
    feature = write(tmp_path / "out.geojson", np.ones((40, 40), int), grid)[0]
    shape = shapely.geometry.shape(feature["geometry"])
    assert shape.contains(shapely.Point(0, pole - np.sign(pole) * 0.5))
    assert shape.contains(shapely.Point(-120, pole - np.sign(pole) * 0.001))
    assert pole in (shape.bounds[1], shape.bounds[3])
    assert shape.bounds[0] == -180
    assert shape.bounds[2] == 180


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(GRIDS), st.integers(2, 14))
def test_random_labels_anywhere_are_valid(
    tmp_path_factory, seed: int, grid: tuple[str, Affine], n: int
) -> None:
    path = tmp_path_factory.mktemp("geojson") / "out.geojson"
    crs, affine = grid
    labels = np.random.default_rng(seed).integers(0, 3, (n, n))
    labels[0, 0] = 1
    moved = (crs, affine * Affine.translation(20 - n // 2, 20 - n // 2))
    features = write(path, labels, moved)
    assert all(shapely.is_valid([shapely.geometry.shape(feature["geometry"]) for feature in features]))
    assert geodesic_area(features) == pytest.approx(true_area(labels, moved), rel=3e-2)


def test_neighbours_share_their_vertices(tmp_path: Path) -> None:
    labels = np.ones((2, 4000), int)
    labels[1] = 2
    grid = ("EPSG:32633", Affine(1000, 0, 166_000, 0, -1000, 8_000_000))
    upper, lower = write(tmp_path / "out.geojson", labels[:, :600], grid)
    points = [{tuple(p) for p in polygons_of(feature)[0][0]} for feature in (upper, lower)]
    assert len(points[0] & points[1]) > 10  # the long common edge was densified, the same for both
    assert shapely.coverage_is_valid([shapely.geometry.shape(f["geometry"]) for f in (upper, lower)])


def test_long_edges_follow_the_scene(tmp_path: Path) -> None:
    crs, affine = "EPSG:32633", Affine(1000, 0, 166_000, 0, -1000, 8_000_000)
    write_geojson(tmp_path / "out.geojson", [squares(np.ones((500, 600), int), affine)], crs, 1000)
    feature = check(tmp_path / "out.geojson")[0]
    ring = shapely.segmentize(shapely.LineString(polygons_of(feature)[0][0]), 0.01)
    back = Transformer.from_crs(4326, crs, always_xy=True).transform(*shapely.get_coordinates(ring).T)
    scene = shapely.box(166_000, 7_500_000, 766_000, 8_000_000).exterior
    assert shapely.distance(scene, shapely.points(*back)).max() < 0.03 * 1000


def test_read_back_by_gis_readers(tmp_path: Path) -> None:
    path = tmp_path / "out.geojson"
    labels = np.random.default_rng(0).integers(0, 4, (30, 30))
    geometries, columns = squares(labels, UTM33[1])
    n = len(geometries)
    columns |= {
        "name": np.array(['a "quoted", é/ü\n'] * n, object),
        "confidence": np.where(np.arange(n) % 2, 0.1234, np.nan),
    }
    write_geojson(path, [(geometries, columns)], UTM33[0], 10)
    frame = geopandas.read_file(path)
    assert frame.crs == "EPSG:4326"
    assert list(frame.columns) == ["id", "code", "name", "confidence", "geometry"]
    assert np.array_equal(frame["id"], columns["id"])
    assert set(frame["name"]) == {'a "quoted", é/ü\n'}
    assert np.array_equal(frame["confidence"].isna(), np.isnan(columns["confidence"]))
    back = frame.to_crs(UTM33[0]).geometry.to_numpy()
    assert shapely.hausdorff_distance(back, geometries).max() < 0.1
    assert pyogrio.read_info(path)["features"] == n


def test_chunks_do_not_change_a_byte() -> None:
    geometries, columns = squares(np.random.default_rng(1).integers(0, 4, (40, 40)), DEGREES[1])
    whole, parts = io.BytesIO(), io.BytesIO()
    write_geojson(whole, [(geometries, columns)], "EPSG:4326", 0.5)
    cut = [0, 1, 7, 7, 100, len(geometries)]
    pieces = [(geometries[a:b], {k: v[a:b] for k, v in columns.items()}) for a, b in pairwise(cut)]
    write_geojson(parts, pieces, "EPSG:4326", 0.5)
    assert whole.getvalue() == parts.getvalue()
    assert whole.getvalue().count(b"\n") == len(geometries) + 2


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20), st.text())
def test_any_value_is_json(values: list[float], text: str) -> None:
    out = io.BytesIO()
    boxes = shapely.box(np.arange(len(values)), 0, np.arange(len(values)) + 1, 1)
    names = np.array([text] * len(values), object)
    write_geojson(out, [(boxes, {"x": np.array(values), text: names})], None)
    features = json.loads(out.getvalue().decode("utf-8", "surrogatepass"))["features"]
    if text != "x":
        read = [feature["properties"]["x"] for feature in features]
        assert read == [value if np.isfinite(value) else None for value in values]


def test_without_crs_pixel_coordinates_are_written(tmp_path: Path) -> None:
    geometries, columns = squares(np.ones((3, 400), int), Affine.identity())
    write_geojson(tmp_path / "out.geojson", [(geometries, columns)], None)
    feature = json.loads((tmp_path / "out.geojson").read_text())["features"][0]
    assert sorted(feature["geometry"]["coordinates"][0][:-1]) == [[0, 0], [0, 3], [400, 0], [400, 3]]


def test_no_features_is_an_empty_collection(tmp_path: Path) -> None:
    assert write_geojson(tmp_path / "out.geojson", [], "EPSG:32633", 10) == 0
    assert check(tmp_path / "out.geojson") == []


@pytest.mark.parametrize(
    ("crs", "pixel", "decimals"),
    [
        ("EPSG:32633", 10, 7),
        ("EPSG:2154", 0.2, 8),
        ("EPSG:32633", 0.05, 9),
        ("EPSG:4326", 1e-6, 8),
        ("EPSG:4326", 1, 7),
    ],
)
def test_decimals_follow_the_pixel(crs: str, pixel: float, decimals: int) -> None:
    assert decimals_for(crs, pixel) == decimals


def test_small_pixels_stay_valid(tmp_path: Path) -> None:
    labels = np.random.default_rng(5).integers(0, 3, (60, 60))
    features = write(
        tmp_path / "out.geojson", labels, ("EPSG:2154", Affine(0.05, 0, 700_000, 0, -0.05, 6_300_000))
    )
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(shapely.is_valid(shapes))


def test_what_cannot_be_written_is_refused() -> None:
    box = np.array([shapely.box(0, 0, 1, 1)], object)
    with pytest.raises(InputError, match="polygons"):
        write_geojson(io.BytesIO(), [(np.array([shapely.Point(0, 0)], object), {})], None)
    with pytest.raises(InputError, match="'id' has 2 values for 1"):
        write_geojson(io.BytesIO(), [(box, {"id": np.arange(2)})], None)
    with pytest.raises(InputError, match="no longitude and latitude"):
        write_geojson(
            io.BytesIO(), [(np.array([shapely.box(1e12, 0, 2e12, 1e12)], object), {})], "EPSG:32633", 10
        )


SINUSOIDAL = "+proj=sinu +R=6371007.181"


@pytest.mark.parametrize("seed", range(3))
def test_what_lies_outside_the_map_is_refused(tmp_path: Path, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, (64, 64))
    affine = Affine(600_000, 0, -2e7, 0, -300_000, 1e7)
    with pytest.raises(InputError, match=r"the region at x .* lies outside the map that its CRS makes.*gpkg"):
        write_geojson(tmp_path / "a.geojson", [squares(labels, affine)], SINUSOIDAL, 424_264)
    whole = squares(np.ones((64, 64), int), affine)  # one region over all of it
    with pytest.raises(InputError, match="lies outside the map"):
        write_geojson(tmp_path / "a.geojson", [whole], SINUSOIDAL, 424_264)


@pytest.mark.parametrize("top", [1_111_950, 6_671_703, 9_500_000])
def test_pixels_on_the_edge_of_the_map_may_stick_out(tmp_path: Path, top: float) -> None:
    """Land on both sides of the antimeridian, as tiles of MODIS show it."""
    pixel, n = 926.6, 60
    edge = np.pi * 6_371_007.181 * np.cos(top / 6_371_007.181)
    affine = Affine(pixel, 0, -edge - n / 2 * pixel, 0, -pixel, top)
    col, row = np.meshgrid(np.arange(n) + 0.5, np.arange(n) + 0.5)
    x, y = affine * (col, row)
    inside = np.abs(x) <= np.pi * 6_371_007.181 * np.cos(y / 6_371_007.181)
    labels = np.where(inside, np.random.default_rng(0).integers(1, 4, (n, n)), 0)
    path = tmp_path / "a.geojson"
    polygons, columns = squares(labels, affine)
    write_geojson(path, [(polygons, columns)], SINUSOIDAL, pixel)
    frame = geopandas.read_file(path)
    assert frame.is_valid.all()
    areas = frame.to_crs("EPSG:6933").area
    assert areas.sum() == pytest.approx(shapely.area(polygons).sum(), rel=0.02)
    assert areas.max() == pytest.approx(shapely.area(polygons).max(), rel=0.02)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4087"])
def test_cylinders_go_on_beyond_their_edge(tmp_path: Path, crs: str) -> None:
    polygons = np.array([shapely.box(20_037_508 - 1000, 0, 20_037_508 + 2000, 1000)], object)
    path = tmp_path / "a.geojson"
    write_geojson(path, [(polygons, {"id": np.array([1])})], crs, 50.0)
    assert geopandas.read_file(path).to_crs(crs).area.sum() == pytest.approx(3e6, rel=1e-3)


def test_a_polygon_that_cannot_be_cut_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise shapely.errors.GEOSException("TopologyException: side location conflict")

    monkeypatch.setattr(lonlat, "_split", fail)
    box = shapely.box([179], 0, 181, 1)
    with pytest.raises(InputError, match=r"the region at x 181, y 0 lies outside the map"):
        write_geojson(tmp_path / "a.geojson", [(box, {"id": np.arange(1)})], "EPSG:4326")
