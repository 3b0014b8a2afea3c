"""One block's pixels to its regions and the chains of boundary between them, in scene pixels.

What reaches the block's border is left open there: :mod:`rssegment.vector.join` closes it with the neighbours.
Chains hold every corner where the boundary turns and no other, so they don't depend on where the block was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box

__all__ = ["BlockTrace", "recoded", "trace_block"]

MAX_SIDE = 2**15  # px; keeps run numbers in 32 bits, and places of corners
FOUR_WAYS = 0xFF


@dataclass(frozen=True, eq=False)
class BlockTrace:
    """Regions and chains of one block, as arrays. Regions are 4-connected and counted from 0 in row-major order.

    ``code``, ``sums``, ``least``, ``first``: as in :class:`rssegment.vector.Regions`.
    ``nodes`` (N, 2): pixel corners (row, col) where chains end: junctions, and places where the boundary reaches the
    block's border. ``ends`` (C, 4): start node, direction leaving it, end node, direction leaving it; -1 for a closed
    chain. Directions are 0 right, 1 up, 2 left, 3 down. ``vertices`` (V, 2) between ``offsets`` (C + 1,): the corners
    (row, col) of each chain without its nodes. ``sides`` (C, 2): region on the left and right, -1 for no data.
    ``touching`` (T, 2): pairs of regions that meet only at a corner inside the block (connectivity 8 only).
    ``border`` (2 * (H + W),): region along the top, bottom, left and right line of pixels, -1 for no data.
    """

    core: Box
    connectivity: int
    code: NDArray[np.uint16]
    sums: NDArray[np.int64]
    least: NDArray[np.uint8]
    first: NDArray[np.int32]
    nodes: NDArray[np.int32]
    ends: NDArray[np.int32]
    sides: NDArray[np.int32]
    offsets: NDArray[np.int64]
    vertices: NDArray[np.int32]
    touching: NDArray[np.int32]
    border: NDArray[np.int32]

    def lines(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """The parts of ``border``: top (W,), bottom (W,), left (H,), right (H,)."""
        height, width = self.core.shape
        top, bottom, left, right = np.split(self.border, [width, 2 * width, 2 * width + height])
        return top, bottom, left, right


def trace_block(
    labels: NDArray[np.uint16],
    core: Box,
    connectivity: int = 4,
    confidence: NDArray[np.uint8] | None = None,
    margin: NDArray[np.uint8] | None = None,
) -> BlockTrace:
    """Regions and boundary chains of the pixels ``labels`` (H, W) that lie at ``core`` in the scene.

    Label 0 is no data and never a region. ``confidence`` and ``margin`` (H, W): any whole-number scale, 255 no data.
    Working memory is proportional to the block. With connectivity 8, ``touching`` says which of the 4-connected
    regions meet diagonally.

    Raises
    ------
    InputError
        Shapes, types or connectivity don't fit.
    """
    pixels = _checked(labels, core, connectivity)
    values = [
        _checked_values(name, each, core) for name, each in (("confidence", confidence), ("margin", margin))
    ]
    if core.size == 0:
        return _empty(core, connectivity)
    from rssegment.vector import _trace_kernels as kernels

    runs = _Runs(pixels)
    corners = _Corners(runs)
    region = np.empty(runs.col.size, np.int32)
    n_regions = kernels.number_regions(runs.code, runs.parent, region)
    measured = _measure(runs, region, n_regions, values, core)
    touching = corners.touching(region) if connectivity == 8 else np.empty((0, 2), np.int32)
    nodes, ends, sides, offsets, vertices = corners.chains(region, core)
    return BlockTrace(
        core, connectivity, *measured, nodes, ends, sides, offsets, vertices, touching, runs.border(region)
    )


def recoded(labels: NDArray[np.uint16], core: Box, codes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """``labels`` (H, W) with new ``codes`` (R,) for the regions that :func:`trace_block` finds in them."""
    from rssegment.vector import _trace_kernels as kernels

    if not codes.size:
        return labels
    runs = _Runs(_checked(labels, core, 4))
    _Corners(runs)  # unites the runs
    region = np.empty(runs.col.size, np.int32)
    kernels.number_regions(runs.code, runs.parent, region)
    return np.append(codes, np.uint16(0))[runs.paint(region)]


class _Runs:
    """Runs of equal labels, row by row, each row closed by a sentinel; ``parent`` is their union-find forest."""

    def __init__(self, labels: NDArray[Any]) -> None:
        from rssegment.vector import _trace_kernels as kernels

        height, width = labels.shape
        n = int(kernels.count_runs(labels)) + height
        self.width = width
        self.row_start = np.empty(height + 1, np.int64)
        self.col, self.code = np.empty(n, np.int32), np.empty(n, np.uint16)
        words = np.zeros(width // 8 + 1, np.uint64)
        kernels.find_runs(labels, words.view(np.uint8), words, self.row_start, self.col, self.code)
        self.parent = np.arange(n, dtype=np.int32)

    def border(self, region: NDArray[np.int32]) -> NDArray[np.int32]:
        """Regions along the top, bottom, left and right line of pixels."""
        first, last = self.row_start[:-1], self.row_start[1:] - 2
        return np.concatenate(
            [self._line(region, 0), self._line(region, first.size - 1), region[first], region[last]]
        )

    def paint(self, region: NDArray[np.int32]) -> NDArray[np.int32]:
        """(H, W) the region of each pixel."""
        lengths = np.maximum(np.diff(self.col, append=0), 0)  # sentinels get none
        return np.repeat(region, lengths).reshape(-1, self.width)

    def _line(self, region: NDArray[np.int32], row: int) -> NDArray[np.int32]:
        start, stop = self.row_start[row], self.row_start[row + 1]
        return np.repeat(region[start : stop - 1], np.diff(self.col[start:stop]))


class _Corners:
    """Corners of the boundary between runs and their links; see :mod:`rssegment.vector._trace_kernels`."""

    def __init__(self, runs: _Runs) -> None:
        from rssegment.vector import _trace_kernels as kernels

        height, width = runs.row_start.size - 1, runs.width
        cap = min(2 * runs.col.size + 2 * (height + width), (height + 1) * (width + 1))
        place, ways = np.empty(cap, np.uint32), np.empty(cap, np.uint8)
        link, own = np.empty((cap, 2), np.int32), np.empty(cap, np.int32)
        node_corner, node_runs = np.empty(cap, np.int32), np.empty((cap, 2), np.int32)
        last = np.empty(width + 1, np.int32)
        count, n_nodes, self.n_ends = kernels.link_corners(
            runs.row_start, runs.col, runs.code, runs.parent, last, place, ways, link, own, node_corner, node_runs
        )  # fmt: skip
        self.place, self.ways, self.link, self.own = place[:count], ways[:count], link[:count], own[:count]
        self.node_corner, self.node_runs = node_corner[:n_nodes], node_runs[:n_nodes]

    def touching(self, region: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pairs of different regions on the diagonals of the corners where four boundaries meet."""
        upper, lower = self.node_runs[self.ways[self.node_corner] == FOUR_WAYS].T
        pairs = region[np.stack([np.concatenate([upper - 1, upper]), np.concatenate([lower, lower - 1])])]
        a, b = pairs[:, (pairs >= 0).all(axis=0) & (pairs[0] != pairs[1])].astype(np.int64)
        keys = np.unique(a * region.size + b)
        return np.stack([keys // region.size, keys % region.size], axis=1).astype(np.int32)

    def chains(
        self, region: NDArray[np.int32], core: Box
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """``nodes``, ``ends``, ``sides``, ``offsets`` and ``vertices`` of a :class:`BlockTrace`. Can be asked once."""
        from rssegment.vector import _trace_kernels as kernels

        n_nodes, n_turns = self.node_corner.size, self.place.size - self.node_corner.size
        cap = self.n_ends // 2 + n_turns // 4  # a loop has four corners or more
        nodes, vertices = np.empty((n_nodes, 2), np.int32), np.empty((n_turns, 2), np.int32)
        ends, sides, offsets = (
            np.empty((cap, 4), np.int32),
            np.empty((cap, 2), np.int32),
            np.empty(cap + 1, np.int64),
        )
        n, _ = kernels.walk_chains(
            self.place, self.ways, self.link, self.own, self.node_corner, self.node_runs, region, core.row, core.col,
            nodes, offsets, vertices, ends, sides,
        )  # fmt: skip
        for each, size in ((ends, (n, 4)), (sides, (n, 2)), (offsets, n + 1)):
            each.resize(size, refcheck=False)  # in place; most of what is cut off was never touched
        return nodes, ends, sides, offsets, vertices


def _measure(
    runs: _Runs, region: NDArray[np.int32], n: int, values: list[NDArray[np.uint8] | None], core: Box
) -> tuple[NDArray[np.uint16], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]:
    from rssegment.vector import _trace_kernels as kernels

    code, sums, first = np.empty(n, np.uint16), np.zeros((n, 5), np.int64), np.empty((n, 2), np.int32)
    kernels.measure_regions(runs.row_start, runs.col, runs.code, region, code, sums, first)
    least, unused = np.full(n, 255, np.uint8), np.full(n, 255, np.uint8)
    for column, each, lowest in zip((1, 3), values, (least, unused), strict=True):
        if each is not None:
            kernels.measure_values(runs.row_start, runs.col, region, each, column, sums, lowest)
    return code, sums, least, first + np.array([core.row, core.col], np.int32)


def _checked(labels: NDArray[Any], core: Box, connectivity: int) -> NDArray[Any]:
    if connectivity not in (4, 8):
        raise InputError(f"connectivity is {connectivity}; it must be 4 (edges) or 8 (edges and corners)")
    if labels.shape != core.shape:
        raise InputError(f"labels of shape {labels.shape} don't fill a block of shape {core.shape}")
    if max(core.shape) > MAX_SIDE:
        raise InputError(
            f"a block of shape {core.shape} is too large to trace; use a block of at most {MAX_SIDE} px"
        )
    if labels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"labels are {labels.dtype}; class codes must be uint8 or uint16, 0 for no data")
    return np.ascontiguousarray(labels)


def _checked_values(name: str, values: NDArray[Any] | None, core: Box) -> NDArray[np.uint8] | None:
    if values is None:
        return None
    if values.shape != core.shape or values.dtype != np.uint8:
        raise InputError(
            f"{name} is {values.dtype} of shape {values.shape}; expected uint8 of shape {core.shape}"
        )
    return np.ascontiguousarray(values)


def _empty(core: Box, connectivity: int) -> BlockTrace:
    def none(n: int) -> NDArray[np.int32]:
        return np.empty((0, n), np.int32)

    border = np.full(2 * (core.height + core.width), -1, np.int32)
    code, sums, least = np.empty(0, np.uint16), np.empty((0, 5), np.int64), np.empty(0, np.uint8)
    return BlockTrace(
        core, connectivity, code, sums, least, none(2), none(2), none(4), none(2), np.zeros(1, np.int64), none(2),
        none(2), border,
    )  # fmt: skip
