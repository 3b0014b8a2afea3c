"""From a recipe to a bundle that is used at once."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import rssegment as rs
from rssegment.errors import BundleError, InputError, OutputError, SettingsError
from rssegment.evaluation import Confusion, Scores
from rssegment.model import Bundle, Calibration, save_calibration
from rssegment.training import Trained, train
from rssegment.training.job import in_whole_epochs
from tests.training.folders import RGB, TREE, raster
from tests.training.trainings import RGBN, a_land, a_recipe, a_source, a_training, digest


def read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read()


def scores_of_map(scene: Path, country: Path, bundle: Path, out: Path) -> Scores:
    """Scores of the map that the bundle makes of a scene of the south."""
    rs.segment(scene, bundle, out)
    found, truth = read(out / "labels.tif")[0], read(country / "south_labels.tif")[0]
    return Scores.of(Confusion.of(found.astype(np.uint16), truth.astype(np.uint16), TREE))


# The bundle


def test_the_bundle_says_what_it_was_trained_on(trained: Trained, country: Path) -> None:
    bundle = Bundle.open(trained.bundle)
    spec, values = bundle.spec, read(country / "north.tif").reshape(4, -1)
    assert spec.band_names == RGBN
    assert [band.mean for band in spec.bands] == pytest.approx(values.mean(1), abs=1e-3)
    assert [band.std for band in spec.bands] == pytest.approx(values.std(1), abs=1e-3)
    assert (spec.dtype, spec.value_range, spec.ground_resolution) == ("uint8", (0.0, 255.0), 10.0)
    assert (spec.architecture, spec.output, spec.patch, spec.overlap) == ("enet", "logits", 32, 16)
    assert spec.channels == tuple(TREE.leaf_codes.tolist())
    assert bundle.taxonomy == TREE
    facts = trained.card.facts()
    assert spec.training == facts == json.loads((trained.folder / "training.json").read_text())
    assert facts["steps"] == facts["kept_step"] == 6
    page = (trained.bundle / "README.md").read_text()
    assert page == trained.card.markdown()
    assert "## Scores" in page
    assert trained.as_dict() == facts | {"bundle": str(trained.bundle), "folder": str(trained.folder)}
    assert str(trained).endswith(f"\n{trained.bundle}")


def test_the_map_has_the_scores_that_were_promised(country: Path, tmp_path: Path) -> None:
    """With patches side by side there is no blending, so a pixel's class is the same in both; with and without nir."""
    recipe = a_recipe(
        optional_bands=("nir",), overlap=0, optimizer={"steps": 12, "rate": 0.01}, validate_every=6
    )
    trained = a_training(country, tmp_path / "out", recipe)
    whole = scores_of_map(country / "south.tif", country, trained.bundle, tmp_path / "map")
    bare = tmp_path / "rgb.tif"
    with rasterio.open(country / "south.tif") as file:
        raster(bare, file.read()[:3], names=RGB, nodata=0, transform=file.transform)
    without = scores_of_map(bare, country, trained.bundle, tmp_path / "map_of_rgb")
    card = trained.card
    for name in ("", "south"):
        assert card.scores[name].leaf.mean_iou == whole.leaf.mean_iou
        assert card.without[name].leaf.mean_iou == without.leaf.mean_iou
    assert whole.leaf.mean_iou != without.leaf.mean_iou
    assert whole.leaf.mean_iou > 0.05
    assert "scores_without_optional_bands" in Bundle.open(trained.bundle).spec.training
    assert "### Without nir" in card.markdown()


def test_hierarchical_halved_and_calibrated(country: Path, tmp_path: Path) -> None:
    recipe = a_recipe(
        model={"head": "hierarchical"}, half=True, optimizer={"steps": 2, "dice": 0.3, "lovasz": 0.1}
    )
    trained = a_training(country, tmp_path / "out", recipe)
    bundle = Bundle.open(trained.bundle)
    assert bundle.spec.output == "scores"
    assert bundle.spec.channels == tuple(TREE.arrays.codes.tolist())
    assert {v.dtype for v in load_file(bundle.weights).values() if v.is_floating_point() and v.ndim > 1} == {
        torch.float16
    }
    assert bundle.weights.stat().st_size < 0.7 * 1_526_620
    rs.segment(country / "south.tif", trained.bundle, tmp_path / "map")
    measured = save_calibration(trained.bundle, Calibration(temperature=1.5), out=tmp_path / "calibrated")
    assert (measured.path / "README.md").read_text() == (trained.bundle / "README.md").read_text()
    assert Bundle.open(measured.path).spec.training == bundle.spec.training


