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

    Every chain of such a part must be there. A part is connected over edges: where it meets itself at a corner, its rings
    part there.
    """
    from rssegment.vector import _join_kernels as kernels

    c, n = chains, 2 * len(chains)
    stride = int(max(c.vertices[:, 1].max(initial=0), c.nodes[:, 1].max(initial=0))) + 1
    keep = np.ones(len(c.nodes), np.uint8)
    top = np.empty(len(c), np.int64)
    kernels.topmost(c.offsets, c.vertices, top)
    part, half = np.empty(n, np.int32), np.empty(n, np.int32)
    key, size, vertex = (np.empty(n, np.int64) for _ in range(3))
    following = np.full(n, -1, np.int32)
    count = kernels.walk_rings(
        c.ends, c.sides, c.offsets, c.vertices, top, c.nodes, slots_of(c), keep, stride,
        following, part, key, size, half, vertex,
    )  # fmt: skip
    order = np.lexsort((key[:count], part[:count]))  # a part's exterior has its first corner
    offsets = np.concatenate([[0], np.cumsum(size[order])])
    corners = np.empty((offsets[-1], 2), np.int32)
    kernels.copy_rings(
        c.ends, c.offsets, c.vertices, c.nodes, keep, following, half, vertex, order, offsets, corners
    )
    rings = np.concatenate([[0], np.cumsum(np.bincount(part[:count], minlength=parts))])
    return Rings(rings, offsets, corners)


def slots_of(chains: Chains) -> Int32:
    """(N, 4): the half-chain that leaves each node in each direction, or -1; half-chain 2 * c + 1 is chain c backwards.

    Chains that bound nothing are left out.
    """
    slots = np.full((len(chains.nodes), 4), -1, np.int32)
    bounding = (chains.ends[:, 0] >= 0) & (chains.sides >= 0).any(axis=1)
    halves = 2 * np.flatnonzero(bounding).astype(np.int32)
    ends = chains.ends[halves >> 1]
    slots[ends[:, 0], ends[:, 1]] = halves
    slots[ends[:, 2], ends[:, 3]] = halves + 1
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
