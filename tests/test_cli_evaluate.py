"""The verb evaluate: its options, its files, and one clear message for every input that can't be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from rssegment.taxonomy import Taxonomy
from tests.run.test_scoring import write
from tests.test_cli import Outcome, refused, run

__all__ = ["run"]  # fixture

Run = Callable[..., Outcome]
FLAIR = Taxonomy.load("flair")
FILES = {
    "scores.json",
    "evidence.json",
    "scores.html",
    "confusion.png",
    "confusion.svg",
    "classes.png",
    "classes.svg",
}


def labels(seed: int) -> NDArray[np.uint8]:
    tiles = np.random.default_rng(seed).choice([1, 3, 7, 10, 5], (6, 8))
    return np.kron(tiles, np.ones((10, 10), int)).astype(np.uint8)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "p.tif", labels(0)), write(tmp_path / "r.tif", labels(1))


@pytest.fixture
def outlines(tmp_path: Path) -> Path:
    boxes = [
        shapely.box(300_000, 4_999_700, 300_300, 5_000_000),
        shapely.box(300_400, 4_999_500, 300_700, 5_000_000),
    ]
    frame = geopandas.GeoDataFrame({"kind": ["house", "castle"]}, geometry=boxes, crs="EPSG:32631")
    frame.to_crs(4326).to_file(tmp_path / "o.geojson")
    return tmp_path / "o.geojson"


def test_scores_as_a_table_as_json_and_as_files(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    outcome = run("evaluate", *pair, "--taxonomy", "flair", "--out", tmp_path / "s")
    assert outcome.code == 0
    assert "mIoU" in outcome.out
    assert "boundaries of level 1, within 20 m" in outcome.out
    assert "evaluate: 1 of 1" in outcome.err
    assert {path.name for path in (tmp_path / "s").iterdir()} == FILES
    outcome = run(
        "evaluate", *pair, "--taxonomy", "flair", "--json", "--ignore", "10,5", "--tolerance", "3px"
    )
    facts = json.loads(outcome.out)
    assert outcome.err == ""
    assert facts["facts"]["Ignored values"] == [5, 10]
    assert facts["facts"]["Boundary tolerance"] == "30 m"
    assert facts["pixels"] == int((~np.isin(labels(1), (5, 10))).sum())
    saved = json.loads((tmp_path / "s" / "scores.json").read_text())
    assert saved["levels"][-1]["pixels"] == 4800
    page = (tmp_path / "s" / "scores.html").read_text()
    assert str(pair[0]) in page
    assert run("evaluate", *pair, "--taxonomy", "flair", "-q").out == ""


def test_an_earlier_evaluation_is_kept(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ("evaluate", *pair, "--taxonomy", "flair", "-q", "--tolerance", "0", "--out", tmp_path / "s")
    assert run(*arguments).code == 0
    refused(run(*arguments), "holds scores.json already", "--overwrite")
    assert run(*arguments, "--overwrite").code == 0
    refused(run(*arguments[:-1], pair[0]), "it is a file; choose a folder")


def test_merged_evaluations(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = write(tmp_path / "other.tif", labels(2))
    for name, prediction in (("a", pair[0]), ("b", other)):
        found = run("evaluate", prediction, pair[1], "--taxonomy", "flair", "-q", "--out", tmp_path / name)
        assert found.code == 0
    merged = run(
        "evaluate",
        "--merge",
        tmp_path / "a",
        tmp_path / "b" / "evidence.json",
        "--json",
        "-o",
        tmp_path / "c",
    )
    assert json.loads(merged.out)["pixels"] == 2 * 4800
    assert (tmp_path / "c" / "scores.html").exists()
    refused(run("evaluate", "--merge", tmp_path / "a", tmp_path / "a"), "named twice")
    refused(run("evaluate", "--merge", pair[0]), "no evidence file")
    refused(
        run("evaluate", "--merge", tmp_path / "a", "--within", "x.gpkg", "--iou", "0.6"),
        "--within, --iou can't change",
    )
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    refused(run("evaluate", "--merge", tmp_path / "a", tmp_path / "copy"), "holds the same evidence as")
    other = run("evaluate", *pair, "--taxonomy", "flair", "-q", "--tolerance", "30", "--out", tmp_path / "d")
    assert other.code == 0
    refused(run("evaluate", "--merge", tmp_path / "a", tmp_path / "d"), "tolerance")


def test_polygons_with_a_mapping(run: Run, pair: tuple[Path, Path], outlines: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "m.yaml"
    mapping.write_text("name: m\ntarget: flair\nclasses: {house: building, castle: built}\n")
    arguments = ("evaluate", pair[0], outlines, "--taxonomy", "flair", "--column", "kind", "--json")
    facts = json.loads(
        run(*arguments, "--map", mapping, "--outside", "vegetation", "--objects", "building").out
    )
    assert facts["levels"][0]["pixels"] == 4800
    assert facts["facts"]["Mappings"] == ["m"]
    one = json.loads(run(*arguments[:-3], "--label", "1", "--within", outlines, "--json").out)
    assert one["pixels"] == 2400
    refused(run(*arguments[:-1]), "castle (1 x), house (1 x)", "mapping")
    refused(run(*arguments[:-3]), "which class", "column: kind", "label")


def test_ignored_values_are_those_before_the_mapping(run: Run, tmp_path: Path) -> None:
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "name: m\ntarget: flair\nclasses: {1: building, 3: built, 7: vegetation, 10: water, 5: 5}\n"
    )
    stored = labels(1)
    stored[:7] = 255
    pair = write(tmp_path / "p.tif", labels(0)), write(tmp_path / "r.tif", stored)
    arguments = ("evaluate", *pair, "--taxonomy", "flair", "--map", mapping, "--json")
    refused(run(*arguments, "-q"), "255 (560 px)")
    facts = json.loads(run(*arguments, "--ignore", "255").out)
    assert facts["pixels"] == 4800 - 560
    assert facts["facts"]["Ignored values"] == [255]


def test_a_grid_that_does_not_align(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    from tests.run.test_scoring import UTM

    shifted = write(tmp_path / "s.tif", labels(1), transform=UTM * UTM.translation(0.3, 0))
    refused(
        run("evaluate", pair[0], shifted, "--taxonomy", "flair"),
        "not on one grid",
        "0.3 px apart",
        "resample",
    )
    resampled = run("evaluate", pair[0], shifted, "--taxonomy", "flair", "--resample")
    assert resampled.code == 0
    assert "warning: the reference was resampled" in resampled.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("which classes has the prediction", "flair")),
        (("--taxonomy", "flar"), ("did you mean 'flair'",)),
        (
            ("--taxonomy", "flair", "--ignore", "1,x"),
            ("--ignore is '1,x'; expected whole numbers, as 1,2",),
        ),
        (("--taxonomy", "flair", "--ignore", "1,"), ("--ignore is '1,'; expected whole numbers",)),
        (("--taxonomy", "flair", "--tolerance", "wide"), ("boundary tolerance is 'wide'",)),
        (("--taxonomy", "flair", "--tolerance", "5"), ("less than a pixel",)),
        (("--taxonomy", "flair", "--objects", "castle"), ("no class 'castle'",)),
        (("--taxonomy", "flair", "--iou", "2", "--objects", "1"), ("iou is 2",)),
        (("--taxonomy", "flair", "--column", "kind"), ("column need polygons",)),
        (("--taxonomy", "flair", "--map", "nowhere"), ("no mapping is called 'nowhere'",)),
        (
            ("--taxonomy", "flair", "--within", "absent.gpkg"),
            ("can't open the area to count within absent.gpkg",),
        ),
        (("--taxonomy", "flair", "--confidence", "absent.tif"), ("absent.tif",)),
        (("--taxonomy", "voc2012"), ("no codes of taxonomy 'voc2012'",)),
        (("--taxonomy", "flair", "--scheduler", "tcp://127.0.0.1:1"), ("no Dask scheduler answers",)),
    ],
)
def test_what_can_not_be_used_is_one_message(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    strange = labels(1)
    strange[0, 0] = 110
    pair = write(tmp_path / "p.tif", labels(0)), write(tmp_path / "r.tif", strange)
    refused(run("evaluate", *pair, *arguments, "-q", "--out", tmp_path / "s"), *words)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent.tif", "can't open the reference"),
        ("absent.gpkg", "can't open the reference"),
        ("text.geojson", "can't open the reference"),
        ("float.tif", "float32"),
        ("rgb.tif", "3 bands"),
        ("far.tif", "doesn't overlap the prediction"),
        ("codes.tif", "77 (60 px); ignore them (ignore=, or --ignore), or use the taxonomy"),
    ],
)
def test_references_of_every_kind_that_fail(run: Run, tmp_path: Path, name: str, words: str) -> None:
    from tests.run.test_scoring import UTM

    prediction = write(tmp_path / "p.tif", labels(0))
    (tmp_path / "text.geojson").write_text("not at all")
    write(tmp_path / "float.tif", labels(0).astype(np.float32))
    write(tmp_path / "rgb.tif", np.stack([labels(0)] * 3))
    write(tmp_path / "far.tif", labels(0), transform=UTM * UTM.translation(500, 0))
    strange = labels(0)
    strange[:, 4] = 77
    write(tmp_path / "codes.tif", strange)
    refused(run("evaluate", prediction, tmp_path / name, "--taxonomy", "flair", "-q"), words)


def test_one_file_is_not_enough(run: Run, pair: tuple[Path, Path]) -> None:
    refused(run("evaluate", pair[0]), "1 file(s) were given", "--merge")


def test_help_has_an_example(run: Run) -> None:
    outcome = run("evaluate", "--help")
    assert outcome.code == 0
    assert "rssegment evaluate" in outcome.out.replace("\n", " ")
    assert "Example" in outcome.out
