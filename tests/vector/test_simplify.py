"""Simplified chains still make a coverage, whatever is asked; and they are what the textbook says where nothing
is in the way."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from rssegment.errors import InputError, SettingsError
from rssegment.grid import Box
from rssegment.vector import BlockTrace, trace_block
from rssegment.vector import _simplify_bitmap as bitmap
from rssegment.vector import _simplify_kernels as kernels
from rssegment.vector import _simplify_straight as straight
from rssegment.vector.simplify import Obstacles, Simplification, Simplified, simplify_chains

HUGE = 2**40


@dataclass(frozen=True)
class Chains:
    """All chains of a raster with a frame of no data around it."""

    trace: BlockTrace
    vertices: NDArray[np.int32]
    offsets: NDArray[np.int64]
    closed: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: NDArray) -> Chains:
        labels = np.pad(labels, 1)
        trace = trace_block(labels, Box.of(labels.shape))
        closed = trace.ends[:, 0] < 0
        lines = []
        for k, (start, _, end, _) in enumerate(trace.ends):
            inner = trace.vertices[trace.offsets[k] : trace.offsets[k + 1]]
            lines.append(inner if closed[k] else [trace.nodes[start], *inner, trace.nodes[end]])
        return cls(trace, *packed(lines), closed)

    @property
    def obstacles(self) -> Obstacles:
        obstacles = Obstacles(Box.of(self.trace.core.shape).pad(1))
        obstacles.add(self.vertices)
        return obstacles

    @property
    def pixels(self) -> NDArray[np.int64]:
        """Of the regions on the left and right of each chain; 0 for no data."""
        return np.append(self.trace.sums[:, 0], 0)[self.trace.sides]

    def simplified(
        self, how: Simplification, *, known: bool = True, pinned: NDArray | None = None
    ) -> Simplified:
        pixels = self.pixels if known else None
        return simplify_chains(
            self.vertices, self.offsets, self.closed, self.obstacles, how, pinned, pixels=pixels
        )

    def polygons(self, result: Simplified, scale: int = 1) -> NDArray[np.object_]:
        """A polygon per region from its rings; all of them must be there."""
        rings: dict[int, list[NDArray]] = {}
        for part, halves in self.rings:
            points = [self.half(result, half) for half in halves]
            rings.setdefault(part, []).append(np.concatenate(points)[:, ::-1] * [1, -1] / scale)
        return np.array([polygon(rings[part]) for part in range(len(self.trace.code))])

    def half(self, result: Simplified, half: int) -> NDArray:
        line = result.vertices[result.offsets[half >> 1] : result.offsets[(half >> 1) + 1]]
        line = line[::-1] if half & 1 else line
        return line if self.closed[half >> 1] else line[:-1]

    @cached_property
    def rings(self) -> list[tuple[int, list[int]]]:
        """Region on the left and half-chains (2 k forwards, 2 k + 1 backwards) of each ring."""
        ends, sides, slots = self.trace.ends.tolist(), self.trace.sides.tolist(), {}
        for k, (a, leaving_a, b, leaving_b) in enumerate(ends):
            slots[a, leaving_a], slots[b, leaving_b] = 2 * k, 2 * k + 1

        def after(half: int) -> int:
            end = ends[half >> 1][:2] if half & 1 else ends[half >> 1][2:]
            if end[0] < 0:
                return half
            left, straight, right = (slots.get((end[0], (end[1] + turn) % 4)) for turn in (3, 2, 1))
            if left is not None and straight is not None and right is not None:
                mine = sides[right >> 1][right & 1] == sides[half >> 1][half & 1]
                return right if mine else left
            return next(each for each in (left, straight, right) if each is not None)

        seen: set[int] = set()
        out = []
        for start in range(2 * len(ends)):
            part = sides[start >> 1][start & 1]
            if part < 0 or start in seen:
                continue
            ring, half = [], start
            while half not in seen:
                seen.add(half)
                ring.append(half)
                half = after(half)
            out.append((part, ring))
        return out


def packed(lines: list) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    arrays = [np.asarray(line, np.int32).reshape(-1, 2) for line in lines]
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in arrays])]).astype(np.int64)
    return np.concatenate([np.empty((0, 2), np.int32), *arrays]), offsets


def split(result: Simplified) -> list[list[list[int]]]:
    return [part.tolist() for part in np.split(result.vertices, result.offsets[1:-1])]


def signed_area(ring: NDArray) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def polygon(rings: list[NDArray]) -> shapely.Polygon:
    assert all(len(ring) >= 3 and signed_area(ring) != 0 for ring in rings)
    exterior = [ring for ring in rings if signed_area(ring) > 0]
    assert len(exterior) == 1
    return shapely.Polygon(exterior[0], [ring for ring in rings if signed_area(ring) < 0])


def assert_coverage(chains: Chains, result: Simplified, scale: int = 1) -> None:
    assert not result.incomplete.any()
    assert not len(result.missing)
    polygons = chains.polygons(result, scale)
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    assert shapely.coverage_is_valid(polygons)


def noise(n: int, sigma: float, classes: int = 6, seed: int = 0) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((n, n)), sigma) for _ in range(classes)]
    return (np.argmax(fields, axis=0) + 1).astype(np.uint16)


@st.composite
def rasters(draw: st.DrawFn) -> NDArray[np.uint16]:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    labels = draw(arrays(np.uint16, shape, elements=st.integers(0, draw(st.integers(1, 5)))))
    up, across = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (4, 3)]))
    return np.kron(labels, np.ones((up, across), np.uint16))


hows = st.builds(
    Simplification,
    st.sampled_from([0.0, 0.5, 0.71, 1.0, 1.5, 2.0, 3.0, 20.0]),
    st.sampled_from(["vw", "dp"]),
    st.integers(0, 3),
)


@settings(max_examples=150)
@given(rasters(), hows, st.booleans())
def test_a_coverage_stays_one(labels: NDArray, how: Simplification, known: bool) -> None:
    chains = Chains.of(labels)
    assert_coverage(chains, chains.simplified(how, known=known), how.scale)


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (1, 6)])
def test_every_small_raster_keeps_its_regions(shape: tuple[int, int]) -> None:
    """All rasters of three classes: where two chains join the same junctions, not both become straight."""
    for values in itertools.product(range(3), repeat=shape[0] * shape[1]):
        chains = Chains.of(np.array(values, np.uint16).reshape(shape))
        for known in (False, True):
            assert_coverage(chains, chains.simplified(Simplification(9), known=known))


@settings(max_examples=100)
@given(arrays(np.uint16, (4, 4), elements=st.integers(1, 4)), st.integers(1, 4))
def test_lenses_stay_open(labels: NDArray, size: int) -> None:
    """Few pixels, many junctions: most chains would be straight if they could."""
    chains = Chains.of(np.kron(labels, np.ones((size, size), np.uint16)))
    assert_coverage(chains, chains.simplified(Simplification(50)))


def test_one_of_two_sides_of_a_pixel_becomes_straight() -> None:
    labels = np.array([[1, 1, 1, 2], [1, 1, 3, 2], [1, 2, 2, 2], [2, 2, 2, 2]], np.uint16)
    chains = Chains.of(labels)  # 3 is one pixel between junctions at opposite corners
    for known in (False, True):
        result = chains.simplified(Simplification(5), known=known)
        assert_coverage(chains, result)
        assert shapely.area(chains.polygons(result)[2]) == 0.5


def test_known_regions_let_more_chains_be_straight() -> None:
    labels = noise(96, 3)
    chains = Chains.of(labels)
    how = Simplification(6)
    assert len(chains.simplified(how).vertices) < 0.95 * len(chains.simplified(how, known=False).vertices)


@settings(max_examples=60)
@given(rasters())
def test_pixels_beside_a_chain(labels: NDArray) -> None:
    chains = Chains.of(labels)
    region = _regions(chains)
    for k, (left, right) in enumerate(chains.trace.sides):
        line = chains.vertices[chains.offsets[k] : chains.offsets[k + 1]].astype(int)
        if chains.closed[k] or left < 0 or right < 0:
            continue
        assert straight.side_pixels(line.astype(np.int32), True) == _touching(line, region, left)
        assert straight.side_pixels(line.astype(np.int32), False) == _touching(line, region, right)


def _regions(chains: Chains) -> NDArray:
    """(H, W) the region of each pixel, by its polygon."""
    out = np.full(chains.trace.core.shape, -1)
    unsimplified = chains.simplified(Simplification(0))
    rows, cols = np.indices(out.shape)
    for part, shape in enumerate(chains.polygons(unsimplified)):
        out[shapely.contains_xy(shape, cols + 0.5, -(rows + 0.5))] = part
    return out


def _touching(line: NDArray, region: NDArray, part: int) -> int:
    """Pixels of ``part`` at the line's unit edges, or at a corner of the pixel lattice that it passes."""
    steps = [line[0]]
    for a, b in itertools.pairwise(line):
        n = abs(b - a).sum()
        steps += [a + (b - a) // n * i for i in range(1, n + 1)]
    at = {(r + i, c + j) for r, c in steps[1:-1] for i in (-1, 0) for j in (-1, 0)}
    if len(steps) == 2:
        (r, c), (d, e) = steps
        at = {(min(r, d), min(c, e)), (min(r, d) - (r == d), min(c, e) - (c == e))}
    return sum(region[pixel] == part for pixel in at)


@cache
def large(sigma: float) -> Chains:
    return Chains.of(noise(192 if sigma < 2 else 512, sigma))


@pytest.mark.parametrize("sigma", [1.5, 4])
@pytest.mark.parametrize("how", [Simplification(0.5), Simplification(1), Simplification(2, "vw", 2), Simplification(8),
                                 Simplification(8, "dp", 1), Simplification(1.5, "dp")], ids=str)  # fmt: skip
def test_large_scenes_stay_coverages(sigma: float, how: Simplification) -> None:
    chains = large(sigma)
    assert_coverage(chains, chains.simplified(how), how.scale)


@pytest.mark.parametrize(("sigma", "tolerance", "more"), [(4, 1, 1.01), (4, 2, 1.02), (1.5, 2, 1.06)])
def test_as_few_vertices_as_geos(sigma: float, tolerance: float, more: float) -> None:
    """The same meaning of the tolerance; a few more stay, as each chain is simplified without knowing of the others."""
    chains = large(sigma)
    ours = chains.polygons(chains.simplified(Simplification(tolerance)))
    theirs = shapely.coverage_simplify(chains.polygons(chains.simplified(Simplification(0))), tolerance)
    counts = [len(np.unique(shapely.get_coordinates(each), axis=0)) for each in (ours, theirs)]
    assert 0.97 < counts[0] / counts[1] < more


def test_real_crops_stay_a_coverage(data: Path) -> None:
    with rasterio.open(data / "fixtures" / "label_rasters" / "CDL_2016_19_train.tif") as file:
        labels = file.read(1, window=((3000, 3400), (3000, 3400))).astype(np.uint16)
    chains = Chains.of(labels)
    for how in (Simplification(2), Simplification(4, "dp", 1)):
        assert_coverage(chains, chains.simplified(how), how.scale)


@given(rasters(), st.sampled_from(["vw", "dp"]))
def test_no_tolerance_changes_nothing(labels: NDArray, method: str) -> None:
    chains = Chains.of(labels)
    result = chains.simplified(Simplification(0, method))
    assert np.array_equal(result.vertices, chains.vertices)
    assert np.array_equal(result.offsets, chains.offsets)


@given(rasters(), hows, st.randoms(use_true_random=False))
def test_neither_order_nor_direction_matter(labels: NDArray, how: Simplification, random) -> None:
    chains = Chains.of(labels)
    expected = split(chains.simplified(how))
    order = list(range(len(chains.closed)))
    random.shuffle(order)
    back = [random.random() < 0.5 for _ in order]
    lines = np.split(chains.vertices, chains.offsets[1:-1])
    given_lines = [_turned(lines[k].tolist(), chains.closed[k]) if back[k] else lines[k] for k in order]
    pixels = np.array([chains.pixels[k][:: -1 if back[k] else 1] for k in order]).reshape(-1, 2)
    result = simplify_chains(
        *packed(given_lines), chains.closed[order], chains.obstacles, how, None, pixels=pixels
    )
    if order:
        wanted = [_turned(expected[k], chains.closed[k]) if back[k] else expected[k] for k in order]
        assert split(result) == wanted


def _turned(line: list, closed: bool) -> list:
    return line[:1] + line[:0:-1] if closed else line[::-1]


@given(rasters(), hows)
def test_closed_chains_start_on_top(labels: NDArray, how: Simplification) -> None:
    chains = Chains.of(labels)
    for line, closed in zip(split(chains.simplified(how)), chains.closed, strict=False):
        if closed:
            assert line[0] == min(line)


# ---------------------------------------------------------------- the same by slow and plain means


def triangle(a, b, c) -> int:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def inside(p, corners) -> bool:
    """Whether ``p`` is in the closed triangle."""
    signs = [
        (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
        for a, b in zip(corners, (*corners[1:], corners[0]), strict=True)
    ]
    return min(signs) >= 0 or max(signs) <= 0


def distance(p, a, b) -> float:
    return shapely.distance(shapely.Point(p), shapely.LineString([a, b]))


def reference_values(line: list, closed: bool, tolerance: float, method: str):
    """Function of three neighbouring indices to what is compared with the limit; and the limit."""
    if method == "vw":
        return (lambda a, b, c: triangle(line[a], line[b], line[c])), 2 * tolerance**2
    value = dict.fromkeys(range(len(line)), float("inf"))
    ring = [*line, line[0]]

    def recurse(a: int, b: int, limit: float) -> None:
        if b - a < 2:
            return
        distances = [distance(ring[k], ring[a], ring[b]) for k in range(a + 1, b)]
        far = a + 1 + int(np.argmax(np.round(distances, 9)))
        value[far] = min(limit, distances[far - a - 1])
        recurse(a, far, value[far])
        recurse(far, b, value[far])

    if closed:
        far = int(np.argmax([np.hypot(*np.subtract(p, line[0])) for p in line]))
        recurse(0, far, float("inf"))
        recurse(far, len(line), float("inf"))
    else:
        recurse(0, len(line) - 1, float("inf"))
    return (lambda a, b, c: round(value[b], 9)), tolerance + 1e-9


def reference(line: list, closed: bool, others: set, tolerance: float, method: str) -> list:
    """Guarded removal, written down plainly, in canonical order; chains between two junctions may become
    straight."""
    value, limit = reference_values(line, closed, tolerance, method)
    alive = list(range(len(line)))
    fewest = 3 if closed else (4 if line[0] == line[-1] else 2)
    inner = set(alive if closed else alive[1:-1])

    def around(b: int) -> tuple[int, int, int]:
        at = alive.index(b)
        return alive[at - 1], b, alive[(at + 1) % len(alive)]

    queue = [(value(*around(b)), b) for b in inner] if tolerance else []
    heapq.heapify(queue)
    blocked: set[int] = set()
    while len(alive) > fewest:
        if not queue:
            queue = [
                (value(*around(b)), b)
                for b in sorted(blocked)
                if not _blocked(line, around(b), alive, others)
            ]
            blocked -= {b for _, b in queue}
            if not queue:
                break
        now, b = heapq.heappop(queue)
        if b not in alive or b in blocked or now != value(*around(b)) or now > limit:
            continue
        if _blocked(line, around(b), alive, others):
            blocked.add(b)
            continue
        a, _, c = around(b)
        alive.remove(b)
        for k in {a, c} & inner:
            blocked.discard(k)
            heapq.heappush(queue, (value(*around(k)), k))
    return [line[k] for k in alive]


def _blocked(line: list, three: tuple[int, int, int], alive: list[int], others: set) -> bool:
    corners = [line[k] for k in three]
    if triangle(*corners) == 0:
        return False
    obstacles = (others | {line[k] for k in alive}) - set(corners)
    return any(inside(p, corners) for p in obstacles)


@settings(max_examples=100)
@given(rasters(), st.sampled_from([0.5, 0.75, 1.0, 1.6, 2.0, 3.0, 20.0]), st.sampled_from(["vw", "dp"]))
def test_equals_the_plain_algorithm(labels: NDArray, tolerance: float, method: str) -> None:
    chains = Chains.of(labels)
    how = Simplification(tolerance, method)
    huge = np.full((len(chains.closed), 2), HUGE)
    result = split(
        simplify_chains(
            chains.vertices, chains.offsets, chains.closed, chains.obstacles, how, None, pixels=huge
        )
    )
    everything = {tuple(p) for p in chains.vertices.tolist()}
    for k, closed in enumerate(chains.closed):
        line = [tuple(p) for p in chains.vertices[chains.offsets[k] : chains.offsets[k + 1]].tolist()]
        canonical = min(line, _turned(line, closed))
        wanted = reference(canonical, closed, everything - set(line), tolerance, method)
        got = [tuple(p) for p in result[k]]
        if closed:
            wanted = wanted[(at := wanted.index(min(wanted))) :] + wanted[:at]
        assert got in (wanted, _turned(wanted, closed))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.booleans()), min_size=2, max_size=40),
       st.sampled_from([0.8, 1.0, 2.0, 5.0]))  # fmt: skip
