"""The pieces of a class map on disk: traced block by block, knit in a tree, read again band by band."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import BlockGrid, Box
from rssegment.taxonomy import Node
from rssegment.vector import (
    Chains,
    Coverage,
    Layer,
    Partition,
    Piece,
    Simplification,
    Tree,
    knit,
    layers_of,
    outlined,
    piece_of,
    trace_block,
)
from rssegment.vector.array_files import read_array
from rssegment.vector.squaring import SCALE, Candidates, Outlined, Squaring, candidates_of, squared
from rssegment.vector.tree import Node as Place
from rssegment.write.atomic import staged, storage_errors

__all__ = [
    "ClassTree",
    "LabelBlock",
    "LevelCodes",
    "Source",
    "Traces",
    "release_knots",
]


class ClassTree(Protocol):
    """What is asked of a taxonomy: a raster without one has a stand-in."""

    @property
    def nodes(self) -> tuple[Node, ...]: ...

    def node(self, key: int) -> Node: ...


@dataclass(frozen=True, eq=False)
class LabelBlock:
    """``labels`` (H, W), 0 no data; ``confidence`` and ``margin`` (H, W) in 1/254, 255 no data, where known."""

    labels: NDArray[np.uint16]
    confidence: NDArray[np.uint8] | None = None
    margin: NDArray[np.uint8] | None = None


class Source(Protocol):
    """Where the pixels of a class map come from; it can be sent to another process."""

    def read(self, core: Box) -> LabelBlock: ...


LevelCodes = Sequence[tuple[int | None, NDArray[np.uint16] | None]]


@dataclass(frozen=True)
class Traces:
    """Where the pieces lie and what decides them; a small value that is sent to workers.

    ``layers`` are the sets of regions wanted, over ``partitions``; chains are simplified as ``how`` says, and then
    squared as ``squaring`` says.
    """

    folder: Path
    shape: tuple[int, int]
    block: int
    partitions: tuple[Partition, ...]
    layers: tuple[Layer, ...]
    how: Simplification | None = None
    squaring: Squaring | None = None

    @classmethod
    def of(cls, folder: Path, grid: BlockGrid, codes: LevelCodes, connectivity: int) -> Traces:
        partitions, layers = layers_of(codes, connectivity)
        return cls(folder, grid.shape, grid.block, partitions, layers)

    @cached_property
    def tree(self) -> Tree:
        return Tree(BlockGrid(self.shape, self.block))

    @property
    def connectivity(self) -> int:
        return 8 if any(partition.diagonal for partition in self.partitions) else 4

    def path(self, node: Place) -> Path:
        level, row, col = node
        return self.folder / f"level{level}_r{row:04d}_c{col:04d}.npz"

    def create(self) -> None:
        """Makes the folder."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def piece(self, node: Place, block: LabelBlock) -> Piece:
        """The piece of one block, from its pixels."""
        trace = trace_block(
            block.labels, self.tree.box(node), self.connectivity, block.confidence, block.margin
        )
        return piece_of(trace, self.partitions, corners=self.how is not None)

    def save(self, node: Place, piece: Piece) -> None:
        """Writes a piece, whole or not at all."""
        with staged(self.path(node), durable=False) as temporary:
            piece.save(temporary)

    def blank(self, nodes: Iterable[Place]) -> None:
        """Writes pieces without data for blocks."""
        for node in nodes:
            self.save(node, self.piece(node, LabelBlock(np.zeros(self.tree.box(node).shape, np.uint16))))

    def knit(self, node: Place) -> None:
        """Joins the pieces below ``node``, which were written before, to its own."""
        children = [self.load(child, chains=False) for child in self.tree.children(node)]
        scene = Box.of(self.shape) if node == self.tree.root else None
        self.save(node, knit(children, self.partitions, scene))

    def outline(self, node: Place) -> None:
        """Writes the simplified chains of a piece, once :meth:`count` has been there."""
        if self.how is None:
            return
        piece, pixels = Piece.load(self.path(node)), read_array(self._pixels(node))
        angular, scale = None, 1
        if self.squaring is not None:
            candidates = candidates_of(piece, self.squaring)
            angular, scale = candidates.rows, SCALE
            with staged(self._candidates(node), durable=False) as temporary:
                candidates.save(temporary)
        near, scene = partial(self._corners, node), Box.of(self.shape)
        chains = outlined(piece, pixels, near, self.how, scene, angular=angular, scale=scale)
        with staged(self._outlines(node), durable=False) as temporary:
            chains.save(temporary)

    def square(self, node: Place) -> None:
        """Writes the chains of a piece with right angles, where it has such, once all outlines are written."""
        self._squared(node).unlink(missing_ok=True)  # of an earlier attempt, when more blocks were missing
        if self.squaring is None or not len(Candidates.load(self._candidates(node))):
            return
        chains = squared(
            self._outlined(node), partial(self._others, node), self.squaring, Box.of(self.shape), self.block
        )
        if chains is not None:
            with staged(self._squared(node), durable=False) as temporary:
                chains.save(temporary)

    def count(self) -> None:
        """Leaves beside each piece how many pixels its parts have in the whole scene."""
        coverage = self.coverage()
        for node in self.nodes:
            with staged(self._pixels(node), durable=False) as temporary:
                np.save(temporary, coverage.pixels(node))

    @property
    def nodes(self) -> Iterator[Place]:
        """All nodes of the tree, children first."""
        return chain(self.tree.level(0), self.tree.knots())

    def load(self, node: Place, chains: bool = True) -> Piece:
        """A piece as it was knit, with its chains or without."""
        return Piece.load(self.path(node), chains=chains)

    def load_outlined(self, node: Place, chains: bool) -> Piece:
        """A piece with its simplified chains, or without any."""
        piece = Piece.load(self.path(node), chains=False)
        if not chains:
            return piece
        changed = self.squaring is not None and self._squared(node).exists()
        return replace(piece, chains=Chains.load((self._squared if changed else self._outlines)(node)))

    def coverage(self, *, simplified: bool = False) -> Coverage:
        """The regions, once everything is knit; ``simplified``, once all outlines are written."""
        load = self.load_outlined if simplified and self.how is not None else self.load
        return Coverage(self.tree, len(self.partitions), self.layers, load)

    def _corners(self, node: Place, wanted: Callable[[Box], bool]) -> Iterator[NDArray[np.int32]]:
        """Original corners of a piece, and of those below whose boxes are wanted."""
        for each in (node, *self.tree.below(node, wanted)):
            yield Piece.load_corners(self.path(each))

    def _others(self, node: Place, wanted: Callable[[Box], bool]) -> Iterator[Outlined]:
        """What all pieces but one left whose boxes are wanted."""
        for each in (self.tree.root, *self.tree.below(self.tree.root, wanted)):
            if each != node:
                yield self._outlined(each)

    def _outlined(self, node: Place) -> Outlined:
        """What a piece left before any was squared; knots, which go round many blocks, are kept for a while."""
        paths = self._outlines(node), self._candidates(node)
        if node[0] == 0:
            return _load_outlined(*paths)
        return _load_knot(*paths, *(path.stat().st_mtime_ns for path in paths))

    def _pixels(self, node: Place) -> Path:
        return self.path(node).with_suffix(".pixels.npy")

    def _outlines(self, node: Place) -> Path:
        return self.path(node).with_suffix(".outlines.npz")

    def _candidates(self, node: Place) -> Path:
        return self.path(node).with_suffix(".candidates.npz")

    def _squared(self, node: Place) -> Path:
        return self.path(node).with_suffix(".squared.npz")


def release_knots() -> None:
    """Lets go of what was kept for a while."""
    _load_knot.cache_clear()


def _load_outlined(outlines: Path, candidates: Path) -> Outlined:
    return Outlined(Chains.load(outlines), Candidates.load(candidates))


@lru_cache(maxsize=8)
def _load_knot(outlines: Path, candidates: Path, *_times: int) -> Outlined:
    return _load_outlined(outlines, candidates)
