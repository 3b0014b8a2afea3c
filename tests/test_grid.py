"""Boxes, blocks and the patch lattice."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from rssegment.errors import SettingsError
from rssegment.grid import BlockGrid, Box, PatchLattice, ground_resolution, reflect, scaled_geobox

shapes = st.tuples(st.integers(1, 300), st.integers(1, 300))
boxes = st.builds(Box, st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 60), st.integers(0, 60))


@given(shapes, st.integers(1, 100))
def test_cores_partition_the_grid(shape: tuple[int, int], size: int) -> None:
    count = np.zeros(shape, int)
    grid = BlockGrid(shape, size)
    for block in grid:
        count[block.core.slices] += 1
    assert (count == 1).all()
    assert len(list(grid)) == len(grid) == len({block.name for block in grid})


@given(boxes, boxes)
def test_clip_is_the_common_part(a: Box, b: Box) -> None:
    common = {(r, c) for r in range(a.row, a.stop_row) for c in range(a.col, a.stop_col)} & {
        (r, c) for r in range(b.row, b.stop_row) for c in range(b.col, b.stop_col)
    }
    clipped = a.clip(b)
    assert clipped.size == len(common)
    assert all(clipped.row <= r < clipped.stop_row and clipped.col <= c < clipped.stop_col for r, c in common)


@st.composite
def lattices(draw: st.DrawFn) -> PatchLattice:
    patch = draw(st.integers(1, 80))
    return PatchLattice(draw(shapes), patch, draw(st.integers(0, patch // 2)))


@given(lattices())
def test_every_pixel_is_in_the_middle_of_one_patch(lattice: PatchLattice) -> None:
    count = np.zeros(lattice.shape[0], int)
    for k in range(lattice.lattice_shape[0]):
        middle = lattice.start(k) + lattice.margin
        count[middle : middle + lattice.stride] += 1
    assert (count == 1).all()


@given(lattices(), st.data())
def test_touching_patches_are_those_that_share_a_pixel(lattice: PatchLattice, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, lattice.shape[0] - 1))
    col = data.draw(st.integers(0, lattice.shape[1] - 1))
    box = Box(row, col, 17, 9).clip(Box.of(lattice.shape))
    rows, cols = lattice.lattice_shape
    expected = [(i, j) for i in range(rows) for j in range(cols) if lattice.box((i, j)).clip(box).size]
    assert lattice.touching(box) == expected


@given(st.integers(1, 40), st.integers(0, 200))
def test_reflection_is_numpys(length: int, pad: int) -> None:
    indices = np.arange(-pad, length + pad)
    np.testing.assert_array_equal(reflect(indices, length), np.pad(np.arange(length), pad, mode="reflect"))


@pytest.mark.parametrize(("patch", "overlap"), [(0, 0), (8, 5), (8, -1)])
def test_impossible_lattices_are_refused(patch: int, overlap: int) -> None:
    with pytest.raises(SettingsError):
        PatchLattice((10, 10), patch, overlap)


def test_ground_resolution_is_true_on_the_ellipsoid() -> None:
    mercator = GeoBox((100, 100), Affine(1, 0, 0, 0, -1, 8399737.9), "EPSG:3857")  # 60 degrees north
    assert ground_resolution(mercator) == pytest.approx((0.5, 0.5), rel=5e-3)
    degrees = GeoBox((10, 10), Affine(1e-4, 0, 0, 0, -1e-4, 0.0005), "EPSG:4326")
    assert ground_resolution(degrees) == pytest.approx((11.0574, 11.1319), rel=1e-4)
    turned = GeoBox(
        (10, 10), Affine.translation(5e5, 0) * Affine.rotation(30) * Affine.scale(2, -3), "EPSG:32631"
    )
    assert ground_resolution(turned) == pytest.approx((3 / 0.9996, 2 / 0.9996), rel=1e-5)


def test_no_crs_no_ground_resolution() -> None:
    with pytest.raises(SettingsError, match="CRS"):
        ground_resolution(GeoBox((10, 10), Affine.identity(), None))


@given(shapes, st.floats(0.2, 5), st.floats(0.2, 5))
def test_scaled_grid_covers_the_same_ground(shape: tuple[int, int], down: float, across: float) -> None:
    fine = GeoBox(shape, Affine.rotation(20) * Affine.scale(2, -2), "EPSG:32631")
    coarse = scaled_geobox(fine, (down, across))
    assert (coarse.affine * (0, 0)) == (fine.affine * (0, 0))
    reach = ~fine.affine * coarse.affine * (coarse.shape[1], coarse.shape[0])
    assert reach[0] >= shape[1] - 1e-3 * across or coarse.shape[1] == 1
    assert shape[1] + across > reach[0]
    assert shape[0] + down > reach[1]
