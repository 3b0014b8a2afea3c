"""Compiled inside of :mod:`rssegment.vector.trace`: from a block's pixels to runs, regions, corners and chains.

All loops go over runs (maximal stretches of one class in a row), not over pixels, except the search for the runs.

Corners of the pixel lattice where the boundary turns, branches or meets the block's border are *corners* here, in
row-major order. ``place[k]`` is ``row << 16 | col``. Bit ``d`` of ``ways[k]`` says that a boundary leaves in direction
``d`` (right, up, left, down); the corners there are ``k + 1``, ``link[k, 0]``, ``k - 1`` and ``link[k, 1]``.
*Nodes* are the corners with other than two ways: these stand once more in the upper four bits, ``own[k]`` is the
node's number, and ``node_runs`` are the runs of the pixels on its upper and lower right (on its left, on the right
border). At other corners ``own[k]`` is the run of the pixel on the lower right.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = [
    "count_runs",
    "find_runs",
    "link_corners",
    "measure_regions",
    "measure_values",
    "number_regions",
    "walk_chains",
]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# Directions along pixel edges. A left turn adds 1, a right turn adds 3, the way back is ``d ^ 2``.
RIGHT, UP, LEFT, DOWN = 0, 1, 2, 3


@kernel("int64(uint8[:, ::1])", "int64(uint16[:, ::1])")
def count_runs(labels: NDArray[Any]) -> int:
    """Number of runs of equal values in the rows of ``labels`` (H, W)."""
    height, width = labels.shape
    total = height
    for i in range(height):
        changes = 0
        for j in range(1, width):
            changes += labels[i, j] != labels[i, j - 1]
        total += changes
    return int(total)


@kernel(
    "void(uint8[:, ::1], uint8[::1], uint64[::1], int64[::1], int32[::1], uint16[::1])",
    "void(uint16[:, ::1], uint8[::1], uint64[::1], int64[::1], int32[::1], uint16[::1])",
)
def find_runs(
    labels: NDArray[Any],
    changed: NDArray[np.uint8],
    words: NDArray[np.uint64],
    row_start: Int64,
    run_col: Int32,
    run_code: NDArray[np.uint16],
) -> None:
    """Fills the runs of each row: first column and value; each row ends with a sentinel at column W, value 0.

    ``changed`` is a row of scratch and ``words`` the same memory eight pixels at a time: comparing is done by
    vector instructions, and stretches without change are passed over by the word.
    """
    height, width = labels.shape
    run = 0
    for i in range(height):
        row_start[i] = run
        run_col[run] = 0
        run_code[run] = labels[i, 0]
        run += 1
        for j in range(1, width):
            changed[j] = labels[i, j] != labels[i, j - 1]
        begin = run
        for w in range(words.size):
            if words[w] != 0:
                for j in range(8):
                    run_col[run] = 8 * w + j  # written over if there is no change here: cheaper than a branch
                    run += changed[8 * w + j]
        for k in range(begin, run):
            run_code[k] = labels[i, run_col[k]]
        run_col[run] = width
        run_code[run] = 0
        run += 1
    row_start[height] = run


@inlined
def _root(parent: Int32, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@inlined
def _unite(parent: Int32, a: int, b: int) -> None:
    if parent[a] == parent[b]:
        return
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@kernel(
    "UniTuple(int64, 3)(int64[::1], int32[::1], uint16[::1], int32[::1], int32[::1], uint32[::1], uint8[::1], "
    "int32[:, ::1], int32[::1], int32[::1], int32[:, ::1])"
)
def link_corners(  # noqa: PLR0915 - one sweep, split it would be slower
    row_start: Int64,
    run_col: Int32,
    run_code: NDArray[np.uint16],
    parent: Int32,
    last: Int32,
    place: NDArray[np.uint32],
    ways: NDArray[np.uint8],
    link: Int32,
    own: Int32,
    node_corner: Int32,
    node_runs: Int32,
) -> tuple[int, int, int]:
    """Sweeps the rows once: unites touching runs of one class in ``parent`` and links the corners between runs.

    ``last[c]`` (W + 1) is the lowest corner so far on the boundary that comes down column ``c``.
    Returns the numbers of corners, of nodes (listed in ``node_corner``), and of boundaries that leave nodes.
    """
    height, width = row_start.size - 1, last.size - 1
    count, nodes, more = 0, 0, 0  # more: boundaries that leave a node beside the first
    for q in range(row_start[0] + 1, row_start[1] - 1):
        place[count] = run_col[q]
        ways[count] = 0x88  # down
        own[count] = nodes
        node_corner[nodes], node_runs[nodes, 0], node_runs[nodes, 1] = count, q, q
        nodes += 1
        last[run_col[q]] = count
        count += 1
    for i in range(1, height):
        p, q = row_start[i - 1], row_start[i]
        right = int(run_code[p] != run_code[q])
        if right:
            place[count] = i << 16
            ways[count] = 0x11  # right
            own[count] = nodes
            node_corner[nodes], node_runs[nodes, 0], node_runs[nodes, 1] = count, p, q
            nodes += 1
            count += 1
        else:
            _unite(parent, p, q)
        p_col, q_col = run_col[p + 1], run_col[q + 1]
        while True:
            col = min(p_col, q_col)
            if col == width:
                break
            left, up, down = right, int(p_col == col), int(q_col == col)
            p += up
            q += down
            p_col, q_col = run_col[p + 1], run_col[q + 1]
            right = int(run_code[p] != run_code[q])
            if not right:
                _unite(parent, p, q)
                if not left:
                    continue  # the boundary goes straight down
            way = right | up << 1 | left << 2 | down << 3
            place[count] = i << 16 | col
            if up:
                link[count, 0] = last[col]
                link[last[col], 1] = count
            if down:
                last[col] = count
            degree = right + up + left + down
            if degree == 2:
                ways[count] = way
                own[count] = q
            else:
                ways[count] = way | way << 4
                own[count] = nodes
                node_corner[nodes], node_runs[nodes, 0], node_runs[nodes, 1] = count, p, q
                nodes += 1
                more += degree - 1
            count += 1
        if right:
            place[count] = i << 16 | width
            ways[count] = 0x44  # left
            own[count] = nodes
            node_corner[nodes], node_runs[nodes, 0], node_runs[nodes, 1] = count, p, q
            nodes += 1
            count += 1
    for p in range(row_start[height - 1] + 1, row_start[height] - 1):
        col = run_col[p]
        place[count] = height << 16 | col
        ways[count] = 0x22  # up
        own[count] = nodes
        node_corner[nodes], node_runs[nodes, 0], node_runs[nodes, 1] = count, p, p
        link[count, 0] = last[col]
        link[last[col], 1] = count
        nodes += 1
        count += 1
    return count, nodes, nodes + more


@kernel("int64(uint16[::1], int32[::1], int32[::1])")
def number_regions(run_code: NDArray[np.uint16], parent: Int32, region: Int32) -> int:
    """Gives each run the number of its region, counted in row-major order; -1 for no data. Returns their number."""
    count = 0
    for k in range(parent.size):
        if run_code[k] == 0:
            region[k] = -1
        elif parent[k] == k:  # a root is the first of its runs, and parents come before their children
            region[k] = count
            count += 1
        else:
            region[k] = region[parent[k]]
    return count


@kernel("void(int64[::1], int32[::1], uint16[::1], int32[::1], uint16[::1], int64[:, ::1], int32[:, ::1])")
def measure_regions(
    row_start: Int64, run_col: Int32, run_code: NDArray[np.uint16], region: Int32, code: NDArray[np.uint16],
    sums: Int64, first: Int32,
) -> None:  # fmt: skip
    """Per region: its code, pixels in column 0 of ``sums`` (which comes in as zeros), and first pixel (row, col)."""
    for i in range(row_start.size - 1):
        for k in range(row_start[i], row_start[i + 1] - 1):
            r, start, stop = region[k], run_col[k], run_col[k + 1]
            if r < 0:
                continue
            if sums[r, 0] == 0:
                code[r] = run_code[k]
                first[r, 0] = i
                first[r, 1] = start
            sums[r, 0] += stop - start


@kernel("void(int64[::1], int32[::1], int32[::1], uint8[:, ::1], int64, int64[:, ::1], uint8[::1])")
def measure_values(
    row_start: Int64, run_col: Int32, region: Int32, values: NDArray[np.uint8], column: int,
    sums: Int64, least: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Per region, adds ``values`` (H, W) to ``sums[:, column]`` and counts them in the next; 255 is none.

    ``least`` becomes the least value.
    """
    for i in range(row_start.size - 1):
        for k in range(row_start[i], row_start[i + 1] - 1):
            r = region[k]
            if r < 0:
                continue
            total, known, lowest = 0, 0, 255
            for j in range(run_col[k], run_col[k + 1]):
                value = values[i, j]
                is_known = value != 255
                known += is_known
                total += value * is_known
                lowest = min(lowest, value)
            sums[r, column] += total
            sums[r, column + 1] += known
            least[r] = min(least[r], lowest)


