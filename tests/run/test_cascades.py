"""Runs with a bundle of several models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

import rssegment as rs
from rssegment.model import Calibration, save_bundle, save_calibration, save_cascade, subtree
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import scene_values, toy_network, toy_spec, write_scene

pytestmark = pytest.mark.filterwarnings("ignore:`?torch.jit")


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory, tree: Taxonomy) -> Path:
    """A main model that knows land and water, and one for what is on land."""
    folder = tmp_path_factory.mktemp("cascade")
    top = Taxonomy.flat("top", {node.code: (node.name, node.color) for node in tree.level(1)})
    main = save_bundle(folder / "main", torch.jit.script(toy_network(2)), toy_spec(channels=(10, 5)), top)
    land = subtree(tree, tree.node(10), "on land")
    inner = save_bundle(
        folder / "land", torch.jit.script(toy_network(4)), toy_spec(channels=(1, 2, 3, 4)), land
    )
    path = save_cascade(folder / "both", main, {10: (inner, 0.95)}, tree).path
    return save_calibration(path, Calibration(temperature=1.3)).path


def test_block_size_does_not_change_a_byte(cascade: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", scene_values()[:, 200:460, 300:600])
    outputs = {}
    for name, block in (("whole", 1024), ("blocks", 150)):
        out = tmp_path / name
        rs.segment(scene, cascade, out, settings=rs.Settings(block=block, workers=0))
        outputs[name] = [(out / file).read_bytes() for file in ("labels.tif", "confidence.tif")]
    assert outputs["whole"] == outputs["blocks"]
    with rasterio.open(tmp_path / "whole" / "labels.tif") as file:
        assert len({1, 2, 3, 4} & set(np.unique(file.read(1)).tolist())) > 1


def test_inspect_tells_of_its_members_and_its_calibration(cascade: Path) -> None:
    facts = rs.inspect(cascade)
    assert facts["calibration"]["temperature"] == 1.3
    assert [(s["class"], s["model"], s["threshold"]) for s in facts["specialists"]] == [("land", "toy", 0.95)]
    assert rs.inspect(next(cascade.glob("calibration-*.json"))) == facts
