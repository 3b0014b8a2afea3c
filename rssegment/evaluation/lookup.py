"""From label arrays to rows of counts, and refusals of labels that are none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, TaxonomyError
from rssegment.taxonomy import Node, Taxonomy

__all__ = [
    "NODE_LIMIT",
    "LabelPairs",
    "check_labels",
    "places_in_cut",
    "refuse_unknown",
    "rows_of_codes",
    "undecided_code",
]

NODE_LIMIT = 4096  # counts are quadratic in the nodes: 134 MB here
_CHUNK = 1 << 20  # pixels counted at a time

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class LabelPairs:
    """Label arrays of one shape, ``prediction`` and ``reference``, both of codes of ``taxonomy`` at any level, checked.

    Reference pixels of 0 or of a value in ``ignore`` are left out. The prediction may be ``taxonomy.undecided``.

    Raises
    ------
    InputError
        The shapes differ, or the values are no whole numbers from 0 to 65535.
    """

    prediction: Labels
    reference: Labels
    taxonomy: Taxonomy
    ignore: Collection[int] = ()

    def __post_init__(self) -> None:
        if self.prediction.shape != self.reference.shape:
            raise InputError(
                f"the prediction is {self.prediction.shape}, the reference {self.reference.shape}; expected one shape"
            )
        check_labels(self.prediction, "prediction")
        check_labels(self.reference, "reference")

    def expect_shape(self, confidence: NDArray[Any]) -> None:
        """Raises InputError unless ``confidence`` has the labels' shape."""
        if confidence.shape != self.reference.shape:
            raise InputError(
                f"the confidence is {confidence.shape}, the labels {self.reference.shape}; expected one shape"
            )

    @cached_property
    def down(self) -> NDArray[np.uint16]:
        """(65536,): row of each true code; N + 1 where it is left out, N + 2 where it is unknown."""
        return rows_of_codes(self.taxonomy, self.ignore, undecided=False)

    @cached_property
    def across(self) -> NDArray[np.uint16]:
        """(65536,): row of each predicted code; then N undecided, N + 1 no data, N + 2 unknown."""
        return rows_of_codes(self.taxonomy)

    def chunks(self) -> Iterator[tuple[slice, Labels, Labels]]:
        """Place, true and predicted codes of a million pixels at a time, flat and of one unsigned type."""
        true, predicted = self.reference.reshape(-1), self.prediction.reshape(-1)
        dtype = np.uint8 if true.dtype == predicted.dtype == np.uint8 else np.uint16
        for start in range(0, true.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            yield part, _plain(true[part], dtype), _plain(predicted[part], dtype)

    def refuse_unknown_pairs(self, joint: NDArray[np.int64]) -> None:
        """Raises InputError if ``joint`` (N + 3, N + 3) has pixels in rows of unknown codes."""
        unknown = len(self.taxonomy.nodes) + 2
        if joint[-1].any():
            refuse_unknown(self.reference, self.down == unknown, "reference", self.taxonomy)
        if joint[:-2, -1].any():
            labelled = self.prediction[self.down[self.reference] < unknown - 1]
            refuse_unknown(labelled, self.across == unknown, "prediction", self.taxonomy)


def _plain(labels: Labels, dtype: type[np.unsignedinteger[Any]]) -> Labels:
    return np.ascontiguousarray(labels, dtype)


def undecided_code(taxonomy: Taxonomy) -> int | None:
    """The code of pixels left undecided; None where a class has it, so that no map of ``taxonomy`` has such pixels."""
    try:
        return taxonomy.undecided
    except TaxonomyError:
        return None


def check_labels(labels: Labels, what: str) -> None:
    """Raises InputError where ``labels`` can't be codes."""
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


def rows_of_codes(
    taxonomy: Taxonomy, ignore: Collection[int] = (), *, undecided: bool = True
) -> NDArray[np.uint16]:
    """(65536,): row of each code among the N nodes; N undecided; N + 1 no data and what is ignored; N + 2 unknown."""
    nodes = len(taxonomy.nodes)
    table = np.full(65536, nodes + 2, np.uint16)
    code = undecided_code(taxonomy)
    if undecided and code is not None:
        table[code] = nodes
    table[taxonomy.arrays.codes] = np.arange(nodes)
    for value in (0, *ignore):
        if not 0 <= value <= 65535:
            raise InputError(f"the value to ignore is {value}; expected one from 0 to 65535")
        table[value] = nodes + 1
    return table


def places_in_cut(taxonomy: Taxonomy, classes: Sequence[Node]) -> NDArray[np.intp]:
    """(N + 2,): index of the class that each node is or lies under; K for none, for undecided and for no data.

    None of the K ``classes`` lies above another.
    """
    row = {node.code: index for index, node in enumerate(taxonomy.nodes)}
    places = np.full(len(row) + 2, len(classes), np.intp)
    for index, node in enumerate(classes):
        places[:-1][taxonomy.arrays.ancestry[:, row[node.code]]] = index
    return places


def refuse_unknown(labels: Labels, unknown: NDArray[np.bool_], what: str, taxonomy: Taxonomy) -> None:
    """Raises InputError with the values of ``labels`` that ``unknown`` (65536,) marks."""
    values, times = np.unique(labels[unknown[labels]], return_counts=True)
    shown = ", ".join(f"{value} ({count} px)" for value, count in zip(values[:5], times[:5], strict=True))
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""
    cure = "ignore them (ignore=, or --ignore), or use" if what == "reference" else "use"
    raise InputError(
        f"the {what} has values that are no codes of taxonomy {taxonomy.name!r}: {shown}{more}; "
        f"{cure} the taxonomy that it was made with"
    )