@inlined
def _set_sides(
    sides: Int32, chain: int, region: Int32, way: int, upper: int, lower: int, direction: int
) -> None:
    """Regions left and right of the boundary that leaves a corner in ``direction``; ``way``: all its ways."""
    upper_left, lower_left = upper - ((way >> UP) & 1), lower - ((way >> DOWN) & 1)
    left_above, left_below = (
        (upper_left if direction & 1 else upper),
        (lower if direction & 1 else lower_left),
    )
    right_above, right_below = (
        (upper if direction & 1 else upper_left),
        (lower_left if direction & 1 else lower),
    )
    sides[chain, 0] = region[left_below if direction >= LEFT else left_above]
    sides[chain, 1] = region[right_above if (direction == UP) | (direction == LEFT) else right_below]


@inlined
def _ways_of(ways: NDArray[np.uint8], k: int) -> int:
    return int(np.int64(ways[k]))  # else unsigned, and a float once it meets a signed one


@inlined
def _onward(direction: int, here: int, turn: int, link: Int32) -> tuple[int, int]:
    """The direction after a turn, whose ways are ``turn``, and the corner there. By sums, since turns are random."""
    if direction & 1:  # this is not: directions alternate
        across = LEFT - 2 * (turn & 1)
        return across, here + 1 - across
    down = turn >> DOWN
    return UP + 2 * down, int(link[here, down])


