"""Compiled inside of :mod:`rssegment.vector.trace`: from a block's pixels to runs, regions, corners and chains.

All loops go over runs (maximal stretches of one class in a row), not over pixels, except the search for the runs.

Corners of the pixel lattice where the boundary turns, branches or meets the block's border are *corners* here.
``link[k, d]`` is the corner that corner ``k`` is joined to in direction ``d`` (right, up, left, down), or -1.
``around[k]`` are the runs of the four pixels around it: upper right, upper left, lower left, lower right; so the
pixel on the left of the edge leaving in direction ``d`` is ``around[k, d]``, on its right ``around[k, (d + 3) % 4]``.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.vector._compile import DOWN, LEFT, RIGHT, UP, inlined, kernel

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


@kernel("int64(uint16[:, ::1])")
def count_runs(labels: NDArray[np.uint16]) -> int:
    """Number of runs of equal values in the rows of ``labels`` (H, W)."""
    height, width = labels.shape
    total = height
    for i in range(height):
        changes = 0
        for j in range(1, width):
            changes += labels[i, j] != labels[i, j - 1]
        total += changes
    return int(total)


@kernel("void(uint16[:, ::1], uint8[::1], uint64[::1], int64[::1], int32[::1], uint16[::1])")
def find_runs(
    labels: NDArray[np.uint16],
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
        for w in range(words.size):
            if words[w] != 0:
                for j in range(8 * w, 8 * w + 8):
                    if changed[j]:
                        run_col[run] = j
                        run_code[run] = labels[i, j]
                        run += 1
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
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@inlined
def _add(at: Int32, link: Int32, k: int, row: int, col: int) -> None:
    at[k, 0] = row
    at[k, 1] = col
    for d in range(4):
        link[k, d] = -1


@inlined
def _surround(
    around: Int32, k: int, upper_right: int, upper_left: int, lower_left: int, lower_right: int
) -> None:
    around[k, 0] = upper_right
    around[k, 1] = upper_left
    around[k, 2] = lower_left
    around[k, 3] = lower_right


@kernel(
    "int64(int64[::1], int32[::1], uint16[::1], int32[::1], int32[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1])"
)
def link_corners(  # noqa: PLR0915 - one sweep, split it would be slower
    row_start: Int64,
    run_col: Int32,
    run_code: NDArray[np.uint16],
    parent: Int32,
    last: Int32,
    at: Int32,
    link: Int32,
    around: Int32,
) -> int:
    """Sweeps the rows once: unites touching runs of one class in ``parent`` and links the corners between runs.

    ``last[c]`` (W + 1) is the lowest corner so far on the boundary that comes down column ``c``.
    Corners come out in row-major order. Returns their number; pixels outside the block are run -1.
    """
    height, width = row_start.size - 1, last.size - 1
    count = 0
    for q in range(row_start[0] + 1, row_start[1] - 1):
        _add(at, link, count, 0, run_col[q])
        _surround(around, count, -1, -1, q - 1, q)
        last[run_col[q]] = count
        count += 1
    for i in range(1, height):
        p, q = row_start[i - 1], row_start[i]
        current = -1
        right = run_code[p] != run_code[q]
        if right:
            _add(at, link, count, i, 0)
            _surround(around, count, p, -1, -1, q)
            current = count
            count += 1
        else:
            _unite(parent, p, q)
        while True:
            col = min(run_col[p + 1], run_col[q + 1])
            if col == width:
                break
            left, p_left, q_left = right, p, q
            up, down = run_col[p + 1] == col, run_col[q + 1] == col
            p += up
            q += down
            right = run_code[p] != run_code[q]
            if not right:
                _unite(parent, p, q)
            if not left and not right:
                continue  # the boundary goes straight down
            _add(at, link, count, i, col)
            _surround(around, count, p, p_left, q_left, q)
            if up:
                link[count, UP] = last[col]
                link[last[col], DOWN] = count
            if down:
                last[col] = count
            if left:
                link[count, LEFT] = current
                link[current, RIGHT] = count
            current = count
            count += 1
        if right:
            _add(at, link, count, i, width)
            _surround(around, count, -1, p, q, -1)
            link[count, LEFT] = current
            link[current, RIGHT] = count
            count += 1
    for p in range(row_start[height - 1] + 1, row_start[height] - 1):
        _add(at, link, count, height, run_col[p])
        _surround(around, count, p, p - 1, -1, -1)
        link[count, UP] = last[run_col[p]]
        link[last[run_col[p]], DOWN] = count
        count += 1
    return count


@kernel("int64(uint16[::1], int32[::1], int32[::1])")
def number_regions(run_code: NDArray[np.uint16], parent: Int32, region: Int32) -> int:
    """Gives each run the number of its region, counted in row-major order; -1 for no data. Returns their number."""
    count = 0
    for k in range(parent.size):
        root = _root(parent, k)
        if run_code[k] == 0:
            region[k] = -1
        elif root == k:  # a root is the first of its runs, so its number is known before the others ask
            region[k] = count
            count += 1
        else:
            region[k] = region[root]
    return count


@kernel("void(int64[::1], int32[::1], uint16[::1], int32[::1], uint16[::1], int64[:, ::1], int32[:, ::1])")
def measure_regions(
    row_start: Int64, run_col: Int32, run_code: NDArray[np.uint16], region: Int32, code: NDArray[np.uint16],
    sums: Int64, first: Int32,
) -> None:  # fmt: skip
    """Per region: its code, pixels in column 0 of ``sums`` (which must come in as zeros), and first pixel (row, col)."""
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
def _degree(link: Int32, k: int) -> int:
    return int(link[k, 0] >= 0) + int(link[k, 1] >= 0) + int(link[k, 2] >= 0) + int(link[k, 3] >= 0)


@inlined
def _turn(link: Int32, k: int, direction: int) -> int:
    """The way on at a corner of degree 2 reached in ``direction``: it always turns."""
    if direction in (RIGHT, LEFT):
        return UP if link[k, UP] >= 0 else DOWN
    return RIGHT if link[k, RIGHT] >= 0 else LEFT


@inlined
def _set_sides(sides: Int32, chain: int, around: Int32, region: Int32, k: int, direction: int) -> None:
    for side in range(2):
        run = around[k, (direction + 3 * side) % 4]
        sides[chain, side] = -1 if run < 0 else region[run]


@kernel(
    "UniTuple(int64, 3)(int32[:, ::1], int32[:, ::1], int32[:, ::1], int32[::1], int32[::1], "
    "int32[:, ::1], int64[::1], int32[:, ::1], int32[:, ::1], int32[:, ::1])"
)
def walk_chains(
    at: Int32,
    link: Int32,
    around: Int32,
    region: Int32,
    node: Int32,
    nodes: Int32,
    offset: Int64,
    vertices: Int32,
    ends: Int32,
    sides: Int32,
) -> tuple[int, int, int]:
    """Walks from node to node (corners of degree 1, 3 and 4), then round the loops that meet none.

    Fills ``nodes`` (corner of each), ``offset`` and ``vertices`` (row, col between the nodes), ``ends``: node and
    direction leaving it at the start, node and direction leaving it at the end; -1 in loops, which start at their
    topmost, then leftmost corner; ``sides``: region on the left and on the right, -1 for no data.
    ``node`` is scratch of one value per corner. Returns the numbers of nodes, chains and vertices.
    """
    n_nodes, chain, vertex = 0, 0, 0
    for k in range(at.shape[0]):
        node[k] = -1
        if _degree(link, k) != 2:
            node[k] = n_nodes
            nodes[n_nodes, 0] = at[k, 0]
            nodes[n_nodes, 1] = at[k, 1]
            n_nodes += 1
    for k in range(at.shape[0]):
        if node[k] < 0:
            continue
        for first in range(4):
            if link[k, first] < 0:
                continue
            ends[chain, 0] = node[k]
            ends[chain, 1] = first
            _set_sides(sides, chain, around, region, k, first)
            direction, here = first, link[k, first]
            while node[here] < 0:
                vertices[vertex, 0] = at[here, 0]
                vertices[vertex, 1] = at[here, 1]
                vertex += 1
                direction = _turn(link, here, direction)
                node[here] = -2  # seen
                here = link[here, direction]
            ends[chain, 2] = node[here]
            ends[chain, 3] = direction ^ 2
            link[here, direction ^ 2] = -1  # so that the chain isn't walked again from its other end
            chain += 1
            offset[chain] = vertex
    for k in range(at.shape[0]):
        if node[k] != -1:
            continue
        ends[chain, :] = -1
        _set_sides(sides, chain, around, region, k, DOWN)
        here, direction = k, DOWN
        while node[here] == -1:
            vertices[vertex, 0] = at[here, 0]
            vertices[vertex, 1] = at[here, 1]
            vertex += 1
            node[here] = -2
            here = link[here, direction]
            direction = _turn(link, here, direction)
        chain += 1
        offset[chain] = vertex
    return n_nodes, chain, vertex