# Ground


def test_a_region_left_out_is_scored_and_not_trained_on(
    country: Path, trained: Trained, tmp_path: Path
) -> None:
    both = a_recipe(sources=[a_source("north", role="train"), a_source("south", role="train")])
    out = tmp_path / "out"
    found = a_training(country, out, both, leave_out=["south"])
    assert found.scores.keys() == {"", "south"}
    assert digest(found) == digest(trained)
    with pytest.raises(OutputError, match="another recipe, data or version"):
        a_training(country, out, both, resume=True)
    assert digest(a_training(country, out, both, leave_out="south", resume=True)) == digest(trained)
    with pytest.raises(InputError, match="no region west, east to leave out; the recipe has north, south"):
        a_training(country, tmp_path / "none", both, leave_out=["west", "east"])
    with pytest.raises(InputError, match="all regions are left out"):
        a_training(country, tmp_path / "none", both, leave_out=["south", "north"])


def test_without_validation_ground_there_are_no_scores(
    country: Path, trained: Trained, tmp_path: Path
) -> None:
    found = a_training(country, tmp_path / "out", a_recipe(sources=[a_source("north", role="train")]))
    assert found.scores == {}
    assert str(found).startswith("no validation ground, no scores")
    assert Bundle.open(found.bundle).spec.training["scores"] == {}
    assert digest(found) == digest(trained)  # it is not looked at on the way


def test_a_split_by_blocks(country: Path, tmp_path: Path) -> None:
    sources = [a_source("north"), a_source("south", region="{stem:3}")]
    recipe = a_recipe(
        sources=sources, split={"block": 320, "gap": 0, "validation": 0.3}, optimizer={"steps": 2}
    )
    found = a_training(country, tmp_path / "out", recipe)
    assert set(found.scores) >= {""}
    assert 0 < found.scores[""].leaf.pixels < 96 * 128 + 64 * 96
    assert (
        a_training(country, tmp_path / "again", recipe).scores[""].leaf.pixels == found.scores[""].leaf.pixels
    )


def test_small_numbers_keep_their_digits(tmp_path: Path) -> None:
    data = a_land(tmp_path / "data")
    for name in ("north", "south"):
        with rasterio.open(data / f"{name}.tif") as file:
            values, place = file.read(), file.transform
        raster(data / f"{name}.tif", (values * 1e-7).astype(np.float32), names=RGBN, transform=place)
    found = a_training(data, tmp_path / "out", a_recipe(optimizer={"steps": 2}))
    spec = Bundle.open(found.bundle).spec
    expected = values.reshape(4, -1)  # of the south, which is much like the north
    assert spec.dtype == "float32"
    for band, own in zip(spec.bands, expected, strict=True):
        assert band.std == pytest.approx(own.std() * 1e-7, rel=0.2)
    assert 0 < spec.value_range[0] < spec.value_range[1] < 1e-4


def test_a_band_of_one_value_is_refused(tmp_path: Path) -> None:
    data = a_land(tmp_path / "data")
    for name in ("north", "south"):
        with rasterio.open(data / f"{name}.tif") as file:
            values, place = file.read(), file.transform
        values[3] = 255
        raster(data / f"{name}.tif", values, names=RGBN, transform=place)
    with pytest.raises(InputError, match="band nir is 255 all over the ground that is trained on"):
        a_training(data, tmp_path / "out")


# From other weights


