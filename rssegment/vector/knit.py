"""Pieces side by side to one piece: groups by union-find over seam pixel pairs, chains by the corners where they end.

No geometry is involved, and the order or number of pieces joined at once does not matter: a tree reduction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.vector.block_pieces import Pairs, alike
from rssegment.vector.pieces import (
    EDGE,
    NO_DATA,
    Chains,
    Int32,
    Int64,
    Partition,
    Piece,
    Table,
    keys_of,
    within,
)
from rssegment.vector.rings import slots_of
from rssegment.vector.seams import OUTSIDE, Seams, find_seams

__all__ = ["knit"]


def knit(pieces: Sequence[Piece], partitions: Sequence[Partition], scene: Box | None = None) -> Piece:
    """One piece of ``pieces`` that fill a rectangle; of the whole ``scene``, if given, where nothing stays loose.

    Raises
    ------
    InputError
        The pieces overlap, or don't fill a rectangle.
    """
    box = _box(pieces)
    parts = [piece.frontier() for piece in sorted(pieces, key=lambda piece: piece.box)]
    counts = np.array([[len(table) for table in part.tables] for part in parts])
    bases = np.concatenate([np.zeros((1, counts.shape[1]), np.int64), np.cumsum(counts, axis=0)])
    labels = np.concatenate([part.tables[-1].code for part in parts])
    seams = find_seams(parts, bases[:-1, -1], labels, box, scene)
    touches = _touches(seams, labels.size)
    elements = [
        np.concatenate([part.members[k] + base for part, base in zip(parts, bases[:-1, k], strict=True)])
        for k in range(len(partitions))
    ]
    united = [
        _united([part.tables[k] for part in parts], elements[k], _meeting(seams, partition, labels), touches)
        for k, partition in enumerate(partitions)
    ]
    tables, maps = (tuple(each) for each in zip(*united, strict=True))
    finest = maps[-1]
    members = tuple(_member(maps[k][elements[k]], finest, len(tables[-1])) for k in range(len(partitions)))
    border = _border(parts, bases[:-1, -1], finest, box) if scene is None else np.empty(0, np.int32)
    reached = np.unique(border[border >= 0])
    open_groups = tuple(np.unique(member[reached]) for member in members)
    chains, loose, corners = _woven(parts, bases[:-1, -1], seams, finest, box, whole=scene is not None)
    diagonal = any(partition.diagonal for partition in partitions)
    touching = finest[seams.touching if diagonal else seams.touching[:0]]
    return Piece(box, tables, members, open_groups, border, chains, loose, corners, maps, touching)


def _box(pieces: Sequence[Piece]) -> Box:
    boxes = [piece.box for piece in pieces]
    box = Box.between(
        min(b.row for b in boxes),
        min(b.col for b in boxes),
        max(b.stop_row for b in boxes),
        max(b.stop_col for b in boxes),
    )
    if sum(b.size for b in boxes) != box.size:
        raise InputError(f"blocks overlap or leave holes in {box}: {boxes[:5]}; give each pixel in one block")
    return box


def _touches(seams: Seams, n: int) -> NDArray[np.uint8]:
    """(n,) what finest groups touch along the seams."""
    touches = np.zeros(n, np.uint8)
    other = seams.sides[:, ::-1]
    for beyond, bit in ((-1, NO_DATA), (OUTSIDE, EDGE)):
        touches[seams.sides[(other == beyond) & (seams.sides >= 0)]] |= bit
    return touches


def _meeting(seams: Seams, partition: Partition, labels: NDArray[np.uint16]) -> list[Pairs]:
    """Pairs of finest groups that are one in ``partition``, as they meet on the seams."""
    codes = partition.of(labels)
    met = [seams.beside, seams.touching] if partition.diagonal else [seams.beside]
    return [alike(pairs, codes) for pairs in met]


def _united(
    tables: Sequence[Table], element: Int64, pairs: Sequence[Pairs], touches: NDArray[np.uint8]
) -> tuple[Table, Int32]:
    """The groups of one partition, and which of them each open group of the pieces became.

    ``element`` (n,): the open group of each finest one, for which ``pairs`` and ``touches`` are.
    """
    table = Table.joined(tables)
    np.bitwise_or.at(table.touches, element, touches)
    return table.united([element[each] for each in pairs])


def _member(group: Int32, finest: Int32, n: int) -> Int32:
    """The group of each of ``n`` finest groups, from that of each finest element."""
    member = np.zeros(n, np.int32)
    member[finest] = group
    return member


def _border(parts: Sequence[Piece], bases: Int64, finest: Int32, box: Box) -> Int32:
    """Finest groups along the top, bottom, left and right of ``box``."""
    lines = [np.full(n, -1, np.int32) for n in (box.width, box.width, box.height, box.height)]
    for part, base in zip(parts, bases, strict=True):
        core = part.box.relative_to(box)
        top, bottom, left, right = (
            np.where(line >= 0, finest[line + base], np.int32(-1)) if finest.size else line
            for line in part.lines()
        )
        across, down = slice(core.col, core.stop_col), slice(core.row, core.stop_row)
        for line, own, span, reaches in (
            (lines[0], top, across, core.row == 0),
            (lines[1], bottom, across, core.stop_row == box.height),
            (lines[2], left, down, core.col == 0),
            (lines[3], right, down, core.stop_col == box.width),
        ):
            if reaches:
                line[span] = own
    return np.concatenate(lines)


def _woven(
    parts: Sequence[Piece], bases: Int64, seams: Seams, finest: Int32, box: Box, *, whole: bool
) -> tuple[Chains, Chains, Int32]:
    """All loose chains and those of the seams strung together: what is complete, what is loose still, and the
    corners on the seams."""
    graph = Chains.joined([*_rebased(parts, bases), _along(seams)])
    number = np.append(finest, [-1, -1]).astype(np.int32)  # indexes -2 and -1: outside and no data
    sides = number[graph.sides]
    nodes = graph.nodes
    slots = slots_of(graph)
    there = slots >= 0
    straight = (there == [True, False, True, False]).all(axis=1) | (there == [False, True, False, True]).all(
        axis=1
    )
    outer = np.zeros(len(nodes), np.bool_) if whole else ~within(nodes, box)
    on_seam = np.ones(len(nodes), np.bool_)
    for part in parts:
        on_seam &= ~within(nodes, part.box)
    stop = outer | ~on_seam | (there.sum(axis=1) > 2)
    new, half_loose = _weave(graph, sides, slots, stop, straight), np.append(outer, False)
    is_loose = half_loose[new.ends[:, [0, 2]]].any(axis=1)
    corners = nodes[on_seam & ~outer & ~straight]
    return new.take(np.flatnonzero(~is_loose)), new.take(np.flatnonzero(is_loose)), corners


def _weave(
    graph: Chains, sides: Int32, slots: Int32, stop: NDArray[np.bool_], straight: NDArray[np.bool_]
) -> Chains:
    from rssegment.vector import _join_kernels as kernels

    n, room = len(graph), len(graph.vertices) + len(graph.nodes)
    ends, new_sides = np.empty((n, 4), np.int32), np.empty((n, 2), np.int32)
    offsets, vertices = np.zeros(n + 1, np.int64), np.empty((room, 2), np.int32)
    count, used = kernels.weave(
        graph.ends, sides, graph.offsets, graph.vertices, graph.nodes, slots, stop.view(np.uint8),
        straight.view(np.uint8), np.zeros(n, np.uint8), ends, new_sides, offsets, vertices,
    )  # fmt: skip
    return Chains(graph.nodes, ends[:count], new_sides[:count], offsets[: count + 1], vertices[:used])


def _rebased(parts: Sequence[Piece], bases: Int64) -> list[Chains]:
    """The loose chains with groups numbered through all pieces."""
    out = []
    for part, base in zip(parts, bases, strict=True):
        loose = part.loose
        sides = np.where(loose.sides >= 0, loose.sides + np.int32(base), loose.sides)
        out.append(Chains(loose.nodes, loose.ends, sides, loose.offsets, loose.vertices))
    return out


def _along(seams: Seams) -> Chains:
    """The straight chains on the seams."""
    corners = seams.corners.reshape(-1, 2)
    keys, at = np.unique(keys_of(corners), return_index=True)
    ends = np.empty((len(seams.sides), 4), np.int32)
    ends[:, 0::2] = np.searchsorted(keys, keys_of(corners)).reshape(-1, 2)
    ends[:, 1::2] = seams.leaving
    return Chains(
        corners[at].astype(np.int32),
        ends,
        seams.sides.astype(np.int32),
        np.zeros(len(ends) + 1, np.int64),
        np.empty((0, 2), np.int32),
    )
