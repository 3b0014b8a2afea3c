"""Chains to the rings of the parts on their sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rssegment.vector.pieces import Chains, Int32, Int64, keys_of

__all__ = ["Rings", "gathered", "rings_of", "slots_of"]


@dataclass(frozen=True, eq=False)
class Rings:
    """``ring_offsets`` (P + 1,): the rings of each part, its exterior first, then holes by their first corners;
    ``corner_offsets`` (R + 1,) and ``corners`` (N, 2), (row, col), closed, from the topmost, then leftmost one."""

    ring_offsets: Int64
    corner_offsets: Int64
    corners: Int32


def rings_of(chains: Chains, parts: int) -> Rings:
    """Rings of the parts 0 to ``parts`` - 1 that are the sides of ``chains``; other sides are negative.

    Every chain of such a part must be there. A part is connected over edges: where it meets itself at a corner, its
    rings part there.
    """
    from rssegment.vector import _ring_kernels as kernels

    c, n = chains, 2 * len(chains)
    room = kernels.count_corners(c.ends, c.sides, c.offsets)
    anywhere = np.empty((room, 2), np.int32)
    part, start, first, key = np.empty(n, np.int32), *(np.empty(n + 1, np.int64) for _ in range(3))
    count = kernels.walk_rings(
        c.ends, c.sides, c.offsets, c.vertices, c.nodes, slots_of(c), np.zeros(n, np.uint8),
        part, start, first, key, anywhere,
    )  # fmt: skip
    rings, order = np.zeros(parts + 1, np.int64), np.empty(count, np.int64)
    kernels.order_rings(part[:count], key[:count], start, first, anywhere, rings, order)
    offsets, corners = np.empty(count + 1, np.int64), np.empty((room + count, 2), np.int32)
    kernels.place_rings(order, start, first, anywhere, offsets, corners)
    return Rings(rings, offsets, corners)


def slots_of(chains: Chains) -> Int32:
    """(N, 4): the half-chain that leaves each node in each direction, or -1; half-chain 2 * c + 1 is chain c backwards.

    Chains that bound nothing are left out.
    """
    from rssegment.vector import _ring_kernels as kernels

    slots = np.empty((len(chains.nodes), 4), np.int32)
    kernels.fill_slots(chains.ends, chains.sides, slots)
    return slots


def gathered(inside: Sequence[Chains], woven: Chains) -> Chains:
    """All chains together. ``inside``: those of single blocks, whose nodes come row-major and which share none with
    another block; ``woven``: the others, which may end at any of these nodes."""
    parts = [woven, *inside] if len(woven) else list(inside)
    if len(parts) < 2:
        return parts[0] if parts else Chains.none()
    keys = keys_of(woven.nodes)
    ends, base = [], 0
    for part in parts:
        number = np.arange(base, base + len(part.nodes) + 1, dtype=np.int32)
        number[-1] = -1
        if part is not woven and len(woven):
            own = keys_of(part.nodes)
            at = np.minimum(np.searchsorted(own, keys), max(own.size - 1, 0))
            shared = np.flatnonzero(own[at] == keys) if own.size else np.empty(0, np.int64)
            number[at[shared]] = shared
        each = part.ends.copy()
        each[:, [0, 2]] = number[each[:, [0, 2]]]
        ends.append(each)
        base += len(part.nodes)
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return Chains(
        np.concatenate([part.nodes for part in parts]),
        np.concatenate(ends),
        np.concatenate([part.sides for part in parts]),
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate([part.vertices for part in parts]),
        max(part.scale for part in parts),
    )
