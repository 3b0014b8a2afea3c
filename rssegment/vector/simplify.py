"""Chains with fewer vertices, or rounder ones, that still don't meet.

Each chain is simplified alone: a function of its own vertices and of the *original* corners of all chains near
it, the :class:`Obstacles`. So blocks, order and threads can't change it, and neighbours share what comes out.
Why no chain crosses another, or itself:

* **Removing.** Vertex b between a and c goes only if the closed triangle (a, b, c) holds no obstacle but these
  three, where the chain's own removed vertices don't count. Before, chains met in junctions alone. An edge of a
  chain that came into the triangle could end nowhere in it, could not leave through (a, b) or (b, c), which are
  the chain itself, and would have to leave through (a, c) where it came in. So none does, and after it chains
  still meet in junctions alone. Others may be simplified already or not yet: their vertices are among their
  original ones, so the test covers both.
* **The one exception** is an edge that *is* (a, c): a second chain between the same two junctions, straight
  too, and nothing between them where a region was. Both run from the smaller junction to the larger, A with the
  region X on its left, B with X on its right. Let S be twice the signed area between chain and chord, positive
  to the left; then S_A - S_B = 2 |X|. Let L and R be numbers of pixels that the regions on the left and right
  of a chain are known to have: those given, or the distinct pixels that touch the chain from that side, which
  are of one region as the chain has no junction on its way. A chain may become straight only if -R < S <= L.
  Would both, then 2 |X| < L_A + R_B <= 2 |X|. A chain of one corner with S = -R may be straight too if the
  fourth corner of its rectangle is no obstacle: then X is not that rectangle, so larger than R, and S_A = 2 |X|
  - R > |X| >= L_A.
* **No ring collapses**: closed chains keep three vertices, chains from a junction to itself two beside it, and
  neither can become flat: a vertex on the line of two others would have been in the triangle, or on an edge before.
* **Rounding** (Chaikin). Corner b is cut only if the closed triangle T of b and the middles of its two edges
  holds no obstacle but b, where of the chain itself the vertices it kept count. What is cut, in any number of
  rounds, stays within T, from middle to middle, or from nearer points where edges are long. No edge of the
  chains as they were before comes into T, as above, save the two of b. Were two such triangles of different
  corners to overlap, their third sides alone could cross, and only once; closed curves cross an even number of
  times. So they don't, and their curves can't meet, but where one corner's curve hands over to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, SettingsError
from rssegment.grid import Box

__all__ = ["Obstacles", "Simplification", "Simplified", "simplify_chains"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

HALVINGS = 5  # of long edges, before a corner at their end is cut
MAX_TOLERANCE = 2**14  # px; doubled areas then fit beside a position in one 64-bit key
NO_WEIGHTS = np.empty((0, 3), np.int32)


@dataclass(frozen=True)
class Simplification:
    """How chains are simplified.

    ``tolerance`` in px, 0 for none. Method ``"vw"`` (Visvalingam and Whyatt 1993) removes vertices whose
    triangle with their neighbours is smaller than ``tolerance**2`` px², least first, as
    ``shapely.coverage_simplify`` does; ``"dp"`` (Douglas and Peucker 1973) removes those nearer to the
    simplified chain than ``tolerance`` px, or as near. ``smooth``: rounds of Chaikin's corner cutting (1974)
    after it, 0 to 3, which move nothing further than the tolerance, or one pixel.

    Raises
    ------
    SettingsError
        A value outside its range.
    """

    tolerance: float
    method: Literal["vw", "dp"] = "vw"
    smooth: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= MAX_TOLERANCE:
            raise SettingsError(
                f"simplification tolerance is {self.tolerance} px; it must lie between 0 (none) and {MAX_TOLERANCE}"
            )
        if self.method not in ("vw", "dp"):
            raise SettingsError(
                f"simplification method is {self.method!r}; use 'vw' (Visvalingam-Whyatt) or 'dp' (Douglas-Peucker)"
            )
        if self.smooth not in (0, 1, 2, 3):
            raise SettingsError(f"smoothing is {self.smooth!r} rounds; it must be 0, 1, 2 or 3")

    @property
    def scale(self) -> int:
        """Coordinates of the result are in 1 / ``scale`` px."""
        return int(4**self.smooth * 2**HALVINGS) if self.smooth else 1

    @property
    def reach(self) -> float:
        """How far (px) neighbours of a corner that is cut may seem to be: a cut leaves no corner further behind than a
        quarter of it, the tolerance or one pixel."""
        return 4 * max(self.tolerance, 1.0)


class Obstacles:
    """The original corners of all chains in some part of a scene, as bits in tiles of :attr:`TILE` x
    :attr:`TILE` corners.

    Tile (i, j) has the corners ``[i * TILE, (i + 1) * TILE)`` of rows, and so of columns: a lattice at the
    scene's origin. A tile that is there promises to have *all* corners of chains (turns and junctions) that lie
    in it; what lies in absent ones is left out. ``box``: corners whose tiles are there from the start. Several
    threads may share one; they take turns.
    """

    TILE = 256

    def __init__(self, box: Box | None = None) -> None:
        self._lock = Lock()
        self._count = 0
        self._words = np.zeros(0, np.int64)
        self._origin = (0, 0)
        self._directory = np.full((0, 0), -1, np.int32)
        if box is not None and box.size:
            self.allocate(self.tiles_of(box))

    @classmethod
    def tiles_of(cls, box: Box) -> Int64:
        """(T, 2) the tiles that the corners in ``box`` lie in, row by row."""
        rows = np.arange(box.row // cls.TILE, (box.stop_row - 1) // cls.TILE + 1)
        cols = np.arange(box.col // cls.TILE, (box.stop_col - 1) // cls.TILE + 1)
        return np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def tiles(self) -> Int64:
        """(T, 2) the tiles that are there, row by row."""
        return np.argwhere(self._directory >= 0) + self._origin

    def allocate(self, tiles: NDArray[np.integer[Any]]) -> None:
        """Makes ``tiles`` (T, 2) be there, empty; those that are there already stay as they are."""
        if not len(tiles):
            return
        self._reach(*tiles.min(axis=0).tolist(), *tiles.max(axis=0).tolist())
        at = np.unique(np.asarray(tiles, np.int64) - self._origin, axis=0)
        at = at[self._directory[at[:, 0], at[:, 1]] < 0]
        self._directory[at[:, 0], at[:, 1]] = self._count + np.arange(len(at))
        self._count += len(at)
        words = self._count * self.TILE**2 // 64
        if words > self._words.size:
            grown = np.zeros(max(words, self._words.size * 3 // 2), np.int64)
            grown[: self._words.size] = self._words
            self._words = grown

    def add(self, corners: Int32) -> None:
        """Adds ``corners`` (N, 2), rows and columns; those in absent tiles are left out."""
        from rssegment.vector import _simplify_bitmap as bitmaps

        bitmaps.add_corners(np.ascontiguousarray(corners, np.int32), self._bitmap(np.zeros((0, 0), np.uint8)))

    def _reach(self, top: int, left: int, bottom: int, right: int) -> None:
        """Grows the directory so that it has the tiles from (top, left) to (bottom, right)."""
        (row, col), (height, width) = self._origin, self._directory.shape
        if not self._directory.size:
            row, col, height, width = top, left, 0, 0
        new_row, new_col = min(row, top), min(col, left)
        new_height = max(row + height, bottom + 1) - new_row
        new_width = max(col + width, right + 1) - new_col
        if (new_height, new_width) == (height, width):
            return
        grown = np.full((new_height, new_width), -1, np.int32)
        grown[row - new_row :, col - new_col :][:height, :width] = self._directory
        self._origin, self._directory = (new_row, new_col), grown

    def _bitmap(self, asked: NDArray[np.uint8]) -> tuple[Any, ...]:
        """What kernels take; ``asked`` is of the directory's shape."""
        return self._words, self._directory, *self._origin, asked


