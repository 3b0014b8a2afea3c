"""The verb ``train``: exit codes, what is printed, and how it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rssegment.model import Bundle
from rssegment.training.module import Segmenter
from tests.test_cli import refused, run
from tests.training.trainings import a_land, a_recipe, digest

__all__ = ["run"]  # fixture


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_land(tmp_path_factory.mktemp("country"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return written(tmp_path / "recipe.yaml")


def written(path: Path, **changes: Any) -> Path:
    values = a_recipe(**{"optimizer": {"steps": 2}, "validate_every": 1} | changes).model_dump(mode="json")
    path.write_text(yaml.safe_dump(values))
    return path


def test_a_recipe_becomes_a_bundle(run: Any, recipe: Path, country: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = run("train", recipe, "--data", country, "--out", out, "--device", "cpu")
    assert told.code == 0, told.err
    assert "train: 2 of 2" in told.err
    assert [line.split("  ")[0] for line in told.err.splitlines() if line.startswith("step")] == [
        "step 1",
        "step 2",
    ]
    assert not [line for line in told.err.splitlines() if "arning" in line or "ightning" in line]
    assert told.out.startswith("level 1 (6.14 k px): mIoU")
    assert told.out.endswith(f"\n{out}/bundle\n")
    before = digest(out / "bundle")

    refused(
        run("train", recipe, "--data", country, "--out", out), "finished training", "bundle", "--overwrite"
    )
    quiet = run("train", recipe, "--data", country, "-o", out, "--resume", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    told = run("train", recipe, "--data", country, "-o", out, "--overwrite", "--json")
    assert told.err == ""
    facts = json.loads(told.out)
    assert facts["bundle"] == f"{out}/bundle"
    assert facts["steps"] == 2
    assert facts["scores"]["south"]["levels"][0]["pixels"] == 64 * 96
    assert digest(out / "bundle") == before


def test_regions_are_left_out(run: Any, country: Path, tmp_path: Path) -> None:
    from tests.training.trainings import a_source

    recipe = written(
        tmp_path / "recipe.yaml", sources=[a_source("north", role="train"), a_source("south", role="train")]
    )
    how = ("train", recipe, "--data", country, "-o", tmp_path / "out", "--json")
    facts = json.loads(run(*how, "--leave-out", "south").out)
    assert (facts["regions_left_out"], facts["scores"]) == (["south"], {})
    assert facts["scores_in_regions_left_out"].keys() == {"south"}
    refused(
        run(*how[:-1], "--leave-out", "west", "--overwrite"), "no region west to leave out", "north, south"
    )
    assert Bundle.open(tmp_path / "out" / "bundle")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"architecture": "unett"}}, ("unett",)),
        ({"bands": ("red", "thermal")}, ("thermal",)),
        ({"taxonomy": "nowhere.yaml"}, ("nowhere.yaml",)),
        ({"optimizer": {"class_weights": {"lava": 2.0}}}, ("lava",)),
    ],
)
def test_recipes_that_are_refused(
    run: Any, country: Path, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    recipe = written(tmp_path / "recipe.yaml", **changes)
    refused(run("train", recipe, "--data", country, "-o", tmp_path / "out", "--quiet"), *words)


def test_recipes_that_are_none(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nsteps: 3\n")
    refused(run("train", path, "-o", tmp_path / "out"), "bad recipe", "steps belongs under optimizer")
    refused(run("train", tmp_path / "none.yaml", "-o", tmp_path / "out"), "none.yaml")
    refused(run("train", path, "-o", tmp_path / "out", "--device", "gpu"), "bad recipe")
    path.write_text(written(path).read_text() + "overlap: 30\n")
    refused(run("train", path, "-o", tmp_path / "out"), "overlap: 30 px is more than half the patch of 32 px")
    assert not (tmp_path / "out").exists()


def test_failures_as_json(
    run: Any, recipe: Path, country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Segmenter, "loss_of", lambda _, batch: batch.values.sum() * float("nan"))
    told = run("train", recipe, "--data", country, "-o", tmp_path / "out", "--json")
    facts = json.loads(told.out)
    assert told.code == 1
    assert (facts["status"], facts["error"]) == ("failed", "ModelError")
    assert "at step 1" in facts["message"]


def stopped(arguments: tuple[object, ...], line_begins: str, number: int) -> str:
    """What the command line still says after a signal that is sent at its first such line; it exits with 1."""
    with subprocess.Popen(
        [sys.executable, "-m", "rssegment.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(line_begins):
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == 1
    return rest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_at_a_signal_and_says_how_to_go_on(country: Path, tmp_path: Path, number: int) -> None:
    recipe, out = written(tmp_path / "recipe.yaml", optimizer={"steps": 500}), tmp_path / "out"
    rest = stopped(("train", recipe, "--data", country, "-o", out), "step 2 ", number)
    assert "rssegment: stopped; what is done is kept: run the command again with --resume" in rest
    assert "from the last validation on" in rest
    assert "Traceback" not in rest
    assert (out / "work" / "last.ckpt").exists()


def test_it_promises_nothing_that_is_not_kept(country: Path, tmp_path: Path) -> None:
    recipe = written(tmp_path / "recipe.yaml", optimizer={"steps": 100_000}, validate_every=100_000)
    rest = stopped(("train", recipe, "--data", country, "-o", tmp_path / "out"), "train: ", signal.SIGINT)
    assert (
        "rssegment: stopped before the first validation, so no step is kept: begin again with --resume"
        in rest
    )
    assert "what is done is kept" not in rest
    assert not (tmp_path / "out" / "work" / "last.ckpt").exists()
