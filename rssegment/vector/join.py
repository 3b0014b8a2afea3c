"""Block traces to the regions of the whole scene: by integer keys only, the same whatever the blocks were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.vector.regions import Regions
from rssegment.vector.seams import Seams, find_seams
from rssegment.vector.trace import BlockTrace

__all__ = ["join"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def join(traces: Sequence[BlockTrace], connectivity: int = 4, *, valid: bool = True) -> Regions:
    """Regions of the scene whose blocks were traced; where no block was traced, there is no data.

    Regions are numbered from 1 by their first pixel in row-major order; rings start at their topmost, then leftmost
    corner; an exterior comes before its holes, these in the order of their first corners.
    Law: a function of the scene's labels, not of the blocks or their order.

    With connectivity 8 a region may hang together by corners alone. It then has several polygons, each valid (OGC);
    with ``valid=False`` it is one polygon whose ring runs through such corners more than once, as GDAL makes them.

    Raises
    ------
    InputError
        Blocks overlap, or the connectivity is not 4 or 8, or is 8 where blocks were traced with 4.
    """
    if connectivity not in (4, 8):
        raise InputError(f"connectivity is {connectivity}; it must be 4 (edges) or 8 (edges and corners)")
    traces = sorted((trace for trace in traces if trace.code.size), key=lambda trace: trace.core)
    if not traces:
        return Regions.none()
    _check_apart(traces)
    if connectivity == 8 and any(trace.connectivity != 8 for trace in traces):
        raise InputError(
            "blocks were traced with connectivity 4 and can't be joined with 8; trace them with 8"
        )
    bases = np.cumsum([0, *(trace.code.size for trace in traces[:-1])])
    codes = np.concatenate([trace.code for trace in traces])
    seams = find_seams(traces, bases, codes)
    stride = max(trace.core.stop_col for trace in traces) + 1
    touching = (
        [trace.touching + base for trace, base in zip(traces, bases, strict=True)]
        if connectivity == 8
        else []
    )
    groups = _group(traces, seams, touching, stride, valid=valid)
    graph = _graph(traces, bases, seams, groups.part_of_region, stride)
    return _regions(codes, groups, graph, stride)


def _check_apart(traces: Sequence[BlockTrace]) -> None:
    cores = np.array([[t.core.row, t.core.col, t.core.stop_row, t.core.stop_col] for t in traces])
    for k, core in enumerate(cores[:-1]):
        later = cores[k + 1 :]
        later = later[: np.searchsorted(later[:, 0], core[2])]  # sorted by first row; the rest begin below
        clash = (later[:, 1] < core[3]) & (later[:, 3] > core[1])
        if clash.any():
            other = traces[k + 1 + int(np.argmax(clash))].core
            raise InputError(
                f"blocks overlap: {traces[k].core} and {other}; give each pixel in one block only"
            )


@dataclass(frozen=True)
class _Groups:
    """``part_of_region`` (n,): number of the polygon of each block region; parts are in the order of the output.

    ``region_of_part`` (P,); ``sums`` (R, 3); ``first`` (R,) as ``row * stride + col``; ``member`` (R,): one of its
    block regions.
    """

    part_of_region: Int64
    region_of_part: Int64
    sums: Int64
    first: Int64
    member: Int64
    least: NDArray[np.uint8]


def _group(
    traces: Sequence[BlockTrace], seams: Seams, touching: Sequence[Int64], stride: int, *, valid: bool
) -> _Groups:
    sums = np.concatenate([trace.sums for trace in traces])
    at = np.concatenate([trace.first for trace in traces]).astype(np.int64)
    first = at[:, 0] * stride + at[:, 1]
    parts = _unite(first.size, [seams.joined])
    whole = _unite(first.size, [seams.joined, seams.touching, *touching]) if touching else parts
    region, region_sums, region_first, member = _ranked(whole, sums, first)
    least = np.full(member.size, 255, np.uint8)
    np.minimum.at(least, region, np.concatenate([trace.least for trace in traces]))
    if parts is whole or not valid:
        return _Groups(region, np.arange(member.size), region_sums, region_first, member, least)
    part, _, part_first, part_member = _ranked(parts, sums, first)
    region_of_part = region[part_member]
    order = np.lexsort((part_first, region_of_part))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return _Groups(rank[part], region_of_part[order], region_sums, region_first, member, least)


def _unite(n: int, pairs: Sequence[NDArray[np.integer]]) -> Int64:
    """The root of each of ``n`` things when the members of each pair are one."""
    from rssegment.vector import _join_kernels as kernels

    parent = np.arange(n)
    kernels.unite_pairs(parent, np.ascontiguousarray(np.concatenate(pairs), np.int64))
    kernels.flatten(parent)
    return parent


def _ranked(root: Int64, sums: Int64, first: Int64) -> tuple[Int64, Int64, Int64, Int64]:
    """Numbers the groups by first pixel: number of each thing, and per group its sums, first pixel and a member."""
    from rssegment.vector import _join_kernels as kernels

    members = np.flatnonzero(root == np.arange(root.size))
    dense = np.empty(root.size, np.int64)
    dense[members] = np.arange(members.size)
    group_sums = np.zeros((members.size, sums.shape[1]), np.int64)
    group_first = np.full(members.size, np.iinfo(np.int64).max)
    kernels.sum_by(dense[root], sums, first, group_sums, group_first)
    order = np.argsort(group_first)
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return rank[dense[root]], group_sums[order], group_first[order], members[order]


@dataclass(frozen=True)
class _Graph:
    """All chains and nodes of the scene. ``slots`` (N, 4): the half-chain that leaves a node in each direction, or -1;
    ``keep`` (N,): 0 for nodes where one boundary goes straight on. ``sides`` hold parts. The rest as in BlockTrace."""

    ends: Int32
    sides: Int32
    offsets: Int64
    vertices: Int32
    nodes: Int32
    slots: Int32
    keep: NDArray[np.uint8]


def _graph(
    traces: Sequence[BlockTrace], bases: Int64, seams: Seams, part_of_region: Int64, stride: int
) -> _Graph:
    ends, nodes = _merged_nodes(traces, seams, stride)
    part_of = np.append(part_of_region, -1).astype(np.int32)  # index -1: no data
    inside = [
        np.where(trace.sides >= 0, trace.sides + base, -1) for trace, base in zip(traces, bases, strict=True)
    ]
    sides = part_of[np.concatenate([*inside, seams.sides])]
    sizes = np.concatenate(
        [*(np.diff(trace.offsets) for trace in traces), np.zeros(len(seams.sides), np.int64)]
    )
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    vertices = np.concatenate([trace.vertices for trace in traces])
    slots = np.full((nodes.shape[0], 4), -1, np.int32)
    halves = 2 * np.flatnonzero(ends[:, 0] >= 0).astype(np.int32)
    open_ends = ends[halves >> 1]
    slots[open_ends[:, 0], open_ends[:, 1]] = halves
    slots[open_ends[:, 2], open_ends[:, 3]] = halves + 1
    there = slots >= 0
    straight = (there[:, 0] & there[:, 2] & ~there[:, 1] & ~there[:, 3]) | (
        there[:, 1] & there[:, 3] & ~there[:, 0] & ~there[:, 2]
    )
    return _Graph(ends, sides, offsets, vertices, nodes, slots, (~straight).astype(np.uint8))


def _merged_nodes(traces: Sequence[BlockTrace], seams: Seams, stride: int) -> tuple[Int32, Int32]:
    """``ends`` of all chains and ``nodes``; nodes at one place on a seam become one."""
    nodes = np.concatenate([trace.nodes for trace in traces])
    on_seam = np.flatnonzero(np.concatenate([_on_border(trace) for trace in traces]))
    seam_corners = seams.corners.reshape(-1, 2)
    corners = np.concatenate([nodes[on_seam].astype(np.int64), seam_corners])
    keys, number = np.unique(corners[:, 0] * stride + corners[:, 1], return_inverse=True)
    new = np.arange(len(nodes) + 1, dtype=np.int32)
    new[-1] = -1  # index -1: no node
    new[on_seam] = len(nodes) + number[: on_seam.size]
    ends = np.concatenate([trace.ends for trace in traces])
    bases = np.cumsum([0, *(len(trace.nodes) for trace in traces[:-1])])
    shift = np.repeat(bases, [len(trace.ends) for trace in traces])
    for column in (0, 2):
        ends[:, column] = new[np.where(ends[:, column] >= 0, ends[:, column] + shift, -1)]
    seam_ends = np.empty((len(seams.sides), 4), np.int32)
    seam_ends[:, 0::2] = len(nodes) + number[on_seam.size :].reshape(-1, 2)
    seam_ends[:, 1::2] = seams.leaving
    seam_nodes = np.stack([keys // stride, keys % stride], axis=1).astype(np.int32)
    return np.concatenate([ends, seam_ends]), np.concatenate([nodes, seam_nodes])


def _on_border(trace: BlockTrace) -> NDArray[np.bool_]:
    core, (row, col) = trace.core, trace.nodes.T
    return cast(
        NDArray[np.bool_],
        (row == core.row) | (row == core.stop_row) | (col == core.col) | (col == core.stop_col),
    )


def _regions(codes: NDArray[np.uint16], groups: _Groups, graph: _Graph, stride: int) -> Regions:
    from rssegment.vector import _join_kernels as kernels

    g, n = graph, 2 * len(graph.sides)
    top = np.empty(len(g.sides), np.int64)
    kernels.topmost(g.offsets, g.vertices, top)
    part, half = np.empty(n, np.int32), np.empty(n, np.int32)
    key, size, vertex = (np.empty(n, np.int64) for _ in range(3))
    following = np.full(n, -1, np.int32)
    count = kernels.walk_rings(
        g.ends, g.sides, g.offsets, g.vertices, top, g.nodes, g.slots, g.keep, stride,
        following, part, key, size, half, vertex,
    )  # fmt: skip
    order = np.lexsort((key[:count], part[:count]))  # a part's exterior has its first corner
    offsets = np.concatenate([[0], np.cumsum(size[order])])
    corners = np.empty((offsets[-1], 2), np.int32)
    kernels.copy_rings(
        g.ends, g.offsets, g.vertices, g.nodes, g.keep, following, half, vertex, order, offsets, corners
    )
    n_regions, n_parts = groups.first.size, groups.region_of_part.size
    return Regions(
        id=np.arange(1, n_regions + 1),
        parent=np.zeros(n_regions, np.int64),
        code=codes[groups.member],
        sums=groups.sums,
        least=groups.least,
        touches=np.zeros(n_regions, np.uint8),
        first=np.stack([groups.first // stride, groups.first % stride], axis=1),
        part_offsets=_offsets(groups.region_of_part, n_regions),
        ring_offsets=_offsets(part[:count], n_parts),
        corner_offsets=offsets,
        corners=corners,
    )


def _offsets(owner: NDArray[np.integer], n: int) -> Int64:
    """Where each of ``n`` owners' things begin, when things are sorted by owner."""
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])
