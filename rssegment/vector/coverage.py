"""A scene whose pieces are joined: its regions, band of blocks by band, in the order of their first pixels.

Groups are known by the key of their first pixel. Only what reaches a block's border is held in memory for the
whole scene (some tens of bytes for each such group); the rest is read when its band comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.vector.pieces import Chains, Int32, Int64, Partition, Piece, Table, keys_of, places_of
from rssegment.vector.regions import Regions
from rssegment.vector.rings import gathered, rings_of
from rssegment.vector.tree import Node, Tree

__all__ = ["Coverage", "Layer", "Span", "layers_of"]

_FAR = 8  # blocks that a region may be in before it counts as going far


@dataclass(frozen=True)
class Layer:
    """One set of regions that fill the scene.

    ``regions`` and ``parts``: the partitions that say what a region is, and what one polygon of it is; ``level`` of the
    taxonomy (None: the labels as they are).
    """

    level: int | None
    regions: int
    parts: int


def layers_of(
    codes: Sequence[tuple[int | None, NDArray[np.uint16] | None]], connectivity: int
) -> tuple[tuple[Partition, ...], tuple[Layer, ...]]:
    """Partitions and layers for ``codes``: level, and code of each label at it (None: itself), coarse to fine."""
    partitions: list[Partition] = []
    layers = []
    for level, table in codes:
        if connectivity == 8:
            partitions.append(Partition(table, diagonal=True))
        partitions.append(Partition(table))
        parts = len(partitions) - 1
        layers.append(Layer(level, parts - (connectivity == 8), parts))
    if partitions[-1].codes is not None:  # the labels themselves are always the last
        partitions.append(Partition())
    return tuple(partitions), tuple(layers)


@dataclass(frozen=True, eq=False)
class _Outer:
    """Of one partition, the groups that reach a block's border: ``table``, ascending by first pixel.

    Pairs (n,) of a group's key and the number of a block, or of a knot, where it has chains, ascending by key.
    """

    table: Table
    block_keys: Int64
    blocks: Int32
    knot_keys: Int64
    knots: Int32

    def span(self, low: int, high: int) -> slice:
        """The groups whose key is in [low, high)."""
        return slice(*np.searchsorted(self.table.first, [low, high]))


@dataclass(frozen=True)
class Span:
    """Regions of one band whose first pixels have keys from ``first`` to before ``stop``."""

    band: int
    first: int
    stop: int


class Coverage:
    """The joined pieces of ``tree``, each of which ``load(node, chains)`` gives, with its chains or without.

    ``layers`` are written one after the other; a region's parent is the one of the layer before that holds it.
    """

    def __init__(
        self, tree: Tree, partitions: int, layers: Sequence[Layer], load: Callable[[Node, bool], Piece]
    ) -> None:
        self._tree = tree
        self.layers = tuple(layers)
        self._load = load
        self._blocks = list(tree.level(0))
        self._knots = list(tree.knots())
        self._final: dict[Node, tuple[Int64, ...]] = {}
        self._inner = np.zeros((len(self._blocks), partitions), np.int64)
        self._outer = self._resolve(partitions)
        self._parents: dict[int, Int64] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the scene, px."""
        return self._tree.grid.shape

    @property
    def bands(self) -> int:
        """Number of rows of blocks."""
        return self._tree.shapes[0][0]

    def outer(self, partition: int) -> Table:
        """The groups of a partition that reach a block's border, ascending by first pixel."""
        return self._outer[partition].table

    def pieces(self) -> Iterator[tuple[Piece, tuple[Int64, ...]]]:
        """All pieces, each with the keys that its groups have in the end, by partition."""
        for node in [*self._blocks, *self._knots]:
            yield self.piece(node)

    def piece(self, node: Node, chains: bool = True) -> tuple[Piece, tuple[Int64, ...]]:
        """One piece with the keys that its groups have in the end; with its chains or without."""
        piece = self._load(node, chains)
        return piece, self._final[node] if node[0] else self._finals(node, piece)

    def pixels(self, node: Node) -> Int64:
        """(n,) pixels in the whole scene of parts that go beyond a block: a block's open ones, all of a knot's."""
        table = self._outer[-1].table
        pixels: Int64 = table.sums[np.searchsorted(table.first, self._final[node][-1]), 0]
        return pixels

    def counts(self, layer: int) -> Int64:
        """(bands,) regions of a layer that begin in each band."""
        k = self.layers[layer].regions
        inner = self._inner[:, k].reshape(self._tree.shapes[0]).sum(axis=1)
        spans = (self._outer[k].span(*self._keys(band)) for band in range(self.bands))
        counts: Int64 = inner + np.array([span.stop - span.start for span in spans], np.int64)
        return counts

    def first_id(self, layer: int, band: int = 0) -> int:
        """The id of the first region of a layer that begins in ``band``, counted from 1 through all layers before."""
        before = sum(int(self.counts(k).sum()) for k in range(layer))
        return 1 + before + int(self.counts(layer)[:band].sum())

    def spans(self, layer: int) -> Iterator[Span]:
        """The regions of a layer in portions that are held together, in order: a band each.

        A band in which many regions begin that go far beyond it comes in several.
        """
        outer = self._outer[self.layers[layer].regions]
        budget = _FAR * (self._tree.shapes[0][1] + _FAR)
        for band in range(self.bands):
            low, high = self._keys(band)
            begin, stop = np.searchsorted(outer.block_keys, [low, high])
            keys, blocks = np.unique(outer.block_keys[begin:stop], return_counts=True)
            far = np.cumsum(np.maximum(blocks - _FAR, 0)) // budget
            cuts = keys[1:][np.diff(far) > 0].tolist()
            for first, last in pairwise([low, *cuts, high]):
                yield Span(band, first, last)

    def regions(self, layer: int, span: Span) -> Regions:
        """The regions of a layer whose first pixels lie in ``span``, in the order of these.

        Law: spans together are a function of the scene's labels, not of the blocks.
        """
        chosen, band, keys = self.layers[layer], span.band, (span.first, span.stop)
        above = self.layers[layer - 1].regions if layer else None
        shares = [_share(piece, final, chosen, keys, above) for piece, final in self._pieces(chosen, span)]
        outer = self._outer[chosen.regions]
        table = Table.joined(
            [outer.table[outer.span(*keys)], *(each.inner for each in shares if each.is_block)]
        )
        table = table[np.argsort(table.first)]
        part_keys, owner = _parts(shares, table)
        order = np.argsort(part_keys)
        inside = [each.renamed(part_keys, order) for each in shares if each.is_block]
        woven = Chains.joined([each.renamed(part_keys, order) for each in shares if not each.is_block])
        chains = gathered(inside, woven)
        rings = rings_of(chains, owner.size)
        start = self.first_id(layer, band) + self._before(layer, span)
        return Regions(
            id=np.arange(start, start + len(table)),
            parent=self._parent(layer, band, table, shares),
            code=table.code,
            sums=table.sums,
            least=table.least,
            touches=table.touches,
            first=places_of(table.first),
            part_offsets=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(table)))]),
            ring_offsets=rings.ring_offsets,
            corner_offsets=rings.corner_offsets,
            corners=rings.corners,
            scale=chains.scale,
        )

    def _keys(self, band: int) -> tuple[int, int]:
        """First key of a band, and of the next."""
        side = self._tree.grid.block
        low, high = keys_of(np.array([[band * side, 0], [(band + 1) * side, 0]])).tolist()
        return low, high

    def _resolve(self, partitions: int) -> list[_Outer]:
        """From the root down: what each open group became in the end."""
        rows: list[list[Table]] = [[] for _ in range(partitions)]
        knot_pairs: list[list[tuple[Int64, int]]] = [[] for _ in range(partitions)]
        for number in reversed(range(len(self._knots))):
            node = self._knots[number]
            piece = self._load(node, True)
            final = self._finals(node, piece)
            self._final[node] = final
            shares = np.zeros(partitions, np.int64)
            bounding = np.unique(piece.chains.sides[piece.chains.sides >= 0])
            for k, table in enumerate(piece.tables):
                closed = np.ones(len(table), np.bool_)
                closed[piece.open[k]] = False
                rows[k].append(table[closed])
                knot_pairs[k].append((np.unique(final[k][piece.members[k][bounding]]), number))
            for child in self._tree.children(node):
                block = self._load(child, False)
                opened = []
                for k, mine in enumerate(block.open):
                    group = piece.maps[k][shares[k] : shares[k] + mine.size]
                    shares[k] += mine.size
                    opened.append(final[k][group])
                self._final[child] = tuple(opened)
                if child[0] == 0:
                    at = child[1] * self._tree.shapes[0][1] + child[2]
                    self._inner[at] = [len(t) - o.size for t, o in zip(block.tables, opened, strict=True)]
        return [self._outer_of(k, rows[k], knot_pairs[k]) for k in range(partitions)]

    def _finals(self, node: Node, piece: Piece) -> tuple[Int64, ...]:
        """The key, in the end, of every group of a piece."""
        opened = self._final.get(node, tuple(np.empty(0, np.int64) for _ in piece.tables))
        finals = []
        for table, rows, keys in zip(piece.tables, piece.open, opened, strict=True):
            final = table.first.copy()
            final[rows] = keys
            finals.append(final)
        return tuple(finals)

    def _outer_of(self, k: int, rows: list[Table], knots: list[tuple[Int64, int]]) -> _Outer:
        table = Table.joined(rows)
        table = table[np.argsort(table.first)]
        blocks = [(self._final[node][k], number) for number, node in enumerate(self._blocks)]
        return _Outer(table, *_sorted_pairs(blocks), *_sorted_pairs(knots))

    def _before(self, layer: int, span: Span) -> int:
        """How many regions of the band begin before ``span``."""
        if span.first == self._keys(span.band)[0]:
            return 0
        return int(np.searchsorted(self._firsts(layer, span.band), span.first))

    def _pieces(self, layer: Layer, span: Span) -> Iterator[tuple[Piece, tuple[Int64, ...]]]:
        """All pieces with chains of regions that begin in ``span``, with the keys of their groups."""
        outer, ends = self._outer[layer.regions], [span.first, span.stop]
        across = self._tree.shapes[0][1]
        here = np.arange(span.band * across, (span.band + 1) * across, dtype=np.int32)
        at = slice(*np.searchsorted(outer.block_keys, ends))
        for number in np.union1d(here, outer.blocks[at]):
            yield self.piece(self._blocks[number])
        at = slice(*np.searchsorted(outer.knot_keys, ends))
        for number in np.unique(outer.knots[at]):
            yield self.piece(self._knots[number])

    def _parent(self, layer: int, band: int, table: Table, shares: Sequence[_Share]) -> Int64:
        """(n,) ids of the regions of the layer before that hold the regions of ``table``."""
        if layer == 0:
            return np.zeros(len(table), np.int64)
        keys = np.empty(len(table), np.int64)
        for each in shares:
            keys[np.searchsorted(table.first, each.regions)] = each.above
        return self._ids(layer - 1, band, keys)

    def _ids(self, layer: int, band: int, keys: Int64) -> Int64:
        """Ids of regions of ``layer`` that have ``keys``: of this band or, going over blocks, of an earlier one."""
        if layer not in self._parents:
            self._parents[layer] = self._outer_ids(layer)
        outer = self._outer[self.layers[layer].regions].table.first
        here = self._firsts(layer, band)
        at = np.searchsorted(here, keys)
        ids = at + self.first_id(layer, band)
        earlier = keys < self._keys(band)[0]
        ids[earlier] = self._parents[layer][np.searchsorted(outer, keys[earlier])]
        return ids

    def _outer_ids(self, layer: int) -> Int64:
        """Ids of all regions of ``layer`` that reach a block's border."""
        outer = self._outer[self.layers[layer].regions]
        ids = np.empty(len(outer.table), np.int64)
        for band in range(self.bands):
            span = outer.span(*self._keys(band))
            here = self._firsts(layer, band)
            ids[span] = np.searchsorted(here, outer.table.first[span]) + self.first_id(layer, band)
        return ids

    def _firsts(self, layer: int, band: int) -> Int64:
        """Keys of the regions of ``layer`` that begin in ``band``, ascending."""
        k = self.layers[layer].regions
        outer = self._outer[k]
        keys = [outer.table.first[outer.span(*self._keys(band))]]
        for col in range(self._tree.shapes[0][1]):
            piece = self._load((0, band, col), False)
            keys.append(np.delete(piece.tables[k].first, piece.open[k]))
        return np.sort(np.concatenate(keys))


