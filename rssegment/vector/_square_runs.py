"""Compiled inside of :mod:`rssegment.vector.square`: a ring cut into walls.

A *run* is the ring from one station to another as one wall. Where runs begin is found by dynamic programming: no
choice has a lesser cost. Frames and stations are those of ``_square_stations.py``.

The helpers are compiled into ``_square_kernels.py``: see ``HELPERS`` there.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined
from rssegment.vector._square_stations import (
    Frame,
    Scatter,
    Stations,
    across,
    axis,
    far_station,
    first_quadrant,
    scatter,
    thickness,
)  # fmt: skip

__all__ = ["KINDS", "SECOND", "STILL", "WEIGHT", "Rules", "Work", "diagonal", "rules_for", "settle"]

Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]
Rules = tuple[float, float, float, float]
Work = tuple[Float64, Int32, Int32, Int32, Int32, Int32]

FIRST, SECOND, RISING, FALLING = 0, 1, 2, 3  # kinds of walls: along both axes, and diagonal to them
KINDS = 4
SLANT = 0.342  # sine of 20°, the least angle between a diagonal wall and both axes
HALF_RIGHT = 0.9808  # cosine of 11.25°: nearer to 45° than this, a diagonal is taken to be so
ROOT = math.sqrt(0.5)
STILL = 0.002  # sine of an angle by which the frame may turn without other runs
HOPELESS = 1.5  # times the best cost so far, and a frame isn't looked at more closely
WEIGHT = 0.1  # of the residual that noise explains


@inlined
def rules_for(limit: float, detail: float) -> Rules:
    """How far a run may be off, px; variance that is taken for noise, px²; what a corner costs, px³; the limit, px.

    A label raster alone has half a pixel of noise; more of it, the higher the limit is set.
    """
    sigma = max(0.5, limit * detail / 3.0)
    return limit * detail, sigma * sigma, 24.0 * sigma * sigma * sigma, limit


@inlined
def diagonal(s: Scatter, frame: Frame) -> tuple[int, float, float]:
    """Kind and direction of a run as a diagonal wall; kind FIRST where it isn't one."""
    r, c = axis(s)
    u, v = r * frame[0] + c * frame[1], c * frame[0] - r * frame[1]
    if min(abs(u), abs(v)) < SLANT:
        return FIRST, r, c
    sign = 1.0 if u * v > 0 else -1.0
    if ROOT * (abs(u) + abs(v)) > HALF_RIGHT:
        r, c = ROOT * (frame[0] - sign * frame[1]), ROOT * (frame[1] + sign * frame[0])
    return (RISING if sign > 0 else FALLING), r, c


@inlined
def _deviation(stations: Stations, n: int, a: int, b: int, r: float, c: float) -> float:
    """Largest distance of the stations from ``a`` to ``b`` from their best line of direction (r, c)."""
    place, _, moment = stations
    length = moment[b, 0] - moment[a, 0]
    mean = (r * (moment[b, 2] - moment[a, 2]) - c * (moment[b, 1] - moment[a, 1])) / length
    far = 0.0
    for k in range(a, b + 1):
        i = k if k < n else (k - n if k < 2 * n else k - 2 * n)
        far = max(far, abs(r * place[i, 1] - c * place[i, 0] - mean))
    return far


@inlined
def _relax(cost: Float64, came: Int32, i: int, j: int, kind: int, price: float, base: Float64) -> None:
    for start in range(2):
        total = base[start, kind] + price
        if total < cost[j, start, kind]:
            cost[j, start, kind] = total
            came[j, start, kind] = i


@inlined
def _bases(cost: Float64, i: int, base: Float64) -> bool:
    """Least costs of coming to station ``i`` with a run of another kind. Returns whether one can come there."""
    found = False
    for start in range(2):
        for kind in range(KINDS):
            best = np.inf
            if i == 0:
                best = 0.0 if kind == start else np.inf
            else:
                for other in range(KINDS):
                    if other != kind:
                        best = min(best, cost[i, start, other])
            base[start, kind] = best
            found |= best < np.inf
    return found


