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
from tests.vector.reference import gdal_polygons, gdal_valid, our_polygons, our_valid, same

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


@settings(max_examples=300)
@given(rasters | seeded, st.integers(1, 25), st.sampled_from([4, 8]))
def test_regions_equal_gdal(labels: NDArray[np.uint16], block: int, connectivity: int) -> None:
    regions = trace_raster(labels, block, connectivity, valid=False)
    assert our_polygons(regions) == gdal_polygons(labels, connectivity)
    assert np.all(np.diff(regions.part_offsets) == 1)


@settings(max_examples=150)
@given(rasters | seeded, st.integers(1, 25), st.sampled_from([4, 8]))
def test_valid_regions_equal_gdal_made_valid(
    labels: NDArray[np.uint16], block: int, connectivity: int
) -> None:
    regions = trace_raster(labels, block, connectivity)
    assert our_valid(regions) == gdal_valid(labels, connectivity)
    polygons = regions.to_shapely()
    assert shapely.is_valid(polygons).all()
    assert np.array_equal(shapely.area(polygons), regions.pixels)


@settings(max_examples=200)
@given(rasters | seeded, st.integers(1, 25), st.integers(1, 25), st.sampled_from([4, 8]), st.booleans())
def test_result_does_not_depend_on_blocks(
    labels: NDArray[np.uint16], block: int, other: int, connectivity: int, valid: bool
) -> None:
    confidence = (labels.astype(np.int64) * 7919 % 256).astype(np.uint8)
    one = trace_raster(labels, block, connectivity, confidence, valid=valid)
    assert same(one, trace_raster(labels, other, connectivity, confidence, valid=valid))


@settings(max_examples=100)
@given(rasters | seeded, st.integers(1, 25))
def test_regions_are_a_coverage_with_shared_vertices(labels: NDArray[np.uint16], block: int) -> None:
    assert shapely.coverage_is_valid(trace_raster(labels, block).to_shapely())


def _read(path: Path, window: Window) -> NDArray[np.uint16]:
    with rasterio.open(path) as file:
        return file.read(1, window=window).astype(np.uint16)


@pytest.mark.data
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(
    ("name", "row", "col", "side"),
    [
        ("fixtures/label_rasters/CDL_2016_19_train.tif", 3000, 3000, 2048),
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
    assert our_polygons(regions) == gdal_polygons(labels, connectivity)
    assert same(trace_raster(labels, 512, connectivity), trace_raster(labels, 2048, connectivity))
