"""References on a map's grid: the same for any box, as GDAL draws them, and clear about what can't be compared."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.features import rasterize
from rasterio.warp import Resampling, reproject

from rssegment.errors import InputError, ReadError, TaxonomyError
from rssegment.grid import BlockGrid, Box
from rssegment.reference.features import features_on
from rssegment.reference.references import Reference, ReferenceOptions, open_reference
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.vector.rasterize import PixelShapes
from tests.run.test_scoring import write

DEMO = Taxonomy.load("demo")
FLAIR = Taxonomy.load("flair")
UTM = Affine(10.0, 0.0, 300_000.0, 0.0, -10.0, 5_000_000.0)
GRID = GeoBox((90, 120), UTM, "EPSG:32631")
WHOLE = Box(0, 0, 90, 120)


def in_blocks(reference: Reference, shape: tuple[int, int], side: int) -> NDArray[np.uint16]:
    """What is read block by block."""
    codes = np.zeros(shape, np.uint16)
    for part in BlockGrid(shape, side):
        codes[part.core.slices] = reference.read(part.core)
    return codes


def on_map(geometries: list[shapely.Geometry], columns: dict[str, Any], path: Path, crs: str | None) -> Path:
    """A file of geometries that are given in pixels (col, row) of GRID."""
    placed = [
        shapely.transform(g, lambda xy: np.column_stack([300_000 + 10 * xy[:, 0], 5_000_000 - 10 * xy[:, 1]]))
        if g is not None
        else None
        for g in geometries
    ]
    frame = geopandas.GeoDataFrame(columns, geometry=placed, crs="EPSG:32631")
    frame = (
        frame
        if crs == "EPSG:32631"
        else frame.set_crs(None, allow_override=True)
        if crs is None
        else frame.to_crs(crs)
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    return path


def blobs(seed: int, number: int = 40) -> list[shapely.Geometry]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(number):
        center, radius = rng.uniform(-10, 130, 2) * [1, 0.75], rng.uniform(0.4, 15)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        blob = shapely.Polygon(
            np.column_stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)])
        )
        if k % 4 == 0:
            blob = blob.difference(shapely.Point(center).buffer(radius / 3))
        found.append(
            blob
            if k % 7
            else shapely.MultiPolygon([blob, shapely.box(*center, *(center + 2))])
            if blob.geom_type == "Polygon"
            else blob
        )
    return found


# Polygons


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), side=st.integers(1, 70))
def test_polygons_are_drawn_as_by_gdal_in_any_window(seed: int, side: int) -> None:
    geometries = np.array(blobs(seed), object)
    values = np.arange(1, len(geometries) + 1)
    shapes = PixelShapes.of(geometries, values)
    expected = rasterize(
        [(part, int(v)) for g, v in zip(geometries, values, strict=True) for part in shapely.get_parts(g)],
        out_shape=(90, 120), fill=-1, dtype="int32",
    )  # fmt: skip
    whole = shapes.burn(WHOLE)
    np.testing.assert_array_equal(whole.values, expected)
    for part in BlockGrid((90, 120), side):
        burnt = shapes.burn(part.core)
        np.testing.assert_array_equal(burnt.values, expected[part.core.slices])
        np.testing.assert_array_equal(burnt.contested, whole.contested[part.core.slices])


@settings(max_examples=30)
@given(
    points=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=4, max_size=12, unique=True),
    half=st.booleans(),
)
def test_neighbours_share_no_pixel_and_leave_none_between(points: list[tuple[int, int]], half: bool) -> None:
    """Corners on pixel centres or corners: exactly one of the triangles that tile an area covers each centre in it."""
    xy = np.array(points, float) / 2 + 0.25 * half
    triangles = np.array(shapely.get_parts(shapely.delaunay_triangles(shapely.MultiPoint(xy))), object)
    shapes = PixelShapes.of(triangles, np.arange(len(triangles)))
    burnt = shapes.burn(Box(0, 0, 24, 24))
    assert not burnt.contested.any()
    centres = shapely.points(*np.meshgrid(np.arange(24) + 0.5, np.arange(24) + 0.5))
    inside = shapely.contains(shapely.union_all(triangles), centres)
    assert (burnt.values >= 0)[inside].all()


def test_edges_on_half_pixels_do_not_depend_on_the_window() -> None:
    """Crossings that fall on centres exactly, at large coordinates too."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 60, (80, 3, 2)) / 2 + 100_000
    shapes = PixelShapes.of(shapely.polygons(np.concatenate([corners, corners[:, :1]], 1)), np.arange(80))
    whole = shapes.burn(Box(100_000, 100_000, 31, 31)).values
    for row in range(0, 31, 5):
        for col in range(0, 31, 3):
            part = shapes.burn(
                Box(100_000 + row, 100_000 + col, 4, 4).clip(Box(100_000, 100_000, 31, 31))
            ).values
            np.testing.assert_array_equal(part, whole[row : row + 4, col : col + 4])


