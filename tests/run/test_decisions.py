"""Decisions as settings of a run: every level coherent, the same bytes for any blocks, doubt shown and not hidden."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

import rssegment as rs
from rssegment.errors import OutputError, SettingsError
from rssegment.run import products
from rssegment.run.record import replaced
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import scene_values
from tests.run.test_segment import settings

RULES = ("leaf", "level:2", "backoff:0.6", "cost")
UNDECIDED = 255


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        values: NDArray[Any] = file.read(1)
        return values


@pytest.fixture(scope="module", params=RULES)
def decided(
    request: pytest.FixtureRequest, scene: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("decided")
    rs.segment(
        scene,
        bundle,
        out,
        settings=settings(decide=request.param, level_rasters="all", margin=True, levels="all"),
    )
    return out


def test_every_level_is_coherent(decided: Path, tree: Taxonomy) -> None:
    labels = read(decided / "labels.tif")
    valid = (scene_values() != 0).any(0)
    np.testing.assert_array_equal(labels != 0, valid)
    finer = read(decided / "confidence.tif")
    for level in range(tree.depth, 0, -1):
        expected = tree.ancestor_lookup(level)
        expected[UNDECIDED] = UNDECIDED
        np.testing.assert_array_equal(read(decided / f"labels_level{level}.tif"), expected[labels])
        confidence = read(decided / f"confidence_level{level}.tif")
        np.testing.assert_array_equal(confidence != 255, valid)
        assert (confidence[valid] >= finer[valid]).all(), (
            "a class is never more probable than what it is part of"
        )
        finer = confidence
    np.testing.assert_array_equal(read(decided / "margin.tif") != 255, valid)


def test_polygons_of_every_level_are_those_of_its_raster(decided: Path, tree: Taxonomy) -> None:
    counts = json.loads((decided / "run.json").read_text())["counts"]["classes"]
    for level in range(1, tree.depth + 1):
        codes, pixels = np.unique(read(decided / f"labels_level{level}.tif"), return_counts=True)
        found = {each["code"]: each["pixels"] for each in counts if each["level"] == level}
        assert found == {code: n for code, n in zip(codes.tolist(), pixels.tolist(), strict=True) if code}


@pytest.mark.parametrize("rule", RULES)
def test_blocks_change_no_byte(rule: str, scene: Path, bundle: Path, tmp_path: Path) -> None:
    outs = []
    for block in (256, 333):
        chosen = settings(block=block, decide=rule, level_rasters="all", margin=True, min_area="9px")
        outs.append(rs.segment(scene, bundle, tmp_path / str(block), settings=chosen))
    for name, path in (outs[0].rasters | outs[0].regions).items():
        assert path.read_bytes() == (outs[1].rasters | outs[1].regions)[name].read_bytes(), name


def test_backing_off_leaves_doubt_in_sight(scene: Path, bundle: Path, tree: Taxonomy, tmp_path: Path) -> None:
    """At 0.6 this model is unsure in places: there the map says so, in classes, names, polygons and confidence."""
    result = rs.segment(scene, bundle, tmp_path / "a", settings=settings(decide="backoff:0.6"))
    labels, confidence = read(result.labels), read(result.confidence)
    present = set(np.unique(labels).tolist()) - {0}
    assert UNDECIDED in present
    assert present & {10, 11}, "some pixels should be decided above the leaves"
    assert (confidence[labels == UNDECIDED] == 254).all()
    assert (confidence[(labels != 0)] >= round(0.6 * 254) - 1).all()
    features = json.loads(result.regions["geojson"].read_text())["features"]
    names = {each["properties"]["code"]: each["properties"]["name"] for each in features}
    assert names[UNDECIDED] == "undecided"
    assert Taxonomy.load(tmp_path / "a" / "taxonomy.yaml") == tree
    again = rs.vectorize(result.labels, tmp_path / "again.geojson", taxonomy=tmp_path / "a" / "taxonomy.yaml")
    assert again.counts["regions"] == len(features)


def test_level_decision_is_the_sum_of_its_leaves(
    scene: Path, bundle: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    top = rs.segment(scene, bundle, tmp_path / "top", settings=settings(decide="level:1"))
    assert set(np.unique(read(top.labels)).tolist()) <= {0, 5, 10}
    assert (read(top.confidence)[read(top.labels) != 0] >= 126).all(), "one of two classes has at least half"


def test_polygons_of_a_map_that_backed_off_are_scored_as_its_pixels_are(
    scene: Path, bundle: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    result = rs.segment(scene, bundle, tmp_path / "a", settings=settings(decide="backoff:0.6"))
    truth = rs.segment(scene, bundle, tmp_path / "truth", settings=settings()).labels
    chosen = {"taxonomy": tmp_path / "a" / "taxonomy.yaml", "tolerance": "0px"}
    pixels = rs.evaluate(result.labels, truth, **chosen)
    polygons = rs.evaluate(result.regions["geojson"], truth, **chosen)
    assert 0 < pixels.hierarchy["undecided"] < 1
    np.testing.assert_array_equal(polygons.confusion.counts, pixels.confusion.counts)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("conformal:0.1", "no calibration.*rssegment calibrate"),
        ("level:9", "levels 1 to 3"),
        ("cost:nowhere.csv", "nowhere.csv"),
    ],
)
def test_rules_that_do_not_fit_are_refused(
    scene: Path, bundle: Path, tmp_path: Path, rule: str, why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        rs.segment(scene, bundle, tmp_path / "out", settings=settings(decide=rule))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "rule", ["", "best", "leaf:2", "level", "level:0", "level:x", "backoff", "backoff:1.2", "backoff:-1", "backoff:nan",
             "conformal:0", "conformal:1", "conformal"],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused(rule: str) -> None:
    with pytest.raises(SettingsError, match=r"expected leaf, level:2"):
        rs.Settings(decide=rule)


def test_a_rule_survives_a_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("decide: backoff:0.75\nlevel_rasters: [2, 1]\n")
    loaded = rs.Settings.load(tmp_path / "run.yaml")
    assert (loaded.decide.rule, loaded.decide.value, loaded.level_rasters) == ("backoff", 0.75, (1, 2))
    assert rs.Settings(**loaded.model_dump(mode="json")) == loaded


def test_raster_of_a_level_that_is_not_there(scene: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"raster of level 4.*levels 1 to 3"):
        rs.segment(scene, bundle, tmp_path, settings=settings(level_rasters=[4]))


def test_another_rule_is_another_run(scene: Path, bundle: Path, tmp_path: Path) -> None:
    rs.segment(scene, bundle, tmp_path, settings=settings(decide="backoff:0.6"))
    with pytest.raises(OutputError, match="another scene, model or settings"):
        rs.segment(scene, bundle, tmp_path, settings=settings(decide="backoff:0.7"), resume=True)


def test_an_overwritten_run_leaves_nothing_of_itself(
    scene: Path, bundle: Path, tree: Taxonomy, tmp_path: Path
) -> None:
    """Its rasters and polygons tell of another map; files of others, even of such names, stay."""
    out = tmp_path / "out"
    first = settings(decide="leaf", margin=True, level_rasters="all", formats=("gpkg", "shp"))
    rs.segment(scene, bundle, out, settings=first)
    before = {path.name for path in out.iterdir()}
    (out / "margin.tif.aux.xml").write_text("<PAMDataset/>")
    foreign = {"labels_level9.tif", "mine.tif", "regions.fgb", "regions.qml"}
    for name in foreign:
        (out / name).write_text("mine")
    new = rs.segment(scene, bundle, out, settings=settings(decide="backoff:0.8"), overwrite=True)
    after = {path.name for path in out.iterdir()}
    own = {
        "labels.tif",
        "labels.tif.aux.xml",
        "confidence.tif",
        "taxonomy.yaml",
        "run.json",
        "regions.geojson",
    }
    assert after == foreign | own
    assert {"margin.tif", "labels_level1.tif", "regions.gpkg", "regions.shp", "regions.dbf"} <= before - after
    truth = out.with_name("truth.tif")
    shutil.copy(new.labels, truth)
    scores = rs.evaluate(out, truth, ignore=[UNDECIDED], tolerance=0)
    assert set(scores.reliability) == {0}
    assert scores.evidence.coherence is None


def test_an_interrupted_overwrite_still_knows_what_it_replaces(
    scene: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rs.segment(scene, bundle, out, settings=settings(margin=True))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(products, "remove_replaced", stopped)
        with pytest.raises(KeyboardInterrupt):
            rs.segment(scene, bundle, out, settings=settings(), overwrite=True)
    assert (out / "margin.tif").exists()
    rs.segment(scene, bundle, out, settings=settings(), resume=True)
    assert not (out / "margin.tif").exists()


def test_an_input_is_never_removed(scene: Path, bundle: Path, tmp_path: Path) -> None:
    """A raster of the earlier run as the scene of the next one."""
    out = tmp_path / "out"
    rs.segment(scene, bundle, out, settings=settings(margin=True))
    shutil.copy(scene, out / "margin.tif")
    with pytest.raises(OutputError, match=r"write over its own input .*margin.tif"):
        rs.segment(out / "margin.tif", bundle, out, settings=settings(), overwrite=True)
    assert (out / "margin.tif").exists()


@pytest.mark.parametrize(
    "record",
    [
        "[" * 100_000,
        "{}",
        '{"rasters": {"margin": "../mine.tif", "mine": "mine.tif"}}',
        '{"regions": {"no": 1}}',
    ],
)
def test_a_damaged_record_removes_nothing(tmp_path: Path, record: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for path in (tmp_path / "mine.tif", folder / "mine.tif", folder / "margin.tif"):
        path.write_text("mine")
    (folder / "run.json").write_text(record)
    assert replaced(folder, ()) == {}
