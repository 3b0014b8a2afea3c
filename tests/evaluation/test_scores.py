"""Scores: a hand-worked table, brute force from labels, absent classes, and what is printed."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.evaluation import Confusion, Scores, scores
from rssegment.evaluation.report import LevelScores, _cells, _compact, _fitting
from rssegment.taxonomy import Node, Taxonomy

# Three classes, a fourth that is absent, last column no data. N = 20.
HAND = np.array(
    [
        [5, 2, 0, 0, 1],
        [1, 6, 1, 0, 0],
        [0, 2, 2, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)
NAN = float("nan")
tables = st.integers(1, 5).flatmap(lambda k: hnp.arrays(np.int64, (k, k + 1), elements=st.integers(0, 6)))


def test_by_hand() -> None:
    # true 8, 8, 4, 0; predicted 6, 10, 3, 0; right 5, 6, 2, 0
    assert scores.pixel_accuracy(HAND) == 13 / 20
    np.testing.assert_allclose(scores.recall(HAND), [5 / 8, 6 / 8, 2 / 4, NAN])
    np.testing.assert_allclose(scores.precision(HAND), [5 / 6, 6 / 10, 2 / 3, NAN])
    np.testing.assert_allclose(scores.iou(HAND), [5 / 9, 6 / 12, 2 / 5, NAN])
    np.testing.assert_allclose(scores.f1(HAND), [10 / 14, 12 / 18, 4 / 7, NAN])
    assert scores.mean_iou(HAND) == pytest.approx((5 / 9 + 1 / 2 + 2 / 5) / 3)
    assert scores.mean_f1(HAND) == pytest.approx((10 / 14 + 12 / 18 + 4 / 7) / 3)
    assert scores.mean_accuracy(HAND) == pytest.approx((5 / 8 + 6 / 8 + 2 / 4) / 3)
    assert scores.frequency_weighted_iou(HAND) == pytest.approx(
        8 / 20 * 5 / 9 + 8 / 20 * 1 / 2 + 4 / 20 * 2 / 5
    )
    by_chance = (8 * 6 + 8 * 10 + 4 * 3) / 400
    assert scores.kappa(HAND) == pytest.approx((13 / 20 - by_chance) / (1 - by_chance))
    assert scores.quantity_disagreement(HAND) == pytest.approx((2 + 2 + 1 + 1) / 2 / 20)
    assert scores.allocation_disagreement(HAND) == pytest.approx(7 / 20 - 3 / 20)


def brute_force(counts: NDArray[np.int64]) -> tuple[list[int], list[int | None]]:
    """The label pairs that the counts stand for."""
    last = counts.shape[0]
    pairs = [(i, None if j == last else j) for (i, j), n in np.ndenumerate(counts) for _ in range(n)]
    return [t for t, _ in pairs], [p for _, p in pairs]


def quotient(above: float, below: float) -> float:
    return above / below if below else NAN


@given(tables)
def test_scores_equal_brute_force(counts: NDArray[np.int64]) -> None:
    true, predicted = brute_force(counts)
    pairs = list(zip(true, predicted, strict=True))
    ious, f1s, shares, chance, quantity = [], [], [], 0.0, predicted.count(None) / 2
    for c in range(len(counts)):
        t, p = {n for n, a in enumerate(true) if a == c}, {n for n, b in enumerate(predicted) if b == c}
        ious.append(quotient(len(t & p), len(t | p)))
        f1s.append(quotient(2 * len(t & p), len(t) + len(p)))
        shares.append(quotient(len(t), len(true)))
        chance += quotient(len(t) * len(p), len(true) ** 2)
        quantity += abs(len(t) - len(p)) / 2
    right = quotient(sum(t == p for t, p in pairs), len(pairs))
    present = [value for value in ious if not math.isnan(value)]
    np.testing.assert_allclose(scores.iou(counts), ious)
    np.testing.assert_allclose(scores.f1(counts), f1s)
    np.testing.assert_allclose(scores.pixel_accuracy(counts), right)
    np.testing.assert_allclose(scores.mean_iou(counts), quotient(sum(present), len(present)))
    weighted = quotient(
        sum(s * i for s, i in zip(shares, ious, strict=True) if s and not math.isnan(i)), bool(true)
    )
    np.testing.assert_allclose(scores.frequency_weighted_iou(counts), weighted)
    np.testing.assert_allclose(scores.quantity_disagreement(counts), quotient(quantity, len(true)))
    if not math.isclose(chance, 1):
        np.testing.assert_allclose(scores.kappa(counts), quotient(right - chance, 1 - chance), atol=1e-12)


@given(tables)
def test_ranges_and_the_three_parts_of_the_whole(counts: NDArray[np.int64]) -> None:
    """Law: accuracy + quantity disagreement + allocation disagreement = 1, none of them negative."""
    if not counts.any():
        return
    accuracy, quantity = scores.pixel_accuracy(counts), scores.quantity_disagreement(counts)
    allocation = scores.allocation_disagreement(counts)
    assert accuracy + quantity + allocation == pytest.approx(1)
    assert min(accuracy, quantity) >= 0
    assert allocation >= -1e-12
    iou, f1 = scores.iou(counts), scores.f1(counts)
    np.testing.assert_allclose(f1, 2 * iou / (1 + iou))
    assert np.nanmax(np.append(f1, 0)) <= 1


@given(tables)
def test_precision_and_recall_are_not_exchanged(counts: NDArray[np.int64]) -> None:
    square = counts[:, :-1]
    swapped = np.column_stack([square.T, np.zeros(len(square), int)])
    np.testing.assert_array_equal(
        scores.recall(swapped), scores.precision(np.column_stack([square, swapped[:, -1]]))
    )


def test_absent_classes_are_nan_and_wrongly_predicted_ones_zero() -> None:
    counts = np.array([[4, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(scores.iou(counts), [4 / 5, 0, NAN])
    np.testing.assert_array_equal(scores.f1(counts), [8 / 9, 0, NAN])
    np.testing.assert_array_equal(scores.recall(counts), [4 / 5, NAN, NAN])
    np.testing.assert_array_equal(scores.precision(counts), [1, 0, NAN])
    assert scores.mean_iou(counts) == pytest.approx(0.4)


def test_nothing_to_score_is_nan_without_warnings(recwarn: pytest.WarningsRecorder) -> None:
    counts = np.zeros((2, 3), np.int64)
    for name in scores.__all__:
        assert np.isnan(getattr(scores, name)(counts)).all()
    assert not recwarn.list


def test_missed_pixels_count() -> None:
    counts = np.array([[5, 5]])  # half of the only class was left without prediction
    assert scores.pixel_accuracy(counts) == 0.5
    assert scores.iou(counts).tolist() == [0.5]
    assert scores.quantity_disagreement(counts) == 0.5


def test_large_counts_stay_exact() -> None:
    n = 10**11  # a 100 Gpx mosaic; t_i * p_i would overflow int64
    counts = np.array([[n, 0, 0], [0, n, 0]])
    assert scores.kappa(counts) == pytest.approx(1)
    assert scores.pixel_accuracy(counts) == 1


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
    assert [line for line in demo_scores.table().splitlines() if not line.startswith(" ") and line] == [
        "level 1 (6 px): mIoU 1.000  mF1 1.000  accuracy 1.000  kappa 1.000",
        "level 2 (5 px): mIoU 0.750  mF1 0.833  accuracy 0.800  kappa 0.737",
        "level 3 (5 px): mIoU 0.400  mF1 0.467  accuracy 0.600  kappa 0.500",
    ]


def scores_of(tree: Taxonomy, reference: list[int], prediction: list[int]) -> Scores:
    return Scores.of(Confusion.of(np.array([prediction]), np.array([reference]), tree))


@pytest.mark.parametrize("name", ["demo", "flair", "corine"])
@pytest.mark.parametrize("times", [1, 10**5, 10**12])
def test_table_fits_a_terminal_and_shows_every_class_once(name: str, times: int) -> None:
    tree = Taxonomy.load(name)
    nodes = len(tree.nodes)
    counts = np.random.default_rng(0).integers(1, 1000, (nodes, nodes + 2)) * times
    result = Scores.of(Confusion(tree, counts))
    assert max(map(_cells, result.table().splitlines())) <= 80
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
    assert parts[2:] == ["level 3: as level 2", "level 4: as level 2"]
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
    text = _compact(pixels)
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
    assert _compact(pixels) == text


names = st.text("ab水é\u0301", min_size=1, max_size=60).filter(str.isprintable)
lists_of_paths = st.lists(
    st.lists(names, min_size=1, max_size=4).map(tuple), min_size=1, unique=True, max_size=8
)


@given(lists_of_paths, st.integers(16, 40))
def test_any_path_fits_and_none_reads_as_another(paths: list[tuple[str, ...]], width: int) -> None:
    nodes = [
        Node(code, path[-1], (0, 0, 0), len(path), None, path) for code, path in enumerate(paths, 60_000)
    ]
    shown = _fitting(nodes, width)
    assert max(map(_cells, shown)) <= width
    assert len(set(shown)) == len(paths)
    for path, text in zip(paths, shown, strict=True):
        if _cells("/".join(path)) <= width:
            assert text == "/".join(path)
