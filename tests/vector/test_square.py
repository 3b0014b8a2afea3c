"""Squared outlines have right angles where buildings have them, keep their area, and meet nothing."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from shapely.affinity import rotate, scale, translate

from rssegment.errors import InputError, SettingsError
from rssegment.grid import Box
from rssegment.vector import Simplification, trace_block
from rssegment.vector import _square_kernels as kernels
from rssegment.vector import _square_near as near
from rssegment.vector import _square_runs as runs
from rssegment.vector import _square_stations as stations
from rssegment.vector.simplify import Obstacles, simplify_chains
from rssegment.vector.square import square_rings

SCALE = 16
NONE = np.empty((0, 4), np.int32)
VW, AS_IT_IS = Simplification(1.0), Simplification(0.0)


@dataclass(frozen=True)
class Outlines:
    """Closed chains of one class, and the segments of all others."""

    vertices: NDArray[np.int32]
    offsets: NDArray[np.int64]
    others: NDArray[np.int32]
    scale: int = SCALE

    @classmethod
    def of(cls, labels: NDArray, how: Simplification = VW, code: int = 2, scale: int = SCALE) -> Outlines:
        trace = trace_block(labels, Box.of(labels.shape))
        closed = trace.ends[:, 0] < 0
        lines = []
        for k, (start, _, end, _) in enumerate(trace.ends):
            inner = trace.vertices[trace.offsets[k] : trace.offsets[k + 1]]
            lines.append(inner if closed[k] else np.array([trace.nodes[start], *inner, trace.nodes[end]]))
        vertices, offsets = packed(lines)
        obstacles = Obstacles(Box.of(labels.shape).pad(1))
        obstacles.add(vertices)
        made = simplify_chains(vertices, offsets, closed, obstacles, how)
        lines = [made.vertices[a:b] * (scale // how.scale) for a, b in pairwise(made.offsets)]
        codes = np.append(trace.code, 0)[trace.sides]
        wanted = closed & (codes == code).any(axis=1)
        others = [NONE]
        for k in np.flatnonzero(~wanted):
            line = np.vstack([lines[k], lines[k][:1]]) if closed[k] else lines[k]
            others.append(np.hstack([line[:-1], line[1:]]))
        return cls(*packed([lines[k] for k in np.flatnonzero(wanted)]), np.concatenate(others), scale)

    def squared(self, limit: float, exact: Outlines | None = None) -> tuple[NDArray, NDArray, NDArray]:
        given = None if exact is None else (exact.vertices, exact.offsets)
        return square_rings(self.vertices, self.offsets, self.others, self.scale, limit, given)


def packed(lines: list[NDArray]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lines], dtype=np.int64)])
    return np.concatenate([np.empty((0, 2), np.int32), *lines]).astype(np.int32), offsets.astype(np.int64)


def polygons(vertices: NDArray, offsets: NDArray, scale: int = SCALE) -> NDArray[np.object_]:
    """In px."""
    rings = [vertices[a:b] / scale for a, b in itertools.pairwise(offsets)]
    return np.array([shapely.Polygon(ring) for ring in rings], np.object_)


def painted(shapes: list[shapely.Polygon]) -> NDArray[np.uint16]:
    """A raster of class 1 with class 2 where a pixel's centre lies in a shape of (row, col)."""
    bottom, right = shapely.total_bounds(shapes)[2:]
    rows, cols = np.mgrid[: int(bottom) + 8, : int(right) + 8] + 0.5
    inside = np.any([shapely.contains_xy(each, rows, cols) for each in shapes], axis=0)
    return np.where(inside, 2, 1).astype(np.uint16)


