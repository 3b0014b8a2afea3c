"""Windows and their loaders: what they hold, alike for any number of workers, and what they say when all goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import InputError, ReadError, RunError
from rssegment.grid import Box
from rssegment.training.batch import Batch
from rssegment.training.cache import PixelCache
from rssegment.training.census import TRAIN, VALIDATION, Census, Roles, take_census
from rssegment.training.ground import Sample
from rssegment.training.loading import validation_loader, windows_loader
from rssegment.training.recipe import Recipe
from rssegment.training.sampling import Sampler
from rssegment.training.split import split_cells
from rssegment.training.windows import ValidationWindows, Windows
from tests.training.scenes import TREE, ArrayScene, random_scene

DIRECT = PixelCache(None, (), 0)


def recipe(**more: Any) -> Recipe:
    given = {"name": "test", "taxonomy": "t", "bands": ("r", "g", "b"), "resolution": 1.0, **more}
    given["sample"] = {"patch": 64, "batch": 3, **given.get("sample", {})}
    return Recipe(**{"sources": [{"name": "source"}], **given})


@dataclass
class Ground:
    scenes: list[ArrayScene]
    recipe: Recipe
    cache: PixelCache
    census: Census
    roles: Roles

    @classmethod
    def of(cls, scenes: list[ArrayScene], plan: Recipe | None = None, folder: Path | None = None) -> Ground:
        plan = plan or recipe()
        cache = PixelCache(folder, scenes, 1 << 30)
        census = take_census(scenes, TREE, cache)
        return cls(scenes, plan, cache, census, split_cells(scenes, census, plan.split, plan.seed).roles)

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.census, self.roles, self.recipe)

    @property
    def windows(self) -> Windows:
        return Windows(self.scenes, self.sampler, self.cache)

    def validation(self, patch: int = 64, overlap: int = 16) -> ValidationWindows:
        return ValidationWindows(
            self.scenes, self.census, self.roles, self.cache, patch=patch, overlap=overlap
        )

    def loader(self, indices: Any = range(10), workers: int = 0, **more: Any) -> Any:
        return windows_loader(
            self.scenes, self.sampler, self.recipe, indices, cache=self.cache, workers=workers, **more
        )


def equal(one: Batch, other: Batch) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


# What windows hold


@settings(max_examples=25)
@given(st.integers(0, 20), st.sampled_from(["uint8", "uint16", "float32"]), st.booleans())
def test_a_window_is_the_scene_where_there_is_training_ground_and_nothing_elsewhere(
    seed: int, dtype: str, holes: bool
) -> None:
    shape = (400 - 15 * seed, 50 + 25 * seed)
    valid = np.random.default_rng(seed).random(shape) < 0.9 if holes else None
    scene = random_scene(shape, seed, dtype=dtype, valid=valid, missing=(1,))
    ground = Ground.of([scene], recipe(split={"block": 64, "gap": 10}, seed=seed))
    train = ground.roles[0].repeat(32, 0).repeat(32, 1)[: shape[0], : shape[1]] == TRAIN
    whole = scene.read(Box.of(shape))
    pad = 200
    for k in range(12):
        box = ground.sampler.window(k).box.shift(pad, pad)
        window = ground.windows[k]
        assert window.values.numpy().dtype == np.dtype(dtype)
        for got, full in (
            (window.values, whole.values * train),
            (window.labels, whole.labels * train),
            (window.valid, whole.valid & train),
        ):
            edges = [(0, 0)] * (full.ndim - 2) + [(pad, pad)] * 2
            assert np.array_equal(got.numpy(), np.pad(full, edges)[(..., *box.slices)])
        assert window.labels.any()
        assert window.present.tolist() == [True, False, True]


def test_no_pixel_of_a_window_is_near_validation_ground() -> None:
    scene = random_scene((700, 700), bands=3)
    rows, cols = np.indices((700, 700))
    scene.values[0], scene.values[1] = rows // 4 + 1, cols // 4 + 1  # a pixel says where it is from
    ground = Ground.of([scene], recipe(split={"block": 120, "gap": 40}))
    held = ground.roles[0].repeat(32, 0).repeat(32, 1)[:700, :700] == VALIDATION
    near = np.zeros_like(held)
    for row, col in np.argwhere(held[::4, ::4]) * 4:
        near[max(0, row - 32) : row + 36, max(0, col - 32) : col + 36] = True
    for k in range(60):
        window = ground.windows[k]
        seen = window.values[0] > 0
        assert torch.equal(seen, window.valid)
        places = [(window.values[band][seen].numpy().astype(int) - 1) * 4 for band in range(2)]
        assert not near[places[0], places[1]].any()


def test_batches_are_windows_side_by_side() -> None:
    ground = Ground.of([random_scene((300, 300), n, name=f"s{n}") for n in range(2)])
    windows = ground.windows
    batch = windows.__getitems__([4, 2, 9])
    alone = [windows[k] for k in (4, 2, 9)]
    assert equal(batch, Batch(*map(torch.stack, zip(*alone, strict=True))))
    assert batch.values.shape == (3, 3, ground.recipe.window, ground.recipe.window)
    assert (batch.labels.dtype, batch.valid.dtype, batch.present.shape) == (torch.int32, torch.bool, (3, 3))


def test_types_of_several_scenes_become_one_that_holds_all() -> None:
    scenes = [
        random_scene((200, 200), n, dtype=dtype, name=dtype) for n, dtype in enumerate(("uint8", "uint16"))
    ]
    windows = Ground.of(scenes).windows
    assert windows[0].values.dtype == windows[1].values.dtype == torch.uint16
    scenes.append(random_scene((200, 200), dtype="float64", name="f"))
    assert {Ground.of(scenes).windows[k].values.dtype for k in range(6)} == {torch.float32}


def test_pixels_without_data_are_invalid_zeros() -> None:
    valid = np.ones((200, 200), bool)
    valid[50:150, 50:150] = False
    scene = random_scene((200, 200), dtype="float32", valid=valid)
    scene.values[:, 50:150, 50:150] = np.nan
    ground = Ground.of([scene])
    batch = ground.windows.__getitems__(range(20))
    assert torch.isfinite(batch.values).all()
    assert not batch.valid.all()
    assert not batch.labels[~batch.valid].any()
    assert np.isfinite(ground.census.statistics(ground.roles).mean).all()


def test_windows_without_a_label_are_drawn_again() -> None:
    # cells larger than windows, with one labelled pixel each: most windows miss it
    scene = random_scene((256, 256))
    scene.labels[:] = 0
    scene.labels[::16, ::16] = 3
    ground = Ground.of([scene], recipe(sample={"patch": 32}, augment={"scale": 1}))
    counts = ground.census.scenes[0].counts
    merged = counts.reshape(2, 4, 2, 4, -1).sum((1, 3), dtype=np.uint16)
    census = replace(ground.census, cell=128, scenes=(replace(ground.census.scenes[0], counts=merged),))
    sampler = Sampler(census, (np.full((2, 2), TRAIN, np.uint8),), ground.recipe)
    windows = Windows([scene], sampler, DIRECT)
    assert all(windows[k].labels.any() for k in range(100))


# Validation


@settings(max_examples=25)
@given(st.integers(0, 20), st.sampled_from([(64, 16), (32, 0), (100, 50), (96, 31), (512, 128)]))
def test_each_pixel_of_validation_ground_is_scored_once(seed: int, lattice: tuple[int, int]) -> None:
    scene = random_scene((500 - 20 * seed, 100 + 20 * seed), seed, region="here")
    other = random_scene((90, 130), seed, name="other", role="validation", region="there")
    ground = Ground.of([scene, other], recipe(split={"block": 64, "gap": 10}, seed=seed))
    windows = ground.validation(*lattice)
    times = [np.zeros(each.shape, int) for each in ground.scenes]
    for index, window in enumerate(windows.windows):
        batch, scored, regions = windows[index]
        whole = ground.scenes[window.scene].read(Box.of(ground.scenes[window.scene].shape))
        inside = window.box.clip(Box.of(ground.scenes[window.scene].shape))
        part = inside.relative_to(window.box).slices
        times[window.scene][inside.slices] += scored[0].numpy()[part]
        assert scored.sum() == scored[0][part].sum()
        assert np.array_equal(
            batch.labels[0][part].numpy(), whole.labels[inside.slices] * scored[0][part].numpy()
        )
        assert np.array_equal(
            batch.values[0].numpy()[(slice(None), *part)], whole.values[(slice(None), *inside.slices)]
        )
        assert regions == (ground.scenes[window.scene].region,)
    for each, found, roles in zip(ground.scenes, times, ground.roles, strict=True):
        held = roles.repeat(32, 0).repeat(32, 1)[: each.shape[0], : each.shape[1]] == VALIDATION
        assert np.array_equal(found, (held & (each.labels > 0)).astype(int))


def test_validation_windows_are_mirrored_at_the_edges() -> None:
    scene = random_scene((70, 90), role="validation")
    train = random_scene((70, 90), 1, name="other", role="train")
    windows = Ground.of([scene, train]).validation(64, 32)
    batch = windows[0].batch
    assert windows.windows[0].box == Box(-16, -16, 64, 64)
    assert np.array_equal(
        batch.values[0].numpy(), np.pad(scene.values, ((0, 0), (16, 0), (16, 0)), "reflect")[:, :64, :64]
    )
    assert batch.valid.all()


def test_validation_sees_what_lies_around() -> None:
    ground = Ground.of([random_scene((700, 700))], recipe(split={"block": 120, "gap": 40}))
    found = next(iter(validation_loader(ground.validation(), 5, workers=0)))
    assert found.batch.valid.all()
    assert not found.scored.all()
    assert len(found.regions) == 5


# Loaders


@pytest.mark.parametrize("cached", [True, False])
def test_batches_are_the_same_for_any_number_of_workers(cached: bool, tmp_path: Path) -> None:
    scenes = [random_scene((300, 300), n, name=f"s{n}") for n in range(2)]
    ground = Ground.of(scenes, folder=tmp_path if cached else None)
    indices = [5, 6, 7, 100, 101, 3, 2, 1]
    state = torch.get_rng_state()
    found = {workers: list(ground.loader(indices, workers)) for workers in (0, 1, 2)}
    assert torch.equal(state, torch.get_rng_state())
    assert [len(batch.values) for batch in found[0]] == [3, 3, 2]
    for workers in (1, 2):
        assert all(equal(a, b) for a, b in zip(found[0], found[workers], strict=True))
    assert equal(found[0][0], ground.windows.__getitems__([5, 6, 7]))


def test_workers_stay_and_begin_again() -> None:
    ground = Ground.of([random_scene((300, 300))])
    loader = ground.loader(range(9), 1)
    first, second = list(loader), list(loader)
    assert len(loader) == 3
    assert all(equal(a, b) for a, b in zip(first, second, strict=True))
    assert len({worker.pid for worker in loader._iterator._workers}) == 1


def test_a_very_long_order_takes_no_memory() -> None:
    loader = Ground.of([random_scene((300, 300))]).loader(range(10**12), 0)
    assert len(next(iter(loader)).values) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failed_read_names_scene_and_place(workers: int) -> None:
    whole = random_scene((300, 300), name="torn")
    ground = Ground.of([whole])
    ground.scenes[0] = replace(whole, broken=Box(0, 0, 300, 300))
    with pytest.raises(ReadError, match=r"^can't read rows .* of torn: damaged$"):
        list(ground.loader(range(6), workers))


@dataclass(frozen=True, eq=False)
class Nameless(ArrayScene):
    def read(self, box: Box) -> Sample:
        raise ReadError("TIFFReadEncodedTile failed")


@dataclass(frozen=True, eq=False)
class Deadly(ArrayScene):
    def read(self, box: Box) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def like(scene: ArrayScene, kind: type[ArrayScene]) -> ArrayScene:
    return kind(**{name: getattr(scene, name) for name in scene.__dataclass_fields__})


def test_errors_without_a_place_get_one() -> None:
    ground = Ground.of(
        [random_scene((300, 300), name="far", source="away")], recipe(sources=[{"name": "away"}])
    )
    ground.scenes[0] = like(ground.scenes[0], Nameless)
    with pytest.raises(
        ReadError, match=r"can't read rows \d+ to \d+, columns \d+ to \d+ of far .*source away.*TIFFRead"
    ):
        next(iter(ground.loader()))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_that_no_memory_holds_says_what_to_do(workers: int) -> None:
    plan = recipe(sample={"patch": 4096, "batch": 4096}, optimizer={"accumulate": 2})
    ground = Ground.of([random_scene((300, 300), role="train")], plan)
    with pytest.raises(InputError) as caught:
        next(iter(ground.loader(range(10**6), workers)))
    assert str(caught.value) == (
        "out of memory with batches of 4096 x 4096 px; try sample.batch: 2048 with optimizer.accumulate: 4 takes half "
        "the memory for nearly the same training"
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_patches_to_score_that_no_memory_holds(workers: int) -> None:
    scene = random_scene((64, 64), role="validation")
    windows = Ground.of([scene, random_scene((64, 64), 1, name="o", role="train")]).validation(10**6, 0)
    with pytest.raises(
        InputError, match="out of memory with 1 x 1000000 px to be scored; try a smaller patch"
    ):
        next(iter(validation_loader(windows, 1, workers=workers)))


@dataclass(frozen=True, eq=False)
class Faulty(ArrayScene):
    def read(self, box: Box) -> Sample:
        raise RuntimeError("a fault of the program")


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    ground = Ground.of([random_scene((300, 300))])
    ground.scenes[0] = like(ground.scenes[0], Faulty)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        next(iter(ground.loader()))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_worker_is_an_error_that_says_what_to_do() -> None:
    ground = Ground.of([random_scene((300, 300))])
    ground.scenes[0] = like(ground.scenes[0], Deadly)
    with pytest.raises(RunError, match=r"a process that reads windows is gone.*sample\.workers"):
        list(ground.loader(range(6), 1))


SCRIPT = """
    import os, sys, time
    sys.path.insert(0, {root!r})
    print("begun", flush=True)  # a worker that ran the script again would say so too
    from tests.training.scenes import TREE, random_scene
    from tests.training.test_windows import Ground
    loader = Ground.of([random_scene((300, 300))]).loader(range(3 * 10**6), 2)
    for number, batch in enumerate(loader):
        if number == 2:
            print("ready", *(worker.pid for worker in loader._iterator._workers), flush=True)
        time.sleep(0.02)
"""


def _script(path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A plain script without a main guard that iterates a loader for ever, and its workers."""
    path.write_text(textwrap.dedent(SCRIPT.format(root=str(Path(__file__).parents[2]))))
    process = subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(2)]
    assert lines[0] == ["begun"], process.communicate()
    assert lines[1][:1] == ["ready"], (lines, process.communicate())
    return process, [int(pid) for pid in lines[1][1:]]


def _gone(pids: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_an_interrupt_ends_all_quietly(tmp_path: Path) -> None:
    process, workers = _script(tmp_path / "script.py")
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to all of them
    _, said = process.communicate(timeout=60)
    assert said.count("Traceback") == 1
    assert said.strip().endswith("KeyboardInterrupt")
    assert _gone(workers, 10)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_workers_of_a_killed_process_leave(tmp_path: Path) -> None:
    process, workers = _script(tmp_path / "script.py")
    process.kill()
    process.communicate(timeout=60)
    assert _gone(workers, 30)
