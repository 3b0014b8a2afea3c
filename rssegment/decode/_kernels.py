"""Compiled inside of :mod:`rssegment.decode`: sums up the tree, choices down it.

All kernels share one plan. Pixels are taken in chunks of a row. A chunk's probabilities are copied into ``nodes``
(N + 1, chunk), one row per node and the last one, 1, for the root; rows of parents are then summed from those of their
children. The buffer stays in the second-level cache, and every loop runs over the pixels of a chunk, so that it becomes
vector instructions. Each pixel goes through the same operations in the same order, none of them fused: so its result
doesn't depend on where in a chunk it stands.

``source`` holds channel c of pixel (row, col) at ``c * shape[0] + row * shape[1] + col``, of ``shape[2]`` rows and
``shape[3]`` columns, taken ``shape[4]`` at a time; ``shape[5]`` is the first pixel's place in results. Row n of the
tree has the children ``children[first[n] : first[n + 1]]``, the root being row N. ``leaves`` are rows, by channel.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel

__all__ = ["BACKOFF", "COSTS", "DISTANCES", "MEMBERS", "decide", "sums"]

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt16 = NDArray[np.uint16]

MEMBERS, BACKOFF, DISTANCES, COSTS = range(4)


@inlined
def _rows(count: int, chunk: int) -> Float32:
    """Room for rows that begin at cache lines, ``chunk`` being a multiple of 16."""
    room = np.empty(count * chunk + 16, np.float32)
    skipped = (-(room.ctypes.data // 4)) % 16
    return room[skipped : skipped + count * chunk].reshape(count, chunk)


@inlined
def _four(
    nodes: Float32, at: int, members: Int32, k: int, end: int, blank: Float32
) -> tuple[Float32, Float32, Float32, Float32]:
    """The rows of ``members[k : k + 4]`` from pixel ``at``, ``blank`` (n,) where these end before."""
    stop = at + blank.size
    return (
        nodes[members[k], at:stop],
        nodes[members[k + 1], at:stop] if k + 1 < end else blank,
        nodes[members[k + 2], at:stop] if k + 2 < end else blank,
        nodes[members[k + 3], at:stop] if k + 3 < end else blank,
    )


@inlined
def _load(
    source: Float32, offset: int, stride: int, leaves: Int32, nodes: Float32, at: int, bad: Float32
) -> None:
    """Copies the leaves' probabilities to their rows, from pixel ``at``; ``bad`` (n,) becomes NaN where one is."""
    for p in range(bad.size):
        bad[p] = 0.0
    for channel in range(leaves.size):
        begin = offset + channel * stride
        values, target = source[begin : begin + bad.size], nodes[leaves[channel], at : at + bad.size]
        for p in range(bad.size):
            target[p] = values[p]
            bad[p] += values[p]


@inlined
def _add_up(first: Int32, children: Int32, nodes: Float32, at: int, zeros: Float32, total: Float64) -> None:
    """Fills the rows of parents, from below: children in order, added in float64 and rounded once."""
    for row in range(first.size - 3, -1, -1):
        begin, end = first[row], first[row + 1]
        target = nodes[row, at : at + total.size]
        for k in range(begin, end, 4):
            a, b, c, d = _four(nodes, at, children, k, end, zeros)
            if k == begin and k + 4 >= end:
                for p in range(total.size):
                    target[p] = ((np.float64(a[p]) + b[p]) + c[p]) + d[p]
            elif k == begin:
                for p in range(total.size):
                    total[p] = ((np.float64(a[p]) + b[p]) + c[p]) + d[p]
            else:
                for p in range(total.size):
                    total[p] = (((total[p] + a[p]) + b[p]) + c[p]) + d[p]
        if end > begin + 4:
            for p in range(total.size):
                target[p] = total[p]


@inlined
def _contend(
    value: np.float32, row: int, best: np.float32, second: np.float32, winner: int
) -> tuple[np.float32, np.float32, int]:
    """First and second place and the row of the first, with one more row in it; of equals, the earlier stays first."""
    better = value > best
    lower = best if better else value
    second = lower if lower > second else second
    return value if better else best, second, row if better else winner


@inlined
def _best_of(
    members: Int32, nodes: Float32, lowest: Float32, best: Float32, second: Float32, winner: Int32
) -> None:
    """Largest and second largest value (0 if there is none) of some rows, and the row of the largest.

    Of equals, the row that comes first wins.
    """
    end, last = members.size, members.size - 1
    for p in range(best.size):
        best[p] = lowest[p]
        second[p] = 0.0
        winner[p] = members[0]
    for k in range(0, end, 4):
        a, b, c, d = _four(nodes, 0, members, k, end, lowest)
        i, j = members[k], members[min(k + 1, last)]
        m, n = members[min(k + 2, last)], members[min(k + 3, last)]
        for p in range(best.size):
            one, two, row = _contend(a[p], i, best[p], second[p], winner[p])
            one, two, row = _contend(b[p], j, one, two, row)
            one, two, row = _contend(c[p], m, one, two, row)
            best[p], second[p], winner[p] = _contend(d[p], n, one, two, row)


