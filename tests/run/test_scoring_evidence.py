"""All evidence of files: exactly that of whole arrays, whatever the blocks, threads or processes that count it."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy import ndimage

import rssegment as rs
from rssegment.config import Length
from rssegment.errors import InputError, RunError, SceneError, SettingsError
from rssegment.evaluation import BackoffCounts, Coherence, Confusion, Evidence, MapAreas, Reliability, Scores
from rssegment.evaluation.boundaries import BoundaryCounts
from rssegment.evaluation.lookup import LabelPairs
from rssegment.grid import Box
from rssegment.reference.ground_areas import on_ground
from rssegment.reference.pixel_areas import PixelAreas
from rssegment.reference.references import ReferenceOptions
from rssegment.run import evaluate, scoring
from rssegment.run.score_files import write_scores
from rssegment.run.scoring import EvaluationOptions, compare, merge_evaluations
from rssegment.taxonomy import ClassMapping, Taxonomy
from tests.run.test_scoring import UTM, write

FLAIR = Taxonomy.load("flair")
SHAPE = (150, 210)


def patches(seed: int, codes: list[int]) -> NDArray[np.uint8]:
    """Smooth patches of the codes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 5)
    edges = np.quantile(noise, np.linspace(0, 1, len(codes) + 1)[1:-1])
    return np.array(codes, np.uint8)[np.digitize(noise, edges)]


@dataclass
class World:
    """A run's folder, a reference, and the same as arrays."""

    folder: Path
    reference: Path
    predicted: NDArray[np.uint8]
    true: NDArray[np.uint8]
    confidence: dict[int, NDArray[np.uint8]]
    levels: dict[int, NDArray[np.uint8]]


