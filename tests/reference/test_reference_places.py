"""References wherever on the Earth: wide ones, those over the antimeridian and round poles, and those with no place."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.reference.features import features_on
from rssegment.reference.references import ReferenceOptions, open_reference
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.vector.clip import clip_polygon
from rssegment.vector.rasterize import PixelShapes
from tests.reference.test_references import in_blocks
from tests.run.test_scoring import write

DEMO = Taxonomy.load("demo")
UTM = GeoBox((64, 80), Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_982_950.0), "EPSG:32631")  # 3 E 45 N
PLACES = [
    UTM,
    GeoBox((64, 80), Affine(10.0, 0, 166_400.0, 0, -10.0, 100_000.0), "EPSG:32601"),  # over 180
    GeoBox((64, 80), Affine(900.0, 0, 200_000.0, 0, -900.0, 7_000_000.0), "EPSG:32660"),
    GeoBox((64, 80), Affine(20_000.0, 0, -700_000.0, 0, -20_000.0, 300_000.0), "EPSG:3413"),  # round the pole
    GeoBox((64, 80), Affine(50.0, 300.0, -30_000.0, 300, -50.0, -4_000.0), "EPSG:3031"),
    GeoBox((50, 50), Affine(801_500.0, 0, -20_037_500.0, 0, -801_500.0, 20_037_500.0), "EPSG:3857"),
    GeoBox(
        (40, 80), Affine(430_000.0, 0, -17_200_000.0, 0, -420_000.0, 8_400_000.0), "EPSG:8859"
    ),  # seam at 30 W
    GeoBox((40, 80), Affine(0.01, 0, 179.6, 0, -0.01, 0.2), "EPSG:4326"),
    GeoBox((40, 80), Affine(0.01, 0, -180.4, 0, -0.01, 0.2), "EPSG:4326"),
    GeoBox((36, 72), Affine(5.0, 0, -180.0, 0, -5.0, 90.0), "EPSG:4326"),
    GeoBox((36, 72), Affine(5.0, 0, 0.0, 0, -5.0, 90.0), "EPSG:4258"),  # another datum, and 0 to 360
]


def whole(grid: GeoBox) -> Box:
    return Box(0, 0, int(grid.shape[0]), int(grid.shape[1]))


def saved(path: Path, geometries: list[Any], crs: str = "EPSG:4326", code: int = 1) -> Path:
    geopandas.GeoDataFrame({"code": [code] * len(geometries)}, geometry=geometries, crs=crs).to_file(path)
    return path


def centres(grid: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes (H, W) of a grid's pixels, from the other direction than what is tested."""
    cols, rows = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
    x, y = grid.affine * (cols, rows)
    between = Transformer.from_crs(str(grid.crs), "EPSG:4326", always_xy=True)
    lon, lat = between.transform(x, y)
    back = between.transform(lon, lat, direction="INVERSE")
    off = (
        np.hypot(back[0] - x, back[1] - y) if grid.crs.projected else np.zeros(lon.shape)
    )  # beyond a map's outline
    return np.where(np.isfinite(lon) & (off < 1), (lon + 180) % 360 - 180, np.nan), lat


