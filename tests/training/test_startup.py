"""What can be refused at once is refused before torch and Lightning are imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from rssegment.model.hierarchy import Head
from rssegment.training import recipe
from tests.training.folders import noise, raster

LATE = {"torch", "lightning", "timm", "segmentation_models_pytorch", "distributed"}
RUN = f"""
import sys
from rssegment.cli import main
try:
    main()
finally:
    print("late:", *sorted({LATE!r} & set(sys.modules)))
"""


def imported(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    raster(tmp_path / "west" / "a.tif", noise((3, 20, 20)))
    raster(tmp_path / "west" / "a_labels.tif", np.ones((20, 20), np.uint8))
    return tmp_path


def written(folder: Path, changes: dict[str, Any], source: dict[str, Any]) -> Path:
    west = {"name": "west", "images": "west/*.tif", "labels": "{folder}/{stem}_labels.tif"}
    values = {"name": "tiny", "taxonomy": "landcover", "bands": ["red", "green", "blue"], "resolution": 10.0}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**values, "sources": [west | source], **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "source", "words"),
    [
        ({"optimizer": {"setps": 3}}, {}, "did you mean steps?"),
        ({"taxonomy": "landcovr"}, {}, "did you mean 'landcover'"),
        ({}, {"images": "est/*.tif"}, "no image of source 'west' matches"),
        ({}, {"labels": "{stem}_truth.tif"}, "have no labels"),
        ({}, {"mapping": {1: "bilding"}}, "no class 'bilding'"),
        ({}, {"bands": ["red"]}, "has 3 bands"),
    ],
)
def test_faults_are_told_before(
    data: Path, changes: dict[str, Any], source: dict[str, Any], words: str
) -> None:
    told = imported(RUN, "train", written(data, changes, source), "--data", data, "--out", data / "out")
    assert words in told.stderr
    assert (told.returncode, told.stdout) == (2, "late:\n")
    assert not (data / "out").exists()


def test_a_folder_with_other_files_is_told_before(data: Path) -> None:
    told = imported(RUN, "train", written(data, {}, {}), "--data", data, "--out", data / "west")
    assert "holds files that are no training's" in told.stderr
    assert told.stdout == "late:\n"


def test_a_recipe_is_read_without(data: Path) -> None:
    code = f"import sys, rssegment; rssegment.Recipe.load(sys.argv[1]); print({LATE!r} & set(sys.modules))"
    told = imported(code, written(data, {}, {"labels": "west.gpkg"}))
    assert (told.stdout, told.returncode) == ("set()\n", 0)


def test_heads_are_those_of_networks() -> None:
    assert get_args(recipe.Head) == get_args(Head)
