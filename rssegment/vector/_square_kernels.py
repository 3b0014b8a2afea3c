"""Compiled inside of :mod:`rssegment.vector.square`: outlines of walls that are parallel or perpendicular.

Stations and frames are those of ``_square_stations.py``, runs those of ``_square_runs.py``.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined, kernel
from rssegment.vector._square_runs import (
    KINDS,
    SECOND,
    STILL,
    WEIGHT,
    Rules,
    Work,
    diagonal,
    rules_for,
    settle,
)
from rssegment.vector._square_stations import (
    Frame,
    Stations,
    across,
    area_moments,
    guess_frames,
    lay_stations,
    roundness,
    scatter,
)  # fmt: skip

__all__ = ["FITS", "HELPERS", "SPARE", "fit_rings"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Numba's cache on disk knows this file alone; so that no stale helper stays in it, this is a hash of the files they are
# in, and changes with them (a test says to what).
HELPERS = "80e84f59d7cfaa9d"

FITS = 2  # the best so many outlines of a ring are kept
ROUND = -1  # there is none, and none is to be looked for
SHORT = 0.6  # of the limit: no wall is shorter
UPRIGHT = 0.6  # so much of a ring must lie along the axes
NUDGES, NUDGED = (
    4,
    32,
)  # times that a wall is moved by one unit for the sake of the area; walls for which that pays
SPARE = 4  # corners that an outline may have beyond those of the ring


@inlined
def _residual(stations: Stations, n: int, count: int, frame: Frame, work: Work) -> float:
    """Of all runs together."""
    total = 0.0
    for k in range(count):
        a, b = work[2][k], work[2][k + 1] if k + 1 < count else work[2][0] + n
        s = scatter(stations[2], a, b)
        r, c = frame
        if work[3][k] == SECOND:
            r, c = -c, r
        elif work[3][k] > SECOND:
            _, r, c = diagonal(s, frame)
        total += across(s, r, c)
    return total


@inlined
def _upright(moment: Float64, n: int, count: int, work: Work) -> float:
    """How much of the ring lies along the axes."""
    total = 0.0
    for k in range(count):
        if work[3][k] <= SECOND:
            b = work[2][k + 1] if k + 1 < count else work[2][0] + n
            total += moment[b, 0] - moment[work[2][k], 0]
    return float(total / moment[n, 0])


@inlined
def _is_round(stations: Stations, n: int, count: int, frame: Frame, rules: Rules, work: Work) -> bool:
    """Whether an ellipse costs less than these walls; it has as many parameters as a rectangle."""
    length = stations[2][n, 0]
    smooth, straight = roundness(stations[0], n), _residual(stations, n, count, frame, work)
    ellipse = 4 * rules[2] + max(0.0, smooth - rules[1] * length) + WEIGHT * smooth
    return bool(ellipse < count * rules[2] + max(0.0, straight - rules[1] * length) + WEIGHT * straight)


@inlined
def _lines(
    stations: Stations, n: int, count: int, frame: Frame, work: Work, sign: float, out: Float64
) -> None:
    """Writes the walls (count, 3) of the runs: the normal to the outside, and its distance from the first vertex."""
    place, _, moment = stations
    for k in range(count):
        a, b = work[2][k], work[2][k + 1] if k + 1 < count else work[2][0] + n
        r, c = frame
        if work[3][k] == SECOND:
            r, c = -c, r
        elif work[3][k] > SECOND:
            _, r, c = diagonal(scatter(moment, a, b), frame)
        along = r * (place[b % n, 0] - place[a % n, 0]) + c * (place[b % n, 1] - place[a % n, 1])
        if along * sign < 0:
            r, c = -r, -c
        length = moment[b, 0] - moment[a, 0]
        out[k, 0], out[k, 1] = c, -r
        out[k, 2] = (c * (moment[b, 1] - moment[a, 1]) - r * (moment[b, 2] - moment[a, 2])) / length


@inlined
def _meet(lines: Float64, count: int, shift: float, out: Float64) -> None:
    """Writes the corners (count, 2) where each wall, moved outwards by ``shift``, begins."""
    for k in range(count):
        h = k - 1 if k > 0 else count - 1
        p, q = lines[h, 2] + shift, lines[k, 2] + shift
        det = lines[h, 0] * lines[k, 1] - lines[h, 1] * lines[k, 0]
        out[k, 0] = (p * lines[k, 1] - q * lines[h, 1]) / det
        out[k, 1] = (q * lines[h, 0] - p * lines[k, 0]) / det


@inlined
def _shortest(corners: Float64, count: int) -> tuple[int, float]:
    """The shortest wall and its length."""
    best, at = np.inf, 0
    for k in range(count):
        b = k + 1 if k + 1 < count else 0
        length = math.sqrt((corners[b, 0] - corners[k, 0]) ** 2 + (corners[b, 1] - corners[k, 1]) ** 2)
        if length < best:
            best, at = length, k
    return at, best


@inlined
def _steps(corners: Float64, count: int, size: float) -> int:
    """How many walls are shorter than ``size``."""
    steps = 0
    for k in range(count):
        b = k + 1 if k + 1 < count else 0
        steps += (corners[b, 0] - corners[k, 0]) ** 2 + (corners[b, 1] - corners[k, 1]) ** 2 < size * size
    return steps


@inlined
def _without_short(
    stations: Stations, n: int, count: int, frame: Frame, rules: Rules, work: Work, sign: float, lines: Float64,
    corners: Float64,
) -> int:  # fmt: skip
    """Writes the walls, and takes those out that turn out to be short. Returns the number of runs that are left.

    Neighbours of one kind become one run; else the longer of both takes what was the short one's.
    """
    begin, kinds, moment = work[2], work[3], stations[2]
    while count >= 4:
        _lines(stations, n, count, frame, work, sign, lines)
        _meet(lines, count, 0.0, corners)
        k, length = _shortest(corners, count)
        if length >= SHORT * rules[3]:
            break
        for j in range(count):  # the short one comes second
            work[4][j], work[5][j] = begin[(k + count - 1 + j) % count], kinds[(k + count - 1 + j) % count]
        for j in range(1, count):
            while work[4][j] <= work[4][j - 1]:
                work[4][j] += n
        gone, first = 1, 2
        if work[5][0] == work[5][2]:
            gone, first = 2, 3
        elif _longer(moment, n, work[4], count):
            work[4][2] = work[4][1]
        begin[0], kinds[0] = work[4][0], work[5][0]
        for j in range(first, count):
            begin[j - gone], kinds[j - gone] = work[4][j], work[5][j]
        count -= gone
        while begin[0] >= n:
            begin[:count] -= n
    return count


@inlined
def _longer(moment: Float64, n: int, begin: Int32, count: int) -> bool:
    """Whether the third run is longer than the first."""
    end = begin[3] if count > 3 else begin[0] + n
    third = _stretch(moment, n, begin[2], end)
    return third > _stretch(moment, n, begin[0], begin[1])


@inlined
def _stretch(moment: Float64, n: int, a: int, b: int) -> float:
    """Length of the ring between two stations, b after a."""
    shift = (a // n) * n
    return float(moment[b - shift, 0] - moment[a - shift, 0])


@inlined
def _equal_area(lines: Float64, count: int, area: float, scale: int, corners: Float64) -> None:
    """Moves all walls outwards by the same length so that they enclose ``area``, px², and writes their corners in
    whole units."""
    shift = 0.0
    for _ in range(4):
        _meet(lines, count, shift, corners)
        length = 0.0
        for k in range(count):
            b = k + 1 if k + 1 < count else 0
            length += math.sqrt((corners[b, 0] - corners[k, 0]) ** 2 + (corners[b, 1] - corners[k, 1]) ** 2)
        if length <= 0.0:
            return
        shift += (abs(area) - abs(area_moments(corners, count)[0])) / length
    lines[:count, 2] += shift
    error = _rounded(lines, count, area, scale, corners)
    for _ in range(NUDGES if count <= NUDGED else 0):
        best, wall, step = error, -1, 0.0
        for k in range(2 * count):
            move = (1 - 2 * (k % 2)) / scale
            lines[k // 2, 2] += move
            each = _rounded(lines, count, area, scale, corners)
            lines[k // 2, 2] -= move
            if each < best - 1e-9:
                best, wall, step = each, k // 2, move
        if wall < 0:
            break
        lines[wall, 2] += step
        error = best
    _rounded(lines, count, area, scale, corners)


@inlined
def _rounded(lines: Float64, count: int, area: float, scale: int, corners: Float64) -> float:
    """Writes the corners of walls in whole units. Returns how much their area is off, px²."""
    _meet(lines, count, 0.0, corners)
    for k in range(count):
        corners[k, 0], corners[k, 1] = np.rint(corners[k, 0] * scale), np.rint(corners[k, 1] * scale)
    return float(abs(abs(area_moments(corners, count)[0]) / scale / scale - abs(area)))


@inlined
def _is_known(r: float, c: float, tried: Float64, count: int) -> bool:
    """Whether another guess led to the same frame."""
    known = False
    for k in range(count):
        known |= abs(r * tried[k, 2] - c * tried[k, 1]) < STILL
    return known


@inlined
def _best_frames(stations: Stations, n: int, rules: Rules, work: Work, tried: Float64, runs: Int32) -> int:
    """Writes cost, frame, number of runs and their place in ``runs`` (T, 5) of the settled guesses, best first."""
    guesses, best, count = np.empty((4, 2)), np.inf, 0
    for g in range(guess_frames(stations, n, rules[1], guesses)):
        own = guesses[g, 1] == 0.0
        cost, size, r, c = settle(stations, n, (guesses[g, 0], guesses[g, 1]), own, rules, work, best)
        if cost == np.inf:
            continue
        if not own:
            cost += 0.1 * rules[2]  # a frame that isn't the raster's has to be worth it
        best = min(best, cost)
        if _is_known(r, c, tried, count):
            continue
        k = count
        while k > 0 and tried[k - 1, 0] > cost:
            tried[k] = tried[k - 1]
            k -= 1
        tried[k, 0], tried[k, 1], tried[k, 2], tried[k, 3], tried[k, 4] = cost, r, c, size, count
        runs[count, 0, :size], runs[count, 1, :size] = work[2][:size], work[3][:size]
        count += 1
    return count


@inlined
def _fits(
    v: Int32,
    scale: int,
    rules: Rules,
    stations: Stations,
    work: Work,
    out: tuple[Int32, Int32, Int64],
    at: int,
) -> int:
    """Writes up to FITS outlines of one ring from number ``at`` on. Returns how many, or ROUND."""
    corners, begins, ends = out
    lines, places = np.empty((v.shape[0] + SPARE, 3)), np.empty((v.shape[0] + SPARE, 2))
    n = lay_stations(v, scale, rules[0], stations)
    area = area_moments(stations[0], n)[0]
    if abs(area) < 4 * rules[3] * rules[3]:
        return 0  # of a ring as small as the limit anything could be made
    tried, runs = np.empty((4, 5)), np.empty((4, 2, n + 1), np.int32)
    made = 0
    for t in range(_best_frames(stations, n, rules, work, tried, runs)):
        if made == FITS:
            break
        frame = (tried[t, 1], tried[t, 2])
        count, which = int(tried[t, 3]), int(tried[t, 4])
        work[2][:count], work[3][:count] = runs[which, 0, :count], runs[which, 1, :count]
        if count > v.shape[0] + SPARE or _upright(stations[2], n, count, work) < UPRIGHT:
            continue
        if made == 0 and _is_round(stations, n, count, frame, rules, work):
            return ROUND
        sign = 1.0 if area > 0 else -1.0
        count = _without_short(stations, n, count, frame, rules, work, sign, lines, places)
        if count < 4:
            continue
        _equal_area(lines, count, area, scale, places)
        if (
            3 * _steps(places, count, 2 * rules[3] * scale) > count
            or _steps(places, count, rules[3] * scale / 2) > 0
        ):
            continue  # the ring's own steps
        first = ends[at + made - 1] if at + made > 0 else 0
        for k in range(count):
            corners[first + k, 0] = v[0, 0] + np.int64(places[k, 0])
            corners[first + k, 1] = v[0, 1] + np.int64(places[k, 1])
            begins[first + k] = stations[1][work[2][k] % n]
        ends[at + made] = first + count
        made += 1
    return made


@kernel(
    "int64(int32[:, ::1], int64[::1], int64, float64, float64, int32[:, ::1], int32[::1], int64[::1], int64[::1], "
    "boolean[::1])"
)
def fit_rings(
    vertices: Int32,
    offsets: Int64,
    scale: int,
    limit: float,
    detail: float,
    corners: Int32,
    begins: Int32,
    ends: Int64,
    fits: Int64,
    is_round: Bools,
) -> int:
    """Writes up to FITS outlines for each ring, best first: ``corners``, the half edge of the ring at which the wall
    from each begins, where they end, and (R + 1,) how many fits there are up to each ring. Returns that of all.

    In units of 1 / ``scale`` px, ``limit`` in px, of which ``detail`` is how far walls may be off. ``is_round``: rings
    that have none since an ellipse will do.
    """
    longest = 0
    for k in range(offsets.size - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    most = 2 * longest
    stations = (np.empty((most, 2)), np.empty(most, np.int64), np.empty((2 * most + 1, 6)))
    states = (most + 1) * 2 * KINDS
    work = (
        np.empty(states), np.empty(states, np.int32), np.empty(most + 1, np.int32), np.empty(most + 1, np.int32),
        np.empty(most + 1, np.int32), np.empty(most + 1, np.int32),
    )  # fmt: skip
    rules = rules_for(limit, detail)
    count = 0
    fits[0] = 0
    for k in range(offsets.size - 1):
        v = vertices[offsets[k] : offsets[k + 1]]
        made = 0
        if v.shape[0] >= 3:
            made = _fits(v, scale, rules, stations, work, (corners, begins, ends), count)
        is_round[k] = made == ROUND
        count += max(0, made)
        fits[k + 1] = count
    return count
