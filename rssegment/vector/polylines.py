"""Chains through the simplification, with the corners of all other boundaries near them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.vector.pieces import Chains, Int32, Int64, Piece, ragged
from rssegment.vector.simplify import Obstacles, Simplification, simplify_chains

__all__ = ["Corners", "bounding", "outlined", "polylines", "simplified"]

Corners = Callable[[Callable[[Box], bool]], Iterable[Int32]]
"""Original corners (K, 2) of all pieces that may be wanted: of those at least whose box of pixels is."""


def bounding(piece: Piece) -> Int64:
    """The chains of ``piece`` that bound something: all but the loose ones."""
    return np.flatnonzero((piece.chains.sides >= 0).any(axis=1))


def outlined(
    piece: Piece,
    pixels: Int64,
    corners: Corners,
    how: Simplification,
    scene: Box,
    *,
    angular: Int64 | None = None,
    scale: int = 1,
) -> Chains:
    """The chains of ``piece``, simplified, in 1 / ``scale`` px or finer; those that are loose are left out.

    ``angular`` (R,): which of those that are left are not to be smoothed. ``pixels``: as
    :meth:`rssegment.vector.coverage.Coverage.pixels` gives them. Law: a chain's result does not depend on the piece
    that it was completed in.
    """
    chains = piece.chains.take(bounding(piece))
    known = piece.tables[-1].sums[:, 0].copy()
    if piece.maps:  # a knot: all its groups go beyond a block
        known = pixels
    else:
        known[piece.open[-1]] = pixels
    sides = np.append(known, 0)[np.maximum(chains.sides, -1)]
    done = simplified(chains, sides, corners, how, scene).scaled(max(scale, how.scale))
    if angular is None or not angular.size or not how.smooth:
        return done
    plain = simplified(chains.take(angular), sides[angular], corners, replace(how, smooth=0), scene)
    plain = plain.scaled(done.scale)
    return done.replaced(angular, plain.vertices, np.diff(plain.offsets))


def simplified(chains: Chains, pixels: Int64, corners: Corners, how: Simplification, scene: Box) -> Chains:
    """``chains`` with the vertices that ``how`` leaves them; the corners of ``scene`` stay.

    ``pixels`` (C, 2): of the parts on the left and right in the whole scene, 0 for no data. Only the corners near the
    chains are held: those in tiles that they run through, and in more as they are needed.
    """
    vertices, offsets, is_open = polylines(chains)
    obstacles, pinned = Obstacles(), _pinned(scene)
    missing = _tiles(vertices)
    todo, rows, parts, sizes = np.arange(len(chains)), [], [], []
    while todo.size:
        obstacles.allocate(missing)
        for each in corners(_touching(missing)):
            obstacles.add(each)
        at, own = ragged(offsets, todo)
        result = simplify_chains(
            vertices[at], own, ~is_open[todo], obstacles, how, pinned, pixels=pixels[todo]
        )
        done = np.flatnonzero(~result.incomplete)
        index, _ = ragged(result.offsets, done)
        rows.append(todo[done])
        parts.append(result.vertices[index])
        sizes.append(np.diff(result.offsets)[done])
        todo, missing = todo[result.incomplete], result.missing
    return _chains(chains, rows, parts, sizes, how.scale)


def _tiles(vertices: Int32) -> Int64:
    """(T, 2) the tiles that ``vertices`` lie in."""
    if not len(vertices):
        return np.empty((0, 2), np.int64)
    tiles = vertices // Obstacles.TILE
    low = tiles.min(axis=0)
    there = np.zeros(tiles.max(axis=0) - low + 1, np.bool_)
    there[tuple((tiles - low).T)] = True
    found: Int64 = np.argwhere(there) + low
    return found


def polylines(chains: Chains) -> tuple[Int32, Int64, NDArray[np.bool_]]:
    """Vertices with the nodes at both ends, their offsets, and which chains have such."""
    is_open = chains.ends[:, 0] >= 0
    sizes = np.diff(chains.offsets) + 2 * is_open
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    out, inner = np.empty((offsets[-1], 2), np.int32), np.ones(offsets[-1], np.bool_)
    first, last = offsets[:-1][is_open], offsets[1:][is_open] - 1
    inner[first] = inner[last] = False
    out[first], out[last] = chains.nodes[chains.ends[is_open, 0]], chains.nodes[chains.ends[is_open, 2]]
    out[inner] = chains.vertices[: chains.offsets[-1]]
    return out, offsets, is_open


def _chains(chains: Chains, rows: list[Int64], parts: list[Int32], sizes: list[Int64], scale: int) -> Chains:
    """The chains with new polylines ``parts``, given for ``rows``."""
    if not len(chains):
        return Chains(chains.nodes * scale, chains.ends, chains.sides, chains.offsets, chains.vertices, scale)
    row, size = np.concatenate(rows), np.concatenate(sizes)
    given = np.concatenate([[0], np.cumsum(size)])
    at, offsets = ragged(given, np.argsort(row))
    vertices = np.concatenate(parts)[at]
    is_open = chains.ends[:, 0] >= 0
    inner = np.ones(len(vertices), np.bool_)
    inner[offsets[:-1][is_open]] = inner[offsets[1:][is_open] - 1] = False
    inner_offsets = np.concatenate([[0], np.cumsum(np.diff(offsets) - 2 * is_open)])
    return Chains(chains.nodes * scale, chains.ends, chains.sides, inner_offsets, vertices[inner], scale)


def _pinned(scene: Box) -> Int32:
    rows, cols = (scene.row, scene.stop_row), (scene.col, scene.stop_col)
    return np.array([(row, col) for row in rows for col in cols], np.int32)


def _touching(tiles: Int64) -> Callable[[Box], bool]:
    """Whether a box of pixels has corners in one of ``tiles`` (T, 2)."""
    side = Obstacles.TILE

    def touches(box: Box) -> bool:
        low = np.array([box.row, box.col]) // side
        high = np.array([box.stop_row, box.stop_col]) // side
        return bool(((tiles >= low) & (tiles <= high)).all(axis=1).any())

    return touches
