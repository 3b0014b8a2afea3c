"""The loop: trajectories over kills, interrupts and resumes; early ends; what goes wrong on the way."""

from __future__ import annotations

import csv
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from affine import Affine
from safetensors.torch import load_file

from rssegment.errors import InputError, ModelError, OutputError, StorageError
from rssegment.model import Bundle
from rssegment.training import Trained, callbacks, fitting
from rssegment.training.fitting import half_precision
from rssegment.training.module import MEAN_OF_LEVELS, Segmenter, rate_at
from tests.scene.conftest import UTM
from tests.training.folders import raster
from tests.training.killed import INSTANTS
from tests.training.trainings import RGBN, a_recipe, a_source, a_training, digest
from tests.training.trainings import land as a_land_of


def log_of(folder: Path) -> list[dict[str, str]]:
    """Lines of the log but for times."""
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    return [{k: v for k, v in row.items() if k != "mpx_per_s"} for row in rows]


def same(one: Trained, other: Trained) -> None:
    """Both trainings ended the same."""
    assert digest(one) == digest(other)
    assert log_of(one.folder) == log_of(other.folder)
    ours, theirs = (trained.card.facts() for trained in (one, other))
    for name in ("scores", "steps", "kept_step", "origin"):
        assert ours[name] == theirs[name]


def stopping(step: int) -> Any:
    """Who watches, and wants no more after a step."""

    def progress(stage: str, done: int, total: int, pixels: int) -> None:
        if stage == "train" and done == step:
            raise KeyboardInterrupt

    return progress


# Same path


WORK = ["census.npz", "last.ckpt", "lock", "training.json"]
"""What a finished training keeps beside its result: no decoded pixels."""


