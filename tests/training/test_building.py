"""Networks to begin with, and what their bundles will say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rssegment.errors import BundleError, InputError
from rssegment.model import Bundle
from rssegment.taxonomy import Taxonomy
from rssegment.training import Trained, building
from rssegment.training.building import begin, check_described, first_weights
from rssegment.training.located import found_at
from tests.training.folders import RGB, TREE
from tests.training.trainings import RGBN, a_recipe

UNET = {
    "architecture": "smp:Unet",
    "encoder": "tf_mobilenetv3_small_minimal_100",
    "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the weights of an encoder of red, green and blue."""
    torch.manual_seed(11)
    begun = begin(a_recipe(model=UNET, bands=RGB), TREE, ())
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    save_file({k: v.contiguous() for k, v in begun.network.encoder.state_dict().items()}, path)  # type: ignore[operator,union-attr]
    return path


def encoders(recipe: Any, *folders: Path) -> tuple[dict[str, torch.Tensor], str]:
    begun = begin(recipe, TREE, folders)
    return begun.network.encoder.state_dict(), begun.origin  # type: ignore[operator,union-attr,return-value]


def test_new_networks_have_random_weights() -> None:
    begun = begin(a_recipe(), TREE, ())
    assert (begun.architecture, begun.options, begun.origin) == ("enet", {}, "random weights")
    begun = begin(a_recipe(model=UNET), TREE, ())
    assert begun.options == UNET["options"] | {"encoder": UNET["encoder"]}  # type: ignore[operator]


def test_encoder_weights_from_either_folder(encoder: Path, tmp_path: Path) -> None:
    recipe = a_recipe(model=UNET | {"encoder_weights": encoder.name}, bands=RGB)
    found, origin = encoders(recipe, tmp_path, encoder.parent)
    for name, value in load_file(encoder).items():
        assert torch.equal(found[name], value)
    assert origin.startswith("encoder: ")
    assert "(100.0%) of the encoder from encoder.safetensors" in origin
    with pytest.raises(BundleError, match=r"no file of pretrained weights encoder.safetensors"):
        encoders(recipe, tmp_path)


def test_filters_go_to_the_bands_that_they_are_of(encoder: Path) -> None:
    bands = ("nir", "blue", "green", "red")
    recipe = a_recipe(model=UNET | {"encoder_weights": str(encoder)}, bands=bands)
    found, _ = encoders(recipe)
    name, given = next((k, v) for k, v in load_file(encoder).items() if v.shape[1:] == (3, 3, 3))
    for place, color in ((3, 0), (2, 1), (1, 2)):
        torch.testing.assert_close(found[name][:, place], given[:, color] * 3 / 4)
    torch.testing.assert_close(found[name][:, 0], given.mean(1) * 3 / 4)


def test_encoder_weights_from_a_package_that_is_not_imported(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "weights_of_somebody"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "models" / "e.safetensors").write_bytes(encoder.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    weights = "package:weights_of_somebody/models/e.safetensors"
    found, _ = encoders(a_recipe(model=UNET | {"encoder_weights": weights}, bands=RGB))
    assert all(torch.equal(found[name], value) for name, value in load_file(encoder).items())
    with pytest.raises(BundleError, match=r"no file of pretrained weights .*other.pth"):
        encoders(a_recipe(model=UNET | {"encoder_weights": "package:weights_of_somebody/other.pth"}))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "package:nobody_has_this/a.pth",
            "package nobody_has_this is not installed; .* pip install nobody_has_this",
        ),
        ("package:nobody.has.this/a.pth", "names no file of a package; expected package:name/path"),
        ("package:/a.pth", "names no file of a package"),
        ("package:numpy", "names no file of a package"),
        ("package:", "names no file of a package"),
        ("package:graphlib/a.pth", "package graphlib is not installed"),  # a module of one file
    ],
)
def test_packages_that_are_not_there(path: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        found_at(path, ())


def test_paths_are_found_below_the_first_folder_that_has_them(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "b" / "file").write_text("")
    folders = [tmp_path / "a", tmp_path / "b"]
    assert found_at("file", folders) == str(tmp_path / "b" / "file")
    (tmp_path / "a" / "file").write_text("")
    assert found_at("file", folders) == str(tmp_path / "a" / "file")
    assert found_at("landcover", folders) == "landcover"


# From a bundle


def test_the_same_classes_take_every_weight(trained: Trained) -> None:
    begun = begin(a_recipe(model={"start": str(trained.bundle)}), TREE, ())
    given = load_file(Bundle.open(trained.bundle).weights)
    own = begun.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in given.items())
    assert begun.origin.startswith(f"bundle tiny, {len(given)} of ")
    assert begun.architecture == "enet"