def building(kind: str, a: float, b: float, angle: float, shift: tuple[float, float]) -> shapely.Polygon:
    corners = {
        "rectangle": [(0, 0), (0, b), (a, b), (a, 0)],
        "L": [(0, 0), (0, b), (a / 2, b), (a / 2, b / 2), (a, b / 2), (a, 0)],
        "T": [(0, 0), (0, b), (a / 2, b), (a / 2, 2 * b / 3), (a, 2 * b / 3), (a, b / 3), (a / 2, b / 3), (a / 2, 0)],
        "U": [(0, 0), (0, b), (a, b), (a, 2 * b / 3), (a / 2, 2 * b / 3), (a / 2, b / 3), (a, b / 3), (a, 0)],
    }[kind]  # fmt: skip
    shape = rotate(shapely.Polygon(corners), angle, origin="centroid")
    top, left = shape.bounds[:2]
    return translate(shape, 8 - top + shift[0], 8 - left + shift[1])


def corner_error(made: shapely.Polygon, truth: shapely.Polygon) -> float:
    """Largest distance of a corner of one from the nearest of the other, px."""
    a, b = (np.array(each.exterior.coords)[:-1] for each in (made, truth))
    assert len(a) == len(b)
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


def skew(polygon: shapely.Polygon) -> float:
    """Largest distance, px, by which the far end of an edge is off the perpendicular of the edge before it."""
    v = np.array(polygon.exterior.coords)[:-1]
    edges = np.roll(v, -1, axis=0) - v
    lengths = np.linalg.norm(edges, axis=1)
    cosines = np.abs((edges * np.roll(edges, 1, axis=0)).sum(axis=1)) / lengths / np.roll(lengths, 1)
    return float((cosines * np.minimum(lengths, np.roll(lengths, 1))).max())


SIZES = [
    ("rectangle", 6, 6), ("rectangle", 10, 6), ("rectangle", 20, 13), ("rectangle", 60, 25), ("rectangle", 200, 140),
    ("L", 14, 14), ("L", 40, 30), ("L", 150, 200), ("T", 24, 24), ("T", 70, 80), ("U", 30, 36), ("U", 120, 90),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "a", "b"), SIZES)
def test_buildings_at_any_angle(kind: str, a: int, b: int) -> None:
    rng = np.random.default_rng(a + b)
    angles = [0, 1, 7, 13, 22.5, 30, 38, 45, 52, 61, 70, 83, 88.5]
    squared, errors = 0, []
    for angle in angles:
        truth = building(kind, a, b, angle, tuple(rng.random(2)))
        labels = painted([truth])
        exact = Outlines.of(labels, AS_IT_IS)
        vertices, offsets, changed = Outlines.of(labels).squared(1.5, exact)
        assert offsets.size == 2, "the building hangs together"
        if changed[0]:
            (made,) = polygons(vertices, offsets)
            squared += 1
            errors.append(corner_error(made, truth))
            assert skew(made) < 2 / SCALE
            assert made.area == pytest.approx(polygons(exact.vertices, exact.offsets)[0].area, rel=0.005)
    assert squared >= len(angles) - (min(a, b) < 8)
    assert np.median(errors) < (0.5 if min(a, b) < 12 else 0.35)
    assert max(errors) < (0.95 if min(a, b) < 25 else 0.75)


@pytest.mark.parametrize("how", [VW, Simplification(1.0, "dp"), AS_IT_IS])
def test_buildings_of_which_only_the_simplified_outline_is_known(how: Simplification) -> None:
    rng = np.random.default_rng(5)
    shapes = [
        building(kind, 40, 32, angle, tuple(rng.random(2))) for kind in "LTU" for angle in (0, 17, 33, 71)
    ]
    squared, errors = 0, []
    for truth in shapes:
        vertices, offsets, changed = Outlines.of(painted([truth]), how).squared(1.5)
        (made,) = polygons(vertices, offsets)
        if changed[0] and len(made.exterior.coords) == len(truth.exterior.coords):
            squared += 1
            errors.append(corner_error(made, truth))
    assert squared >= len(shapes) - 1
    assert np.median(errors) < 0.7


def test_on_the_rasters_axes_walls_are_exactly_so() -> None:
    labels = np.ones((60, 70), np.uint16)
    labels[10:40, 12:50] = 2
    labels[20:22, 50] = labels[10, 30:34] = 3 - labels[10, 30]  # a step out, and one in
    vertices, _, changed = Outlines.of(labels, AS_IT_IS).squared(1.5)
    assert changed.all()
    assert len(vertices) == 4
    assert all((edge == 0).sum() == 1 for edge in np.roll(vertices, -1, axis=0) - vertices)
    assert tuple(vertices[0]) == min(map(tuple, vertices)), "from the topmost, then leftmost corner"