@pytest.fixture(scope="module")
def killed(country: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of trainings that were killed, by instant."""
    out = tmp_path_factory.mktemp("killed")
    subprocess.run([sys.executable, "-m", "tests.training.killed", country, out], check=True)
    return out


@pytest.mark.parametrize("instant", INSTANTS)
def test_killed_and_resumed_is_as_undisturbed(
    killed: Path, country: Path, trained: Trained, instant: str
) -> None:
    folder = killed / instant
    assert not (folder / "training.json").exists()
    assert (folder / "bundle").exists() == (instant == "before the record")
    with pytest.raises(OutputError, match="an unfinished training; go on with it by --resume"):
        a_training(country, folder)
    same(a_training(country, folder, resume=True), trained)
    assert not [path for path in folder.rglob(".*") if not path.is_relative_to(folder / "work" / "cache")]


@pytest.mark.parametrize("step", [1, 3, 4])
def test_interrupted_and_resumed_with_workers(
    country: Path, trained: Trained, tmp_path: Path, step: int
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as raised:
        a_training(country, tmp_path / "out", progress=stopping(step))
    begun = (
        "stopped; what is done is kept" if step > 2 else "stopped before the first validation, so no step is"
    )
    assert [note.startswith(begun) for note in raised.value.__notes__] == [True]
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "out" / "work" / "last.ckpt").exists() == (step > 2)
    recipe = a_recipe(sample={"workers": 1})
    same(a_training(country, tmp_path / "out", recipe, resume=True), trained)


def test_workers_change_nothing(country: Path, trained: Trained, tmp_path: Path) -> None:
    same(a_training(country, tmp_path / "out", a_recipe(sample={"workers": 1})), trained)


def test_another_seed_is_another_model(country: Path, trained: Trained, tmp_path: Path) -> None:
    assert digest(a_training(country, tmp_path / "out", a_recipe(seed=1))) != digest(trained)


def test_what_was_finished_is_only_written_again(
    country: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = a_training(country, out)
    assert Bundle.open(first.bundle).spec.training["steps"] == 6
    assert sorted(path.name for path in (out / "work").iterdir()) == WORK
    assert [path.name.split(".")[0] for path in (out / "logs").iterdir()] == ["events"]
    assert not (out / "work" / "best.safetensors").exists()  # nobody asked for the best
    monkeypatch.delattr(Segmenter, "training_step")
    monkeypatch.setattr(Segmenter, "training_step", lambda *_: pytest.fail("a step was run"), raising=False)
    recipe = a_recipe(
        title="Another title",
        sources=[a_source("north", role="train", credit="Us"), a_source("south", role="validation")],
    )
    lines: list[str] = []
    again = a_training(country, out, recipe, resume=True, say=lines.append)
    same(again, trained)
    assert lines == ["the training is finished already: nothing is trained, its weights are scored"]
    assert sorted(path.name for path in (out / "work").iterdir()) == WORK
    longer = recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"steps": 9})})
    with pytest.raises(
        OutputError, match=r"a finished training with another number of steps; train on .*\{start: .*bundle\}"
    ):
        a_training(country, out, longer, resume=True)
    spec = Bundle.open(again.bundle).spec
    assert (spec.title, spec.credit) == ("Another title", "Us")


def test_learning_rates_follow_the_formula_over_a_resume(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[float]]] = []
    original = Segmenter.training_step

    def step(module: Segmenter, *arguments: Any) -> Any:
        seen.append((module.global_step, [g["lr"] for g in module.trainer.optimizers[0].param_groups]))
        return original(module, *arguments)

    monkeypatch.setattr(Segmenter, "training_step", step)
    recipe = a_recipe(
        model={
            "architecture": "smp:Unet",
            "encoder": "tf_mobilenetv3_small_minimal_100",
            "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        },
        optimizer={"steps": 8, "warmup": 0.25, "encoder_rate": 0.1, "rate": 0.002},
    )
    with pytest.raises(KeyboardInterrupt):
        a_training(country, tmp_path / "out", recipe, progress=stopping(5))
    a_training(country, tmp_path / "out", recipe, resume=True)
    assert [number for number, _ in seen] == [0, 1, 2, 3, 4, 4, 5, 6, 7]
    for number, rates in seen:
        factor = rate_at(number, recipe.optimizer)
        expected = [0.0002 * factor, 0.0002 * factor, 0.002 * factor, 0.002 * factor]
        assert rates == pytest.approx(expected, rel=1e-12)


# Early ends


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Scores that are best at the second validation; gives the weights that were validated."""
    seen: list[dict[str, torch.Tensor]] = []
    scores, original = iter([0.5, 0.6, 0.6, 0.3, 0.9, 0.9, 0.9, 0.9]), callbacks.Keeper.on_validation_end

    def judged(keeper: Any, trainer: Any, module: Segmenter) -> None:
        seen.append({k: v.clone() for k, v in callbacks.averaged(trainer, module).items()})
        score = next(scores)
        with monkeypatch.context() as patched:
            patched.setattr(callbacks, "validation_values", lambda _: {MEAN_OF_LEVELS: score})
            original(keeper, trainer, module)

    monkeypatch.setattr(callbacks.Keeper, "on_validation_end", judged)
    return seen


EARLY = a_recipe(optimizer={"steps": 8}, validate_every=1, patience=2)


def test_patience_ends_early_and_keeps_the_best(
    country: Path, tmp_path: Path, scripted: list[dict[str, torch.Tensor]]
) -> None:
    out = tmp_path / "out"
    found = a_training(country, out, EARLY)
    assert (found.card.outcome.steps, found.card.outcome.kept) == (4, 2)
    kept = load_file(Bundle.open(found.bundle).weights)
    assert all(torch.equal(kept[name], value) for name, value in scripted[1].items())
    assert not all(torch.equal(kept[name], value) for name, value in scripted[3].items())
    again = a_training(country, out, EARLY, resume=True)
    assert len(scripted) == 4  # nothing was run or judged again
    same(again, found)


def test_what_waits_is_kept_over_a_resume(
    country: Path, tmp_path: Path, scripted: list[dict[str, torch.Tensor]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        a_training(country, tmp_path / "out", EARLY, progress=stopping(4))
    assert len(scripted) == 3
    found = a_training(country, tmp_path / "out", EARLY, resume=True)
    assert (found.card.outcome.steps, found.card.outcome.kept) == (4, 2)


def test_patience_needs_validation_ground(country: Path, tmp_path: Path) -> None:
    recipe = a_recipe(sources=[a_source("north", role="train")], patience=2)
    with pytest.raises(InputError, match="no ground is kept for validation: leave patience out"):
        a_training(country, tmp_path / "out", recipe)


REGIONS = [a_source("north", role="train"), a_source("south", role="train")]


def test_what_is_left_out_does_not_choose_weights(country: Path, tmp_path: Path) -> None:
    recipe = a_recipe(sources=REGIONS, patience=2)
    with pytest.raises(
        InputError, match=r"all validation ground is left out \(south\): its scores would choose"
    ):
        a_training(country, tmp_path / "none", recipe, leave_out="south")
    land = tmp_path / "land"
    shutil.copytree(country, land)
    values, labels = a_land_of((64, 96), 7)
    place = UTM * Affine.translation(0, 5000)
    raster(land / "west.tif", values, names=RGBN, nodata=0, transform=place)
    raster(land / "west_labels.tif", labels, transform=place)
    west = a_recipe(sources=[*REGIONS, a_source("west", role="validation")], patience=2)
    without = a_recipe(sources=[REGIONS[0], a_source("west", role="validation")], patience=2)
    found = a_training(land, tmp_path / "out", west, leave_out="south")
    expected = a_training(land, tmp_path / "expected", without)
    assert log_of(found.folder) == log_of(expected.folder)
    assert digest(found) == digest(expected)
    assert found.scores.keys() == {"", "south", "west"}
    assert found.scores["west"].confusion == expected.scores[""].confusion
    assert found.scores["south"].leaf.pixels == 64 * 96


# What goes wrong


def test_a_loss_that_is_not_finite_names_the_step(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Segmenter.loss_of

    def loss(module: Segmenter, batch: Any) -> torch.Tensor:
        return original(module, batch) * (torch.nan if module.global_step == 3 else 1)

    monkeypatch.setattr(Segmenter, "loss_of", loss)
    with pytest.raises(ModelError, match=r"the loss is nan at step 4; lower optimizer.rate"):
        a_training(country, tmp_path / "out")
    assert (tmp_path / "out" / "work" / "last.ckpt").exists()


FULL = RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried")


SMALLER = r"batches of 2 x 32 px; try sample.batch: 1 with optimizer.accumulate: 6 takes half the memory"
SCORED = r"out of memory with \d+ x 32 px to be scored; try a smaller patch than 32"


@pytest.mark.parametrize(
    ("place", "told"), [("loss_of", SMALLER), ("backward", SMALLER), ("predict", SCORED)]
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), FULL], ids=["GPU", "CPU"])
def test_where_a_batch_does_not_fit_a_smaller_one_is_proposed(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str, error: Exception
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Segmenter, place, fails)
    recipe = a_recipe(optimizer={"accumulate": 3, "steps": 1})
    with pytest.raises(InputError, match=told):
        a_training(country, tmp_path / "out", recipe)


def test_other_faults_stay_what_they_are(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Segmenter, "loss_of", fails)
    with pytest.raises(RuntimeError, match=r"^a defect$"):
        a_training(country, tmp_path / "out")


def test_an_interrupt_while_the_end_is_scored(
    country: Path, tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Segmenter.validation_step

    def step(module: Segmenter, *arguments: Any) -> None:
        if module.trainer.state.fn == "validate":
            raise KeyboardInterrupt
        original(module, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "validation_step", step)
        with pytest.raises(KeyboardInterrupt):
            a_training(country, tmp_path / "out")
    same(a_training(country, tmp_path / "out", resume=True), trained)


def test_a_damaged_checkpoint_is_refused(country: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        a_training(country, out, progress=stopping(3))
    path = out / "work" / "last.ckpt"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"checkpoint"):
        path.write_bytes(content)
        with pytest.raises(
            OutputError, match=r"last.ckpt, which .* is damaged: start afresh with --overwrite"
        ):
            a_training(country, out, resume=True)


def test_a_full_disk_is_said_and_gone_on_from(country: Path, trained: Trained, tmp_path: Path) -> None:
    """Files may be as large as the weights and not as a checkpoint, from the third step on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def progress(stage: str, done: int, total: int, pixels: int) -> None:
        if stage == "train" and done == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, limits[1]))

    try:
        with pytest.raises(StorageError, match=r"no space left while writing .*/work/last.ckpt: free some"):
            a_training(country, tmp_path / "out", progress=progress)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    same(a_training(country, tmp_path / "out", resume=True), trained)


def test_two_processes_train_one_model(country: Path, tmp_path: Path) -> None:
    """As on two GPUs: twice one window is a step of two; the first process alone writes and tells."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.training.ranks", country, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        timeout=400,
    )
    lines = told.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2", "step 4", "step 6", "trained"]
    assert [row["step"] for row in log_of(tmp_path / "out")] == ["2", "4", "6"]
    assert Bundle.open(tmp_path / "out" / "bundle").spec.training["steps"] == 6


def test_half_precision_is_what_was_asked_for() -> None:
    def asked(precision: str) -> bool:
        return half_precision(a_recipe(optimizer={"precision": precision}), "cpu")

    assert asked("bf16")
    assert not asked("float32")
    assert isinstance(asked("auto"), bool)
    assert not half_precision(a_recipe(optimizer={"precision": "auto"}), "mps")


class Stop(BaseException):
    """As the command line's own interrupt."""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stop])
