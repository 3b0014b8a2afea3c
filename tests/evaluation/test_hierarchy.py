"""Scores that know the tree: by hand, against brute force on paths, and what is no mistake."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.evaluation import Confusion
from rssegment.evaluation.hierarchy import hierarchy_scores
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
OPEN = DEMO.undecided
NAN = float("nan")


def scored(*pairs: tuple[int, int]) -> dict[str, float]:
    """Scores of pixels (true, predicted)."""
    true, predicted = np.array(pairs, np.uint8).reshape(-1, 2).T
    return hierarchy_scores(Confusion.of(predicted, true, DEMO))


# The demo's tree: built 10 (building 1, road 2), vegetation 20 (forest 3, crop 21 (green 4, ripe 5), grass 6),
# water 30 (river 7), bare 8. Heights: crop, built, water 1; vegetation 2; root 3.
@pytest.mark.parametrize(
    ("true", "predicted", "distance", "severity", "common", "claimed", "there"),
    [
        (4, 4, 0, NAN, 3, 3, 3),
        (4, 5, 2, 1, 2, 3, 3),  # below crop
        (4, 3, 3, 2, 1, 2, 3),  # below vegetation
        (4, 7, 5, 3, 0, 2, 3),  # nothing in common
        (4, 21, 1, NAN, 2, 2, 3),  # coarser, and right: no mistake, but not found
        (4, OPEN, 3, NAN, 0, 0, 3),
        (4, 0, 3, NAN, 0, 0, 3),
        (21, 4, 0, NAN, 2, 2, 2),  # finer than the truth is: no error
        (20, 4, 0, NAN, 1, 1, 1),
        (21, 3, 2, 2, 1, 2, 2),
        (20, 7, 2, 3, 0, 1, 1),  # river, cut to water
        (8, 4, 4, 3, 0, 3, 1),  # bare is a leaf: its level says nothing of coarseness, so nothing is cut
        (8, 10, 2, 3, 0, 1, 1),
    ],
)
def test_by_hand(
    true: int, predicted: int, distance: int, severity: float, common: int, claimed: int, there: int
) -> None:
    found = scored((true, predicted))
    assert found["hierarchical_distance"] == distance
    np.testing.assert_equal(found["mistake_severity"], severity)
    np.testing.assert_equal(found["hierarchical_precision"], common / claimed if claimed else NAN)
    assert found["hierarchical_recall"] == common / there
    assert found["hierarchical_f1"] == 2 * common / (claimed + there)


def test_means_are_over_pixels() -> None:
    found = scored((4, 4), (4, 5), (4, 3), (4, OPEN), (20, 5), (8, 0))
    assert found["hierarchical_distance"] == pytest.approx((0 + 2 + 3 + 3 + 0 + 1) / 6)
    assert found["mistake_severity"] == 1.5
    assert found["hierarchical_precision"] == pytest.approx((3 + 2 + 1 + 0 + 1 + 0) / (3 + 3 + 2 + 0 + 1 + 0))
    assert found["hierarchical_recall"] == pytest.approx(7 / (4 * 3 + 1 + 1))
    assert found["hierarchical_f1"] == pytest.approx(2 * 7 / (9 + 14))
    assert found["mean_level"] == (3 + 3 + 2 + 0 + 3) / 5  # as predicted; the pixel without data has none
    assert found["undecided"] == 1 / 5
    assert found["right"] + found["wrong"] + found["undecided"] == pytest.approx(1)


def path(code: int) -> list[int]:
    return [*(node.code for node in DEMO.ancestors(code)), code] if code in CODES else []


@given(
    st.lists(st.tuples(st.sampled_from(CODES), st.sampled_from([*CODES, OPEN, 0])), min_size=1, max_size=12)
)
def test_equals_brute_force_on_paths(pairs: list[tuple[int, int]]) -> None:
    common = claimed = there = edges = 0
    heights = []
    leaves = {node.code for node in DEMO.leaves}
    for true, predicted in pairs:
        t, p = path(true), path(predicted)
        if true not in leaves:
            p = p[: len(t)]
        shared = [node for node in t if node in p]
        common, claimed, there = common + len(shared), claimed + len(p), there + len(t)
        edges += len(t) + len(p) - 2 * len(shared)
        if len(p) > len(shared):
            below = [path(leaf) for leaf in leaves if path(leaf)[: len(shared)] == shared]
            heights.append(max(map(len, below)) - len(shared))
    found = scored(*pairs)
    expected = {
        "hierarchical_distance": edges / len(pairs),
        "mistake_severity": np.mean(heights) if heights else NAN,
        "hierarchical_precision": common / claimed if claimed else NAN,
        "hierarchical_recall": common / there,
        "hierarchical_f1": 2 * common / (claimed + there),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name)


def test_a_flat_tree_has_plain_accuracy() -> None:
    flat = Taxonomy.flat("flat", {i: (f"c{i}", (0, 0, i)) for i in range(1, 5)})
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(1, 5, (2, 100))
    found = hierarchy_scores(Confusion.of(predicted, true, flat))
    accuracy = (true == predicted).mean()
    for name in ("hierarchical_precision", "hierarchical_recall", "hierarchical_f1"):
        assert found[name] == pytest.approx(accuracy)
    assert found["hierarchical_distance"] == pytest.approx(2 * (1 - accuracy))
    assert found["mistake_severity"] == 1


def test_nothing_is_nan_and_large_counts_do_not_overflow(recwarn: pytest.WarningsRecorder) -> None:
    assert all(math.isnan(value) for value in hierarchy_scores(Confusion.empty(DEMO)).values())
    counts = np.full((len(CODES), len(CODES) + 2), 10**16)
    small = hierarchy_scores(Confusion(DEMO, np.ones_like(counts)))
    for name, value in hierarchy_scores(Confusion(DEMO, counts)).items():
        assert value == pytest.approx(small[name])
    assert not recwarn.list


def test_what_is_right_and_what_is_wrong_at_the_level_decided() -> None:
    """A crop called vegetation, or its own kind, is right; called grass, wrong; no data says nothing."""
    true = np.array([4, 4, 4, 4, 4, 21], np.uint8)
    predicted = np.array([20, 4, 6, DEMO.undecided, 0, 4], np.uint8)
    found = hierarchy_scores(Confusion.of(predicted, true, DEMO))
    assert (found["right"], found["wrong"], found["undecided"]) == pytest.approx((3 / 5, 1 / 5, 1 / 5))