@inlined
def _walk(
    first: Int32,
    children: Int32,
    tau: np.float32,
    nodes: Float32,
    lowest: Float32,
    best: Float32,
    second: Float32,
    winner: Int32,
    at: Int32,
    confidence: Float32,
    margin: Float32,
) -> None:
    """Down from the root while the most probable child has ``tau``; parents are visited before their children."""
    root = nodes.shape[0] - 1
    for p in range(at.size):
        at[p] = root
        confidence[p] = 1.0
        margin[p] = 1.0
    for step in range(root + 1):
        row = step - 1 if step else root
        below = children[first[row] : first[row + 1]]
        if not below.size:
            continue
        here = 0
        for p in range(at.size):
            here += at[p] == row
        if not here:
            continue
        _best_of(below, nodes, lowest, best, second, winner)
        for p in range(at.size):  # all is read before it is chosen from: only so it becomes vector code
            place, child, first_place, lead = at[p], winner[p], best[p], best[p] - second[p]
            stays, margin_before = confidence[p], margin[p]
            goes = (place == row) & (first_place >= tau)
            at[p] = child if goes else place
            margin[p] = lead if goes else margin_before
            confidence[p] = first_place if goes else stays


@inlined
def _nearest(
    levels: Int32, first: Int32, nodes: Float32, sums: Float64, best: Float64, winner: Int32
) -> None:
    """The leaf of least expected tree distance: the largest sum of P down its path, less half its level.

    For a leaf l and the true leaf t, the distance is level(l) + level(t) - 2 times the number of nodes on both paths,
    whose expectation is the sum of P over the path of l. ``sums`` (depth + 1, chunk) holds those of the path gone down.
    """
    start = sums[0]
    for p in range(best.size):
        best[p] = -np.inf
        winner[p] = 0
        start[p] = 0.0
    for row in range(levels.size):
        above, along, values = sums[levels[row] - 1], sums[levels[row]], nodes[row]
        if first[row] < first[row + 1]:
            for p in range(best.size):
                along[p] = above[p] + values[p]
        else:
            half, leaf = 0.5 * levels[row], np.int32(row)
            for p in range(best.size):
                score, leading = above[p] + values[p] - half, best[p]
                winner[p] = leaf if score > leading else winner[p]
                best[p] = score if score > leading else leading


@inlined
def _cheapest(
    matrix: Float64, among: Int32, leaves: Int32, nodes: Float32, cost: Float64, best: Float64, winner: Int32
) -> None:
    """Of the rows ``among``, that of least expected cost, added up leaf by leaf in float64, four in one pass."""
    whole = leaves.size - leaves.size % 4
    for p in range(best.size):
        best[p] = np.inf
        winner[p] = among[0]
    for k in range(among.size):
        for p in range(best.size):
            cost[p] = 0.0
        for j in range(0, whole, 4):
            a, b, c, d = matrix[k, j], matrix[k, j + 1], matrix[k, j + 2], matrix[k, j + 3]
            one, two = nodes[leaves[j]], nodes[leaves[j + 1]]
            three, four = nodes[leaves[j + 2]], nodes[leaves[j + 3]]
            for p in range(best.size):
                cost[p] = (((cost[p] + a * one[p]) + b * two[p]) + c * three[p]) + d * four[p]
        for j in range(whole, leaves.size):
            a, one = matrix[k, j], nodes[leaves[j]]
            for p in range(best.size):
                cost[p] += a * one[p]
        row = among[k]
        for p in range(best.size):
            value, leading = cost[p], best[p]
            winner[p] = row if value < leading else winner[p]
            best[p] = value if value < leading else leading


@inlined
def _lead(
    nodes: Float32, winner: Int32, leaves: Int32, spans: Int32, confidence: Float32, margin: Float32
) -> None:
    """Decided nodes' probabilities, and their lead over the most probable leaf that isn't under them, 0 at least.

    The leaves under row n are ``spans[n, 0]`` to ``spans[n, 1]`` - 1 in channel order.
    """
    low, high = spans[winner, 0], spans[winner, 1]
    for p in range(winner.size):
        confidence[p] = nodes[winner[p], p]
        margin[p] = 0.0
    for j in range(leaves.size):
        values, channel = nodes[leaves[j]], np.int32(j)
        for p in range(winner.size):
            other = (channel < low[p]) | (channel >= high[p])
            margin[p] = values[p] if other & (values[p] > margin[p]) else margin[p]
    for p in range(winner.size):
        lead = confidence[p] - margin[p]
        margin[p] = lead if lead > 0 else np.float32(0)


