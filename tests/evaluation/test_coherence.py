"""Coherence of the label rasters of levels: by hand, additive, never lenient."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.errors import InputError
from rssegment.evaluation import Coherence
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
OPEN = DEMO.undecided


def test_by_hand() -> None:
    labels = np.array([[4, 4, 21, 8, OPEN, 0, 0, 1]], np.uint8)
    first = np.array([[20, 10, 20, 8, OPEN, 0, 20, 10]], np.uint8)
    second = np.array([[21, 21, 21, 8, OPEN, 0, 0, 2]], np.uint8)
    assert Coherence.of({1: first, 2: second}, labels, DEMO) == Coherence(7, 3)
    assert Coherence.of({2: second}, labels, DEMO) == Coherence(6, 1)
    assert Coherence.of({}, labels, DEMO) == Coherence(6, 0)


@given(st.lists(st.sampled_from([0, *CODES, OPEN]), max_size=20), st.integers(0, 20))
def test_ancestors_are_coherent_and_parts_add_up(codes: list[int], cut: int) -> None:
    labels = np.array(codes, np.uint8)
    tree = DEMO.with_undecided()
    levels = {k: tree.ancestor_lookup(k)[labels] for k in (1, 2, 3)}
    whole = Coherence.of(levels, labels, DEMO)
    assert whole == Coherence(np.count_nonzero(labels), 0)
    parts = [
        Coherence.of({k: v[part] for k, v in levels.items()}, labels[part], DEMO)
        for part in (slice(cut), slice(cut, None))
    ]
    assert parts[0] + parts[1] == whole


def test_rate_and_plain_values() -> None:
    assert Coherence(8, 2).rate == 0.25
    assert math.isnan(Coherence().rate)
    assert Coherence.from_dict(Coherence(8, 2).as_dict()) == Coherence(8, 2)
    with pytest.raises(InputError, match="9 of 8 pixels"):
        Coherence.from_dict({"pixels": 8, "incoherent": 9})


def test_refusals() -> None:
    labels = np.array([1, 2], np.uint8)
    with pytest.raises(InputError, match=r"of level 1 is \(3,\), the labels \(2,\)"):
        Coherence.of({1: np.zeros(3, np.uint8)}, labels, DEMO)
    with pytest.raises(InputError, match=r"label raster of level 1 has values.*99 \(1 px\)"):
        Coherence.of({1: np.array([10, 99], np.uint8)}, labels, DEMO)
    with pytest.raises(InputError, match=r"label raster has values.*99"):
        Coherence.of({1: labels}, np.array([1, 99]), DEMO)
    with pytest.raises(InputError, match="levels 1 to 3; got 4"):
        Coherence.of({4: labels}, labels, DEMO)
