"""Matching of polygons: by hand, against all pairs, and whatever the order that polygons come in."""

from __future__ import annotations

import json
import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely import MultiPolygon, Point, Polygon, box

from rssegment.errors import InputError
from rssegment.evaluation.objects import ObjectCounts, Objects, match

COUNTS = ("true", "predicted", "matched")


def objects(*geometries: shapely.Geometry | None, code: int = 1) -> Objects:
    return Objects(list(geometries), [code] * len(geometries))


def numbers(counts: ObjectCounts) -> list[list[int]]:
    """[true, predicted, matched] of each class."""
    return np.array([getattr(counts, name) for name in COUNTS]).T.tolist()


def found(predicted: Objects, true: Objects, **options: object) -> ObjectCounts:
    return match(predicted, true, **({"classes": [1]} | options))  # type: ignore[arg-type]


def test_three_polygons_by_hand() -> None:
    true = objects(box(0, 0, 4, 4), box(10, 0, 14, 4), box(20, 0, 24, 4))
    predicted = objects(box(0, 0, 4, 3), box(12, 0, 16, 4))  # IoU 3/4; 1/3
    counts = found(predicted, true)
    assert numbers(counts) == [[3, 2, 1]]
    (row,) = counts.rows()
    assert (row.code, row.precision, row.recall, row.mean_iou) == (1, 0.5, 1 / 3, 0.75)
    assert row.f1 == pytest.approx(0.4)
    assert row.panoptic_quality == pytest.approx(0.75 / (1 + 1 / 2 + 2 / 2))
    assert numbers(found(predicted, true, threshold=0.3)) == [[3, 2, 2]]
    assert numbers(found(predicted, true, threshold=0.75)) == [[3, 2, 1]]
    assert numbers(found(predicted, true, threshold=0.76)) == [[3, 2, 0]]


def test_only_polygons_of_one_class_match() -> None:
    square = box(0, 0, 4, 4)
    counts = found(objects(square, code=2), objects(square, code=1), classes=[1, 2, 3])
    assert numbers(counts) == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    one, two, three = counts.rows()
    assert (one.recall, one.f1, one.panoptic_quality) == (0, 0, 0)
    assert (two.precision, two.f1) == (0, 0)
    assert all(map(math.isnan, (one.precision, one.mean_iou, two.recall, three.f1, three.panoptic_quality)))
    assert counts.total.true == counts.total.predicted == 1
    assert numbers(found(objects(square, code=2), objects(square, code=1), classes=[1])) == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("predicted", "true"), [((), ()), ((box(0, 0, 1, 1),), ()), ((), (box(0, 0, 1, 1),))]
)
def test_empty_sides(predicted: tuple, true: tuple) -> None:
    counts = found(objects(*predicted), objects(*true))
    assert numbers(counts) == [[len(true), len(predicted), 0]]
    (row,) = counts.rows()
    assert math.isnan(row.precision) == (not predicted)
    assert math.isnan(row.recall) == (not true)
    assert math.isnan(row.f1) == (not predicted and not true)


def test_halves_of_one_polygon_at_exactly_one_half() -> None:
    whole, left, right = box(0, 0, 4, 4), box(0, 0, 2, 4), box(2, 0, 4, 4)
    for halves in permutations([left, right]):
        assert numbers(found(objects(*halves), objects(whole))) == [[1, 2, 1]]
        assert numbers(found(objects(whole), objects(*halves))) == [[2, 1, 1]]
    assert numbers(found(objects(left), objects(whole), threshold=0.5 + 1e-9)) == [[1, 1, 0]]


def test_a_polygon_drawn_twice_is_found_once() -> None:
    square = box(0, 0, 10, 10)
    counts = found(objects(box(0, 0, 10, 8), square, square, box(1, 0, 10, 10)), objects(square))
    assert numbers(counts) == [[1, 4, 1]]
    assert counts.rows()[0].mean_iou == 1  # the best of them


