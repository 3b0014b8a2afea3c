"""Data of a recipe: what is normalised by, and what is shown."""

from __future__ import annotations

from dataclasses import replace
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
    shown = data.shown().scored.flatten(1)
    assert shown.any(1).all()
    sizes = {region: [] for region in data.regions}  # type: dict[str, list[int]]
    for batch in data.validation_batches(0, 1, False):
        for region, scored in zip(batch.regions, batch.scored, strict=True):
            sizes[region].append(int(scored.sum()))
    for region, scored in zip(data.shown().regions, shown, strict=True):
        assert 2 * int(scored.sum()) >= max(sizes[region])


def test_what_is_left_out_is_scored_in_the_end_alone(country: Path, tmp_path: Path) -> None:
    recipe = a_recipe(sources=[a_source(name, role="validation") for name in ("north", "south")])
    scenes = open_sources(recipe, country, taxonomy=TREE)
    whole = TrainingData.open(a_recipe(), TREE, open_sources(a_recipe(), country, taxonomy=TREE), tmp_path)
    assert whole.watched == whole.regions == ("south",)
    both = replace(whole, scenes=scenes, roles=(whole.roles[1].max() + 0 * whole.roles[0], whole.roles[1]))
    assert both.regions == both.watched == ("north", "south")
    data = replace(both, left_out=frozenset({"north"}))
    assert (data.regions, data.watched) == (("north", "south"), ("south",))
    seen = [
        region for batch in data.validation_batches(0, 1, False, data.watched) for region in batch.regions
    ]
    assert set(seen) == {"south"}
    assert {r for batch in data.validation_batches(0, 1, False) for r in batch.regions} == {"north", "south"}
    assert replace(both, left_out=frozenset({"north", "south"})).watched == ("north", "south")


@given(st.integers(1, 40), st.integers(1, 12))
def test_spread_items(count: int, most: int) -> None:
    found = spread(range(count), most)
    assert found == sorted(set(found))
    assert len(found) == min(count, most)
    assert found[0] == 0
    steps = [b - a for a, b in pairwise(found)]
    assert not steps or max(steps) - min(steps) <= 1
