"""Scores: a hand-worked table, brute force from labels, scikit-learn and torchmetrics, absent classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_jaccard_index

from rssegment.evaluation import Confusion, scores
from rssegment.taxonomy import Taxonomy

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


NAMES = {i: (f"c{i}", (0, 0, i)) for i in range(1, 7)}


@pytest.mark.parametrize("seed", range(4))
def test_equals_scikit_learn_and_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.arange(1, 7)
    true = rng.choice(codes, 3000, p=rng.dirichlet(np.ones(6)))
    predicted = np.where(rng.random(3000) < 0.6, true, rng.choice(codes, 3000))
    shape = (50, 60)
    counts = (
        Confusion.of(predicted.reshape(shape), true.reshape(shape), Taxonomy.flat("six", NAMES))
        .at_level(1)
        .counts
    )
    np.testing.assert_array_equal(counts[:, :-1], metrics.confusion_matrix(true, predicted, labels=codes))
    present = np.isin(codes, [*true, *predicted])
    each = {"labels": codes[present], "average": None, "zero_division": np.nan}
    np.testing.assert_allclose(
        scores.iou(counts)[present],
        metrics.jaccard_score(true, predicted, labels=codes[present], average=None),
    )
    np.testing.assert_allclose(scores.f1(counts)[present], metrics.f1_score(true, predicted, **each))
    np.testing.assert_allclose(scores.recall(counts)[present], metrics.recall_score(true, predicted, **each))
    np.testing.assert_allclose(
        scores.precision(counts)[present], metrics.precision_score(true, predicted, **each)
    )
    assert scores.pixel_accuracy(counts) == pytest.approx(metrics.accuracy_score(true, predicted))
    assert scores.kappa(counts) == pytest.approx(metrics.cohen_kappa_score(true, predicted))
    assert scores.mean_f1(counts) == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    assert scores.frequency_weighted_iou(counts) == pytest.approx(
        metrics.jaccard_score(true, predicted, average="weighted")
    )
    assert scores.mean_accuracy(counts) == pytest.approx(metrics.balanced_accuracy_score(true, predicted))
    iou = multiclass_jaccard_index(
        torch.from_numpy(predicted - 1), torch.from_numpy(true - 1), num_classes=6, average="macro"
    )
    assert scores.mean_iou(counts) == pytest.approx(iou.item(), abs=1e-6)