def test_points_label_the_pixel_they_lie_in() -> None:
    shapes = PixelShapes.of(
        np.array([shapely.Point(3.99, 2.0), shapely.MultiPoint([(0, 0), (119.5, 89.9), (120, 5)])], object),
        np.array([5, 6]),
    )
    burnt = shapes.burn(WHOLE).values
    assert [(int(r), int(c), int(burnt[r, c])) for r, c in np.argwhere(burnt >= 0)] == [
        (0, 0, 6),
        (2, 3, 5),
        (89, 119, 6),
    ]


def test_collections_empty_and_missing_geometries() -> None:
    nested = shapely.GeometryCollection(
        [
            shapely.MultiPolygon([shapely.box(0, 0, 2, 2)]),
            shapely.GeometryCollection([shapely.Point(5.5, 5.5)]),
        ]
    )
    shapes = PixelShapes.of(
        np.array([None, shapely.Polygon(), nested, shapely.LineString([(0, 0), (9, 9)])], object),
        np.arange(1, 5),
    )
    burnt = shapes.burn(WHOLE).values
    assert (burnt == 3).sum() == 5
    assert set(np.unique(burnt)) == {-1, 3}
    assert not PixelShapes.of(np.empty(0, object), np.empty(0, int)).burn(WHOLE).contested.any()


# Files of polygons


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "shp", "fgb", "parquet"])
@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326"])
def test_files_in_any_format_and_crs(tmp_path: Path, suffix: str, crs: str) -> None:
    geometries = blobs(1)
    codes = [DEMO.leaves[k % len(DEMO.leaves)].code for k in range(len(geometries))]
    path = on_map(geometries, {"class": codes}, tmp_path / f"r.{suffix}", crs)
    if suffix == "fgb":  # which is in the order of its index
        order = geopandas.read_file(path)["class"].tolist()
        assert sorted(order) == sorted(codes)
    reference = open_reference(path, GRID, DEMO, None, ReferenceOptions(column="class"))
    exact = PixelShapes.of(np.array(geometries, object), np.array(codes)).burn(WHOLE)
    found = reference.labels(WHOLE)
    expected = np.maximum(exact.values, 0)
    calm = ~exact.contested if suffix == "fgb" else np.ones(WHOLE.shape, bool)
    assert (found.codes != expected)[calm].mean() < (
        0.0005 if crs == "EPSG:4326" or suffix == "geojson" else 1e-9
    )
    assert pickle.loads(pickle.dumps(reference)).read(WHOLE).tolist() == found.codes.tolist()
    np.testing.assert_array_equal(in_blocks(reference, GRID.shape, 37), found.codes)


