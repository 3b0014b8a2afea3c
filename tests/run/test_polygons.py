"""``vectorize``: any label raster to polygons."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

import rssegment as rs
from rssegment.config import PolygonOptions
from rssegment.errors import InputError, OutputError, SceneError, SettingsError
from rssegment.grid import ground_resolution
from rssegment.taxonomy import Taxonomy
from rssegment.vector import Regions, Simplification
from rssegment.vector.attributes import attributes
from rssegment.vector.ground import pixel_area
from rssegment.write.features import REGION_SCHEMA
from rssegment.write.formats import FORMATS
from rssegment.write.shapefile import FIELDS
from tests.run.conftest import TREE, smooth_noise
from tests.vector.engine import Cut, Scene, traced
from tests.vector.reference import expected
from tests.vector.test_clean import cleaned as cleaned_whole

AFFINE = Affine(2, 0, 500000, 0, -2, 4800000)


def write_labels(path: Path, values: NDArray[np.integer], **profile: object) -> Path:
    defaults: dict[str, object] = {
        "driver": "GTiff",
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "dtype": values.dtype.name,
        "crs": "EPSG:32631",
        "transform": AFFINE,
    }
    with rasterio.open(path, "w", **(defaults | profile)) as file:
        file.write(values, 1)
    return path


def some_labels(dtype: str = "uint8") -> NDArray[np.integer]:
    fields = np.stack([smooth_noise((150, 210), seed, 4) for seed in range(4)])
    return fields.argmax(0).astype(dtype)


def read(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return json.loads(path.read_text())["features"]


def codes_of(features: list[dict]) -> Counter[int]:  # type: ignore[type-arg]
    return Counter(each["properties"]["code"] for each in features)


def expected_codes(
    labels: NDArray[np.integer], mask: NDArray[np.bool_], connectivity: int = 4
) -> Counter[int]:
    shapes = rasterio.features.shapes(labels.astype("int32"), mask, connectivity)
    return Counter(int(code) for _, code in shapes)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_regions_and_their_sizes(tmp_path: Path, connectivity: int) -> None:
    labels = some_labels()
    path = write_labels(tmp_path / "l.tif", labels)
    result = rs.vectorize(path, tmp_path / "r.geojson", connectivity=connectivity)
    features = read(tmp_path / "r.geojson")
    assert codes_of(features) == expected_codes(labels, labels != 0, connectivity)
    assert result.counts["regions"] == len(features)
    assert sum(each["properties"]["pixels"] for each in features) == (labels != 0).sum()
    assert features[0]["properties"]["name"] == f"class {features[0]['properties']['code']}"
    assert features[0]["properties"]["confidence"] is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32"])
def test_zero_is_a_class_where_another_value_is_no_data(tmp_path: Path, dtype: str) -> None:
    labels = some_labels(dtype)
    path = write_labels(tmp_path / "l.tif", labels, nodata=3)
    rs.vectorize(path, tmp_path / "r.geojson")
    assert codes_of(read(tmp_path / "r.geojson")) == expected_codes(labels, labels != 3)
    rs.vectorize(path, tmp_path / "other.geojson", nodata=1)
    assert codes_of(read(tmp_path / "other.geojson")) == expected_codes(labels, labels != 1)


def test_negative_and_large_codes(tmp_path: Path) -> None:
    labels = np.array([-7, 0, 70000, 1_000_000], "int32")[some_labels("int32")]
    path = write_labels(tmp_path / "l.tif", labels)
    rs.vectorize(path, tmp_path / "r.geojson")
    assert codes_of(read(tmp_path / "r.geojson")) == expected_codes(labels, labels != 0)


def test_confidence_is_the_mean_over_the_region(tmp_path: Path) -> None:
    labels = np.array([[1, 1, 2], [1, 1, 2]], "uint8")
    sureness = np.array([[254, 127, 255], [254, 127, 255]], "uint8")
    path = write_labels(tmp_path / "l.tif", labels)
    rs.vectorize(
        path, tmp_path / "r.geojson", confidence=write_labels(tmp_path / "c.tif", sureness, nodata=255)
    )
    assert [each["properties"]["confidence"] for each in read(tmp_path / "r.geojson")] == [0.75, None]


def test_confidence_on_another_grid_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "l.tif", some_labels())
    other = write_labels(tmp_path / "c.tif", some_labels()[:-1])
    with pytest.raises(SceneError, match="isn't on the pixel grid"):
        rs.vectorize(path, tmp_path / "r.geojson", confidence=other)


def test_confidence_of_another_type_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "l.tif", some_labels())
    other = write_labels(tmp_path / "c.tif", np.full((150, 210), 300, "uint16"))
    with pytest.raises(SceneError, match=r"uint16; expected one band of uint8"):
        rs.vectorize(path, tmp_path / "r.geojson", confidence=other)


def test_a_grid_larger_than_the_earth_is_refused(tmp_path: Path) -> None:
    profile = {"crs": "EPSG:4326", "transform": Affine(2, 0, -181, 0, -2, 90)}
    path = write_labels(tmp_path / "l.tif", np.ones((90, 185), "uint8"), **profile)
    with pytest.raises(InputError, match="more than the Earth has"):
        rs.vectorize(path, tmp_path / "r.geojson")
    assert not (tmp_path / "r.geojson").exists()


def test_taxonomy_names_the_regions(tmp_path: Path, tree: Taxonomy) -> None:
    path = write_labels(tmp_path / "l.tif", np.array([[3, 10]], "uint8"))
    rs.vectorize(path, tmp_path / "r.geojson", taxonomy=tree)
    properties = [each["properties"] for each in read(tmp_path / "r.geojson")]
    assert [(p["name"], p["level"], p["path"]) for p in properties] == [
        ("roof", 3, "land/town/roof"),
        ("land", 1, "land"),
    ]
    assert properties[0]["area_m2"] == pytest.approx(4 / 0.9996**2, rel=1e-3)


def test_a_code_that_the_taxonomy_lacks(tmp_path: Path, tree: Taxonomy) -> None:
    path = write_labels(tmp_path / "l.tif", np.array([[3, 99]], "uint8"))
    with pytest.raises(InputError, match=r"holds 99, which taxonomy 'toy' lacks"):
        rs.vectorize(path, tmp_path / "r.geojson", taxonomy=tree)
    assert not (tmp_path / "r.geojson").exists()


def test_names_and_colours_of_a_run_are_used(tmp_path: Path) -> None:
    """A class map of our own has its names beside it, so it needs no taxonomy."""
    from rssegment.scene import LabelRaster
    from tests.write.test_rasters import COLORS, NAMES, codes, grid, label_kind, write_all

    path = write_all(tmp_path, codes((30, 40)), 16, label_kind(COLORS, NAMES), grid((30, 40)))
    raster = LabelRaster.open(path)
    assert raster.names[1] == "a & <b>"
    assert raster.colors[7] == (0, 0, 200)
    rs.vectorize(path, tmp_path / "r.geojson")
    assert {each["properties"]["name"] for each in read(tmp_path / "r.geojson")} == {"a & <b>", "c", "d"}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_crs_coordinates_are_pixels(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "l.tif", np.array([[0, 5]], "uint8"), crs=None)
    result = rs.vectorize(path, tmp_path / "r.geojson")
    assert "no CRS" in result.warnings[0]
    (feature,) = read(tmp_path / "r.geojson")
    assert feature["properties"]["area_m2"] is None
    xs, ys = np.array(feature["geometry"]["coordinates"][0]).T
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (1, 2, 0, 1)


@pytest.mark.parametrize(
    ("values", "profile", "words"),
    [
        (np.zeros((5, 5), "uint8"), {}, "no class"),
        (np.full((5, 5), 9, "uint8"), {"nodata": 9}, "no class"),
        (np.ones((5, 5), "float32"), {}, "whole numbers"),
        (np.arange(70_000, dtype="int32").reshape(200, 350), {}, "more than 65535"),
    ],
    ids=["all zero", "all no data", "float", "too many classes"],
)
def test_what_is_no_label_raster(tmp_path: Path, values, profile, words: str) -> None:  # type: ignore[no-untyped-def]
    path = write_labels(tmp_path / "l.tif", values, **profile)
    with pytest.raises(SceneError, match=words):
        rs.vectorize(path, tmp_path / "r.geojson")
    assert not (tmp_path / "r.geojson").exists()


def test_several_bands_are_refused(tmp_path: Path, scene: Path) -> None:
    with pytest.raises(SceneError, match="3 bands"):
        rs.vectorize(scene, tmp_path / "r.geojson")
    with pytest.raises(SceneError, match="nowhere"):
        rs.vectorize(tmp_path / "nowhere.tif", tmp_path / "r.geojson")


def test_what_it_will_not_write(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "l.tif", some_labels())
    (tmp_path / "there.geojson").write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        rs.vectorize(path, tmp_path / "there.geojson")
    assert (tmp_path / "there.geojson").read_text() == "precious"
    with pytest.raises(OutputError, match="suffix"):
        rs.vectorize(path, tmp_path / "r.dxf")
    with pytest.raises(OutputError, match="can't write"):
        rs.vectorize(path, tmp_path / "nowhere" / "r.geojson")
    with pytest.raises(InputError, match="connectivity"):
        rs.vectorize(path, tmp_path / "r.geojson", connectivity=6)
    (tmp_path / "folder.geojson").mkdir()
    with pytest.raises(OutputError, match="folder"):
        rs.vectorize(path, tmp_path / "folder.geojson")


def test_real_labels(data: Path, tmp_path: Path) -> None:
    path = data / "flair_d034" / "Z4_UU_val_labels.tif"
    result = rs.vectorize(path, tmp_path / "r.geojson", taxonomy="flair")
    with rasterio.open(path) as file:
        labels = file.read(1)
    assert codes_of(read(tmp_path / "r.geojson")) == expected_codes(labels, labels != 0)
    assert sum(each["area_m2"] for each in result.counts["classes"]) == pytest.approx(
        512 * 204.8, rel=2e-3
    )  # the projection stretches by as much


# ---------------------------------------------------------------- all formats, all options, held against the pixels


def paths_of(folder: Path, names: Any = FORMATS) -> list[Path]:
    return [folder / f"r{FORMATS[name].suffixes[0]}" for name in names]


def frame_of(path: Path) -> geopandas.GeoDataFrame:
    frame = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)
    frame = frame.rename(columns={short: name for name, short in FIELDS.items()})
    return frame.sort_values("id").reset_index(drop=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Landscape:
    """Labels of a taxonomy, leaves and inner nodes, with no data in the middle and at the edge, and values."""

    def __init__(self, folder: Path) -> None:
        rows, cols = np.indices((150, 210))
        codes = np.array([1, 2, 3, 4, 5, 11, 10, 1], np.uint8)
        fields = np.stack([smooth_noise(rows.shape, seed, 2.5) for seed in range(codes.size)])
        self.labels = codes[fields.argmax(0)]
        self.labels[rows + cols < 60] = 0
        self.labels[(rows - 80) ** 2 + (cols - 120) ** 2 < 300] = 0
        rng = np.random.default_rng(0)
        self.confidence, self.margin = (rng.integers(0, 256, rows.shape).astype(np.uint8) for _ in range(2))
        self.path = write_labels(folder / "l.tif", self.labels)
        self.choices = {
            "confidence": write_labels(folder / "c.tif", self.confidence, nodata=255),
            "margin": write_labels(folder / "m.tif", self.margin, nodata=255),
        }

    def regions(
        self,
        tree: Taxonomy,
        labels: NDArray[np.uint8],
        connectivity: int,
        how: Simplification | None,
        levels: Any,
    ) -> list[Regions]:
        scene = Scene(labels.astype(np.uint16), self.confidence, self.margin)
        codes = [(level, None if level == tree.depth else tree.ancestor_lookup(level)) for level in levels]
        return traced(scene, Cut(400), connectivity, how, codes or [(None, None)])


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Landscape:
    return Landscape(tmp_path_factory.mktemp("landscape"))


EVERYTHING: dict[str, Any] = {
    "min_area": "20px", "fill_holes": "30px", "simplify": "1.2px", "smooth": 1, "levels": "all", "taxonomy": TREE,
}  # fmt: skip
CHOICES: dict[str, dict[str, Any]] = {
    "plain": {},
    "connectivity 8": {"connectivity": 8, "simplify": 3, "method": "dp"},
    "everything": EVERYTHING,
    "everything, connectivity 8": EVERYTHING | {"connectivity": 8, "min_area": 70, "levels": (1, 3)},
}


def run(landscape: Landscape, out: Any, choices: dict[str, Any], **more: Any) -> rs.VectorResult:
    text = choices.get("taxonomy")
    tree = {} if text is None else {"taxonomy": Taxonomy.loads(text)}
    return rs.vectorize(landscape.path, out, **(landscape.choices | choices | tree | more))


@pytest.mark.parametrize("name", CHOICES)
def test_bytes_do_not_depend_on_the_blocks(landscape: Landscape, tmp_path: Path, name: str) -> None:
    """In any format, nor on which formats are written beside it."""
    found = []
    for block in (16, 37, 64, 500) if name == "everything" else (37, 64, 500):
        folder = tmp_path / str(block)
        folder.mkdir()
        result = run(landscape, paths_of(folder), CHOICES[name], block=block)
        assert list(result.paths) == list(FORMATS)
        found.append(contents(folder))
        assert found[-1].keys() == found[0].keys()
        for file, content in found[-1].items():
            assert content == found[0][file], (block, file)
    assert {Path(file).suffix for file in found[0]} == {
        suffix for each in FORMATS.values() for suffix in (each.suffixes[0], *each.companions)
    }
    if name != "everything":
        return
    for each in FORMATS:
        alone = tmp_path / each
        alone.mkdir()
        run(landscape, paths_of(alone, [each])[0], CHOICES[name])
        assert contents(alone).items() <= found[0].items(), each


@pytest.mark.parametrize("connectivity", [4, 8])
def test_the_whole_way_is_what_its_parts_promise(
    landscape: Landscape, tmp_path: Path, connectivity: int
) -> None:
    """Cleaned as the whole raster would be, then simplified, by level, with all statistics, in every format."""
    tree = Taxonomy.loads(TREE)
    choices = EVERYTHING | {"connectivity": connectivity}
    result = run(landscape, paths_of(tmp_path), choices, block=64)
    labels = cleaned_whole(landscape.labels.astype(np.uint16), 20, 30, connectivity)
    assert not np.array_equal(labels, landscape.labels)
    layers = landscape.regions(tree, labels, connectivity, Simplification(1.2, "vw", 1), (1, 2, 3))
    crs = "EPSG:32631"
    tables = [attributes(each, tree, AFFINE, crs, level=k) for k, each in enumerate(layers, 1)]
    shapes = np.concatenate([each.to_shapely(AFFINE) for each in layers])
    assert result.counts["regions"] == len(shapes)
    for name in FORMATS:
        if name == "pmtiles":
            continue
        frame = frame_of(result.paths[name])
        assert list(frame.columns.drop("geometry")) == list(REGION_SCHEMA)
        for column in REGION_SCHEMA:
            known = np.ma.concatenate([np.ma.asarray(table[column]) for table in tables])
            found = frame[column]
            if known.dtype.kind == "f" or np.ma.is_masked(known):
                filled = known.astype(float).filled(np.nan)
                np.testing.assert_allclose(
                    found.astype(float), filled, rtol=1e-12, err_msg=f"{name} {column}"
                )
            else:
                assert found.tolist() == known.tolist(), (name, column)
        geometries = frame.geometry.to_numpy()
        if FORMATS[name].place == "native":
            assert frame.crs == crs
            assert shapely.equals(geometries, shapes).all(), name
            for level in (1, 2, 3):
                assert shapely.coverage_is_valid(shapely.get_parts(geometries[frame["level"] == level]))
        else:
            assert frame.crs == "EPSG:4326"
            back = frame.to_crs(crs).geometry.to_numpy()
            assert shapely.hausdorff_distance(back, shapes).max() < 0.02, name
            assert shapely.is_valid(geometries).all()


def test_options_by_name_or_all_at_once(landscape: Landscape, tmp_path: Path) -> None:
    options = PolygonOptions(connectivity=8, simplify="1.5px", min_area="10px")
    metres = 1.5 * ground_size_of_pixels(landscape.path)
    for name, choices in (
        ("a", {"options": options}),
        ("b", {"connectivity": 8, "simplify": "1.5px", "min_area": "10px"}),
        (
            "c",
            {
                "options": PolygonOptions(connectivity=8, simplify=99),
                "simplify": "1.5 px",
                "min_area": "10px",
            },
        ),
        ("d", {"options": options, "simplify": metres}),
        ("e", {"options": options, "min_area": None}),
    ):
        rs.vectorize(landscape.path, tmp_path / f"{name}.geojson", **choices)
    found = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert found["a"] == found["b"] == found["c"] == found["d"]
    assert found["e"] != found["a"]


def ground_size_of_pixels(path: Path) -> float:
    with rasterio.open(path) as file:
        x, y = ground_resolution(GeoBox(file.shape, file.transform, file.crs))
    return float(np.sqrt(x * y))


# ------------------------------------------------------------------------------------------- the traps of others


def test_coordinates_are_degrees_and_pixel_edges(tmp_path: Path) -> None:
    """Neither metres of a UTM zone in GeoJSON, nor half a pixel beside the raster."""
    labels = np.zeros((4, 5), "uint8")
    labels[1:3, 2:4] = 7
    path = write_labels(tmp_path / "l.tif", labels)
    rs.vectorize(path, [tmp_path / "r.geojson", tmp_path / "r.gpkg"])
    assert tuple(frame_of(tmp_path / "r.gpkg").total_bounds) == (500004, 4799994, 500008, 4799998)
    (feature,) = read(tmp_path / "r.geojson")
    lon, lat = np.array(feature["geometry"]["coordinates"][0]).T
    assert ((lon > 3) & (lon < 3.001)).all()
    assert ((lat > 43.3) & (lat < 43.4)).all()


@pytest.mark.parametrize("nodata", [255, 0, 3])
def test_no_data_is_no_polygon(tmp_path: Path, nodata: int) -> None:
    labels = some_labels()
    labels[30:70, 20:160] = nodata
    path = write_labels(tmp_path / "l.tif", labels, nodata=nodata)
    rs.vectorize(path, tmp_path / "r.geojson", block=32)
    features = read(tmp_path / "r.geojson")
    assert nodata not in codes_of(features)
    assert sum(each["properties"]["pixels"] for each in features) == (labels != nodata).sum()
    inside = shapely.Point(AFFINE @ (90, 50) if hasattr(Affine, "__matmul__") else AFFINE * (90, 50))
    frame = geopandas.read_file(tmp_path / "r.geojson").to_crs(32631)
    assert not frame.contains(inside).any()


def test_a_region_over_the_dateline_is_not_round_the_world(tmp_path: Path) -> None:
    profile = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, 175, 0, -0.5, 10)}
    path = write_labels(tmp_path / "l.tif", np.ones((10, 20), "uint8"), **profile)
    rs.vectorize(path, tmp_path / "r.geojson", block=16)
    (feature,) = read(tmp_path / "r.geojson")
    assert feature["geometry"]["type"] == "MultiPolygon"
    longitudes = np.concatenate([np.array(p[0])[:, 0] for p in feature["geometry"]["coordinates"]])
    assert (np.abs(longitudes) >= 175).all()
    assert np.abs(longitudes).max() == 180
    assert feature["properties"]["area_m2"] == pytest.approx(100 * 111320 * 110600 * 0.5, rel=0.02)


def test_a_region_is_measured_before_it_is_dropped(tmp_path: Path) -> None:
    """Its parts in the blocks are each below the least area."""
    labels = np.ones((64, 64), "uint8")
    labels[28:36, 28:36] = 2
    path = write_labels(tmp_path / "l.tif", labels)
    for least, kept in (("64px", True), ("65px", False), (250, True), (260, False)):
        rs.vectorize(path, tmp_path / "r.geojson", block=32, min_area=least, overwrite=True)
        assert (2 in codes_of(read(tmp_path / "r.geojson"))) == kept, least


def test_areas_are_square_metres_in_degrees_too(tmp_path: Path) -> None:
    """A grid from 0 to 75 degrees north, whose pixels differ by 4: each region is measured where it is."""
    affine = Affine(0.25, 0, 10, 0, -0.25, 75)
    fields = np.stack([smooth_noise((300, 80), seed, 2) for seed in range(4)])
    labels = fields.argmax(0).astype("uint8")
    path = write_labels(tmp_path / "l.tif", labels, crs="EPSG:4326", transform=affine)
    region, hole = 6e9, 2e10
    result = rs.vectorize(path, tmp_path / "r.gpkg", block=64, min_area=region, fill_holes=hole)
    area = pixel_area(affine, "EPSG:4326", *expected(labels).first.T)
    assert area.max() > 3 * area.min()
    known = expected(cleaned_whole(labels.astype(np.uint16), region / area, hole / area))
    frame = frame_of(tmp_path / "r.gpkg")
    assert frame["code"].tolist() == known.code.tolist()
    assert frame["pixels"].tolist() == known.sums[:, 0].tolist()
    assert result.counts["regions"] < 0.7 * expected(labels).code.size


def test_metres_are_pixels_of_the_ground(tmp_path: Path, landscape: Landscape) -> None:
    """2 m a pixel; Web Mercator's metres at 43 degrees north are 1.37 on its map."""
    scale = 1 / np.cos(np.deg2rad(43.35))
    mercator = Affine(2 * scale, 0, 334000, 0, -2 * scale, 5362000)
    path = write_labels(tmp_path / "l.tif", landscape.labels, crs="EPSG:3857", transform=mercator)
    frames = []
    for source in (path, landscape.path):
        rs.vectorize(source, tmp_path / "r.gpkg", min_area=200, overwrite=True)
        frames.append(frame_of(tmp_path / "r.gpkg"))
    assert frames[0]["pixels"].tolist() == frames[1]["pixels"].tolist()
    assert frames[0]["area_m2"].min() > 195