def record(folder: Path, **facts: Any) -> None:
    """What a run says of itself: all rasters that lie there are its own."""
    levels = ("", *(f"_level{level}" for level in range(1, 5)))
    names = [f"{kind}{level}" for kind in ("labels", "confidence") for level in levels]
    rasters = {name: f"{name}.tif" for name in names}
    (folder / "run.json").write_text(
        json.dumps({"status": "done", "rasters": rasters, "missing": []} | facts)
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(5)
    true = patches(1, [0, 1, 3, 100, 7, 130, 10, 5, 4])
    predicted = np.where(rng.random(SHAPE) < 0.05, 255, patches(2, [1, 2, 3, 7, 140, 10, 13, 4, 0])).astype(
        np.uint8
    )
    predicted = np.where(rng.random(SHAPE) < 0.5, true, predicted).astype(np.uint8)
    confidence = {0: rng.integers(0, 255, SHAPE).astype(np.uint8)}
    last = np.full(SHAPE, 254, np.uint8)
    for level in range(1, 5):
        last = np.minimum(last, rng.integers(100, 255, SHAPE)).astype(np.uint8)
        confidence[level] = np.where(predicted == 0, 255, last).astype(np.uint8)
    levels = {}
    for level in range(1, 5):
        lookup = FLAIR.ancestor_lookup(level)
        lookup[255] = 255
        levels[level] = lookup[predicted].astype(np.uint8)
    levels[2][3, 4:9] = 1  # incoherent, most of them
    FLAIR.save(folder / "taxonomy.yaml")
    write(folder / "labels.tif", predicted, nodata=0)
    write(folder / "confidence.tif", confidence[0], nodata=255)
    for level in range(1, 5):
        write(folder / f"labels_level{level}.tif", levels[level], nodata=0)
        write(folder / f"confidence_level{level}.tif", confidence[level], nodata=255)
    record(folder)
    reference = write(folder / "reference.tif", true)
    return World(folder, reference, predicted, true, confidence, levels)


def expected(world: World, tolerance: float = 35.0) -> Evidence:
    """From the arrays as a whole."""
    columns, areas = PixelAreas.of(GeoBox(SHAPE, UTM, "EPSG:32631")).within(Box.of(SHAPE))
    pairs = LabelPairs(world.predicted, world.true, FLAIR)
    boundaries = {}
    for level in range(1, 5):
        lookup, classes = FLAIR.ancestor_lookup(level), [node.code for node in FLAIR.level(level)]
        seen = lookup.copy()
        seen[FLAIR.undecided] = FLAIR.undecided  # has data, so that classes beside it end there
        boundaries[level] = BoundaryCounts.of(
            seen[world.predicted], lookup[world.true], Box.of(SHAPE), (10.0, 10.0), tolerance,
            level=level, classes=classes,
        )  # fmt: skip
    return Evidence(
        Confusion.of_pairs(pairs),
        {level: Reliability.of_labels(pairs, world.confidence[level], level) for level in range(5)},
        BackoffCounts.of(pairs, [world.confidence[level] for level in range(1, 5)]),
        boundaries,
        None,
        Coherence.of(world.levels, world.predicted, FLAIR),
        MapAreas.of(world.predicted, FLAIR, areas, columns),
        (f"{world.folder.parent.name}/{world.folder.name}",),
    )


@pytest.mark.parametrize("block", [17, 64, 2048])
def test_a_run_is_scored_with_all_that_it_tells_whatever_the_block(world: World, block: int) -> None:
    scores = evaluate(world.folder, world.reference, tolerance="3.5px", block=block)
    assert scores.evidence == expected(world)
    assert scores.hierarchy["incoherence_rate"] > 0


def test_confidence_of_a_raster(world: World) -> None:
    found = evaluate(
        world.folder / "labels.tif",
        world.reference,
        FLAIR,
        confidence=world.folder / "confidence.tif",
        tolerance=0,
    )
    assert found.reliability == {0: expected(world).reliability[0]}
    assert not found.boundaries
    other = write(world.folder / "small.tif", world.confidence[0][:50])
    with pytest.raises(SceneError, match="isn't on the pixel grid"):
        evaluate(world.folder / "labels.tif", world.reference, FLAIR, confidence=other)
    wide = write(world.folder / "wide.tif", world.confidence[0].astype(np.float32))
    with pytest.raises(SceneError, match="expected one band of uint8"):
        evaluate(world.folder / "labels.tif", world.reference, FLAIR, confidence=wide)


def test_ignored_codes_are_left_out_everywhere(world: World) -> None:
    found = evaluate(world.folder, world.reference, ignore=(10, 100), tolerance="3.5px", block=50)
    cut = World(
        **{**vars(world), "true": np.where(np.isin(world.true, (10, 100)), 0, world.true).astype(np.uint8)}
    )
    assert found.evidence == expected(cut)


# Runners


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as connected,
    ):
        yield connected


def test_a_cluster_counts_the_same(world: World, client: Client) -> None:
    told: list[tuple[str, int, int, int]] = []
    found = evaluate(
        world.folder,
        world.reference,
        tolerance="3.5px",
        block=64,
        client=client,
        progress=lambda *a: told.append(a),
    )
    assert found.evidence == expected(world)
    assert told[0] == ("evaluate", 0, 12, 0)
    assert told[-1] == ("evaluate", 12, 12, SHAPE[0] * SHAPE[1])
    by_address = evaluate(
        world.folder, world.reference, tolerance="3.5px", block=64, client=client.scheduler.address
    )
    assert by_address.evidence == found.evidence


def test_what_a_block_meets_on_a_cluster_is_told_in_its_own_words(
    world: World, client: Client, tmp_path: Path
) -> None:
    strange = world.true.copy()
    strange[100, 100] = 77
    with pytest.raises(InputError, match=r"77 \(1 px\)"):
        evaluate(world.folder, write(tmp_path / "r.tif", strange), block=64, client=client)
    with pytest.raises((RunError, SettingsError), match=r"no Dask scheduler answers"):
        evaluate(world.folder, world.reference, client="tcp://127.0.0.1:1")


def test_what_is_sent_to_another_process_counts_the_same(world: World) -> None:
    comparison, _ = scoring._comparison(world.folder, world.reference, EvaluationOptions(tolerance="3.5px"))
    sent = pickle.loads(pickle.dumps(comparison))
    box = Box(20, 30, 64, 64)
    assert sent.count(box) == comparison.count(box)
    assert len(pickle.dumps(comparison)) < 100_000