@inlined
def _write(place: int, row: Float32, valid: Bool, values: Float32) -> None:
    """Hands a finished row to its place in the result, 0 at invalid pixels."""
    target = values[place : place + valid.size]
    for p in range(valid.size):
        target[p] = row[p] if valid[p] else np.float32(0)


@inlined
def _label(winner: Int32, bad: Float32, valid: Bool, codes: UInt16, labels: UInt16) -> int:
    """Writes the decided codes, 0 at invalid pixels; counts valid ones with NaN."""
    missing = 0
    for p in range(valid.size):
        missing += valid[p] & (bad[p] != bad[p])
        labels[p] = codes[winner[p]] if valid[p] else 0
    return missing


@kernel(
    "int64(float32[::1], int64[::1], int32[::1], int32[::1], int32[::1], int32[::1], int32[:, ::1], int64, int32[::1], "
    "float32, float64[:, ::1], boolean[::1], uint16[::1], int32[:, ::1], uint16[::1], float32[:, ::1])"
)
def decide(
    source: Float32,
    shape: Int64,
    leaves: Int32,
    first: Int32,
    children: Int32,
    levels: Int32,
    spans: Int32,
    rule: int,
    members: Int32,
    tau: np.float32,
    matrix: Float64,
    valid: Bool,
    codes: UInt16,
    up: Int32,
    labels: UInt16,
    values: Float32,
) -> int:
    """Fills ``labels`` (pixels,) and ``values`` (2 + K, pixels): confidence, margin, probabilities at K levels.

    ``rule``: MEMBERS, the most probable of some rows; BACKOFF with threshold ``tau``; DISTANCES, the leaf of least
    expected tree distance; COSTS, that of ``members`` with least expected cost under ``matrix`` (members, leaves).
    ``codes`` (N + 1,) are those of the rows, and ``up`` (K, N + 1) their ancestors' rows at the levels. Returns how
    many valid pixels have NaN.
    """
    root, chunk = levels.size, shape[4]
    nodes, floats, ints = _rows(root + 1, chunk), _rows(7, chunk), np.empty((2, chunk), np.int32)
    zeros, lowest = floats[5], floats[6]
    nodes[root], zeros[:], lowest[:] = 1.0, 0.0, -np.inf
    total, best_sum = np.empty(chunk, np.float64), np.empty(chunk, np.float64)
    path = np.empty((levels.max() + 1, chunk), np.float64)
    summed = rule != MEMBERS or up.shape[0] > 0
    for member in members:
        summed |= first[member] < first[member + 1]
    missing = 0
    for row in range(shape[2]):
        for begin in range(0, shape[3], chunk):
            n, place = min(chunk, shape[3] - begin), shape[5] + row * shape[3] + begin
            bad, best, second = floats[0, :n], floats[1, :n], floats[2, :n]
            winner, child = ints[0, :n], ints[1, :n]
            confidence, margin = floats[3, :n], floats[4, :n]
            _load(source, row * shape[1] + begin, shape[0], leaves, nodes, 0, bad)
            if summed:
                _add_up(first, children, nodes, 0, zeros[:n], total[:n])
            if rule == MEMBERS:
                _best_of(members, nodes, lowest[:n], confidence, second, winner)
                for p in range(n):
                    margin[p] = confidence[p] - second[p]
            elif rule == BACKOFF:
                _walk(
                    first, children, tau, nodes, lowest[:n], best, second, child, winner, confidence, margin
                )
            else:
                if rule == DISTANCES:
                    _nearest(levels, first, nodes, path, best_sum[:n], winner)
                else:
                    _cheapest(matrix, members, leaves, nodes, total[:n], best_sum[:n], winner)
                _lead(nodes, winner, leaves, spans, confidence, margin)
            known = valid[place : place + n]
            missing += _label(winner, bad, known, codes, labels[place : place + n])
            _write(place, confidence, known, values[0])
            _write(place, margin, known, values[1])
            for k in range(up.shape[0]):
                for p in range(n):
                    second[p] = nodes[up[k, winner[p]], p]
                _write(place, second, known, values[2 + k])
    return missing


@kernel("void(float32[::1], int64[::1], int32[::1], int32[::1], int32[::1], float32[:, ::1])")
def sums(
    source: Float32, shape: Int64, leaves: Int32, first: Int32, children: Int32, result: Float32
) -> None:
    """Probabilities of all nodes (N, pixels)."""
    chunk = shape[4]
    bad, zeros, total = np.empty(chunk, np.float32), np.zeros(chunk, np.float32), np.empty(chunk, np.float64)
    for row in range(shape[2]):
        for begin in range(0, shape[3], chunk):
            n, place = min(chunk, shape[3] - begin), shape[5] + row * shape[3] + begin
            _load(source, row * shape[1] + begin, shape[0], leaves, result, place, bad[:n])
            _add_up(first, children, result, place, zeros[:n], total[:n])