def test_cleaning_keeps_what_it_must(landscape: Landscape, tmp_path: Path) -> None:
    """Regions with neighbours are large enough, no data is as it was, confidence is that of the pixels."""
    run(landscape, tmp_path / "r.gpkg", {"min_area": "50px"}, block=37)
    frame = frame_of(tmp_path / "r.gpkg")
    labels = cleaned_whole(landscape.labels.astype(np.uint16), 50)
    known = expected(labels, 4, landscape.confidence, landscape.margin)
    assert frame["pixels"].tolist() == known.sums[:, 0].tolist()
    assert frame["pixels"].sum() == (landscape.labels != 0).sum()
    np.testing.assert_allclose(frame["confidence"], known.sums[:, 1] / known.sums[:, 2] / 254, atol=5.1e-5)
    np.testing.assert_allclose(frame["confidence_min"], known.least / 254, atol=5.1e-5)
    np.testing.assert_allclose(frame["margin"], known.sums[:, 3] / known.sums[:, 4] / 254, atol=5.1e-5)
    assert frame["touches_nodata"].tolist() == ((known.touches & 1) > 0).tolist()
    assert frame["touches_edge"].tolist() == ((known.touches & 2) > 0).tolist()
    assert frame["touches_nodata"].any()
    assert not frame["touches_nodata"].all()


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"simplfy": 1}, "simplfy"),
        ({"min_area": "-3"}, "min_area = '-3'.*0 or more, of square metres"),
        ({"min_area": "x"}, "min_area = 'x'"),
        ({"min_area": "3 ha"}, "min_area = '3 ha'"),
        ({"min_area": "20m"}, "min_area = '20m'"),
        ({"fill_holes": float("nan")}, "fill_holes"),
        ({"fill_holes": True}, "fill_holes"),
        ({"simplify": "-1px"}, "simplify = '-1px'.*metres"),
        ({"simplify": "1.5m2"}, "simplify = '1.5m2'"),
        ({"simplify": "1.2.3"}, "simplify = '1.2.3'"),
        ({"simplify": float("inf")}, "simplify"),
        ({"simplify": ""}, "simplify"),
        ({"simplify": "100000px"}, "simplify is 100000 px"),
        ({"method": "fast"}, "method = 'fast'.*'vw' or 'dp'"),
        ({"smooth": 4}, "smooth = 4.*3"),
        ({"smooth": -1}, "smooth = -1"),
        ({"connectivity": 6}, "connectivity = 6.*4 or 8"),
        ({"levels": (1, 4)}, "level 4 was asked for; the taxonomy has levels 1 to 3"),
        ({"levels": (1, 1)}, "levels = .*once"),
        ({"levels": ()}, "levels"),
        ({"levels": (0,)}, "levels = .*counted from 1"),
        ({"levels": "some"}, "levels = 'some'.*'all'"),
        ({"levels": "all", "taxonomy": None}, "levels need a taxonomy"),
        ({"block": 0}, "block is 0"),
        ({"formats": ("gpkg",)}, "suffixes"),
    ],
    ids=str,
)
def test_options_that_cannot_be(
    landscape: Landscape, tmp_path: Path, tree: Taxonomy, choices: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        rs.vectorize(landscape.path, tmp_path / "r.geojson", **({"taxonomy": tree} | choices))
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("choices", [{"min_area": 20}, {"fill_holes": 20}, {"simplify": 2}], ids=str)
def test_metres_need_a_crs(tmp_path: Path, choices: dict[str, Any]) -> None:
    path = write_labels(tmp_path / "l.tif", some_labels(), crs=None)
    with pytest.raises(
        SettingsError, match=r"needs a CRS of the Earth, which the raster lacks; give it in pixels"
    ):
        rs.vectorize(path, tmp_path / "r.gpkg", **choices)
    in_pixels = {name: f"{size}px" for name, size in choices.items()}
    assert "no CRS" in rs.vectorize(path, tmp_path / "r.gpkg", **in_pixels).warnings[0]
    frame = frame_of(tmp_path / "r.gpkg")
    assert frame["area_m2"].isna().all()
    assert frame["pixels"].sum() == np.count_nonzero(some_labels())


def test_outputs_that_cannot_be(landscape: Landscape, tmp_path: Path) -> None:
    for out, words in (
        ([tmp_path / "a.geojson", tmp_path / "b.json"], "are of one format"),
        ([], "no file to write"),
        ([tmp_path / "a.geojson", tmp_path / "b.tif"], "suffix '.tif'"),
        (tmp_path / "missing" / "r.shp", "no folder"),
    ):
        with pytest.raises(OutputError, match=words):
            rs.vectorize(landscape.path, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".shx", ".dbf", ".prj", ".cpg"])
