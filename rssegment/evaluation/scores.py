"""Scores of a map, each a line of arithmetic on confusion counts.

Every function takes ``counts`` (K, K + 1) as in :class:`~rssegment.evaluation.confusion.LevelCounts`: n_ij pixels
of true class i and predicted class j, the last column those without prediction. With t_i the sum of row i,
p_j that of column j and N that of all, formulas are those of Everingham et al. 2010 (IoU), Long et al. 2015
(frequency-weighted IoU), Cohen 1960 (kappa), and Pontius and Millones 2011 (disagreements).
A class that is neither true nor predicted anywhere scores NaN, never 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "allocation_disagreement",
    "f1",
    "frequency_weighted_iou",
    "iou",
    "kappa",
    "mean_accuracy",
    "mean_f1",
    "mean_iou",
    "pixel_accuracy",
    "precision",
    "quantity_disagreement",
    "recall",
]

Counts = NDArray[np.int64]
PerClass = NDArray[np.float64]


def pixel_accuracy(counts: Counts) -> float:
    """Part of the labelled pixels that are right: sum n_ii / N."""
    return _ratio(_right(counts).sum(), counts.sum()).item()


def recall(counts: Counts) -> PerClass:
    """(K,) n_ii / t_i, the producer's accuracy; NaN for a class that is true nowhere."""
    return _ratio(_right(counts), _true(counts))


def precision(counts: Counts) -> PerClass:
    """(K,) n_ii / p_i, the user's accuracy; NaN for a class that is predicted nowhere."""
    return _ratio(_right(counts), _predicted(counts))


def iou(counts: Counts) -> PerClass:
    """(K,) n_ii / (t_i + p_i - n_ii), the intersection over the union."""
    return _ratio(_right(counts), _true(counts) + _predicted(counts) - _right(counts))


def f1(counts: Counts) -> PerClass:
    """(K,) 2 n_ii / (t_i + p_i), the harmonic mean of precision and recall (Dice)."""
    return _ratio(2 * _right(counts), _true(counts) + _predicted(counts))


def mean_accuracy(counts: Counts) -> float:
    """Mean recall of the classes that are true somewhere."""
    return _mean(recall(counts))


def mean_iou(counts: Counts) -> float:
    """Mean IoU of the classes that are true or predicted somewhere."""
    return _mean(iou(counts))


def mean_f1(counts: Counts) -> float:
    """Mean F1 of the classes that are true or predicted somewhere."""
    return _mean(f1(counts))


def frequency_weighted_iou(counts: Counts) -> float:
    """Sum of (t_i / N) IoU_i."""
    return _ratio(np.nansum(_true(counts) * iou(counts)), counts.sum()).item()


def kappa(counts: Counts) -> float:
    """(p_o - p_e) / (1 - p_e), with p_o the pixel accuracy and p_e = sum t_i p_i / N^2; NaN if p_e is 1."""
    by_chance = _ratio((_true(counts) / max(1, counts.sum()) * _predicted(counts)).sum(), counts.sum()).item()
    return _ratio(pixel_accuracy(counts) - by_chance, 1 - by_chance).item()


def quantity_disagreement(counts: Counts) -> float:
    """Q = 1/2 sum |t_g - p_g| / N, pixels without prediction being a class that is never true."""
    missing = counts[:, -1].sum()
    return _ratio((np.abs(_true(counts) - _predicted(counts)).sum() + missing) / 2, counts.sum()).item()


def allocation_disagreement(counts: Counts) -> float:
    """(1 - pixel accuracy) - Q: classes right in area and wrong in place."""
    return 1 - pixel_accuracy(counts) - quantity_disagreement(counts)


def _right(counts: Counts) -> Counts:
    return counts.diagonal()


def _true(counts: Counts) -> Counts:
    rows: Counts = counts.sum(axis=1)
    return rows


def _predicted(counts: Counts) -> Counts:
    columns: Counts = counts[:, :-1].sum(axis=0)
    return columns


def _ratio(above: object, below: object) -> PerClass:
    """``above / below``, NaN where ``below`` is 0."""
    divisor = np.asarray(below, np.float64)
    return np.divide(above, divisor, out=np.full(divisor.shape, np.nan), where=divisor != 0)  # type: ignore[call-overload, no-any-return]


def _mean(scores: PerClass) -> float:
    """Mean of those that are not NaN; NaN where all are."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
