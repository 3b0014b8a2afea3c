"""Ground of validation is no ground of training, whatever makes it that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rssegment.errors import InputError
from rssegment.training.cache import PixelCache
from rssegment.training.census import VALIDATION, take_census
from rssegment.training.recipe import Recipe, SplitOptions
from rssegment.training.sources import open_sources
from rssegment.training.split import split_cells
from tests.training.folders import FILES, PICTURES, RGB, TREE, noise, opened, raster


def plan(*sources: dict[str, object]) -> Recipe:
    options = [{"name": f"source{k}", **source} for k, source in enumerate(sources)]
    return Recipe(name="test", taxonomy=TREE.name, bands=RGB, resolution=10.0, sources=options)


def test_a_region_that_is_left_out_may_not_be_trained_on_under_another_name(pair: Path) -> None:
    recipe = plan(*(FILES | {"role": "train", "region": region} for region in ("west", "east")))
    assert len(open_sources(recipe, pair, taxonomy=TREE)) == 2
    with pytest.raises(
        InputError,
        match=r"'source0', role train.* and a_image.tif \(source 'source1', role validation.* show the same image",
    ):
        open_sources(recipe, pair, taxonomy=TREE, leave_out=["east"])


def test_a_region_that_is_left_out_may_not_be_overlapped(pair: Path) -> None:
    raster(pair / "b_image.tif", noise((3, 40, 60), 2))
    raster(pair / "b_image_labels.tif", noise((40, 60), 3) % 11 + 1)
    recipe = plan(FILES | {"role": "split", "region": "{stem}"})
    for region in ("a_image", "b_image"):
        with pytest.raises(InputError, match="show the same ground"):
            open_sources(recipe, pair, taxonomy=TREE, leave_out=[region])


def test_regions_that_are_left_out_are_validated(pair: Path) -> None:
    raster(pair / "far" / "b_image.tif", noise((3, 40, 60), 2), crs="EPSG:32731")
    raster(pair / "far" / "b_image_labels.tif", noise((40, 60), 3) % 11 + 1, crs="EPSG:32731")
    recipe = plan(
        FILES | {"region": "near"}, FILES | {"images": "far/*_image.tif", "labels": "far/{stem}_labels.tif"}
    )
    scenes = open_sources(recipe, pair, taxonomy=TREE, leave_out="near")
    assert [scene.role for scene in scenes] == ["validation", "split"]
    with pytest.raises(InputError, match="no region n to leave out; the recipe has near, source1"):
        open_sources(recipe, pair, taxonomy=TREE, leave_out="n")
    with pytest.raises(InputError, match="none is left to train on"):
        open_sources(recipe, pair, taxonomy=TREE, leave_out=["near", "source1"])


def test_one_file_in_two_sources_is_split_alike(pair: Path, pictures: Path) -> None:
    raster(pair / "a_image.tif", noise((3, 200, 180)))
    raster(pair / "a_image_labels.tif", noise((200, 180), 1) % 11 + 1)
    for root, files in ((pair, FILES), (pictures, PICTURES)):
        one, other = (
            [scene for scene in opened(root, files, files | {"bands": ("red", "-", "blue")}, optional_bands=("green",))
             if scene.source == name]
            for name in ("source0", "source1")
        )  # fmt: skip
        scenes = [*one, *other]
        census = take_census(scenes, TREE, PixelCache(None, (), 0))
        found = split_cells(scenes, census, SplitOptions(block=320, gap=0, validation=0.5), 0)
        for first, second in zip(found.roles[: len(one)], found.roles[len(one) :], strict=True):
            assert np.array_equal(first, second)
        assert census.area(found.roles, VALIDATION) > 0


def test_scenes_know_their_place(pair: Path, pictures: Path) -> None:
    (scene,) = opened(pair, FILES)
    assert scene.geobox is not None
    assert scene.geobox.shape == scene.shape
    assert [each.geobox for each in opened(pictures, PICTURES)] == [None, None]