def test_an_interrupt_while_readers_start_is_that(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def interrupted(*_: Any) -> None:
        raise stop

    monkeypatch.setattr("rssegment.training.loading._Loader.__iter__", interrupted)
    with pytest.raises(stop):
        a_training(country, tmp_path / "out")


def test_no_reader_is_left_behind(country: Path, tmp_path: Path) -> None:
    def failing(stage: str, done: int, total: int, pixels: int) -> None:
        if stage == "train" and done == 1:
            raise KeyboardInterrupt

    before = set(_readers())
    with pytest.raises(KeyboardInterrupt):
        a_training(country, tmp_path / "out", a_recipe(sample={"workers": 1}), progress=failing)
    assert set(_readers()) <= before


def _readers() -> list[Any]:
    import multiprocessing

    return [child for child in multiprocessing.active_children() if child.is_alive()]


def test_a_resumed_training_keeps_its_precision_and_tells_of_threads(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, recipe = tmp_path / "out", a_recipe(optimizer={"precision": "auto"})
    monkeypatch.setattr(fitting, "half_precision", lambda *_: False)
    with pytest.raises(KeyboardInterrupt):
        a_training(country, out, recipe, progress=stopping(3))
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "half_precision", lambda *_: True)
        with pytest.raises(
            OutputError, match="precision 32-true, now bf16-mixed; resume it on one like that"
        ):
            a_training(country, out, recipe, resume=True)
    mark = out / "work" / "training.json"
    mark.write_text(mark.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    lines: list[str] = []
    a_training(country, out, recipe, resume=True, say=lines.append)
    assert "the training began with device cuda, now cpu: its last bits may differ" in lines


def test_two_trainings_in_one_folder(country: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def progress(stage: str, done: int, total: int, pixels: int) -> None:
        if stage == "train" and done == 1:
            for how in ({"resume": True}, {"overwrite": True}):
                with pytest.raises(OutputError, match=r"another process trains in .*out"):
                    a_training(country, out, **how)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        a_training(country, out, progress=progress)
