"""Areas: the example of Olofsson et al. 2014, simulated draws, and what the estimates leave out."""

from __future__ import annotations

import json
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation import Confusion, MapAreas
from rssegment.evaluation.areas import StratifiedEstimate, estimate_areas
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
OPEN = DEMO.undecided
FOUR = Taxonomy.flat(
    "four",
    {
        1: ("deforestation", (0, 0, 0)),
        2: ("gain", (1, 1, 1)),
        3: ("forest", (2, 2, 2)),
        4: ("other", (3, 3, 3)),
    },
)
# Mapped class down, reference across; pixels of 30 m.
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HA = 1e4


def areas_of(tree: Taxonomy, pixels: list[int], m2: int = 1) -> MapAreas:
    return MapAreas(tree, np.array(pixels), tuple(n * m2 * 10**9 for n in pixels))


def estimated(sample: NDArray[np.int64], mapped: list[int], m2: int = 1) -> StratifiedEstimate:
    """Of one flat class for each row; two more columns of the confusion and two more areas may be given."""
    rows = sample.shape[1]
    tree = FOUR if rows == 4 else Taxonomy.flat("n", {i + 1: (f"c{i}", (0, 0, i)) for i in range(rows)})
    full = np.zeros((rows, rows + 2), np.int64)
    full[:, : len(sample)] = sample.T
    pixels = [*mapped, *[0] * (rows + 2 - len(mapped))]
    return estimate_areas(Confusion(tree, full), areas_of(tree, pixels, m2), tree.nodes)


def test_the_example_of_the_paper() -> None:
    found = estimated(SAMPLE, MAPPED.tolist(), 900)
    assert found.accuracy == pytest.approx(0.947, abs=5e-4)
    assert found.half_width == pytest.approx(0.018, abs=5e-4)
    areas = [(row.estimated_m2 / HA, row.half_width_m2 / HA) for row in found.classes]
    np.testing.assert_allclose(
        areas, [(21_158, 6_158), (11_686, 3_756), (285_770, 15_510), (581_386, 16_282)], atol=1
    )
    users = [(row.users_accuracy, row.users_half_width) for row in found.classes]
    np.testing.assert_allclose(users, [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)], atol=5e-3)
    producers = [row.producers_accuracy for row in found.classes]
    np.testing.assert_allclose(producers, [0.75, 0.85, 0.93, 0.96], atol=5e-3)
    assert found.classes[0].producers_half_width == pytest.approx(0.21, abs=5e-3)
    assert found.mapped_m2 == 9e9
    assert (found.open_m2, found.unsampled_m2) == (0, 0)
    assert [row.mapped_m2 for row in found.classes] == [n * 900 for n in MAPPED]


def test_two_classes_by_hand() -> None:
    # Weights 0.25 and 0.75; shares 8/10, 2/10 and 1/20, 19/20.
    found = estimated(np.array([[8, 2], [1, 19]]), [100, 300])
    assert found.accuracy == pytest.approx(0.25 * 0.8 + 0.75 * 0.95)
    first = found.classes[0]
    there = 0.25 * 0.8 + 0.75 * 0.05
    assert first.estimated_m2 == pytest.approx(400 * there)
    variances = 0.25**2 * 0.8 * 0.2 / 9, 0.75**2 * 0.05 * 0.95 / 19
    assert found.half_width == pytest.approx(1.96 * np.sqrt(sum(variances)), rel=1e-4)
    assert first.half_width_m2 == pytest.approx(400 * 1.96 * np.sqrt(sum(variances)), rel=1e-4)
    assert first.users_half_width == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / 9), rel=1e-4)
    producers = 0.25 * 0.8 / there
    assert first.producers_accuracy == pytest.approx(producers)
    variance = ((1 - producers) ** 2 * variances[0] + producers**2 * variances[1]) / there**2
    assert first.producers_half_width == pytest.approx(1.96 * np.sqrt(variance), rel=1e-4)