def test_fine_tuning_goes_on_from_a_bundle(country: Path, trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tuned = a_training(
        country, out, a_recipe(model={"start": str(trained.bundle)}, optimizer={"steps": 1, "rate": 1e-9})
    )
    given, own = (load_file(Bundle.open(each.bundle).weights) for each in (trained, tuned))
    for name in (name for name, value in given.items() if value.ndim == 4):
        torch.testing.assert_close(own[name], given[name], rtol=1e-4, atol=1e-6)
    assert tuned.card.outcome.origin.startswith("bundle tiny, ")
    narrow = a_recipe(
        taxonomy="buildings",
        bands=RGB,
        model={"start": "bundle"},
        optimizer={"steps": 1},
        sources=[
            a_source("north", role="train", mapping={1: "building", 5: "other", 7: "other", 9: "other"}),
        ],
    )
    # itself, replaced; paths are relative to the data folder
    land = a_land(tmp_path / "data", bands=3)
    (land / "bundle").symlink_to(out / "bundle")
    names = [node.name for node in rs.Taxonomy.load("buildings").leaves]
    mapping = {code: names[code != 1] for code in (1, 5, 7, 9)}
    narrow = narrow.model_copy(
        update={"sources": (narrow.sources[0].model_copy(update={"mapping": mapping}),)}
    )
    again = a_training(land, out, narrow, overwrite=True)
    assert Bundle.open(again.bundle).spec.band_names == RGB
    assert Bundle.open(again.bundle).taxonomy.name == "buildings"


def test_an_earlier_bundle_stays_until_there_is_a_new_one(country: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = digest(a_training(country, out, a_recipe(optimizer={"steps": 1})))
    (out / "notes.txt").write_text("mine")
    for recipe, options, kind in (
        (a_recipe(model={"architecture": "unett"}), {}, BundleError),
        (a_recipe().model_copy(update={"overlap": 20}), {}, BundleError),
        (a_recipe(), {"device": "cuda:77"}, SettingsError),
        (a_recipe(), {"leave_out": ["x"]}, InputError),
    ):
        with pytest.raises(kind):
            train(recipe, out, **{"data": country, "device": "cpu", "overwrite": True} | options)  # type: ignore[arg-type]
        assert (out / "training.json").exists()
    with pytest.raises(InputError, match="patience ends a training by scores"):
        a_training(
            country, out, a_recipe(sources=[a_source("north", role="train")], patience=1), overwrite=True
        )
    assert digest(out / "bundle") == first
    assert not (out / "training.json").exists()
    second = a_training(country, out, a_recipe(seed=4, optimizer={"steps": 1}), overwrite=True)
    assert digest(second) != first
    assert (out / "notes.txt").read_text() == "mine"


# Recipes


def test_a_recipe_file_and_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_land(tmp_path / "land")
    TREE.save(folder / "tree.yaml")
    recipe = a_recipe(taxonomy="tree.yaml", optimizer={"steps": 1})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    found = train(folder / "recipe.yaml", tmp_path / "out", device="cpu")
    assert Bundle.open(found.bundle).taxonomy.leaf_codes.tolist() == TREE.leaf_codes.tolist()
    elsewhere = tmp_path / "recipes"
    elsewhere.mkdir()
    (folder / "recipe.yaml").rename(elsewhere / "recipe.yaml")
    (folder / "tree.yaml").rename(elsewhere / "tree.yaml")
    again = train(elsewhere / "recipe.yaml", tmp_path / "out", data=folder, device="cpu", resume=True)
    assert digest(again) == digest(found)
    text = (elsewhere / "tree.yaml").read_text()
    (elsewhere / "tree.yaml").write_text(text.replace("name: water", "name: lake"))
    with pytest.raises(OutputError, match="another recipe, data or version"):
        train(elsewhere / "recipe.yaml", tmp_path / "out", data=folder, device="cpu", resume=True)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_steps_become_whole_epochs(steps: int, every: int) -> None:
    found = in_whole_epochs(a_recipe(optimizer={"steps": steps}, validate_every=every))
    assert found.optimizer.steps % found.validate_every == 0
    epochs = found.optimizer.steps // found.validate_every
    assert abs(found.optimizer.steps - steps) <= max(epochs / 2, 0)
    assert in_whole_epochs(found) == found
    if steps % every == 0:
        assert (found.optimizer.steps, found.validate_every) == (steps, every)


def test_without_lightning_it_says_what_to_install(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(
        InputError, match=r"needs lightning, which is not installed: pip install 'rssegment\[train\]'"
    ):
        a_training(country, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_process_is_left_as_it_was(country: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = (
        torch.get_rng_state().tolist(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    a_training(country, tmp_path / "out", a_recipe(optimizer={"steps": 1}))
    assert before == (
        torch.get_rng_state().tolist(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )


# Real data


def trains(data: Path, out: Path, sources: list[dict[str, Any]], **changes: Any) -> Trained:
    """A few steps; the bundle runs on its first image."""
    recipe = a_recipe(
        **{"bands": RGB, "optimizer": {"steps": 3}, "validate_every": 3, "sample": {"patch": 64}} | changes,
        sources=sources,
    )
    found = a_training(data, out, recipe)
    assert found.card.outcome.steps == 3
    assert (found.bundle / "README.md").exists()
    return found


@pytest.mark.data
def test_flair(data: Path, tmp_path: Path) -> None:
    """The packaged model's kind of recipe: four bands, one optional, a second source at the parents without it."""
    common = {"labels": "{folder}/{stem}_labels.tif", "mapping": "flair_to_landcover"}
    sources = [
        common | {"name": "flair", "images": "flair_d034/Z1_*_val.tif", "region": "{stem:5}"},
        {
            "name": "dubai",
            "images": "dubai_hitl/tile_1/images/image_part_001.jpg",
            "labels": "{parent}/masks/{stem}.png",
            "mapping": "dubai_to_landcover",
            "bands": RGB,
            "resolution": 1.6,
            "role": "train",
            "weight": 0.3,
        },
    ]
    found = trains(
        data,
        tmp_path,
        sources,
        bands=RGBN,
        optional_bands=("nir",),
        resolution=1.6,
        split={"block": 80, "gap": 10},
        model={
            "architecture": "smp:Unet",
            "encoder": "tf_mobilenetv3_small_minimal_100",
            "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        },
    )
    assert found.scores[""].leaf.pixels > 5_000
    assert found.card.without
    assert {source.name for source in found.card.sources if source.train} == {"flair", "dubai"}


@pytest.mark.data
def test_voc(data: Path, tmp_path: Path) -> None:
    source = {"name": "voc", "kind": "voc", "folder": "voc_sample", "resample": False, "role": "train"}
    found = trains(data, tmp_path, [source], taxonomy="voc2012", resolution=1.0)
    assert len(Bundle.open(found.bundle).spec.channels) == 21


@pytest.mark.data
@pytest.mark.parametrize(
    ("kind", "labels"),
    [("coco_panoptic", "panoptic_examples"), ("coco_instances", "panoptic_coco_detection_format")],
)
def test_coco(data: Path, tmp_path: Path, kind: str, labels: str) -> None:
    source = {
        "name": "coco",
        "kind": kind,
        "labels": f"coco_sample/{labels}.json",
        "images": "coco_sample/input_images",
        "resample": False,
        "role": "train",
    }
    found = trains(data, tmp_path, [source], taxonomy="coco_panoptic", resolution=1.0)
    assert found.card.areas()


def test_a_suite(tmp_path: Path) -> None:
    from tests.training.folders import BLUE, GREEN, RED, noise, painted, picture

    folder = tmp_path / "suite"
    for seed, subset in enumerate(("train", "val")):
        for k in range(2):
            codes = noise((5, 6), 2 * seed + k).repeat(16, 0).repeat(16, 1) % 3 + 1
            mask = painted(codes, {1: RED, 2: GREEN, 3: BLUE})
            picture(folder / subset / f"{k}.png", mask // 2 + noise(mask.shape, k) // 4)
            picture(folder / f"{subset}_labels" / f"{k}.png", mask)
    (folder / "class_dict.csv").write_text("name,r,g,b\nbuilding,255,0,0\nwater,0,255,0\nvoid,0,0,255\n")
    source = {
        "kind": "suite",
        "folder": "suite",
        "mapping": {"building": "building", "water": "water", "void": None},
        "resample": False,
    }
    sources = [
        source | {"name": "train", "role": "train"},
        source | {"name": "val", "subset": "val", "role": "validation", "region": "held"},
    ]
    found = trains(tmp_path, tmp_path / "out", sources, resolution=1.0)
    assert found.scores.keys() == {"", "held"}
