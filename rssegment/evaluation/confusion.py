"""Confusion counts: all that a map's scores need to know of its pixels.

Counts are sums over blocks, so they are the same however a map was cut; scores are taken from sums,
never averaged over blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation._count_kernels import count_pairs
from rssegment.evaluation.lookup import NODE_LIMIT, LabelPairs, places_in_cut
from rssegment.evaluation.plain import difference, entries, whole
from rssegment.taxonomy import Node, Taxonomy

__all__ = ["Confusion", "LevelCounts"]

_UNDECIDED, _NONE = "undecided", "none"


@dataclass(frozen=True)
class LevelCounts:
    """Confusion counts of K classes that exclude each other: those of a level, or of a cut through the tree (level 0).

    ``counts`` (K, K + 1) int64: true class down, predicted class across; the last column counts pixels for
    which none of the classes was predicted (no data, undecided, or a coarser class).
    ``coarser`` counts reference pixels labelled above these classes (or beside them), which they can't score.
    """

    level: int
    classes: tuple[Node, ...]
    counts: NDArray[np.int64]
    coarser: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each node was predicted where each was true; add those of the blocks to get the map's.

    ``counts`` (N, N + 2) int64 over all nodes of the taxonomy in pre-order: true node down, predicted node
    across, then undecided, then no data. Reference pixels without label are not in it.
    """

    taxonomy: Taxonomy
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, taxonomy: Taxonomy) -> Self:
        """No pixels yet."""
        nodes = len(taxonomy.nodes)
        if nodes > NODE_LIMIT:
            raise InputError(
                f"taxonomy {taxonomy.name!r} has {nodes} classes; at most {NODE_LIMIT} can be scored"
            )
        return cls(taxonomy, np.zeros((nodes, nodes + 2), np.int64))

    @classmethod
    def of(
        cls,
        prediction: NDArray[np.integer[Any]],
        reference: NDArray[np.integer[Any]],
        taxonomy: Taxonomy,
        ignore: Collection[int] = (),
    ) -> Self:
        """Counts of two label arrays of one shape that hold codes of ``taxonomy``, at any level.

        Pixels whose reference is 0 or one of ``ignore`` are left out. Where the reference has a label and the
        prediction is 0, the pixel counts, as a miss. The prediction may be ``taxonomy.undecided``.

        Raises
        ------
        InputError
            The shapes differ, the values are not whole numbers, or a value is no code of the taxonomy.
        """
        return cls.of_pairs(LabelPairs(prediction, reference, taxonomy, ignore))

    @classmethod
    def of_pairs(cls, pairs: LabelPairs) -> Self:
        """As :meth:`of`, of arrays that have been checked."""
        empty = cls.empty(pairs.taxonomy)
        size = len(pairs.taxonomy.nodes) + 3
        joint = np.zeros((size, size), np.int64)
        for _, true, predicted in pairs.chunks():
            count_pairs(true, predicted, pairs.down, pairs.across, joint)
        pairs.refuse_unknown_pairs(joint)
        return cls(pairs.taxonomy, empty.counts + joint[:-3, :-1])

    def __add__(self, other: Confusion) -> Confusion:
        if self.taxonomy != other.taxonomy:
            raise InputError(
                f"counts of {difference(self.taxonomy, other.taxonomy)} can't be added; "
                "score both maps with one taxonomy"
            )
        return Confusion(self.taxonomy, self.counts + other.counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Confusion):
            return NotImplemented
        return self.taxonomy == other.taxonomy and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def pixels(self) -> int:
        """Number of reference pixels with a label."""
        return int(self.counts.sum())

    def at_level(self, level: int) -> LevelCounts:
        """Counts between the classes of ``taxonomy.level(level)``: deeper nodes count as their ancestors there."""
        return self._folded(level, self.taxonomy.level(level))

    def at_cut(self, nodes: Sequence[Node | int | str]) -> LevelCounts:
        """Counts between ``nodes``, none of which lies above another: deeper nodes count as theirs.

        Raises
        ------
        InputError
            One of the nodes lies above another, or is given twice.
        """
        classes = tuple(self.taxonomy.node(node) for node in nodes)
        for index, node in enumerate(classes):
            for other in classes[:index]:
                shorter = min(node.path, other.path, key=len)
                if node.path[: len(shorter)] == other.path[: len(shorter)]:
                    raise InputError(
                        f"{'/'.join(other.path)} and {'/'.join(node.path)} can't be classes side by side: "
                        "one is, or lies above, the other; leave one out"
                    )
        return self._folded(0, classes)

    def common_cut(self) -> tuple[Node, ...]:
        """The deepest classes that the reference tells apart: leaves, but where it has labels above them, those.

        So a reference of fewer classes is met at its own, and a class that just isn't there stays what it is.
        """
        tree = self.taxonomy.arrays
        chosen: NDArray[np.bool_] = self.counts.sum(axis=1) > 0
        chosen[tree.leaves] = True
        taken = np.zeros(chosen.size + 1, np.bool_)  # the root, last, is none
        topmost = []
        for row, node in enumerate(self.taxonomy.nodes):  # pre-order: the parent comes first
            above = taken[tree.parents[row]]
            taken[row] = above or chosen[row]
            if chosen[row] and not above:
                topmost.append(node)
        return tuple(topmost)

    def _folded(self, level: int, classes: tuple[Node, ...]) -> LevelCounts:
        last = len(classes)
        target = places_in_cut(self.taxonomy, classes)
        folded = np.zeros((last + 1, last + 1), np.int64)
        true, predicted = np.nonzero(self.counts)
        np.add.at(folded, (target[true], target[predicted]), self.counts[true, predicted])
        return LevelCounts(level, classes, folded[:-1], int(folded[-1].sum()))

    def as_dict(self) -> dict[str, Any]:
        """Plain values: ``counts`` is a list of true code, predicted code (or "undecided", "none"), pixels."""
        codes = [node.code for node in self.taxonomy.nodes]
        names = [*codes, _UNDECIDED, _NONE]
        places = zip(*np.nonzero(self.counts), strict=True)
        return {"counts": [[codes[i], names[j], int(self.counts[i, j])] for i, j in places]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], taxonomy: Taxonomy) -> Self:
        """The counts that :meth:`as_dict` wrote; InputError where ``values`` are not such."""
        result = cls.empty(taxonomy)
        down = {node.code: index for index, node in enumerate(taxonomy.nodes)}
        across: dict[Any, int] = {**down, _UNDECIDED: len(down), _NONE: len(down) + 1}
        for true, predicted, pixels in entries(values, "counts", 3):
            if true not in down or predicted not in across:
                raise InputError(
                    f"counts of true {true!r}, predicted {predicted!r}: no codes of taxonomy {taxonomy.name!r}"
                )
            result.counts[down[true], across[predicted]] += whole(pixels, "pixels")
        return result