@dataclass(frozen=True, eq=False)
class Simplified:
    """``vertices`` (V, 2) in 1 / ``scale`` px between ``offsets`` (C + 1,): chains in the order and direction
    they were given.

    ``missing`` (M, 2): tiles that were needed but absent; ``incomplete`` (C,): the chains that needed them, to
    be done again once they are there. Closed chains don't repeat their first vertex, the topmost, then
    leftmost.
    """

    vertices: Int32 = field(repr=False)
    offsets: Int64
    missing: Int64
    incomplete: NDArray[np.bool_]


def simplify_chains(  # noqa: PLR0917 - the three arrays are one thing
    vertices: Int32,
    offsets: Int64,
    closed: NDArray[np.bool_],
    obstacles: Obstacles,
    how: Simplification,
    pinned: NDArray[np.integer[Any]] | None = None,
    *,
    pixels: NDArray[np.integer[Any]] | None = None,
) -> Simplified:
    """Simplifies chains ``vertices[offsets[k] : offsets[k + 1]]``, corners (row, col) where the boundary turns.

    Open chains have both junctions; these stay. Closed ones don't repeat their first vertex. ``pinned`` (P, 2):
    corners that stay too. ``obstacles`` must have the vertices of these and of all chains near them. ``pixels``
    (C, 2): how many pixels the regions on the left and right of each chain have (edge-connected; 0 where that
    isn't known): without it, more chains than need be keep a vertex between their junctions for fear that the
    region beside them vanishes.

    Law: a chain's result is a function of its vertices and pixels, not of their direction, and of the obstacles
    in its bounding box. Law: no two results meet but in junctions, none meets itself, and no region between
    them vanishes.

    Raises
    ------
    InputError
        A chain's vertices aren't among the obstacles, or coordinates are too large for 1 / ``how.scale`` px in
        32 bits.
    """
    from rssegment.vector import _simplify_lines as lines

    vertices, offsets = np.ascontiguousarray(vertices, np.int32), np.ascontiguousarray(offsets, np.int64)
    closed = np.ascontiguousarray(closed, np.bool_)
    nothing = np.empty((0, 2), np.int64)
    if not len(vertices):
        return Simplified(vertices.reshape(0, 2), offsets, nothing, np.zeros(closed.size, np.bool_))
    _check_range(vertices, how)
    ordered, turned = np.empty_like(vertices), np.empty(closed.size, np.bool_)
    lines.canonical(vertices, offsets, closed, ordered, turned)
    chains = _Chains(ordered, offsets, closed, _beside(pixels, turned), _fixed(ordered, pinned))
    keep, missing, incomplete = _sift(chains, obstacles, how)
    weights = _chaikin(how.smooth)
    sizes = np.concatenate([[0], np.cumsum(np.array([0, 1, len(weights)])[keep])])
    out_offsets = sizes[offsets]
    out = np.empty((int(out_offsets[-1]), 2), np.int32)
    lines.write_chains(
        ordered, offsets, closed, turned, keep, weights, how.scale, how.reach, out_offsets, out
    )
    return Simplified(out, out_offsets, missing, incomplete)


