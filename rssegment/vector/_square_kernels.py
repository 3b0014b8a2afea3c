"""Compiled inside of :mod:`rssegment.vector.square`: outlines of walls that are parallel or perpendicular.

*Stations* are the vertices of a ring and the middles of its short edges: where a wall may begin. Lengths are px, from
the ring's first vertex. A *frame* (r, c) is the unit vector along the first of the two axes of walls, within the first
quadrant. A *run* is the outline from one station to another as one wall; its *residual*, px³, is the integral of the
squared distance between the two. Where the runs begin is found by dynamic programming: no choice has a lesser cost.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.vector._compile import inlined, kernel

__all__ = ["FITS", "SPARE", "fit_rings"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Stations = tuple[Float64, Int64, Float64]  # places (N, 2), half edges (N,), moments (2 N + 1, 6) up to each
Scatter = tuple[float, float, float]
Rules = tuple[float, float, float]
Work = tuple[Float64, Int32, Int32, Int32]
Frame = tuple[float, float]

FITS = 2  # the best so many outlines of a ring are kept
SPARE = 4  # corners that an outline may have beyond those of the ring

FIRST, SECOND, RISING, FALLING = 0, 1, 2, 3  # kinds of walls: along both axes, and diagonal to them
KINDS = 4
SLANT = 0.342  # sine of 20°, the least angle between a diagonal wall and both axes
HALF_RIGHT = 0.9808  # cosine of 11.25°: nearer to 45° than this, a diagonal is taken to be so
ROOT = math.sqrt(0.5)
TURNS = np.array([[math.cos(a), math.sin(a)] for a in np.radians(np.arange(0, 90, 5))])
ALIKE = 0.02  # sine of an angle between frames that needn't both be tried
WEIGHT = 0.1  # of the residual that noise explains


@inlined
def _rules(limit: float) -> Rules:
    """Limit, px; variance that is taken for noise, px²; what a corner costs, px³.

    A label raster alone has half a pixel of noise; more of it, the higher the limit is set.
    """
    sigma = max(0.5, limit / 3.0)
    return limit, sigma * sigma, 24.0 * sigma * sigma * sigma


@inlined
def _lay_stations(v: Int32, scale: int, limit: float, stations: Stations) -> int:
    """Writes the stations of a ring. Returns their number."""
    place, half, moment = stations
    n, count = v.shape[0], 0
    for i in range(n):
        r, c = (np.int64(v[i, 0]) - v[0, 0]) / scale, (np.int64(v[i, 1]) - v[0, 1]) / scale
        k = i + 1 if i + 1 < n else 0
        nr, nc = (np.int64(v[k, 0]) - v[0, 0]) / scale, (np.int64(v[k, 1]) - v[0, 1]) / scale
        place[count, 0], place[count, 1], half[count] = r, c, 2 * i
        count += 1
        if math.sqrt((nr - r) ** 2 + (nc - c) ** 2) <= 4 * limit:
            place[count, 0], place[count, 1], half[count] = 0.5 * (r + nr), 0.5 * (c + nc), 2 * i + 1
            count += 1
    moment[0] = 0.0
    for k in range(2 * count):
        r, c = place[k % count]
        nr, nc = place[(k + 1) % count]
        length = math.sqrt((nr - r) ** 2 + (nc - c) ** 2)
        moment[k + 1, 0] = moment[k, 0] + length
        moment[k + 1, 1] = moment[k, 1] + length * (r + nr) / 2
        moment[k + 1, 2] = moment[k, 2] + length * (c + nc) / 2
        moment[k + 1, 3] = moment[k, 3] + length * (r * r + r * nr + nr * nr) / 3
        moment[k + 1, 4] = moment[k, 4] + length * (2 * r * c + 2 * nr * nc + r * nc + nr * c) / 6
        moment[k + 1, 5] = moment[k, 5] + length * (c * c + c * nc + nc * nc) / 3
    return count


@inlined
def _scatter(moment: Float64, a: int, b: int) -> Scatter:
    """Second moments rr, rc and cc of the outline from station ``a`` to ``b`` about its centre."""
    length = moment[b, 0] - moment[a, 0]
    r, c = moment[b, 1] - moment[a, 1], moment[b, 2] - moment[a, 2]
    return (
        moment[b, 3] - moment[a, 3] - r * r / length,
        moment[b, 4] - moment[a, 4] - r * c / length,
        moment[b, 5] - moment[a, 5] - c * c / length,
    )


@inlined
def _thickness(s: Scatter) -> float:
    """Residual about the straight line that fits best."""
    p = 0.5 * (s[0] - s[2])
    return max(0.0, 0.5 * (s[0] + s[2]) - math.sqrt(p * p + s[1] * s[1]))


@inlined
def _across(s: Scatter, r: float, c: float) -> float:
    """Residual about a line of direction (r, c)."""
    return max(0.0, c * c * s[0] - 2 * r * c * s[1] + r * r * s[2])


@inlined
def _half_angle(p: float, q: float) -> Frame:
    """The unit vector at half the angle of (p, q); by roots alone, which are the same on every machine."""
    m = math.sqrt(p * p + q * q)
    if m <= 0.0:
        return 1.0, 0.0
    r, c = math.sqrt(max(0.0, (1 + p / m) / 2)), math.sqrt(max(0.0, (1 - p / m) / 2))
    return (r, c) if q >= 0 else (r, -c)


@inlined
def _axis(s: Scatter) -> Frame:
    """Direction of the straight line that fits best."""
    return _half_angle(0.5 * (s[0] - s[2]), s[1])


@inlined
def _first_quadrant(r: float, c: float) -> Frame:
    while r <= 0.0 or c < 0.0:
        r, c = c, -r
    return r, c


@inlined
def _pieces(moment: Float64, n: int, noise: float) -> tuple[float, float, float, float]:
    """Two guesses of the frame: the mean direction of straight pieces, longer ones counting more, modulo 90°; and the
    direction of the longest."""
    p, q, longest, best_r, best_c = 0.0, 0.0, 0.0, 1.0, 0.0
    a = 0
    while a < n:
        b = a + 1
        while b < a + n and _thickness(_scatter(moment, a, b + 1)) <= noise * (moment[b + 1, 0] - moment[a, 0]):
            b += 1
        r, c = _axis(_scatter(moment, a, b))
        length = moment[b, 0] - moment[a, 0]
        if length > longest:
            longest, best_r, best_c = length, r, c
        rr, rc = r * r - c * c, 2 * r * c  # twice the angle, and twice again
        p += length * length * (rr * rr - rc * rc)
        q += length * length * 2 * rr * rc
        a = b
    r, c = _half_angle(p, q)
    r, c = _half_angle(r, c)
    return r, c, best_r, best_c


@inlined
def _least_box(place: Float64, n: int) -> Frame:
    """The frame, of one every 5°, in which the bounding rectangle is smallest."""
    best, at = np.inf, 0
    for k in range(TURNS.shape[0]):
        r, c = TURNS[k, 0], TURNS[k, 1]
        low_u, high_u, low_v, high_v = np.inf, -np.inf, np.inf, -np.inf
        for i in range(n):
            u, v = r * place[i, 0] + c * place[i, 1], r * place[i, 1] - c * place[i, 0]
            low_u, high_u, low_v, high_v = min(low_u, u), max(high_u, u), min(low_v, v), max(high_v, v)
        size = (high_u - low_u) * (high_v - low_v)
        if size < best:
            best, at = size, k
    return TURNS[at, 0], TURNS[at, 1]


@inlined
def _guesses(stations: Stations, n: int, noise: float, out: Float64) -> int:
    """Writes the frames to try; the raster's own comes first. Returns their number."""
    place, _, moment = stations
    mr, mc, lr, lc = _pieces(moment, n, noise)
    br, bc = _least_box(place, n)
    out[0, 0], out[0, 1], count = 1.0, 0.0, 1
    for r, c in ((lr, lc), (mr, mc), (br, bc)):
        r, c = _first_quadrant(r, c)
        new = True
        for k in range(1, count):
            sine, cosine = r * out[k, 1] - c * out[k, 0], r * out[k, 0] + c * out[k, 1]
            new &= min(abs(sine), abs(cosine)) > ALIKE
        if new:
            out[count, 0], out[count, 1] = r, c
            count += 1
    return count


