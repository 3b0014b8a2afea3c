"""What doesn't fit is refused, with words that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from rssegment.errors import InputError, MismatchError, ReadError, SceneError
from tests.scene.conftest import UTM
from tests.training.folders import (
    FILES,
    PICTURES,
    RED,
    WEST,
    geojson,
    noise,
    opened,
    painted,
    picture,
    raster,
    whole,
)


def test_labels_that_lie_elsewhere_are_refused(pair: Path) -> None:
    raster(
        pair / "a_image_labels.tif", np.ones((40, 60), np.uint8), transform=UTM @ Affine.translation(100, 0)
    )
    with pytest.raises(
        MismatchError, match=r"don't lie on the image .*501000 to 501600 .* in EPSG:32633, and the image 5"
    ):
        opened(pair, FILES)
    raster(pair / "a_image_labels.tif", np.ones((40, 60), np.uint8), crs="EPSG:32634")
    with pytest.raises(MismatchError, match=r"don't lie on the image .* in EPSG:32634, and .* in EPSG:32633"):
        opened(pair, FILES)


def test_a_resolution_that_nobody_can_mean(pair: Path, pictures: Path) -> None:
    with pytest.raises(
        MismatchError,
        match=r"a_image.tif of source 'source0' has 40 x 60 px \(rows x cols\) of 10 m, and would have 4e\+11 x "
        r"6e\+11 at the recipe's resolution of 1e-09 m; give a resolution",
    ):
        opened(pair, FILES, resolution=1e-9)
    with pytest.raises(MismatchError, match="would have inf x inf at"):
        opened(pair, FILES, resolution=1e-320)
    with pytest.raises(MismatchError, match=r"has 30 x 20 px .* of 1e[+]03 m, and would have 3e[+]06 x"):
        opened(pictures, PICTURES | {"resolution": 1e3}, resolution=0.01)
    (scene,) = opened(pair, FILES, resolution=0.5)  # much finer than the file, and no more than that
    assert scene.shape[0] // 10 == 80


def test_labels_of_another_size_need_a_place(pictures: Path, pair: Path) -> None:
    picture(pictures / "a" / "masks" / "part.png", painted(np.ones((29, 20), int), {1: RED}))
    with pytest.raises(
        MismatchError, match=r"have 29 x 20 px .* has 30 x 20; since the image isn't georeferenced"
    ):
        opened(pictures, PICTURES)
    picture(pair / "a_image.png", np.ones((41, 60)))
    with pytest.raises(MismatchError, match=r"41 x 60 px .* since they have no CRS"):
        opened(pair, FILES | {"labels": "{stem}.png"})


def test_classes_that_the_taxonomy_lacks_are_named_with_the_nearest(pair: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"source 'source0': 1 means 'bilding', and .* has no class 'bilding'; it has building",
    ):
        opened(pair, FILES | {"mapping": {1: "bilding"}})
    with pytest.raises(
        InputError,
        match=r"source 'source0': no mapping is called 'flair_to_land' \(did you mean 'flair_to_landcover'",
    ):
        opened(pair, FILES | {"mapping": "flair_to_land"})


def test_values_that_mean_nothing_are_counted(pair: Path) -> None:
    codes = np.ones((40, 60), np.uint8)
    codes[20:22, 30] = 77
    raster(pair / "a_image_labels.tif", codes)
    with pytest.raises(
        InputError, match=r"no codes of taxonomy 'landcover': 77 \(2 px\); give the source a 'mapping'"
    ):
        opened(pair, FILES)
    with pytest.raises(InputError, match=r"doesn't list: 77 \(2 px\)"):
        opened(pair, FILES | {"mapping": {1: "building"}})


def test_a_source_without_any_label_is_refused(pair: Path) -> None:
    with pytest.raises(InputError, match="no pixel of the 1 images of source 'source0' has a label"):
        opened(pair, FILES | {"mapping": dict.fromkeys(range(1, 12))})


def test_pictures_of_colors_need_a_mapping_of_colors(pictures: Path) -> None:
    with pytest.raises(InputError, match=r"are a picture of 3 bands.*'\"#3C1098\": building'"):
        opened(pictures, PICTURES | {"mapping": {1: "building"}})


def test_a_mapping_gives_one_class_to_a_color(pictures: Path) -> None:
    with pytest.raises(InputError, match="two classes to the colour #ff0000"):
        opened(pictures, PICTURES | {"mapping": {"#FF0000": "building", "#ff0000": "water"}})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            {"images": "*_picture.tif"},
            r"no image of source 'source0' matches .*\*_picture.tif; .* holds a_image.tif",
        ),
        ({"images": "scenes/*.tif"}, "no such folder below"),
        ({"images": None}, "doesn't say where its images are"),
        ({"labels": None}, "doesn't say where its labels are"),
        ({"labels": "{zone}.tif"}, "there is no {zone}; expected {stem}, {folder} or {parent}"),
        ({"labels": "{stem}*.tif"}, "2 files match the labels"),
        (
            {"labels": "{stem}_truth.tif"},
            r"1 of 1 images of source 'source0' have no labels:\n.*a_image_truth.tif",
        ),
        ({"folder": "x"}, "of kind rasters, which has no use for 'folder'"),
        ({"outside": "bare"}, "no use for 'outside'.*coco_instances or polygons"),
        ({"region": "{place}"}, "region of source 'source0' is '{place}'"),
    ],
)
def test_files_that_are_not_there(pair: Path, source: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        opened(pair, FILES | source)


def test_names_with_signs_of_the_shell_are_names(tmp_path: Path) -> None:
    raster(tmp_path / "a[1]" / "x_image.tif", noise((3, 5, 5)))
    raster(tmp_path / "a[1]" / "x_image_labels.tif", np.ones((5, 5), np.uint8))
    (scene,) = opened(tmp_path, {"images": "**/*_image.tif", "labels": "{folder}/{stem}_labels.tif"})
    assert scene.name == "a[1]/x_image.tif"


def test_vector_labels_of_rasters_and_rasters_of_polygons(pair: Path) -> None:
    geojson(pair / "land.geojson", [(WEST, {})])
    with pytest.raises(InputError, match="are polygons; set its kind to 'polygons'"):
        opened(pair, FILES | {"kind": "rasters", "labels": "land.geojson"})
    with pytest.raises(
        InputError, match="no polygons or points that can be read; a raster is of kind 'rasters'"
    ):
        opened(pair, FILES | {"kind": "polygons", "label": "built"})


def test_a_truncated_picture_is_an_error_of_its_own_name(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg", noise((200, 200, 3)), quality=95)
    picture(tmp_path / "masks" / "a.png", np.ones((200, 200)))
    path.write_bytes(path.read_bytes()[:5000])
    (scene,) = opened(tmp_path, {"images": "*.jpg", "labels": "masks/{stem}.png"})
    with pytest.raises(ReadError, match=r"can't read rows .* of a\.jpg: ") as caught:
        whole(scene)
    assert "vrt://" not in str(caught.value)
    assert "a_srs" not in str(caught.value)


def test_a_file_that_is_no_picture_is_an_error_of_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a picture")
    picture(tmp_path / "masks" / "a.png", np.ones((20, 20)))
    with pytest.raises(SceneError, match=r"a\.jpg"):
        opened(tmp_path, {"images": "*.jpg", "labels": "masks/{stem}.png"})
