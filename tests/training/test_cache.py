"""The cache gives what the scene gives, whoever fills it and whoever dies meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import ReadError
from rssegment.grid import Box
from rssegment.training.cache import BLOCK, PixelCache, _Layout
from rssegment.training.ground import LabelledScene, Sample
from tests.training.scenes import ArrayScene, random_scene

MUCH = 1 << 30


def same(one: Sample, other: Sample) -> bool:
    pairs = ((one.values, other.values), (one.labels, other.labels), (one.valid, other.valid))
    return all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


def boxes(shape: tuple[int, int]) -> st.SearchStrategy[Box]:
    def axis(length: int) -> st.SearchStrategy[tuple[int, int]]:
        return st.tuples(st.integers(0, length - 1), st.integers(0, length - 1)).map(
            lambda pair: (min(pair), max(pair) + 1)
        )

    return st.tuples(axis(shape[0]), axis(shape[1])).map(
        lambda each: Box.between(each[0][0], each[1][0], each[0][1], each[1][1])
    )


def holey(shape: tuple[int, int], dtype: str = "uint8", bands: int = 3) -> ArrayScene:
    valid = np.random.default_rng(5).random(shape) < 0.9
    return random_scene(shape, 3, bands, dtype, valid=valid)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((700, 1100), "uint8"), ((513, 40), "float32"), ((1, 1), "uint16"), ((90, 600), "float64")],
)
def test_reads_are_those_of_the_scene(shape: tuple[int, int], dtype: str, tmp_path: Path) -> None:
    scene = holey(shape, dtype)
    cache = PixelCache(tmp_path, [scene], MUCH)

    @settings(max_examples=40)
    @given(boxes(shape))
    def check(box: Box) -> None:
        assert same(cache.read(scene, box), scene.read(box))

    check()


def test_blocks_are_read_once_and_by_other_caches_never(tmp_path: Path) -> None:
    scene = random_scene((1030, 700))
    for _ in range(2):
        cache = PixelCache(tmp_path, [scene], MUCH)
        for box in (Box(0, 0, 1030, 700), Box(500, 500, 40, 40)):
            cache.read(scene, box)
    assert sorted(scene.reads) == [
        Box.between(row, col, min(row + BLOCK, 1030), min(col + BLOCK, 700))
        for row in (0, 512, 1024)
        for col in (0, 512)
    ]


def test_a_pickled_cache_reads_what_is_there(tmp_path: Path) -> None:
    scene = random_scene((600, 600))
    PixelCache(tmp_path, [scene], MUCH).read(scene, Box(0, 0, 600, 600))
    scene.reads.clear()
    copy = pickle.loads(pickle.dumps(PixelCache(tmp_path, [scene], MUCH)))
    copy.read(scene, Box(10, 10, 520, 520))
    assert not scene.reads


@pytest.mark.parametrize(("folder", "limit"), [(True, 0), (False, MUCH)])
def test_without_room_all_is_read_directly(folder: bool, limit: int, tmp_path: Path) -> None:
    scene = random_scene()
    cache = PixelCache(tmp_path / "cache" if folder else None, [scene], limit)
    assert same(cache.read(scene, Box(3, 4, 50, 60)), scene.read(Box(3, 4, 50, 60)))
    assert not cache.keeps(scene)
    assert list(tmp_path.iterdir()) == []


def test_scenes_get_room_in_order_as_far_as_it_goes(tmp_path: Path) -> None:
    scenes = [random_scene((700, 700), n, name=f"s{n}") for n in range(3)]
    small = random_scene((100, 100), 9, name="small")
    one = _Layout.of(scenes[0]).file_bytes
    cache = PixelCache(tmp_path, [*scenes, small], int(2.5 * one))
    for scene in (*scenes, small):
        assert same(cache.read(scene, Box(0, 0, 90, 90)), scene.read(Box(0, 0, 90, 90)))
    assert [cache.keeps(scene) for scene in (*scenes, small)] == [True, True, False, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == cache.bytes <= cache.limit


def test_files_of_earlier_scenes_go_only_where_room_is_needed(tmp_path: Path) -> None:
    old, older, new = (random_scene((700, 700), n, name=f"s{n}") for n in range(3))
    for age, scene in ((2000, older), (1000, old)):
        PixelCache(tmp_path, [scene], MUCH).read(scene, Box(0, 0, 5, 5))
        os.utime(tmp_path / _Layout.of(scene).name, (time.time() - age,) * 2)
    foreign = tmp_path / "somebody.pixels"
    foreign.write_bytes(b"mine" * 1000)
    PixelCache(tmp_path, [new], int(2.5 * _Layout.of(new).file_bytes))
    assert {path.name for path in tmp_path.iterdir()} == {_Layout.of(old).name, foreign.name}


def test_what_was_kept_is_removed_and_nothing_else(tmp_path: Path) -> None:
    scene, folder = holey((700, 600)), tmp_path / "cache"
    PixelCache(folder, [replace(scene, name="earlier", labels=scene.labels[::-1].copy())], MUCH).read(
        replace(scene, name="earlier", labels=scene.labels[::-1].copy()), Box(0, 0, 9, 9)
    )
    cache = PixelCache(folder, [scene], MUCH)
    first = cache.read(scene, Box(0, 0, 30, 30))
    (folder / "notes.pixels").write_text("mine")
    assert len(list(folder.iterdir())) == 3
    cache.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.pixels"]
    again = PixelCache(folder, [scene], MUCH)
    assert same(again.read(scene, Box(0, 0, 30, 30)), first)
    (folder / "notes.pixels").unlink()
    again.clear()
    assert not folder.exists()
    again.clear()
    PixelCache(None, [scene], MUCH).clear()


@pytest.mark.parametrize("harm", ["truncated", "foreign", "flipped pixel", "lost data", "flipped mark"])
def test_damaged_files_are_made_anew(harm: str, tmp_path: Path) -> None:
    scene = random_scene((700, 700))
    whole = Box(0, 0, 700, 700)
    PixelCache(tmp_path, [scene], MUCH).read(scene, whole)
    layout = _Layout.of(scene)
    path = tmp_path / layout.name
    content = bytearray(path.read_bytes())
    if harm == "truncated":
        content = content[:-5000]
    elif harm == "foreign":
        content = bytearray(b"something else")
    elif harm == "flipped pixel":
        content[layout.offsets[0] + 70_000] ^= 1
    elif harm == "lost data":  # as after a power cut: the mark came to the disk, the block didn't
        content[layout.offsets[0] : layout.offsets[1]] = bytes(layout.offsets[1] - layout.offsets[0])
    else:
        content[4096] ^= 255
    path.write_bytes(content)
    assert same(PixelCache(tmp_path, [scene], MUCH).read(scene, whole), scene.read(whole))
    scene.reads.clear()
    assert same(PixelCache(tmp_path, [scene], MUCH).read(scene, whole), scene.read(whole))
    assert scene.reads == [whole]  # but for the comparison, none


def test_another_grid_or_content_is_another_file(tmp_path: Path) -> None:
    scene = random_scene((200, 200))
    others = [
        scene,
        replace(scene, resolution=0.5),
        replace(scene, missing=(1,)),
        random_scene((200, 200), dtype="uint16"),
        random_scene((200, 200), 7),
    ]
    for each in others:
        assert same(
            PixelCache(tmp_path, [each], MUCH).read(each, Box(0, 0, 200, 200)), each.read(Box(0, 0, 200, 200))
        )
    assert len(list(tmp_path.iterdir())) == len(others)


def test_a_failed_read_leaves_no_mark(tmp_path: Path) -> None:
    scene = replace(random_scene((700, 700)), broken=Box(0, 0, 1, 1))
    cache = PixelCache(tmp_path, [scene], MUCH)
    with pytest.raises(ReadError, match="damaged"):
        cache.read(scene, Box(0, 0, 100, 100))
    healed = replace(scene, broken=None)
    assert same(cache.read(healed, Box(0, 0, 100, 100)), healed.read(Box(0, 0, 100, 100)))


def test_a_disk_that_refuses_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene((300, 300))
    cache = PixelCache(tmp_path, [scene], MUCH)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match=r"scene can't be kept.*No space left"):
        assert same(cache.read(scene, Box(0, 0, 30, 30)), scene.read(Box(0, 0, 30, 30)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.read(scene, Box(0, 0, 30, 30))


def test_more_scenes_than_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssegment.training.cache._OPEN_FILES", 2)
    scenes = [random_scene((40, 50), n, name=f"s{n}") for n in range(5)]
    cache = PixelCache(tmp_path, scenes, MUCH)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        for scene in scenes:
            assert same(cache.read(scene, Box(0, 0, 40, 50)), scene.read(Box(0, 0, 40, 50)))
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 2 * 3
    assert [sum(box == Box(0, 0, 40, 50) for box in scene.reads) for scene in scenes] == [
        4
    ] * 5  # one for the cache


def test_threads_may_share_it(tmp_path: Path) -> None:
    scenes = [random_scene((900, 900), n, name=f"s{n}") for n in range(3)]
    cache = PixelCache(tmp_path, scenes, MUCH)
    rng = np.random.default_rng(0)
    jobs = [(scenes[k % 3], Box(*rng.integers(0, 500, 2).tolist(), 400, 400)) for k in range(60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: cache.read(*job), jobs))
    assert all(same(sample, scene.read(box)) for sample, (scene, box) in zip(found, jobs, strict=True))


def _fill(cache: PixelCache, scene: LabelledScene, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(10_000):
        box = Box(*rng.integers(0, 1900, 2).tolist(), 100, 100)
        assert same(cache.read(scene, box), scene.read(box))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that begin at once")
def test_killed_fillers_leave_no_wrong_block(tmp_path: Path) -> None:
    scene = random_scene((2000, 2000), bands=4)
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(1)
    for turn in range(6):
        fillers = [
            context.Process(target=_fill, args=(PixelCache(tmp_path, [scene], MUCH), scene, 2 * turn + n))
            for n in range(2)
        ]
        for filler in fillers:
            filler.start()
        time.sleep(float(rng.uniform(0.01, 0.08)))
        for filler in fillers:
            assert filler.is_alive()
            os.kill(filler.pid or 0, signal.SIGKILL)
            filler.join()
        whole = Box(0, 0, 2000, 2000)
        scene.reads.clear()
        if turn % 2:
            assert same(PixelCache(tmp_path, [scene], MUCH).read(scene, whole), scene.read(whole))
            (tmp_path / _Layout.of(scene).name).unlink()