@settings(max_examples=40)
@given(data=st.data())
def test_polygons_in_degrees_label_the_centres_that_they_hold(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Anywhere, however far they reach, whichever turn their longitudes are told in."""
    grid = data.draw(st.sampled_from(PLACES))
    lon, lat = centres(grid)
    known = np.isfinite(lon) & np.isfinite(lat)
    row, col = data.draw(st.integers(0, known.shape[0] - 1)), data.draw(st.integers(0, known.shape[1] - 1))
    east, north = (lon[row, col], lat[row, col]) if known[row, col] else (0.0, 0.0)
    size = st.floats(0.001, 1.0).map(lambda share: share**3 * 170)
    west, south = data.draw(size), data.draw(size)
    polygon = shapely.box(
        east - west, max(-89.9, north - south), east + data.draw(size), min(89.9, north + data.draw(size))
    )
    if data.draw(st.booleans()):
        polygon = shapely.Polygon([*polygon.exterior.coords[:3], (east, north)])
    turn = data.draw(st.sampled_from([0, 360, -360]))
    path = tmp_path_factory.mktemp("r") / "r.gpkg"
    saved(path, [shapely.transform(polygon, lambda xy: xy + [turn, 0])])  # noqa: RUF005
    expected, clear = np.zeros(known.shape, bool), known.copy()
    for k in (-360, 0, 360):
        points = shapely.points(np.where(known, lon + k, 1e6), np.where(known, lat, 0))
        expected |= shapely.contains(polygon, points)
        clear &= shapely.distance(shapely.boundary(polygon), points) > 1e-3 * np.hypot(
            *np.ptp(shapely.get_coordinates(polygon), axis=0)
        )
    if not expected[clear].any():
        with suppress(InputError):  # unless a sliver is there
            assert not open_reference(path, grid, DEMO).read(whole(grid))[clear].any()
        return
    reference = open_reference(path, grid, DEMO)
    found = reference.read(whole(grid))
    np.testing.assert_array_equal((found > 0)[clear], expected[clear])
    np.testing.assert_array_equal(in_blocks(reference, whole(grid).shape, 17), found)
    assert not reference.remarks


def test_a_polygon_over_much_of_the_world_labels_the_map(tmp_path: Path) -> None:
    """Its corners lie far beyond where the map's projection has any meaning."""
    world = saved(tmp_path / "r.gpkg", [shapely.box(-80, -60, 80, 80)])
    assert (open_reference(world, UTM, DEMO).read(whole(UTM)) == 1).all()
    east = saved(tmp_path / "e.gpkg", [shapely.box(3.005, -60, 100, 80), shapely.box(-100, -60, 3.005, 80)])
    within = open_reference(east, UTM, DEMO, None, ReferenceOptions(label=2, within=world))
    labels = within.labels(whole(UTM))
    assert (labels.codes == 2).all()
    assert labels.contested is not None
    assert not labels.contested.any()
    shapely_ = features_on(open_reference(world, UTM, DEMO).source).geometries  # type: ignore[union-attr]
    assert shapely.is_valid(shapely_).all()


@pytest.mark.parametrize("west", [179.6, -180.4])
def test_degrees_go_on_over_180(tmp_path: Path, west: float) -> None:
    grid = GeoBox((40, 80), Affine(0.01, 0, west, 0, -0.01, 0.2), "EPSG:4326")
    both = shapely.MultiPolygon([shapely.box(179, -1, 180, 1), shapely.box(-180, -1, -179, 1)])
    path = saved(tmp_path / "r.gpkg", [both, shapely.Point(-179.9, 0.05)])
    reference = open_reference(path, grid, DEMO)
    assert (reference.read(whole(grid)) == 1).all()
    first = features_on(reference.source).geometries[0]  # type: ignore[union-attr]
    assert first.area == pytest.approx(4 / 0.01**2)  # an object once, not in every turn
    assert features_on(reference.source).geometries[1].x == pytest.approx((180.1 - 179.6) / 0.01)  # type: ignore[union-attr]


@pytest.mark.parametrize("resample", [False, True])
def test_rasters_in_degrees_go_on_over_180(tmp_path: Path, resample: bool) -> None:
    grid = GeoBox((10, 40), Affine(0.01, 0, 179.8, 0, -0.01, 0.1), "EPSG:4326")
    step = 0.0037 if resample else 0.01
    shape = 10, round(0.4 / step)
    labels = np.random.default_rng(0).integers(1, 9, shape).astype(np.uint8)
    same = Affine(step, 0, 179.8, 0, -0.01, 0.1)
    expected = open_reference(
        write(tmp_path / "same.tif", labels, "EPSG:4326", same),
        grid,
        DEMO,
        None,
        ReferenceOptions(resample=resample),
    ).read(whole(grid))
    other = write(tmp_path / "turn.tif", labels, "EPSG:4326", Affine.translation(-360, 0) * same)
    reference = open_reference(other, grid, DEMO, None, ReferenceOptions(resample=resample))
    np.testing.assert_array_equal(reference.read(whole(grid)), expected)
    np.testing.assert_array_equal(in_blocks(reference, (10, 40), 7), expected)


@pytest.mark.parametrize("step", [1.0, 0.75])
def test_a_raster_of_the_whole_world_lies_on_both_sides_of_180(tmp_path: Path, step: float) -> None:
    world = np.random.default_rng(0).integers(1, 9, (round(180 / step), round(360 / step))).astype(np.uint8)
    path = write(tmp_path / "r.tif", world, "EPSG:4326", Affine(step, 0, -180, 0, -step, 90))
    grid = GeoBox((6, 20), Affine(1.0, 0, 170, 0, -1.0, 3), "EPSG:4326")
    reference = open_reference(path, grid, DEMO, None, ReferenceOptions(resample=step != 1))
    rows = np.floor((87 + np.arange(6) + 0.5) / step).astype(int)
    cols = np.floor(((350 + np.arange(20) + 0.5) % 360) / step).astype(int)
    np.testing.assert_array_equal(reference.read(whole(grid)), world[np.ix_(rows, cols)])
    np.testing.assert_array_equal(in_blocks(reference, (6, 20), 4), world[np.ix_(rows, cols)])


def test_a_turn_that_is_no_whole_number_of_pixels(tmp_path: Path) -> None:
    """Pixels fall together on one side of 180 degrees only: that is told; and a lap of less than a pixel is nothing."""
    step = 360 / 479.5
    around = Affine(step, 0, -180, 0, -step, 90)
    path = write(tmp_path / "r.tif", np.ones((240, 480), np.uint8), "EPSG:4326", around)
    same = open_reference(path, GeoBox((240, 480), around, "EPSG:4326"), DEMO)
    assert (same.read(Box(0, 0, 240, 480)) == 1).all()
    assert not same.remarks
    over = GeoBox((10, 40), around * Affine.translation(460, 100), "EPSG:4326")
    part = open_reference(path, over, DEMO)
    assert (part.read(whole(over))[0] > 0).sum() == 20
    assert "isn't compared beyond 180" in " ".join(part.remarks)
    full = open_reference(path, over, DEMO, None, ReferenceOptions(resample=True))
    assert (full.read(whole(over)) == 1).all()


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
@pytest.mark.parametrize("far", [1e300, 1e17, 1.7e308])
def test_coordinates_beyond_all_measure(tmp_path: Path, crs: str, far: float) -> None:
    path = saved(tmp_path / "r.gpkg", [shapely.box(-far, -far, far, far)], crs)
    reference = open_reference(path, UTM, DEMO)
    assert (reference.read(whole(UTM)) == 1).all()


def test_features_without_place_are_told(tmp_path: Path) -> None:
    nowhere = shapely.Polygon([(3.0, 44.0), (np.inf, 44.0), (3.0, 46.0)])
    path = tmp_path / "r.parquet"
    frame = geopandas.GeoDataFrame(
        {"code": [1, 1]}, geometry=[nowhere, shapely.box(2, 44, 4, 46)], crs="EPSG:4326"
    )
    frame.to_parquet(path)
    reference = open_reference(path, UTM, DEMO)
    assert any("1 features" in remark and "no place" in remark for remark in reference.remarks)
    assert (reference.read(whole(UTM)) == 1).all()
    frame[:1].to_parquet(path)
    with pytest.raises(InputError, match="1 have no place"):
        open_reference(path, UTM, DEMO)


@pytest.mark.parametrize("suffix", ["geojson", "shp", "parquet"])
def test_features_without_geometry(tmp_path: Path, suffix: str) -> None:
    frame = geopandas.GeoDataFrame({"code": [1, 2]}, geometry=[None, None], crs="EPSG:4326")
    path = tmp_path / f"r.{suffix}"
    frame.to_parquet(path) if suffix == "parquet" else frame.to_file(path)
    with pytest.raises(InputError, match=r"none of the 2 features .* has a geometry"):
        open_reference(path, UTM, DEMO)


# Clipping


@given(
    corners=st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), min_size=3, max_size=12),
    hole=st.booleans(),
)
def test_clipped_polygons_cover_the_same_pixels(corners: list[tuple[int, int]], hole: bool) -> None:
    """Whether they are valid or not."""
    polygon = shapely.Polygon(corners)
    if hole and polygon.is_valid:
        polygon = shapely.Polygon(shapely.box(-31, -31, 31, 31).exterior, [corners])
    clipped = clip_polygon(polygon, (-6.0, -7.0, 12.0, 9.0))
    one, other = (
        PixelShapes.of(np.array([each], object), np.array([1])).burn(Box(-7, -6, 16, 18)).values
        for each in (shapely.transform(polygon, _aside), shapely.transform(clipped, _aside))
    )
    np.testing.assert_array_equal(one, other)
    if polygon.is_valid:
        assert clipped.is_valid
        assert clipped.area == pytest.approx(polygon.intersection(shapely.box(-6, -7, 12, 9)).area)


