"""The engine with all its choices open: any fan of the tree, any order of pieces, pieces on disk, all partitions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import BlockGrid, Box
from rssegment.vector import (
    Chains,
    Coverage,
    Piece,
    Regions,
    Simplification,
    Tree,
    knit,
    layers_of,
    outlined,
    piece_of,
    trace_block,
)
from rssegment.vector.tree import Node

Codes = Sequence[tuple[int | None, NDArray[np.uint16] | None]]


@dataclass(frozen=True)
class Cut:
    """How a scene is cut into blocks and put together again: nothing of it may be seen in the result.

    ``seed``: of a random order of pieces; ``folder``: where pieces are stored in between.
    """

    block: int
    fan: int = 4
    seed: int | None = None
    folder: Path | None = None

    def shuffled(self, items: list[Node]) -> list[Node]:
        return items if self.seed is None else random.Random(self.seed).sample(items, len(items))


@dataclass(frozen=True, eq=False)
class Scene:
    """Pixels: ``labels``, ``confidence`` and ``margin`` (H, W)."""

    labels: NDArray[np.uint16]
    confidence: NDArray[np.uint8] | None = None
    margin: NDArray[np.uint8] | None = None

    def at(self, core: Box) -> list[NDArray | None]:
        return [
            None if each is None else each[core.slices]
            for each in (self.labels, self.confidence, self.margin)
        ]


class Pieces:
    """Pieces in memory or, through ``save`` and ``load``, on disk; chains once more when they are simplified."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.held, self.outlines = folder, {}, {}

    def path(self, node: Node) -> Path:
        assert self.folder is not None
        return self.folder / "{}_{}_{}.part".format(*node)  # no suffix may be added

    def put(self, node: Node, piece: Piece) -> None:
        if self.folder is None:
            self.held[node] = piece
        else:
            piece.save(self.path(node))

    def outline(self, node: Node, chains: Chains) -> None:
        if self.folder is not None:
            path = self.path(node).with_suffix(".outlines")
            chains.save(path)
            chains = Chains.load(path)
        self.outlines[node] = chains

    def get(self, node: Node, chains: bool = True) -> Piece:
        return self.held[node] if self.folder is None else Piece.load(self.path(node), chains=chains)

    def outlined(self, node: Node, chains: bool = True) -> Piece:
        return replace(self.get(node, chains), chains=self.outlines[node] if chains else Chains.none())

    def corners(self, node: Node) -> NDArray[np.int32]:
        return self.held[node].corners if self.folder is None else Piece.load_corners(self.path(node))


def coverage(
    scene: Scene | NDArray[np.uint16],
    cut: Cut,
    connectivity: int = 4,
    how: Simplification | None = None,
    codes: Codes = ((None, None),),
) -> Coverage:
    """The joined pieces of ``scene``; ``codes`` as in :func:`rssegment.vector.layers_of`."""
    scene = scene if isinstance(scene, Scene) else Scene(scene)
    partitions, layers = layers_of(codes, connectivity)
    tree = Tree(BlockGrid(scene.labels.shape, cut.block), cut.fan)
    whole = Box.of(tree.grid.shape)
    pieces = Pieces(cut.folder)
    for node in cut.shuffled(list(tree.level(0))):
        labels, *values = scene.at(tree.box(node))
        assert labels is not None
        trace = trace_block(labels, tree.box(node), connectivity, *values)
        pieces.put(node, piece_of(trace, partitions, corners=how is not None))
    for level in range(1, len(tree.shapes)):
        for node in cut.shuffled(list(tree.level(level))):
            children = [pieces.get(child, False) for child in cut.shuffled(tree.children(node))]
            pieces.put(node, knit(children, partitions, whole if node == tree.root else None))
    made = Coverage(tree, len(partitions), layers, pieces.get)
    if how is None:
        return made
    for node in cut.shuffled([*tree.level(0), *tree.knots()]):
        near = partial(_near, tree, pieces, cut, node)
        pieces.outline(node, outlined(pieces.get(node), made.pixels(node), near, how, whole))
    return Coverage(tree, len(partitions), layers, pieces.outlined)


def _near(
    tree: Tree, pieces: Pieces, cut: Cut, node: Node, wanted: Callable[[Box], bool]
) -> Iterator[NDArray[np.int32]]:
    return (pieces.corners(each) for each in cut.shuffled([node, *tree.below(node, wanted)]))


def regions(made: Coverage, layer: int = 0) -> Regions:
    """All regions of a layer."""
    return Regions.joined([made.regions(layer, span) for span in made.spans(layer)])


def traced(
    scene: Scene | NDArray[np.uint16],
    cut: Cut,
    connectivity: int = 4,
    how: Simplification | None = None,
    codes: Codes = ((None, None),),
) -> list[Regions]:
    """The regions of every layer."""
    made = coverage(scene, cut, connectivity, how, codes)
    return [regions(made, layer) for layer in range(len(made.layers))]