def test_beyond_the_labelled_area_nothing_is_wrong() -> None:
    area = box(0, 0, 100, 100)
    true = objects(box(10, 10, 20, 20), box(95, 50, 103, 60))  # the second one is cut by the area's edge
    predicted = objects(box(10, 10, 20, 20), box(96, 50, 104, 60), box(200, 0, 210, 10), box(97, 0, 150, 10))
    assert numbers(found(predicted, true, within=area)) == [[2, 2, 2]]
    assert numbers(found(predicted, true)) == [[2, 4, 2]]
    assert numbers(found(predicted, true, within=Polygon())) == [[0, 0, 0]]


boxes = st.lists(
    st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 6)] * 2, st.integers(1, 2)), max_size=12
)


def as_objects(rows: list[tuple[int, ...]]) -> Objects:
    return Objects([box(x, y, x + w, y + h) for x, y, w, h, _ in rows], [row[-1] for row in rows])


def all_pairs(predicted: Objects, true: Objects, threshold: float) -> list[tuple[float, int, int]]:
    pairs = []
    for i, (p, c) in enumerate(zip(*predicted, strict=True)):
        for j, (t, d) in enumerate(zip(*true, strict=True)):
            overlap = p.intersection(t).area / p.union(t).area
            if c == d and overlap >= threshold - 1e-9:
                pairs.append((-round(overlap, 9), i, j))
    return sorted(pairs)


@settings(max_examples=200)
@given(boxes, boxes, st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_equals_all_pairs_best_first(predicted: list, true: list, threshold: float) -> None:
    """Where several overlap equally, which of them is taken may differ, so only distinct overlaps are compared."""
    mine, theirs = as_objects(predicted), as_objects(true)
    pairs = all_pairs(mine, theirs, threshold)
    taken: set[tuple[str, int]] = set()
    overlap = 0.0
    for value, i, j in pairs:
        if not {("p", i), ("t", j)} & taken:
            taken |= {("p", i), ("t", j)}
            overlap -= value
    counts = found(mine, theirs, classes=[1, 2], threshold=threshold)
    assert (counts.true.sum(), counts.predicted.sum()) == (len(true), len(predicted))
    if len({value for value, *_ in pairs}) == len(pairs):
        assert counts.matched.sum() * 2 == len(taken)
        assert counts.overlap.sum() / 2**32 == pytest.approx(overlap, abs=1e-7)


@settings(max_examples=100)
@given(st.data(), boxes, boxes)
def test_the_order_in_the_files_does_not_matter(data: st.DataObject, predicted: list, true: list) -> None:
    expected = found(as_objects(predicted), as_objects(true), classes=[1, 2], threshold=0.3)
    shuffled = (as_objects(data.draw(st.permutations(rows))) for rows in (predicted, true))
    assert found(*shuffled, classes=[1, 2], threshold=0.3) == expected


@settings(max_examples=100)
@given(st.data())
def test_at_one_half_polygons_that_do_not_overlap_have_one_partner(data: st.DataObject) -> None:
    """The law that makes 0.5 the usual threshold: one-to-one assignment takes nothing away."""

    def cover() -> Objects:
        cuts = [0, *sorted(data.draw(st.sets(st.integers(1, 29), max_size=12))), 30]
        strips = [box(a, 0, b, 1) for a, b in pairwise(cuts)]
        return objects(*strips)

    predicted, true = cover(), cover()
    expected = len(all_pairs(predicted, true, 0.5 + 1e-6))
    assert found(predicted, true, threshold=0.5 + 1e-6).matched.sum() == expected


@settings(max_examples=100)
@given(boxes, boxes, st.integers(1, 17), st.integers(1, 17))
def test_adjoining_areas_add_up(predicted: list, true: list, x: int, y: int) -> None:
    mine, theirs = as_objects(predicted), as_objects(true)
    x, y = x + 0.123, y + 0.123  # no polygon's point lies on the line between areas
    quarters = [box(0, 0, x, y), box(x, 0, 30, y), box(0, y, x, 30), box(x, y, 30, 30)]
    total = ObjectCounts.empty([1, 2])
    for quarter in quarters:
        total += found(mine, theirs, classes=[1, 2], within=quarter)
    assert total == found(mine, theirs, classes=[1, 2])


def test_what_is_not_a_sound_polygon() -> None:
    bow = Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])  # crosses itself: two triangles
    triangles = MultiPolygon([Polygon([(0, 0), (2, 2), (0, 4)]), Polygon([(4, 0), (2, 2), (4, 4)])])
    nothing = (None, Polygon(), Point(1, 1), Polygon([(0, 0), (1, 1), (2, 2)]))
    counts = match(objects(bow, *nothing), objects(triangles), classes=[1], scene="north")
    assert numbers(counts) == [[1, 1, 1]]
    assert counts.rows()[0].mean_iou == 1
    first, second = counts.remarks
    assert first == "north: 2 of 5 polygons of the map were invalid and made valid"
    assert second == "north: 4 of 5 polygons of the map were left out: no polygon with an area"


