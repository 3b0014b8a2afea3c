"""What inspect says of any path, in Python and on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

import rssegment as rs
from rssegment.errors import InputError, SettingsError
from rssegment.report import outline
from rssegment.scene import Scene
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import make_bundle, scene_values, write_scene
from tests.test_cli import refused, run

__all__ = ["run"]  # a fixture

SMALL = scene_values((300, 300))[:, 130:, 130:]


def class_map(path: Path, *, palette: bool = True, names: bool = True, description: str = "class") -> Path:
    """Codes 1 to 3 in one band of bytes, told to be classes in up to three ways."""
    values = np.random.default_rng(0).integers(1, 4, (64, 64)).astype(np.uint8)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=64,
        width=64,
        dtype="uint8",
        crs="EPSG:32631",
        transform=Affine(0.5, 0, 500000, 0, -0.5, 4800000),
    ) as file:
        file.write(values, 1)
        file.set_band_description(1, description)
        if palette:
            file.write_colormap(1, {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)})
    if names:
        text = "".join(f"<Category>{name}</Category>" for name in ("none", "roof", "tree", "water"))
        Path(f"{path}.aux.xml").write_text(
            f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{text}</CategoryNames></PAMRasterBand></PAMDataset>'
        )
    return path


# Options


def test_a_scene_without_crs_is_refused_with_a_cure_that_works(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_scene(tmp_path / "s.tif", SMALL, crs=None)
    refused(run("inspect", path), "--crs")
    told = json.loads(run("inspect", path, "--crs", "EPSG:32633", "--json").out)
    assert told["crs"] == "EPSG:32633"


def test_bands_and_nodata_are_taken_as_segment_takes_them(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_scene(tmp_path / "s.tif", SMALL)
    told = json.loads(run("inspect", path, "--bands", "3,red", "--nodata", "7", "--json").out)
    assert [band["name"] for band in told["bands"]] == ["blue", "red"]
    assert [band["nodata"] for band in told["bands"]] == [7, 7]
    refused(run("inspect", path, "--bands", "5"), "no band 5")
    refused(run("inspect", path, "--bands", ""), "no band named ''")
    with pytest.raises(SettingsError):
        rs.SceneOptions(rescale=(1, 1))


def test_rescale_is_the_cure_for_another_type(run, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_scene(tmp_path / "s.tif", SMALL.astype(np.uint16) * 10)
    poor = run("inspect", path, "--model", bundle, "--json")
    assert "--rescale" in json.loads(poor.out)["why"]
    cured = run("inspect", path, "--model", bundle, "--rescale", 0, 2550, "--json")
    assert (cured.code, json.loads(cured.out)["fits"]) == (0, True)
    refused(run("inspect", path, "--rescale", 0, 2550), "--model")


def test_bands_in_another_order_are_the_cure_for_other_names(bundle: Path, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", np.concatenate([SMALL, SMALL[:1]]))
    with rasterio.open(path, "r+") as file:
        for index in range(1, 5):
            file.set_band_description(index, f"channel {index}")
    assert "--bands" in rs.inspect(path, bundle)["why"]
    facts = rs.inspect(path, bundle, rs.SceneOptions(bands=(3, 2, 1)))
    assert facts["fits"]
    assert any("by their order" in note for note in facts["notes"])


# A model's fit


def test_resampling_is_told_before_it_happens(bundle: Path, tmp_path: Path) -> None:
    fine = write_scene(tmp_path / "fine.tif", SMALL, transform=Affine(0.2, 0, 500000, 0, -0.2, 4800000))
    facts = rs.inspect(fine, bundle)
    assert facts["model_ground_resolution_m"] == 0.5
    assert any("will be resampled from 0.2 m to 0.5 m" in note for note in facts["notes"])
    assert "resampled" not in facts


def test_no_resampling_is_told_of_a_scene_that_has_the_models_pixels(scene: Path, bundle: Path) -> None:
    facts = rs.inspect(scene, bundle)
    assert facts["fits"]
    assert facts["notes"] == []


def test_oblong_pixels_are_told_both_ways(bundle: Path, tmp_path: Path) -> None:
    path = write_scene(tmp_path / "s.tif", SMALL, transform=Affine(0.2, 0, 500000, 0, -0.4, 4800000))
    assert any("from 0.4 x 0.2 m to 0.5 m" in note for note in rs.inspect(path, bundle)["notes"])


def test_a_scene_that_does_not_fit_exits_with_2_after_its_facts(  # type: ignore[no-untyped-def]
    run, tree: Taxonomy, scene: Path, tmp_path: Path
) -> None:
    small = make_bundle(tmp_path / "small", tree, ground_resolution=0.1)
    outcome = run("inspect", scene, "--model", small, "--json")
    facts = json.loads(outcome.out)  # JSON and nothing else
    assert (facts["kind"], facts["fits"]) == ("scene", False)
    refused(outcome, facts["why"])
    for words in ("kind: scene", "fits: no", "why:"):
        assert words in run("inspect", scene, "--model", small).out
    quiet = run("inspect", scene, "--model", small, "-q")
    assert (quiet.code, quiet.out) == (2, "")
    assert "exit code is 2" in " ".join(run("inspect", "--help").out.split())


def test_options_are_not_silently_ignored(run, bundle: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    refused(run("inspect", "flair", "--model", "demo"), "--model goes with a scene", "flair", "taxonomy")
    refused(run("inspect", bundle, "--crs", "EPSG:4326", "--nodata", 0), "--nodata, --crs go with a scene")


# Class maps


@pytest.mark.parametrize(
    ("palette", "names", "description"),
    [(True, True, "class"), (True, False, ""), (False, True, ""), (False, False, "Class")],
)
def test_a_class_map_is_told_to_be_one(tmp_path: Path, palette: bool, names: bool, description: str) -> None:
    path = class_map(tmp_path / "c.tif", palette=palette, names=names, description=description)
    told = " ".join(rs.inspect(path)["warnings"])
    assert "this looks like a class map; see rssegment vectorize" in told
    assert ("colour table is expanded" in told) == palette


def test_other_rasters_are_not_told_to_be_class_maps(scene: Path, tmp_path: Path) -> None:
    plain = class_map(tmp_path / "grey.tif", palette=False, names=False, description="")
    for path in (scene, plain):
        assert rs.inspect(path)["warnings"] == []


def test_a_real_land_cover_map_is_told_to_be_one(data: Path) -> None:
    told = " ".join(rs.inspect(data / "fixtures/label_rasters/CDL_2016_19_train.tif")["warnings"])
    assert "class map" in told


# Names, folders, files


@pytest.mark.parametrize(("name", "kind"), [("demo", "bundle"), ("flair", "taxonomy")])
def test_a_bare_word_is_our_name_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "notes" not in rs.inspect(name)
    (tmp_path / name).mkdir()
    facts = rs.inspect(name)
    assert facts["kind"] == kind
    assert f"write ./{name}" in facts["notes"][0]
    for folder in (f"./{name}", Path(name)):
        with pytest.raises(InputError, match=r"neither model\.json"):
            rs.inspect(folder)


def test_a_bare_word_that_is_no_name_of_ours_is_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle, tmp_path / "mine")
    assert rs.inspect("mine")["name"] == "toy"
    with pytest.raises(InputError, match=r"'theirs'.*demo.*flair"):
        rs.inspect("theirs")


def unfinished(folder: Path) -> Path:
    done = folder / "work" / "0123456789abcdef-256" / "done"
    done.mkdir(parents=True)
    (folder / "work" / "plan.json").write_text('{"fingerprint": "0123456789abcdef", "block": 256}')
    for name in ("a", "b"):
        (done / f"{name}.json").write_text("{}")
    return folder


def test_an_unfinished_run_is_resumed_and_a_demo_run_again(tmp_path: Path) -> None:
    ours = rs.inspect(unfinished(tmp_path / "run"))
    assert (ours["kind"], ours["blocks_done"]) == ("unfinished run", 2)
    assert "--resume" in ours["cure"]
    demo = unfinished(tmp_path / "show")
    (demo / ".rssegment-demo").touch()
    cure = rs.inspect(demo)["cure"]
    assert f"rssegment demo --out {demo}" in cure
    assert "--resume" not in cure


def test_the_demo_marks_its_folder_by_the_name_that_is_looked_for() -> None:
    from rssegment.demo.run import MARKER
    from rssegment.run.facts import DEMO_MARK

    assert MARKER == DEMO_MARK


def test_files_that_stand_for_their_folder(scene: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rs.segment(scene, bundle, out, settings=rs.Settings(workers=0))
    assert rs.inspect(out / "run.json") == rs.inspect(out)
    assert rs.inspect(out)["kind"] == "run"
    assert rs.inspect(bundle / "model.json") == rs.inspect(bundle)
    assert any("class map" in warning for warning in rs.inspect(out / "labels.tif")["warnings"])
    assert not any("class map" in warning for warning in rs.inspect(out / "confidence.tif")["warnings"])
    with pytest.raises(InputError, match=f"polygons.*inspect {out}"):
        rs.inspect(out / "regions.geojson")
    with pytest.raises(InputError, match=r"belongs to the raster.*inspect .*labels\.tif$"):
        rs.inspect(out / "labels.tif.aux.xml")
    with pytest.raises(InputError, match=f"weights.*folder: {bundle}"):
        rs.inspect(bundle / "model.pt")


def test_a_run_json_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"kind": "scene"}'):
        (tmp_path / "run.json").write_text(content)
        for path in (tmp_path, tmp_path / "run.json"):
            with pytest.raises(InputError, match=r"damaged or wasn't written by rssegment"):
                rs.inspect(path)


# For people


@pytest.mark.parametrize("subject", ["demo", "flair"])
def test_lines_are_short_and_hold_no_dump(run, subject: str) -> None:  # type: ignore[no-untyped-def]
    text = run("inspect", subject).out
    assert max(map(len, text.splitlines())) < 100
    for raw in ("['", "None", "[]", "{}"):
        assert raw not in text
    if subject == "demo":
        assert "path=built/building" in text


def test_a_scene_reads_well_and_its_json_is_whole(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = write_scene(
        tmp_path / "s.tif", SMALL, transform=Affine(0.5, 0, 500000.125, 0, -0.5, 4812345.678901)
    )
    with rasterio.open(path, "r+") as file:
        file.set_band_description(1, "red " + "light that a sensor saw " * 8)
    text = run("inspect", path).out
    assert "overviews: none" in text
    assert "transform: 0.5, 0, 500000.12, 0, -0.5, 4812345.68" in text
    assert max(len(line) for line in text.splitlines() if str(path) not in line) < 100
    assert json.loads(run("inspect", path, "--json").out)["transform"][5] == 4812345.678901


def test_outline_of_every_kind_of_value() -> None:
    facts = {
        "nothing": None,
        "empty": [],
        "off": False,
        "zero": 0,
        "third": 1 / 3,
        "tiny": 8.983152841195215e-06,
        "lowest": -3.4028234663852886e38,
        "sizes": [[350, 450], [175, 225]],
        "in": {"deeper": {"x": 1.0}},
        "bands": [{"name": "red", "nodata": None, "description": "", "scaled": False, "path": ["a", "b"]}],
        "notes": ["this is a whole sentence, with a comma, of more than forty letters", "short"],
    }
    assert outline(facts).splitlines() == [
        "nothing: none",
        "empty: none",
        "off: no",
        "zero: 0",
        "third: 0.333333",
        "tiny: 8.98315e-06",
        "lowest: -3.40282e+38",
        "sizes: 350 x 450, 175 x 225",
        "in:",
        "  deeper:",
        "    x: 1",
        "bands:",
        "  name=red  scaled=no  path=a/b",
        "notes:",
        "  this is a whole sentence, with a comma, of more than forty letters",
        "  short",
    ]


def test_a_scene_describes_itself_without_a_word_on_resampling(scene: Path) -> None:
    assert "resampled" not in Scene.open(scene).describe()
