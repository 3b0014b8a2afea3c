"""``vectorize``: any label raster to polygons."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
from affine import Affine
from numpy.typing import NDArray

import rssegment as rs
from rssegment.errors import InputError, OutputError, SceneError
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import smooth_noise


def write_labels(path: Path, values: NDArray[np.integer], **profile: object) -> Path:
    defaults: dict[str, object] = {
        "driver": "GTiff",
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "dtype": values.dtype.name,
        "crs": "EPSG:32631",
        "transform": Affine(2, 0, 500000, 0, -2, 4800000),
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


def test_bytes_do_not_depend_on_the_blocks(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "l.tif", some_labels())
    written = set()
    for block in (16, 37, 64, 500):
        rs.vectorize(path, tmp_path / "r.geojson", block=block, overwrite=True)
        written.add((tmp_path / "r.geojson").read_bytes())
    assert len(written) == 1


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
    with pytest.raises(SceneError, match="different grids"):
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