@pytest.mark.parametrize("angle", [0, 20, 64])
def test_a_cut_corner_stays_cut(angle: float) -> None:
    truth = shapely.Polygon([(0, 0), (0, 60), (40, 60), (60, 40), (60, 0)])
    truth = translate(rotate(truth, angle, origin="centroid"), 30.3, 30.6)
    labels = painted([truth])
    made, offsets, changed = Outlines.of(labels).squared(1.5, Outlines.of(labels, AS_IT_IS))
    assert changed.all()
    assert corner_error(polygons(made, offsets)[0], truth) < 0.95


def test_holes_are_squared_as_well() -> None:
    outer, inner = building("rectangle", 80, 60, 25, (0, 0)), building("rectangle", 30, 20, 25, (0, 0))
    middle = np.array(outer.centroid.coords[0]) - inner.centroid.coords[0]
    inner = translate(inner, *middle)
    labels = painted([outer])
    rows, cols = np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5
    labels[shapely.contains_xy(inner, rows, cols)] = 1
    vertices, offsets, changed = Outlines.of(labels).squared(1.5, Outlines.of(labels, AS_IT_IS))
    assert changed.all()
    assert np.diff(offsets).tolist() == [4, 4]
    turns = [shapely.LinearRing(vertices[a:b]).is_ccw for a, b in itertools.pairwise(offsets)]
    given = Outlines.of(labels)
    before = [shapely.LinearRing(given.vertices[a:b]).is_ccw for a, b in pairwise(given.offsets)]
    assert turns == before


@pytest.mark.parametrize("radius", [4, 5, 6.5, 8, 11, 16, 25, 60])
@pytest.mark.parametrize("limit", [1, 1.5, 2])
def test_round_shapes_stay(radius: float, limit: float) -> None:
    rng = np.random.default_rng(3)
    for stretch in (1, 1.4):
        shape = translate(
            scale(shapely.Point(0, 0).buffer(radius, 64), stretch, 1), 100 + rng.random(), 100 + rng.random()
        )
        shape = rotate(shape, 31)
        labels = painted([shape])[20:, 20:]
        given = Outlines.of(labels)
        vertices, offsets, changed = given.squared(limit, Outlines.of(labels, AS_IT_IS))
        assert not changed.any()
        assert np.array_equal(vertices, given.vertices)
        assert np.array_equal(offsets, given.offsets)


def _same_ring(a: NDArray, b: NDArray) -> bool:
    """Whether two rings are the same but for their first vertex and direction."""
    if len(a) != len(b):
        return False
    return any(np.array_equal(np.roll(way, k, axis=0), b) for way in (a, a[::-1]) for k in range(len(a)))


