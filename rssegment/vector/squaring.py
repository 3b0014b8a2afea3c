"""Outlines of buildings squared, piece by piece, with all that is near them from the other pieces.

Each piece leaves its simplified chains and, of those that may be squared (the *candidates*), the rings as they were.
They are squared in groups of neighbours; what a group sees is all within twice the limit, so that the groups, like
the blocks, change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.vector.array_files import read_arrays
from rssegment.vector.pieces import Chains, Int32, Int64, Piece, ragged
from rssegment.vector.polylines import bounding, polylines
from rssegment.vector.square import check_limit, square_rings

__all__ = ["SCALE", "Candidates", "Outlined", "Squaring", "candidates_of", "squared"]

SCALE = 16  # coordinates are in 1 / SCALE px, or finer: whole pixels would bend right angles
LARGEST = 4096  # px, the longer side of a ring that may be squared; it bounds what must be held around one
GROUP = 1024  # px, the side of a group, or of a block if that is larger

Near = Callable[[Callable[[Box], bool]], Iterable["Outlined"]]


@dataclass(frozen=True)
class Squaring:
    """Outlines of regions with one of ``labels`` are squared, and move no farther than ``limit`` px.

    Raises
    ------
    SettingsError
        The limit is out of its range.
    """

    labels: tuple[int, ...]
    limit: float

    def __post_init__(self) -> None:
        check_limit(self.limit)

    def check_range(self, scene: Box) -> None:
        """Raises InputError where the corners of a scene can't be held in 1 / SCALE px."""
        if max(scene.shape) * SCALE >= 2**31:
            raise InputError(
                f"the raster has {scene.height} x {scene.width} px; outlines can be squared up to {2**31 // SCALE}"
            )


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rings that may be squared, before they were simplified: ``rows`` (R,) where they are among the simplified chains,
    ``vertices`` (V, 2) in px between ``offsets`` (R + 1,)."""

    rows: Int64
    offsets: Int64
    vertices: Int32

    def __len__(self) -> int:
        return int(self.rows.size)

    def save(self, path: str | Path) -> None:
        """Writes one ``.npz`` file at exactly ``path``."""
        with Path(path).open("wb") as file:
            np.savez(file, rows=self.rows, offsets=self.offsets, vertices=self.vertices)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote.

        Raises
        ------
        ReadError
            The file is missing, cut short, or holds none.
        """
        return read_arrays(path, lambda file: cls(file["rows"], file["offsets"], file["vertices"]))


def candidates_of(piece: Piece, squaring: Squaring) -> Candidates:
    """The closed chains of ``piece`` that may be squared."""
    rows = bounding(piece)
    chains = piece.chains
    is_wanted = np.append(np.isin(piece.tables[-1].code, squaring.labels), False)
    sides = np.maximum(chains.sides[rows], -1)
    at = np.flatnonzero((chains.ends[rows, 0] < 0) & is_wanted[sides].any(axis=1))
    index, offsets = ragged(chains.offsets, rows[at])
    vertices = chains.vertices[index]
    boxes = _boxes(vertices, offsets)
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) <= LARGEST
    index, small_offsets = ragged(offsets, np.flatnonzero(small))
    return Candidates(at[small], small_offsets, vertices[index])


@dataclass(frozen=True, eq=False)
class Outlined:
    """The simplified ``chains`` of a piece, and the ``candidates`` among them."""

    chains: Chains
    candidates: Candidates

    @cached_property
    def boxes(self) -> Int64:
        """(R, 4) top, left, bottom and right of the candidates, in 1 / scale px."""
        return _boxes(self.candidates.vertices, self.candidates.offsets) * self.chains.scale

    @cached_property
    def _fixed(self) -> tuple[Int32, Int64, NDArray[np.bool_], Int64]:
        """All chains that stay, with their nodes: vertices, offsets, which are open; and their boxes (C, 4)."""
        stays = np.ones(len(self.chains), np.bool_)
        stays[self.candidates.rows] = False
        vertices, offsets, is_open = polylines(self.chains.take(np.flatnonzero(stays)))
        return vertices, offsets, is_open, _boxes(vertices, offsets)

    def rings(self, at: Int64) -> tuple[Int32, Int64, Int32, Int64]:
        """Candidates: simplified vertices and how many each ring has; the same as they were; all in 1 / scale px."""
        index, offsets = ragged(self.chains.offsets, self.candidates.rows[at])
        exact_index, exact_offsets = ragged(self.candidates.offsets, at)
        exact = self.candidates.vertices[exact_index] * np.int32(self.chains.scale)
        return self.chains.vertices[index], np.diff(offsets), exact, np.diff(exact_offsets)

    def lines(self, window: Int64) -> Int32:
        """(S, 4) segments in ``window`` of chains that stay."""
        vertices, offsets, is_open, boxes = self._fixed
        rows = np.flatnonzero(_meet(boxes, window))
        index, offsets = ragged(offsets, rows)
        after = np.arange(1, index.size + 1)
        after[offsets[1:] - 1] = offsets[:-1]
        there = np.ones(index.size, np.bool_)
        there[offsets[1:][is_open[rows]] - 1] = False
        own = vertices[index]
        lines = np.hstack([own, own[after]])[there]
        ends = np.hstack([np.minimum(lines[:, :2], lines[:, 2:]), np.maximum(lines[:, :2], lines[:, 2:])])
        return lines[_meet(ends, window)]