def test_textbook_douglas_peucker_on_a_graph(steps: list, tolerance: float) -> None:
    """Nothing is ever in the way of a chain that only goes to the right."""
    row, col, line = 0, 0, [(0, 0)]
    for across, rise, up in steps:
        line.append((row, col := col + across))
        line.append((row := row + (rise if up else -rise), col))
    vertices, offsets = packed([line])
    obstacles = Obstacles(Box(-300, 0, 600, 300))
    obstacles.add(vertices)
    pixels = np.full((1, 2), HUGE)
    result = simplify_chains(
        vertices, offsets, np.array([False]), obstacles, Simplification(tolerance, "dp"), None, pixels=pixels
    )
    wanted = shapely.simplify(shapely.LineString(line), tolerance, preserve_topology=False)
    kept, textbook = result.vertices.tolist(), shapely.get_coordinates(wanted).tolist()
    if kept != textbook:  # equally far vertices: the recursion may split at either
        assert shapely.hausdorff_distance(shapely.LineString(kept), shapely.LineString(line)) <= 2 * tolerance
        tied = [distance(p, line[0], line[-1]) for p in line[1:-1]]
        assert kept[0] == textbook[0]
        assert len(tied) > 2


def test_chaikin_cuts_at_quarters() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.int32)
    obstacles = Obstacles(Box(0, 0, 5, 5))
    obstacles.add(square)

    def smooth(rounds: int) -> NDArray:
        how = Simplification(0, smooth=rounds)
        done = simplify_chains(square, np.array([0, 4]), np.array([True]), obstacles, how)
        return done.vertices / how.scale

    expected = square.astype(float)
    for rounds in (1, 2, 3):
        after = np.roll(expected, -1, axis=0)
        expected = np.stack([0.75 * expected + 0.25 * after, 0.25 * expected + 0.75 * after], 1).reshape(
            -1, 2
        )
        assert sorted(smooth(rounds).tolist()) == sorted(expected.tolist())
    assert shapely.Polygon(smooth(3)).is_valid