@dataclass(frozen=True)
class _Chains:
    """Chains in canonical order; ``fixed`` (V,): vertices that stay."""

    vertices: Int32
    offsets: Int64
    closed: NDArray[np.bool_]
    pixels: Int64
    fixed: NDArray[np.uint8]


def _sift(
    chains: _Chains, obstacles: Obstacles, how: Simplification
) -> tuple[NDArray[np.uint8], Int64, NDArray[np.bool_]]:
    """What becomes of each vertex of canonical chains, the tiles missing, and the chains that miss them."""
    from rssegment.vector import _simplify_kernels as kernels

    vertices, offsets, closed = chains.vertices, chains.offsets, chains.closed
    rank, limit = np.empty(0, np.int64), math.floor(2 * how.tolerance**2) + 1 if how.tolerance else 0
    if how.method == "dp" and how.tolerance > 0:
        rank, limit = _ranks(vertices, offsets, closed, how.tolerance), int(kernels.NEVER)
    keep, incomplete = np.empty(len(vertices), np.uint8), np.zeros(closed.size, np.bool_)
    with obstacles._lock:
        low, high = vertices.min(axis=0) // Obstacles.TILE, vertices.max(axis=0) // Obstacles.TILE
        obstacles._reach(*low.tolist(), *high.tolist())
        asked = np.zeros(obstacles._directory.shape, np.uint8)
        bitmap = obstacles._bitmap(asked)
        wrong = kernels.sift_chains(
            vertices, offsets, closed, chains.pixels, chains.fixed, rank, limit, how.smooth > 0, bitmap,
            keep, incomplete,
        )  # fmt: skip
        missing = np.argwhere(asked) + obstacles._origin
    if wrong >= 0:
        raise InputError(
            f"chain {wrong} has vertices that aren't among the obstacles; add the corners of all chains before any is "
            "simplified"
        )
    return keep, missing, incomplete


