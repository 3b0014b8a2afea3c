"""Boundary IoU and boundary F1: against brute force, by hand, and over any cut into blocks."""

from __future__ import annotations

import json
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from rssegment.errors import InputError
from rssegment.evaluation.boundaries import BoundaryCounts, margin_px
from rssegment.grid import Box

COUNTS = (
    "true_band",
    "predicted_band",
    "common_band",
    "true_edge",
    "found_edge",
    "predicted_edge",
    "right_edge",
)
CELLS = st.sampled_from([0.2, 0.3, 0.5, 1.0, 1.7, 10.0])


def whole(
    prediction: NDArray, reference: NDArray, cell: tuple[float, float], tolerance: float, classes: int = 3
) -> BoundaryCounts:
    core = Box.of(reference.shape)
    return BoundaryCounts.of(
        prediction, reference, core, cell, tolerance, level=1, classes=range(1, classes + 1)
    )


def table(counts: BoundaryCounts) -> NDArray:
    return np.array([getattr(counts, name) for name in COUNTS])


@st.composite
def maps(draw: st.DrawFn, side: int = 20) -> tuple[NDArray, NDArray]:
    """A prediction and a reference of patches, similar or not, with or without unlabelled pixels."""
    shape = draw(st.integers(1, side)), draw(st.integers(1, side))
    patch, seed = draw(st.integers(1, 6)), draw(st.integers(0, 2**32 - 1))
    holes, alike = draw(st.sampled_from([0, 0.1, 0.6])), draw(st.booleans())
    rng = np.random.default_rng(seed)

    def patches() -> NDArray:
        coarse = rng.integers(1, 4, (shape[0] // patch + 1, shape[1] // patch + 1))
        labels = np.kron(coarse, np.ones((patch, patch), int))[: shape[0], : shape[1]]
        return np.where(rng.random(shape) < holes, 0, labels).astype(np.uint8)

    reference, other = patches(), patches()
    return (np.where(rng.random(shape) < 0.2, other, reference) if alike else other), reference


def by_pairs(prediction: NDArray, reference: NDArray, cell: tuple[float, float], tolerance: float) -> NDArray:
    """The same counts from the distances of all pairs of pixels, written down from the definitions."""
    prediction = np.where(reference == 0, 0, prediction)
    rows, cols = (axis.reshape(-1) for axis in np.indices(reference.shape))
    squares = ((rows[:, None] - rows) * cell[0]) ** 2 + ((cols[:, None] - cols) * cell[1]) ** 2
    near = squares <= (tolerance * 1.001) ** 2
    beside = np.abs(rows[:, None] - rows) + np.abs(cols[:, None] - cols) == 1
    true, predicted = reference.reshape(-1), prediction.reshape(-1)

    def has(labels: NDArray, related: NDArray) -> NDArray:
        other = (labels[:, None] != labels) & (labels[:, None] > 0) & (labels > 0)
        return (other & related).any(axis=1)

    bands = has(true, near), has(predicted, near)
    edges = has(true, beside), has(predicted, beside)
    found = []
    for code in (1, 2, 3):
        mine, theirs = true == code, predicted == code
        e, f = edges[0] & mine, edges[1] & theirs
        pixels = (bands[0] & mine, bands[1] & theirs, bands[0] & mine & bands[1] & theirs)
        found.append([*(p.sum() for p in pixels), e.sum(), (near[:, f].any(1) & e).sum(), f.sum()])
        found[-1].append((near[:, e].any(1) & f).sum())
    return np.array(found).T


@settings(max_examples=300)
@given(maps(), CELLS, CELLS, st.one_of(st.integers(1, 6), st.floats(1, 9)))
def test_equals_all_pairs(labels: tuple[NDArray, NDArray], dy: float, dx: float, pixels: float) -> None:
    tolerance = pixels * max(dy, dx)
    counts = whole(*labels, (dy, dx), tolerance)
    np.testing.assert_array_equal(table(counts), by_pairs(*labels, (dy, dx), tolerance))


@settings(max_examples=60)
@given(maps(60), CELLS, CELLS, st.floats(1, 40))
def test_equals_distance_transforms(
    labels: tuple[NDArray, NDArray], dy: float, dx: float, pixels: float
) -> None:
    prediction, reference = labels
    cell, tolerance = (dy, dx), pixels * max(dy, dx) * 1.0003  # off the ties, where roots would differ
    counts = whole(prediction, reference, cell, tolerance)
    masked = np.where(reference == 0, 0, prediction)
    for k, code in enumerate((1, 2, 3)):
        bands = []
        for labelled in (reference, masked):
            others = (labelled != code) & (labelled != 0)
            distance = distance_transform_edt(~others, sampling=cell) if others.any() else np.inf
            bands.append((labelled == code) & (distance <= tolerance * 1.001))
        assert counts.true_band[k] == bands[0].sum()
        assert counts.predicted_band[k] == bands[1].sum()
        assert counts.common_band[k] == (bands[0] & bands[1]).sum()


def cuts(length: int) -> st.SearchStrategy[list[int]]:
    return st.sets(st.integers(0, length)).map(lambda inner: sorted({0, length, *inner}))


@settings(max_examples=150)
@given(st.data(), maps(30), CELLS, CELLS, st.floats(1, 6))
def test_blocks_add_up_to_the_whole(
    data: st.DataObject, labels: tuple[NDArray, NDArray], dy: float, dx: float, pixels: float
) -> None:
    prediction, reference = labels
    cell, tolerance = (dy, dx), pixels * max(dy, dx)
    extent, margin = Box.of(reference.shape), margin_px(tolerance, cell)
    rows, cols = (data.draw(cuts(n)) for n in reference.shape)
    parts = []
    for row, stop_row in pairwise(rows):
        for col, stop_col in pairwise(cols):
            core = Box.between(row, col, stop_row, stop_col)
            read = core.pad(margin).clip(extent)
            parts.append(
                BoundaryCounts.of(
                    prediction[read.slices],
                    reference[read.slices],
                    core.relative_to(read),
                    cell,
                    tolerance,
                    level=1,
                    classes=(1, 2, 3),
                )
            )
    total = reduce(add, parts, BoundaryCounts.empty(1, (1, 2, 3), tolerance))
    assert total == whole(prediction, reference, cell, tolerance)


def test_the_margin_is_as_large_as_it_must_be() -> None:
    """The true boundary pixel lies just within the tolerance, and one more column shows that it is one."""
    prediction = np.array([[1, 1, 2, 2, 2, 2, 2, 2]], np.uint8)
    reference = np.array([[1, 1, 1, 1, 2, 2, 2, 2]], np.uint8)

    def right(columns: int) -> int:
        part = np.s_[:, :columns]
        counts = BoundaryCounts.of(
            prediction[part], reference[part], Box(0, 0, 1, 2), (1, 1), 2, level=1, classes=(1, 2)
        )
        return int(counts.right_edge[0])

    assert [right(columns) for columns in (8, 2 + margin_px(2, (1, 1)), 1 + margin_px(2, (1, 1)))] == [
        1,
        1,
        0,
    ]


def halves(shift: int, shape: tuple[int, int] = (4, 20)) -> NDArray:
    labels = np.ones(shape, np.uint8)
    labels[:, shape[1] // 2 + shift :] = 2
    return labels


def test_a_boundary_two_pixels_off_by_hand() -> None:
    # 4 rows; the true boundary lies at column 10, the predicted one at 12; a band of 3 pixels on each side.
    counts = whole(halves(2), halves(0), (1, 1), 3)
    assert counts.true_band.tolist() == [12, 12, 0]  # columns 7-9 and 10-12
    assert counts.predicted_band.tolist() == [12, 12, 0]  # columns 9-11 and 12-14
    assert counts.common_band.tolist() == [4, 4, 0]  # column 9, column 12
    np.testing.assert_allclose(counts.iou, [0.2, 0.2, np.nan])
    np.testing.assert_allclose(counts.f1, [1, 1, np.nan])  # 2 pixels off, 3 tolerated
    assert (counts.mean_iou, counts.mean_f1) == (pytest.approx(0.2), 1.0)
    strict = whole(halves(2), halves(0), (1, 1), 1)
    assert strict.f1[:2].tolist() == [0, 0]
    assert strict.true_edge.tolist() == strict.predicted_edge.tolist() == [4, 4, 0]


def test_precision_and_recall_are_not_exchanged() -> None:
    reference = np.ones((9, 9), np.uint8)
    reference[4, 4] = 2
    prediction = reference.copy()
    prediction[1, 1] = 2  # one invented, the true one found
    counts = whole(prediction, reference, (1, 1), 1)
    assert (counts.precision[1], counts.recall[1]) == (0.5, 1.0)
    assert counts.f1[1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("columns", [1, 3, 5, 10])
@pytest.mark.parametrize("size", [0.1, 0.2, 0.3, 0.7, 30.0])
def test_a_tolerance_of_whole_pixels_reaches_that_many(columns: int, size: float) -> None:
    """3 x 0.2 is more than 0.6 in floats, and 0.2 m of a CRS may be 0.2001 m of ground: neither costs a pixel."""
    for ground in (size, size * 1.0006):
        counts = whole(halves(0, (1, 40)), halves(0, (1, 40)), (ground, ground), size * columns)
        assert counts.true_band[0] == columns


def test_oblong_pixels() -> None:
    reference = np.full((21, 21), 1, np.uint8)
    reference[10, 10] = 2
    counts = whole(reference, reference, (1, 4), 8)  # an ellipse of 8 rows and 2 columns
    inside = ((np.arange(-10, 11)[:, None] * 1.0) ** 2 + (np.arange(-10, 11) * 4.0) ** 2) <= 64
    assert counts.true_band[0] == inside.sum() - 1
    assert counts.iou[:2].tolist() == [1, 1]


def test_neither_no_data_nor_the_edge_is_a_boundary() -> None:
    reference = np.ones((10, 10), np.uint8)
    reference[:, 5:] = 0
    counts = whole(reference, reference, (1, 1), 3)
    assert not table(counts).any()
    assert np.isnan([counts.mean_iou, counts.mean_f1]).all()
    assert np.isnan([counts.iou, counts.f1, counts.precision, counts.recall]).all()


def test_classes_across_a_gap_are_near_each_other_and_not_beside() -> None:
    reference = np.array([[1, 1, 0, 2, 2]], np.uint8)
    counts = whole(reference, reference, (1, 1), 2)
    assert counts.true_band.tolist() == [1, 1, 0]
    assert not counts.true_edge.any()


def test_the_map_is_not_looked_at_where_there_is_no_reference() -> None:
    reference = np.array([[1, 1, 1, 1, 0, 0, 0]], np.uint8)
    prediction = np.array([[1, 1, 1, 1, 2, 2, 3]], np.uint8)
    assert not table(whole(prediction, reference, (1, 1), 3)).any()


def test_a_map_without_data_misses_every_boundary() -> None:
    counts = whole(np.zeros((4, 20), np.uint8), halves(0), (1, 1), 2)
    assert (counts.iou[:2].tolist(), counts.recall[:2].tolist()) == ([0, 0], [0, 0])
    assert np.isnan(counts.precision).all()
    assert counts.f1[:2].tolist() == [0, 0]


def test_a_class_only_one_side_has_scores_zero() -> None:
    prediction = halves(0)
    prediction[0, 0] = 3
    counts = whole(prediction, halves(0), (1, 1), 1)
    assert (counts.iou[2], counts.f1[2], counts.precision[2]) == (0, 0, 0)
    assert np.isnan(counts.recall[2])


def test_codes_of_any_value_and_type() -> None:
    prediction, reference = halves(1), halves(0)
    expected = table(whole(prediction, reference, (1, 1), 2, classes=2))
    codes = np.array([0, 700, 65535])
    for dtype in (np.uint16, np.int32, np.int64):
        counts = BoundaryCounts.of(
            codes[prediction].astype(dtype),
            np.asfortranarray(codes[reference].astype(dtype)),
            Box.of(reference.shape),
            (1, 1),
            2,
            level=3,
            classes=(700, 65535),
        )
        np.testing.assert_array_equal(table(counts), expected)
    other = np.where(reference == 2, 9, reference)  # no code of the level: as if unlabelled
    assert not table(whole(other, other, (1, 1), 2)).any()


def test_an_empty_core_counts_nothing() -> None:
    counts = BoundaryCounts.of(halves(0), halves(0), Box(2, 3, 0, 5), (1, 1), 2, level=1, classes=(1, 2))
    assert counts == BoundaryCounts.empty(1, (1, 2), 2)


@given(maps(), st.floats(1, 5))
@example((halves(0), halves(1)), 2.0)
def test_survives_json(labels: tuple[NDArray, NDArray], tolerance: float) -> None:
    counts = whole(*labels, (1, 1), tolerance)
    assert BoundaryCounts.from_dict(json.loads(json.dumps(counts.as_dict()))) == counts
    assert counts + BoundaryCounts.empty(1, (1, 2, 3), tolerance) == counts


@pytest.mark.parametrize(
    "change",
    [
        {"true_band": [1]},
        {"true_band": [-1, 0, 0]},
        {"true_band": [1.5, 0, 0]},
        {"classes": 3},
        {"level": "top"},
        {"tolerance": "wide"},
        {"tolerance": 0},
        {"right_edge": [[1, 2], [3], 4]},
    ],
)
def test_refuses_what_is_no_counts(change: dict) -> None:
    plain = whole(halves(1), halves(0), (1, 1), 2).as_dict()
    for wrong in (plain | change, {key: plain[key] for key in plain.keys() - change.keys()}, [], None):
        with pytest.raises(InputError):
            BoundaryCounts.from_dict(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        BoundaryCounts.empty(2, (1, 2), 1),
        BoundaryCounts.empty(1, (1, 3), 1),
        BoundaryCounts.empty(1, (1, 2), 2),
    ],
)
def test_only_the_same_things_add_up(other: BoundaryCounts) -> None:
    with pytest.raises(InputError, match="can't be added"):
        BoundaryCounts.empty(1, (1, 2), 1) + other


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf"), 0.1, 5.0, 1e9])
def test_refuses_a_tolerance_without_meaning(tolerance: float) -> None:
    with pytest.raises(InputError, match=r"boundary tolerance is .* m"):
        margin_px(tolerance, (0.2, 10))  # 5 m spans no pixel of 10 m


@pytest.mark.parametrize("cell", [(0, 1), (1, -1), (float("nan"), 1), (float("inf"), 1)])
def test_refuses_pixels_without_size(cell: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="expected sizes above 0"):
        margin_px(3, cell)


def test_refuses_arrays_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="expected one shape"):
        whole(halves(0), halves(0)[:, :5], (1, 1), 2)
    with pytest.raises(InputError, match="does not lie within"):
        BoundaryCounts.of(halves(0), halves(0), Box(0, 0, 5, 20), (1, 1), 2, level=1, classes=(1, 2))
    with pytest.raises(InputError, match="whole numbers"):
        whole(halves(0).astype(float), halves(0), (1, 1), 2)


def test_how_far_a_block_looks() -> None:
    assert margin_px(1, (1, 1)) == 2
    assert margin_px(5, (0.2, 0.5)) == 26  # 25 rows of 0.2 m, and one for the neighbours of the last
    assert margin_px(5, (0.5, 0.2)) == 26


def test_counts_under_other_codes_are_those_of_other_codes() -> None:
    """What a level's counts are at the next, where no class parts there."""
    rng = np.random.default_rng(3)
    predicted, true = rng.integers(0, 4, (2, 30, 40)).astype(np.uint8)
    codes = {1: 30, 2: 10, 3: 20}
    table = np.array([0, 30, 10, 20], np.uint8)
    box, cell = Box(2, 3, 20, 30), (1.0, 2.0)
    one = BoundaryCounts.of(predicted, true, box, cell, 3.0, level=1, classes=[1, 2, 3, 9])
    other = BoundaryCounts.of(table[predicted], table[true], box, cell, 3.0, level=2, classes=[5, 10, 20, 30])
    assert one.renamed(2, [5, 10, 20, 30], codes) == other


def test_classes_end_where_the_map_is_undecided() -> None:
    """Two halves with two columns left open along their border: the border is found, as far as the tolerance goes."""
    true = np.repeat(np.array([[1] * 10 + [2] * 10], np.uint8), 20, axis=0)
    predicted = true.copy()
    predicted[:, 9:11] = 255
    near = BoundaryCounts.of(predicted, true, Box(0, 0, 20, 20), (1, 1), 2, level=1, classes=[1, 2])
    assert near.f1.tolist() == [1, 1]
    assert near.predicted_edge.tolist() == near.true_edge.tolist() == [20, 20]
    predicted[:, 6:14] = 255
    far = BoundaryCounts.of(predicted, true, Box(0, 0, 20, 20), (1, 1), 2, level=1, classes=[1, 2])
    assert far.f1.tolist() == [0, 0]
    predicted[:, 6:14] = 0  # no data says nothing of where a class ends
    bare = BoundaryCounts.of(predicted, true, Box(0, 0, 20, 20), (1, 1), 2, level=1, classes=[1, 2])
    assert bare.predicted_edge.tolist() == [0, 0]