@pytest.mark.parametrize(("tolerance", "side"), [(0.0, 5), (0.0, 100), (3.0, 13), (3.0, 90), (10.0, 300)])
def test_smoothing_moves_nothing_further_than_the_tolerance(tolerance: float, side: int) -> None:
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.int32)
    obstacles = Obstacles(Box(0, 0, side + 1, side + 1))
    obstacles.add(square)
    how = Simplification(tolerance, smooth=3)
    done = simplify_chains(square, np.array([0, 4]), np.array([True]), obstacles, how)
    rounded, sharp = shapely.Polygon(done.vertices / how.scale), shapely.Polygon(square)
    gone = shapely.hausdorff_distance(rounded.exterior, sharp.exterior, densify=0.01)
    assert 0.1 < gone <= max(tolerance, 1)
    assert len(done.vertices) == 32
    assert sharp.contains(rounded)


def test_pinned_corners_stay_sharp() -> None:
    labels = np.ones((7, 9), np.uint16)
    corners = np.array([[1, 1], [1, 10], [8, 1], [8, 10]], np.int32)
    chains = Chains.of(labels)
    for how in (Simplification(100), Simplification(2, "dp", 3)):
        result = chains.simplified(how, pinned=corners)
        assert sorted(result.vertices.tolist()) == (corners * how.scale).tolist()
    assert len(chains.simplified(Simplification(100)).vertices) == 3