@inlined
def _diagonal(s: Scatter, frame: Frame) -> tuple[int, float, float]:
    """Kind and direction of a run as a diagonal wall; kind FIRST where it isn't one."""
    r, c = _axis(s)
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
    limit, noise, corner = rules
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
        s = _scatter(moment, a, b)
        mr, mc = (moment[b, 1] - moment[a, 1]) / length, (moment[b, 2] - moment[a, 2]) / length
        if high_v - low_v <= 2 * limit and abs(u - u0) >= limit:
            mean = frame[0] * mc - frame[1] * mr
            if max(high_v - mean, mean - low_v) <= limit:
                left = _across(s, frame[0], frame[1])
                price = corner + max(0.0, left - noise * length) + WEIGHT * left
                _relax(cost, came, i, j, FIRST, price, base)
        if high_u - low_u <= 2 * limit and abs(v - v0) >= limit:
            mean = frame[0] * mr + frame[1] * mc
            if max(high_u - mean, mean - low_u) <= limit:
                left = _across(s, -frame[1], frame[0])
                price = corner + max(0.0, left - noise * length) + WEIGHT * left
                _relax(cost, came, i, j, SECOND, price, base)
        if min(high_u - low_u, high_v - low_v) <= 2 * limit:
            continue
        if _thickness(s) > limit * limit * length:
            break
        if math.sqrt((u - u0) ** 2 + (v - v0) ** 2) < max(4.0, 4 * limit):
            continue
        kind, r, c = _diagonal(s, frame)
        if kind == FIRST:
            continue
        left = _across(s, r, c)
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
        s = _scatter(moment, a, b)
        if kinds[k] == FIRST:
            rr, rc, cc = rr + s[0], rc + s[1], cc + s[2]
        elif kinds[k] == SECOND:  # turned by a right angle
            rr, rc, cc = rr + s[2], rc - s[1], cc + s[0]
    if rr + cc <= 0.0:
        return frame
    r, c = _axis((rr, rc, cc))
    return _first_quadrant(r, c)


