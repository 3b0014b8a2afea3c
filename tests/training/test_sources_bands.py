"""What the bands of images are, and scenes that travel."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine

from rssegment.errors import InputError, MismatchError
from rssegment.grid import Box
from tests.scene.conftest import UTM
from tests.training.folders import (
    FILES,
    PICTURES,
    POLYGONS,
    RGB,
    WEST,
    geojson,
    noise,
    opened,
    raster,
    whole,
)


def test_bands_are_found_by_name_or_by_order(tmp_path: Path) -> None:
    values = noise((4, 10, 10))
    raster(tmp_path / "a_image.tif", values, names=["nir", "red", "green", "blue"])
    raster(tmp_path / "a_image_labels.tif", np.ones((10, 10), np.uint8))
    (scene,) = opened(tmp_path, FILES)
    assert np.array_equal(whole(scene).values, values[1:])
    (scene,) = opened(tmp_path, FILES | {"bands": ("blue", "-", "green", "red")})
    assert np.array_equal(whole(scene).values, values[[3, 2, 0]])


def test_bands_that_may_be_missing_are_0_where_they_are(pair: Path) -> None:
    four: dict[str, Any] = {"bands": (*RGB, "nir"), "optional_bands": ("nir",)}
    (scene,) = opened(pair, FILES | {"bands": RGB}, **four)
    assert scene.present == (True, True, True, False)
    found = whole(scene)
    assert found.values.shape == (4, 40, 60)
    assert not found.values[3].any()
    assert np.array_equal(found.values[:3], noise((3, 40, 60)))


def test_a_fourth_band_marked_as_transparency_is_data_if_it_is_named(tmp_path: Path) -> None:
    values = noise((4, 10, 10))
    values[3, 0, 0] = 0
    raster(tmp_path / "a_image.tif", values, colors=["red", "green", "blue", "alpha"])
    raster(tmp_path / "a_image_labels.tif", np.ones((10, 10), np.uint8))
    (scene,) = opened(tmp_path, FILES, bands=(*RGB, "nir"))
    assert np.array_equal(whole(scene).values, values)
    (scene,) = opened(tmp_path, FILES)
    assert not whole(scene).valid[0, 0]


@pytest.mark.parametrize(
    ("source", "recipe", "words"),
    [
        ({"bands": ("red", "gren", "blue")}, {}, "band 'gren'.*red, green, blue; did you mean 'green'"),
        ({"bands": ("red", "red", "blue")}, {}, "names the band 'red' twice"),
        (
            {"bands": RGB},
            {"bands": (*RGB, "nir")},
            "has no nir; its bands are red, green, blue.*optional_bands",
        ),
        ({}, {"bands": (*RGB, "nir")}, "has 3 bands .* names no bands, and the recipe has 4"),
        ({"bands": ("red", "green")}, {"bands": RGB}, "has 3 bands .* names 2 bands"),
        ({"bands": (*RGB, "-")}, {}, r"has 3 bands .* names 4 bands \(red, green, blue, -\)"),
    ],
)
def test_bands_that_do_not_fit(
    pair: Path, source: dict[str, Any], recipe: dict[str, Any], words: str
) -> None:
    with pytest.raises(MismatchError, match=words):
        opened(pair, FILES | source, **recipe)


def test_values_of_several_types_are_refused(pair: Path) -> None:
    raster(pair / "b_image.tif", noise((3, 40, 60)).astype(np.uint16))
    raster(pair / "b_image_labels.tif", np.ones((40, 60), np.uint8))
    with pytest.raises(MismatchError, match=r"2 types: uint8, as a_image.tif .*; uint16, as b_image.tif"):
        opened(pair, FILES)


def test_ground_that_is_trained_on_validates_nothing(pair: Path) -> None:
    raster(pair / "b_picture.tif", noise((3, 30, 30)), transform=UTM @ Affine.translation(30, 20))
    raster(
        pair / "b_picture_labels.tif", np.ones((30, 30), np.uint8), transform=UTM @ Affine.translation(30, 20)
    )
    other = {"images": "b_picture.tif", "labels": "{stem}_labels.tif"}
    with pytest.raises(
        InputError,
        match=r"a_image.tif .*role train.* and b_picture.tif .*role validation.* show the same ground, 66.7%",
    ):
        opened(pair, FILES | {"role": "train"}, other | {"role": "validation"})
    assert len(opened(pair, FILES | {"role": "train"}, other | {"role": "train"})) == 2
    raster(pair / "b_picture.tif", noise((3, 30, 30)), transform=UTM @ Affine.translation(60, 0))
    raster(
        pair / "b_picture_labels.tif", np.ones((30, 30), np.uint8), transform=UTM @ Affine.translation(60, 0)
    )
    assert len(opened(pair, FILES | {"role": "train"}, other | {"role": "validation"})) == 2


def test_one_picture_has_one_role(pictures: Path) -> None:
    with pytest.raises(InputError, match="show the same image"):
        opened(pictures, PICTURES | {"role": "train"}, PICTURES | {"role": "split"})


def test_fingerprints_follow_content_and_meaning(pictures: Path, pair: Path) -> None:
    def of(source: dict[str, Any], **recipe: Any) -> str:
        return opened(pair, source, **recipe)[0].fingerprint

    first = of(FILES)
    assert first == of(FILES | {"name": "renamed", "role": "train", "credit": "x"})
    assert first != of(FILES | {"mapping": dict.fromkeys(range(1, 12), "built")})
    assert first != of(FILES, resolution=20.0)
    raster(pair / "a_image_labels.tif", noise((40, 60), 5) % 11 + 1)
    changed = of(FILES)
    assert changed != first
    raster(pair / "a_image.tif", noise((3, 40, 60), 9))
    assert of(FILES) != changed


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_scenes_travel_to_workers(pair: Path, pictures: Path, method: str) -> None:
    geojson(pair / "land.geojson", [(WEST, {})])
    sources = [FILES, POLYGONS | {"label": "built"}, PICTURES | {"images": "a/images/*.png"}]
    scenes = [*opened(pair, *sources[:2]), *opened(pictures, sources[2])]
    read = methodcaller("read", Box(1, 2, 9, 8))
    here = list(map(read, scenes))
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        there = list(pool.map(read, scenes))
    for one, other in zip(here, there, strict=True):
        assert np.array_equal(one.values, other.values)
        assert np.array_equal(one.labels, other.labels)
    assert all(pickle.loads(pickle.dumps(scene)) == scene for scene in scenes)