def _buildings(seed: int, count: int) -> list[shapely.Polygon]:
    rng = np.random.default_rng(seed)
    shapes = []
    for k in range(count):
        kind = rng.choice(["rectangle", "L", "T", "U"])
        shape = building(str(kind), *rng.uniform(18, 36, 2), rng.uniform(0, 90), tuple(rng.random(2)))
        shapes.append(translate(shape, 60 * (k // 4), 60 * (k % 4)))
    return shapes


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.sampled_from([1.0, 1.5, 2.5]))
def test_the_order_the_first_vertex_and_the_direction_do_not_matter(
    seed: int, way: int, limit: float
) -> None:
    given = Outlines.of(painted(_buildings(seed, 8)))
    expected, expected_offsets, expected_changed = given.squared(limit)
    rng = np.random.default_rng(way)
    order = rng.permutation(given.offsets.size - 1)
    rings, back = [], []
    for k in order:
        ring = np.roll(given.vertices[given.offsets[k] : given.offsets[k + 1]], rng.integers(100), axis=0)
        back.append(bool(rng.integers(2)))
        rings.append(ring[::-1] if back[-1] else ring)
    shift = rng.integers(-1000, 1000, 2)
    vertices, offsets = packed([ring + SCALE * shift for ring in rings])
    others = given.others[rng.permutation(len(given.others))] + SCALE * np.tile(shift, 2)
    made, made_offsets, changed = square_rings(vertices, offsets, others, SCALE, limit)
    assert np.array_equal(changed, expected_changed[order])
    for at, k in enumerate(order):
        ring = made[made_offsets[at] : made_offsets[at + 1]] - SCALE * shift
        known = expected[expected_offsets[k] : expected_offsets[k + 1]]
        if not changed[at]:
            assert np.array_equal(ring, rings[at])
        else:
            assert np.array_equal(ring, np.roll(known[::-1], 1, axis=0) if back[at] else known)


BOX = np.array([[0, 0], [0, 320], [161, 323], [160, 3]], np.int32)  # 20 x 10 px, and not quite right


def _squares_beside(segment: list[int], limit: float = 1.0) -> bool:
    _, _, changed = square_rings(BOX, np.array([0, 4]), np.array([segment], np.int32), SCALE, limit)
    return bool(changed[0])


def test_what_stays_must_be_farther_than_the_ring_moves() -> None:
    assert _squares_beside([190, 0, 190, 320])
    assert not _squares_beside([163, 0, 163, 320])
    assert not _squares_beside([-50, 100, 300, 100]), "a line across"
    assert not _squares_beside([80, 321, 80, 322]), "a line inside"
    assert _squares_beside([80, 160, 80, 162]), "a line inside, far from the walls"
    assert not _squares_beside([-3, -100, -3, 100_000_000]), "a line past the grid"
    assert not _squares_beside([-100_000, -100_003, 100_000, 99_997]), "a slanting one"
    assert _squares_beside([100_000, -100_000, -100_000, 100_000 - 200])


def test_both_stay_where_two_rings_could_meet() -> None:
    far, close = BOX + np.array([0, 323 + 2 * SCALE]), BOX + np.array([0, 325])
    for other, expected in ((far, True), (close, False)):
        vertices, offsets = packed([BOX, other])
        made, _, changed = square_rings(vertices, offsets, NONE, SCALE, 1.0)
        assert changed.tolist() == [expected, expected]
        assert expected or np.array_equal(made, vertices)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(0.5, 6))
def test_blocked_are_those_within_reach(seed: int, most: float) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    owner = np.sort(rng.integers(0, n, int(rng.integers(1, 40))))
    begin = rng.integers(-200, 200, (owner.size, 2))
    lines = np.hstack([begin, begin + rng.integers(-40, 40, begin.shape)]).astype(np.int32)
    first = rng.integers(-300, 300, (6, 2))
    others = np.hstack([first, first + rng.integers(-300, 300, first.shape)]).astype(np.int32)
    reach = np.where(rng.random(n) < 0.3, 0, rng.uniform(0, 5 * most, n))
    blocked = np.zeros(n, np.bool_)
    near.find_blocked(lines, owner, others, reach, blocked)
    drawn = shapely.linestrings(np.concatenate([lines, others]).reshape(-1, 2, 2))
    owners = np.append(owner, np.full(6, -1))
    apart = shapely.distance(drawn[:, None], drawn[None, :])
    sums = np.append(reach, 0)[owners][:, None] + np.append(reach, 0)[owners][None, :]
    hit = (apart <= sums) & (owners[:, None] != owners[None, :])
    expected = np.array([reach[k] > 0 and hit[owners == k].any() for k in range(n)])
    assert np.array_equal(blocked, expected)


def _blobs(seed: int, side: int, sigma: float, classes: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((side, side)), sigma) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint16) + 1


@settings(max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.7, 1.2, 2.0, 3.0]),
    st.integers(2, 4),
    st.sampled_from([0.7, 1.0, 2.0, 4.0, 9.0]),
    st.sampled_from([AS_IT_IS, VW, Simplification(2.0, "dp"), Simplification(1.0, smooth=1)]),
    st.booleans(),
)
def test_what_did_not_meet_does_not_meet(
    seed: int, sigma: float, classes: int, limit: float, how: Simplification, known: bool
) -> None:
    labels = _blobs(seed, 48, sigma, classes)
    unit = max(SCALE, how.scale)
    given, exact = Outlines.of(labels, how, scale=unit), Outlines.of(labels, AS_IT_IS, scale=unit)
    check(given, exact if known else None, limit)


