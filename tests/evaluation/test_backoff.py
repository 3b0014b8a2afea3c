"""Back-off counts: a walk by hand, brute force on every threshold, exact sums, plain values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation import BackoffCounts
from rssegment.evaluation.backoff import THRESHOLDS
from rssegment.evaluation.lookup import LabelPairs
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
OPEN = DEMO.undecided
Pixel = tuple[int, int, tuple[int, int, int]]  # true, predicted, confidence at levels 1 to 3 in 1/254


def counted(pixels: list[Pixel]) -> BackoffCounts:
    true, predicted = (np.array([p[i] for p in pixels], np.uint8) for i in (0, 1))
    confidences = np.array([p[2] for p in pixels], np.uint8).reshape(-1, 3)
    return BackoffCounts.of(LabelPairs(predicted, true, DEMO), list(confidences.T))


def at(counts: BackoffCounts, tau: float) -> tuple[float, float, float]:
    index = round(tau * 100)
    curve = counts.curve
    return curve.correct[index], curve.specificity[index], curve.decided[index]


def test_by_hand() -> None:
    # green crop for ripe crop: sure of vegetation (1.0), of crop (0.8), less of green (0.6).
    wrong = counted([(5, 4, (254, 204, 153))])
    assert at(wrong, 0) == (0, 1, 1)
    assert at(wrong, 0.60) == (0, 1, 1)
    assert at(wrong, 0.61) == pytest.approx((1, 2 / 3, 1))
    assert at(wrong, 0.80) == pytest.approx((1, 2 / 3, 1))
    assert at(wrong, 0.81) == pytest.approx((1, 1 / 3, 1))
    assert at(wrong, 1) == pytest.approx((1, 1 / 3, 1))
    # river for bare: wrong as water, too, and right only at the root.
    lost = counted([(8, 7, (127, 102, 102))])
    assert at(lost, 0.40) == (0, 1, 1)
    assert at(lost, 0.50) == (0, 0.5, 1)
    assert at(lost, 0.51) == (1, 0, 0)
    both = lost + wrong
    assert both.pixels == 2
    assert at(both, 0.7) == pytest.approx((1, 1 / 3, 0.5))


@pytest.mark.parametrize(
    ("true", "predicted", "right"),  # at no threshold
    [(4, 4, 1), (21, 4, 1), (20, 4, 1), (4, 21, 1), (21, 3, 0), (8, 8, 1), (4, OPEN, 1), (4, 7, 0)],
)
def test_what_is_right_in_full(true: int, predicted: int, right: int) -> None:
    assert at(counted([(true, predicted, (254, 254, 254))]), 0)[0] == right


def test_left_out() -> None:
    assert counted([(4, 0, (9, 9, 9)), (0, 4, (9, 9, 9)), (4, 4, (9, 255, 9))]).pixels == 0
    assert counted([(8, 8, (9, 255, 255))]).pixels == 1  # no level lies below
    assert counted([(4, OPEN, (255, 255, 255))]).pixels == 1
    assert at(counted([(4, OPEN, (254, 254, 254))]), 0) == (1, 0, 0)
    assert np.isnan(BackoffCounts.empty(DEMO).curve.correct).all()


levels = st.tuples(*[st.integers(0, 254)] * 3)
falling = levels.map(lambda values: tuple(sorted(values, reverse=True)))
pixels = st.tuples(st.sampled_from(CODES), st.sampled_from([*CODES, OPEN]), falling | levels)
lists = st.lists(pixels, max_size=8)


def path(code: int) -> list[int]:
    return [*(node.code for node in DEMO.ancestors(code)), code] if code in CODES else []


def names(path: list[int]) -> tuple[str, ...]:
    return DEMO.node(path[-1]).path if path else ()


def test_a_map_that_backed_off_itself_is_less_specific() -> None:
    """Crop, whose leaves are one level deeper, is two thirds of the way; vegetation one third, undecided none."""
    assert at(counted([(4, 21, (254, 254, 254))]), 0)[1] == pytest.approx(2 / 3)
    assert at(counted([(4, 20, (254, 254, 254))]), 0)[1] == pytest.approx(1 / 3)
    curve = counted([(4, 21, (254, 204, 204)), (4, OPEN, (254, 254, 254))]).curve
    assert curve.tau[curve.begin] == pytest.approx(0.8)
    assert curve.specificity[0] == pytest.approx(1 / 3)


@settings(max_examples=30)
@given(lists)
def test_equals_a_walk_at_every_threshold(pixels: list[Pixel]) -> None:
    curve = counted(pixels).curve
    for index in range(101):
        correct, specific, decided = [], [], []
        for true, predicted, confidences in pixels:
            t, p = path(true), path(predicted)
            level = 0
            while level < len(p) and confidences[level] * 100 >= 254 * index:
                level += 1
            correct.append(p[: min(level, len(t))] == t[: min(level, len(t))])
            specific.append(
                level / max(leaf.level for leaf in DEMO.leaves if leaf.path[: len(p)] == names(p))
            )
            decided.append(level > 0)
        for found, expected in (
            (curve.correct, correct),
            (curve.specificity, specific),
            (curve.decided, decided),
        ):
            np.testing.assert_allclose(found[index], np.mean(expected) if pixels else np.nan)


@given(lists, st.data())
def test_parts_add_up_to_the_whole_exactly(pixels: list[Pixel], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(pixels)))
    whole = counted(pixels)
    assert counted(pixels[cut:]) + counted(pixels[:cut]) == whole
    assert BackoffCounts.empty(DEMO) + whole == whole


@given(lists)
def test_specificity_falls_as_the_threshold_rises(pixels: list[Pixel]) -> None:
    curve = counted(pixels).curve
    for values in (curve.specificity, curve.decided):
        assert not (np.diff(values) > 1e-12).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_numbers_count_as_the_bytes_they_equal(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.choice(CODES, (2, 40, 50)).astype(np.uint8)
    steps = -np.sort(-rng.integers(0, 255, (3, 40, 50)), axis=0)
    pairs = LabelPairs(predicted, true, DEMO)
    expected = BackoffCounts.of(pairs, list(steps.astype(np.uint8)))
    assert BackoffCounts.of(pairs, list((steps / 254).astype(dtype))) == expected
    mixed: list[NDArray[np.generic]] = [steps[0].astype(np.uint8), *(steps[1:] / 254).astype(dtype)]
    assert BackoffCounts.of(pairs, mixed) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_confidence_that_is_a_threshold_reaches_it(dtype: type[np.floating]) -> None:
    flat = Taxonomy.flat("flat", {1: ("a", (0, 0, 0))})
    one = np.ones(1, np.uint8)
    for index, tau in enumerate(THRESHOLDS):
        counts = BackoffCounts.of(LabelPairs(one, one, flat), [np.array([tau], dtype)])
        np.testing.assert_array_equal(counts.curve.decided, np.arange(101) <= index)


@given(lists)
def test_plain_values_and_back(pixels: list[Pixel]) -> None:
    counts = counted(pixels)
    assert BackoffCounts.from_dict(json.loads(json.dumps(counts.as_dict())), DEMO) == counts
    json.dumps(counts.curve.as_dict(), allow_nan=False)


def test_refusals() -> None:
    pairs = LabelPairs(np.array([1, 2]), np.array([1, 2]), DEMO)
    one = np.zeros(2, np.uint8)
    with pytest.raises(InputError, match="2 confidences; taxonomy 'demo' has 3 levels"):
        BackoffCounts.of(pairs, [one, one])
    with pytest.raises(InputError, match=r"confidence is \(3,\), the labels \(2,\)"):
        BackoffCounts.of(pairs, [one, one, np.zeros(3, np.uint8)])
    flat = Taxonomy.flat("flat", {1: ("a", (0, 0, 0))})
    with pytest.raises(InputError, match="of 3 and of 1 levels"):
        BackoffCounts.empty(DEMO) + BackoffCounts.empty(flat)
    plain = counted([(4, 4, (254, 254, 254))]).as_dict()
    with pytest.raises(InputError, match="are of 3 levels; taxonomy 'flat' has 1"):
        BackoffCounts.from_dict(plain, flat)
    with pytest.raises(InputError, match=r"\(3, 4, 0\); there is no such"):
        BackoffCounts.from_dict(plain | {"rows": [{"full": 3, "level": 4, "right": 0}]}, DEMO)
    with pytest.raises(InputError, match="'rows' is str"):
        BackoffCounts.from_dict(plain | {"rows": "none"}, DEMO)