def _ranks(vertices: Int32, offsets: Int64, closed: NDArray[np.bool_], tolerance: float) -> Int64:
    """Places of vertices in the order of their significance; NEVER for those that stay."""
    from rssegment.vector import _simplify_kernels as kernels
    from rssegment.vector import _simplify_lines as lines

    value = np.empty(len(vertices), np.float64)
    lines.significance(vertices, offsets, closed, value)
    out = np.flatnonzero(value <= tolerance**2)
    rank = np.full(len(vertices), kernels.NEVER, np.int64)
    rank[out[np.argsort(value[out], kind="stable")]] = np.arange(out.size)
    return rank


def _beside(pixels: NDArray[np.integer[Any]] | None, turned: NDArray[np.bool_]) -> Int64:
    """Pixels on the left and right of canonical chains."""
    if pixels is None:
        return np.zeros((turned.size, 2), np.int64)
    return np.where(turned[:, None], np.asarray(pixels, np.int64)[:, ::-1], pixels).astype(np.int64)


def _fixed(vertices: Int32, pinned: NDArray[np.integer[Any]] | None) -> NDArray[np.uint8]:
    fixed = np.zeros(len(vertices), np.uint8)
    if pinned is not None and len(pinned):
        keys = (np.asarray(corners, np.int64) @ np.array([2**32, 1]) for corners in (vertices, pinned))
        fixed[np.isin(*keys)] = 1
    return fixed


def _chaikin(rounds: int) -> Int32:
    """(2**rounds, 3) weights, in 1 / 4**rounds, of a corner's neighbour before, itself and that after in the
    points that stand for it: Chaikin's scheme between the fixed middles of both edges."""
    if rounds == 0:
        return NO_WEIGHTS
    before, after = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    points = [np.array([0.0, 1.0, 0.0])]
    for _ in range(rounds):
        line = [
            2 * before - points[0],
            *points,
            2 * after - points[-1],
        ]  # mirrored: cut at a quarter is the middle
        points = [0.75 * line[k] + 0.25 * line[k + way] for k in range(1, len(line) - 1) for way in (-1, 1)]
    weights: Int32 = (np.array(points) * 4**rounds).astype(np.int32)
    return weights


def _check_range(vertices: Int32, how: Simplification) -> None:
    largest = int(np.abs(vertices).max())
    if largest * how.scale >= 2**31:
        raise InputError(
            f"corners reach {largest} px, too far for {how.smooth} rounds of smoothing in 32 bits; "
            f"use fewer, or a scene below {2**31 // how.scale} px"
        )
