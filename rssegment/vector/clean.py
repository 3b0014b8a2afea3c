"""Regions below a minimum area go to their neighbours, and small holes are filled: on the graph of regions.

The law. *Pixels* of a region are counted, its *key* says where its first pixel is, and two regions are neighbours where
they share pixel edges; no data and what lies outside the scene are no neighbours.

1. *Holes.* A hole of a region A is all that A alone parts from no data and from the scene's edge. If it has fewer
   than ``hole[A]`` pixels, all of it becomes A. So a hole with no data inside is never filled. Of holes within holes,
   the outermost that is filled wins.
2. *Sieve.* While a region that has a neighbour has fewer than ``smallest`` pixels, the one of these with the fewest
   (ties: the least key) is absorbed by the neighbour with the longest shared boundary (ties: the one with more pixels,
   then with the lesser key). The absorber unites with those neighbours of the absorbed that are of its class. The union
   is one region: its pixels and its boundaries are added up, its key is the least, its limits are the least of those
   that were of its class.
3. *Holes*, once more: rings that were closed by the sieve.

Holes come first, since what is in a hole belongs to what is around it, however it is divided inside, and since a ring
may be too small only without what it encloses. After 3, no region with a neighbour is too small and no hole is:
cleaning twice changes nothing, if limits are the same everywhere. All is settled by pixels and keys: neither the
numbering of regions nor the order of pairs matters, hence no block does.

Both steps are near-linear: a region that is absorbed is at most half of the union, so an entry in a list of neighbours
is looked at log2 ``smallest`` times at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rssegment.errors import InputError, SettingsError
from rssegment.vector._clean_kernels import (
    absorb_small,
    count_neighbours,
    find_enclosed,
    flatten,
    list_neighbours,
    unite_enclosed,
)

__all__ = ["RegionGraph", "clean"]

Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """Regions as nodes, shared boundaries as edges; the numbering is arbitrary.

    ``code`` (R,): class, not 0; ``pixels`` (R,): number of pixels; ``key`` (R,): row * width + column of the first
    pixel; ``open`` (R,): not 0 where it shares an edge with no data or with the scene's edge, as ``Regions.touches``.
    ``pairs`` (E, 2): regions that share pixel edges; ``lengths`` (E,): how many. A pair may come in several rows, which
    are added up. With connectivity 8, pairs that meet only at corners belong here too, with length 0: they unite when
    they come to be of one class, but don't absorb each other and don't lead out of a hole.

    Pairs of two large regions may be left out, and large regions without pairs: such as have ``smallest`` pixels and no
    fewer than any hole that is filled. To fill holes, mark these as open.
    """

    code: NDArray[np.uint16]
    pixels: Int64
    key: Int64
    open: NDArray[np.uint8] | NDArray[np.bool_]
    pairs: NDArray[np.int32] | Int64
    lengths: Int64

    def __len__(self) -> int:
        return int(self.code.size)


def clean(
    graph: RegionGraph,
    smallest: ArrayLike,
    hole: ArrayLike | None = None,
) -> NDArray[np.uint16]:
    """(R,) new classes of the regions of ``graph``: holes filled, then too small regions absorbed: the module's law.

    ``smallest`` (R,) or one number: pixels that a region at that place must have. ``hole`` (R,) or one number: pixels
    that a hole of that region must have to stay; None or 0 fills none. A region that is too small and has no neighbour
    keeps its class. None becomes no data.

    Memory: at most 110 bytes per region and 24 per row of ``pairs`` (32 where these are not int32) on top of the graph.

    Raises:
        InputError: arrays that don't fit together, or are no graph of regions.
        SettingsError: a limit that is negative or NaN.
    """
    _check(graph)
    unions = _Unions.of(graph, _limits(smallest, len(graph), "smallest"), _limits(hole, len(graph), "hole"))
    unions.fill()
    if unions.sieve():
        unions.fill()
    return unions.code[unions.parent]


def _limits(value: ArrayLike | None, regions: int, name: str) -> NDArray[np.float64]:
    """(R,) a copy of the limits that may be changed."""
    given = np.asarray(0.0 if value is None else value, np.float64)
    if given.shape not in ((), (regions,)):
        raise InputError(
            f"{name} has shape {given.shape}; expected one number, or one for each of {regions} regions"
        )
    if not (given >= 0).all():
        raise SettingsError(f"{name} has negative or undefined values; give areas in pixels, 0 or more")
    return np.array(np.broadcast_to(given, (regions,)))


def _check(graph: RegionGraph) -> None:
    """Says what is wrong with ``graph``."""
    regions, edges = len(graph), len(graph.pairs)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("code", "pixels", "key", "open"), (regions,))
    for name, shape in (shapes | {"pairs": (edges, 2), "lengths": (edges,)}).items():
        found = getattr(graph, name).shape
        if found != shape:
            raise InputError(f"{name} of the graph of regions has shape {found}; expected {shape}")
    if regions and (graph.pixels.min() < 1 or graph.code.min() < 1):
        raise InputError(
            "a region has no pixels, or class 0 (no data): only regions with a class are cleaned"
        )
    if edges and (graph.pairs.min() < 0 or graph.pairs.max() >= regions or graph.lengths.min() < 0):
        raise InputError(f"pairs must name regions from 0 to {regions - 1}, with lengths of 0 or more")
    if (graph.code[graph.pairs[:, 0]] == graph.code[graph.pairs[:, 1]]).any():
        raise InputError("a pair is of one class: such neighbours are one region, join them first")
    if not (np.diff(graph.key) > 0).all() and np.unique(graph.key).size < regions:
        raise InputError("two regions have the same key; expected the place of each one's first pixel")


@dataclass(frozen=True, eq=False)
class _Unions:
    """Regions that became one: ``parent`` leads to the root, whose row in the other arrays holds for all of them."""

    parent: NDArray[np.int32]
    pixels: Int64
    key: Int64
    code: NDArray[np.uint16]
    open: NDArray[np.uint8]
    smallest: NDArray[np.float64]
    hole: NDArray[np.float64]
    pairs: NDArray[np.int32]
    lengths: Int64

    @classmethod
    def of(cls, graph: RegionGraph, smallest: NDArray[np.float64], hole: NDArray[np.float64]) -> Self:
        """Every region by itself. What changes is copied."""

        def copied(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
            return np.array(values, dtype, order="C")

        return cls(
            np.arange(len(graph), dtype=np.int32), copied(graph.pixels, np.int64), copied(graph.key, np.int64),
            copied(graph.code, np.uint16), copied(graph.open != 0, np.uint8), smallest, hole,
            np.ascontiguousarray(graph.pairs, np.int32), np.ascontiguousarray(graph.lengths, np.int64),
        )  # fmt: skip

    def roots(self) -> NDArray[np.bool_]:
        """(R,) whether a region stands for its union."""
        return np.equal(self.parent, np.arange(self.parent.size, dtype=np.int32))

    def neighbours(self, wanted: NDArray[np.bool_], least: int) -> tuple[Int64, NDArray[np.int32], Int64]:
        """Offsets, neighbours and lengths of the ``wanted`` roots, from pairs of length ``least`` or more.

        A neighbour may come several times. Lengths are left out where ``least`` is not 0.
        """
        chosen = wanted.view(np.uint8)
        offsets = np.zeros(self.parent.size + 1, np.int64)
        count_neighbours(self.parent, self.pairs, self.lengths, chosen, least, offsets)
        target = np.empty(offsets[-1], np.int32)
        length = np.empty(0 if least else target.size, np.int64)
        list_neighbours(self.parent, self.pairs, self.lengths, chosen, least, offsets, target, length)
        return offsets, target, length

    def fill(self) -> None:
        """Fills the holes that are too small."""
        if not self.hole.any():
            return
        roots = self.roots()
        offsets, target, _ = self.neighbours(roots, 1)
        owner = np.full(roots.size, -1, np.int32)
        reached = find_enclosed(offsets, target, self.pixels, self.open * roots, self.hole, owner)
        if reached < roots.sum():
            raise InputError(
                f"{roots.sum() - reached} regions have no way to no data or to the scene's edge; to fill holes, give "
                "all pairs of regions that share an edge, and mark all regions that are open"
            )
        unite_enclosed(owner, self.parent, self.pixels)
        flatten(self.parent)

    def sieve(self) -> bool:
        """Absorbs what is too small; whether there was anything."""
        small = self.roots() & (self.pixels < self.smallest)
        if not small.any():
            return False
        offsets, target, length = self.neighbours(small, 0)
        heap = np.stack([self.pixels[small], self.key[small], np.flatnonzero(small)], axis=1)
        absorb_small(
            self.parent, self.pixels, self.key, self.code, self.open, self.smallest, self.hole, heap, offsets, target,
            length,
        )  # fmt: skip
        flatten(self.parent)
        return True