def test_companions_of_a_shapefile_are_not_replaced(
    landscape: Landscape, tmp_path: Path, suffix: str
) -> None:
    companion = tmp_path / f"r{suffix}"
    companion.write_text("precious")
    with pytest.raises(OutputError, match=f"r{suffix} exists already"):
        rs.vectorize(landscape.path, tmp_path / "r.shp")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]
    rs.vectorize(landscape.path, tmp_path / "r.shp", overwrite=True)
    assert companion.read_bytes() != b"precious"
    assert len(frame_of(tmp_path / "r.shp")) > 0


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where nobody may write")
def test_a_folder_where_nobody_may_write(landscape: Landscape) -> None:
    with pytest.raises(OutputError, match="can't write"):
        rs.vectorize(landscape.path, "/proc/r.geojson")


def failing(*_: Any, **__: Any) -> Any:
    raise InputError("boom")


@pytest.mark.parametrize("where", ["trace_block", "knit", "attributes", "write_vectors", "cleaned"])
def test_nothing_is_left_after_an_error(
    landscape: Landscape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither outputs nor traces; an earlier result stays."""
    module = {"trace_block": "traces", "knit": "traces", "cleaned": "polygons"}.get(where, "regions")
    monkeypatch.setattr(f"rssegment.run.{module}.{where}", failing)
    (tmp_path / "r.shp").write_text("earlier")
    with pytest.raises(InputError, match="boom"):
        rs.vectorize(landscape.path, paths_of(tmp_path), min_area="5px", block=64, overwrite=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"r.shp": "earlier"}


def test_an_error_on_the_way_leaves_nothing(
    landscape: Landscape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When half of the features are written already."""
    calls = iter(range(10**6))

    def later(*arguments: Any, **more: Any) -> Any:
        if next(calls) > 2:
            raise InputError("boom")
        return attributes(*arguments, **more)

    monkeypatch.setattr("rssegment.run.regions.attributes", later)
    with pytest.raises(InputError, match="boom"):
        rs.vectorize(landscape.path, paths_of(tmp_path), block=16)
    assert not list(tmp_path.iterdir())


def test_a_raster_that_is_damaged_in_the_middle(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(1, 5, (600, 600)).astype("uint8")
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    path = write_labels(tmp_path / "l.tif", labels, **tiled)
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff" * 200)
    with pytest.raises(rs.errors.ReadError, match=r"l\.tif"):
        rs.vectorize(path, tmp_path / "r.geojson", block=128)
    assert [each.name for each in tmp_path.iterdir()] == ["l.tif"]


# ------------------------------------------------------------------------------------------- processes that end


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels that take some seconds."""
    labels = np.random.default_rng(0).integers(1, 5, (1200, 1200)).astype("uint8")
    return write_labels(tmp_path_factory.mktemp("large") / "l.tif", labels)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "rssegment.cli", "vectorize", *map(str, arguments)]


def traces_in(folder: Path) -> bool:
    return any(folder.glob(".*/trace/*.npz"))


def output_in(folder: Path) -> bool:
    return any(path.stat().st_size for path in folder.glob(".*/r.geojson"))


def started(arguments: list[str], folder: Path, reached: Callable[[Path], bool]) -> subprocess.Popen[str]:
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not reached(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None
    return process


@pytest.mark.parametrize("reached", [traces_in, output_in])
def test_a_killed_process_leaves_no_file_that_looks_whole(
    large: Path, tmp_path: Path, reached: Callable[[Path], bool]
) -> None:
    process = started(command(large, tmp_path / "r.geojson", "--block", 200, "-q"), tmp_path, reached)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("reached", [traces_in, output_in])
def test_ctrl_c_leaves_nothing(
    large: Path, tmp_path: Path, number: int, reached: Callable[[Path], bool]
) -> None:
    process = started(command(large, tmp_path / "r.geojson", "--block", 200, "-q"), tmp_path, reached)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip() == "rssegment: stopped"
    assert not list(tmp_path.iterdir())
