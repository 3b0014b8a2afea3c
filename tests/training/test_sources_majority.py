"""Labels of finer pixels on coarser ones."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.training.sources.majority import Majority, upright


@dataclass(frozen=True)
class Given:
    """Labels that are an array."""

    codes: NDArray[np.uint16]
    files: tuple[str, ...] = ()

    def read(self, box: Box) -> NDArray[np.uint16]:
        assert box.clip(Box.of(self.codes.shape)) == box, "read beyond the labels"
        return self.codes[box.slices]


def by_hand(
    codes: NDArray[Any], factor: tuple[float, float], offset: tuple[float, float], row: int, col: int
) -> int:
    """The class of one cell, in exact arithmetic, edges on 1/65536 of a pixel."""
    spans = []
    for axis, place in enumerate((row, col)):
        edges = (
            Fraction(round((place + k) * factor[axis] * 65536 + offset[axis] * 65536), 65536) for k in (0, 1)
        )
        spans.append([min(max(edge, Fraction(0)), Fraction(codes.shape[axis])) for edge in edges])
    (top, bottom), (left, right) = spans
    areas: dict[int, Fraction] = {}
    for r in range(floor(top), ceil(bottom)):
        for c in range(floor(left), ceil(right)):
            area = (min(bottom, r + 1) - max(top, r)) * (min(right, c + 1) - max(left, c))
            areas[int(codes[r, c])] = areas.get(int(codes[r, c]), Fraction(0)) + area
    areas = {code: area for code, area in areas.items() if area > 0}
    return min(areas, key=lambda code: (-areas[code], code), default=0)


factors = st.tuples(*[st.sampled_from([1.0, 1.25, 1.5, 2.0, 2.0012, 2.5, 3.0, 4.7])] * 2)
offsets = st.tuples(*[st.sampled_from([0.0, 0.5, -0.5, 3.0, -7.25, 0.123])] * 2)


@given(factors, offsets, st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_each_cell_is_the_class_of_the_largest_area(
    factor: tuple[float, float], offset: tuple[float, float], seed: int, classes: int
) -> None:
    codes = np.random.default_rng(seed).integers(0, classes, (13, 11)).astype(np.uint16)
    shape = (8, 7)
    found = Majority(Given(codes), (13, 11), factor, offset).read(Box.of(shape))
    for row in range(shape[0]):
        for col in range(shape[1]):
            assert found[row, col] == by_hand(codes, factor, offset, row, col)


@given(factors, offsets, st.integers(0, 2**32 - 1), st.data())
def test_a_cell_is_the_same_in_any_box(
    factor: tuple[float, float], offset: tuple[float, float], seed: int, data: st.DataObject
) -> None:
    codes = np.random.default_rng(seed).integers(0, 3, (31, 40)).astype(np.uint16)
    labels = Majority(Given(codes), (31, 40), factor, offset)
    whole = labels.read(Box.of((12, 15)))
    row, col = data.draw(st.integers(0, 11)), data.draw(st.integers(0, 14))
    box = Box(row, col, data.draw(st.integers(1, 12 - row)), data.draw(st.integers(1, 15 - col)))
    assert np.array_equal(labels.read(box), whole[box.slices])


def test_ties_go_to_the_lower_code() -> None:
    codes = np.array([[9, 9, 2, 2], [2, 2, 9, 9]], np.uint16)
    assert Majority(Given(codes), (2, 4), (2.0, 2.0)).read(Box.of((1, 2))).tolist() == [[2, 2]]
    assert Majority(Given(codes), (2, 4), (2.0, 4.0)).read(Box.of((1, 1))).tolist() == [[2]]


def test_pixels_without_label_vote_and_those_beyond_the_edge_do_not() -> None:
    codes = np.array([[0, 0, 5], [0, 5, 5]], np.uint16)
    assert Majority(Given(codes), (2, 3), (2.0, 2.0)).read(Box.of((2, 2))).tolist() == [[0, 5], [0, 0]]


def test_a_large_box_is_read_in_strips_with_the_same_result(monkeypatch: Any) -> None:
    codes = np.random.default_rng(3).integers(0, 4, (64, 64)).astype(np.uint16)
    labels = Majority(Given(codes), (64, 64), (2.3, 2.3))
    whole = labels.read(Box.of((28, 28)))
    monkeypatch.setattr("rssegment.training.sources.majority._READ_AT_ONCE", 500)
    assert np.array_equal(labels.read(Box.of((28, 28))), whole)


def test_upright_grids_have_rows_and_columns_that_run_the_same_way() -> None:
    assert upright(Affine(2, 0, 5, 0, 2, 7), (1000, 1000))
    assert not upright(Affine(2, 0, 5, 0, -2, 7), (1000, 1000))
    assert not upright(Affine(2, 0.001, 5, 0, 2, 7), (1000, 1000))
