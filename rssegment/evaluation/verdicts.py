"""When a decision is right: it lies on one path with the truth, as far down as both go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rssegment.evaluation._count_kernels import LEFT_OUT
from rssegment.taxonomy import Taxonomy

__all__ = ["claims_at", "right_to"]


def right_to(taxonomy: Taxonomy) -> NDArray[np.uint8]:
    """(N, N + 1): deepest level at which the ancestor of a predicted node (or itself) is right; true node down.

    That is the level of the lowest common ancestor; or the predicted node's own where it lies under the true node,
    since a truth that is coarse does not say that its details are wrong. Undecided, last, is right at level 0.
    """
    tree = taxonomy.arrays
    levels = np.append(tree.levels, 0)
    below = tree.ancestry[:, :-1].T  # true node down: does the predicted one lie under it?
    return np.where(below, levels[None, :], tree.common_levels[:-1]).astype(np.uint8)


def claims_at(taxonomy: Taxonomy, level: int) -> NDArray[np.uint8]:
    """(N + 3, N + 3): 1 where the predicted node's ancestor at ``level`` is right, 0 where wrong, else left out.

    Level 0 means the predicted node itself. Left out: pixels without prediction, those left undecided (which claim
    nothing), and at a level those whose truth is coarser than it.
    """
    tree, size = taxonomy.arrays, len(taxonomy.nodes)
    table = np.full((size + 3, size + 3), LEFT_OUT, np.uint8)
    claimed = np.minimum(tree.levels, level) if level else tree.levels
    table[:size, :size] = claimed[None, :] <= right_to(taxonomy)[:, :-1]
    if level:
        leaf = np.zeros(size, bool)
        leaf[tree.leaves] = True
        table[:size][(tree.levels < level) & ~leaf] = LEFT_OUT
    return table