@inlined
def _extend(
    stations: Stations, n: int, start: int, i: int, frame: Frame, rules: Rules, base: Float64, work: Work
) -> None:
    """Tries all runs from station ``start + i`` on."""
    place, _, moment = stations
    limit, noise, corner, _ = rules
    cost, came = work[0].reshape(-1, 2, KINDS), work[1].reshape(-1, 2, KINDS)
    a = start + i
    at = place[a % n]
    u0, v0 = frame[0] * at[0] + frame[1] * at[1], frame[0] * at[1] - frame[1] * at[0]
    low_u, high_u, low_v, high_v = u0, u0, v0, v0
    for j in range(i + 1, n + 1):
        b = start + j
        at = place[b % n]
        u, v = frame[0] * at[0] + frame[1] * at[1], frame[0] * at[1] - frame[1] * at[0]
        low_u, high_u, low_v, high_v = min(low_u, u), max(high_u, u), min(low_v, v), max(high_v, v)
        length = moment[b, 0] - moment[a, 0]
        s = scatter(moment, a, b)
        mr, mc = (moment[b, 1] - moment[a, 1]) / length, (moment[b, 2] - moment[a, 2]) / length
        if high_v - low_v <= 2 * limit and abs(u - u0) >= limit:
            mean = frame[0] * mc - frame[1] * mr
            if max(high_v - mean, mean - low_v) <= limit:
                left = across(s, frame[0], frame[1])
                price = corner + max(0.0, left - noise * length) + WEIGHT * left
                _relax(cost, came, i, j, FIRST, price, base)
        if high_u - low_u <= 2 * limit and abs(v - v0) >= limit:
            mean = frame[0] * mr + frame[1] * mc
            if max(high_u - mean, mean - low_u) <= limit:
                left = across(s, -frame[1], frame[0])
                price = corner + max(0.0, left - noise * length) + WEIGHT * left
                _relax(cost, came, i, j, SECOND, price, base)
        if min(high_u - low_u, high_v - low_v) <= 2 * limit:
            continue
        if thickness(s) > 0.5 * limit * limit * length:
            break
        if math.sqrt((u - u0) ** 2 + (v - v0) ** 2) < max(4.0, 4 * limit):
            continue
        kind, r, c = diagonal(s, frame)
        if kind == FIRST:
            continue
        left = across(s, r, c)
        price = 2 * corner + max(0.0, left - noise * length) + WEIGHT * left
        better = base[0, kind] + price < cost[j, 0, kind] or base[1, kind] + price < cost[j, 1, kind]
        if better and _deviation(stations, n, a, b, r, c) <= limit:
            _relax(cost, came, i, j, kind, price, base)


@inlined
def _solve(
    stations: Stations, n: int, start: int, frame: Frame, rules: Rules, work: Work
) -> tuple[float, int]:
    """The runs from station ``start`` around to it that cost least. Returns the cost and their number.

    Writes where they begin, ascending from ``start``, and their kinds.
    """
    cost, came = work[0].reshape(-1, 2, KINDS), work[1].reshape(-1, 2, KINDS)
    begin, kinds = work[2], work[3]
    cost[: n + 1] = np.inf
    base = np.empty((2, KINDS))
    for i in range(n):
        if _bases(cost, i, base):
            _extend(stations, n, start, i, frame, rules, base, work)
    best, first, kind = np.inf, 0, 0
    for each in range(2):
        for last in range(KINDS):
            if last != each and cost[n, each, last] < best:
                best, first, kind = cost[n, each, last], each, last
    if best == np.inf:
        return best, 0
    count, j = 0, n
    while j > 0:
        begin[count], kinds[count] = start + came[j, first, kind], kind
        j = came[j, first, kind]
        count += 1
        if j > 0:
            before = -1
            for other in range(KINDS):
                if other != kind and (before < 0 or cost[j, first, other] < cost[j, first, before]):
                    before = other
            kind = before
    begin[:count], kinds[:count] = begin[:count][::-1].copy(), kinds[:count][::-1].copy()
    return best, count


@inlined
def _refined(moment: Float64, n: int, count: int, frame: Frame, work: Work) -> Frame:
    """The frame in which the residuals of these runs together are least, closed form."""
    begin, kinds = work[2], work[3]
    rr, rc, cc = 0.0, 0.0, 0.0
    for k in range(count):
        a, b = begin[k], begin[k + 1] if k + 1 < count else begin[0] + n
        s = scatter(moment, a, b)
        if kinds[k] == FIRST:
            rr, rc, cc = rr + s[0], rc + s[1], cc + s[2]
        elif kinds[k] == SECOND:  # turned by a right angle
            rr, rc, cc = rr + s[2], rc - s[1], cc + s[0]
    if rr + cc <= 0.0:
        return frame
    r, c = axis((rr, rc, cc))
    return first_quadrant(r, c)


@inlined
def settle(
    stations: Stations, n: int, frame: Frame, fixed: bool, rules: Rules, work: Work, best: float
) -> tuple[float, int, float, float]:
    """Runs and frame in turn, each the best for the other. Returns the cost, the number of runs and the frame.

    Gives up where the cost is far from the ``best`` so far.
    """
    cost, count, start = np.inf, 0, 0
    for turn in range(2):
        if count == 0:
            start = far_station(stations[0], n, frame, turn)
            cost, count = _solve(stations, n, start, frame, rules, work)
    for turn in range(1 if fixed else 3):
        if count < 4:
            return np.inf, 0, frame[0], frame[1]
        if not fixed:
            old = frame
            frame = _refined(stations[2], n, count, frame, work)
            if turn > 0 and abs(frame[0] * old[1] - frame[1] * old[0]) < STILL:
                break
        # now from another corner: that where it began was a guess, and no longer decides
        k = count // 2
        while work[3][k] > SECOND:
            k = k + 1 if k + 1 < count else 0
        cost, count = _solve(stations, n, work[2][k] % n, frame, rules, work)
        if cost > HOPELESS * best:
            return np.inf, 0, frame[0], frame[1]
    return (cost if count >= 4 else np.inf), count, frame[0], frame[1]
