"""The split: gaps, shares, classes, reproducibility."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import InputError
from rssegment.training.cache import PixelCache
from rssegment.training.census import TRAIN, UNUSED, VALIDATION, Census, take_census
from rssegment.training.recipe import SplitOptions
from rssegment.training.split import Split, split_cells
from tests.training.scenes import TREE, ArrayScene, random_scene


def counted(*scenes: ArrayScene) -> Census:
    return take_census(scenes, TREE, PixelCache(None, (), 0))


def split(scenes: list[ArrayScene], seed: int = 0, **options: float) -> Split:
    return split_cells(scenes, counted(*scenes), SplitOptions(**options), seed)  # type: ignore[arg-type]


def nearest(roles: np.ndarray, cell: int, shape: tuple[int, int]) -> float:
    """Distance (px) between the centres of the nearest training and validation pixels, by looking at their edges."""
    places = {}
    for role in (TRAIN, VALIDATION):
        rows, cols = np.nonzero(roles == role)
        stops = [np.minimum((each + 1) * cell, side) for each, side in zip((rows, cols), shape, strict=True)]
        places[role] = [(rows * cell, stops[0] - 1), (cols * cell, stops[1] - 1)]
    apart = []
    for axis in range(2):
        (low, high), (other_low, other_high) = places[TRAIN][axis], places[VALIDATION][axis]
        apart.append(
            np.maximum(0, np.maximum(other_low[None] - high[:, None], low[:, None] - other_high[None]))
        )
    return float(np.hypot(*apart).min()) if apart[0].size else np.inf


@settings(max_examples=25)
@given(
    st.tuples(st.integers(100, 900), st.integers(100, 900)),
    st.floats(20, 300),
    st.floats(0, 120),
    st.sampled_from([0.4, 1.0, 2.0]),
    st.integers(0, 5),
)
def test_no_training_pixel_is_nearer_than_the_gap(
    shape: tuple[int, int], block: float, gap: float, resolution: float, seed: int
) -> None:
    scene = random_scene(shape, seed, resolution=resolution)
    census = counted(scene)
    try:
        roles = split_cells([scene], census, SplitOptions(block=block, gap=gap), seed).roles[0]
    except InputError as error:
        assert "left to train on" in str(error)  # noqa: PT017 - either answer is right
        return
    assert (roles == TRAIN).any()
    assert nearest(roles, census.cell, shape) * resolution >= gap
    if (roles == UNUSED).any():
        assert gap > 0


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_validation_has_its_share_in_all_and_of_each_class(share: float) -> None:
    scenes = [random_scene((1600, 1500), n, name=f"s{n}") for n in range(3)]
    census = counted(*scenes)
    roles = split_cells(scenes, census, SplitOptions(validation=share, block=100, gap=0), 3).roles
    held, kept = census.pixels(roles, VALIDATION), census.pixels(roles, TRAIN)
    assert held.sum() / (held + kept).sum() == pytest.approx(share, abs=0.01)
    assert (held / (held + kept)).tolist() == pytest.approx([share] * 7, abs=0.03)


def test_a_class_of_two_blocks_is_in_both_and_one_of_a_single_block_is_trained_on() -> None:
    labels = np.full((1280, 1280), 3, np.uint16)
    labels[10:100, 10:100] = labels[900:990, 500:590] = 5
    labels[330:400, 650:700] = 7
    for seed in range(8):
        scene = replace(random_scene((1280, 1280)), labels=labels)
        census = counted(scene)
        roles = split_cells([scene], census, SplitOptions(block=160, gap=0), seed).roles
        held, kept = census.pixels(roles, VALIDATION), census.pixels(roles)
        assert held[4] > 0
        assert kept[4] > 0
        assert (held[6], kept[6]) == (0, 3500)


def test_the_same_seed_gives_the_same_and_another_another() -> None:
    scenes = [random_scene((900, 900), name="a")]
    one, again, other = (split(scenes, seed).roles[0] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_source_is_split_alike_whatever_else_there_is() -> None:
    mine = random_scene((900, 900), 1, name="a", source="mine")
    other = random_scene((900, 900), 2, name="b", source="other")
    assert np.array_equal(split([mine]).roles[0], split([other, mine]).roles[1])


def test_blocks_are_whole_and_anchored_in_the_scene() -> None:
    scene = random_scene((1000, 1000))
    roles = split([scene], block=128.0, gap=10.0).roles[0]
    held = roles == VALIDATION
    for row in range(0, 32, 4):
        for col in range(0, 32, 4):
            assert held[row : row + 4, col : col + 4].all() == held[row : row + 4, col : col + 4].any()


def test_scenes_with_a_role_are_wholly_that() -> None:
    scenes = [
        random_scene((300, 300), n, name=role, role=role) for n, role in enumerate(("train", "validation"))
    ]
    found = split(scenes)
    assert [np.unique(roles).tolist() for roles in found.roles] == [[TRAIN], [VALIDATION]]
    assert found.remarks == ()


def test_a_scene_that_is_too_small_to_be_divided_is_trained_on_and_that_is_told() -> None:
    found = split([random_scene((150, 120))])
    assert (found.roles[0] == TRAIN).all()
    assert "source source: too few blocks of 150 m" in found.remarks[0]
    assert "no labelled ground is kept for validation" in found.remarks[-1]


def test_small_pictures_are_taken_whole() -> None:
    scenes = [random_scene((150, 120), n, name=f"s{n}") for n in range(60)]
    found = split(scenes, seed=2)
    kinds = [np.unique(roles).tolist() for roles in found.roles]
    assert all(kind in ([TRAIN], [VALIDATION]) for kind in kinds)
    assert kinds.count([VALIDATION]) == pytest.approx(12, abs=1)
    assert found.remarks == ()


def test_no_validation_is_wanted() -> None:
    found = split([random_scene((900, 900))], validation=0)
    assert (found.roles[0] == TRAIN).all()


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="left to train on"):
        split([random_scene((900, 900))], validation=1)
    with pytest.raises(InputError, match="left to train on"):
        split([random_scene((300, 300), role="validation")])


def test_ground_without_labels_is_no_share() -> None:
    scene = random_scene((1280, 640))
    scene.labels[640:] = 0
    census = counted(scene)
    roles = split_cells([scene], census, SplitOptions(block=80, gap=0), 0).roles
    held = census.pixels(roles, VALIDATION).sum()
    assert held / (held + census.pixels(roles).sum()) == pytest.approx(0.2, abs=0.02)
    assert not (roles[0][20:] == VALIDATION).any()
