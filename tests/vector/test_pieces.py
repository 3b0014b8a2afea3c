"""What traces and pieces promise: their files, what they refuse, and how tables of regions are cut."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rssegment.errors import InputError, ReadError
from rssegment.grid import BlockGrid, Box
from rssegment.vector import Chains, Piece, Regions, Tree, layers_of, piece_of, trace_block, trace_raster
from rssegment.vector.trace import recoded
from tests.vector.reference import expected, same


def leaf(labels: NDArray[np.uint16], connectivity: int = 8) -> Piece:
    lookup = np.zeros(65536, np.uint16)
    lookup[1:9] = 3
    partitions, _ = layers_of([(1, lookup), (2, None)], connectivity)
    return piece_of(trace_block(labels, Box.of(labels.shape), connectivity), partitions, corners=True)


def arrays_of(piece: Piece) -> dict[str, NDArray]:
    return dict(piece._arrays())


@pytest.mark.parametrize("connectivity", [4, 8])
def test_a_piece_comes_back_from_its_file(tmp_path: Path, connectivity: int) -> None:
    piece = leaf(np.random.default_rng(1).integers(0, 4, (20, 30)).astype(np.uint16), connectivity)
    assert (len(piece.touching) > 0) == (connectivity == 8)
    piece.save(tmp_path / "a.part")  # exactly this name
    back = Piece.load(tmp_path / "a.part")
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]
    assert back.box == piece.box
    known, found = arrays_of(piece), arrays_of(back)
    assert known.keys() == found.keys()
    for name in known.keys() - {"corners"}:
        assert np.array_equal(known[name], found[name]), name
        assert known[name].dtype == found[name].dtype, name
    assert np.array_equal(Piece.load_corners(tmp_path / "a.part"), piece.corners)
    few = Piece.load(tmp_path / "a.part", chains=False)
    assert len(few.chains) == 0
    assert len(few.loose) == len(piece.loose) > 0


def test_chains_come_back_from_their_file(tmp_path: Path) -> None:
    chains = replace(leaf(np.array([[1, 2, 2], [3, 4, 1], [2, 1, 1]], np.uint16)).chains, scale=16)
    chains.save(tmp_path / "a.part")
    back = Chains.load(tmp_path / "a.part")
    assert back.scale == 16
    for name in ("nodes", "ends", "sides", "offsets", "vertices"):
        assert np.array_equal(getattr(back, name), getattr(chains, name)), name


def test_equal_pieces_are_equal_files(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 4, (20, 30)).astype(np.uint16)
    for name in ("a", "b"):
        leaf(labels).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"no archive at all"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r0000_c0000.npz"
    for load in (Piece.load, Piece.load_corners, Chains.load):
        path.unlink(missing_ok=True)
        with pytest.raises(ReadError, match="r0000_c0000"):
            load(path)
        path.write_bytes(content)
        with pytest.raises(ReadError, match="delete it"):
            load(path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Cut short at any place, or with other arrays in it, or with a byte that fell over."""
    whole, path = tmp_path / "whole.npz", tmp_path / "r0000_c0000.npz"
    leaf(np.ones((50, 50), np.uint16)).save(whole)
    content = whole.read_bytes()
    for length in range(0, len(content) - 1, 997):
        path.write_bytes(content[:length])
        with pytest.raises(ReadError, match="r0000_c0000"):
            Piece.load(path)
    np.savez(path, other=np.arange(3))
    with pytest.raises(ReadError, match="r0000_c0000"):
        Piece.load(path)
    np.save(path.with_suffix(".npy"), np.arange(3))
    with pytest.raises(ReadError, match="r0000_c0000"):
        Piece.load(path.with_suffix(".npy"))
    at = content.index(b"border.npy") + 300
    path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    with pytest.raises(ReadError, match="r0000_c0000"):
        Piece.load(path)