def test_classes_by_name_path_code_or_mapping(tmp_path: Path) -> None:
    boxes = [shapely.box(10 * k, 0, 10 * k + 5, 5) for k in range(6)]
    names = ["building", "built/paved", "6", None, "bare", ""]
    path = on_map(boxes, {"kind": names}, tmp_path / "r.gpkg", "EPSG:32631")
    reference = open_reference(
        path, GRID, FLAIR, None, ReferenceOptions(column="kind", outside="water/water")
    )
    row = reference.read(WHOLE)[2, 2::10][:7].tolist()
    assert row == [1, 110, 6, 0, 4, 0, 5]  # what has no class is unlabelled, not outside
    assert any("2 features" in remark and "no value" in remark for remark in reference.remarks)
    mapping = ClassMapping.loads(
        "name: m\ntarget: flair\nclasses: {building: 100, bare: null}\nothers: vegetation\n"
    )
    mapped = open_reference(path, GRID, FLAIR, mapping, ReferenceOptions(column="kind", outside=5))
    assert mapped.read(WHOLE)[2, 2::10][:7].tolist() == [100, 120, 120, 0, 0, 0, 5]
    one = open_reference(path, GRID, FLAIR, None, ReferenceOptions(label="built"))
    assert set(np.unique(one.read(WHOLE))) == {0, 100}


def test_the_column_code_is_found_by_itself(tmp_path: Path) -> None:
    path = on_map([shapely.box(0, 0, 5, 5)], {"code": [8]}, tmp_path / "r.geojson", "EPSG:4326")
    assert open_reference(path, GRID, FLAIR).read(WHOLE)[2, 2] == 8


def test_of_overlapping_polygons_the_later_counts_and_is_told(tmp_path: Path) -> None:
    path = on_map(
        [shapely.box(0, 0, 10, 10), shapely.box(5, 0, 15, 10), shapely.box(6, 0, 7, 1)],
        {"code": [1, 2, 2]}, tmp_path / "r.gpkg", "EPSG:32631",
    )  # fmt: skip
    labels = open_reference(path, GRID, DEMO).labels(WHOLE)
    assert labels.codes[0, :16].tolist() == [1] * 5 + [2] * 10 + [0]
    assert labels.contested is not None
    assert labels.contested.sum() == 50


def test_within_limits_what_counts(tmp_path: Path) -> None:
    area = on_map([shapely.box(0, 0, 30, 40)], {}, tmp_path / "area.gpkg", "EPSG:4326")
    path = on_map([shapely.box(20, 20, 60, 60)], {"code": [1]}, tmp_path / "r.gpkg", "EPSG:32631")
    found = open_reference(path, GRID, DEMO, None, ReferenceOptions(outside=2, within=area)).read(WHOLE)
    assert (found > 0).sum() == 30 * 40
    assert (found == 1).sum() == 10 * 20
    raster = write(tmp_path / "r.tif", np.full((90, 120), 3, np.uint8))
    limited = open_reference(raster, GRID, DEMO, None, ReferenceOptions(within=area))
    assert (limited.read(WHOLE) == 3).sum() == 30 * 40
    np.testing.assert_array_equal(in_blocks(limited, GRID.shape, 33), limited.read(WHOLE))


def test_long_edges_follow_their_curve(tmp_path: Path) -> None:
    """A straight edge in degrees, 1000 km long, is a curve on the map: 10 km off its chord."""
    square = shapely.box(-6.0, 44.9, 12.0, 45.1)
    path = tmp_path / "r.gpkg"
    geopandas.GeoDataFrame({"code": [1]}, geometry=[square], crs="EPSG:4326").to_file(path)
    grid = GeoBox((60, 60), Affine(1000.0, 0, 470_000.0, 0, -1000.0, 5_010_000.0), "EPSG:32631")
    found = open_reference(path, grid, DEMO).read(Box(0, 0, 60, 60))
    x, y = np.meshgrid(470_000 + 1000 * (np.arange(60) + 0.5), 5_010_000 - 1000 * (np.arange(60) + 0.5))
    _, lat = Transformer.from_crs(32631, 4326, always_xy=True).transform(x, y)
    clear = np.abs(np.abs(lat - 45) - 0.1) > 0.0003  # 30 m, of pixels of 1 km
    np.testing.assert_array_equal((found > 0)[clear], (np.abs(lat - 45) < 0.1)[clear])


