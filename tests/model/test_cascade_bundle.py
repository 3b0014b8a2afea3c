"""Cascades on disk."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pystac
import pytest
import torch
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from torch import Tensor

from rssegment.errors import BundleError, ModelError, OutputError
from rssegment.model import (
    Bundle,
    Calibration,
    Cascade,
    load_model,
    save_bundle,
    save_calibration,
    save_cascade,
    subtree,
)
from rssegment.taxonomy import Taxonomy
from tests.model.conftest import Tiny
from tests.model.test_cascade import TREE, Part, build, spec_of, tree_of

pytestmark = pytest.mark.filterwarnings("ignore:`?torch.jit")
PATCH = 32
MAIN = tree_of({1: {}, 2: {}, 3: {}}, "main")
BUILT, PLANTS, CROP = (subtree(TREE, TREE.node(code), f"below{code}") for code in (1, 2, 22))
BANDS = ("red", "green", "blue", "nir")


def make(path: Path, tree: Taxonomy, bands: tuple[str, ...] = BANDS, seed: int = 0, **changes: Any) -> Bundle:
    """A bundle of a tiny network for the leaves of ``tree``."""
    torch.manual_seed(seed)
    facts = {
        "channels": tuple(tree.leaf_codes.tolist()),
        "artifact": "torchscript",
        "patch": PATCH,
        "overlap": 8,
    }
    spec = spec_of(**(facts | {"bands": bands, "name": path.name} | changes))
    network = Tiny(len(bands), len(spec.channels)).eval()
    torch.nn.init.normal_(network.head.weight)
    return save_bundle(path, torch.jit.script(network), spec, tree)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    make(folder / "main", MAIN, seed=1)
    make(folder / "built", BUILT, ("nir", "red"), seed=2)
    make(folder / "plants", tree_of({21: {}, 22: {}}, "plants"), ("green",), seed=3)
    make(folder / "crop", CROP, ("green",), seed=4)
    save_cascade(folder / "deep_plants", folder / "plants", {22: (folder / "crop", 0.2)}, PLANTS)
    return folder


@pytest.fixture(scope="module")
def saved(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cascades") / "land"
    save_cascade(path, parts / "main", {"c1": parts / "built", 2: (parts / "deep_plants", 0.1)}, TREE)
    return path


@pytest.fixture
def cascade(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "cascade"))


def values_of(batch: int = 2, seed: int = 5) -> Tensor:
    return 255 * torch.rand(batch, len(BANDS), PATCH, PATCH, generator=torch.Generator().manual_seed(seed))


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_it_is_one_folder_that_can_be_moved(saved: Path, cascade: Path) -> None:
    deep = "specialists/c2/specialists/c22"
    own = ("model.json", "model.pt", "taxonomy.yaml")
    folders = ("", "specialists/c1/", "specialists/c2/", f"{deep}/")
    assert files(cascade) == sorted(folder + name for folder in folders for name in own)
    assert Bundle.open(cascade).fingerprint == Bundle.open(saved).fingerprint
    assert [p.name for p in saved.parent.iterdir()] == ["land"]


def test_its_members_are_multiplied_down_the_path(parts: Path, cascade: Path) -> None:
    values = values_of()
    main, built, plants, crop = (load_model(parts / name) for name in ("main", "built", "plants", "crop"))
    top, second = main(values), plants(values[:, [1]])
    inner = crop(values[:, [1]]) * second[:, 1:]
    needed = second[:, 1].amax((1, 2)) > 0.2
    inner = torch.where(needed.view(-1, 1, 1, 1), inner, second[:, 1:] / 3)
    below = torch.cat([second[:, :1], inner], 1)
    needed = top[:, 1].amax((1, 2)) > 0.1
    below = torch.where(needed.view(-1, 1, 1, 1), top[:, 1:2] * below, top[:, 1:2] / 4)
    wanted = torch.cat([top[:, :1] * built(values[:, [3, 0]]), below, top[:, 2:]], 1)
    model = load_model(cascade)
    assert isinstance(model, Cascade)
    assert model.leaves == tuple(TREE.leaf_codes.tolist())
    torch.testing.assert_close(model(values), wanted, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(model(values).sum(1), torch.ones(2, PATCH, PATCH), atol=1e-6, rtol=0)


def test_the_fingerprint_covers_all_members(parts: Path, saved: Path, tmp_path: Path) -> None:
    def fingerprint(name: str, built: Path, threshold: float = 0.0, main: str = "main") -> str:
        members = {1: (built, threshold), 2: (parts / "deep_plants", 0.1)}
        return save_cascade(tmp_path / name, parts / main, members, TREE).fingerprint

    plain = fingerprint("same", parts / "built")
    assert plain == Bundle.open(saved).fingerprint
    other = make(tmp_path / "built", BUILT, ("nir", "red"), seed=9).path
    hot = save_calibration(parts / "built", Calibration(temperature=2), tmp_path / "hot").path
    found = {plain, fingerprint("a", other), fingerprint("b", parts / "built", 0.5), fingerprint("c", hot)}
    assert len(found) == 4


def test_calibrations_of_members_go_with_them_and_the_mains_does_not(parts: Path, tmp_path: Path) -> None:
    values = values_of()
    hot = save_calibration(parts / "built", Calibration(temperature=3), tmp_path / "hot").path
    main = save_calibration(parts / "main", Calibration(temperature=5), tmp_path / "main").path
    path = save_cascade(tmp_path / "c", main, {1: hot, 2: parts / "deep_plants"}, TREE).path
    model = load_model(path)
    assert model.temperature == 1
    shares = model(values)
    top = load_model(parts / "main")(values)
    torch.testing.assert_close(shares[:, :3], top[:, :1] * load_model(hot)(values[:, [3, 0]]))
    after = save_calibration(path, Calibration(temperature=1.5))
    assert [s.bundle.calibration is None for s in after.specialists] == [False, True]
    torch.testing.assert_close(after.load()(values), (shares.log() / 1.5).softmax(1), atol=1e-6, rtol=1e-4)
    assert torch.equal(after.load(calibrated=False)(values), shares)


def test_a_specialist_in_a_cascade_is_not_calibrated_there(cascade: Path, tmp_path: Path) -> None:
    inner = cascade / "specialists" / "c1"
    with pytest.raises(OutputError, match=r"is part of the cascade .*make the cascade anew"):
        save_calibration(inner, Calibration())
    save_calibration(inner, Calibration(temperature=2), tmp_path / "out")
    assert Bundle.open(cascade).specialists[0].bundle.calibration is None


def test_more_specialists_are_added_to_a_cascade(parts: Path, saved: Path, tmp_path: Path) -> None:
    first = save_cascade(
        tmp_path / "one", parts / "main", {1: parts / "built", 2: parts / "deep_plants"}, TREE
    )
    wider = save_cascade(tmp_path / "two", first, {22: (parts / "crop", 0.5)}, TREE)
    assert [s.node for s in wider.specialists] == [1, 2, 22]
    assert wider.load()(values_of()).shape[1] == len(TREE.leaves)
    # in place of itself
    again = save_cascade(tmp_path / "one", tmp_path / "one", {22: parts / "crop"}, TREE, overwrite=True)
    assert [s.node for s in again.specialists] == [1, 2, 22]
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two"}


def test_the_main_model_may_know_leaves_itself(parts: Path, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", TREE, seed=8)
    assert save_cascade(tmp_path / "none", whole, {22: (parts / "crop", 1.0)}, TREE).taxonomy == TREE
    values = values_of()
    assert torch.equal(load_model(tmp_path / "none")(values), whole.load()(values))
    save_cascade(tmp_path / "all", whole, {22: parts / "crop"}, TREE)
    found, alone = load_model(tmp_path / "all")(values), whole.load()(values)
    assert torch.equal(found[:, :4], alone[:, :4])
    crop = load_model(parts / "crop")(values[:, [1]])
    torch.testing.assert_close(found[:, 4:7], alone[:, 4:7].sum(1, keepdim=True) * crop)


def test_a_main_model_of_node_scores(parts: Path, tmp_path: Path) -> None:
    tree = tree_of({1: {}, 2: {21: {}, 22: {}}, 3: {}}, "coarse")
    codes = tuple(tree.arrays.codes.tolist())
    main = make(tmp_path / "main", tree, channels=codes, output="scores")
    model = save_cascade(tmp_path / "c", main, {1: parts / "built", 22: parts / "crop"}, TREE).load()
    values = values_of()
    torch.testing.assert_close(model(values).sum(1), torch.ones(2, PATCH, PATCH), atol=1e-6, rtol=0)
    torch.testing.assert_close(model(values)[:, 3], main.load()(values)[:, 1])


def test_what_is_told_of_it(cascade: Path) -> None:
    facts = json.loads(json.dumps(Bundle.open(cascade).describe()))
    assert facts["calibration"] is None
    told = [(s["node"], s["class"], s["threshold"], s["href"]) for s in facts["specialists"]]
    assert told == [
        (1, "c1", 0, "specialists/c1"),
        (2, "c2", 0.1, "specialists/c2"),
        (22, "c2/c22", 0.2, "specialists/c2/specialists/c22"),
    ]
    assert facts["specialists"][0]["bands"] == ["nir", "red"]
    item = json.loads((cascade / "model.json").read_text())
    assert item["properties"]["rssegment:specialists"][1]["href"] == "./specialists/c2"
    core = copy.deepcopy(item) | {"stac_extensions": []}
    JsonSchemaSTACValidator().validate_core(core, pystac.STACObjectType.ITEM, "1.1.0")


# What is refused


Members = Callable[[Path, Path], dict[Any, Any]]
WRONG: list[tuple[Members, str]] = [
    (lambda p, _: {}, "at least one specialist"),
    (lambda p, _: {99: p / "built"}, "not in the cascade's tree: .*no code 99"),
    (lambda p, _: {"field": p / "built"}, "no class 'field'"),
    (lambda p, _: {3: p / "built"}, "has none below it"),
    (lambda p, _: {1: p / "built", "c1": p / "built", 2: p / "deep_plants"}, "two specialists for node 1"),
    (lambda p, _: {1: p / "crop", 2: p / "deep_plants"}, "its taxonomy below22 is not what is below"),
    (lambda p, _: {1: p / "built"}, "code 2 is no leaf of the taxonomy; 2 has classes below it"),
    (lambda p, _: {1: p / "built", 2: p / "plants"}, "it lacks code 221, 222, 2211, 2212"),
    (lambda p, _: {1: (p / "built", 1.5)}, r"threshold of the specialist for c1 is 1\.5"),
    (lambda p, _: {1: (p / "built", float("nan"))}, "threshold .* is nan"),
    (lambda p, _: {1: (p / "built", True)}, "threshold .* is True"),
    (lambda p, _: {1: p / "none"}, "no model bundle at"),
    (lambda p, t: {1: make(t / "swir", BUILT, ("red", "swir"))}, "wants the band swir"),
    (lambda p, t: {1: make(t / "coarse", BUILT, ground_resolution=1.0)}, "pixels of 1 m"),
    (lambda p, t: {1: make(t / "deep", BUILT, dtype="uint16")}, "stored uint16 values"),
]


@pytest.mark.parametrize(("members", "said"), WRONG)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    members: Members, said: str, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(BundleError, match=said):
        save_cascade(tmp_path / "out" / "c", parts / "main", members(parts, tmp_path / "made"), TREE)
    assert not (tmp_path / "out").exists()


def test_a_main_model_of_other_classes(parts: Path, tmp_path: Path) -> None:
    named = Taxonomy.flat("x", {1: ("c1", (0, 0, 0)), 2: ("lawn", (0, 0, 0)), 3: ("c3", (0, 0, 0))})
    main = make(tmp_path / "main", named)
    members = {1: parts / "built", 2: parts / "deep_plants"}
    with pytest.raises(BundleError, match="code 2 is lawn to the main model main and c2 in the cascade's"):
        save_cascade(tmp_path / "c", main, members, TREE)
    extra = make(tmp_path / "extra", tree_of({1: {}, 2: {}, 3: {}, 4: {}}))
    with pytest.raises(BundleError, match="channel code 4 is no leaf"):
        save_cascade(tmp_path / "c", extra, members, TREE)


def test_a_specialist_that_can_not_run_on_the_main_models_patches(parts: Path, tmp_path: Path) -> None:
    """Even where no pixel of the rehearsal would need it."""

    class Picky(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2] == 48, "48 px only"
            return x[:, :3]

    spec = spec_of((11, 121, 122), artifact="torchscript", patch=48, name="picky")
    picky = save_bundle(tmp_path / "picky", torch.jit.script(Picky()), spec, BUILT)
    with pytest.raises(
        ModelError, match=r"(?s)model picky failed on a batch of shape \(1, 4, 32, 32\).*48 px only"
    ):
        save_cascade(tmp_path / "c", parts / "main", {1: (picky, 1.0), 2: parts / "deep_plants"}, TREE)
    assert not (tmp_path / "c").exists()


def test_an_existing_folder_is_kept(parts: Path, cascade: Path) -> None:
    before = files(cascade)
    members = {1: parts / "built", 2: parts / "deep_plants"}
    with pytest.raises(OutputError, match="exists already"):
        save_cascade(cascade, parts / "main", members, TREE)
    with pytest.raises(BundleError):
        save_cascade(cascade, parts / "main", {1: parts / "built"}, TREE, overwrite=True)
    assert files(cascade) == before
    save_cascade(cascade, parts / "main", members, TREE, overwrite=True)
    assert Bundle.open(cascade).specialists[1].threshold == 0


def edit(folder: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    item = json.loads((folder / "model.json").read_text())
    change(item["properties"]["rssegment:specialists"])
    (folder / "model.json").write_text(json.dumps(item))


EDITS: list[tuple[Callable[[list[dict[str, Any]]], Any], str]] = [
    (lambda s: s[0].update(node=77), "node 77, which is not in the taxonomy land"),
    (lambda s: s[0].update(node=2), "names node 2 twice"),
    (
        lambda s: s[0].update(node="c1"),
        r"\['rssegment:specialists'\]\[0\]\.node is 'c1'; expected a whole number",
    ),
    (lambda s: s[0].pop("threshold"), r"\[0\]\.threshold is missing"),
    (lambda s: s[0].update(threshold=-0.1), r"\[0\]\.threshold is -0\.1; expected a probability"),
    (lambda s: s[0].update(threshold=float("nan")), r"threshold is nan"),
    *(
        (lambda s, href=href: s[0].update(href=href), r"\[0\]\.href is .*inside the bundle's own")
        for href in ("../main", "./specialists/../../main", "/etc", "a\\b", "", ".", "https://example.org/b")
    ),
    (lambda s: s[0].update(href="./specialists/none"), "lacks its folder specialists/none"),
    (lambda s: s[0].update(href="./specialists/c2"), "changed or damaged since the cascade was made"),
    (lambda s: s.pop(0), "channel code 1 is no leaf"),
    (lambda s: s.insert(0, 3), "expected an object"),
]


@pytest.mark.parametrize(("change", "said"), EDITS)
def test_a_description_that_was_tampered_with(
    cascade: Path, change: Callable[[list[dict[str, Any]]], Any], said: str
) -> None:
    edit(cascade, change)
    with pytest.raises(BundleError, match=said):
        Bundle.open(cascade)


def test_a_member_that_was_changed_or_lost(cascade: Path) -> None:
    weights = cascade / "specialists/c2/specialists/c22/model.pt"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"c22.*changed or damaged"):
        Bundle.open(cascade)
    shutil.rmtree(cascade / "specialists" / "c1")
    with pytest.raises(BundleError, match=r"lacks its folder specialists/c1.*copy the whole folder again"):
        Bundle.open(cascade)


def test_a_member_without_its_description(cascade: Path) -> None:
    (cascade / "specialists" / "c1" / "model.json").unlink()
    with pytest.raises(BundleError, match=r"c1 has no model\.json"):
        Bundle.open(cascade)


@pytest.mark.parametrize("place", ["..", "../..", "c2"])
def test_a_member_that_leads_back_into_the_cascade(place: str, cascade: Path) -> None:
    """Checksums of descriptions make circles impossible, by links too."""
    shutil.rmtree(cascade / "specialists" / "c1")
    (cascade / "specialists" / "c1").symlink_to(place)
    with pytest.raises(BundleError, match=r"changed or damaged since the cascade was made|no model\.json"):
        Bundle.open(cascade)


def test_a_member_elsewhere_is_what_the_cascade_was_made_of_or_refused(
    parts: Path, cascade: Path, tmp_path: Path
) -> None:
    before = Bundle.open(cascade).fingerprint
    link = cascade / "specialists" / "c1"
    shutil.move(link, tmp_path / "store")
    link.symlink_to(tmp_path / "store")
    assert Bundle.open(cascade).fingerprint == before
    # a copy has files and no links
    copy = save_calibration(cascade, Calibration(), tmp_path / "copy").path
    assert not any(path.is_symlink() for path in copy.rglob("*"))
    assert len(files(copy)) == len(files(cascade)) + 4  # those behind the link, and the calibration
    link.unlink()
    link.symlink_to(parts / "crop")
    with pytest.raises(BundleError, match="changed or damaged since the cascade was made"):
        Bundle.open(cascade)


def test_a_copy_has_only_what_descriptions_name(cascade: Path, tmp_path: Path) -> None:
    named = files(cascade)
    (cascade / "loop").symlink_to(".")
    (cascade / "specialists" / "c1" / "gone").symlink_to("none")
    (cascade / "specialists" / "c2" / "notes.txt").touch()
    os.mkfifo(cascade / "pipe")
    copy = save_calibration(cascade, Calibration(temperature=2), tmp_path / "copy")
    calibration = copy.files["calibration"].href
    assert files(copy.path) == sorted([*named, calibration])
    assert copy.load()(values_of()).shape[1] == len(TREE.leaves)


def test_specialists_without_end(cascade: Path) -> None:
    """Deeper than any tree, each with a sound checksum."""
    inner = cascade / "model.json"
    item = json.loads(inner.read_text())
    digest = hashlib.sha256(inner.read_bytes()).hexdigest()
    place = cascade.parent / "deepest"
    shutil.copytree(cascade, place)
    for depth in range(400):
        item["properties"]["rssegment:specialists"] = [
            {"node": 1, "href": "./s", "threshold": 0, "file:checksum": f"1220{digest}"}
        ]
        outer = place.with_name(f"d{depth}")
        outer.mkdir()
        place.rename(outer / "s")
        for name in ("model.pt", "taxonomy.yaml"):
            os.link(outer / "s" / name, outer / name)
        text = json.dumps(item)
        (outer / "model.json").write_text(text)
        digest, place = hashlib.sha256(text.encode()).hexdigest(), outer
    with pytest.raises(BundleError, match="specialists inside specialists without end"):
        Bundle.open(place)


def test_folders_of_classes_with_odd_names(parts: Path, tmp_path: Path) -> None:
    text = (
        TREE.dump()
        .replace("name: c2\n", "name: 'Wald & Flur'\n")
        .replace("name: c1\n", "name: 'wald+flur'\n")
    )
    tree = Taxonomy.loads(text.replace("name: c3\n", "name: '水'\n"))
    main = make(tmp_path / "main", Taxonomy.flat("m", {n.code: (n.name, n.color) for n in tree.level(1)}))
    made = save_cascade(tmp_path / "c", main, {1: parts / "built", 2: parts / "deep_plants"}, tree)
    assert [s.href for s in made.specialists] == ["specialists/wald-flur", "specialists/wald-flur-2"]


def test_build_of_the_other_tests_is_what_a_bundle_loads(parts: Path) -> None:
    """The cascades in memory, of the tests of shares, are put together as those of bundles are."""
    model = build(Part((21, 22), {22: Part((2211, 2212, 222))}), PLANTS)
    loaded = load_model(parts / "deep_plants")
    assert isinstance(model, Cascade)
    assert isinstance(loaded, Cascade)
    assert model.leaves == loaded.leaves
    assert model.main.leaves == loaded.main.leaves
    assert [m.node for m in model.members] == [m.node for m in loaded.members]


def test_bands_of_a_specialist_are_those_of_its_own_cascade(parts: Path, tmp_path: Path) -> None:
    """Names are looked up among the bands of the model right above, whose order is its own."""
    upper = make(tmp_path / "upper", tree_of({11: {}, 12: {}}), ("nir", "red"), seed=6)
    lower = make(tmp_path / "lower", tree_of({121: {}, 122: {}}), seed=7, bands=("Red", "NIR"))
    inner = save_cascade(tmp_path / "inner", upper, {12: lower}, BUILT)
    model = save_cascade(tmp_path / "c", parts / "main", {1: inner, 2: parts / "deep_plants"}, TREE).load()
    values = values_of()
    top = load_model(parts / "main")(values)[:, :1]
    pair = upper.load()(values[:, [3, 0]])
    wanted = torch.cat([top * pair[:, :1], top * pair[:, 1:] * lower.load()(values[:, [0, 3]])], 1)
    torch.testing.assert_close(model(values)[:, :3], wanted)
