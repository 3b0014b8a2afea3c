"""Scores say where back-off is right; thresholds keep their promise on simulated ground."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.decode import Backoff, decide, marginals
from rssegment.decode._student import t_quantile
from rssegment.decode.conformal import TAUS, MissCounts, scores
from rssegment.errors import InputError, ModelError, SettingsError
from rssegment.taxonomy import Taxonomy
from tests.decode.trees import Floats, flat, grown, scored, softmax, walked

Truth = NDArray[np.uint16]


def truth_for(tree: Taxonomy, shape: tuple[int, ...], seed: int) -> Truth:
    """Codes of nodes at any level, or 0."""
    codes = [0, *(node.code for node in tree.nodes)]
    return np.random.default_rng(seed).choice(np.array(codes, np.uint16), shape)


def right(tree: Taxonomy, decided: int, true: int) -> bool:
    if decided == tree.undecided:
        return True
    above_truth = {node.code for node in (*tree.ancestors(true), tree.node(true))}
    return decided in above_truth or true in {node.code for node in tree.ancestors(decided)}


# Scores


@given(scored(), st.floats(0, 1, exclude_min=True), st.integers(0, 99))
def test_backoff_is_right_where_tau_is_above_the_score(
    drawn: tuple[Taxonomy, Floats], tau: float, seed: int
) -> None:
    tree, probabilities = drawn
    truth = truth_for(tree, probabilities.shape[1:], seed)
    found = scores(probabilities, tree, truth)
    assert found.dtype == np.float32
    exact = np.unique(found[(found > 0) & (found <= 1)])[:3].tolist()
    for threshold in (tau, *exact):
        codes = decide(probabilities, tree, Backoff(threshold)).codes
        for pixel in np.ndindex(truth.shape):
            if truth[pixel] == 0:
                assert np.isnan(found[pixel])
            elif np.float32(threshold) > 0:
                assert (np.float32(threshold) > found[pixel]) == right(
                    tree, int(codes[pixel]), int(truth[pixel])
                )


@given(scored(), st.integers(0, 99))
def test_scores_are_the_first_misses_on_the_way_down(drawn: tuple[Taxonomy, Floats], seed: int) -> None:
    tree, probabilities = drawn
    truth = truth_for(tree, probabilities.shape[1:], seed)
    nodes = marginals(probabilities, tree)
    found = scores(probabilities, tree, truth)
    for pixel in zip(*np.nonzero(truth), strict=True):
        misses = [n for n in walked(tree, nodes[:, *pixel], 0) if not right(tree, n.code, int(truth[pixel]))]
        assert found[pixel] == (nodes[tree.nodes.index(misses[0]), *pixel] if misses else 0)


def test_scores_do_not_depend_on_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = grown(30, 4)
    probabilities, truth = softmax(tree, (20, 17)), truth_for(tree, (20, 17), 0)
    whole = scores(probabilities, tree, truth)
    monkeypatch.setattr("rssegment.decode.conformal._PIXELS", 40)
    np.testing.assert_array_equal(scores(probabilities, tree, truth), whole)
    np.testing.assert_array_equal(scores(probabilities[:, 3:, 5:], tree, truth[3:, 5:]), whole[3:, 5:])
    for part in (np.s_[:0], np.s_[:, :0]):
        assert scores(probabilities[:, *np.index_exp[part]], tree, truth[part]).shape == truth[part].shape


def test_scores_of_what_does_not_fit() -> None:
    tree = flat(3)
    probabilities, truth = softmax(tree, (4, 5)), np.full((4, 5), 10, np.uint16)
    with pytest.raises(InputError, match=r"shape \(5, 4\); expected \(4, 5\)"):
        scores(probabilities, tree, truth.T)
    for code in (7, 255, -3, 70000):
        strange = truth.astype(np.int32)
        strange[2, 2] = code
        with pytest.raises(InputError, match=f"codes that taxonomy 'flat' lacks: {code}"):
            scores(probabilities, tree, strange)
    probabilities[1, 2, 3] = np.nan
    with pytest.raises(ModelError, match="NaN for 1 labelled"):
        scores(probabilities, tree, truth)
    truth[2, 3] = 0
    assert np.isnan(scores(probabilities, tree, truth)[2, 3])


# Counts

score_arrays = st.lists(
    st.sampled_from([math.nan, 0.0, 0.3, 0.5, 0.9995, 1.0, 1.0000001]) | st.floats(0, 1, width=32),
    max_size=30,
).map(lambda values: np.array(values, np.float32))


@given(st.lists(st.tuples(score_arrays, st.sampled_from("abc")), max_size=6), st.randoms())
def test_counts_add_up_however_they_are_cut(parts: list[tuple[Floats, str]], random: object) -> None:
    counts = [MissCounts.of(values, name, 1000) for values, name in parts]
    total = sum(counts, MissCounts.empty(1000))
    random.shuffle(counts)  # type: ignore[attr-defined]
    assert MissCounts.joined([MissCounts.empty(1000), *counts]) == total
    assert MissCounts.from_dict(json.loads(json.dumps(total.as_dict()))) == total
    for k, name in enumerate(total.blocks):
        values = np.concatenate([values for values, block in parts if block == name])
        known = values[~np.isnan(values)]
        assert total.area[k] == known.size > 0
        for j in range(0, len(TAUS), 50):
            assert total.misses[k, j] == np.count_nonzero(known >= np.float32(TAUS[j]))
    assert total.only("ab").blocks == tuple(name for name in total.blocks if name in "ab")


def test_counts_that_are_none() -> None:
    with pytest.raises(SettingsError, match="expected 1 or more"):
        MissCounts.empty(0)
    with pytest.raises(InputError, match="block 'a' has 3 labelled pixels; expected at most 2"):
        MissCounts.of(np.zeros(3, np.float32), "a", 2)
    good = MissCounts.of(np.zeros(3, np.float32), "a", 5).as_dict()
    for bad in (
        {},
        [],
        good | {"steps": 7},
        good | {"blocks": {"a": [[5000], [1]]}},
        good | {"blocks": {"a": 3}},
    ):
        with pytest.raises(InputError, match="no counts of misses"):
            MissCounts.from_dict(bad)  # type: ignore[arg-type]


# Thresholds


def ground(blocks: int, seed: int, pixels: int = 50) -> MissCounts:
    """Blocks that differ in size and in how sure their mistakes are."""
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(blocks):
        labelled = rng.integers(5, pixels, endpoint=True)
        wrong = rng.random(labelled) < rng.beta(1.0, 4.0)  # mistakes of a block go together
        sure = rng.beta(2, 2, labelled).astype(np.float32)
        parts.append(MissCounts.of(np.where(wrong, sure, np.float32(0)), f"{k:05}", pixels))
    return MissCounts.joined(parts)


@given(st.integers(0, 50), st.floats(0.06, 0.9), st.floats(0.06, 0.9), st.sampled_from(["area", "block"]))
def test_a_smaller_share_of_errors_needs_a_higher_threshold(
    seed: int, one: float, other: float, weight: str
) -> None:
    counts = ground(40, seed)
    low, high = sorted((one, other))
    assert counts.threshold(low, weight) >= counts.threshold(high, weight)  # type: ignore[arg-type]
    assert (np.diff(counts.misses, axis=1) <= 0).all()


def test_thresholds_by_hand() -> None:
    """Nine whole blocks of ten pixels; one pixel of each is wrong up to 0.6, in one block two more up to 0.8."""
    parts = [MissCounts.of(np.array([0.6] + [0] * 9, np.float32), f"{k}", 10) for k in range(8)]
    parts.append(MissCounts.of(np.array([0.6, 0.8, 0.8] + [0] * 7, np.float32), "8", 10))
    counts = MissCounts.joined(parts)
    for weight in ("area", "block"):  # blocks are whole, so both are (misses + 10) / 100
        found = counts.thresholds([0.1, 0.11, 0.12, 0.2, 0.21], weight)  # type: ignore[arg-type]
        assert found == {0.1: 0.801, 0.11: 0.801, 0.12: 0.601, 0.2: 0.601, 0.21: 0.001}


@pytest.mark.parametrize(
    ("alpha", "needed"), [(0.5, 1), (0.2, 4), (0.1, 9), (0.05, 19), (0.01, 99), (0.03, 33)]
)
def test_how_many_blocks_a_small_share_needs(alpha: float, needed: int) -> None:
    def perfect(blocks: int) -> MissCounts:
        parts = [MissCounts.of(np.zeros(4, np.float32), f"{k}", 4) for k in range(blocks)]
        return MissCounts.joined([MissCounts.empty(4), *parts])

    for weight in ("area", "block"):
        assert perfect(needed).threshold(alpha, weight) == 0.001  # type: ignore[arg-type]
        with pytest.raises(InputError, match=f"needs (the area of )?{needed}[ ;]"):
            perfect(needed - 1).threshold(alpha, weight)  # type: ignore[arg-type]


def test_thresholds_that_can_not_be() -> None:
    certain = MissCounts.joined([MissCounts.of(np.ones(5, np.float32), f"{k}", 5) for k in range(60)])
    for weight in ("area", "block"):
        with pytest.raises(InputError, match="even if only what is certain is decided, it is 1"):
            certain.threshold(0.2, weight)  # type: ignore[arg-type]
    for alpha in (0.0, 1.0, -0.1, 2.0, math.nan):
        with pytest.raises(SettingsError, match="expected a share of errors between 0 and 1"):
            certain.threshold(alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
@pytest.mark.parametrize("weight", ["area", "block"])
def test_the_promise_holds_on_average_over_calibrations(alpha: float, weight: str) -> None:
    pool = ground(3000, 1)
    rng = np.random.default_rng(2)
    errors, pixels, shares = [], [], []
    for _ in range(300):
        chosen = np.zeros(len(pool), bool)
        chosen[rng.choice(len(pool), 60, replace=False)] = True
        calibration = MissCounts(
            tuple(name for name, taken in zip(pool.blocks, chosen, strict=True) if taken),
            pool.counts[chosen],
            pool.capacity,
        )
        at = round(calibration.threshold(alpha, weight) * 1000)  # type: ignore[arg-type]
        wrong, labelled = pool.misses[~chosen, at], pool.area[~chosen]
        errors.append(wrong.sum())
        pixels.append(labelled.sum())
        shares.append((wrong / labelled).mean())
    risk = sum(errors) / sum(pixels) if weight == "area" else np.mean(shares)
    assert alpha - 2.5 / 61 < risk <= alpha  # kept, and not by deciding nothing


def test_large_pixels_count_as_much_as_the_small_ones_that_fill_them() -> None:
    """Ground seen with pixels of 4 units, and the same ground with four times as many of 1."""
    rng = np.random.default_rng(0)
    coarse, fine = [], []
    for k in range(30):
        values = np.where(rng.random(25) < 0.2, rng.random(25), 0).astype(np.float32)
        coarse.append(MissCounts.of(values, f"{k}", 100, weight=4))
        fine.append(MissCounts.of(np.repeat(values, 4), f"{k}", 100))
    assert MissCounts.joined(coarse) == MissCounts.joined(fine)
    assert MissCounts.joined([*coarse[:15], *fine[15:]]) == MissCounts.joined(fine)
    for weight in (0, -1, 1.5):
        with pytest.raises(SettingsError, match="whole number"):
            MissCounts.of(np.zeros(3, np.float32), "a", 100, weight)  # type: ignore[arg-type]


# Coverage


def test_coverage_by_hand() -> None:
    counts = MissCounts.joined(
        [
            MissCounts.of(np.array([0.9, 0, 0, 0], np.float32), "a", 10),
            MissCounts.of(np.zeros(6, np.float32), "b", 10),
            MissCounts.of(np.array([0.9, 0.2, 0, 0, 0, 0, 0, 0, 0, 0], np.float32), "c", 10),
        ]
    )
    share, half = counts.coverage(0.5)
    assert share == pytest.approx(0.9)  # 2 of 20 are wrong
    residuals = np.array([1 - 0.4, -0.6, 1 - 1.0])
    deviation = math.sqrt((residuals**2).sum() * 3 / 2) / 20
    assert half == pytest.approx(scipy.stats.t.ppf(0.975, 2) * deviation)
    assert counts.coverage(0.5)[0] == counts.coverage(0.5004)[0]
    assert counts.coverage(1.0)[0] == 1
    assert counts.only("a").coverage(0.5) == (0.75, 1.0)


def test_coverage_of_nothing() -> None:
    with pytest.raises(InputError, match="no labelled pixels"):
        MissCounts.empty(5).coverage(0.5)
    for tau in (-0.1, 1.1, math.nan):
        with pytest.raises(SettingsError, match="expected a probability"):
            ground(2, 0).coverage(tau)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    pool = ground(4000, 3)
    truth, _ = pool.coverage(0.4)
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        rows = rng.choice(len(pool), 60, replace=False)
        share, half = MissCounts(
            tuple(pool.blocks[k] for k in rows), pool.counts[rows], pool.capacity
        ).coverage(0.4)
        held += abs(share - truth) <= half
    assert 0.90 < held / 400 < 0.98


@given(st.integers(1, 2000), st.sampled_from([0.9, 0.95, 0.975, 0.995]))
def test_quantiles_of_student(freedom: int, probability: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(
        scipy.stats.t.ppf(probability, freedom), rel=1e-7
    )