@inlined
def _far_station(place: Float64, n: int, frame: Frame, turn: int) -> int:
    """The station farthest between both axes, on the side of the frame's ``turn`` 0 or 1: likely a corner."""
    best, at = -np.inf, 0
    for i in range(n):
        u, v = frame[0] * place[i, 0] + frame[1] * place[i, 1], frame[0] * place[i, 1] - frame[1] * place[i, 0]
        reach = u + v if turn == 0 else u - v
        if reach > best + 1e-9:
            best, at = reach, i
    return at


@inlined
def _settle(
    stations: Stations, n: int, frame: Frame, fixed: bool, rules: Rules, work: Work
) -> tuple[float, int, float, float]:
    """Runs and frame in turn, each the best for the other. Returns the cost, the number of runs and the frame."""
    cost, count, start = np.inf, 0, 0
    for turn in range(2):
        if count == 0:
            start = _far_station(stations[0], n, frame, turn)
            cost, count = _solve(stations, n, start, frame, rules, work)
    for _ in range(1 if fixed else 2):
        if count < 4:
            return np.inf, 0, frame[0], frame[1]
        if not fixed:
            frame = _refined(stations[2], n, count, frame, work)
        # now from another corner: that where it began was a guess, and no longer decides
        k = count // 2
        while work[3][k] > SECOND:
            k = k + 1 if k + 1 < count else 0
        cost, count = _solve(stations, n, work[2][k] % n, frame, rules, work)
    return (cost if count >= 4 else np.inf), count, frame[0], frame[1]


