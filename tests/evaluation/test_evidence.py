"""Evidence: sums over any cut of the pixels, JSON and back, what can't be merged, files of others."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.errors import InputError, OutputError
from rssegment.evaluation import BackoffCounts, Coherence, Confusion, Evidence, MapAreas, Reliability, Scores
from rssegment.evaluation.boundaries import BoundaryCounts
from rssegment.evaluation.lookup import LabelPairs
from rssegment.evaluation.objects import ObjectCounts, match
from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
OPEN = DEMO.undecided


def evidence(
    true: NDArray[np.uint8], predicted: NDArray[np.uint8], confidence: NDArray[np.uint8]
) -> Evidence:
    """Everything that can be counted of pixels, each for itself."""
    pairs = LabelPairs(predicted, true, DEMO)
    lookup = DEMO.with_undecided().ancestor_lookup(1)
    return Evidence(
        Confusion.of_pairs(pairs),
        {level: Reliability.of_labels(pairs, confidence, level) for level in range(4)},
        BackoffCounts.of(pairs, [confidence, confidence // 2, confidence // 3]),
        coherence=Coherence.of({1: lookup[predicted]}, predicted, DEMO),
        areas=MapAreas.of(predicted, DEMO, 0.04),
    )


@st.composite
def maps(draw: st.DrawFn) -> tuple[NDArray[np.uint8], ...]:
    size = draw(st.integers(1, 12))
    true = draw(hnp.arrays(np.uint8, size, elements=st.sampled_from([0, *CODES])))
    predicted = draw(hnp.arrays(np.uint8, size, elements=st.sampled_from([0, OPEN, *CODES])))
    return true, predicted, draw(hnp.arrays(np.uint8, size))


@given(maps(), st.data())
def test_any_partition_of_the_pixels_adds_up_to_the_whole(
    arrays: tuple[NDArray[np.uint8], ...], data: st.DataObject
) -> None:
    part = data.draw(hnp.arrays(np.int64, arrays[0].shape, elements=st.integers(0, 3)))
    order = data.draw(st.permutations(range(4)))
    parts = [evidence(*(array[part == i] for array in arrays)) for i in order]
    whole = evidence(*arrays)
    assert sum(parts, Evidence.empty(DEMO)) == whole
    assert parts[0] + (parts[1] + (parts[2] + parts[3])) == whole


@given(maps())
def test_plain_values_and_back(arrays: tuple[NDArray[np.uint8], ...]) -> None:
    whole = replace(evidence(*arrays), scenes=("a.tif", "ß.tif"))
    assert Evidence.from_dict(json.loads(json.dumps(whole.as_dict(), allow_nan=False))) == whole


@pytest.fixture
def full() -> Evidence:
    return everything()


@cache
def everything() -> Evidence:
    rng = np.random.default_rng(0)
    true = np.kron(rng.choice(DEMO.leaf_codes, (4, 4)), np.ones((5, 5), int)).astype(np.uint8)
    predicted = np.where(rng.random(true.shape) < 0.2, rng.choice(CODES, true.shape), true).astype(np.uint8)
    codes = [node.code for node in DEMO.level(1)]
    top = DEMO.ancestor_lookup(1)
    boundaries = BoundaryCounts.of(
        top[predicted], top[true], Box(0, 0, 20, 20), (1.0, 1.0), 2.0, level=1, classes=codes
    )
    square = np.array([shapely.box(0, 0, 2, 2), shapely.box(5, 0, 6, 2)])
    return replace(
        evidence(true, predicted, rng.integers(0, 256, true.shape, dtype=np.uint8)),
        boundaries={1: boundaries},
        objects=match((square, np.array([1, 1])), (square[:1], np.array([1])), classes=[1]),
        scenes=("other", "scene"),
        partial={"backoff": 1},
    )


def test_a_file_and_back(full: Evidence, tmp_path: Path) -> None:
    full.save(tmp_path / "evidence.json")
    assert Evidence.load(tmp_path / "evidence.json") == full
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]
    assert pickle.loads(pickle.dumps(full)) == full
    twice = full + Evidence.load(tmp_path / "evidence.json")
    assert twice.scenes == ("other", "other", "scene", "scene")
    assert twice.partial == {"backoff": 2}
    assert Scores(twice).leaf.overall == pytest.approx(Scores(full).leaf.overall)
    assert Scores.merge([Scores(full), Scores(full)]).evidence == twice
    with pytest.raises(InputError, match="no scores to merge"):
        Scores.merge([])


def test_every_part_is_added_and_written(full: Evidence) -> None:
    for field in fields(Evidence):
        assert getattr(full, field.name), f"the fixture lacks {field.name}"
    twice = full + full
    assert twice.boundaries[1] == full.boundaries[1] + full.boundaries[1]
    assert twice.objects is not None
    assert twice.objects.true.tolist() == [2]
    assert full + Evidence.empty(DEMO) == full == Evidence.empty(DEMO) + full


def test_parts_of_evidence_without_scenes(full: Evidence) -> None:
    bare = Evidence(full.confusion)
    both = bare + full
    assert both.reliability == full.reliability
    assert both.backoff == full.backoff
    assert both.areas is None  # they would speak of one scene, the confusion of both
    assert (both + full).areas is None
    assert (full + (bare + full)).areas is None
    beside = replace(full, confusion=Confusion.empty(DEMO))  # a scene without reference still has areas
    assert (beside + full).areas == (full.areas or MapAreas.empty(DEMO)) + (
        full.areas or MapAreas.empty(DEMO)
    )


SCENES = dict.fromkeys(("backoff", "objects", "coherence")) | {"reliability": {}, "boundaries": {}}


@given(st.lists(st.sets(st.sampled_from([*SCENES, "areas"])), min_size=2, max_size=5), st.integers(1, 4))
def test_how_many_scenes_have_each_part(missing: list[set[str]], cut: int) -> None:
    """By hand, whatever the order of the sums; areas go where one lacks them."""
    parts = []
    whole = everything()
    for i, without in enumerate(missing):
        lack = {name: SCENES.get(name) for name in without}
        parts.append(replace(whole, scenes=(f"s{i}",), partial={}, **lack))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    cut = min(cut, len(parts) - 1)
    left, right = parts[0], parts[cut]
    for part in parts[1:cut]:
        left = left + part
    for part in parts[cut + 1 :]:
        right = right + part
    assert left + right == total
    having = {name: sum(name not in without for without in missing) for name in [*SCENES, "areas"]}
    expected = {name for name, number in having.items() if 0 < number < len(parts)}
    assert {part.partition("/")[0] for part in total.partial} == expected
    assert all(number == having[part.partition("/")[0]] for part, number in total.partial.items())
    assert (total.areas is None) == (having["areas"] < len(parts))
    assert len(total.remarks) == len(expected)
    assert Evidence.from_dict(json.loads(json.dumps(total.as_dict()))) == total


def test_remarks_say_which_levels_and_classes() -> None:
    whole = replace(everything(), scenes=("a",), partial={})
    other = replace(
        whole,
        scenes=("a",),
        reliability={0: whole.reliability[0]},
        objects=ObjectCounts.empty([2]),
        areas=None,
    )
    assert (whole + other).remarks == (
        "areas are left out: only 1 of 2 scenes have them",
        "scores of objects are of 1 of 2 scenes",
        "calibration scores of level 1, level 2, level 3 are of 1 of 2 scenes",
        "several of the scenes are called a: if they are the same, their pixels count twice",
    )
    table = Scores(whole + other).table()
    assert "note: areas are left out: only 1 of 2 scenes have them" in table
    assert max(map(len, table.splitlines())) <= 80


def test_what_differs_is_said(full: Evidence) -> None:
    with pytest.raises(InputError, match="taxonomies 'demo' and 'flair' can't be added"):
        full + Evidence.empty(Taxonomy.load("flair"))
    with pytest.raises(InputError, match=r"tolerance 2\.0 and 3\.0 can't be added"):
        full + replace(full, boundaries={1: BoundaryCounts.empty(1, full.boundaries[1].classes, 3.0)})
    with pytest.raises(InputError, match=r"at IoU 0\.5 and at 0\.7"):
        full + replace(full, objects=ObjectCounts.empty([1], 0.7))


def test_files_of_others_are_refused(tmp_path: Path, full: Evidence) -> None:
    path = tmp_path / "some.json"
    with pytest.raises(InputError, match=r"can't read the evidence .*some.json: No such file"):
        Evidence.load(path)
    with pytest.raises(InputError, match="can't read the evidence"):
        Evidence.load(tmp_path)
    for content in (b"II*\x00\xff\xfe", b"", b"{", b"[" * 100_000, b"9" * 5000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"some.json is no evidence file of rssegment: it is no JSON"):
            Evidence.load(path)
    for other in ([], 3, None, {}, {"format": "GeoJSON"}, Scores(full).as_dict()):
        path.write_text(json.dumps(other))
        with pytest.raises(InputError, match=r"some.json: this is no evidence of rssegment: 'format' is"):
            Evidence.load(path)
    with pytest.raises(OutputError, match=r"can't write the evidence to .*nowhere"):
        full.save(tmp_path / "nowhere" / "evidence.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 2, "version 2; this rssegment reads version 1"),
        ("taxonomy", 3, "'taxonomy' is 3"),
        ("taxonomy", "name: x", "its taxonomy:1: the file has no 'classes:'"),
        ("scenes", "a", "'scenes' is 'a'"),
        ("confusion", None, "the counts have no 'counts'"),
        ("confusion", {"counts": "many"}, "'counts' is not a list"),
        ("reliability", {"one": {}}, "levels .*expected whole numbers"),
        ("reliability", {"1": {}}, "no 'pixels'"),
        ("reliability", {"1": []}, "no 'pixels'"),
        ("reliability", [], "'reliability' is list"),
        ("backoff", {}, "no 'depth'"),
        ("boundaries", {"1": {}}, "no 'classes'"),
        ("objects", {}, "no 'classes'"),
        ("objects", ObjectCounts.empty([99]).as_dict(), "'demo' has no code 99"),
        ("coherence", {"pixels": "all"}, "'pixels' is 'all'"),
        ("areas", {"areas": [[1, 2, [3]]]}, "lists within lists"),
        ("scenes", ["\ud800"], r"'scenes' is \['.ud800'\]; expected a list of names"),
        ("taxonomy", DEMO.dump().replace("demo", '"\\ud800"'), "its taxonomy"),
        ("reliability", {"4": everything().reliability[0].as_dict()}, "has 0 to 3"),
        ("partial", {"backoff": 2}, "expected less than the 2 scenes"),
        ("partial", {"backoff": 0}, "expected less than the 2 scenes"),
        ("partial", {"boundaries/9": 1}, "'boundaries/9', of which there is no evidence"),
        ("partial", {"backoff": "all"}, "expected a whole number"),
        ("partial", 3, "'partial' is int"),
    ],
)
def test_changed_values_are_refused(full: Evidence, key: str, value: Any, message: str) -> None:
    plain = full.as_dict() | {key: value}
    with pytest.raises(InputError, match=message):
        Evidence.from_dict(plain)


def change(part: str, name: str, by: int) -> Callable[[dict[str, Any]], None]:
    """Adds ``by`` to the first count above 0 of an array."""

    def changed(plain: dict[str, Any]) -> None:
        counts = plain["objects"] if part == "objects" else plain["boundaries"]["1"]
        index = next(i for i, value in enumerate(counts[name]) if value)
        counts[name][index] += by

    return changed


@pytest.mark.parametrize(
    ("part", "name", "by", "words"),
    [
        ("boundaries", "common_band", 10**6, "'common_band' has more pixels than 'true_band'"),
        (
            "boundaries",
            "predicted_band",
            -390,
            "'predicted_band' is -|'common_band' has more .*'predicted_band'",
        ),
        ("boundaries", "found_edge", 10**6, "'found_edge' has more pixels than 'true_edge'"),
        ("boundaries", "right_edge", 10**6, "'right_edge' has more pixels than 'predicted_edge'"),
        ("objects", "matched", 1, "2 objects of class 1 are matched, of 1 and 2"),
        ("objects", "overlap", 1, "expected an IoU of 0.5 to 1 for each"),
        ("objects", "overlap", -(2**31) - 1, "expected an IoU of 0.5 to 1 for each"),
    ],
)
def test_impossible_counts_are_refused(full: Evidence, part: str, name: str, by: int, words: str) -> None:
    plain = json.loads(json.dumps(full.as_dict()))
    assert Evidence.from_dict(plain) == full
    change(part, name, by)(plain)
    with pytest.raises(InputError, match=words):
        Evidence.from_dict(plain)


def test_boundaries_of_a_level_that_is_not_theirs(full: Evidence) -> None:
    plain = full.as_dict()
    one = plain["boundaries"]["1"]
    with pytest.raises(InputError, match="boundaries of level 2 say that they are of level 1"):
        Evidence.from_dict(plain | {"boundaries": {"2": one}})
    for level in ("0", "4"):
        with pytest.raises(InputError, match=rf"has the levels \[{level}\]; taxonomy 'demo' has 1 to 3"):
            Evidence.from_dict(plain | {"boundaries": {level: one | {"level": int(level)}}})
    twice = one | {"classes": [one["classes"][0]] * len(one["classes"])}
    with pytest.raises(InputError, match="expected each code once"):
        Evidence.from_dict(plain | {"boundaries": {"1": twice}})


def test_scores_of_all_there_is(full: Evidence) -> None:
    scores = Scores(full)
    plain = scores.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["reliability"]["0"]["pixels"] == full.reliability[0].total
    assert plain["boundaries"]["1"]["tolerance"] == 2
    assert plain["boundaries"]["1"]["classes"][0]["path"] == "built"
    assert plain["objects"]["classes"][0]["matched"] == 1
    assert len(plain["backoff"]["tau"]) == 101
    assert plain["coherence"] == {"pixels": 400, "incoherent": 0}
    assert plain["hierarchy"]["incoherence_rate"] == 0
    assert plain["areas"]["mapped_m2"] == pytest.approx(400 * 0.04)
    assert scores.accuracy == (plain["areas"]["accuracy"], plain["areas"]["half_width"])
    assert [row.node for row in scores.areas] == list(scores.common.classes)
    heads = [part.splitlines()[0].split(":")[0].split("(")[0] for part in scores.table().split("\n\n")]
    assert heads == [
        "level 1 ", "level 2 ", "level 3 ", "hierarchy",
        "calibration         px   conf.  correct     ECE     MCE  conf. - correct",
        "back-off at      0.00   0.50   0.60   0.70   0.80   0.90   0.95   0.99",
        "boundaries of level 1, within 2 m", "objects, matched from IoU 0.5", "whole map, 16.00 m²", "note",
    ]  # fmt: skip
    assert max(map(len, scores.table().splitlines())) <= 80


def test_scores_without_more_evidence() -> None:
    scores = Scores.of(Confusion.empty(DEMO))
    assert scores.curve is None
    assert scores.objects is None
    assert scores.areas == ()
    assert scores.reliability == scores.boundaries == {}
    assert np.isnan(scores.accuracy).all()
    assert np.isnan(list(scores.hierarchy.values())).all()
    plain = scores.as_dict()
    assert [plain[key] for key in ("backoff", "objects", "areas", "coherence")] == [None] * 4