def test_nothing_is_cut_or_removed_across_an_obstacle() -> None:
    labels = np.full((12, 12), 1, np.uint16)
    labels[2:10, 2:10] = 2
    labels[3, 3] = 3  # in the angle that would be cut
    chains = Chains.of(labels)
    for how in (Simplification(20), Simplification(0, "vw", 1)):
        result = chains.simplified(how)
        assert_coverage(chains, result, how.scale)


def test_an_absent_tile_is_asked_for() -> None:
    line = np.array([[10, 10], [10, 300], [300, 300]], np.int32)
    arguments = line, np.array([0, 3]), np.array([False])
    how, pixels = Simplification(1000), np.full((1, 2), HUGE)
    obstacles = Obstacles()
    obstacles.allocate(np.array([[0, 0], [0, 1]]))
    obstacles.add(line)
    result = simplify_chains(*arguments, obstacles, how, pixels=pixels)
    assert result.incomplete.tolist() == [True]
    assert result.missing.tolist() == [[1, 1]]
    assert result.vertices.tolist() == line.tolist()
    obstacles.allocate(result.missing)
    obstacles.add(line)
    result = simplify_chains(*arguments, obstacles, how, pixels=pixels)
    assert not result.incomplete.any()
    assert result.vertices.tolist() == [[10, 10], [300, 300]]