# Tolerance, ground


def test_the_tolerance_in_pixels_is_that_of_the_nominal_pixel(world: World) -> None:
    found = evaluate(world.folder, world.reference)
    assert {each.tolerance for each in found.boundaries.values()} == {20.0}
    metres = evaluate(world.folder, world.reference, tolerance=33)
    assert {each.tolerance for each in metres.boundaries.values()} == {33.0}
    assert evaluate(world.folder, world.reference, tolerance=Length(2, "px")).evidence == found.evidence


@pytest.mark.parametrize(
    ("tolerance", "words"),
    [
        (-1, "0 or more"),
        ("wide", "expected a number"),
        (3, "less than a pixel"),
        ("1e9", "in metres"),
        (float("nan"), "number"),
    ],
)
def test_tolerances_out_of_range(world: World, tolerance: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(world.folder, world.reference, tolerance=tolerance)


@pytest.mark.filterwarnings("ignore:the prediction has no CRS")
def test_without_a_crs_the_tolerance_is_in_pixels(tmp_path: Path) -> None:
    one = write(tmp_path / "a.tif", patches(1, [1, 3, 5]), None, Affine.identity())
    assert evaluate(one, one, FLAIR, tolerance="3px").boundaries[1].tolerance == 3
    with pytest.raises(SettingsError, match=r"no CRS .*give the tolerance in pixels, as 3px"):
        evaluate(one, one, FLAIR, tolerance=3)
    assert not evaluate(one, one, FLAIR, tolerance=0).boundaries
    assert evaluate(one, one, FLAIR).areas == ()


# Polygons, mappings, objects


def as_file(geometries: list[shapely.Geometry], columns: dict[str, Any], path: Path) -> Path:
    """Geometries given in pixels (col, row)."""
    placed = [
        shapely.transform(g, lambda xy: np.column_stack([300_000 + 10 * xy[:, 0], 5e6 - 10 * xy[:, 1]]))
        for g in geometries
    ]
    geopandas.GeoDataFrame(columns, geometry=placed, crs="EPSG:32631").to_file(path)
    return path


def test_polygons_as_reference_and_as_prediction(world: World, tmp_path: Path) -> None:
    """A map's own polygons are the map."""
    rs.vectorize(world.folder / "labels.tif", tmp_path / "map.gpkg", taxonomy=FLAIR.with_undecided())
    labels = world.folder / "labels.tif"
    known = np.where(world.predicted == 255, 0, world.predicted)
    kept = ClassMapping("m", FLAIR, tuple((n.code, n.code) for n in FLAIR.nodes), 0)
    as_reference = evaluate(labels, tmp_path / "map.gpkg", FLAIR, mapping=kept, column="code", tolerance=0)
    assert as_reference.confusion == Confusion.of(world.predicted, known, FLAIR)
    as_prediction = evaluate(
        tmp_path / "map.gpkg", world.reference, FLAIR, prediction_mapping=kept, tolerance=0, block=60
    )
    assert as_prediction.confusion == Confusion.of(known, world.true, FLAIR)
    with pytest.raises(InputError, match=r"polygons both: .*\(grid\)"):
        evaluate(tmp_path / "map.gpkg", tmp_path / "map.gpkg", FLAIR)
    both = evaluate(
        tmp_path / "map.gpkg",
        tmp_path / "map.gpkg",
        FLAIR,
        mapping=kept,
        prediction_mapping=kept,
        grid=labels,
        column="code",
    )
    assert both.leaf.pixel_accuracy == 1
    with pytest.raises(InputError, match="grid is for polygons"):
        evaluate(labels, world.reference, FLAIR, grid=labels)


def test_a_coarser_reference_in_another_taxonomy(world: World, tmp_path: Path) -> None:
    """Both are brought to buildings and everything else; 100, built, stays open."""
    mapping = ClassMapping.load("building_only")
    with pytest.warns(UserWarning, match="confidences are not scored"):
        found = evaluate(world.folder, world.reference, mapping=mapping, prediction_mapping="building_only")
    assert found.taxonomy.name == "buildings"
    true = np.where(np.isin(world.true, (1,)), 1, np.where(np.isin(world.true, (0, 100)), 0, 2))
    predicted = np.where(world.predicted == 1, 1, np.where(np.isin(world.predicted, (100, 255)), 255, 2))
    predicted[world.predicted == 0] = 0
    assert found.confusion == Confusion.of(predicted, true, found.taxonomy)
    assert not found.reliability


def test_a_reference_of_parents_is_compared_at_the_deepest_common_level(world: World, tmp_path: Path) -> None:
    lookup = FLAIR.ancestor_lookup(1)
    coarse = write(tmp_path / "r.tif", lookup[world.true])
    names = {node.name for node in evaluate(world.folder, coarse).common.classes}
    assert {"built", "vegetation", "water", "bare"} <= names


def test_a_run_read_by_another_tree_is_refused(world: World) -> None:
    with pytest.raises(InputError, match=r"where code \d+ is '.*'; in 'demo' it is '.*mapping"):
        evaluate(world.folder, world.reference, "demo")
    with pytest.raises(InputError, match=r"which classes has the prediction .*labels.tif"):
        evaluate(world.folder / "labels.tif", world.reference)
    with pytest.raises(InputError, match=r"a folder without labels.tif"):
        evaluate(world.folder.parent, world.reference, FLAIR)


def test_objects_are_matched_in_pixels(tmp_path: Path) -> None:
    labels = np.full(SHAPE, 10, np.uint8)
    labels[10:20, 10:20] = 1
    labels[10:20, 40:50] = 1
    labels[100:110, 100:110] = 18
    labels[100:103, 150:180] = 1
    path = write(tmp_path / "labels.tif", labels)
    truth = [
        shapely.box(11, 10, 21, 20),
        shapely.box(45, 10, 60, 20),
        shapely.box(100, 100, 110, 110),
        shapely.box(300, 0, 310, 9),
    ]
    drawn = as_file(truth, {"code": [1, 1, 18, 1]}, tmp_path / "r.gpkg")
    for block in (16, 37, 2048):
        found = evaluate(path, drawn, FLAIR, objects=["building"], block=block)
        assert found.objects is not None
        (row,) = found.objects.rows()
        assert (row.true, row.predicted, row.matched) == (2, 3, 1)
        assert row.mean_iou == pytest.approx(90 / 110)
    (row,) = evaluate(path, drawn, FLAIR, objects="built").objects.rows()  # type: ignore[union-attr]
    assert (row.true, row.predicted, row.matched) == (3, 4, 2)
    area = as_file([shapely.box(0, 0, 30, 30)], {}, tmp_path / "area.gpkg")
    (row,) = evaluate(path, drawn, FLAIR, objects=[1], within=area).objects.rows()  # type: ignore[union-attr]
    assert (row.true, row.predicted, row.matched) == (1, 1, 1)
    half = labels.copy()
    half[:, 30:] = 0
    (row,) = evaluate(path, write(tmp_path / "h.tif", half), FLAIR, objects=[1]).objects.rows()  # type: ignore[union-attr]
    assert (row.true, row.predicted, row.matched) == (1, 1, 1)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"objects": ["castle"]}, "no class 'castle'"),
        (
            {"objects": ["built", "building"]},
            "'built' and 'building', one of which is or lies under the other",
        ),
        ({"objects": ["building"], "iou": 0}, "iou is 0"),
        ({"objects": ["building"], "iou": 1.5}, "iou is 1.5"),
        ({"outsid": 1}, "outsid: no such choice"),
        ({"block": 0}, "block is 0"),
        ({"block": 20.5}, "block is 20.5"),
        ({"ignore": [70000]}, "value to ignore is 70000"),
        ({"resample": True, "column": "x"}, "column need polygons"),
        ({"prediction_options": ReferenceOptions(column="x")}, "need polygons, and the prediction"),
    ],
)
def test_choices_that_are_refused(world: World, choices: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(world.folder, world.reference, **choices)


def test_remarks_are_warnings(world: World, tmp_path: Path) -> None:
    drawn = as_file(
        [shapely.box(0, 0, 9, 9), shapely.box(5, 0, 15, 9)], {"code": [1, 3]}, tmp_path / "r.gpkg"
    )
    with pytest.warns(UserWarning, match="36 px are under polygons of different classes"):
        evaluate(world.folder, drawn, block=16)
    with pytest.warns(UserWarning, match="nothing to score"):
        evaluate(world.folder, write(tmp_path / "r.tif", np.zeros(SHAPE, np.uint8)))
    record(world.folder, status="partial", missing=[{"block": "r0000_c0000"}])
    with pytest.warns(UserWarning, match="1 blocks of the run are missing"):
        evaluate(world.folder, world.reference)
    record(world.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        evaluate(world.folder, world.reference)


def test_a_file_that_changes_meanwhile(world: World, tmp_path: Path) -> None:
    from rssegment.reference.references import open_reference

    path = write(tmp_path / "r.tif", world.true)
    reference = open_reference(path, GeoBox(SHAPE, UTM, "EPSG:32631"), FLAIR)
    write(path, world.true[::-1])
    import os

    os.utime(path, ns=(1, 1))
    with pytest.raises(rs.RunError, match="changed since"):
        reference.read(Box(0, 0, 5, 5))


# Merging


def test_halves_merged_are_the_whole(world: World, tmp_path: Path) -> None:
    """Counts of scenes add up; here two references that share no pixel."""
    parts = []
    for name, columns in (("west", slice(0, 100)), ("east", slice(100, None))):
        true = np.zeros_like(world.true)
        true[:, columns] = world.true[:, columns]
        how = EvaluationOptions(tolerance=0, objects=["building"])
        found = compare(world.folder, write(tmp_path / f"{name}.tif", true), how)
        write_scores(found, tmp_path / name)
        parts.append(found)
    merged = merge_evaluations([tmp_path / "west", tmp_path / "east" / "evidence.json"])
    whole = evaluate(world.folder, world.reference, tolerance=0)
    assert merged.scores.confusion == whole.confusion
    assert merged.scores.reliability == whole.reliability
    assert merged.scores == Scores.merge([each.scores for each in parts])
    assert (tmp_path / "west" / "scores.html").read_text().startswith("<!")
    with pytest.raises(InputError, match="named twice"):
        merge_evaluations([tmp_path / "west", tmp_path / "west" / "evidence.json"])
    with pytest.raises(InputError, match=r"name evidence\.json beside it"):
        merge_evaluations([tmp_path / "west" / "scores.json"])
    with pytest.raises(InputError, match="nothing to merge"):
        merge_evaluations([])


def test_parts_that_only_some_evaluations_have_are_told_of(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("labels.tif", "taxonomy.yaml"):
        shutil.copy(world.folder / name, copy / name)
    record(copy, rasters={"labels": "labels.tif"})
    rich = EvaluationOptions(objects=["building"])
    write_scores(compare(world.folder, world.reference, rich), tmp_path / "rich")
    bare = EvaluationOptions(tolerance=0, objects=["water"])
    write_scores(compare(copy, world.reference, bare), tmp_path / "bare")
    merged = merge_evaluations([tmp_path / "rich", tmp_path / "bare"])
    told = [
        "back-off scores are of 1 of 2 scenes",
        "boundary scores are of 1 of 2 scenes",
        "contradictions between levels are of 1 of 2 scenes",
        "scores of objects are of 1 of 2 scenes",
        "calibration scores are of 1 of 2 scenes",
    ]
    assert merged.as_dict()["remarks"] == told
    write_scores(merged, tmp_path / "merged")
    saved = json.loads((tmp_path / "merged" / "scores.json").read_text())["remarks"]
    assert saved == told
    page = (tmp_path / "merged" / "scores.html").read_text()
    for text in told:
        assert f"note: {text}" in str(merged)
        assert text in page
    assert merge_evaluations([tmp_path / "merged"]).as_dict()["remarks"] == told


def test_copies_of_an_evaluation_are_not_counted_twice(world: World, tmp_path: Path) -> None:
    write_scores(compare(world.folder, world.reference, EvaluationOptions(tolerance=0)), tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(
        InputError, match=r"b.evidence.json holds the same evidence as .*a.evidence.json; its pixels"
    ):
        merge_evaluations([tmp_path / "a", tmp_path / "b"])
    how = EvaluationOptions(tolerance=0, ignore=(10,))
    write_scores(compare(world.folder, world.reference, how), tmp_path / "c")
    (remark,) = merge_evaluations([tmp_path / "a", tmp_path / "c"]).scores.remarks
    assert f"several of the scenes are called {world.folder.parent.name}/{world.folder.name}:" in remark


# Runs' folders


def copied(world: World, folder: Path) -> Path:
    shutil.copytree(world.folder, folder)
    return folder


def test_only_the_rasters_that_a_run_lists_are_its_own(world: World, tmp_path: Path) -> None:
    folder = copied(world, tmp_path / "run")
    record(folder, rasters={"labels": "labels.tif", "confidence": "confidence.tif"})
    found = evaluate(folder, world.reference, tolerance=0)
    assert set(found.reliability) == {0}
    assert found.curve is None
    assert found.evidence.coherence is None
    (folder / "confidence.tif").unlink()
    with pytest.warns(UserWarning, match=r"confidence.tif, which the run made, is gone"):
        assert not evaluate(folder, world.reference, tolerance=0).reliability
    (folder / "run.json").unlink()
    with pytest.warns(UserWarning, match=r"has no run.json that would tell whose confidences"):
        assert not evaluate(folder, world.reference, tolerance=0).reliability


def test_a_run_that_is_being_replaced_is_told_of(world: World, tmp_path: Path) -> None:
    folder = copied(world, tmp_path / "run")
    record(folder, plan={"fingerprint": "one"})
    (folder / "work").mkdir()
    (folder / "work" / "plan.json").write_text('{"fingerprint": "two"}')
    with pytest.warns(UserWarning, match=r"another run into .* is not finished"):
        evaluate(folder, world.reference, tolerance=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"status": "partial", "missing": 5}', "'missing' is 5"),
        ("[" * 100_000, "no JSON"),
        ('{"missing": ' + "9" * 5000 + "}", "no JSON"),
        ("\xff", "no JSON"),
        ("[]", "no facts by name"),
        ('{"rasters": ["labels.tif"]}', "'rasters' is"),
        ('{"rasters": {"labels": 3}}', "'rasters' is"),
        ('{"regions": 3}', "'regions' is 3"),
    ],
)
def test_a_damaged_record_is_refused(world: World, tmp_path: Path, content: str, words: str) -> None:
    folder = copied(world, tmp_path / "run")
    (folder / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=rf"run.json is damaged .*{words}"):
        evaluate(folder, world.reference)


@pytest.mark.parametrize("name", ["labels_level2", "confidence_level2", "confidence"])
def test_every_raster_of_a_run_lies_on_its_grid(world: World, tmp_path: Path, name: str) -> None:
    folder = copied(world, tmp_path / "run")
    write(folder / f"{name}.tif", world.levels[2][:, ::-1].copy(), transform=UTM * Affine.translation(3, 0))
    with pytest.raises(SceneError, match=rf"{name}.tif isn't on the pixel grid of .*labels.tif: .*3 px off"):
        evaluate(folder, world.reference)
    write(folder / f"{name}.tif", world.levels[2][:40])
    with pytest.raises(SceneError, match=rf"{name}.tif isn't on the pixel grid of .*labels.tif: it has 40 x"):
        evaluate(folder, world.reference)


def with_class(code: int) -> Taxonomy:
    text = FLAIR.dump().rstrip() + f'\n  - {{code: {code}, name: more, color: "#010203"}}\n'
    return Taxonomy.loads(text)


def test_undecided_pixels_are_never_read_as_a_class(world: World) -> None:
    with pytest.raises(
        InputError, match=r"and 255 for pixels left undecided; in 'flair' that is 'more'. Give a map"
    ):
        evaluate(world.folder, world.reference, with_class(255))
    other = with_class(300)
    assert other.undecided == 65535
    found = evaluate(world.folder, world.reference, other, tolerance=0)
    predicted = np.where(world.predicted == 255, 65535, world.predicted.astype(np.uint16))
    assert found.confusion == Confusion.of(predicted, world.true, other)
    assert found.hierarchy["undecided"] > 0


# What is ignored, and mapped


def test_ignored_are_values_as_the_reference_stores_them(world: World, tmp_path: Path) -> None:
    """2 is a class's code after the mapping, and another value before it: only that one is left out."""
    stored = world.true.copy()
    stored[world.true == 1] = 2
    stored[:20] = 255
    kept = tuple((node.code, node.code) for node in FLAIR.nodes if node.code not in (1, 2))
    mapping = ClassMapping("m", FLAIR, (*kept, (2, 1), (3, 2)))
    path = write(tmp_path / "r.tif", stored)
    with pytest.raises(InputError, match="255"):
        evaluate(world.folder, path, mapping=mapping)
    expected = np.where(world.true == 3, 2, world.true)
    expected[:20] = 0
    found = evaluate(world.folder, path, mapping=mapping, ignore=[255], tolerance=0)
    assert found.confusion == Confusion.of(world.predicted, expected, FLAIR)
    expected[expected == 1] = 0
    found = evaluate(world.folder, path, mapping=mapping, ignore=[255, 2], tolerance=0)
    assert found.confusion == Confusion.of(world.predicted, expected, FLAIR)


def test_ignored_values_of_polygons_with_a_mapping(world: World, tmp_path: Path) -> None:
    boxes = [shapely.box(0, 0, 9, 9), shapely.box(20, 0, 29, 9)]
    drawn = as_file(boxes, {"code": [5, 99]}, tmp_path / "r.gpkg")
    mapping = ClassMapping("m", FLAIR, ((5, 1), ("99", 2)))
    both = evaluate(world.folder, drawn, mapping=mapping, column="code", tolerance=0)
    assert both.confusion.pixels == 162
    found = evaluate(world.folder, drawn, mapping=mapping, column="code", tolerance=0, ignore=[99])
    assert found.confusion.pixels == 81
    assert (
        evaluate(
            world.folder,
            drawn,
            mapping=ClassMapping("m", FLAIR, ((5, 1),)),
            column="code",
            tolerance=0,
            ignore=[99],
        ).evidence
        == found.evidence
    )


# Choices


def test_choices_by_name_and_all_at_once(world: World, tmp_path: Path) -> None:
    area = as_file([shapely.box(0, 0, 30, 30)], {}, tmp_path / "area.gpkg")
    options = EvaluationOptions(
        ignore=(10,), tolerance="3px", reference_options=ReferenceOptions(within=area)
    )
    named = evaluate(world.folder, world.reference, "flair", ignore=(10,), tolerance="3px", within=area)
    assert evaluate(world.folder, world.reference, options=options).evidence == named.evidence
    other = evaluate(world.folder, world.reference, options=options, tolerance=0)
    assert other.confusion == named.confusion
    assert not other.boundaries
    with pytest.raises(SettingsError, match="options are ReferenceOptions; expected EvaluationOptions"):
        evaluate(world.folder, world.reference, options=ReferenceOptions())  # type: ignore[arg-type]


@pytest.mark.parametrize("top", [95, 90.5])
def test_a_grid_beyond_the_pole_is_at_fault(tmp_path: Path, top: float) -> None:
    affine = Affine(0.01, 0, 3, 0, -0.01, top)
    for tolerance in (Length(2, "px"), Length(5000, "m")):
        with pytest.raises(InputError, match=r"no size on the ground: .*beyond a pole.*\(x 3 to 5.1, y"):
            on_ground(GeoBox(SHAPE, affine, "EPSG:4326"), tolerance)
    path = write(tmp_path / "p.tif", patches(1, [1, 3, 5]), "EPSG:4326", affine)
    with pytest.raises(InputError, match=r"latitudes|beyond a pole"):
        evaluate(path, path, FLAIR)
