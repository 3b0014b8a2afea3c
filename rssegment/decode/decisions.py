"""Decisions on blended probabilities, taken once a pixel's patches have all been averaged.

Every function works pixel by pixel in a fixed order of channels and nodes, so its result never depends on how a scene
was cut or on how an array lies in memory, down to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rssegment.decode._layout import Tree, check_channels, pixels_of
from rssegment.decode.rules import Backoff, Leaf, Level, Rule
from rssegment.errors import InputError, ModelError, SettingsError
from rssegment.taxonomy import Taxonomy

__all__ = ["Decision", "decide"]


class Decision(NamedTuple):
    """What was decided for pixels (H, W).

    ``codes`` uint16: of the decided nodes, 0 no data, ``taxonomy.undecided`` where left open. ``confidence`` float32:
    their probability, 1 where left open. ``margin`` float32: its lead over the next, 0 at least. ``levels``, float32
    each: for each level asked for, the probability of the decided node's ancestor there; of the node itself if it lies
    above; 1 where left open.
    """

    codes: NDArray[np.uint16]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    levels: tuple[NDArray[np.float32], ...] = ()


def decide(
    probabilities: NDArray[np.float32],
    taxonomy: Taxonomy,
    rule: Rule,
    valid: NDArray[np.bool_] | None = None,
    levels: Sequence[int] = (),
) -> Decision:
    """The node that ``rule`` chooses for each pixel of leaf ``probabilities`` (L, H, W) float32.

    Channels are in the order of ``taxonomy.leaves``. Where ``valid`` (H, W) is false, all that is decided is 0.
    ``levels``: those whose probabilities are wanted too. The margin is the lead over the most probable other node of
    the same cut (leaf, level), sibling (back-off) or leaf that is not under the decided node (cost); of 0, if there is
    none.

    Raises
    ------
    ModelError
        The channels are not the taxonomy's leaves, or a valid pixel has NaN.
    SettingsError
        The rule or a level is not for this taxonomy.
    """
    from rssegment.decode import _kernels  # compiled when first imported

    check_channels(probabilities, taxonomy)
    rule.check(taxonomy)
    shape = probabilities.shape[1:]
    known = _mask(valid, shape)
    tree, choice = Tree.of(taxonomy), _choice(rule, taxonomy)
    up = _up(levels, taxonomy)
    codes = np.append(taxonomy.arrays.codes, choice.undecided).astype(np.uint16)
    labels, values = np.empty(known.size, np.uint16), np.empty((2 + len(up), known.size), np.float32)
    missing = 0
    for source, layout in pixels_of(probabilities, len(codes)):
        missing += _kernels.decide(
            source,
            layout,
            *(tree.leaves, tree.first, tree.children, tree.levels, tree.spans),
            choice.kind,
            choice.members,
            np.float32(choice.tau),
            choice.matrix,
            known,
            codes,
            up,
            labels,
            values,
        )
    if missing:
        raise ModelError(
            f"the model gave NaN for {missing} of {known.size} pixels; no class can be decided there"
        )
    confidence, margin, *at_levels = values.reshape(len(values), *shape)
    return Decision(labels.reshape(shape), confidence, margin, tuple(at_levels))


def _mask(valid: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(pixels,), a copy that kernels may be given."""
    if valid is None:
        return np.ones(shape, bool).ravel()
    if valid.shape != shape:
        raise InputError(f"valid has shape {valid.shape}; expected {shape}, as the probabilities have")
    return np.array(valid, bool, order="C").ravel()


@dataclass(frozen=True, eq=False)
class _Choice:
    """A rule as kernels take it; ``undecided`` is the root's code, 0 where it is never decided."""

    kind: int
    members: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    tau: float = 0.0
    matrix: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    undecided: int = 0


def _choice(rule: Rule, taxonomy: Taxonomy) -> _Choice:
    from rssegment.decode._kernels import BACKOFF, COSTS, DISTANCES, MEMBERS

    undecided = taxonomy.undecided if rule.may_stay_open(taxonomy) else 0
    if isinstance(rule, Leaf):
        return _Choice(MEMBERS, taxonomy.arrays.leaves.copy())
    if isinstance(rule, Level):
        cut = {node.code for node in taxonomy.level(rule.k)}
        rows = [row for row, node in enumerate(taxonomy.nodes) if node.code in cut]
        return _Choice(MEMBERS, np.array(rows, np.int32))
    if isinstance(rule, Backoff):
        tau = rule.tau if rule.tau > 0 else -np.inf
        return _Choice(BACKOFF, tau=tau, undecided=undecided)
    if rule.matrix is None:
        return _Choice(DISTANCES)
    return _Choice(COSTS, rule.rows(taxonomy), matrix=rule.matrix.copy(), undecided=undecided)


def _up(levels: Sequence[int], taxonomy: Taxonomy) -> NDArray[np.int32]:
    """(K, N + 1): the rows' ancestors at each of ``levels``."""
    for level in levels:
        if not 1 <= level <= taxonomy.depth:
            raise SettingsError(
                f"level {level} was asked for; taxonomy {taxonomy.name!r} has levels 1 to {taxonomy.depth}"
            )
    tree, rows = taxonomy.arrays, np.arange(len(taxonomy.nodes) + 1)
    found = [tree.ancestors_at(rows, level) for level in levels]
    return np.array(found, np.int32).reshape(len(found), len(rows))