def _aside(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Away from where a centre lies on an edge."""
    return xy + (0.0123, 0.0071) if len(xy) else xy  # noqa: RUF005


# What is said of rasters


def test_a_raster_without_crs_is_to_be_given_one(tmp_path: Path) -> None:
    labels = np.ones(UTM.shape, np.uint8)
    bare = write(tmp_path / "r.tif", labels, None, UTM.affine)
    placed = write(tmp_path / "p.tif", labels, "EPSG:32631", UTM.affine)
    for resample in (False, True):
        with pytest.raises(
            InputError, match=r"r.tif has no CRS, and the prediction has EPSG:32631; .*_translate -a_srs"
        ):
            open_reference(bare, UTM, DEMO, None, ReferenceOptions(resample=resample))
        with pytest.raises(InputError, match=r"the prediction has no CRS, and the reference has EPSG:32631"):
            open_reference(
                placed, GeoBox(UTM.shape, UTM.affine, None), DEMO, None, ReferenceOptions(resample=resample)
            )


def test_a_raster_upside_down(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(1, 9, UTM.shape).astype(np.uint8)
    flipped = UTM.affine * Affine.translation(0, 64) * Affine.scale(1, -1)
    path = write(tmp_path / "r.tif", labels[::-1], "EPSG:32631", flipped)
    with pytest.raises(
        InputError, match="not on one grid: the reference's rows run the other way, over the same pixels"
    ):
        open_reference(path, UTM, DEMO)
    reference = open_reference(path, UTM, DEMO, None, ReferenceOptions(resample=True))
    assert not any("apart" in remark for remark in reference.remarks)
    np.testing.assert_array_equal(reference.read(whole(UTM)), labels)
    aside = write(tmp_path / "a.tif", labels[::-1], "EPSG:32631", flipped * Affine.translation(0.25, 0))
    with pytest.raises(InputError, match=r"rows run the other way, and its pixels lie 0.25 px apart"):
        open_reference(aside, UTM, DEMO)


def test_zeros_that_the_file_counts_as_data_are_told(tmp_path: Path) -> None:
    labels = np.ones(UTM.shape, np.uint8)
    labels[50, 60] = 0

    def remarks(
        nodata: int | None, mapping: ClassMapping | None = None, grid: GeoBox = UTM, **options: Any
    ) -> str:
        path = write(tmp_path / "r.tif", labels, "EPSG:32631", UTM.affine, nodata=nodata)
        return " ".join(open_reference(path, grid, DEMO, mapping, ReferenceOptions(**options)).remarks)

    assert "pixels of 0" in remarks(255)
    assert "pixels of 0" in remarks(255, resample=True)
    listed = f"name: m\ntarget: demo\nclasses: {{0: {DEMO.leaves[0].name}, 1: {DEMO.leaves[1].name}}}\n"
    assert not remarks(255, ClassMapping.loads(listed))
    assert not remarks(0)
    assert not remarks(None)
    assert not remarks(255, grid=UTM[:50, :])  # none where it is compared
