"""Scores that know the tree: a wrong crop is a lesser mistake than a lake.

All are sums over pixels of counts between all nodes. Where the reference is coarse (no leaf), a deeper prediction is
first cut to its ancestor at the reference's level, so that being more specific than the reference is no error.
Undecided counts as the root, and so does a prediction without data: nothing was said.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.evaluation.confusion import Confusion
from rssegment.taxonomy.arrays import TreeArrays

__all__ = ["hierarchy_scores"]


def hierarchy_scores(confusion: Confusion) -> dict[str, float]:
    """Scores by name; NaN where there is nothing to score.

    ``hierarchical_distance``: mean number of edges between predicted and true node. ``mistake_severity``: mean height
    (longest way down to a leaf) of their lowest common ancestor over mistakes; a coarser prediction that contains the
    truth is none. ``hierarchical_precision``, ``_recall`` and ``_f1`` (Kiritchenko et al. 2006): of the sets of a
    node and its ancestors, without the root, common nodes over those predicted, over the true ones, and the harmonic
    mean of both. Over the pixels that have a prediction: ``mean_level``, as predicted (undecided 0), and the parts that
    are ``right`` (the true class, or one that contains it), ``wrong``, and left ``undecided``.
    """
    tree = confusion.taxonomy.arrays
    true, column = np.nonzero(confusion.counts)
    pixels = confusion.counts[true, column].astype(np.float64)
    size = len(tree.codes)
    predicted = np.minimum(column, size)  # no data as the root
    cut = _cut(tree)[true, predicted]
    levels = np.append(tree.levels, 0)
    common = tree.common_levels[true, cut]
    mistaken = (common < levels[cut]) * pixels
    heights = _heights(tree)[tree.ancestors_at(true, common)]
    given = (column <= size) * pixels
    right, claimed, there = common @ pixels, levels[cut] @ pixels, levels[true] @ pixels
    return {
        "hierarchical_distance": _quotient(tree.distances[true, cut] @ pixels, pixels.sum()),
        "mistake_severity": _quotient(heights @ mistaken, mistaken.sum()),
        "hierarchical_precision": _quotient(right, claimed),
        "hierarchical_recall": _quotient(right, there),
        "hierarchical_f1": _quotient(2 * right, claimed + there),
        "mean_level": _quotient(levels[predicted] @ given, given.sum()),
        "right": _quotient((given * (column < size)).sum() - mistaken.sum(), given.sum()),
        "wrong": _quotient(mistaken.sum(), given.sum()),
        "undecided": _quotient(pixels[column == size].sum(), given.sum()),
    }


def _cut(tree: TreeArrays) -> NDArray[np.int32]:
    """(N, N + 1): row of each predicted node, cut to the level of a true node that is no leaf; the root is row N."""
    rows = np.arange(len(tree.codes) + 1)
    limit = tree.levels.copy()
    limit[tree.leaves] = limit.max()
    return tree.ancestors_at(np.broadcast_to(rows, (len(limit), len(rows))), limit[:, None])


def _heights(tree: TreeArrays) -> NDArray[np.int32]:
    """(N + 1,): number of edges from each node down to the deepest leaf under it; the root last."""
    heights = tree.fold([0] * len(tree.leaves), lambda below: 1 + max(below))
    return np.array([*heights, int(tree.levels.max())], np.int32)


def _quotient(above: Any, below: Any) -> float:
    """Of two numbers; NaN where ``below`` is 0."""
    return float(above / below) if below else float("nan")
