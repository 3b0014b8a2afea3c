"""Calibration counts: against torchmetrics and brute force, exact in any order, and what is left out."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_calibration_error

from rssegment.errors import InputError
from rssegment.evaluation import Reliability
from rssegment.evaluation.lookup import LabelPairs
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
OPEN = DEMO.undecided
sizes = st.integers(0, 40)
bytes_ = sizes.flatmap(lambda n: hnp.arrays(np.uint8, n))


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1, 5000).astype(np.float32)
    right = rng.random(5000) < confidence**1.5
    found = Reliability.of(confidence, right)
    for norm, value in (("l1", found.ece), ("max", found.mce)):
        expected = binary_calibration_error(
            torch.from_numpy(confidence), torch.from_numpy(right.astype(np.int64)), n_bins=20, norm=norm
        )
        assert value == pytest.approx(expected.item(), abs=2e-6)
    assert found.overconfidence == pytest.approx(confidence.mean() - right.mean(), abs=1e-6)


def test_by_hand() -> None:
    confidence = np.array([0.93, 0.97, 0.96, 0.5, 0.04, 1.0])
    right = np.array([True, True, False, False, False, True])
    found = Reliability.of(confidence, right)
    assert found.pixels.tolist() == [1] + [0] * 9 + [1] + [0] * 7 + [1, 3]
    assert found.right.tolist() == [0] * 18 + [1, 2]
    np.testing.assert_allclose(found.mean_confidence[[0, 10, 18, 19]], [0.04, 0.5, 0.93, 2.93 / 3], atol=1e-6)
    gaps = [0.04, 0.5, 0.07, 2.93 - 2]
    assert found.ece == pytest.approx(sum(gaps) / 6, abs=1e-6)
    assert found.mce == pytest.approx(0.5, abs=1e-6)
    assert found.overconfidence == pytest.approx(4.4 / 6 - 3 / 6, abs=1e-6)
    assert np.isnan(found.accuracy[1])
    assert found.edges[10] == 0.5


@given(bytes_, st.data())
def test_bytes_count_as_their_share_of_254(confidence: NDArray[np.uint8], data: st.DataObject) -> None:
    right = data.draw(hnp.arrays(bool, confidence.shape))
    real = np.where(confidence == 255, np.nan, confidence / 254)
    found = Reliability.of(confidence, right)
    assert found == Reliability.of(real, right)
    assert found == Reliability.of(real.astype(np.float32), right)
    known = confidence != 255
    assert found.total == known.sum()
    assert found.right.sum() == right[known].sum()
    bins = np.minimum(confidence[known].astype(int) * 20 // 254, 19)
    np.testing.assert_array_equal(found.pixels, np.bincount(bins, minlength=20))


@given(
    st.integers(0, 60).flatmap(lambda n: hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32))),
    st.data(),
)
def test_parts_in_any_order_add_up_to_the_whole_exactly(
    confidence: NDArray[np.float32], data: st.DataObject
) -> None:
    right = data.draw(hnp.arrays(bool, confidence.shape))
    part = data.draw(hnp.arrays(np.int64, confidence.shape, elements=st.integers(0, 4)))
    parts = [
        Reliability.of(confidence[part == i], right[part == i]) for i in data.draw(st.permutations(range(5)))
    ]
    assert sum(parts, Reliability.empty()) == Reliability.of(confidence, right)


def claim(true: int, predicted: int, level: int = 0) -> bool | None:
    """What one pixel counts as; None if it is left out."""
    pair = LabelPairs(np.array([predicted]), np.array([true]), DEMO)
    found = [
        Reliability.of_labels(pair, c, level) for c in (np.full(1, 200, np.uint8), np.full(1, 200 / 254))
    ]
    assert found[0] == found[1]
    return bool(found[0].right.sum()) if found[0].total else None


@pytest.mark.parametrize(
    ("true", "predicted", "verdicts"),  # of the class itself, then levels 1, 2, 3
    [
        (4, 4, (True, True, True, True)),
        (4, 5, (False, True, True, False)),
        (4, 3, (False, True, False, False)),
        (4, 21, (True, True, True, True)),  # coarser, and right: at level 3 it claims no more than crop
        (4, 20, (True, True, True, True)),
        (4, 10, (False, False, False, False)),
        (21, 4, (True, True, True, None)),  # a truth that is coarse can't say more
        (20, 4, (True, True, None, None)),
        (20, 7, (False, False, None, None)),
        (8, 8, (True, True, True, True)),  # a leaf at level 1
        (8, 4, (False, False, False, False)),
        (4, 8, (False, False, False, False)),
        (4, OPEN, (None, None, None, None)),
        (4, 0, (None, None, None, None)),
        (0, 4, (None, None, None, None)),
    ],
)
def test_when_a_claim_is_right(true: int, predicted: int, verdicts: tuple[bool | None, ...]) -> None:
    assert tuple(claim(true, predicted, level) for level in range(4)) == verdicts


def test_maps_with_every_type_of_label_and_ignored_values() -> None:
    rng = np.random.default_rng(0)
    reference = rng.choice([0, *CODES, 254], (30, 20)).astype(np.uint8)
    prediction = rng.choice([0, *CODES, OPEN], (30, 20)).astype(np.uint8)
    confidence = rng.integers(0, 256, (30, 20), dtype=np.uint8)
    expected = Reliability.of_labels(LabelPairs(prediction, reference, DEMO, (254,)), confidence, 2)
    assert 0 < expected.total < 600
    wide = LabelPairs(prediction.astype(np.int32), reference.astype(np.uint16), DEMO, (254,))
    assert Reliability.of_labels(wide, confidence, 2) == expected
    turned = LabelPairs(prediction.T, reference.T, DEMO, (254,))
    assert Reliability.of_labels(turned, confidence.T, 2) == expected


def test_nothing_is_nan(recwarn: pytest.WarningsRecorder) -> None:
    nothing = Reliability.empty()
    assert all(math.isnan(value) for value in (nothing.ece, nothing.mce, nothing.overconfidence))
    assert np.isnan(nothing.accuracy).all()
    assert Reliability.of(np.array([255], np.uint8), np.array([True])) == nothing
    assert not recwarn.list
    assert json.loads(json.dumps(nothing.summary(), allow_nan=False))["ece"] is None


@given(bytes_)
def test_plain_values_and_back(confidence: NDArray[np.uint8]) -> None:
    found = Reliability.of(confidence, confidence % 3 == 0)
    assert Reliability.from_dict(json.loads(json.dumps(found.as_dict()))) == found


def test_refusals() -> None:
    right = np.array([True, False])
    with pytest.raises(InputError, match=r"confidence is \(1,\), what is right \(2,\)"):
        Reliability.of(np.zeros(1), right)
    with pytest.raises(InputError, match=r"has the value 1\.5; expected 0 to 1"):
        Reliability.of(np.array([0.5, 1.5]), right)
    with pytest.raises(InputError, match="has the value -inf"):
        Reliability.of(np.array([0.5, -np.inf]), right)
    with pytest.raises(InputError, match="values of type int64"):
        Reliability.of(np.array([0, 1]), right)
    pair = LabelPairs(np.array([1, 2]), np.array([1, 2]), DEMO)
    with pytest.raises(InputError, match=r"confidence is \(3,\), the labels \(2,\)"):
        Reliability.of_labels(pair, np.zeros(3, np.uint8))
    with pytest.raises(InputError, match="in 20 and in 10 bins"):
        Reliability.empty() + Reliability.empty(10)
    plain = Reliability.of(np.array([0.5, 0.6]), right).as_dict()
    with pytest.raises(InputError, match="'pixels' is 19 values; expected a list of 20"):
        Reliability.from_dict(plain | {"pixels": [0] * 19})
    with pytest.raises(InputError, match="more pixels are right, or surer"):
        Reliability.from_dict(plain | {"right": [1] * 20})
    with pytest.raises(InputError, match="no 'right'"):
        Reliability.from_dict({key: plain[key] for key in ("pixels", "confidence")})