def test_views_are_traced_like_copies() -> None:
    labels = np.random.default_rng(5).integers(0, 3, (20, 30)).astype(np.uint16)
    assert same(trace_raster(labels.T, 7), trace_raster(labels.T.copy(), 7))
    assert same(trace_raster(labels[::2, ::-3], 7), trace_raster(labels[::2, ::-3].copy(), 7))
    assert same(trace_raster(labels.astype(np.uint8), 7), trace_raster(labels, 7))


def test_slices_and_chunks_hold_the_same_regions() -> None:
    regions = trace_raster(np.random.default_rng(6).integers(0, 3, (30, 30)).astype(np.uint16), 9, 8)
    whole = regions.to_shapely()
    for size in (1, 50, 10**9):
        chunks = list(regions.chunks(size))
        assert np.concatenate([chunk.id for chunk in chunks]).tolist() == regions.id.tolist()
        assert shapely.equals_exact(np.concatenate([chunk.to_shapely() for chunk in chunks]), whole).all()
        assert same(Regions.joined(chunks), regions)
    with pytest.raises(InputError, match="consecutive"):
        regions[::2]


def test_no_regions_can_be_cut_and_joined() -> None:
    assert list(Regions.none().chunks()) == []
    assert len(Regions.joined([])) == 0
    regions = trace_raster(np.ones((3, 3), np.uint16))
    assert same(Regions.joined([Regions.none(), regions, Regions.none()]), regions)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 20))
def test_recoded_labels_are_those_of_the_regions(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (height, width)).astype(np.uint16)
    known = expected(labels)
    codes = rng.integers(1, 65536, known.code.size).astype(np.uint16)
    found = recoded(labels, Box(40, 7, height, width), codes)
    assert np.array_equal(found, np.append(0, codes)[known.of_pixel])


@pytest.mark.parametrize(
    ("labels", "core", "connectivity", "confidence", "message"),
    [
        (np.ones((2, 3), np.uint16), Box(0, 0, 3, 2), 4, None, "don't fill"),
        (np.ones((2, 3), np.float32), Box(0, 0, 2, 3), 4, None, "float32"),
        (np.ones((2, 3), np.int32), Box(0, 0, 2, 3), 4, None, "int32"),
        (np.ones((2, 3), np.uint16), Box(0, 0, 2, 3), 6, None, "connectivity is 6"),
        (np.ones((1, 40_000), np.uint16), Box(0, 0, 1, 40_000), 4, None, "too large to trace"),
        (np.ones((2, 3), np.uint16), Box(0, 0, 2, 3), 4, np.ones((2, 3)), "confidence is float64"),
        (np.ones((2, 3), np.uint16), Box(0, 0, 2, 3), 4, np.ones((3, 2), np.uint8), r"shape \(3, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(labels, core, connectivity, confidence, message) -> None:
    with pytest.raises(InputError, match=message):
        trace_block(labels, core, connectivity, confidence)
    if confidence is not None:
        with pytest.raises(InputError, match=message.replace("confidence", "margin")):
            trace_block(labels, core, connectivity, None, confidence)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 70),
    st.integers(2, 5),
    st.integers(0, 99),
)
def test_a_tree_divides_its_scene(shape: tuple[int, int], block: int, fan: int, corner: int) -> None:
    """Children tile their parent; all below is found that is asked for."""
    tree = Tree(BlockGrid(shape, block), fan)
    assert tree.box(tree.root) == Box.of(shape)
    for node in tree.knots():
        boxes = [tree.box(child) for child in tree.children(node)]
        assert sum(box.size for box in boxes) == tree.box(node).size
        cover = np.zeros(shape, int)
        for box in boxes:
            cover[box.slices] += 1
        assert cover.max() == 1
        assert cover[tree.box(node).slices].all()
    place = divmod(corner % (shape[0] * shape[1]), shape[1])
    wanted = Box(*place, 1, 1)
    below = list(tree.below(tree.root, lambda box: box.clip(wanted).size > 0))
    assert sorted(level for level, _, _ in below) == list(range(tree.root[0]))


def test_importing_the_package_does_not_load_the_compiler() -> None:
    code = "import sys, rssegment, rssegment.vector; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
