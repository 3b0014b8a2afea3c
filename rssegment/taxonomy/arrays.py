"""A class tree as arrays, for loops over nodes instead of objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from rssegment.taxonomy.tree import Node

__all__ = ["TreeArrays"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """The N nodes in pre-order, and above them the *root*, which is no class and has row N. Arrays are read-only.

    ``codes`` (N,) uint16. ``parents`` (N,) int32: each node's parent's row, N at the top. ``levels`` (N,) int32 from 1.
    ``leaves`` (L,) int32: rows of the leaves, in channel order. ``membership`` (N, L) bool: is the leaf the node, or
    under it?
    """

    codes: NDArray[np.uint16]
    parents: NDArray[np.int32]
    levels: NDArray[np.int32]
    leaves: NDArray[np.int32]
    membership: NDArray[np.bool_]

    @classmethod
    def of(cls, nodes: Sequence[Node], leaves: Sequence[Node]) -> Self:
        row = {node.code: index for index, node in enumerate(nodes)}
        parents = [len(nodes) if node.parent is None else row[node.parent] for node in nodes]
        membership = np.zeros((len(nodes), len(leaves)), bool)
        for channel, leaf in enumerate(leaves):
            place = row[leaf.code]
            while place < len(nodes):
                membership[place, channel] = True
                place = parents[place]
        arrays = (
            np.array([node.code for node in nodes], np.uint16),
            np.array(parents, np.int32),
            np.array([node.level for node in nodes], np.int32),
            np.array([row[leaf.code] for leaf in leaves], np.int32),
            membership,
        )
        for array in arrays:
            array.flags.writeable = False
        return cls(*arrays)

    @cached_property
    def ancestry(self) -> NDArray[np.bool_]:
        """(N + 1, N + 1): whether the column's node is the row's or lies above it; the root lies above all."""
        size = len(self.codes) + 1
        above = np.eye(size, dtype=bool)
        above[:, -1] = True
        for row, parent in enumerate(self.parents):  # pre-order: the parent's row is complete
            above[row] |= above[parent]
        return above

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """(N + 1,): each row's children in pre-order, the root's last."""
        rows: list[list[int]] = [[] for _ in range(len(self.codes) + 1)]
        for row, parent in enumerate(self.parents.tolist()):
            rows[parent].append(row)
        return tuple(map(tuple, rows))

    def fold(self, leaves: Sequence[T], join: Callable[[list[T]], T]) -> list[T]:
        """A value for each of N nodes: the leaves' own (in channel order), for others ``join`` of the children's."""
        values = dict(zip(self.leaves.tolist(), leaves, strict=True))
        for row in reversed(range(len(self.codes))):  # pre-order backwards: children before their parent
            if self.children[row]:
                values[row] = join([values[child] for child in self.children[row]])
        return [values[row] for row in range(len(self.codes))]

    def ancestors_at(
        self, rows: NDArray[np.integer[Any]], level: int | NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        """The ancestors of ``rows`` at ``level``, which broadcast; rows that aren't below it stand for themselves."""
        parents, levels = np.append(self.parents, len(self.parents)), np.append(self.levels, 0)
        found, level = np.broadcast_arrays(rows, level)
        while (deeper := levels[found] > level).any():
            found = np.where(deeper, parents[found], found)
        return found.astype(np.int32)

    @cached_property
    def distances(self) -> NDArray[np.int32]:
        """(N + 1, N + 1): number of edges between two nodes, the root's row and column last."""
        levels = np.append(self.levels, 0)
        return np.asarray(levels[:, None] + levels[None, :] - 2 * self.common_levels, np.int32)

    @cached_property
    def common_levels(self) -> NDArray[np.int32]:
        """(N + 1, N + 1): level of the lowest common ancestor of two nodes; 0 where that is the root."""
        above = self.ancestry[:, :-1].astype(np.float32)  # sums of ones: exact
        return (above @ above.T).astype(np.int32)
