"""Named traps of vectorising by blocks, and what traces promise."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.errors import InputError, ReadError
from rssegment.grid import BlockGrid, Box
from rssegment.vector import BlockTrace, Regions, join, trace_block, trace_raster
from tests.vector.reference import gdal_polygons, our_polygons, same


def raster(text: str) -> NDArray[np.uint16]:
    return np.array([[int(c) for c in row] for row in text.split()], np.uint16)


def traces(labels: NDArray[np.uint16], block: int, connectivity: int = 4) -> list[BlockTrace]:
    grid = BlockGrid(labels.shape, block)
    return [trace_block(labels[each.core.slices], each.core, connectivity) for each in grid]


def spiral(n: int) -> NDArray[np.uint16]:
    labels = np.full((n, n), 2, np.uint16)
    row, col, step = 0, 0, (0, 1)
    box = [0, 0, n - 1, n - 1]
    while box[0] <= box[2] and box[1] <= box[3]:
        labels[row, col] = 1
        r, c = row + step[0], col + step[1]
        if not (box[0] <= r <= box[2] and box[1] <= c <= box[3]):
            if step == (0, 1):
                step, box[0] = (1, 0), box[0] + 2
            elif step == (1, 0):
                step, box[3] = (0, -1), box[3] - 2
            elif step == (0, -1):
                step, box[2] = (-1, 0), box[2] - 2
            else:
                step, box[1] = (0, 1), box[1] + 2
            r, c = row + step[0], col + step[1]
        row, col = r, c
    return labels


TRAPS = {
    "a region crossing four blocks at a corner": raster("0000 0110 0110 0000"),
    "a ring that closes only across blocks": raster("1111 1221 1221 1111"),
    "diagonal contact at a block corner": raster("1122 1122 2211 2211"),
    "diagonal contact at a block corner, no data between": raster("0000 0100 0010 0000"),
    "opposite diagonal contact at a block corner": raster("0000 0010 0100 0000"),
    "diagonal contact on a seam": raster("0000 1000 0100 0000"),
    "diagonal contact inside a block": raster("1000 0100 0000 0000"),
    "a hole spanning blocks": raster("111111 122221 122221 111111"),
    "a hole that touches its shell at a block corner": raster("2111 1211 1121 1111"),
    "two holes that touch at a block corner": raster("1111 1211 1121 1111"),
    "nested islands": raster("11111111 12222221 12333321 12344321 12344321 12333321 12222221 11111111"),
    "one-pixel regions": np.arange(1, 37, dtype=np.uint16).reshape(6, 6),
    "a checkerboard": (np.indices((7, 9)).sum(axis=0) % 2 + 1).astype(np.uint16),
    "a checkerboard with no data": (np.indices((7, 9)).sum(axis=0) % 2).astype(np.uint16),
    "no data as a hole": raster("1111 1001 1001 1111"),
    "no data as a corner": raster("0111 0011 1111 1111"),
    "one class": np.ones((6, 5), np.uint16),
    "no data alone": np.zeros((6, 5), np.uint16),
    "one row": raster("1122201110"),
    "one column": raster("1122201110").T.copy(),
    "one pixel": raster("7"),
    "a spiral": spiral(21),
    "a comb": np.where(np.arange(12) % 2, 1, np.where(np.arange(6)[:, None] == 5, 1, 2)).astype(np.uint16),
    "the highest codes": np.array([[65535, 65534], [65534, 65535]], np.uint16),
    "a ring through its own corner twice": raster("11100 10100 11111 00101 00111"),
}


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("name", TRAPS)
def test_trap(name: str, connectivity: int) -> None:
    labels = TRAPS[name]
    expected = gdal_polygons(labels, connectivity)
    first = trace_raster(labels, 100, connectivity)
    for block in range(1, max(labels.shape) + 1):
        assert our_polygons(trace_raster(labels, block, connectivity, valid=False)) == expected, block
        regions = trace_raster(labels, block, connectivity)
        assert same(regions, first), block
        assert shapely.is_valid(regions.to_shapely()).all()


def test_diagonal_contact_counts_as_asked() -> None:
    labels = TRAPS["diagonal contact at a block corner, no data between"]
    assert len(trace_raster(labels, 2, 4)) == 2
    joined = trace_raster(labels, 2, 8)
    assert len(joined) == 1
    assert joined.pixels[0] == 2
    assert joined.to_shapely()[0].geom_type == "MultiPolygon"  # valid: a polygon can't hang by a corner
    assert trace_raster(labels, 2, 8, valid=False).to_shapely()[0].geom_type == "Polygon"


def test_ids_rings_and_sums() -> None:
    labels = raster("2211 2211 1112 1112")
    confidence = np.array([[0, 1, 2, 3], [4, 255, 6, 7], [8, 9, 10, 11], [12, 13, 14, 255]], np.uint8)
    regions = trace_raster(labels, 3, 4, confidence)
    assert regions.id.tolist() == [1, 2, 3]
    assert regions.code.tolist() == [2, 1, 2]
    assert regions.first.tolist() == [[0, 0], [0, 2], [2, 3]]
    assert regions.pixels.tolist() == [4, 10, 2]
    assert regions.sums.tolist() == [[4, 5, 3], [10, 84, 10], [2, 11, 1]]
    assert np.allclose(regions.confidence, [5 / 3, 8.4, 11])
    ring = regions[2:3].corners.tolist()
    assert ring == [
        [2, 3],
        [4, 3],
        [4, 4],
        [2, 4],
        [2, 3],
    ]  # from its topmost, then leftmost corner, downwards


def test_confidence_unknown_is_nan() -> None:
    assert np.isnan(trace_raster(np.ones((2, 2), np.uint16), 1).confidence).all()
    assert np.isnan(
        trace_raster(np.ones((2, 2), np.uint16), 1, 4, np.full((2, 2), 255, np.uint8)).confidence
    ).all()


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_sums_are_exact(seed: int, height: int, width: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (height, width)).astype(np.uint16)
    confidence = rng.integers(0, 256, (height, width)).astype(np.uint8)
    regions = trace_raster(labels, block, 8, confidence)
    assert regions.pixels.sum() == np.count_nonzero(labels)
    known = (labels > 0) & (confidence != 255)
    assert regions.sums[:, 1].sum() == confidence[known].sum(dtype=np.int64)
    assert regions.sums[:, 2].sum() == np.count_nonzero(known)
    assert labels[tuple(regions.first.T)].tolist() == regions.code.tolist()
    assert (np.diff(regions.first @ [width, 1]) > 0).all()


def test_order_and_storage_of_blocks_do_not_matter(tmp_path: Path) -> None:
    labels = np.random.default_rng(2).integers(0, 4, (30, 40)).astype(np.uint16)
    made = traces(labels, 7, 8)
    expected = join(made, 8)
    for trace in made:
        trace.save(tmp_path / f"{trace.core.row}_{trace.core.col}.part")  # exactly this name
    loaded = [BlockTrace.load(path) for path in sorted(tmp_path.iterdir(), reverse=True)]
    assert len(loaded) == len(made)
    assert same(join(loaded, 8), expected)
    assert same(join(made, 4), trace_raster(labels, 11))


def test_blocks_of_any_shape_can_be_joined() -> None:
    labels = np.random.default_rng(3).integers(0, 4, (30, 40)).astype(np.uint16)
    boxes = [Box(0, 0, 30, 13), Box(0, 13, 9, 27), Box(9, 13, 21, 20), Box(9, 33, 21, 7)]
    made = [trace_block(labels[box.slices], box) for box in boxes]
    assert same(join(made), trace_raster(labels, 100))


def test_missing_blocks_are_no_data() -> None:
    labels = np.random.default_rng(4).integers(0, 4, (20, 20)).astype(np.uint16)
    made = traces(labels, 6)
    kept = [trace for k, trace in enumerate(made) if k % 3]
    for k, trace in enumerate(made):
        if k % 3 == 0:
            labels[trace.core.slices] = 0
    assert our_polygons(join(kept)) == gdal_polygons(labels, 4)


def test_nothing_joined_is_nothing() -> None:
    assert len(join([])) == 0
    assert join(traces(np.zeros((4, 4), np.uint16), 2)).to_shapely().size == 0
    assert list(Regions.none().chunks()) == []


def test_a_block_far_into_a_large_scene() -> None:
    labels = raster("112 212 222")
    core = Box(200_000, 300_000, 3, 3)
    regions = join([trace_block(labels, core)])
    assert regions.corners.min(axis=0).tolist() == [200_000, 300_000]
    assert regions.first[0].tolist() == [200_000, 300_000]
    assert np.array_equal(shapely.area(regions.to_shapely()), regions.pixels)


def test_views_are_traced_like_copies() -> None:
    labels = np.random.default_rng(5).integers(0, 3, (20, 30)).astype(np.uint16)
    assert same(trace_raster(labels.T, 7), trace_raster(labels.T.copy(), 7))
    assert same(trace_raster(labels.astype(np.uint8), 7), trace_raster(labels, 7))


def test_slices_and_chunks_hold_the_same_regions() -> None:
    regions = trace_raster(np.random.default_rng(6).integers(0, 3, (30, 30)).astype(np.uint16), 9, 8)
    whole = regions.to_shapely()
    for size in (1, 50, 10**9):
        chunks = list(regions.chunks(size))
        assert np.concatenate([chunk.id for chunk in chunks]).tolist() == regions.id.tolist()
        assert shapely.equals_exact(np.concatenate([chunk.to_shapely() for chunk in chunks]), whole).all()
    with pytest.raises(InputError, match="consecutive"):
        regions[::2]


@pytest.mark.parametrize(
    ("labels", "core", "connectivity", "confidence", "message"),
    [
        (np.ones((2, 3), np.uint16), Box(0, 0, 3, 2), 4, None, "don't fill"),
        (np.ones((2, 3), np.float32), Box(0, 0, 2, 3), 4, None, "float32"),
        (np.ones((2, 3), np.uint16), Box(0, 0, 2, 3), 6, None, "connectivity is 6"),
        (np.ones((2, 3), np.uint16), Box(0, 0, 2, 3), 4, np.ones((2, 3)), "confidence is float64"),
        (np.ones((2, 3), np.uint16), Box(0, 0, 2, 3), 4, np.ones((3, 2), np.uint8), r"shape \(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(labels, core, connectivity, confidence, message) -> None:
    with pytest.raises(InputError, match=message):
        trace_block(labels, core, connectivity, confidence)


def test_overlapping_blocks_are_refused() -> None:
    labels = np.ones((4, 4), np.uint16)
    boxes = [Box(0, 0, 4, 4), Box(2, 3, 4, 4), Box(4, 0, 4, 3)]
    made = [trace_block(labels[: box.height, : box.width], box) for box in boxes]
    for few in itertools.permutations(made):
        with pytest.raises(InputError, match="overlap"):
            join(few)
    with pytest.raises(InputError, match="trace them with 8"):
        join(made[:1], 8)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_a_broken_trace_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r0000_c0000.npz"
    with pytest.raises(ReadError, match="r0000_c0000"):
        BlockTrace.load(path)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="delete it"):
        BlockTrace.load(path)
    whole = tmp_path / "whole.npz"
    trace_block(np.ones((50, 50), np.uint16), Box(0, 0, 50, 50)).save(whole)
    path.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(ReadError, match="r0000_c0000"):
        BlockTrace.load(path)


def test_importing_the_package_does_not_load_the_compiler() -> None:
    code = (
        "import sys, rssegment, rssegment.vector, rssegment.write.geojson; sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