@inlined
def _residual(stations: Stations, n: int, count: int, frame: Frame, work: Work) -> float:
    """Of all runs together."""
    total = 0.0
    for k in range(count):
        a, b = work[2][k], work[2][k + 1] if k + 1 < count else work[2][0] + n
        s = _scatter(stations[2], a, b)
        r, c = frame
        if work[3][k] == SECOND:
            r, c = -c, r
        elif work[3][k] > SECOND:
            _, r, c = _diagonal(s, frame)
        total += _across(s, r, c)
    return total


@inlined
def _area_moments(place: Float64, n: int) -> tuple[float, float, float, float, float, float]:
    """Area, negative where the ring turns so, centre, and second moments about it by area."""
    area, mr, mc, rr, rc, cc = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        k = i + 1 if i + 1 < n else 0
        r, c, nr, nc = place[i, 0], place[i, 1], place[k, 0], place[k, 1]
        w = r * nc - nr * c
        area += w / 2
        mr += w * (r + nr) / 6
        mc += w * (c + nc) / 6
        rr += w * (r * r + r * nr + nr * nr) / 12
        rc += w * (2 * r * c + r * nc + nr * c + 2 * nr * nc) / 24
        cc += w * (c * c + c * nc + nc * nc) / 12
    if area == 0.0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    mr, mc = mr / area, mc / area
    return area, mr, mc, rr / area - mr * mr, rc / area - mr * mc, cc / area - mc * mc


@inlined
def _roundness(place: Float64, n: int) -> float:
    """Residual about the ellipse of the same moments, to first order (Sampson 1982), by Simpson's rule."""
    _, mr, mc, rr, rc, cc = _area_moments(place, n)
    det = rr * cc - rc * rc
    if det <= 0.0:
        return np.inf
    # p' Q p = 1 on the ellipse, whose variance along a semi-axis a is a² / 4
    q_rr, q_rc, q_cc = cc / det / 4, -rc / det / 4, rr / det / 4
    total = 0.0
    for i in range(n):
        k = i + 1 if i + 1 < n else 0
        length = math.sqrt((place[k, 0] - place[i, 0]) ** 2 + (place[k, 1] - place[i, 1]) ** 2)
        steps = 2 * max(1, min(64, int(length)))
        for step in range(steps + 1):
            t = step / steps
            r, c = place[i, 0] + t * (place[k, 0] - place[i, 0]) - mr, place[i, 1] + t * (place[k, 1] - place[i, 1]) - mc
            gr, gc = q_rr * r + q_rc * c, q_rc * r + q_cc * c
            level = math.sqrt(max(r * gr + c * gc, 1e-12))
            off = (level - 1) * level / math.sqrt(max(gr * gr + gc * gc, 1e-12))
            weight = 1.0 if step in (0, steps) else (4.0 if step % 2 else 2.0)
            total += weight * off * off * length / (3 * steps)
    return total


@inlined
def _lines(stations: Stations, n: int, count: int, frame: Frame, work: Work, sign: float, out: Float64) -> None:
    """Writes the walls (count, 3) of the runs: the normal to the outside, and its distance from the first vertex."""
    place, _, moment = stations
    for k in range(count):
        a, b = work[2][k], work[2][k + 1] if k + 1 < count else work[2][0] + n
        r, c = frame
        if work[3][k] == SECOND:
            r, c = -c, r
        elif work[3][k] > SECOND:
            _, r, c = _diagonal(_scatter(moment, a, b), frame)
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
def _equal_area(lines: Float64, count: int, area: float, corners: Float64) -> None:
    """Moves all walls outwards by the same length so that they enclose ``area``."""
    shift = 0.0
    for _ in range(4):
        _meet(lines, count, shift, corners)
        length = 0.0
        for k in range(count):
            b = k + 1 if k + 1 < count else 0
            length += math.sqrt((corners[b, 0] - corners[k, 0]) ** 2 + (corners[b, 1] - corners[k, 1]) ** 2)
        if length <= 0.0:
            return
        shift += (abs(area) - abs(_area_moments(corners, count)[0])) / length
    _meet(lines, count, shift, corners)


