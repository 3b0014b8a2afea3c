"""Quantiles of Student's t distribution."""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["t_quantile"]

_SERIES = 200  # degrees of freedom; above, the expansion is good to nine digits


def t_quantile(probability: float, freedom: int) -> float:
    """The t with P(T <= t) = ``probability`` > 0.5, for whole degrees of freedom from 1.

    By bisection of the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4; for many degrees of freedom by the
    expansion 26.7.5.
    """
    if freedom > _SERIES:
        return _expansion(NormalDist().inv_cdf(probability), freedom)
    inside = 2 * probability - 1  # P(|T| <= t)
    low, high = 0.0, 1.0
    while _inside(high, freedom) < inside:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < inside else (low, middle)
    return high


def _inside(t: float, freedom: int) -> float:
    """P(|T| <= t)."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if freedom == 1:
        total = 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _expansion(z: float, freedom: int) -> float:
    one = (z**3 + z) / 4
    two = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    three = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + one / freedom + two / freedom**2 + three / freedom**3
