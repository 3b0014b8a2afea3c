"""Compiled inside of :mod:`rssegment.vector.square`: what is known of a ring before it has walls.

*Stations* are the vertices of a ring and the middles of edges that may cut a corner: where a wall may begin. Lengths
are px, from the ring's first vertex. A *frame* (r, c) is the unit vector along the first of the two axes of walls,
within the first quadrant. The *residual*, px³, of a part of the ring about a line is the integral of its squared
distance; moments up to each station give it at once.

The helpers are compiled into ``_square_kernels.py``: see ``HELPERS`` there.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from rssegment.kernels import inlined

__all__ = [
    "Frame", "Scatter", "Stations", "across", "area_moments", "axis", "far_station", "first_quadrant", "guess_frames",
    "lay_stations", "roundness", "scatter", "thickness",
]  # fmt: skip

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Stations = tuple[Float64, Int64, Float64]  # places (N, 2), half edges (N,), moments (2 N + 1, 6) up to each
Scatter = tuple[float, float, float]  # second moments: rr, rc, cc
Frame = tuple[float, float]

TURNS = np.array([[math.cos(a), math.sin(a)] for a in np.radians(np.arange(0, 90, 5))])
UPRIGHT = 0.1  # sine of an angle to the raster's own frame that may be none
ALIKE = 0.02  # sine of an angle between frames that needn't both be tried


@inlined
def lay_stations(v: Int32, scale: int, limit: float, stations: Stations) -> int:
    """Writes the stations of a ring. Returns their number."""
    place, half, moment = stations
    n, count = v.shape[0], 0
    for i in range(n):
        r, c = (np.int64(v[i, 0]) - v[0, 0]) / scale, (np.int64(v[i, 1]) - v[0, 1]) / scale
        k = i + 1 if i + 1 < n else 0
        nr, nc = (np.int64(v[k, 0]) - v[0, 0]) / scale, (np.int64(v[k, 1]) - v[0, 1]) / scale
        place[count, 0], place[count, 1], half[count] = r, c, 2 * i
        count += 1
        if limit < math.sqrt((nr - r) ** 2 + (nc - c) ** 2) <= 4 * limit:
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
def scatter(moment: Float64, a: int, b: int) -> Scatter:
    """Second moments rr, rc and cc of the outline from station ``a`` to ``b`` about its centre."""
    length = moment[b, 0] - moment[a, 0]
    r, c = moment[b, 1] - moment[a, 1], moment[b, 2] - moment[a, 2]
    return (
        moment[b, 3] - moment[a, 3] - r * r / length,
        moment[b, 4] - moment[a, 4] - r * c / length,
        moment[b, 5] - moment[a, 5] - c * c / length,
    )


@inlined
def thickness(s: Scatter) -> float:
    """Residual about the straight line that fits best."""
    p = 0.5 * (s[0] - s[2])
    return max(0.0, 0.5 * (s[0] + s[2]) - math.sqrt(p * p + s[1] * s[1]))


@inlined
def across(s: Scatter, r: float, c: float) -> float:
    """Residual about a line of direction (r, c)."""
    return max(0.0, c * c * s[0] - 2 * r * c * s[1] + r * r * s[2])


@inlined
def half_angle(p: float, q: float) -> Frame:
    """The unit vector at half the angle of (p, q); by roots alone, which are the same on every machine."""
    m = math.sqrt(p * p + q * q)
    if m <= 0.0:
        return 1.0, 0.0
    r, c = math.sqrt(max(0.0, (1 + p / m) / 2)), math.sqrt(max(0.0, (1 - p / m) / 2))
    return (r, c) if q >= 0 else (r, -c)


@inlined
def axis(s: Scatter) -> Frame:
    """Direction of the straight line that fits best."""
    return half_angle(0.5 * (s[0] - s[2]), s[1])


@inlined
def first_quadrant(r: float, c: float) -> Frame:
    while r <= 0.0 or c < 0.0:
        r, c = c, -r
    return r, c


@inlined
def pieces(moment: Float64, n: int, noise: float) -> tuple[float, float, float, float]:
    """Two guesses of the frame: the mean direction of straight pieces, longer ones counting more, modulo 90°; and the
    direction of the longest."""
    p, q, longest, best_r, best_c = 0.0, 0.0, 0.0, 1.0, 0.0
    a = 0
    while a < n:
        b = a + 1
        while b < a + n and thickness(scatter(moment, a, b + 1)) <= noise * (moment[b + 1, 0] - moment[a, 0]):
            b += 1
        r, c = axis(scatter(moment, a, b))
        length = moment[b, 0] - moment[a, 0]
        if length > longest:
            longest, best_r, best_c = length, r, c
        rr, rc = r * r - c * c, 2 * r * c  # twice the angle, and twice again
        p += length * length * (rr * rr - rc * rc)
        q += length * length * 2 * rr * rc
        a = b
    r, c = half_angle(p, q)
    r, c = half_angle(r, c)
    return r, c, best_r, best_c


@inlined
def least_box(place: Float64, n: int) -> Frame:
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
def guess_frames(stations: Stations, n: int, noise: float, out: Float64) -> int:
    """Writes the frames to try; the raster's own, if it is near another, comes first. Returns their number."""
    place, _, moment = stations
    mr, mc, lr, lc = pieces(moment, n, noise)
    br, bc = least_box(place, n)
    out[0, 0], out[0, 1], count = 1.0, 0.0, 1
    near = False
    for each in ((lr, lc), (mr, mc), (br, bc)):
        r, c = first_quadrant(each[0], each[1])
        near |= min(r, c) < UPRIGHT
        new = True
        for k in range(1, count):
            sine, cosine = r * out[k, 1] - c * out[k, 0], r * out[k, 0] + c * out[k, 1]
            new &= min(abs(sine), abs(cosine)) > ALIKE
        if new:
            out[count, 0], out[count, 1] = r, c
            count += 1
    if not near:
        count -= 1
        out[0] = out[count]
    return count


@inlined
def area_moments(place: Float64, n: int) -> tuple[float, float, float, float, float, float]:
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
def roundness(place: Float64, n: int) -> float:
    """Residual about the ellipse of the same moments, to first order (Sampson 1982), by Simpson's rule."""
    _, mr, mc, rr, rc, cc = area_moments(place, n)
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
            r, c = (
                place[i, 0] + t * (place[k, 0] - place[i, 0]) - mr,
                place[i, 1] + t * (place[k, 1] - place[i, 1]) - mc,
            )
            gr, gc = q_rr * r + q_rc * c, q_rc * r + q_cc * c
            level = math.sqrt(max(r * gr + c * gc, 1e-12))
            off = (level - 1) * level / math.sqrt(max(gr * gr + gc * gc, 1e-12))
            weight = 1.0 if step in (0, steps) else (4.0 if step % 2 else 2.0)
            total += weight * off * off * length / (3 * steps)
    return total


@inlined
def far_station(place: Float64, n: int, frame: Frame, turn: int) -> int:
    """The station farthest between both axes, on the side of the frame's ``turn`` 0 or 1: likely a corner."""
    best, at = -np.inf, 0
    for i in range(n):
        u, v = (
            frame[0] * place[i, 0] + frame[1] * place[i, 1],
            frame[0] * place[i, 1] - frame[1] * place[i, 0],
        )
        reach = u + v if turn == 0 else u - v
        if reach > best + 1e-9:
            best, at = reach, i
    return at