@inlined
def _best_frames(stations: Stations, n: int, rules: Rules, work: Work, tried: Float64) -> int:
    """Writes cost, frame and whether it is the raster's own (T, 4) of the settled guesses, best first."""
    guesses = np.empty((4, 2))
    count = 0
    for g in range(_guesses(stations, n, rules[1], guesses)):
        cost, _, r, c = _settle(stations, n, (guesses[g, 0], guesses[g, 1]), g == 0, rules, work)
        if cost == np.inf:
            continue
        if g > 0:
            cost += 0.5 * rules[2]  # a frame of its own has to be worth it
        k = count
        while k > 0 and tried[k - 1, 0] > cost:
            tried[k] = tried[k - 1]
            k -= 1
        tried[k, 0], tried[k, 1], tried[k, 2], tried[k, 3] = cost, r, c, g == 0
        count += 1
    return count


@inlined
def _fits(v: Int32, scale: int, rules: Rules, stations: Stations, work: Work, out: tuple[Int32, Int32, Int64], at: int) -> int:
    """Writes up to FITS outlines of one ring from number ``at`` on. Returns how many."""
    corners, begins, ends = out
    lines, places = np.empty((v.shape[0] + SPARE, 3)), np.empty((v.shape[0] + SPARE, 2))
    n = _lay_stations(v, scale, rules[0], stations)
    area = _area_moments(stations[0], n)[0]
    if area == 0.0:
        return 0
    tried = np.empty((4, 4))
    made = 0
    round_cost = -1.0
    for t in range(_best_frames(stations, n, rules, work, tried)):
        if made == FITS:
            break
        frame = (tried[t, 1], tried[t, 2])
        _, count, _, _ = _settle(stations, n, frame, True, rules, work)
        if count < 4 or count > v.shape[0] + SPARE:
            continue
        if round_cost < 0.0:
            length = stations[2][n, 0]
            left = _roundness(stations[0], n)
            round_cost = 4 * rules[2] + max(0.0, left - rules[1] * length) + WEIGHT * left
            left = _residual(stations, n, count, frame, work)
            if round_cost < count * rules[2] + max(0.0, left - rules[1] * length) + WEIGHT * left:
                return made
        _lines(stations, n, count, frame, work, 1.0 if area > 0 else -1.0, lines)
        _equal_area(lines, count, area, places)
        first = ends[at + made - 1] if at + made > 0 else 0
        for k in range(count):
            corners[first + k, 0] = v[0, 0] + np.int64(np.rint(places[k, 0] * scale))
            corners[first + k, 1] = v[0, 1] + np.int64(np.rint(places[k, 1] * scale))
            begins[first + k] = stations[1][work[2][k] % n]
        ends[at + made] = first + count
        made += 1
    return made


@kernel("int64(int32[:, ::1], int64[::1], int64, float64, int32[:, ::1], int32[::1], int64[::1], int64[::1])")
def fit_rings(
    vertices: Int32,
    offsets: Int64,
    scale: int,
    limit: float,
    corners: Int32,
    begins: Int32,
    ends: Int64,
    fits: Int64,
) -> int:
    """Writes up to FITS outlines for each ring, best first: ``corners``, the half edge of the ring at which the wall
    from each begins, where they end, and (R + 1,) how many fits there are up to each ring. Returns that of all.

    In units of 1 / ``scale`` px, ``limit`` in px.
    """
    longest = 0
    for k in range(offsets.size - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    most = 2 * longest
    stations = (np.empty((most, 2)), np.empty(most, np.int64), np.empty((2 * most + 1, 6)))
    states = (most + 1) * 2 * KINDS
    work = (
        np.empty(states), np.empty(states, np.int32), np.empty(most + 1, np.int32), np.empty(most + 1, np.int32),
    )  # fmt: skip
    rules = _rules(limit)
    count = 0
    fits[0] = 0
    for k in range(offsets.size - 1):
        v = vertices[offsets[k] : offsets[k + 1]]
        if v.shape[0] >= 3:
            count += _fits(v, scale, rules, stations, work, (corners, begins, ends), count)
        fits[k + 1] = count
    return count
