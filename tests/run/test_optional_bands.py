"""One model for scenes with and without a band: what is filled, what is told, and what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

import rssegment as rs
from rssegment.errors import BundleError, MismatchError
from rssegment.model import (
    BandSpec,
    Bundle,
    Calibration,
    Cascade,
    Model,
    ModelSpec,
    save_bundle,
    save_calibration,
    save_cascade,
    subtree,
)
from rssegment.model.cascade import Member
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import scene_values, toy_spec, write_scene
from tests.run.test_calibration import write_labels
from tests.test_cli import Outcome, run

__all__ = ["run"]  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore:`?torch.jit")

Run = Callable[..., Outcome]

MEAN = 128
RGB = ("red", "green", "blue")
RGBN = (*RGB, "nir")
SMALL = (slice(None), slice(200, 420), slice(300, 560))  # with a part of the hole
NOTE = "the scene lacks nir: filled by its mean, as in training"


class Network(torch.nn.Module):
    """Random, and as much moved by each band as by the others."""

    def __init__(self, bands: int, classes: int, seed: int = 5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = torch.nn.Conv2d(bands, 12, 5, padding=2, padding_mode="replicate")
        self.head = torch.nn.Conv2d(12, classes, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = 3 * self.head(torch.tanh(2 * self.features(values)))
        return scores


def bands_of(names: Sequence[str], optional: Sequence[str], **means: float) -> tuple[BandSpec, ...]:
    return tuple(BandSpec(name=n, mean=means.get(n, MEAN), std=40, optional=n in optional) for n in names)


def make(
    path: Path,
    tree: Taxonomy,
    names: Sequence[str] = RGBN,
    optional: Sequence[str] = ("nir",),
    seed: int = 5,
    **changes: Any,
) -> Path:
    """A bundle with these bands, for the leaves of ``tree``."""
    codes = tuple(tree.leaf_codes.tolist())
    spec = toy_spec(**({"bands": bands_of(names, optional), "channels": codes, "name": path.name} | changes))
    network = torch.jit.script(Network(len(names), len(codes), seed).eval())
    return save_bundle(path, network, spec, tree).path


def scene_of(path: Path, values: NDArray[Any], names: Sequence[str | None], **profile: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_scene(path, values, **({"photometric": "minisblack"} | profile))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.undefined] * file.count
        file.descriptions = tuple(names)
    return path


def with_constant(values: NDArray[Any], band: int, constant: float = MEAN) -> NDArray[Any]:
    return np.insert(values, band, constant, axis=0)


def rasters(out: Path) -> dict[str, NDArray[Any]]:
    found = {}
    for name in ("labels", "confidence", "margin"):
        with rasterio.open(out / f"{name}.tif") as file:
            found[name] = file.read(1)
    return found


def files(out: Path) -> dict[str, bytes]:
    return {
        name: (out / name).read_bytes()
        for name in ("labels.tif", "confidence.tif", "margin.tif", "regions.geojson")
    }


def settings(**values: Any) -> rs.Settings:
    return rs.Settings(**({"workers": 0, "block": 128, "margin": True} | values))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, tree: Taxonomy) -> Path:
    return make(tmp_path_factory.mktemp("optional") / "rgbn", tree)


@pytest.fixture(scope="module")
def rgb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_of(tmp_path_factory.mktemp("rgb") / "scene.tif", scene_values()[SMALL], RGB)


# The result


@pytest.mark.parametrize("names", [RGBN, ("nir", *RGB), ("red", "nir", "green", "blue")])
@pytest.mark.parametrize("nodata", [None, 0])
def test_it_is_that_of_a_band_that_is_its_mean_everywhere(
    tmp_path: Path, tree: Taxonomy, names: tuple[str, ...], nodata: int | None
) -> None:
    model = make(tmp_path / "model", tree, names)
    values = scene_values()[SMALL]
    if nodata is None:
        values = np.maximum(values, 1)
    whole = with_constant(values, names.index("nir"))
    whole[:, (values == 0).all(0)] = 0
    without = scene_of(tmp_path / "a" / "scene.tif", values, RGB, nodata=nodata)
    constant = scene_of(tmp_path / "b" / "scene.tif", whole, names, nodata=nodata)
    rs.segment(without, model, tmp_path / "without", settings=settings())
    rs.segment(constant, model, tmp_path / "constant", settings=settings())
    assert files(tmp_path / "without") == files(tmp_path / "constant")
    found = rasters(tmp_path / "without")["labels"]
    assert len(np.unique(found[found > 0])) >= 3, "the toy model should not be trivial"


def test_the_band_matters_where_there_is_one(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    """Else the law above would hold of any model."""
    values = scene_values()[SMALL]
    other = scene_of(tmp_path / "scene.tif", np.concatenate([values, values[:1]]), RGBN)
    rs.segment(rgb, bundle, tmp_path / "rgb", settings=settings())
    rs.segment(other, bundle, tmp_path / "rgbn", settings=settings())
    assert (rasters(tmp_path / "rgb")["labels"] != rasters(tmp_path / "rgbn")["labels"]).mean() > 0.1


def test_validity_is_that_of_the_bands_that_are_there(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    rs.segment(rgb, bundle, tmp_path / "out", settings=settings())
    np.testing.assert_array_equal(
        rasters(tmp_path / "out")["labels"] > 0, (scene_values()[SMALL] != 0).any(0)
    )


@pytest.mark.parametrize("pixel", [0.5, 0.3, 0.8])
def test_blocks_do_not_change_a_byte(bundle: Path, tmp_path: Path, pixel: float) -> None:
    scene = scene_of(
        tmp_path / "scene.tif", scene_values()[SMALL], RGB, transform=Affine(pixel, 0, 5e5, 0, -pixel, 48e5)
    )
    found = []
    for block, batch in ((1024, 2), (150, 2), (77, 2)):
        out = tmp_path / str(block)
        rs.segment(scene, bundle, out, settings=settings(block=block, batch=batch))
        found.append(files(out))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_workers_do_not_change_a_byte(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        rs.segment(rgb, bundle, tmp_path / str(workers), settings=settings(workers=workers))
    assert files(tmp_path / "0") == files(tmp_path / "2")


def test_a_range_of_values_given_by_the_user_leaves_the_filling_alone(
    bundle: Path, rgb: Path, tmp_path: Path
) -> None:
    with rasterio.open(rgb) as file:
        values = file.read().astype(np.uint16)
    doubled = scene_of(tmp_path / "scene.tif", 2 * values, RGB, dtype="uint16")
    wide = rs.SceneOptions(rescale=(0, 510))
    rs.segment(rgb, bundle, tmp_path / "as_is", settings=settings())
    rs.segment(doubled, bundle, tmp_path / "doubled", settings=settings(scene=wide))
    for name, found in rasters(tmp_path / "as_is").items():
        np.testing.assert_array_equal(found, rasters(tmp_path / "doubled")[name])


# What is told


def test_the_plan_says_so(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    plan = rs.plan(rgb, bundle, tmp_path / "out", settings=settings())
    assert plan.filled == ("nir",)
    assert plan.describe()["bands"] == list(RGB)
    assert plan.describe()["filled_bands"] == ["nir"]
    assert plan.notes.count(NOTE) == 1
    assert f"note  {NOTE}" in str(plan)
    assert "red, green, blue, nir (its mean)" in str(plan)
    again = pickle.loads(pickle.dumps(plan))
    assert (again, again.fingerprint) == (plan, plan.fingerprint)


def test_memory_is_that_of_all_bands(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    values = scene_values()[SMALL]
    whole = scene_of(tmp_path / "scene.tif", np.concatenate([values, values[:1]]), RGBN)
    needs = [rs.plan(s, bundle, tmp_path / "out", settings=settings()).resources for s in (rgb, whole)]
    assert needs[0].bytes_per_worker == needs[1].bytes_per_worker


def test_the_fingerprint_knows_which_band_is_filled(tmp_path: Path, tree: Taxonomy) -> None:
    """With places given by the user, files and settings are the same for a model that lacks another."""
    names = ("one", "two", "three")
    scene = scene_of(tmp_path / "scene.tif", scene_values()[SMALL][:2], ("a", "b"))
    chosen = settings(scene=rs.SceneOptions(bands=(1, 2)))
    plans = [
        rs.plan(scene, make(tmp_path / name, tree, names, (name,)), tmp_path / "out", settings=chosen)
        for name in names
    ]
    assert [plan.filled for plan in plans] == [(name,) for name in names]
    assert len({plan.fingerprint for plan in plans}) == 3


def test_run_json_and_inspect_say_so(run: Run, bundle: Path, rgb: Path, tmp_path: Path) -> None:
    done = run("segment", rgb, "--model", bundle, "--out", tmp_path / "out", "--block", 512, "--workers", 0)
    assert done.code == 0, done.err
    assert f"  note: {NOTE}\n" in done.out
    facts = json.loads((tmp_path / "out" / "run.json").read_text())["plan"]
    assert facts["filled_bands"] == ["nir"]
    assert NOTE in facts["notes"]
    told = run("inspect", rgb, "--model", bundle)
    assert told.code == 0
    assert "fits: yes" in told.out
    assert "filled_bands: nir" in told.out
    assert NOTE in " ".join(told.out.split())
    assert rs.inspect(bundle)["bands"][3] == {"name": "nir", "mean": 128.0, "std": 40.0, "optional": True}


def test_bands_may_be_chosen(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    values = scene_values()[SMALL]
    whole = scene_of(tmp_path / "scene.tif", np.concatenate([values, values[:1]]), RGBN)

    def filled(*bands: int) -> tuple[str, ...]:
        chosen = settings(scene=rs.SceneOptions(bands=bands))
        return rs.plan(whole, bundle, tmp_path / "out", settings=chosen).filled

    assert filled(1, 2, 3) == ("nir",)
    assert filled(1, 2, 3, 4) == ()
    rs.segment(whole, bundle, tmp_path / "a", settings=settings(scene=rs.SceneOptions(bands=(1, 2, 3))))
    rs.segment(rgb, bundle, tmp_path / "b", settings=settings())
    assert files(tmp_path / "a") == files(tmp_path / "b")
    with pytest.raises(MismatchError, match="no blue"):
        filled(1, 2, 4)


def test_a_near_infrared_that_is_marked_as_alpha_is_not_lost(run: Run, bundle: Path, tmp_path: Path) -> None:
    """GDAL marks the fourth band of bytes so unless told otherwise."""
    values = np.maximum(scene_values()[SMALL], 1)
    path = tmp_path / "scene.tif"
    write_scene(path, np.concatenate([values, values[:1]]), photometric="rgb", alpha="yes", nodata=None)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    told = run("inspect", path, "--model", bundle)
    assert told.code == 2
    assert "'--bands red,green,blue,4' takes it as nir; '--bands red,green,blue' does without" in told.err
    for bands, filled in (("red,green,blue,4", []), ("red,green,blue", ["nir"])):
        out = json.loads(run("inspect", path, "--model", bundle, "--bands", bands, "--json").out)
        assert (out["fits"], out["filled_bands"]) == (True, filled)


def test_real_transparency_is_no_doubt(bundle: Path, tmp_path: Path) -> None:
    values = np.maximum(scene_values()[SMALL], 1)
    alpha = np.where((scene_values()[SMALL] == 0).all(0), 0, 255).astype(np.uint8)
    path = tmp_path / "scene.tif"
    write_scene(path, np.concatenate([values, alpha[None]]), photometric="rgb", alpha="yes", nodata=None)
    rs.segment(path, bundle, tmp_path / "out", settings=settings())
    np.testing.assert_array_equal(rasters(tmp_path / "out")["labels"] > 0, alpha > 0)


# Calibration


def test_a_calibration_tells_what_its_scenes_lacked(
    bundle: Path, rgb: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    codes = np.random.default_rng(2).choice(tree.leaf_codes, scene_values()[SMALL].shape[1:]).astype(np.uint8)
    truth = write_labels(tmp_path / "truth.tif", codes)
    options = settings(overlap=0)
    result = rs.calibrate(
        bundle, [(rgb, truth)], out=tmp_path / "new", settings=options, spatial_block="32px"
    )
    assert result.calibration.measured["filled_bands"] == [["nir"]]
    assert "scene: no nir, filled as in training" in result.remarks
    values = scene_values()[SMALL]
    whole = scene_of(tmp_path / "whole.tif", np.concatenate([values, values[:1]]), RGBN)

    def doubts(scene: Path) -> list[str]:
        notes = rs.plan(scene, tmp_path / "new", tmp_path / "out", settings=options).notes
        return [note for note in notes if "calibration was measured on scenes" in note]

    assert doubts(rgb) == []
    assert len(doubts(whole)) == 1
    assert "scenes without nir" in doubts(whole)[0]


def test_a_calibration_of_unknown_origin_raises_no_doubt(bundle: Path, rgb: Path, tmp_path: Path) -> None:
    kept = save_calibration(bundle, Calibration(temperature=1.3), out=tmp_path / "kept").path
    notes = rs.plan(rgb, kept, tmp_path / "out", settings=settings()).notes
    assert not any("calibration" in note for note in notes)


# Values in memory


def model_of(
    names: Sequence[str], optional: Sequence[str], tree: Taxonomy, seed: int = 1, **means: float
) -> Model:
    codes = tuple(tree.leaf_codes.tolist())
    spec = toy_spec(bands=bands_of(names, optional, **means), channels=codes)
    return Model(Network(len(names), len(codes), seed).eval(), spec, tree)


def values_of(bands: int) -> torch.Tensor:
    return 255 * torch.rand(2, bands, 24, 24, generator=torch.Generator().manual_seed(7))


def test_nan_in_an_optional_band_is_its_mean(tree: Taxonomy) -> None:
    model = model_of(RGBN, ("nir",), tree, nir=99.7)
    values = values_of(4)
    values[:, 3, 5:, :9] = torch.nan
    given = values.clone()
    filled = torch.where(values.isnan(), torch.tensor(np.float32(99.7)), values)
    torch.testing.assert_close(model(values), model(filled), rtol=0, atol=0)
    torch.testing.assert_close(values, given, rtol=0, atol=0, equal_nan=True)
    np.testing.assert_array_equal(model(values.numpy()), model(filled))


def test_nan_in_another_band_is_still_refused(tree: Taxonomy) -> None:
    values = values_of(4)
    values[:, 1] = torch.nan
    with pytest.raises(rs.RssegmentError, match="NaN"):
        model_of(RGBN, ("nir",), tree)(values)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_infinity_is_no_sign_of_a_lacking_band(tree: Taxonomy, value: float) -> None:
    codes = tuple(tree.leaf_codes.tolist())
    spec = toy_spec(bands=bands_of(RGBN, ("nir",)), channels=codes)
    model = Model(lambda x: x[:, 3:] * torch.ones(1, len(codes), 1, 1), spec, tree)
    values = values_of(4)
    model(values)
    values[:, 3, 0, 0] = value
    with pytest.raises(rs.RssegmentError, match="NaN or infinite"):
        model(values)


# Cascades

SeeThrough = Callable[..., Cascade]


@pytest.fixture
def cascade(tree: Taxonomy) -> SeeThrough:
    """A main model for land and water, and a specialist for what is on land."""

    def make_one(
        main: Sequence[str], names: Sequence[str], optional: Sequence[str], **means: float
    ) -> Cascade:
        top = Taxonomy.flat("top", {node.code: (node.name, node.color) for node in tree.level(1)})
        inner = model_of(names, optional, subtree(tree, tree.node(10), "land"), seed=2, **means)
        return Cascade(model_of(main, ("nir",), top), [Member(10, inner, 0.0, main)], tree)

    return make_one


@pytest.mark.parametrize(
    ("main", "names", "optional"),
    [
        (RGBN, RGBN, ("nir",)),
        (RGBN, ("nir", "blue"), ("nir",)),
        (RGBN, ("nir", "blue"), ("nir", "red")),
        (RGB, RGBN, ("nir",)),  # the main model reads no such band at all
        (("red", "nir"), ("nir", "green", "red"), ("green", "nir")),
    ],
)
def test_every_model_of_a_cascade_fills_by_its_own_mean(
    cascade: SeeThrough, main: tuple[str, ...], names: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    whole = cascade(main, names, optional, nir=60.0, green=31.0)
    values = values_of(len(main))
    if "nir" in main:
        values[:, main.index("nir")] = torch.nan
    inner = whole.members[0].model
    own = {name: values[:, k] for k, name in enumerate(main)}
    seen = torch.stack([own.get(n, torch.full_like(values[:, 0], torch.nan)) for n in names], 1)
    fills = torch.from_numpy(inner.fill).view(1, -1, 1, 1)
    seen = torch.where(seen.isnan(), fills, seen)
    mass = whole.main(values)[:, [whole.main.leaves.index(10)]]
    land = whole(values)[:, [whole.leaves.index(code) for code in inner.leaves]]
    torch.testing.assert_close(land, mass * inner(seen), rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, tree: Taxonomy) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    top = Taxonomy.flat("top", {node.code: (node.name, node.color) for node in tree.level(1)})
    land = subtree(tree, tree.node(10), "land")
    make(folder / "main", top)
    make(folder / "plain", top, RGB, ())
    make(folder / "with", land, ("nir", "blue"), ())
    make(folder / "maybe", land, ("nir", "blue"), ("nir",))
    return folder


def test_a_specialist_that_needs_the_band_refuses_the_scene(
    parts: Path, rgb: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    strict = save_cascade(tmp_path / "strict", parts / "main", {10: parts / "with"}, tree).path
    said = "the scene lacks nir; model main itself can do without, but with, the specialist for land, can't"
    with pytest.raises(MismatchError, match=said):
        rs.plan(rgb, strict, tmp_path / "out")
    told = rs.inspect(rgb, model=strict)
    assert told["fits"] is False
    assert said in told["why"]
    whole = scene_of(
        tmp_path / "scene.tif", with_constant(np.maximum(scene_values()[SMALL], 1), 3), RGBN, nodata=None
    )
    assert rs.inspect(whole, model=strict)["fits"] is True


def test_a_cascade_that_can_do_without_is_run(parts: Path, rgb: Path, tree: Taxonomy, tmp_path: Path) -> None:
    """Whatever the blocks, and as if the band were its mean; also where the main model never reads it."""
    values = scene_values()[SMALL]
    whole = with_constant(values, 3)
    whole[:, (values == 0).all(0)] = 0
    constant = scene_of(tmp_path / "scene.tif", whole, RGBN)
    for main in ("main", "plain"):
        model = save_cascade(tmp_path / main, parts / main, {10: parts / "maybe"}, tree).path
        found = []
        for scene, block in ((rgb, 1024), (rgb, 100), (constant, 128)):
            out = tmp_path / f"{main}{block}"
            rs.segment(scene, model, out, settings=settings(block=block))
            found.append(files(out))
        assert found[0] == found[1] == found[2]


def test_a_specialist_of_a_specialist_is_asked_too(
    parts: Path, rgb: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    land = subtree(tree, tree.node(10), "land")
    coarse = Taxonomy.flat("coarse", {node.code: (node.name, node.color) for node in land.level(1)})
    town = subtree(tree, tree.node(11), "town")
    make(tmp_path / "coarse", coarse, ("nir", "blue"), ("nir",))
    make(tmp_path / "town", town, ("nir",), ())
    middle = save_cascade(tmp_path / "land", tmp_path / "coarse", {11: tmp_path / "town"}, land).path
    model = save_cascade(tmp_path / "deep", parts / "main", {10: middle}, tree).path
    with pytest.raises(MismatchError, match=r"lacks nir; .* but town, the specialist for town, can't"):
        rs.plan(rgb, model, tmp_path / "out")
    with pytest.raises(
        BundleError, match=r"town, .* of coarse needs nir, and the main model plain reads only red"
    ):
        save_cascade(tmp_path / "never", parts / "plain", {10: middle}, tree)


def test_a_band_that_no_main_model_reads_must_be_optional(
    parts: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="wants the band nir, and the main model plain reads only red"):
        save_cascade(tmp_path / "bad", parts / "plain", {10: parts / "with"}, tree)


def test_the_file_keeps_what_is_optional(bundle: Path) -> None:
    item = json.loads((bundle / "model.json").read_text())
    bands = item["assets"]["weights"]["bands"]
    assert [band.get("rssegment:optional") for band in bands] == [None, None, None, True]
    assert item["properties"]["mlm:input"][0]["bands"] == list(RGBN)
    opened: ModelSpec = Bundle.open(bundle).spec
    assert [band.optional for band in opened.bands] == [False, False, False, True]
