"""Law 2: unsimplified regions are exactly those of GDAL on the whole raster, whatever the blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from rasterio.windows import Window

from rssegment.vector import trace_raster
from tests.vector.engine import Cut, Scene, traced
from tests.vector.reference import (
    gdal_hashes,
    gdal_polygons,
    gdal_valid,
    our_hashes,
    our_polygons,
    our_valid,
    same,
)

rasters = st.tuples(st.integers(1, 24), st.integers(1, 24), st.integers(1, 4)).flatmap(
    lambda p: hnp.arrays(np.uint16, p[:2], elements=st.integers(0, p[2]))
)
seeded = st.builds(
    lambda seed, h, w, k: np.random.default_rng(seed).integers(0, k + 1, (h, w)).astype(np.uint16),
    st.integers(0, 2**32),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(1, 4),
)
cuts = st.builds(Cut, st.integers(2, 25), st.integers(2, 4), st.none() | st.integers(0, 99))


@settings(max_examples=100)
@given(rasters | seeded, st.integers(1, 25), st.sampled_from([4, 8]))
def test_regions_equal_gdal(labels: NDArray[np.uint16], block: int, connectivity: int) -> None:
    regions = trace_raster(labels, block, connectivity, valid=False)
    assert our_polygons(regions) == gdal_polygons(labels, connectivity)
    assert np.all(np.diff(regions.part_offsets) == 1)


@settings(max_examples=80)
@given(rasters | seeded, cuts, st.sampled_from([4, 8]))
def test_valid_regions_equal_gdal_made_valid(labels: NDArray[np.uint16], cut: Cut, connectivity: int) -> None:
    (regions,) = traced(labels, cut, connectivity)
    assert our_valid(regions) == gdal_valid(labels, connectivity)
    polygons = regions.to_shapely()
    assert shapely.is_valid(polygons).all()
    assert np.array_equal(shapely.area(polygons), regions.pixels)


@settings(max_examples=100)
@given(rasters | seeded, cuts, cuts, st.sampled_from([4, 8]))
def test_result_does_not_depend_on_the_cut(
    labels: NDArray[np.uint16], cut: Cut, other: Cut, connectivity: int
) -> None:
    """Neither on blocks, nor on the fan of the tree, nor on any order."""
    confidence = (labels.astype(np.int64) * 7919 % 256).astype(np.uint8)
    scene = Scene(labels, confidence, confidence[::-1].copy())
    assert same(*(traced(scene, each, connectivity)[0] for each in (cut, other)))


@settings(max_examples=60)
@given(rasters | seeded, cuts)
def test_regions_are_a_coverage_with_shared_vertices(labels: NDArray[np.uint16], cut: Cut) -> None:
    assert shapely.coverage_is_valid(traced(labels, cut)[0].to_shapely())


def _read(path: Path, window: Window | None = None) -> NDArray[np.uint16]:
    with rasterio.open(path) as file:
        return file.read(1, window=window).astype(np.uint16)


@pytest.mark.data
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(
    ("name", "row", "col", "side"),
    [
        ("fixtures/label_rasters/CDL_2016_19_train.tif", 3000, 3000, 1024),
        ("flair_d034/Z4_UU_val_labels.tif", 0, 0, 1024),
        ("flair_d034/Z1_NN_train_labels.tif", 300, 500, 1024),
    ],
)
def test_real_labels_equal_gdal(
    data: Path, name: str, row: int, col: int, side: int, connectivity: int
) -> None:
    labels = _read(data / name, Window(col, row, side, side))
    assert labels.size
    regions = trace_raster(labels, 333, connectivity, valid=False)
    assert np.array_equal(our_hashes(regions), gdal_hashes(labels, connectivity))
    assert same(trace_raster(labels, 300, connectivity), trace_raster(labels, 2048, connectivity))


@pytest.mark.data
@pytest.mark.slow
def test_every_flair_file_equals_gdal(data: Path) -> None:
    paths = sorted((data / "flair_d034").glob("*_labels.tif"))
    assert paths
    for path in paths:
        labels = _read(path)
        for connectivity in (4, 8):
            regions = trace_raster(labels, 1000, connectivity, valid=False)
            assert np.array_equal(our_hashes(regions), gdal_hashes(labels, connectivity)), path.name


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("connectivity", [4, 8])
def test_a_whole_cropland_raster_equals_gdal(data: Path, connectivity: int) -> None:
    labels = _read(data / "fixtures/label_rasters/CDL_2016_19_train.tif")
    assert labels.shape == (8000, 8000)
    regions = trace_raster(labels, 1500, connectivity, valid=False)
    assert np.array_equal(our_hashes(regions), gdal_hashes(labels, connectivity))


def test_the_hashes_tell_polygons_apart() -> None:
    """The same for the same polygons, however they are written; others where one pixel has changed."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (40, 50)).astype(np.uint16)
    known = gdal_hashes(labels, 4)
    assert len(np.unique(known)) == known.size > 400
    assert np.array_equal(our_hashes(trace_raster(labels, 13)), known)
    for place in rng.integers(0, 40, (20, 2)):
        other = labels.copy()
        other[tuple(place)] = other[tuple(place)] % 4 + 1
        assert not np.array_equal(our_hashes(trace_raster(other, 13)), known)
    ring = np.array([[1, 1, 1, 1], [1, 2, 2, 1], [1, 1, 1, 1]], np.uint16)
    assert not np.isin(gdal_hashes(ring, 4), gdal_hashes(ring * (ring == 1) + (ring == 2), 4)).any()
