"""Levels of a taxonomy: each level's polygons are exact unions of the next's, and every region knows its parent."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window

from rssegment.taxonomy import Taxonomy
from rssegment.vector import Regions, Simplification, trace_raster
from tests.vector.engine import Codes, Cut, Scene, coverage, regions, traced
from tests.vector.reference import check_table, expected, same
from tests.vector.test_law2 import cuts
from tests.vector.test_law3 import hows

TREE = Taxonomy.loads("""
name: three levels
classes:
  - {code: 10, name: land, color: "#806040", classes: [
      {code: 1, name: field, color: "#E0C040"},
      {code: 11, name: town, color: "#909090", classes: [
          {code: 3, name: roof, color: "#C03020"},
          {code: 4, name: street, color: "#606060"}]},
      {code: 12, name: forest, color: "#206020", classes: [
          {code: 6, name: oak, color: "#306020"},
          {code: 7, name: pine, color: "#106020"}]}]}
  - {code: 5, name: water, color: "#2060C0"}
  - {code: 20, name: ice, color: "#F0F0F0", classes: [{code: 65535, name: glacier, color: "#FFFFFF"}]}
""")
LEAVES = [1, 3, 4, 5, 6, 7, 65535]
MIXED = [0, 10, 11, 12, 20, *LEAVES]  # where a class could be told no finer


def codes_of(*levels: int) -> Codes:
    return [(level, None if level == TREE.depth else TREE.ancestor_lookup(level)) for level in levels]


def _labels(seed: int, shape: tuple[int, int], palette: list[int]) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(palette, rng.integers(1, len(palette) + 1), replace=False)
    return rng.choice(chosen, shape).astype(np.uint16)


rasters = st.builds(
    _labels,
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.sampled_from([LEAVES, MIXED]),
)
wanted = st.sampled_from([(1, 2, 3), (1, 2), (2, 3), (1, 3), (2,), (1,)])


def check_levels(
    layers: list[Regions], labels: NDArray[np.uint16], levels: tuple[int, ...], ways: int
) -> None:
    """Codes, statistics, ids and parents are those of the pixels at each level."""
    before: Regions | None = None
    above: NDArray[np.int64] | None = None
    start = 1
    for level, made in zip(levels, layers, strict=True):
        known = expected(TREE.ancestor_lookup(level)[labels], ways)
        check_table(made, known)
        assert made.id.tolist() == list(range(start, start + len(made)))
        start += len(made)
        at_first = tuple(made.first.T)
        if before is None or above is None:
            assert not made.parent.any()
        else:
            assert made.parent.tolist() == [before.id[k - 1] for k in above[at_first]]
        before, above = made, known.of_pixel


def check_unions(layers: list[Regions]) -> None:
    """Each region is the union of its children, as a geometry."""
    for coarse, fine in pairwise(layers):
        shapes, parts = coarse.to_shapely(), fine.to_shapely()
        order = np.argsort(fine.parent, kind="stable")
        groups = np.split(parts[order], np.flatnonzero(np.diff(fine.parent[order])) + 1) if len(fine) else []
        assert len(groups) == len(shapes)
        for shape, group in zip(shapes, groups, strict=True):
            assert shapely.equals(shapely.coverage_union_all(shapely.get_parts(group)), shape)


@settings(max_examples=120)
@given(rasters, cuts, wanted, st.sampled_from([4, 8]))
def test_levels_are_those_of_the_pixels(
    labels: NDArray[np.uint16], cut: Cut, levels: tuple[int, ...], connectivity: int
) -> None:
    layers = traced(labels, cut, connectivity, codes=codes_of(*levels))
    check_levels(layers, labels, levels, connectivity)
    check_unions(layers)


@settings(max_examples=60)
@given(rasters, cuts, cuts, wanted, st.sampled_from([4, 8]), hows)
def test_simplified_levels_are_unions_too(
    labels: NDArray[np.uint16],
    cut: Cut,
    other: Cut,
    levels: tuple[int, ...],
    connectivity: int,
    how: Simplification,
) -> None:
    made, again = (traced(labels, each, connectivity, how, codes_of(*levels)) for each in (cut, other))
    assert all(same(a, b) for a, b in zip(made, again, strict=True))
    check_levels(made, labels, levels, connectivity)
    check_unions(made)
    for layer in made:
        assert shapely.is_valid(layer.to_shapely()).all()
        assert shapely.coverage_is_valid(shapely.get_parts(layer.to_shapely()))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_statistics_add_up(connectivity: int) -> None:
    rng = np.random.default_rng(8)
    labels = rng.choice(MIXED, (60, 70)).astype(np.uint16)
    confidence, margin = (rng.integers(0, 256, labels.shape).astype(np.uint8) for _ in range(2))
    layers = traced(Scene(labels, confidence, margin), Cut(13, 2), connectivity, codes=codes_of(1, 2, 3))
    for level, made in zip((1, 2, 3), layers, strict=True):
        at_level = TREE.ancestor_lookup(level)[labels]
        check_table(made, expected(at_level, connectivity, confidence, margin))
    for coarse, fine in pairwise(layers):
        row = np.searchsorted(coarse.id, fine.parent)
        sums = np.zeros_like(coarse.sums)
        np.add.at(sums, row, fine.sums)
        assert np.array_equal(sums, coarse.sums)


def test_a_region_told_no_finer_is_its_own_child() -> None:
    labels = np.array([[11, 11, 3, 3], [11, 11, 4, 4]], np.uint16)
    one, two, three = traced(labels, Cut(2), codes=codes_of(1, 2, 3))
    assert one.code.tolist() == [10]
    assert two.code.tolist() == [11]
    assert three.code.tolist() == [11, 3, 4]
    assert two.parent.tolist() == [1]
    assert three.id.tolist() == [3, 4, 5]
    assert three.parent.tolist() == [2, 2, 2]


def test_siblings_that_meet_at_corners_alone_have_one_parent() -> None:
    """With connectivity 8 the parent is one region of two polygons; with 4, two regions."""
    labels = np.array([[3, 0], [0, 6]], np.uint16)
    for block in (1, 2):
        land, towns, leaves = traced(labels, Cut(block), 8, codes=codes_of(1, 2, 3))
        assert land.pixels.tolist() == [2]
        assert land.to_shapely()[0].geom_type == "MultiPolygon"
        assert (towns.parent.tolist(), leaves.parent.tolist()) == ([1, 1], [2, 3])
        land, towns, leaves = traced(labels, Cut(block), 4, codes=codes_of(1, 2, 3))
        assert land.pixels.tolist() == [1, 1]
        assert (towns.parent.tolist(), leaves.parent.tolist()) == ([1, 2], [3, 4])


def test_the_finest_level_is_the_labels_themselves() -> None:
    labels = _labels(3, (40, 50), MIXED)
    how = Simplification(1.0)
    finest = traced(labels, Cut(9), codes=codes_of(1, 2, 3), how=how)[-1]
    plain = trace_raster(labels, 100, how=how)
    for name in ("code", "sums", "part_offsets", "ring_offsets", "corner_offsets", "corners"):
        assert np.array_equal(getattr(finest, name), getattr(plain, name)), name


def test_ids_are_known_before_any_region_is_made() -> None:
    labels = _labels(4, (50, 50), MIXED)
    made = coverage(labels, Cut(8, 2), codes=codes_of(1, 2, 3))
    for layer in range(3):
        found = [made.regions(layer, span) for span in made.spans(layer)]
        assert made.counts(layer).tolist() == [len(each) for each in found]
        for band, each in enumerate(found):
            assert each.id.tolist() == list(
                range(made.first_id(layer, band), made.first_id(layer, band) + len(each))
            )


@pytest.mark.data
def test_levels_of_real_labels(data: Path) -> None:
    flair = Taxonomy.load("flair")
    with rasterio.open(data / "flair_d034/Z4_UU_val_labels.tif") as file:
        labels = file.read(1, window=Window(0, 0, 700, 600)).astype(np.uint16)
    codes = [(k, None if k == flair.depth else flair.ancestor_lookup(k)) for k in range(1, flair.depth + 1)]
    how = Simplification(2.0, "vw", 1)
    layers = traced(labels, Cut(256), how=how, codes=codes)
    assert all(
        same(a, b) for a, b in zip(layers, traced(labels, Cut(300, 2), how=how, codes=codes), strict=True)
    )
    check_unions(layers)
    made = coverage(labels, Cut(256), codes=codes)
    assert sum(len(regions(made, k)) for k in range(flair.depth)) == sum(map(len, layers))
