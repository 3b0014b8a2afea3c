"""Cleaning over blocks: the same as on the graph of the whole raster, however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window

from rssegment.grid import BlockGrid
from rssegment.vector import Tree
from rssegment.vector.adjacency import Limits, Recoding, cleaned, finest_codes
from rssegment.vector.ground import pixel_area
from rssegment.vector.pieces import keys_of
from rssegment.vector.trace import recoded
from tests.vector.engine import Cut, coverage
from tests.vector.reference import expected
from tests.vector.test_clean import cleaned as cleaned_whole
from tests.vector.test_law2 import cuts, rasters, seeded
from tests.vector.test_law3 import noise

PixelArea = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


def clean_blocks(
    labels: NDArray[np.uint16], cut: Cut, limits: Limits, connectivity: int = 4
) -> NDArray[np.uint16]:
    """``labels`` cleaned as a run does it: the graph over all blocks, then each block by itself."""
    made = coverage(labels, cut, connectivity)
    recoding = cleaned(made, limits)
    out = np.empty_like(labels)
    tree = Tree(BlockGrid(labels.shape, cut.block), cut.fan)
    for node in tree.level(0):
        piece, final = made.piece(node)
        codes = finest_codes(piece, final, made.layers[0].regions, recoding)
        core = tree.box(node)
        out[core.slices] = recoded(labels[core.slices], core, codes)
    return out


limits_px = st.tuples(st.sampled_from([0, 1, 2, 3, 5, 9, 30, 1000]), st.sampled_from([0, 2, 4, 10, 50, 1000]))


@settings(max_examples=200)
@given(rasters | seeded, cuts, limits_px, st.sampled_from([4, 8]))
def test_blocks_are_cleaned_like_the_whole(
    labels: NDArray[np.uint16], cut: Cut, limits: tuple[int, int], connectivity: int
) -> None:
    found = clean_blocks(labels, cut, Limits(*map(float, limits)), connectivity)
    assert np.array_equal(found, cleaned_whole(labels, *limits, connectivity))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("sigma", [0.6, 1.5, 3])
def test_large_scenes_are_cleaned_like_the_whole(sigma: float, connectivity: int) -> None:
    labels = noise(150, sigma, 5)
    labels[noise(150, 2, 6, seed=9) == 1] = 0
    for region, hole in ((30, 0), (0, 60), (25, 80)):
        whole = cleaned_whole(labels, region, hole, connectivity)
        assert not np.array_equal(whole, labels)
        for cut in (Cut(40, 2), Cut(64), Cut(500)):
            assert np.array_equal(clean_blocks(labels, cut, Limits(region, hole), connectivity), whole)


@settings(max_examples=100)
@given(rasters | seeded, cuts, limits_px)
def test_what_cleaning_promises(labels: NDArray[np.uint16], cut: Cut, limits: tuple[int, int]) -> None:
    """No region that has a neighbour is below the least area; no data stays what it is."""
    found = clean_blocks(labels, cut, Limits(*map(float, limits)))
    assert np.array_equal(found == 0, labels == 0)
    known = expected(found)
    small = np.flatnonzero(known.sums[:, 0] < limits[0]) + 1
    ring = np.pad(known.of_pixel, 1)
    for sideways in (ring[:, :-1], ring[:, 1:]), (ring[:-1], ring[1:]):
        a, b = sideways
        assert not (np.isin(a, small) & (b != a) & (b > 0)).any()
        assert not (np.isin(b, small) & (b != a) & (a > 0)).any()


def test_a_region_is_measured_over_all_blocks() -> None:
    """A filter before the join would drop its parts, each of which is too small."""
    labels = np.ones((12, 12), np.uint16)
    labels[4:8, 4:8] = 2
    for block in (2, 4, 6, 100):
        assert np.array_equal(clean_blocks(labels, Cut(block, 2), Limits(16, 0)), labels)
        assert clean_blocks(labels, Cut(block, 2), Limits(17, 0)).tolist() == np.ones((12, 12)).tolist()


def by_row(area: float, way: int = 1) -> PixelArea:
    """Areas that fall from row to row, as those of a geographic grid do towards the pole; or rise (``way`` -1)."""
    return lambda rows, cols: area / (1.0 + rows) ** way


@settings(max_examples=150)
@given(rasters | seeded, cuts, limits_px, st.sampled_from([4, 8]), st.sampled_from([1, -1]))
def test_areas_that_vary(
    labels: NDArray[np.uint16], cut: Cut, limits: tuple[int, int], connectivity: int, way: int
) -> None:
    """Each region is held against the limits at its own place; a hole against those of what is around it."""
    known = expected(labels, connectivity)
    area = by_row(4.0, way)(*known.first.T)
    whole = cleaned_whole(labels, limits[0] / area, limits[1] / area, connectivity)
    metric = Limits(*map(float, limits), by_row(4.0, way))
    assert np.array_equal(clean_blocks(labels, cut, metric, connectivity), whole)


@settings(max_examples=60)
@given(rasters | seeded, cuts, limits_px, st.booleans())
def test_one_limit_in_pixels_and_one_in_metres(
    labels: NDArray[np.uint16], cut: Cut, limits: tuple[int, int], region_in_px: bool
) -> None:
    area = by_row(4.0)(*expected(labels).first.T)
    smallest = limits[0] / (1 if region_in_px else area)
    hole = limits[1] / (area if region_in_px else 1)
    mixed = Limits(*map(float, limits), by_row(4.0), region_in_px, not region_in_px)
    assert np.array_equal(clean_blocks(labels, cut, mixed), cleaned_whole(labels, smallest, hole))


def rows_measured(shape: tuple[int, int]) -> NDArray[np.int64]:
    """Rows at which the widest hole of a scene of ``shape`` is looked for."""
    asked: list[NDArray[np.int64]] = []

    def recorded(rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
        asked.append(rows)
        return np.ones(rows.size)

    Limits(0, 1, recorded).widest_hole(shape)
    return np.unique(np.concatenate(asked))


@pytest.mark.parametrize("cut", [Cut(64, 2), Cut(500)])
def test_a_hole_just_below_a_limit_that_no_sample_has(cut: Cut) -> None:
    """Pixels are least where they are not measured: there a region's limit is 8% more pixels than anywhere else."""
    shape = (200, 30)
    measured = rows_measured(shape)
    top = int(np.setdiff1d(np.arange(shape[0]), measured)[0])
    labels = np.full(shape, 3, np.uint16)
    labels[top:] = 1  # its first pixel is in a row that was not measured
    labels[top + 60 : top + 63, 10:17] = 2
    labels[top + 90 : top + 92, 10:21] = 2
    limits = Limits(0, 20, lambda rows, cols: np.where(np.isin(rows, measured), 1.0, 1 / 1.08))
    filled = labels.copy()
    filled[top + 60 : top + 63, 10:17] = 1  # 21 px, less than 20 * 1.08; 22 px are more
    assert np.array_equal(clean_blocks(labels, cut, limits), filled)


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(0.9, 0, -180, 0, -0.6, 90)),
        ("EPSG:4326", Affine(0.001, 0, 20, 0, -0.001, 70)),
        ("EPSG:32631", Affine(3000, 0, -100000, 0, -3000, 6000000)),
        ("EPSG:3857", Affine(90000, 0, -18000000, 0, -90000, 18000000)),
        ("EPSG:3413", Affine(20000, 0, -4000000, 0, -20000, 3000000)),
        ("EPSG:3035", Affine(10000, 3000, 2500000, 3000, -10000, 4000000)),
    ],
    ids=["globe", "degrees", "utm", "mercator", "polar", "turned"],
)
def test_no_hole_is_wider_than_the_widest(crs: str, affine: Affine) -> None:
    shape = (300, 400)
    limits = Limits(0, 1e9, lambda rows, cols: pixel_area(affine, crs, rows, cols))
    rows, cols = np.indices(shape)
    every = limits.pixels(keys_of(np.stack([rows.ravel(), cols.ravel()], axis=1)))[1]
    assert np.isfinite(every).all()
    assert every.max() <= limits.widest_hole(shape) <= 1.2 * every.max()