def test_a_triangle_over_an_absent_tile_keeps_its_vertex() -> None:
    line = np.array(
        [[10, 600], [10, 10], [600, 10]], np.int32
    )  # its triangle reaches tiles that hold no vertex
    obstacles = Obstacles()
    obstacles.allocate(np.array([[0, 0], [0, 1], [0, 2], [1, 0], [2, 0], [1, 1]]))
    obstacles.add(line)
    how, pixels = Simplification(1000), np.full((1, 2), HUGE)
    done = simplify_chains(line, np.array([0, 3]), np.array([False]), obstacles, how, pixels=pixels)
    assert not done.incomplete.any()
    fewer = Obstacles()
    fewer.allocate(np.array([[0, 0], [0, 1], [0, 2], [1, 0], [2, 0]]))
    fewer.add(line)
    done = simplify_chains(line, np.array([0, 3]), np.array([False]), fewer, how, pixels=pixels)
    assert done.missing.tolist() == [[1, 1]]
    assert len(done.vertices) == 3


@settings(max_examples=30)
@given(rasters(), hows, st.sampled_from([(250, 250), (-3, 500), (509, -260), (100_000, 70_000)]))
def test_the_place_in_the_scene_does_not_matter(
    labels: NDArray, how: Simplification, shift: tuple[int, int]
) -> None:
    """Chains over the borders of tiles, and far away, come out as at the origin."""
    chains = Chains.of(labels)
    moved = (chains.vertices + np.array(shift)).astype(np.int32)
    obstacles = Obstacles(Box.of(chains.trace.core.shape).pad(1).shift(*shift))
    obstacles.add(moved)
    result = simplify_chains(moved, chains.offsets, chains.closed, obstacles, how, pixels=chains.pixels)
    expected = chains.simplified(how)
    assert np.array_equal(result.vertices, expected.vertices + np.array(shift) * how.scale)


