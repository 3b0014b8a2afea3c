"""The sampler: windows as a pure function of their number, in the shares that are wanted."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.training.cache import PixelCache
from rssegment.training.census import TRAIN, UNUSED, VALIDATION, Census, Roles, take_census
from rssegment.training.recipe import Recipe
from rssegment.training.sampling import Sampler, cells_mask
from rssegment.training.split import split_cells
from tests.training.scenes import TREE, ArrayScene, random_scene


def recipe(
    sources: tuple[str, ...] = ("source",), weights: tuple[float | None, ...] = (None,), **more: Any
) -> Recipe:
    sample = {"patch": 64, **more.pop("sample", {})}
    listed = [{"name": n, "weight": w} for n, w in zip(sources, weights, strict=True)]
    return Recipe(
        name="test",
        taxonomy="t",
        bands=("r", "g", "b"),
        resolution=1.0,
        sources=listed,
        sample=sample,
        **more,
    )


def counted(scenes: list[ArrayScene]) -> Census:
    return take_census(scenes, TREE, PixelCache(None, (), 0))


def all_train(census: Census) -> Roles:
    return tuple(np.full(scene.counts.shape[:2], TRAIN, np.uint8) for scene in census.scenes)


def sampler(scenes: list[ArrayScene], plan: Recipe | None = None, roles: Roles | None = None) -> Sampler:
    census = counted(scenes)
    return Sampler(census, all_train(census) if roles is None else roles, plan or recipe())


def test_a_window_is_a_function_of_seed_and_number() -> None:
    scenes = [random_scene((500, 400), n, name=f"s{n}") for n in range(3)]
    one, again, other = sampler(scenes), sampler(scenes), sampler(scenes, recipe(seed=1))
    windows = [one.window(k) for k in range(200)]
    assert windows == [again.window(k) for k in reversed(range(200))][::-1]
    copy = pickle.loads(pickle.dumps(one))
    assert windows == [copy.window(k) for k in range(200)]
    assert len(set(windows)) > 190
    assert sum(a == other.window(k) for k, a in enumerate(windows)) < 5
    assert one.window(3, 1) != one.window(3)
    assert one.window(2**40) != one.window(2**40 + 1)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from([32, 40, 64, 100]),
    st.floats(1, 2),
    st.integers(0, 9),
    st.booleans(),
)
def test_windows_hold_labelled_training_ground_and_stay_in_the_scene(
    shape: tuple[int, int], patch: int, scale: float, seed: int, divided: bool
) -> None:
    scene = random_scene(shape, seed)
    scene.labels[0, 0] = 3
    census = counted([scene])
    roles = all_train(census)
    if divided:
        roles[0][:] = np.random.default_rng(seed).integers(0, 3, roles[0].shape)
        roles[0][0, 0] = TRAIN
    plan = recipe(sample={"patch": patch}, augment={"scale": scale}, seed=seed)
    found = Sampler(census, roles, plan)
    labelled = (roles[0] == TRAIN) & (census.scenes[0].labelled > 0)
    for k in range(40):
        scene_number, box = found.window(k)
        assert scene_number == 0
        assert box.shape == (plan.window, plan.window)
        rows, cols = np.nonzero(labelled)
        # a cell of labelled training ground lies wholly inside
        assert any(
            Box(r * 32, c * 32, 32, 32).clip(Box.of(shape)).clip(box).shape
            == Box(r * 32, c * 32, 32, 32).clip(Box.of(shape)).shape
            for r, c in zip(rows.tolist(), cols.tolist(), strict=True)
        )
        reach = (plan.window - patch) // 2
        for start, stop, length in ((box.row, box.stop_row, shape[0]), (box.col, box.stop_col, shape[1])):
            if length >= plan.window - 2 * reach:  # the patch in the middle lies in the scene
                assert start >= -reach
                assert stop <= length + reach
            else:  # all of a small scene in the patch
                assert start + reach <= 0
                assert stop - reach >= length


@settings(max_examples=30)
@given(st.integers(0, 9), st.floats(0, 60))
def test_masks_leave_training_ground_only(seed: int, gap: float) -> None:
    scene = random_scene((700, 600), seed)
    census = counted([scene])
    plan = recipe(split={"block": 100, "gap": gap}, seed=seed)
    roles = split_cells([scene], census, plan.split, seed).roles
    found = Sampler(census, roles, plan)
    whole = cells_mask(roles[0], TRAIN, 32, Box.of(scene.shape))
    assert np.array_equal(whole, (roles[0].repeat(32, 0).repeat(32, 1)[:700, :600] == TRAIN))
    for k in range(30):
        window = found.window(k)
        inside = window.box.clip(Box.of(scene.shape))
        mask = found.mask(window, inside)
        assert np.array_equal(whole[inside.slices], np.ones(inside.shape, bool) if mask is None else mask)


def test_windows_of_training_ground_alone_are_preferred() -> None:
    scene = random_scene((1600, 1600))
    census = counted([scene])
    roles = split_cells([scene], census, recipe().split, 0).roles
    found = Sampler(census, roles, recipe())
    boxes = [found.window(k) for k in range(500)]
    masked = sum(found.mask(window, window.box.clip(Box.of(scene.shape))) is not None for window in boxes)
    assert masked < 150


def test_uniform_windows_go_by_labelled_area() -> None:
    scene = random_scene((640, 640))
    scene.labels[:, :] = 0
    scene.labels[:320, :320] = 3  # a quarter full
    scene.labels[320:, 320:].reshape(-1)[::4] = 3  # another one to a quarter
    scene.labels[320:, 320:] = np.where(np.add.outer(np.arange(320), np.arange(320)) % 4 == 0, 3, 0)
    found = sampler([scene], recipe(sample={"patch": 32, "balance": 0}, augment={"scale": 1}))
    middles = np.array([(w.box.row + 16, w.box.col + 16) for w in map(found.window, range(4000))])
    first = (middles < 320).all(1).mean()
    assert first == pytest.approx(0.8, abs=0.03)
    inner = middles[(middles < 320).all(1)] // 64
    shares = np.bincount(inner[:, 0] * 5 + inner[:, 1], minlength=25) / len(inner)
    assert shares.tolist() == pytest.approx([1 / 25] * 25, abs=0.02)


def test_balance_draws_rare_classes_by_the_root_of_their_rarity() -> None:
    # classes in stripes of whole cells that are no neighbours of each other's windows
    labels = np.zeros((32 * 100, 64), np.uint16)
    labels[: 32 * 81] = 3
    labels[32 * 81 : 32 * 97] = 5
    labels[32 * 97 :] = 7
    scene = replace(random_scene((3200, 64)), labels=labels)
    census = counted([scene])
    found = Sampler(
        census, all_train(census), recipe(sample={"patch": 32, "balance": 1}, augment={"scale": 1})
    )
    tally = np.zeros(8)
    for k in range(4000):
        box = found.window(k).box
        tally[labels[min(box.row + 16, 3199), 0]] += 1
    wanted = np.array([1 / 0.9, 1 / 0.4, 1 / np.sqrt(0.03) * 6 / 16])
    assert (tally[[3, 5, 7]] / 4000).tolist() == pytest.approx((wanted / wanted.sum()).tolist(), abs=0.03)


def test_a_class_is_drawn_uniformly_over_its_pixels() -> None:
    labels = np.full((640, 640), 3, np.uint16)
    labels[:32, :32] = 5  # 1024 pixels in one cell
    labels[320:640:32, 320:640:32] = 5  # one pixel in each of 100
    labels[321:640:32, 320:640:32] = 5
    scene = replace(random_scene((640, 640)), labels=labels)
    census = counted([scene])
    found = Sampler(
        census, all_train(census), recipe(sample={"patch": 32, "balance": 1}, augment={"scale": 1})
    )
    source = found.sources[0]
    cells = source.classes[1]
    drawn = [cells.draw(x) for x in np.random.default_rng(0).random(3000)]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(1024 / 1224, abs=0.03)


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ((None, None), (0.8, 0.2)),
        ((0.5, None), (0.5, 0.5)),
        ((3.0, 1.0), (0.75, 0.25)),
        ((0.1, 0.1), (0.5, 0.5)),
    ],
)
def test_sources_have_their_shares(weights: tuple[float | None, ...], shares: tuple[float, ...]) -> None:
    scenes = [
        random_scene((640, 640), 1, name="a", source="one"),
        random_scene((320, 320), 1, name="b", source="two"),
    ]
    for scene in scenes:
        scene.labels[:] = 3
    found = sampler(scenes, recipe(("one", "two"), weights))
    assert found.shares.tolist() == pytest.approx(shares)
    counts = np.bincount([found.window(k).scene for k in range(3000)], minlength=2) / 3000
    assert counts.tolist() == pytest.approx(shares, abs=0.03)


def test_area_is_of_ground_not_of_pixels() -> None:
    scenes = [
        random_scene((320, 320), 1, name="a", source="one", resolution=0.5),
        random_scene((320, 320), 1, name="b", source="two", resolution=1.0),
    ]
    assert sampler(scenes, recipe(("one", "two"), (None, None))).shares.tolist() == pytest.approx([0.2, 0.8])


def test_weights_that_leave_nothing_are_refused() -> None:
    scenes = [random_scene((64, 64), 1, name=n, source=n) for n in ("one", "two")]
    with pytest.raises(InputError, match=r"add up to 1, which leaves nothing for two"):
        sampler(scenes, recipe(("one", "two"), (1.0, None)))


def test_sources_without_training_ground_are_left_out() -> None:
    scenes = [random_scene((320, 320), n, name=str(n), source=str(n)) for n in range(3)]
    scenes[0].labels[:] = 0
    census = counted(scenes)
    roles = all_train(census)
    roles[1][:] = VALIDATION
    found = Sampler(census, roles, recipe(("0", "1", "2"), (0.7, 0.6, None)))
    assert {found.window(k).scene for k in range(50)} == {2}
    roles[2][:] = UNUSED
    with pytest.raises(InputError, match="no labelled ground to train on"):
        Sampler(census, roles, recipe())


def test_all_ground_up_to_the_edges_is_seen_by_patches() -> None:
    scene = random_scene((300, 260))
    found = sampler([scene], recipe(sample={"balance": 0}))
    seen = np.zeros(scene.shape, int)
    margin = (found.side - 64) // 2
    for k in range(1500):
        patch = Box(found.window(k).box.row + margin, found.window(k).box.col + margin, 64, 64)
        seen[patch.clip(Box.of(scene.shape)).slices] += 1
    assert seen.min() > 0
    assert seen[:8].mean() > seen.mean() / 5