def test_what_is_large_is_not_held() -> None:
    """The graph has the small regions and their neighbours alone; the recoding what changes."""
    labels = np.kron(np.arange(1, 101, dtype=np.uint16).reshape(10, 10), np.ones((6, 6), np.uint16))
    labels[20, 20] = 999
    recoding = cleaned(coverage(labels, Cut(11)), Limits(5, 5))
    assert recoding.codes.tolist() == [labels[20, 19]]
    assert recoding.keys.tolist() == [(20 << 32) + 20]
    assert cleaned(coverage(labels, Cut(11)), Limits(0, 0)).keys.size == 0


def test_recoding_changes_what_it_names() -> None:
    recoding = Recoding(np.array([3, 7]), np.array([30, 70], np.uint16))
    keys = np.array([7, 1, 3, 9])
    assert recoding.apply(keys, np.array([1, 2, 3, 4], np.uint16)).tolist() == [70, 2, 30, 4]
    nothing = Recoding(np.empty(0, np.int64), np.empty(0, np.uint16))
    assert nothing.apply(keys, np.array([1, 2, 3, 4], np.uint16)).tolist() == [1, 2, 3, 4]


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["fixtures/label_rasters/CDL_2016_19_train.tif", "flair_d034/Z1_NN_train_labels.tif"]
)
def test_real_labels_are_cleaned_like_the_whole(data: Path, name: str) -> None:
    with rasterio.open(data / name) as file:
        labels = file.read(1, window=Window(300, 200, 500, 400)).astype(np.uint16)
    for connectivity in (4, 8):
        whole = cleaned_whole(labels, 40, 90, connectivity)
        assert np.array_equal(clean_blocks(labels, Cut(128, 2), Limits(40, 90), connectivity), whole)
