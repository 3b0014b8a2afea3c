"""Data of a recipe: what is normalised by, and what is shown."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from rssegment.training.data import TrainingData, spread
from rssegment.training.recipe import Recipe
from rssegment.training.sources import open_sources
from tests.scene.conftest import UTM
from tests.training.folders import TREE, raster
from tests.training.trainings import RGBN, a_land, a_recipe, a_source, land


def opened(country: Path, work: Path, recipe: Recipe) -> TrainingData:
    return TrainingData.open(recipe, TREE, open_sources(recipe, country, taxonomy=TREE), work)


def test_constants_are_round_and_what_is_normalised_by(country: Path, tmp_path: Path) -> None:
    data = opened(country, tmp_path, a_recipe())
    assert all(value == round(value, 3) for pair in data.constants for value in pair)
    prepare = data.prepare()
    means, stds = zip(*data.constants, strict=True)
    assert prepare.means.flatten().tolist() == pytest.approx(means, rel=1e-6)
    assert prepare.stds.flatten().tolist() == pytest.approx(stds, rel=1e-6)


def test_parts_of_the_validation_leave_the_whole_alone(country: Path, tmp_path: Path) -> None:
    data = opened(country, tmp_path, a_recipe())
    count = len(data.validation)
    parts = [data.validation_batches(rank, 2, False) for rank in range(2)]
    assert sum(len(part.dataset.windows) for part in parts) == count  # type: ignore[attr-defined]
    assert len(data.validation) == count
    assert data.validation is data.validation


def test_windows_of_all_regions_are_shown(tmp_path: Path) -> None:
    country = a_land(tmp_path / "land")
    values, labels = land((96, 96), 5)
    place = UTM * Affine.translation(0, 3000)
    raster(country / "east.tif", values, names=RGBN, nodata=0, transform=place)
    raster(country / "east_labels.tif", labels, transform=place)
    sources = [a_source(name, role="validation") for name in ("north", "south")]
    recipe = a_recipe(sources=[a_source("east", role="train"), *sources], overlap=0)
    data = opened(country, tmp_path, recipe)
    assert list(data.shown().regions) == ["north"] * 4 + ["south"] * 4
    assert list(data.shown(1).regions) == ["north"]
    assert data.shown().scored.flatten(1).any(1).all()


@given(st.integers(1, 40), st.integers(1, 12))
def test_spread_items(count: int, most: int) -> None:
    found = spread(range(count), most)
    assert found == sorted(set(found))
    assert len(found) == min(count, most)
    assert found[0] == 0
    steps = [b - a for a, b in pairwise(found)]
    assert not steps or max(steps) - min(steps) <= 1