@inlined
def _put(vertices: Int32, vertex: int, place: int, row: int, col: int) -> None:
    vertices[vertex, 0] = row + (place >> 16)
    vertices[vertex, 1] = col + (place & 0xFFFF)


@kernel(
    "UniTuple(int64, 2)(uint32[::1], uint8[::1], int32[:, ::1], int32[::1], int32[::1], int32[:, ::1], int32[::1], "
    "int64, int64, int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1])"
)
def walk_chains(
    place: NDArray[np.uint32],
    ways: NDArray[np.uint8],
    link: Int32,
    own: Int32,
    node_corner: Int32,
    node_runs: Int32,
    region: Int32,
    row: int,
    col: int,
    nodes: Int32,
    offset: Int64,
    vertices: Int32,
    ends: Int32,
    sides: Int32,
) -> tuple[int, int]:
    """Walks from node to node, then round the loops that meet none; uses up ``ways``.

    Fills ``nodes`` (N, 2), ``offset`` and ``vertices`` (row, col between the nodes; ``row`` and ``col`` are the
    block's), ``ends``: node and direction leaving it at the start, node and direction leaving it at the end; -1 in
    loops, which start at their topmost, then leftmost corner; ``sides``: region on the left and on the right, -1 for
    no data. Returns the numbers of chains and vertices.
    """
    chain, vertex = 0, 0
    offset[0] = 0
    for node in range(node_corner.size):
        k = node_corner[node]
        _put(nodes, node, place[k], row, col)
        while ways[k] & 15:
            way = _ways_of(ways, k)
            bit = way & -way
            first = (bit >> 1) - (bit >> 3)  # 0 to 3
            ways[k] = way ^ bit
            _set_sides(sides, chain, region, way >> 4, node_runs[node, 0], node_runs[node, 1], first)
            direction = first
            here = k + 1 - first if first in (RIGHT, LEFT) else int(link[k, first >> 1])
            turn = _ways_of(ways, here)
            while turn < 16:  # until the next node; every corner between is a turn
                _put(vertices, vertex, place[here], row, col)
                vertex += 1
                ways[here] = 0
                direction, here = _onward(direction, here, turn, link)
                turn = _ways_of(ways, here)
            ends[chain, 0] = node
            ends[chain, 1] = first
            ends[chain, 2] = own[here]
            ends[chain, 3] = direction ^ 2
            ways[here] &= ~(1 << (direction ^ 2))  # so that the chain isn't walked again from its other end
            chain += 1
            offset[chain] = vertex
    for k in range(place.size):
        if ways[k] == 0 or ways[k] > 15:
            continue
        ends[chain, :] = -1
        _set_sides(sides, chain, region, 1 << DOWN, 0, own[k], DOWN)
        here, direction = k, LEFT
        while ways[here] != 0:
            turn = _ways_of(ways, here)
            _put(vertices, vertex, place[here], row, col)
            vertex += 1
            ways[here] = 0
            direction, here = _onward(direction, here, turn, link)
        chain += 1
        offset[chain] = vertex
    return chain, vertex