def _sorted_pairs(pairs: Sequence[tuple[Int64, int]]) -> tuple[Int64, Int32]:
    keys = np.concatenate([np.empty(0, np.int64), *(each for each, _ in pairs)])
    numbers = np.repeat(np.array([number for _, number in pairs], np.int32), [each.size for each, _ in pairs])
    order = np.argsort(keys, kind="stable")
    return keys[order], numbers[order]


@dataclass(frozen=True, eq=False)
class _Share:
    """What a piece has of some regions, so that the piece itself can go.

    ``inner``: those that lie in this block alone. ``parts`` (w,) and ``regions`` (w,): keys of their parts here and of
    the region of each; ``above`` (w,): of the region one layer up. ``chains``: all that bound them, sides are places in
    ``parts`` or -1.
    """

    is_block: bool
    inner: Table
    parts: Int64
    regions: Int64
    above: Int64
    chains: Chains

    def renamed(self, part_keys: Int64, order: Int64) -> Chains:
        """The chains with sides that are places in ``part_keys``, which ``order`` sorts."""
        name = np.full(self.parts.size + 1, -1, np.int32)
        name[:-1] = order[np.searchsorted(part_keys, self.parts, sorter=order)]
        return replace(self.chains, sides=name[self.chains.sides])


def _share(
    piece: Piece, final: tuple[Int64, ...], layer: Layer, span: tuple[int, int], above: int | None
) -> _Share:
    """The share of ``piece`` in the regions whose keys are in ``span``."""
    from rssegment.vector import _ring_kernels as kernels

    k, member = layer.regions, piece.members[layer.parts]
    regions = _carried(final[k][piece.members[k]], member, final[layer.parts].size)
    wanted = np.flatnonzero((regions >= span[0]) & (regions < span[1]))
    name = np.full(regions.size + 1, -1, np.int32)
    name[wanted] = np.arange(wanted.size, dtype=np.int32)
    chains, sides = piece.chains, np.empty_like(piece.chains.sides)
    used = kernels.name_sides(chains.sides, member, name, sides)
    chains = replace(chains, sides=sides)
    if 2 * used < len(chains):
        chains = chains.take(np.flatnonzero((sides >= 0).any(axis=1)))
    table = piece.tables[k]
    inner = (table.first >= span[0]) & (table.first < span[1])
    inner[piece.open[k]] = False
    upper = np.empty(0, np.int64)
    if above is not None:
        upper = _carried(final[above][piece.members[above]], member, regions.size)[wanted]
    return _Share(not piece.maps, table[inner], final[layer.parts][wanted], regions[wanted], upper, chains)


def _carried(of_finest: Int64, member: Int32, n: int) -> Int64:
    """(n,) what the finest groups of each of ``n`` groups have."""
    out = np.empty(n, np.int64)
    out[member] = of_finest
    return out


def _parts(shares: Sequence[_Share], table: Table) -> tuple[Int64, NDArray[Any]]:
    """Keys of the polygons of the regions in ``table``, region by region, and the region of each."""
    nothing = np.empty(0, np.int64)
    keys, at = np.unique(np.concatenate([nothing, *(each.parts for each in shares)]), return_index=True)
    owner = np.searchsorted(table.first, np.concatenate([nothing, *(each.regions for each in shares)])[at])
    order = np.argsort(owner, kind="stable")
    return keys[order], owner[order]
