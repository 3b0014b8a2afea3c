"""Whose a training's folder is, and what decides a training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rssegment.errors import OutputError
from rssegment.training.folder import BEST, CHECKPOINT, Machine, TrainingFolder, fingerprint_of
from tests.training.scenes import random_scene
from tests.training.trainings import a_recipe, a_source

SCENE = random_scene((40, 40))
OURS = (
    "log.csv",
    "training.json",
    "pictures/step_0000002.png",
    "logs/events.out.tfevents.1",
    f"work/{CHECKPOINT}",
)


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    found = TrainingFolder(tmp_path / "some" / "out")
    found.prepare("a", resume=False, overwrite=False)
    return found


def write(folder: TrainingFolder, *names: str) -> None:
    for name in names:
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    for resume in (False, True):
        TrainingFolder(tmp_path).prepare("a", resume=resume, overwrite=not resume)
        assert (tmp_path / "work").is_dir()


def test_what_is_there_is_not_begun_again(folder: TrainingFolder) -> None:
    with pytest.raises(
        OutputError, match="holds an unfinished training; go on with it by --resume, replace it by"
    ):
        folder.prepare("a", resume=False, overwrite=False)
    folder.finish({"steps": 3})
    with pytest.raises(
        OutputError,
        match=r"holds a finished training; train on from its bundle .*model: \{start: .*bundle\}.* --overwrite",
    ) as raised:
        folder.prepare("a", resume=False, overwrite=False)
    assert "--resume" not in str(raised.value)


def test_what_may_differ_is_told(folder: TrainingFolder) -> None:
    folder.prepare("a", resume=True, overwrite=False, series="s")

    def refused(**more: str) -> str:
        with pytest.raises(OutputError) as raised:
            folder.prepare("b", resume=True, overwrite=False, **more)
        return str(raised.value)

    assert "with another number of steps, which learning rates follow; resume it with what" in refused(
        series="s"
    )
    for more in ({"series": "t"}, {}):
        assert "with another recipe, data or version; resume it with what" in refused(**more)
    folder.finish({"steps": 3})
    assert "a finished training with another number of steps; train on from its bundle" in refused(series="s")
    assert "a finished training with another recipe, data or version; train on" in refused(series="t")


def test_who_stops_is_told_what_is_kept(folder: TrainingFolder) -> None:
    assert folder.when_stopped() == (
        "stopped before the first validation, so no step is kept: begin again with --resume"
    )
    write(folder, f"work/{CHECKPOINT}")
    assert folder.when_stopped().startswith(
        "stopped; what is done is kept: run the command again with --resume"
    )
    assert not folder.finished
    write(folder, "training.json")
    assert folder.finished


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_other_files_are_left_alone(tmp_path: Path, how: dict[str, bool]) -> None:
    (tmp_path / "thesis.docx").write_text("all of it")
    with pytest.raises(OutputError, match="holds files that are no training's; choose another folder"):
        TrainingFolder(tmp_path).prepare("a", **{"resume": False, "overwrite": False} | how)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]
    with pytest.raises(OutputError, match="it is a file; choose a folder"):
        TrainingFolder(tmp_path / "thesis.docx").prepare("a", **{"resume": False, "overwrite": False} | how)


def test_only_the_same_training_is_resumed(folder: TrainingFolder) -> None:
    write(folder, *OURS)
    with pytest.raises(OutputError, match="a finished training with another recipe, data or version"):
        folder.prepare("b", resume=True, overwrite=False)
    folder.prepare("a", resume=True, overwrite=False)
    assert all((folder.path / name).read_text() == name for name in OURS)
    assert folder.checkpoint == folder.work / CHECKPOINT
    with pytest.raises(OutputError, match="exclude each other"):
        folder.prepare("a", resume=True, overwrite=True)


def test_overwriting_takes_ours_alone(folder: TrainingFolder) -> None:
    others = ("notes.txt", "pictures/mine.png", "logs/mine.txt", "work/mine.txt", "bundle/mine.txt")
    kept = (*others, "work/cache/a.pixels", "work/census.npz", "bundle/model.json")
    write(folder, *OURS, f"work/{BEST}", *kept)
    folder.prepare("b", resume=False, overwrite=True)
    assert not any((folder.path / name).exists() for name in OURS)
    assert all((folder.path / name).read_text() == name for name in kept)
    assert folder.checkpoint is None
    folder.prepare("b", resume=True, overwrite=False)


def prints(scene: Any = SCENE, more: tuple[str, ...] = (), **changes: Any) -> str:
    return fingerprint_of(a_recipe(**changes), [scene], more)


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "t", "description": "d", "limits": "l", "license": "mit", "half": True},
        {
            "sources": [
                a_source("north", role="train", credit="c", license="l"),
                a_source("south", role="validation"),
            ]
        },
        {"sample": {"workers": 3, "cache": 1}},
    ],
)
def test_what_decides_nothing_may_change(changes: dict[str, Any]) -> None:
    assert prints(**changes) == prints()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"sample": {"batch": 3}},
        {"optimizer": {"average": 0.5}},
        {"bands": ("red", "green", "blue", "swir")},
        {"sources": [a_source("north", role="train")]},
        {"scene": dataclasses.replace(SCENE, labels=SCENE.labels[::-1].copy())},
        {"scene": dataclasses.replace(SCENE, name="other")},
        {"more": ("north",)},
        {"augment": {"noise": 0}},
    ],
)
def test_what_decides_is_another_training(changes: dict[str, Any]) -> None:
    assert prints(**changes) != prints()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from rssegment.training.folder import TrainingFolder
with TrainingFolder(Path({str(tmp_path)!r})).held():
    print("held", flush=True)
    input()
"""
    folder = TrainingFolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="another process trains in"), folder.held():
            pass
        other.kill()
        other.wait()
    with folder.held():  # the system has let it go
        folder.prepare("a", resume=False, overwrite=False)
        with pytest.raises(OutputError, match="another process trains in"), TrainingFolder(tmp_path).held():
            pass


def test_what_it_runs_on_stays_the_same(folder: TrainingFolder) -> None:
    machine = Machine("32-true", 1, "cpu", 4)
    assert folder.entered(machine, going_on=False) == ()
    folder.prepare("a", resume=True, overwrite=False)
    assert folder.entered(machine, going_on=True) == ()
    for other in ({"precision": "bf16-mixed"}, {"processes": 2}):
        with pytest.raises(OutputError, match=r"on another machine: .*; resume it on one like that"):
            folder.entered(dataclasses.replace(machine, **other), going_on=True)
    told = folder.entered(dataclasses.replace(machine, device="cuda", threads=8), going_on=True)
    assert [line.split(":")[0] for line in told] == [
        "the training began with device cpu, now cuda",
        "the training began with threads 4, now 8",
    ]
    assert folder.entered(dataclasses.replace(machine, precision="bf16-mixed"), going_on=False) == ()
    folder.prepare("b", resume=False, overwrite=True)
    assert folder.entered(machine, going_on=True) == ()