def test_obstacles_are_as_they_were() -> None:
    chains = Chains.of(noise(64, 2))
    obstacles = chains.obstacles
    before = obstacles._words.copy()
    simplify_chains(chains.vertices, chains.offsets, chains.closed, obstacles, Simplification(4, "vw", 1))
    assert np.array_equal(obstacles._words, before)


def test_bad_input_is_told() -> None:
    for wrong in ({"tolerance": -1}, {"tolerance": float("nan")}, {"tolerance": 1e9}, {"tolerance": 1, "smooth": 4},
                  {"tolerance": 1, "method": "rdp"}):  # fmt: skip
        with pytest.raises(SettingsError):
            Simplification(**wrong)
    line, offsets, closed = np.array([[0, 0], [0, 5], [5, 5]], np.int32), np.array([0, 3]), np.array([False])
    with pytest.raises(InputError, match="aren't among the obstacles"):
        simplify_chains(line, offsets, closed, Obstacles(Box(0, 0, 9, 9)), Simplification(1))
    with pytest.raises(InputError, match="too far"):
        simplify_chains(line + 2**26, offsets, closed, Obstacles(), Simplification(1, smooth=3))


def test_no_chains() -> None:
    nothing = simplify_chains(
        np.empty((0, 2), np.int32), np.zeros(1, np.int64), np.empty(0, bool), Obstacles(), Simplification(1)
    )
    assert nothing.vertices.shape == (0, 2)
    assert nothing.offsets.tolist() == [0]


def test_the_cache_of_kernels_follows_their_helpers() -> None:
    text = "".join(Path(module.__file__).read_text("utf-8") for module in (bitmap, straight))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == kernels.HELPERS, "set HELPERS to the new hash"
