"""The pages of `pipelines/` on made-up tiles: they run, and what they promise holds."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from rssegment.model import Bundle
from rssegment.taxonomy import Taxonomy

FOLDER = Path(__file__).parents[1] / "pipelines"
if not FOLDER.is_dir():
    pytest.skip("pipelines are not beside the tests", allow_module_level=True)


def page(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    return page("compare_hierarchy")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training tiles and one for validation, 200 x 240 px, in fields of 40 px whose colour tells their class."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    codes = np.array(
        [1, 2, 3, 5, 6, 7, 10, 11, 18, 19], np.uint8
    )  # a greenhouse and one to ignore among them
    for east, name in enumerate(("A_train", "B_train", "A_val")):
        labels = np.kron(rng.choice(codes, (5, 6)), np.ones((40, 40), np.uint8))
        bands = labels * np.array([5, 9, 3, 7], np.uint8)[:, None, None] + rng.integers(
            0, 20, (4, 200, 240), np.uint8
        )
        place = {
            "crs": "EPSG:2154",
            "transform": from_origin(700_000 + 1000 * east, 6_300_000, 2, 2),
            "dtype": "uint8",
            "photometric": "minisblack",  # else the fourth band would be one of opacity
        }
        for stem, values in ((name, bands), (f"{name}_labels", labels[None])):
            with rasterio.open(
                folder / f"{stem}.tif", "w", width=240, height=200, count=len(values), **place
            ) as file:
                file.write(values)
                file.descriptions = ("red", "green", "blue", "nir")[: len(values)]
    return folder


SMALL = ["--steps", "3", "--batch", "2", "--patch", "32", "--block", "40"]


def runs(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]


def test_comparison_runs_resumes_and_reports(compare: ModuleType, tiles: Path, tmp_path: Path) -> None:
    compare.main([str(tiles), str(tmp_path), *SMALL, "--seeds", "0", "--arms", "flat_all", "tree_mixed"])
    first = runs(tmp_path)
    compare.main([str(tiles), str(tmp_path), *SMALL, "--seeds", "0"])
    assert runs(tmp_path)[:2] == first  # finished ones are neither lost nor done again
    assert {run["arm"] for run in runs(tmp_path)} == set(compare.ARMS)
    assert len(runs(tmp_path)) == len(compare.ARMS)
    for run in runs(tmp_path):
        assert all(np.isfinite(value) for value in run["scores"].values())
        _, correct, specific = np.array(run["curve"]).T
        assert (np.diff(correct) >= 0).all()  # the more is left open, the more is right
        assert (np.diff(specific) <= 0).all()
        assert specific[0] == 1
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith("| pixel_accuracy")).split("|")
    assert float(row[2]) == pytest.approx(first[0]["scores"]["pixel_accuracy"], abs=1e-4)
    (tmp_path / "table.md").unlink()
    compare.main([str(tiles), str(tmp_path), *SMALL, "--table-only"])
    assert (tmp_path / "table.md").read_text(encoding="utf-8").splitlines() == lines


def test_the_same_seed_gives_the_same_weights(compare: ModuleType, tiles: Path) -> None:
    plan = compare.Plan("tiles", 3, 2, 32, 40)
    first, again, other = (compare.one_run(tiles, plan, "tree_mixed", seed) for seed in (1, 1, 2))
    assert first["weights"] == again["weights"]
    assert first["scores"] == again["scores"]
    assert first["weights"] != other["weights"]


def test_arms_begin_alike_and_see_the_same_blocks(compare: ModuleType, tiles: Path) -> None:
    values = torch.randn(1, 4, 32, 32)
    first = compare.begin("flat_all", 3)(values)
    assert torch.equal(compare.begin("tree_mixed", 3)(values), first)
    assert not torch.equal(compare.begin("flat_all", 4)(values), first)
    plan = compare.Plan("tiles", 1, 1, 32, 40)
    every, half, mixed = (
        compare.blocks(tiles, plan, arm, 0) for arm in ("flat_all", "flat_half", "tree_mixed")
    )
    assert len(every) == len(mixed) == 2 * len(half)
    leaves = set(compare.TREE.leaf_codes.tolist()) | {0}
    lookup = {n.code: n.parent or n.code for n in compare.TREE.nodes} | {0: 0}
    for whole, part in zip(every, mixed, strict=True):
        assert np.array_equal(whole.bands, part.bands)
        if not np.array_equal(whole.codes, part.codes):
            assert np.array_equal(np.vectorize(lookup.get)(whole.codes), part.codes)
        assert set(np.unique(whole.codes).tolist()) <= leaves
    kept = [block for block in mixed if any(np.shares_memory(block.codes, leaf.codes) for leaf in half)]
    assert len(kept) == len(half)


def test_labels_of_classes_that_hardly_occur_are_mapped(compare: ModuleType, tiles: Path) -> None:
    codes = np.concatenate([tile.codes.ravel() for tile in compare.tiles(tiles, "train")])
    assert not {18, 19} & set(codes.tolist())
    assert {0, 1} <= set(codes.tolist())
    assert len(compare.TREE.leaves) == 13
    assert compare.TREE.depth == Taxonomy.load("flair").depth


def test_backoff_goes_to_the_most_probable_child_while_it_is_sure(compare: ModuleType) -> None:
    """Two pixels: a sure one, and one that is vegetation for sure and no more."""
    leaves = np.zeros((13, 1, 2), np.float32)
    order = [leaf.code for leaf in compare.TREE.leaves]
    leaves[order.index(6), 0, 0] = 1
    leaves[order.index(6), 0, 1], leaves[order.index(10), 0, 1] = 0.55, 0.45
    correct, specific = compare.backoff(leaves, np.array([6, 10], np.uint8))
    at = {tau: int(compare.TAUS.searchsorted(tau)) for tau in (0.25, 0.75)}
    assert correct[at[0.25]] == 1  # coniferous where it is herbaceous: wrong
    assert specific[at[0.25]] == 2
    assert correct[at[0.75]] == 2
    assert specific[at[0.75]] == pytest.approx(1 + 1 / 3)


RECIPE = """
name: landcover
taxonomy: landcover
bands: [red, green, blue, nir]
optional_bands: [nir]
resolution: 2
sources:
  - {name: train, images: flair_d034/*_train.tif, labels: "{folder}/{stem}_labels.tif", mapping: flair_to_landcover,
     region: "{stem:1}", role: train, credit: somebody}
  - {name: val, images: flair_d034/*_val.tif, labels: "{folder}/{stem}_labels.tif", mapping: flair_to_landcover,
     region: "{stem:1}", role: validation, credit: somebody}
model: {architecture: enet}
sample: {patch: 64, batch: 2, workers: 0}
optimizer: {steps: 4}
validate_every: 2
patch: 32
overlap: 8
half: true
"""


@pytest.fixture
def landcover(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = page("train_landcover")
    monkeypatch.setattr(module, "ZONES", ("A", "B"))
    return module


def test_landcover_is_trained_scored_where_it_was_not_and_calibrated(
    landcover: ModuleType, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flair_d034").symlink_to(tiles)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    out = tmp_path / "out"
    asked = [
        "train_landcover",
        str(tmp_path),
        str(out),
        "--recipe",
        str(tmp_path / "recipe.yaml"),
        "--zone-steps",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", asked)
    landcover.main()
    bundle = Bundle.open(out / "bundle")
    facts = bundle.spec.training
    assert set(facts["scores_in_regions_left_out"]) == {"A", "B"}
    assert (facts["steps"], facts["steps_with_regions_left_out"]) == (4, 3)
    assert bundle.calibration is not None
    card = (out / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "but for 3 instead of 4 steps" in card
    assert "alibrat" in card
    weights = bundle.weights.read_bytes()
    landcover.main()  # what is done is not done again
    assert Bundle.open(out / "bundle").weights.read_bytes() == weights