def test_intervals_cover_what_simulated_draws_give() -> None:
    """Draws of a known landscape: errors spread as the half widths say, and nine in ten lie within them."""
    rng = np.random.default_rng(0)
    shares = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.02, 0.08, 0.9]])
    weights = np.array([0.2, 0.3, 0.5])
    truth = weights @ shares
    producers = weights * shares.diagonal() / truth
    hits, errors, widths = [], [], []
    for _ in range(400):
        sample = np.stack([rng.multinomial(n, row) for n, row in zip((80, 90, 150), shares, strict=True)])
        found = estimated(sample, [200_000, 300_000, 500_000])
        rows = np.array([astuple(row)[1:] for row in found.classes], float)
        values, half = rows[:, [1, 3, 5]] / [1e6, 1, 1], rows[:, [2, 4, 6]] / [1e6, 1, 1]
        expected = np.stack([truth, shares.diagonal(), producers], axis=1)
        hits.append(np.abs(values - expected) <= half)
        errors.append(values - expected)
        widths.append(half)
    cover = np.mean(hits, axis=0)
    assert ((cover > 0.9) & (cover < 0.99)).all()
    np.testing.assert_allclose(np.std(errors, axis=0) * 1.96, np.mean(widths, axis=0), rtol=0.15)


@given(
    hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 9)),
    st.lists(st.integers(0, 99), min_size=3, max_size=3),
)
def test_areas_add_up_to_what_was_sampled(sample: NDArray[np.int64], mapped: list[int]) -> None:
    found = estimated(sample, mapped)
    rows = found.classes
    sampled = sum(m for m, drawn in zip(mapped, sample.sum(axis=1), strict=True) if drawn)
    assert found.unsampled_m2 == sum(mapped) - sampled
    if not sampled:
        assert np.isnan([found.accuracy, found.half_width, rows[0].estimated_m2]).all()
        return
    assert sum(row.estimated_m2 for row in rows) == pytest.approx(sampled)
    assert 0 <= found.accuracy <= 1 + 1e-12
    for row in rows:
        assert np.isnan(row.producers_accuracy) == (row.estimated_m2 == 0)
    json.dumps(found.as_dict(), allow_nan=False)


def test_reading_all_of_the_map_gives_plain_counts() -> None:
    """Where the reference covers all, weights are the counts: nothing is adjusted."""
    rng = np.random.default_rng(0)
    true, predicted = rng.choice([1, 2, 3, 4], (2, 50, 60)).astype(np.uint8)
    counted = Confusion.of(predicted, true, FOUR)
    found = estimate_areas(counted, MapAreas.of(predicted, FOUR, 4.0), FOUR.nodes)
    assert found.accuracy == pytest.approx((true == predicted).mean())
    for row in found.classes:
        assert row.estimated_m2 == pytest.approx(4 * np.count_nonzero(true == row.node.code))
        assert row.mapped_m2 == 4 * np.count_nonzero(predicted == row.node.code)


def test_one_draw_has_no_variance(recwarn: pytest.WarningsRecorder) -> None:
    found = estimated(np.array([[1, 0], [2, 8]]), [10, 90])
    assert found.accuracy == pytest.approx(0.1 + 0.9 * 0.8)
    assert np.isnan(
        [found.half_width, found.classes[0].half_width_m2, found.classes[0].users_half_width]
    ).all()
    assert found.classes[1].users_half_width > 0
    assert not recwarn.list


def test_what_the_map_leaves_open_and_where_it_has_no_data() -> None:
    """Undecided and coarser pixels are a stratum that is right nowhere; no data is no part of the map."""
    reference = np.array([1] * 10 + [8] * 10 + [1] * 8, np.uint8)
    prediction = np.array([1] * 10 + [8] * 8 + [10, OPEN] + [OPEN] * 4 + [0] * 4, np.uint8)
    counted = Confusion.of(prediction, reference, DEMO)
    areas = MapAreas.of(prediction, DEMO, 1.0)
    cut = counted.common_cut()
    found = estimate_areas(counted, areas, cut)
    assert found.open_m2 == 6
    assert found.mapped_m2 == 24
    assert found.accuracy == pytest.approx(18 / 24)
    rows = {row.node.name: row for row in found.classes}
    assert rows["building"].estimated_m2 == pytest.approx(10 + 4)
    assert rows["bare"].estimated_m2 == pytest.approx(8 + 2)
    assert rows["bare"].producers_accuracy == pytest.approx(0.8)
    assert np.isnan(rows["road"].producers_accuracy)


labels = hnp.arrays(
    np.uint8,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.sampled_from([0, *CODES, OPEN]),
)


