"""The tree in which blocks are joined: each node is a rectangle of nodes of the level below; blocks are level 0."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from rssegment.grid import BlockGrid, Box

__all__ = ["Node", "Tree"]

Node = tuple[int, int, int]
"""Level, row and column."""


@dataclass(frozen=True)
class Tree:
    """The nodes over the blocks of ``grid``; one that isn't a block has up to ``fan`` x ``fan`` children."""

    grid: BlockGrid
    fan: int = 4

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Nodes down and across, by level; the last has one, and isn't a block."""
        shapes = [self.grid.grid_shape]
        while len(shapes) == 1 or shapes[-1] != (1, 1):
            rows, cols = shapes[-1]
            shapes.append((math.ceil(rows / self.fan), math.ceil(cols / self.fan)))
        return tuple(shapes)

    @property
    def root(self) -> Node:
        return len(self.shapes) - 1, 0, 0

    def level(self, level: int) -> Iterator[Node]:
        rows, cols = self.shapes[level]
        return ((level, row, col) for row, col in product(range(rows), range(cols)))

    def knots(self) -> Iterator[Node]:
        """All nodes but the blocks, children first."""
        return (node for level in range(1, len(self.shapes)) for node in self.level(level))

    def children(self, node: Node) -> list[Node]:
        """Row-major."""
        level, row, col = node
        rows, cols = self.shapes[level - 1]
        return [
            (level - 1, r, c)
            for r in range(row * self.fan, min(rows, (row + 1) * self.fan))
            for c in range(col * self.fan, min(cols, (col + 1) * self.fan))
        ]

    def box(self, node: Node) -> Box:
        """The pixels of ``node``."""
        level, row, col = node
        side = self.grid.block * self.fan**level
        return Box(row * side, col * side, side, side).clip(Box.of(self.grid.shape))

    def below(self, node: Node, wanted: Callable[[Box], bool]) -> Iterator[Node]:
        """The nodes below ``node`` whose box is ``wanted``, and whose parents' are."""
        for child in self.children(node) if node[0] else ():
            if wanted(self.box(child)):
                yield child
                yield from self.below(child, wanted)