def test_a_large_file_is_read_where_the_map_is(tmp_path: Path) -> None:
    boxes = [
        shapely.box(x, y, x + 5, y + 5) for x in range(-4000, 4000, 200) for y in range(-4000, 4000, 200)
    ]
    path = on_map(boxes, {"code": [1] * len(boxes)}, tmp_path / "r.gpkg", "EPSG:4326")
    reference = open_reference(path, GRID, DEMO)
    assert len(features_on(reference.source).geometries) < 10  # type: ignore[union-attr]


REFUSALS = [
    ({"a": ["x"], "b": [1]}, {}, r"which class .*column: a, b.*label"),
    ({"a": ["x"]}, {"column": "c"}, r"no column 'c'; it has a"),
    ({"a": ["x"]}, {"column": "a"}, r"column 'a' .* no classes of taxonomy 'demo': x \(1 x\)"),
    ({"code": [77]}, {}, r"77 \(1 x\)"),
    ({"a": ["x"]}, {"column": "a", "label": 1}, "exclude each other"),
    ({"a": ["x"]}, {"label": 1, "resample": True}, "resample is for rasters"),
    ({"a": ["x"]}, {"label": 1, "layer": "z"}, r"no layer 'z'; it has r"),
]


@pytest.mark.parametrize(("columns", "options", "words"), REFUSALS)
def test_polygons_whose_class_is_unclear(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    path = on_map([shapely.box(0, 0, 5, 5)], columns, tmp_path / "r.gpkg", "EPSG:32631")
    with pytest.raises(InputError, match=words):
        open_reference(path, GRID, DEMO, None, ReferenceOptions(**options))


def test_unknown_classes_of_the_whole_file(tmp_path: Path) -> None:
    path = on_map([shapely.box(0, 0, 5, 5)], {}, tmp_path / "r.gpkg", "EPSG:32631")
    for options in (ReferenceOptions(label="castle"), ReferenceOptions(label=1, outside=99)):
        with pytest.raises(TaxonomyError, match="has no"):
            open_reference(path, GRID, DEMO, None, options)


def test_polygons_that_lie_elsewhere_or_nowhere(tmp_path: Path) -> None:
    far = on_map([shapely.box(900, 0, 905, 5)], {"code": [1]}, tmp_path / "far.gpkg", "EPSG:4326")
    with pytest.raises(
        InputError, match=r"none of the 1 features of the reference .*far.gpkg lies on the prediction"
    ):
        open_reference(far, GRID, DEMO)
    empty = on_map([], {"code": []}, tmp_path / "empty.gpkg", "EPSG:32631")
    with pytest.raises(InputError, match="has no features"):
        open_reference(empty, GRID, DEMO)
    bare = on_map([shapely.box(0, 0, 5, 5)], {"code": [1]}, tmp_path / "bare.shp", None)
    with pytest.raises(InputError, match=r"has no CRS; .*ogr2ogr -a_srs"):
        open_reference(bare, GRID, DEMO)
    placed = on_map([shapely.box(0, 0, 5, 5)], {"code": [1]}, tmp_path / "placed.gpkg", "EPSG:32631")
    with pytest.raises(InputError, match=r"prediction has no CRS, and the reference"):
        open_reference(placed, GeoBox((90, 120), UTM, None), DEMO)
    assert open_reference(bare, GeoBox((90, 120), UTM, None), DEMO).read(WHOLE)[2, 2] == 1
    lines = on_map(
        [shapely.LineString([(0, 0), (5, 5)])], {"code": [1]}, tmp_path / "lines.gpkg", "EPSG:32631"
    )
    with pytest.raises(InputError, match="lines only"):
        open_reference(lines, GRID, DEMO)


def test_several_layers(tmp_path: Path) -> None:
    path = tmp_path / "r.gpkg"
    for name, code in (("one", 1), ("two", 2)):
        frame = geopandas.GeoDataFrame(
            {"code": [code]}, geometry=[shapely.box(3e5, 4.999e6, 3.1e5, 5e6)], crs=32631
        )
        frame.to_file(path, layer=name)
    with pytest.raises(InputError, match="2 layers; say which one by layer: one, two"):
        open_reference(path, GRID, DEMO)
    assert open_reference(path, GRID, DEMO, None, ReferenceOptions(layer="two")).read(WHOLE)[5, 5] == 2


def test_files_that_hold_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "r.geojson").write_text("{}")
    with pytest.raises(InputError, match="can't open the reference"):
        open_reference(tmp_path / "r.geojson", GRID, DEMO)
    with pytest.raises(InputError, match="can't open the reference"):
        open_reference(tmp_path / "absent.gpkg", GRID, DEMO)
    geopandas.pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(InputError, match="Parquet without geometries"):
        open_reference(tmp_path / "table.parquet", GRID, DEMO)
    raster = write(tmp_path / "r.tif", np.ones((90, 120), np.uint8))
    with pytest.raises(
        InputError, match=r"column and outside need polygons, and the reference .*r.tif is a raster"
    ):
        open_reference(raster, GRID, DEMO, None, ReferenceOptions(column="a", outside=1))