@given(labels, st.data())
def test_parts_add_up_exactly_whatever_the_pixel_size(labels: NDArray[np.uint8], data: st.DataObject) -> None:
    sizes = st.floats(1e-3, 1e6)
    rows = np.array(data.draw(st.lists(sizes, min_size=len(labels), max_size=len(labels))))
    whole = MapAreas.of(labels, DEMO, rows)
    cut, across = data.draw(st.integers(0, len(labels))), data.draw(st.integers(0, labels.shape[1]))
    parts = [
        MapAreas.of(labels[part, cols], DEMO, rows[part])
        for part in (slice(cut, None), slice(cut))
        for cols in (slice(across), slice(across, None))
    ]
    assert sum(parts, MapAreas.empty(DEMO)) == whole
    assert whole.pixels.sum() == labels.size
    assert whole.m2.sum() == pytest.approx(rows.sum() * labels.shape[1])
    one_size = MapAreas.of(labels, DEMO, float(rows[0]))
    assert one_size == MapAreas.of(labels, DEMO, np.full(len(labels), rows[0]))
    assert MapAreas.from_dict(json.loads(json.dumps(whole.as_dict())), DEMO) == whole


@given(labels, st.data())
def test_areas_that_change_along_rows_add_up_too(labels: NDArray[np.uint8], data: st.DataObject) -> None:
    """Each pixel alone, by hand, with knots before, within and beyond the labels."""
    knots = np.array(sorted({-3, *data.draw(st.lists(st.integers(-2, 9), max_size=3))}))
    sizes = data.draw(hnp.arrays(np.float64, (len(labels), knots.size), elements=st.floats(0, 1e14)))
    whole = MapAreas.of(labels, DEMO, sizes, knots)
    order = [*CODES, OPEN, 0]
    expected = [0] * len(order)
    for (row, col), code in np.ndenumerate(labels):
        k = int(knots.searchsorted(col, "right")) - 1
        size = float(sizes[row, k])
        if k + 1 < knots.size:
            size += float(col - knots[k]) * ((sizes[row, k + 1] - size) / (knots[k + 1] - knots[k]))
        expected[order.index(code)] += round(size * 1e9)
    assert whole.area == tuple(expected)
    cut = data.draw(st.integers(0, labels.shape[1]))
    parts = (
        MapAreas.of(labels[:, :cut], DEMO, sizes, knots),
        MapAreas.of(labels[:, cut:].astype(np.int64), DEMO, sizes, knots - cut),
    )
    assert parts[0] + parts[1] == whole


def test_a_continent_in_small_pixels_stays_exact() -> None:
    huge = areas_of(DEMO, [10**14, *[0] * (len(CODES) + 1)])
    assert (huge + huge).area[0] == 2 * 10**23
    assert MapAreas.from_dict(json.loads(json.dumps(huge.as_dict())), DEMO) == huge


def test_refusals() -> None:
    labels = np.array([[1, 2], [8, 0]], np.uint8)
    with pytest.raises(InputError, match=r"map has values.*99 \(1 px\)"):
        MapAreas.of(np.array([[99]]), DEMO, 1.0)
    for area in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="not a positive number of square metres"):
            MapAreas.of(labels, DEMO, area)
    with pytest.raises(InputError, match=r"areas are \(3,\), the map \(2, 2\)"):
        MapAreas.of(labels, DEMO, np.ones(3))
    with pytest.raises(InputError, match=r"areas are \(3, 1\), the map \(2, 2\)"):
        MapAreas.of(labels, DEMO, np.ones((3, 1)), np.array([0]))
    for knots in ([1, 5], [0, 0], [3, 0]):
        with pytest.raises(InputError, match="don't rise from 0"):
            MapAreas.of(labels, DEMO, np.ones((2, 2)), np.array(knots))
    with pytest.raises(InputError, match="not a positive number"):
        MapAreas.of(labels, DEMO, np.full((2, 1), -1.0), np.array([0]))
    with pytest.raises(InputError, match="'demo' and 'four' can't be added"):
        MapAreas.empty(DEMO) + MapAreas.empty(FOUR)
    with pytest.raises(InputError, match="areas of 99"):
        MapAreas.from_dict({"areas": [[99, 1, 1]]}, DEMO)
    with pytest.raises(InputError, match=r"'area' is 1\.5"):
        MapAreas.from_dict({"areas": [[1, 1, 1.5]]}, DEMO)