@pytest.mark.parametrize(
    ("tree", "changes", "told"),
    [
        (Taxonomy.load("buildings"), {}, r".* head: 0 of 2 classes from it, 2 new"),
        (TREE, {"head": "hierarchical"}, r".* head: 0 of \d+ classes from it, "),
        (TREE, {"bands": RGB}, r".* bands: 3 of 3 from it, 0 new; head: 11 of 11 classes"),
    ],
    ids=["other classes", "another head", "other bands"],
)
def test_what_fits_is_taken(trained: Trained, tree: Taxonomy, changes: dict[str, Any], told: str) -> None:
    head = changes.get("head", "flat")
    recipe = a_recipe(model={"start": trained.bundle.name, "head": head}, bands=changes.get("bands", RGBN))
    begun = begin(recipe, tree, [trained.folder])
    given, own = load_file(Bundle.open(trained.bundle).weights), begun.network.state_dict()
    inner = [name for name in given if not name.startswith(("initial.", "head."))]
    assert len(given) - len(inner) == 9
    assert all(torch.equal(own[name], given[name]) for name in inner)
    assert re.match(f"bundle tiny, {told}", begun.origin)
    with torch.no_grad():
        begun.network.eval()(torch.zeros(1, len(recipe.bands), 32, 32))


def test_bundles_that_can_not_be_begun_from(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        begin(a_recipe(model={"start": "nowhere"}), TREE, ())
    recipe = a_recipe(model={"start": str(trained.bundle)})
    with monkeypatch.context() as patched:
        patched.setattr(building, "read_tensors", lambda _: {"other.weight": torch.zeros(1)})
        with pytest.raises(InputError, match=r"no weight of the bundle .* fits"):
            begin(recipe, TREE, ())
    own = Bundle.open(trained.bundle)
    for changes, told in (
        ({"artifact": "pt2"}, "holds pt2, which can't be trained on; expected safetensors"),
        (
            {"architecture_options": {"head": "flat"}},
            "can't build the architecture enet with the option head",
        ),
    ):
        other = replace(own, spec=own.spec.model_copy(update=changes))
        monkeypatch.setattr(building.Bundle, "open", lambda _, found=other: found)
        with pytest.raises(InputError, match=told):
            begin(recipe, TREE, ())


def test_credit_of_the_bundle_that_is_gone_on_from(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Bundle.open(trained.bundle)
    other = replace(own, spec=own.spec.model_copy(update={"credit": "who made it"}))
    monkeypatch.setattr(building.Bundle, "open", lambda _: other)
    assert begin(a_recipe(model={"start": "bundle"}), TREE, ()).credit == "who made it"
    assert begin(a_recipe(), TREE, ()).credit == ""


# What a bundle will say


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overlap": 17}, "overlap: 17 px is more than half the patch of 32 px"),
        ({"name": "land cover"}, "name = 'land cover': use a letter, then"),
        ({"bands": (*RGBN, "Red")}, "two bands have the same name"),
    ],
)
def test_what_no_bundle_can_have(changes: dict[str, Any], words: str) -> None:
    recipe = a_recipe().model_copy(update=changes)  # which the recipe itself would refuse
    with pytest.raises(BundleError, match=words):
        check_described(recipe, TREE, begin(recipe, TREE, ()))


def test_content_that_is_begun_from_tells_trainings_apart(
    encoder: Path, trained: Trained, tmp_path: Path
) -> None:
    def digests(**model: Any) -> list[str]:
        return first_weights(a_recipe(model=model).model, [tmp_path])

    weights = tmp_path / "e.safetensors"
    assert digests() == digests(encoder_weights=weights.name) == []
    weights.write_bytes(encoder.read_bytes())
    before = digests(encoder_weights=weights.name)
    weights.write_bytes(b"other")
    assert digests(encoder_weights=weights.name) != before
    assert len(before) == 1
    assert digests(start=str(trained.bundle)) == [Bundle.open(trained.bundle).fingerprint]
