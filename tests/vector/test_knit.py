"""Blocks joined to one scene: the named traps, and that nothing of the cutting is left in the result."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import BlockGrid, Box
from rssegment.vector import (
    Coverage,
    Regions,
    Simplification,
    Tree,
    knit,
    layers_of,
    piece_of,
    trace_block,
    trace_raster,
)
from tests.vector.engine import Cut, Scene, coverage, regions, traced
from tests.vector.reference import check_table, expected, gdal_polygons, our_polygons, same
from tests.vector.traps import TRAPS, raster


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", TRAPS)
def test_trap(name: str, connectivity: int) -> None:
    labels = TRAPS[name]
    known = gdal_polygons(labels, connectivity)
    first = trace_raster(labels, 100, connectivity)
    for block in range(1, min(max(labels.shape), 9) + 1):
        assert our_polygons(trace_raster(labels, block, connectivity, valid=False)) == known, block
        made = trace_raster(labels, block, connectivity)
        assert same(made, first), block
        assert shapely.is_valid(made.to_shapely()).all()


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", TRAPS)
def test_trap_simplified(name: str, connectivity: int) -> None:
    """No trap opens a crack or loses a region, and none depends on the blocks."""
    labels = TRAPS[name]
    for how in (Simplification(1.5, "vw"), Simplification(2.0, "dp", 1)):
        (first,) = traced(labels, Cut(100), connectivity, how)
        shapes = first.to_shapely()
        assert shapely.is_valid(shapes).all()
        assert shapely.coverage_is_valid(shapely.get_parts(shapes))
        assert (shapely.area(shapes) > 0).all()
        assert len(first) == expected(labels, connectivity).code.size
        for block, fan in ((2, 2), (3, 3)):
            assert same(traced(labels, Cut(block, fan), connectivity, how)[0], first), block


def test_a_region_over_four_blocks_is_one() -> None:
    labels = TRAPS["a region crossing four blocks at a corner"]
    made = trace_raster(labels, 2)
    assert made.pixels.tolist() == [4]
    assert made.to_shapely()[0].equals(shapely.box(1, 1, 3, 3))


def test_fusing_pixel_pairs_one_to_one_would_split_a_region() -> None:
    """A region that meets several pieces of itself over one seam, and a chain of such."""
    labels = raster("1010101 1010101 1111111 0000000 1111111 1010101")
    for block in (1, 2, 3, 4):
        assert trace_raster(labels, block).pixels.tolist() == [15, 11]
    comb = raster("1212 1212 1111")
    assert trace_raster(comb, 2).pixels.tolist() == [8, 2, 2]


def test_polygons_run_along_pixel_edges() -> None:
    """Not through pixel centres, half a pixel small."""
    (only,) = trace_raster(raster("000 050 000"), 2).to_shapely()
    assert only.bounds == (1, 1, 2, 2)
    assert only.area == 1


@pytest.mark.parametrize("connectivity", [4, 8])
def test_diagonal_contact_counts_as_asked(connectivity: int) -> None:
    for name in (
        "diagonal contact at a block corner, no data between",
        "opposite diagonal contact at a block corner",
        "diagonal contact on a seam",
        "diagonal contact inside a block",
    ):
        for block in (1, 2, 3, 4):
            made = trace_raster(TRAPS[name], block, connectivity)
            assert made.pixels.tolist() == ([1, 1] if connectivity == 4 else [2]), (name, block)
    joined = trace_raster(TRAPS["diagonal contact at a block corner, no data between"], 2, 8)
    assert joined.to_shapely()[0].geom_type == "MultiPolygon"  # valid: a polygon can't hang by a corner
    labels = TRAPS["diagonal contact at a block corner, no data between"]
    assert trace_raster(labels, 2, 8, valid=False).to_shapely()[0].geom_type == "Polygon"


def test_both_diagonals_meet_at_one_corner() -> None:
    """With connectivity 8, each of two classes is one region across the same corner."""
    for block in (1, 2, 3, 4):
        made = trace_raster(TRAPS["diagonal contact at a block corner"], block, 8)
        assert made.pixels.tolist() == [8, 8]


def test_ids_rings_and_sums() -> None:
    labels = raster("2211 2211 1112 1112")
    confidence = np.array([[0, 1, 2, 3], [4, 255, 6, 7], [8, 9, 10, 11], [12, 13, 14, 255]], np.uint8)
    made = trace_raster(labels, 3, 4, confidence)
    assert made.id.tolist() == [1, 2, 3]
    assert made.code.tolist() == [2, 1, 2]
    assert made.first.tolist() == [[0, 0], [0, 2], [2, 3]]
    assert made.pixels.tolist() == [4, 10, 2]
    assert made.sums.tolist() == [[4, 5, 3, 0, 0], [10, 84, 10, 0, 0], [2, 11, 1, 0, 0]]
    assert made.least.tolist() == [0, 2, 11]
    assert made.touches.tolist() == [2, 2, 2]
    assert np.allclose(made.confidence, [5 / 3, 8.4, 11])
    ring = made[2:3].corners.tolist()  # from its topmost, then leftmost corner, downwards
    assert ring == [[2, 3], [4, 3], [4, 4], [2, 4], [2, 3]]


def test_confidence_unknown_is_nan() -> None:
    assert np.isnan(trace_raster(np.ones((2, 2), np.uint16), 1).confidence).all()
    unknown = np.full((2, 2), 255, np.uint8)
    made = trace_raster(np.ones((2, 2), np.uint16), 1, 4, unknown)
    assert np.isnan(made.confidence).all()
    assert made.least.tolist() == [255]


@settings(max_examples=80)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.integers(2, 9),
    st.integers(2, 4),
    st.sampled_from([4, 8]),
)
def test_statistics_are_exact(
    seed: int, shape: tuple[int, int], block: int, fan: int, connectivity: int
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(1, 5) + 1, shape).astype(np.uint16)
    confidence, margin = (rng.choice([0, 1, 100, 254, 255], shape).astype(np.uint8) for _ in range(2))
    (made,) = traced(Scene(labels, confidence, margin), Cut(block, fan), connectivity)
    check_table(made, expected(labels, connectivity, confidence, margin))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_statistics_of_large_regions_are_exact(connectivity: int) -> None:
    """A spiral and a comb over many blocks: one region, hundreds of seams."""
    rng = np.random.default_rng(5)
    for name in ("a spiral", "a comb"):
        labels = np.kron(TRAPS[name], np.ones((3, 3), np.uint16))
        confidence, margin = (rng.integers(0, 256, labels.shape).astype(np.uint8) for _ in range(2))
        (made,) = traced(Scene(labels, confidence, margin), Cut(4, 2), connectivity)
        check_table(made, expected(labels, connectivity, confidence, margin))


def test_order_and_storage_of_pieces_do_not_matter(tmp_path: Path) -> None:
    labels = np.random.default_rng(2).integers(0, 4, (30, 40)).astype(np.uint16)
    for connectivity, how in ((4, None), (8, Simplification(1.0)), (4, Simplification(2, "dp", 2))):
        (whole,) = traced(labels, Cut(64), connectivity, how)
        for seed, fan in ((1, 2), (2, 3)):
            assert same(traced(labels, Cut(9, fan, seed), connectivity, how)[0], whole)
            folder = tmp_path / f"{fan}_{how and how.method}"
            folder.mkdir()
            assert same(traced(labels, Cut(9, fan, seed, folder), connectivity, how)[0], whole)


def test_regions_that_go_far_are_held_a_few_at_a_time() -> None:
    """Long stripes all begin in the first band: together they are the whole scene."""
    rows, cols = np.indices((600, 40))
    labels = (((cols + rows // 2 % 2) // 4) % 2 + 1).astype(np.uint16)
    whole = trace_raster(labels, 1000)
    made = coverage(labels, Cut(8))
    spans = list(made.spans(0))
    assert len(spans) > made.bands + 5
    portions = [made.regions(0, span) for span in spans]
    assert max(len(portion.corners) for portion in portions) < len(whole.corners) / 3
    assert same(Regions.joined(portions), whole)


def test_bands_may_be_asked_for_in_any_order() -> None:
    labels = np.random.default_rng(9).integers(0, 3, (40, 30)).astype(np.uint16)
    lookup = np.zeros(65536, np.uint16)
    lookup[1:3] = 7
    codes = [(1, lookup), (2, None)]
    made = coverage(labels, Cut(6, 2), 8, codes=codes)
    wanted = [(layer, span) for layer in range(2) for span in made.spans(layer)]
    straight = {each: made.regions(*each) for each in wanted}
    other = coverage(labels, Cut(6, 2), 8, codes=codes)
    for each in random.Random(4).sample(wanted, len(wanted)):
        assert same(other.regions(*each), straight[each])
        assert same(other.regions(*each), straight[each])  # and again


@dataclass(frozen=True)
class _Patchwork:
    """One joint over pieces of any shape: what Coverage asks of a tree."""

    boxes: tuple[Box, ...]
    grid: BlockGrid
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, boxes: list[Box], shape: tuple[int, int]) -> _Patchwork:
        return cls(tuple(boxes), BlockGrid(shape, max(shape)), ((1, len(boxes)), (1, 1)))

    def level(self, level: int) -> Iterator[tuple[int, int, int]]:
        return iter([(0, 0, k) for k in range(len(self.boxes))] if level == 0 else [(1, 0, 0)])

    def knots(self) -> Iterator[tuple[int, int, int]]:
        return self.level(1)

    def children(self, _node: Any) -> list[tuple[int, int, int]]:
        return list(self.level(0))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_blocks_of_any_shape_can_be_joined(connectivity: int) -> None:
    """Three seams that meet in the middle of another: T and cross."""
    labels = np.random.default_rng(3).integers(0, 4, (30, 40)).astype(np.uint16)
    cuts = [
        [Box(0, 0, 30, 13), Box(0, 13, 9, 27), Box(9, 13, 21, 20), Box(9, 33, 21, 7)],
        [Box(0, 0, 10, 20), Box(0, 20, 20, 20), Box(10, 0, 20, 10), Box(10, 10, 10, 10), Box(20, 10, 10, 30)],
        [Box(0, 0, 1, 40), Box(1, 0, 29, 1), Box(1, 1, 29, 39)],
    ]
    partitions, layers = layers_of([(None, None)], connectivity)
    for boxes in cuts:
        tree = _Patchwork.of(sorted(boxes), labels.shape)
        pieces = {
            node: piece_of(trace_block(labels[box.slices], box, connectivity), partitions)
            for node, box in zip(tree.level(0), tree.boxes, strict=True)
        }
        pieces[1, 0, 0] = knit(list(pieces.values()), partitions, Box.of(labels.shape))
        made = Coverage(tree, len(partitions), layers, lambda node, _: pieces[node])  # noqa: B023
        assert same(regions(made), trace_raster(labels, 100, connectivity))


def test_missing_blocks_are_no_data() -> None:
    labels = np.random.default_rng(4).integers(0, 4, (20, 20)).astype(np.uint16)
    for k, each in enumerate(BlockGrid(labels.shape, 6)):
        if k % 3 == 0:
            labels[each.core.slices] = 0
    made = trace_raster(labels, 6)
    assert our_polygons(made) == gdal_polygons(labels, 4)
    check_table(made, expected(labels))


def test_a_scene_without_data_has_no_regions() -> None:
    made = coverage(np.zeros((4, 4), np.uint16), Cut(2))
    assert made.counts(0).tolist() == [0, 0]
    assert regions(made).to_shapely().size == 0


def test_a_block_far_into_a_large_scene() -> None:
    """Corners beyond 2**16, whose products need 64 bits."""
    labels = raster("112 212 222")
    box = Box(200_000, 300_000, 3, 3)
    partitions, layers = layers_of([(None, None)], 4)
    leaf = piece_of(trace_block(labels, box), partitions)
    pieces = {(0, 0, 0): leaf, (1, 0, 0): knit([leaf], partitions, box)}
    tree = _Patchwork.of([box], (400_000, 400_000))
    made = regions(Coverage(tree, len(partitions), layers, lambda node, _: pieces[node]))
    assert made.corners.min(axis=0).tolist() == [200_000, 300_000]
    assert made.first[0].tolist() == [200_000, 300_000]
    assert np.array_equal(shapely.area(made.to_shapely()), made.pixels)


def test_overlapping_blocks_and_holes_are_refused() -> None:
    labels = np.ones((4, 4), np.uint16)
    boxes = [Box(0, 0, 4, 4), Box(2, 3, 4, 4), Box(4, 0, 4, 3)]
    partitions, _ = layers_of([(None, None)], 4)
    made = [piece_of(trace_block(labels[: b.height, : b.width], b), partitions) for b in boxes]
    for few in itertools.permutations(made):
        with pytest.raises(InputError, match="overlap"):
            knit(few, partitions)
    with pytest.raises(InputError, match="leave holes"):
        knit([made[0], made[2]], partitions)


# ------------------------------------------------------------------------------------------- memory


def held(value: object, seen: set[int] | None = None) -> int:
    """Bytes of all arrays that a value leads to, without what ``load`` gives."""
    seen = set() if seen is None else seen
    if id(value) in seen or callable(value):
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes if value.base is None else held(value.base, seen)
    if isinstance(value, dict):
        return sum(held(each, seen) for each in value.values())
    if isinstance(value, list | tuple):
        return sum(held(each, seen) for each in value)
    return held(vars(value), seen) if hasattr(value, "__dict__") else 0


def with_inner_noise(side: int, block: int, kept: float) -> NDArray[np.uint16]:
    """One class, with noise in the middle of every block; ``kept`` is how much of it."""
    rng = np.random.default_rng(7)
    labels = np.ones((side, side), np.uint16)
    noise = (rng.random(labels.shape) < kept) * rng.integers(1, 4, labels.shape)
    rows, cols = np.indices(labels.shape) % block
    inner = (np.minimum(rows, cols) > 1) & (np.maximum(rows, cols) < block - 2)
    return np.where(inner, 1 + noise, labels).astype(np.uint16)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_a_coverage_holds_nothing_of_inner_regions(tmp_path: Path, connectivity: int) -> None:
    lookup = np.zeros(65536, np.uint16)
    lookup[1:5] = [8, 8, 9, 9]
    sizes, counts = [], []
    for number, kept in enumerate((0.01, 0.9)):
        folder = tmp_path / str(number)
        folder.mkdir()
        labels = with_inner_noise(128, 32, kept)
        made = coverage(labels, Cut(32, 2, folder=folder), connectivity, codes=[(1, lookup), (2, None)])
        counts.append(sum(len(regions(made, layer)) for layer in range(2)))  # caches are filled too
        sizes.append(held(made))
    assert counts[1] > 8 * counts[0]
    assert sizes[1] == sizes[0]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_what_goes_up_the_tree_is_only_the_border(connectivity: int) -> None:
    """Frontiers, which the joints above hold, don't grow with inner regions, nor do the pieces of joints."""

    def sizes(kept: float) -> tuple[int, int]:
        labels = with_inner_noise(64, 32, kept)
        partitions, _ = layers_of([(None, None)], connectivity)
        tree = Tree(BlockGrid(labels.shape, 32))
        leaves = [
            piece_of(trace_block(labels[box.slices], box, connectivity), partitions, corners=True)
            for box in map(tree.box, tree.level(0))
        ]
        joint = knit(leaves, partitions, Box.of(labels.shape))
        return sum(held(leaf.frontier()) for leaf in leaves), held(joint)

    assert sizes(0.9) == sizes(0.02)
