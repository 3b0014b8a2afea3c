"""A block's trace as the first piece: its groups in every partition, its complete chains, and what is loose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.vector.pieces import NO_DATA, Chains, Int32, Partition, Piece, Table, keys_of, within
from rssegment.vector.trace import BlockTrace

__all__ = ["Pairs", "alike", "piece_of"]

Pairs = NDArray[np.integer[Any]]


def piece_of(trace: BlockTrace, partitions: Sequence[Partition], *, corners: bool = False) -> Piece:
    """The piece of one block; with its ``corners`` where chains will be simplified.

    The last of ``partitions`` is the labels' own over edges.
    """
    finest = Table(trace.code, trace.sums, trace.least, _touches(trace), keys_of(trace.first))
    tables, members = [], []
    for partition in partitions[:-1]:
        table, member = _grouped(finest, trace, partition)
        tables.append(table)
        members.append(member)
    tables.append(finest)
    members.append(np.arange(len(finest), dtype=np.int32))
    open_groups = [_reaching(member, trace.border) for member in members]
    inside = within(trace.nodes, trace.core)
    is_inside = np.append(inside, True)  # index -1: a closed chain
    is_loose = ~(is_inside[trace.ends[:, 0]] & is_inside[trace.ends[:, 2]])
    whole = Chains(trace.nodes, trace.ends, trace.sides, trace.offsets, trace.vertices)
    loose = whole.take(np.flatnonzero(is_loose))
    # loose chains stay where they are among the complete ones, but bound nothing: cheaper than a copy
    sides = trace.sides.copy()
    sides[is_loose] = -1
    chains = Chains(trace.nodes, trace.ends, sides, trace.offsets, trace.vertices)
    kept = np.concatenate([trace.nodes[inside], trace.vertices]) if corners else trace.nodes[:0]
    return Piece(
        trace.core, tuple(tables), tuple(members), tuple(open_groups), trace.border, chains, loose, kept,
        touching=trace.touching,
    )  # fmt: skip


def _touches(trace: BlockTrace) -> NDArray[np.uint8]:
    touches = np.zeros(trace.code.size, np.uint8)
    left, right = trace.sides.T
    touches[left[right < 0]] = touches[right[left < 0]] = NO_DATA  # no chain has no data on both sides
    return touches


def _grouped(finest: Table, trace: BlockTrace, partition: Partition) -> tuple[Table, Int32]:
    codes = partition.of(finest.code)
    table = Table(codes, finest.sums, finest.least, finest.touches, finest.first)
    pairs = [alike(trace.sides, codes)]
    if partition.diagonal:
        pairs.append(alike(trace.touching, codes))
    return table.united(pairs)


def alike(pairs: Pairs, codes: NDArray[np.uint16]) -> Pairs:
    """Those of ``pairs`` (n, 2) of regions (negative: none) that have one code."""
    pairs = pairs[(pairs[:, 0] >= 0) & (pairs[:, 1] >= 0)]
    chosen: Pairs = pairs[codes[pairs[:, 0]] == codes[pairs[:, 1]]]
    return chosen


def _reaching(member: Int32, border: Int32) -> Int32:
    """The groups on the border."""
    return np.unique(member[border[border >= 0]])