def test_part_of_the_features_unusable(tmp_path: Path) -> None:
    path = on_map(
        [shapely.box(0, 0, 5, 5), None, shapely.LineString([(0, 0), (5, 5)])],
        {"code": [1, 1, 1]}, tmp_path / "r.gpkg", "EPSG:32631",
    )  # fmt: skip
    remarks = " ".join(open_reference(path, GRID, DEMO).remarks)
    assert "1 features of" in remarks
    assert "are lines" in remarks


# Rasters on another grid


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    return np.kron(rng.integers(1, 9, (40, 50)), np.ones((4, 5), int)).astype(np.uint8)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32631", UTM * Affine.translation(-20.5, -11.25)),
        ("EPSG:32631", UTM * Affine.scale(0.37)),
        ("EPSG:32631", UTM * Affine.translation(20, 20) * Affine.rotation(31)),
        ("EPSG:32632", Affine(10, 0, -172_000, 0, -10, 5_032_600)),
        ("EPSG:4326", Affine(1.1e-4, 0, 0.458, 0, -1.1e-4, 45.125)),
    ],
)
def test_resampled_is_the_same_in_any_window_and_nearest(
    tmp_path: Path, labels: NDArray[np.uint8], crs: str, transform: Affine
) -> None:
    path = write(tmp_path / "r.tif", labels, crs, transform)
    with pytest.raises(InputError, match="not on one grid"):
        open_reference(path, GRID, DEMO)
    reference = open_reference(path, GRID, DEMO, None, ReferenceOptions(resample=True))
    assert any("resampled" in remark for remark in reference.remarks)
    whole = reference.read(WHOLE)
    for side in (1, 7, 64):
        np.testing.assert_array_equal(in_blocks(reference, GRID.shape, side), whole)
    expected = np.zeros(GRID.shape, np.uint8)
    reproject(
        labels, expected, src_transform=transform, src_crs=crs, dst_transform=UTM, dst_crs="EPSG:32631",
        resampling=Resampling.nearest, tolerance=0,
    )  # fmt: skip
    assert (whole > 0).any()
    assert (whole != expected).mean() < 0.002  # where a centre falls on an edge, both are as near