def check(given: Outlines, exact: Outlines | None, limit: float) -> NDArray[np.bool_]:
    """Squares ``given`` and holds it to all that is promised."""
    made, offsets, changed = given.squared(limit, exact)
    before, after = polygons(given.vertices, given.offsets, given.scale), polygons(made, offsets, given.scale)
    was = before if exact is None else polygons(exact.vertices, exact.offsets, given.scale)
    assert shapely.is_valid(after).all()
    for k in range(len(after)):
        old, new = given.vertices[given.offsets[k] : given.offsets[k + 1]], made[offsets[k] : offsets[k + 1]]
        if not changed[k]:
            assert np.array_equal(old, new)
            continue
        assert shapely.hausdorff_distance(was[k], after[k], 0.1) <= limit
        assert after[k].area == pytest.approx(was[k].area, rel=0.005)
        walls = np.linalg.norm(new - np.roll(new, 1, axis=0), axis=1) / given.scale
        assert walls.min() >= 0.5 * limit
        assert 3 * (walls < 2 * limit).sum() <= len(walls), "the ring's own steps"
        assert shapely.LinearRing(old).is_ccw == shapely.LinearRing(new).is_ccw
    check_places(given, before, after, changed)
    return changed


def check_places(given: Outlines, before: NDArray, after: NDArray, changed: NDArray[np.bool_]) -> None:
    """Rings meet nothing, and whatever was inside or outside still is."""
    rings = shapely.get_exterior_ring(after)
    tree = shapely.STRtree(rings)
    a, b = tree.query(rings, "intersects")
    assert (a == b).all(), "rings meet"
    lines = shapely.linestrings(given.others.reshape(-1, 2, 2) / given.scale)
    assert not changed[tree.query(lines, "intersects")[1]].any(), "a ring meets another boundary"
    for each, then in ((lines, lines), (shapely.get_exterior_ring(before), rings)):
        heads, heads_then = shapely.get_point(each, 0), shapely.get_point(then, 0)
        for k in np.flatnonzero(changed):
            other = np.arange(len(each)) != (k if then is rings else -1)
            old, new = shapely.contains(before[k], heads), shapely.contains(after[k], heads_then)
            assert np.array_equal(old[other], new[other])


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.floats(0, 1.2), st.sampled_from([1.5, 2.5, 4.0]), st.booleans())
def test_crowded_buildings(seed: int, noise: float, limit: float, known: bool) -> None:
    rng = np.random.default_rng(seed)
    shapes = []
    for k in range(30):
        shape = building(
            str(rng.choice(["rectangle", "L", "U"])), *rng.uniform(6, 26, 2), rng.uniform(0, 90), (0.0, 0.0)
        )
        shapes.append(translate(shape, 22 * (k // 6), 22 * (k % 6)))
    labels = painted(shapes)
    rough = gaussian_filter(rng.standard_normal(labels.shape), 1) > 0.5 - 0.3 * noise
    labels[rough & (rng.random(labels.shape) < noise / 4)] = 2
    labels[:, 70:] += labels[:, 70:] == 1  # one more class of ground ...
    labels[:, 70:][painted(shapes)[:, 70:] == 1] = 3
    check(Outlines.of(labels), Outlines.of(labels, AS_IT_IS) if known else None, limit)


def test_a_ring_does_not_jump_over_what_it_holds() -> None:
    """A thin C with something in its middle: an outline near it could close the C around that."""
    labels = np.ones((60, 60), np.uint16)
    labels[10:50, 10:50] = 2
    labels[13:47, 13:47] = 1
    labels[29:31, 47:50] = 1  # the gap
    labels[28:32, 28:32] = 2
    given = Outlines.of(labels)
    for limit in (1.0, 2.0, 3.0, 6.0):
        check(given, None, limit)


@pytest.mark.parametrize("name", ["Z4_UU_val_labels.tif", "Z5_UA_train_labels.tif"])
@pytest.mark.parametrize("alone", [False, True])
def test_real_buildings(data: Path, name: str, alone: bool) -> None:
    """Traced from labels whose own steps are up to 4 px; ``alone``: where all else is one class."""
    with rasterio.open(data / "flair_d034" / name) as file:
        labels = file.read(1)[:2560, :2560].astype(np.uint16)
    labels = np.pad(np.where(labels == 1, 1, 2) if alone else labels, 1).astype(np.uint16)
    given, exact = Outlines.of(labels, VW, code=1), Outlines.of(labels, AS_IT_IS, code=1)
    changed = check(given, exact, 4.0)
    made, offsets, _ = given.squared(4.0, exact)
    after, pixels = polygons(made, offsets)[changed], polygons(exact.vertices, exact.offsets)[changed]
    assert changed.mean() > 0.4
    shared = shapely.area(shapely.intersection(after, pixels)) / shapely.area(shapely.union(after, pixels))
    assert shared.mean() > 0.92
    assert np.diff(offsets)[changed].sum() < np.diff(given.offsets)[changed].sum() / 2


def test_nothing_to_do() -> None:
    for offsets in ([0], [0, 0, 0]):
        made, made_offsets, changed = square_rings(NONE[:, :2], np.array(offsets), NONE, SCALE, 1.0)
        assert made.shape == (0, 2)
        assert made_offsets.tolist() == offsets
        assert changed.tolist() == [False] * (len(offsets) - 1)


@pytest.mark.parametrize(
    "ring",
    [
        [[0, 0]],
        [[0, 0], [0, 9]],
        [[0, 0], [0, 90], [0, 40]],
        [[0, 0], [0, 320], [320, 0]],
        [[0, 0], [0, 0], [0, 0], [0, 0]],
        [[-(2**31), 0], [-(2**31), 2**31 - 1], [2**31 - 1, 2**31 - 1], [2**31 - 1, 0]],
    ],
)
def test_rings_that_cannot_be_squared_stay(ring: list[list[int]]) -> None:
    vertices = np.array(ring, np.int32)
    made, offsets, changed = square_rings(vertices, np.array([0, len(ring)]), NONE, SCALE, 2.0)
    assert np.array_equal(made, vertices)
    assert not changed.any()
    assert offsets.tolist() == [0, len(ring)]


def test_bad_input() -> None:
    ring, offsets = BOX, np.array([0, 4])
    for limit in (0, -1, np.nan, np.inf, 2000):
        with pytest.raises(SettingsError, match="may move by"):
            square_rings(ring, offsets, NONE, SCALE, limit)
    with pytest.raises(SettingsError, match="scale must lie"):
        square_rings(ring, offsets, NONE, 0, 1.0)
    with pytest.raises(InputError, match="there are 4 vertices"):
        square_rings(ring, np.array([0, 3]), NONE, SCALE, 1.0)
    with pytest.raises(InputError, match="ascending"):
        square_rings(ring, np.array([0, 5, 4]), NONE, SCALE, 1.0)
    with pytest.raises(InputError, match="whole numbers"):
        square_rings(ring.astype(float), offsets, NONE, SCALE, 1.0)
    with pytest.raises(InputError, match=r"shape \(n, 4\)"):
        square_rings(ring, offsets, ring, SCALE, 1.0)
    with pytest.raises(InputError, match="beyond 32 bits"):
        square_rings(ring.astype(np.int64) + 2**31, offsets, NONE, SCALE, 1.0)
    with pytest.raises(InputError, match="each must have one"):
        square_rings(ring, offsets, NONE, SCALE, 1.0, (ring, np.array([0, 2, 4])))


def test_the_cache_of_kernels_follows_their_helpers() -> None:
    text = "".join(Path(module.__file__).read_text("utf-8") for module in (stations, runs))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == kernels.HELPERS, "set HELPERS to the new hash"
