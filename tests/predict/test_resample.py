from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.predict import Strip, model_core, resample_strips
from tests.predict.conftest import gather

factors = st.floats(0.5, 5.0)


def model_shape(shape: tuple[int, int], factor: tuple[float, float]) -> tuple[int, int]:
    rows, cols = (max(1, int(np.ceil(n / f - 1e-6))) for n, f in zip(shape, factor, strict=True))
    return rows, cols


def cut(
    probabilities: NDArray[np.float32], valid: NDArray[np.bool_], box: Box, heights: list[int]
) -> Iterator[Strip]:
    row, i = box.row, 0
    while row < box.stop_row:
        part = Box(row, box.col, min(heights[i % len(heights)], box.stop_row - row), box.width)
        yield Strip(part, probabilities[:, *part.slices].copy(), valid[part.slices].copy())
        row, i = part.stop_row, i + 1


def everything(box: Box) -> NDArray[np.bool_]:
    return np.ones(box.shape, bool)


def resampled(
    probabilities: Any,
    valid: Any,
    core: Box,
    factor: tuple[float, float],
    heights: list[int],
    read: Any = everything,
) -> Strip:
    box = model_core(core, factor, valid.shape)
    return gather(resample_strips(cut(probabilities, valid, box, heights), core, factor, read), core)


def random_field(shape: tuple[int, int], leaves: int = 3, seed: int = 0) -> NDArray[np.float32]:
    raw = np.random.default_rng(seed).random((leaves, *shape)) + 0.01
    return (raw / raw.sum(0)).astype(np.float32)


@given(st.data())
@settings(max_examples=150)
def test_a_pixel_does_not_depend_on_block_or_strips(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    factor = data.draw(st.tuples(factors, factors))
    small = model_shape(shape, factor)
    field = random_field(small, seed=data.draw(st.integers(0, 5)))
    valid = np.random.default_rng(data.draw(st.integers(0, 5))).random(small) > data.draw(
        st.sampled_from([0, 0.1, 0.7])
    )
    field[:, ~valid] *= np.float32(data.draw(st.sampled_from([0.0, 0.3, 1.0])))
    whole = resampled(field, valid, Box.of(shape), factor, [small[0]])
    row, col = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    core = Box.between(
        row, col, data.draw(st.integers(row + 1, shape[0])), data.draw(st.integers(col + 1, shape[1]))
    )
    part = resampled(
        field, valid, core, factor, data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    )
    assert part.probabilities.tobytes() == whole.probabilities[:, *core.slices].tobytes()
    np.testing.assert_array_equal(part.valid, whole.valid[core.slices])
    np.testing.assert_allclose(whole.probabilities.sum(0)[whole.valid], 1, atol=1e-6)


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(factors, factors))
def test_a_constant_stays_and_a_slope_is_exact_inside(
    shape: tuple[int, int], factor: tuple[float, float]
) -> None:
    small = model_shape(shape, factor)
    valid = np.ones(small, bool)
    constant = np.full((2, *small), [[[0.25]], [[0.75]]], np.float32)
    found = resampled(constant, valid, Box.of(shape), factor, [3])
    np.testing.assert_allclose(
        found.probabilities, np.broadcast_to([[[0.25]], [[0.75]]], (2, *shape)), rtol=2e-7
    )
    slope = np.broadcast_to(np.arange(small[0], dtype=np.float32)[:, None] + 0.5, small)[None].copy()
    place = np.clip((np.arange(shape[0]) + 0.5) / factor[0], 0.5, small[0] - 0.5)
    found = resampled(slope, valid, Box.of(shape), factor, [2])
    np.testing.assert_allclose(found.probabilities[0], np.broadcast_to(place[:, None], shape), rtol=1e-5)


def test_factor_one_changes_nothing() -> None:
    field = random_field((20, 30))
    found = resampled(field, np.ones((20, 30), bool), Box(3, 4, 10, 20), (1.0, 1.0), [4])
    np.testing.assert_array_equal(found.probabilities, field[:, 3:13, 4:24])


def test_twice_as_fine_by_hand() -> None:
    field = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    found = resampled(field, np.ones((1, 2), bool), Box(0, 0, 2, 4), (2.0, 2.0), [1])
    np.testing.assert_allclose(found.probabilities[0], [[1, 0.75, 0.25, 0]] * 2)


def test_invalid_model_pixels_have_no_weight_but_leave_no_hole() -> None:
    field = np.array(
        [[[1.0, 0.0, 0.4, 0.0]], [[0.0, 1.0, 0.1, 0.0]]], np.float32
    )  # 3rd: half computed, 4th: not
    valid = np.array([[True, False, False, False]])
    found = resampled(field, valid, Box(0, 0, 2, 8), (2.0, 2.0), [1])
    np.testing.assert_allclose(found.probabilities[0, 0, :3], 1)  # the valid neighbour's alone
    # touches no valid one: what was made of filled-in values, shared out again
    np.testing.assert_allclose(found.probabilities[:, 0, 3], np.array([0.1, 0.775]) / 0.875, rtol=1e-6)
    np.testing.assert_allclose(found.probabilities[:, 0, 5], [0.8, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(found.valid[0], [True] * 7 + [False])


def test_validity_is_that_of_the_output_grid() -> None:
    asked = []

    def read(box: Box) -> NDArray[np.bool_]:
        asked.append(box)
        return (np.add.outer(np.arange(box.row, box.stop_row), np.arange(box.col, box.stop_col)) % 3) > 0

    field = random_field((400, 5))
    core = Box(7, 2, 700, 6)
    found = resampled(field, np.ones((400, 5), bool), core, (2.0, 2.0), [64], read)
    np.testing.assert_array_equal(found.valid, read(core))
    assert max(box.height for box in asked[:-1]) <= 128


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.tuples(factors, factors), st.data())
def test_model_core_is_inside_and_enough(
    shape: tuple[int, int], factor: tuple[float, float], data: st.DataObject
) -> None:
    small = model_shape(shape, factor)
    row, col = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    core = Box.between(
        row, col, data.draw(st.integers(row + 1, shape[0])), data.draw(st.integers(col + 1, shape[1]))
    )
    box = model_core(core, factor, small)
    assert box.size
    assert box.clip(Box.of(small)) == box
    for start, stop, low, high, f in (
        (core.row, core.stop_row, box.row, box.stop_row, factor[0]),
        (core.col, core.stop_col, box.col, box.stop_col, factor[1]),
    ):
        assert low - 0.5 <= max(0, (start + 0.5) / f - 0.5)
        assert high - 0.5 <= (stop - 0.5) / f - 0.5 + 1.5


def test_steps_are_pixel_exact() -> None:
    """A sharp edge between model pixels lies at the same ground place on the output grid."""
    field = np.zeros((2, 10, 10), np.float32)
    field[0, :, :5], field[1, :, 5:] = 1, 1
    found = resampled(field, np.ones((10, 10), bool), Box(0, 0, 30, 30), (3.0, 3.0), [10])
    labels = found.probabilities.argmax(0)
    assert (labels[:, :15] == 0).all()
    assert (labels[:, 15:] == 1).all()


def test_no_strips_is_no_output() -> None:
    with pytest.raises(IndexError):
        list(resample_strips([], Box(0, 0, 2, 2), (2.0, 2.0), everything))