def test_resampling_needs_an_overlap_too(tmp_path: Path, labels: NDArray[np.uint8]) -> None:
    for crs, transform in (
        ("EPSG:32631", UTM * Affine.translation(500.5, 0)),
        ("EPSG:4326", Affine(1e-4, 0, 12, 0, -1e-4, 45)),
    ):
        path = write(tmp_path / "r.tif", labels, crs, transform)
        with pytest.raises(InputError, match="doesn't overlap"):
            open_reference(path, GRID, DEMO, None, ReferenceOptions(resample=True))


def test_a_much_finer_reference_needs_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = np.random.default_rng(0).integers(1, 9, (900, 1200)).astype(np.uint8)
    path = write(tmp_path / "r.tif", fine, transform=UTM * Affine.scale(0.1))
    reference = open_reference(path, GRID, DEMO, None, ReferenceOptions(resample=True))
    whole = reference.read(WHOLE)
    np.testing.assert_array_equal(whole, fine[5::10, 5::10])
    monkeypatch.setattr("rssegment.reference.rasters._READ_AT_ONCE", 500)
    np.testing.assert_array_equal(reference.read(WHOLE), whole)


def test_a_raster_through_a_mapping(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255, 7]], np.uint8)
    path = write(tmp_path / "r.tif", values, nodata=255)
    grid = GeoBox((1, 4), UTM, "EPSG:32631")
    text = "name: m\ntarget: flair\nclasses: {0: bare, 1: building}\nothers: null\n"
    found = open_reference(path, grid, FLAIR, ClassMapping.loads(text)).read(Box(0, 0, 1, 4))
    assert found.tolist() == [[4, 1, 0, 0]]
    strict = open_reference(path, grid, FLAIR, ClassMapping.loads(text.replace("others: null\n", "")))
    with pytest.raises(InputError, match=r"r.tif has values .* doesn't list: 7 \(1 px\)"):
        strict.read(Box(0, 0, 1, 4))


def test_a_raster_whose_values_have_names(tmp_path: Path) -> None:
    """The mapping of a data set is by name; a raster of it says by categories what its values are."""
    path = write(tmp_path / "r.tif", np.array([[1, 2, 3, 4, 5, 6]], np.uint8), driver="GTiff")
    names = ["", "building", "land", "road", "vegetation", "water", "unlabelled"]
    (tmp_path / "r.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><CategoryNames>"
        + "".join(f"<Category>{name}</Category>" for name in names)
        + "</CategoryNames></PAMRasterBand></PAMDataset>"
    )
    grid = GeoBox((1, 6), UTM, "EPSG:32631")
    found = open_reference(path, grid, FLAIR, ClassMapping.load("dubai_to_flair"))
    assert found.read(Box(0, 0, 1, 6)).tolist() == [[1, 4, 110, 120, 160, 0]]


def test_polygons_that_change_meanwhile(tmp_path: Path) -> None:
    path = on_map([shapely.box(0, 0, 5, 5)], {"code": [1]}, tmp_path / "r.geojson", "EPSG:4326")
    reference = open_reference(path, GRID, DEMO)
    assert reference.read(WHOLE)[2, 2] == 1
    stale = replace(reference.source, layer=None, column="code")  # type: ignore[union-attr, type-var]
    os.utime(path, ns=(1, 1))
    with pytest.raises(ReadError, match=r"reference .*r.geojson changed since"):
        features_on(stale)


def test_rasters_that_can_be_read_as_polygons_too(tmp_path: Path) -> None:
    """A GeoPackage of pixels is a raster."""
    path = tmp_path / "r.gpkg"
    with rasterio.open(
        path,
        "w",
        driver="GPKG",
        count=1,
        height=90,
        width=120,
        dtype="uint8",
        crs="EPSG:32631",
        transform=UTM,
    ) as file:
        file.write(np.full((1, 90, 120), 3, np.uint8))
    with pytest.raises(InputError, match=r"\d bands|grid"):
        open_reference(path, GRID, DEMO)