def squared(own: Outlined, near: Near, squaring: Squaring, scene: Box, block: int) -> Chains | None:
    """The chains of ``own`` with right angles where they can have them; None if nothing changes.

    ``near`` gives the pieces but this one whose boxes are wanted. Law: the result for a chain does not depend on the
    piece that it is in, nor on ``block``. Memory: what lies around a group of candidates, of the size of a block.
    """
    chains = own.chains
    edge = _edge(scene, chains.scale)
    rows, parts, sizes = [], [], []
    for group in _groups(own, block):
        window = _window(own.boxes[group], squaring.limit * chains.scale)
        seen = np.setdiff1d(np.flatnonzero(_meet(own.boxes, window)), group)
        rings = [own.rings(group), own.rings(seen)]
        lines = [edge, own.lines(window)]
        for other in near(_touching(window // chains.scale)):
            rings.append(other.rings(np.flatnonzero(_meet(other.boxes, window))))
            lines.append(other.lines(window))
        vertices, counts, exact, exact_counts = (np.concatenate(each) for each in zip(*rings, strict=True))
        made, offsets, changed = square_rings(
            vertices, _offsets(counts), np.concatenate(lines), chains.scale, squaring.limit,
            (exact, _offsets(exact_counts)),
        )  # fmt: skip
        done = np.flatnonzero(changed[: group.size])
        index, _ = ragged(offsets, done)
        rows.append(own.candidates.rows[group[done]])
        parts.append(made[index])
        sizes.append(np.diff(offsets)[done])
    if not any(each.size for each in rows):
        return None
    return chains.replaced(np.concatenate(rows), np.concatenate(parts), np.concatenate(sizes))


def _edge(scene: Box, scale: int) -> Int32:
    """(4, 4) the sides of the scene, beyond which nothing moves."""
    corners = np.array([(0, 0), (0, scene.width), scene.shape, (scene.height, 0)], np.int32) * np.int32(scale)
    return np.hstack([corners, np.roll(corners, -1, axis=0)])


def _groups(own: Outlined, block: int) -> Iterator[Int64]:
    """The candidates, square by square of the scene; those of one block together."""
    if not len(own.candidates):
        return
    side = block * max(1, -(-GROUP // block)) * own.chains.scale
    _, at, counts = np.unique(own.boxes[:, :2] // side, axis=0, return_inverse=True, return_counts=True)
    yield from np.split(np.argsort(at.ravel(), kind="stable"), np.cumsum(counts)[:-1])


def _window(boxes: Int64, limit: float) -> Int64:
    """(4,) all that matters for what lies in ``boxes``, in 1 / scale px."""
    reach = int(2 * limit) + 2
    window: Int64 = np.concatenate([boxes[:, :2].min(axis=0) - reach, boxes[:, 2:].max(axis=0) + reach])
    return window


def _touching(window: Int64) -> Callable[[Box], bool]:
    """Whether corners of a box of pixels lie in ``window``, in px."""
    top, left, bottom, right = window.tolist()
    return lambda box: (
        box.row <= bottom + 1 and box.stop_row >= top and box.col <= right + 1 and box.stop_col >= left
    )


def _meet(boxes: NDArray[np.integer], window: Int64) -> NDArray[np.bool_]:
    """(n,) which of ``boxes`` (n, 4) meet the window."""
    below, right = (boxes[:, :2] <= window[2:]).T
    above, left = (boxes[:, 2:] >= window[:2]).T
    meets: NDArray[np.bool_] = below & right & above & left
    return meets


def _boxes(vertices: Int32, offsets: Int64) -> Int64:
    """(n, 4) top, left, bottom and right of lines, none of them empty."""
    if offsets.size == 1:
        return np.empty((0, 4), np.int64)
    low = np.minimum.reduceat(vertices, offsets[:-1], axis=0)
    return np.hstack([low, np.maximum.reduceat(vertices, offsets[:-1], axis=0)]).astype(np.int64)


def _offsets(sizes: Int64) -> Int64:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
