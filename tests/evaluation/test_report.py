"""Reports: every level as values, JSON and text that fits a terminal."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.evaluation import Coherence, Confusion, Evidence, LevelScores, MapAreas, Reliability, Scores
from rssegment.evaluation.table import cells, compact, fitting
from rssegment.taxonomy import Node, Taxonomy


@pytest.fixture
def demo_scores() -> Scores:
    tree = Taxonomy.load("demo")
    reference = np.array([[1, 1, 2, 3, 4, 20, 0]], np.uint8)
    prediction = np.array([[1, 2, 2, 3, 5, 3, 3]], np.uint8)
    return Scores.of(Confusion.of(prediction, reference, tree))


def test_every_level(demo_scores: Scores) -> None:
    assert [level.level for level in demo_scores.levels] == [1, 2, 3]
    assert demo_scores.leaf is demo_scores.levels[-1]
    assert demo_scores.levels[0].pixel_accuracy == 1
    assert demo_scores.levels[0].pixels == 6
    assert demo_scores.levels[1].pixel_accuracy == 4 / 5
    assert demo_scores.leaf.pixels == 5
    assert demo_scores.leaf.mean_iou == pytest.approx((1 / 2 + 1 / 2 + 1 + 0 + 0) / 5)


def test_as_dict_is_json(demo_scores: Scores) -> None:
    content = demo_scores.as_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["taxonomy"] == "demo"
    assert content["pixels"] == 6
    leaf = content["levels"][-1]
    assert leaf["coarser"] == 1
    rows = {row["path"]: row for row in leaf["classes"]}
    assert rows["built/road"] == {
        "code": 2, "name": "road", "path": "built/road", "true": 1, "predicted": 2,
        "iou": 0.5, "f1": pytest.approx(2 / 3), "precision": 0.5, "recall": 1.0,
    }  # fmt: skip
    assert rows["bare"]["iou"] is None
    assert Scores.of(Confusion.empty(Taxonomy.load("demo"))).as_dict()["levels"][0]["mean_iou"] is None


def test_table(demo_scores: Scores) -> None:
    assert demo_scores.leaf.table().splitlines() == [
        "level 3 (5 px): mIoU 0.400  mF1 0.467  accuracy 0.600  kappa 0.500",
        "  fwIoU 0.500  disagreement in quantity 0.400, in allocation 0.000",
        "  class                      true px  map px    IoU     F1  prec.  recall",
        "  built/building                   2       1  0.500  0.667  1.000   0.500",
        "  built/road                       1       2  0.500  0.667  0.500   1.000",
        "  vegetation/forest                1       1  1.000  1.000  1.000   1.000",
        "  vegetation/crop/green_crop       1       0  0.000  0.000      -   0.000",
        "  vegetation/crop/ripe_crop        0       1  0.000  0.000  0.000       -",
        "  not shown: 3 of 8 classes, no pixels scored",
        "  not scored: 1 px labelled above level 3",
    ]
    sections = demo_scores.table().split("\n\n")
    assert [section.splitlines()[0] for section in sections[:-1]] == [
        "level 1 (6 px): mIoU 1.000  mF1 1.000  accuracy 1.000  kappa 1.000",
        "level 2 (5 px): mIoU 0.750  mF1 0.833  accuracy 0.800  kappa 0.737",
        "level 3 (5 px): mIoU 0.400  mF1 0.467  accuracy 0.600  kappa 0.500",
        "common classes (6 px): mIoU 0.667  mF1 0.778  accuracy 0.833  kappa 0.739",
    ]
    assert sections[-1].splitlines() == [
        "hierarchy: distance 0.667 edges  height of mistakes 1.000  F1 0.833",
        "  precision 0.833  recall 0.833  mean level 2.167",
        "  at the level decided: 0.667 right, 0.333 wrong, 0.000 undecided",
    ]


def test_common_classes_that_are_a_levels_are_not_shown_twice() -> None:
    tree = Taxonomy.load("demo")
    codes = np.array([[10, 20, 30, 8]])
    text = Scores.of(Confusion.of(codes, codes, tree)).table()
    assert "level 1 (4 px)" in text
    assert "common" not in text


def test_a_flat_map_has_no_hierarchy_but_may_be_undecided() -> None:
    tree = Taxonomy.flat("flat", {1: ("a", (0, 0, 0)), 2: ("b", (1, 1, 1))})
    codes = np.array([[1, 2, 2]])
    assert "hierarchy" not in Scores.of(Confusion.of(codes, codes, tree)).table()
    open_ = np.array([[1, 2, tree.undecided]])
    assert "0.333 undecided" in Scores.of(Confusion.of(open_, codes, tree)).table()


def scores_of(tree: Taxonomy, reference: list[int], prediction: list[int]) -> Scores:
    return Scores.of(Confusion.of(np.array([prediction]), np.array([reference]), tree))


@pytest.mark.parametrize("name", ["demo", "flair", "corine"])
@pytest.mark.parametrize("times", [1, 10**5, 10**12])
def test_table_fits_a_terminal_and_shows_every_class_once(name: str, times: int) -> None:
    tree = Taxonomy.load(name)
    nodes = len(tree.nodes)
    counts = np.random.default_rng(0).integers(1, 1000, (nodes, nodes + 2)) * times
    result = Scores.of(Confusion(tree, counts))
    assert max(map(cells, result.table().splitlines())) <= 80
    for level in result.levels:
        rows = [row for row in level.table().splitlines()[3:] if not row.startswith("  not ")]
        shown = [row.split("  ")[1].split(" ")[0] for row in rows]
        assert len(set(shown)) == len(level.classes)
        for path, node in zip(shown, level.classes, strict=True):
            assert "/".join(node.path).endswith(path.removeprefix("…"))  # no packaged name is cut


def test_levels_that_add_nothing_are_named() -> None:
    tree = Taxonomy.load("flair")
    shallow = next(n.code for n in tree.leaves if n.level == 2)
    other = next(n.code for n in tree.leaves if n.level == 2 and n.code != shallow)
    parts = scores_of(tree, [shallow, shallow, other], [shallow, other, 0]).table().split("\n\n")
    assert parts[0].startswith("level 1 (3 px)")
    assert parts[1].startswith("level 2 (3 px)")
    assert parts[2:-1] == ["level 3: as level 2", "level 4: as level 2"]
    coarse = tree.node("vegetation/low/crop").code
    level_4 = scores_of(tree, [shallow, coarse], [shallow, coarse]).table().split("\n\n")[3]
    assert "not scored: 1 px labelled above level 4" in level_4


FLAIR = Taxonomy.load("flair")
codes = st.sampled_from([node.code for node in FLAIR.nodes])


@given(st.lists(st.tuples(codes, codes | st.just(0)), min_size=1, max_size=6))
def test_a_level_that_is_only_named_has_the_scores_and_classes_of_the_one_above(
    pairs: list[tuple[int, int]],
) -> None:
    result = scores_of(FLAIR, [t for t, _ in pairs], [p for _, p in pairs])
    for part in result.table().split("\n\n"):
        if match := re.fullmatch(r"level (\d): as level (\d)", part):
            mine, other = (result.levels[int(level) - 1] for level in match.groups())
            np.testing.assert_array_equal(list(mine.overall.values()), list(other.overall.values()))
            assert scored_rows(mine) == scored_rows(other)


def scored_rows(level: LevelScores) -> list[dict[str, object]]:
    return [row for row in level.as_dict()["classes"] if row["true"] or row["predicted"]]


def test_no_score_reads_minus_zero() -> None:
    tree = Taxonomy.flat("two", {1: ("a", (0, 0, 0)), 2: ("b", (1, 1, 1))})
    text = Scores.of(Confusion(tree, np.array([[50_000, 50_010, 0, 0], [50_000, 49_990, 0, 0]]))).table()
    assert "kappa 0.000" in text
    assert "-0.000" not in text


def test_table_of_nothing() -> None:
    empty = Scores.of(Confusion.empty(Taxonomy.load("demo")))
    assert empty.table().split("\n\n") == [
        "level 1: no pixels to score",
        "level 2: as level 1",
        "level 3: as level 1",
    ]


@given(st.integers(0, 2**63 - 1))
def test_compact_counts_keep_three_digits(pixels: int) -> None:
    text = compact(pixels)
    assert len(text) <= 6
    number, _, unit = text.partition(" ")
    value = float(number) * 1000 ** " kMGTPE".index(unit or " ")
    assert value == pytest.approx(pixels, rel=0.00501)
    if unit:
        assert len(number.replace(".", "")) == 3


@pytest.mark.parametrize(
    ("pixels", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9996, "10.0 k"), (252_800, "253 k"), (999_499, "999 k"),
     (999_500, "1.00 M"), (3_530_000, "3.53 M"), (10**11, "100 G")],
)  # fmt: skip
def test_compact_counts(pixels: int, text: str) -> None:
    assert compact(pixels) == text


names = st.text("ab水é\u0301", min_size=1, max_size=60).filter(str.isprintable)
lists_of_paths = st.lists(
    st.lists(names, min_size=1, max_size=4).map(tuple), min_size=1, unique=True, max_size=8
)


@given(lists_of_paths, st.integers(16, 40))
def test_any_path_fits_and_none_reads_as_another(paths: list[tuple[str, ...]], width: int) -> None:
    nodes = [
        Node(code, path[-1], (0, 0, 0), len(path), None, path) for code, path in enumerate(paths, 60_000)
    ]
    shown = fitting(nodes, width)
    assert max(map(cells, shown)) <= width
    assert len(set(shown)) == len(paths)
    for path, text in zip(paths, shown, strict=True):
        if cells("/".join(path)) <= width:
            assert text == "/".join(path)


def test_every_section_fits_a_terminal_whatever_the_sizes() -> None:
    tree = Taxonomy.load("corine")
    rng = np.random.default_rng(0)
    size = len(tree.nodes)
    for times, m2 in ((1, 1e-4), (10**6, 0.04), (10**8, 100.0)):
        counts = rng.integers(1, 100, (size, size + 2)) * times
        pixels = rng.integers(1, 1000, size + 2) * times
        areas = MapAreas(tree, pixels, tuple(int(n) * round(m2 * 1e9) for n in pixels))
        bins = np.full(20, times)
        evidence = Evidence(
            Confusion(tree, counts),
            {level: Reliability(bins, bins * 10, bins // 2) for level in range(4)},
            coherence=Coherence(times * 10, times),
            areas=areas,
        )
        lines = Scores(evidence).table().splitlines()
        assert max(map(cells, lines)) <= 80
        assert any(line.startswith("whole map, ") for line in lines)
