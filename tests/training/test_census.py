"""The census against numpy on whole scenes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import InputError, ReadError
from rssegment.grid import Box
from rssegment.training.cache import PixelCache
from rssegment.training.census import TRAIN, UNUSED, VALIDATION, Census, Roles, take_census
from tests.training.scenes import TREE, ArrayScene, random_scene

DIRECT = PixelCache(None, (), 0)


def same(one: Census, other: Census) -> bool:
    return one.key == other.key and all(
        np.array_equal(a.counts, b.counts) and np.array_equal(a.sums, b.sums) and a.shape == b.shape
        for a, b in zip(one.scenes, other.scenes, strict=True)
    )


def roles_of(census: Census, seed: int = 0) -> Roles:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 3, scene.counts.shape[:2]).astype(np.uint8) for scene in census.scenes)


def pixels_in(roles: np.ndarray, role: int, census: Census, scene: ArrayScene) -> np.ndarray:
    rows, cols = (np.arange(side) // census.cell for side in scene.shape)
    valid = np.ones(scene.shape, bool) if scene.valid is None else scene.valid
    return (roles[np.ix_(rows, cols)] == role) & valid


SCENES = st.builds(
    random_scene,
    st.tuples(st.integers(1, 600), st.integers(1, 200)),
    st.integers(0, 99),
    st.just(2),
    st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"]),
)


@settings(max_examples=25)
@given(st.lists(SCENES, min_size=1, max_size=3), st.integers(0, 9))
def test_counts_and_statistics_are_those_of_the_pixels(scenes: list[ArrayScene], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [
        replace(scene, name=str(n), valid=rng.random(scene.shape) < 0.8) for n, scene in enumerate(scenes)
    ]
    scenes[0].labels[0, 0], scenes[0].valid[0, 0] = 7, True  # type: ignore[index]
    census = take_census(scenes, TREE, DIRECT)
    roles = roles_of(census, seed)
    roles[0][0, 0] = TRAIN
    for role in (UNUSED, TRAIN, VALIDATION):
        parts = [s.labels[pixels_in(r, role, census, s)] for s, r in zip(scenes, roles, strict=True)]
        counted = np.bincount(np.concatenate(parts), minlength=8)[1:8]
        assert census.pixels(roles, role).tolist() == counted.tolist()
        assert census.area(roles, role) == counted.sum()
    found = census.statistics(roles)
    for band in range(2):
        values = np.concatenate(
            [s.values[band][pixels_in(r, TRAIN, census, s)] for s, r in zip(scenes, roles, strict=True)]
        ).astype(float)
        got = found.mean[band], found.std[band], found.low[band], found.high[band], found.pixels[band]
        wanted = values.mean(), values.std(), values.min(), values.max(), len(values)
        assert got == pytest.approx(wanted, rel=1e-9, abs=1e-5)


def test_threads_cache_and_order_of_reading_change_nothing(tmp_path: Path) -> None:
    scenes = [random_scene((1100, 700), n, 3, "float32", name=f"s{n}") for n in range(2)]
    for scene in scenes:
        scene.values[:] += np.random.default_rng(1).random(scene.values.shape)
    one = take_census(scenes, TREE, DIRECT, threads=1)
    many = take_census(scenes, TREE, PixelCache(tmp_path, scenes, 1 << 30), threads=7)
    assert same(one, many)
    roles = roles_of(one)
    assert one.statistics(roles).mean.tobytes() == many.statistics(roles).mean.tobytes()
    assert one.statistics(roles).std.tobytes() == many.statistics(roles).std.tobytes()


def test_a_cache_is_full_afterwards(tmp_path: Path) -> None:
    scene = random_scene((1100, 700))
    cache = PixelCache(tmp_path, [scene], 1 << 30)
    take_census([scene], TREE, cache)
    scene.reads.clear()
    cache.read(scene, Box(300, 200, 800, 500))
    assert not scene.reads


def test_a_census_is_taken_once(tmp_path: Path) -> None:
    scenes = [random_scene((100, 90), n, name=f"s{n}") for n in range(2)]
    path = tmp_path / "census.npz"
    first = take_census(scenes, TREE, DIRECT, path=path)
    for scene in scenes:
        scene.reads.clear()
    again = take_census(scenes, TREE, DIRECT, path=path)
    assert same(first, again)
    assert not any(scene.reads for scene in scenes)
    other = [scenes[0], random_scene((100, 90), 7)]
    assert not same(first, take_census(other, TREE, DIRECT, path=path))
    assert other[1].reads
    assert Census.load(path, scenes, TREE) is None


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_file_is_made_anew(content: bytes | None, tmp_path: Path) -> None:
    scenes = [random_scene((100, 90))]
    path = tmp_path / "census.npz"
    first = take_census(scenes, TREE, DIRECT, path=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert same(first, take_census(scenes, TREE, DIRECT, path=path))
    assert Census.load(path, scenes, TREE) is not None


def test_progress_is_told_in_blocks() -> None:
    told: list[tuple[str, int, int, int]] = []
    take_census([random_scene((600, 100))], TREE, DIRECT, lambda *args: told.append(args), threads=1)
    assert [each[1:3] for each in told] == [(1, 2), (2, 2)]
    assert told[-1][3] == 60_000


def test_a_band_that_some_scenes_lack_is_measured_in_others() -> None:
    scenes = [random_scene((64, 64), 1, name="a", missing=(2,)), random_scene((64, 96), 2, name="b")]
    census = take_census(scenes, TREE, DIRECT)
    roles = tuple(np.full(scene.counts.shape[:2], TRAIN, np.uint8) for scene in census.scenes)
    found = census.statistics(roles)
    assert found.pixels.tolist() == [64 * 160, 64 * 160, 64 * 96]
    assert found.mean[2] == pytest.approx(scenes[1].values[2].mean())
    with pytest.raises(InputError, match="no training ground has band 3 of the recipe: leave"):
        census.statistics((roles[0], roles[1] * 0))
    with pytest.raises(InputError, match="no training ground has band nir: leave"):
        census.statistics((roles[0], roles[1] * 0), ("red", "green", "nir"))


def test_scenes_without_labels_are_told_by_name() -> None:
    bare = replace(random_scene((64, 64)), labels=np.zeros((64, 64), np.uint16), name="bare")
    full = random_scene((64, 64), name="full")
    assert take_census([full, bare], TREE, DIRECT).remarks == (
        "no pixel has a label in bare: of no use for training",
    )
    with pytest.raises(InputError, match="no pixel of bare has both data and a label"):
        take_census([bare], TREE, DIRECT)
    with pytest.raises(InputError, match="no labelled scene"):
        take_census([], TREE, DIRECT)


def test_pixels_without_data_count_for_nothing() -> None:
    scene = random_scene((64, 64), valid=np.zeros((64, 64), bool))
    with pytest.raises(InputError, match="both data and a label"):
        take_census([scene], TREE, DIRECT)


def test_what_is_no_class_and_what_is_no_number_is_refused() -> None:
    odd = random_scene((64, 64), name="odd")
    odd.labels[5, 5] = 99
    with pytest.raises(InputError, match="odd has the label 99"):
        take_census([odd], TREE, DIRECT)
    bright = random_scene((600, 64), dtype="float32", name="bright")
    bright.values[1, 520, 5] = np.inf
    with pytest.raises(InputError, match=r"bright holds values in rows 512 to 599.*infinite"):
        take_census([bright], TREE, DIRECT)


@pytest.mark.parametrize("value", [1e38, -3.4e38, -np.finfo(np.float32).max, 9.97e36, 1e20, -1e10])
@pytest.mark.parametrize("share", ["pixel", "collar", "everywhere", "most"])
def test_fill_that_nobody_declared_is_refused(value: float, share: str) -> None:
    scenes = [
        random_scene((100, 200), n, 2, "float32", name=f"s{n}", source="away", role="train") for n in range(2)
    ]
    for scene in scenes:
        scene.values[:] /= 255
    where = {"pixel": np.s_[70, 40], "collar": np.s_[64:, :50], "everywhere": np.s_[::16, ::16]}
    scenes[1].values[1][where.get(share, np.s_[64:, :])] = value
    if share == "most":
        scenes[0].values[1] = value
    census = take_census(scenes, TREE, DIRECT)
    roles = tuple(np.full(scene.counts.shape[:2], TRAIN, np.uint8) for scene in census.scenes)
    place = {"pixel": r"rows 64 to 95, columns 32 to 63", "collar": "rows 64 to 95, columns 0 to 31"}
    named = f"s{int(share != 'most')} of source 'away' has the value {np.float32(value):g} in band nir, "
    with pytest.raises(InputError) as caught:
        census.statistics(roles, ("red", "nir"))
    assert str(caught.value).startswith(named + place.get(share, "rows 0 to 31, columns 0 to 31"))
    roles[1][:] = VALIDATION
    with pytest.raises(InputError, match=r"band 2 of the recipe.* declare it as no data"):
        census.statistics(roles)
    if share != "most":
        roles[1][:] = UNUSED
        assert census.statistics(roles).std[1] < 1


def test_a_band_of_one_value_has_no_deviation() -> None:
    scene = random_scene((100, 90), bands=1, dtype="float32", role="train")
    scene.values[:] = 12345.678
    census = take_census([scene], TREE, DIRECT)
    assert census.statistics((np.full((4, 3), TRAIN, np.uint8),)).std.tolist() == [0.0]


def measured(name: str) -> np.ndarray:
    """Bands whose values are far apart and all measured."""
    rng = np.random.default_rng(3)
    rows, cols = np.indices((256, 256))
    if name == "radar":  # linear power: speckle on calm water, and one ship
        values = 1e-4 * rng.exponential(size=(256, 256))
        values[100:103, 200] = 1e4, 3e5, 2e4
        return values
    if name == "raw radar":  # intensities of a complex image
        return np.rint(1e4 * rng.exponential(size=(256, 256))) + 4e9 * ((rows == 9) & (cols == 200))
    if name == "island":  # heights above sea level, of a sea of zeros, or of what resampling leaves of them
        return np.maximum(0, 3000 - 60 * np.hypot(rows - 128, cols - 128)) + 1e-12 * rng.random((256, 256))
    if name == "trench":
        return np.where(rows == 128, -10994.0, 0)
    if name == "flow":  # cells upstream
        return np.where(cols == 128, 10.0 ** (rows / 28), rng.integers(1, 40, (256, 256)))
    if name == "probability":
        return np.where(rows < 64, 1.0, 10.0 ** -rng.uniform(5, 30, (256, 256)))
    if name == "molecules":  # per square centimetre, some below 0 by noise, some masked by 0
        return np.where(cols < 40, 0, rng.normal(2e15, 2e15, (256, 256)))
    assert name == "decibel"
    return rng.normal(-12, 4, (256, 256))


@pytest.mark.parametrize(
    "name",
    ["radar", "raw radar", "island", "trench", "flow", "probability", "molecules", "decibel"],
)
def test_measurements_that_are_far_apart_are_taken(name: str) -> None:
    scene = random_scene((256, 256), bands=1, dtype="float32", role="train")
    scene.values[0] = measured(name)
    census = take_census([scene], TREE, DIRECT)
    found = census.statistics((np.full(census.scenes[0].counts.shape[:2], TRAIN, np.uint8),))
    assert found.std[0] == pytest.approx(scene.values[0].astype(float).std(), rel=1e-5)


def test_a_failing_read_ends_it() -> None:
    scene = random_scene((1100, 1100), name="torn", broken=Box(1000, 0, 1, 1))
    with pytest.raises(ReadError, match="of torn: damaged"):
        take_census([scene], TREE, DIRECT)


def test_cells_grow_with_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [random_scene((640, 640))]
    monkeypatch.setattr("rssegment.training.census._CELLS_AT_MOST", 100)
    census = take_census(scenes, TREE, DIRECT)
    assert census.cell == 64
    assert census.scenes[0].counts.sum() == 640 * 640
