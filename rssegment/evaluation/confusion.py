"""Confusion counts: all that a map's scores need to know of its pixels.

Counts are sums over blocks, so they are the same however a map was cut; scores are taken from sums,
never averaged over blocks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.taxonomy import Node, Taxonomy

__all__ = ["Confusion", "LevelCounts"]

_NODE_LIMIT = 4096  # counts are quadratic in the nodes: 134 MB here
_CHUNK = 1 << 20  # pixels counted at a time, 8 bytes each while they are


@dataclass(frozen=True)
class LevelCounts:
    """Confusion counts of the K classes of one level.

    ``counts`` (K, K + 1) int64: true class down, predicted class across; the last column counts pixels for
    which no class of this level was predicted (no data, or a coarser class).
    ``coarser`` counts reference pixels labelled above this level, which it can't score.
    """

    level: int
    classes: tuple[Node, ...]
    counts: NDArray[np.int64]
    coarser: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each node was predicted where each was true; add those of the blocks to get the map's.

    ``counts`` (N, N + 1) int64 over all nodes of the taxonomy in pre-order: true node down, predicted node
    across, no data last. Reference pixels without label are not in it.
    """

    taxonomy: Taxonomy
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, taxonomy: Taxonomy) -> Self:
        """No pixels yet."""
        nodes = len(taxonomy.nodes)
        if nodes > _NODE_LIMIT:
            raise InputError(
                f"taxonomy {taxonomy.name!r} has {nodes} classes; at most {_NODE_LIMIT} can be scored"
            )
        return cls(taxonomy, np.zeros((nodes, nodes + 1), np.int64))

    @classmethod
    def of(
        cls,
        prediction: NDArray[np.integer],
        reference: NDArray[np.integer],
        taxonomy: Taxonomy,
        ignore: Collection[int] = (),
    ) -> Self:
        """Counts of two label arrays of one shape that hold codes of ``taxonomy``, at any level.

        Pixels whose reference is 0 or one of ``ignore`` are left out. Where the reference has a label and the
        prediction is 0, the pixel counts, as a miss.

        Raises
        ------
        InputError
            The shapes differ, the values are not whole numbers, or a value is no code of the taxonomy.
        """
        if prediction.shape != reference.shape:
            raise InputError(
                f"the prediction is {prediction.shape}, the reference {reference.shape}; expected one shape"
            )
        _check_labels(prediction, "prediction")
        _check_labels(reference, "reference")
        empty = cls.empty(taxonomy)
        width = len(taxonomy.nodes) + 2  # nodes, no data, unknown
        across = _index_table(taxonomy, ())
        down = _index_table(taxonomy, ignore)
        joint = _joint_counts(reference, prediction, down * width, across, width * width).reshape(
            width, width
        )
        if joint[-1].any():
            _refuse_unknown(reference, down == width - 1, "reference", taxonomy)
        if joint[:-2, -1].any():
            _refuse_unknown(
                prediction[down[reference] < width - 2], across == width - 1, "prediction", taxonomy
            )
        return cls(taxonomy, empty.counts + joint[:-2, :-1])

    def __add__(self, other: Confusion) -> Confusion:
        if self.taxonomy != other.taxonomy:
            raise InputError(
                f"counts of taxonomies {self.taxonomy.name!r} and {other.taxonomy.name!r} can't be added"
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
        classes = self.taxonomy.level(level)
        last = len(classes)
        index = {node.code: i for i, node in enumerate(classes)}
        lookup = self.taxonomy.ancestor_lookup(level)
        target = np.array([index.get(int(lookup[node.code]), last) for node in self.taxonomy.nodes] + [last])
        folded = np.zeros((last + 1, last + 1), np.int64)
        np.add.at(folded, (target[:-1, None], target[None, :]), self.counts)
        return LevelCounts(level, classes, folded[:-1], int(folded[-1].sum()))


def _check_labels(labels: NDArray[np.integer], what: str) -> None:
    if labels.dtype.kind not in "ui":
        raise InputError(f"the {what} has values of type {labels.dtype}; expected class codes, whole numbers")
    if labels.dtype in (np.uint8, np.uint16) or labels.size == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > 65535:
        raise InputError(
            f"the {what} has values from {low} to {high}; class codes are 1 to 65535, and 0 is no data "
            "(set the raster's nodata value if it has another)"
        )


def _index_table(taxonomy: Taxonomy, ignore: Collection[int]) -> NDArray[np.intp]:
    """(65536,): index of each code among the nodes; then no data and what is ignored; then unknown codes."""
    nodes = len(taxonomy.nodes)
    table = np.full(65536, nodes + 1, np.intp)
    table[[node.code for node in taxonomy.nodes]] = np.arange(nodes)
    for code in (0, *ignore):
        if not 0 <= code <= 65535:
            raise InputError(f"the value to ignore is {code}; expected one from 0 to 65535")
        table[code] = nodes
    return table


def _joint_counts(
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer],
    down: NDArray[np.intp],
    across: NDArray[np.intp],
    size: int,
) -> NDArray[np.int64]:
    """(size,): how often each sum of the two tables' values occurs."""
    total = np.zeros(size, np.int64)
    true, predicted = reference.reshape(-1), prediction.reshape(-1)
    for start in range(0, true.size, _CHUNK):
        joint = down[true[start : start + _CHUNK]]
        joint += across[predicted[start : start + _CHUNK]]
        total += np.bincount(joint, minlength=size)
    return total


def _refuse_unknown(
    labels: NDArray[np.integer], unknown: NDArray[np.bool_], what: str, taxonomy: Taxonomy
) -> None:
    values, times = np.unique(labels[unknown[labels]], return_counts=True)
    shown = ", ".join(f"{value} ({count} px)" for value, count in zip(values[:5], times[:5], strict=True))
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    cure = "pass them as ignore=, or use" if what == "reference" else "use"
    raise InputError(
        f"the {what} has values that are no codes of taxonomy {taxonomy.name!r}: {shown}{more}; "
        f"{cure} the taxonomy that it was made with"
    )