def test_collections_heights_and_infinite_coordinates() -> None:
    collection = shapely.GeometryCollection([box(0, 0, 2, 2), Point(9, 9), MultiPolygon([box(4, 0, 6, 2)])])
    high = shapely.force_3d(MultiPolygon([box(0, 0, 2, 2), box(4, 0, 6, 2)]), 7)
    endless = Polygon([(0, 0), (math.inf, 0), (0, 1)])
    counts = found(objects(collection, endless), objects(high))
    assert numbers(counts) == [[1, 1, 1]]
    assert len(counts.remarks) == 1


def test_holes_and_multipolygons_by_area() -> None:
    ring = Polygon(box(0, 0, 10, 10).exterior, [box(1, 1, 9, 9).exterior])  # area 36
    assert numbers(found(objects(box(0, 0, 10, 10)), objects(ring))) == [[1, 1, 0]]
    assert numbers(found(objects(ring.reverse()), objects(ring))) == [[1, 1, 1]]


def test_ten_thousand_boxes_moved_a_little() -> None:
    rng = np.random.default_rng(0)
    corners = np.stack(np.meshgrid(np.arange(100), np.arange(100)), -1).reshape(-1, 2) * 10.0
    moves = rng.uniform(0, 3, corners.shape)

    def squares(corner: NDArray) -> NDArray:
        return shapely.box(*corner.T, *(corner + 8).T)

    codes = np.ones(len(corners), int)
    counts = match((squares(corners + moves), codes), (squares(corners), codes), classes=[1])
    common = (8 - moves).prod(axis=1)
    overlaps = common / (128 - common)
    assert counts.matched[0] == (overlaps >= 0.5).sum()
    assert counts.rows()[0].mean_iou == pytest.approx(overlaps[overlaps >= 0.5].mean())


def test_sums_of_scenes() -> None:
    north = match(objects(box(0, 0, 1, 1)), objects(box(0, 0, 1, 1)), classes=[1], scene="north")
    south = match(objects(None, code=4), objects(box(0, 0, 1, 1), code=4), classes=[4, 2], scene="south")
    both = north + south
    assert both.classes == (1, 2, 4)
    assert numbers(both) == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert both.remarks == south.remarks
    assert (both + both).remarks == south.remarks
    assert both == south + north
    assert ObjectCounts.from_dict(json.loads(json.dumps(both.as_dict()))) == both
    with pytest.raises(InputError, match="can't be added"):
        both + ObjectCounts.empty([1], threshold=0.6)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": [2, 1, 4]},
        {"true": [1, 2]},
        {"overlap": [0.5, 1, 1]},
        {"threshold": 0},
        {"threshold": "half"},
        {"remarks": "none"},
    ],
)
def test_refuses_what_is_no_counts(change: dict) -> None:
    plain = ObjectCounts.empty([1, 2, 4]).as_dict()
    for wrong in (plain | change, {key: plain[key] for key in plain.keys() - change.keys()}, []):
        with pytest.raises(InputError):
            ObjectCounts.from_dict(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [0, -1, 1.01, math.nan])
def test_refuses_thresholds_without_meaning(threshold: float) -> None:
    with pytest.raises(InputError, match="expected more than 0, up to 1"):
        found(objects(), objects(), threshold=threshold)


def test_refuses_what_are_no_polygons_with_codes() -> None:
    square = box(0, 0, 1, 1)
    with pytest.raises(InputError, match="2 polygons of the map have codes of shape"):
        found(Objects([square, square], [1]), objects())
    with pytest.raises(InputError, match="of type float64"):
        found(Objects([square], [1.5]), objects())
    with pytest.raises(InputError, match="hold a str"):
        found(objects(), Objects(["POLYGON EMPTY"], [1]))
