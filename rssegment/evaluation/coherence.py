"""Whether the label rasters of a run's levels tell one story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation.lookup import check_labels, refuse_unknown, rows_of_codes, undecided_code
from rssegment.evaluation.plain import field, whole
from rssegment.taxonomy import Taxonomy

__all__ = ["Coherence"]


@dataclass(frozen=True)
class Coherence:
    """Numbers of pixels checked, and of those whose class at some level is not the ancestor of the decided one."""

    pixels: int = 0
    incoherent: int = 0

    @classmethod
    def of(
        cls,
        levels: Mapping[int, NDArray[np.integer[Any]]],
        labels: NDArray[np.integer[Any]],
        taxonomy: Taxonomy,
    ) -> Self:
        """Compares the label rasters of ``levels`` with ``labels``, the decided nodes; all of one shape.

        At each level a pixel must have the decided node's ancestor there, or that node where it is above;
        undecided stays undecided, and no data no data. Pixels without data in all of them are not counted.

        Raises
        ------
        InputError
            The shapes differ, or a value is no code of the taxonomy.
        """
        check_labels(labels, "label raster")
        known = rows_of_codes(taxonomy) < len(taxonomy.nodes) + 2
        present = labels != 0
        wrong = np.zeros(labels.shape, bool)
        for level, found in levels.items():
            expected = _lookup(taxonomy, level)
            what = f"label raster of level {level}"
            check_labels(found, what)
            if found.shape != labels.shape:
                raise InputError(
                    f"the {what} is {found.shape}, the labels {labels.shape}; expected one shape"
                )
            for array, name in ((labels, "label raster"), (found, what)):
                if not known[array].all():
                    refuse_unknown(array, ~known, name, taxonomy)
            present |= found != 0
            wrong |= expected[labels] != found
        return cls(int(present.sum()), int(wrong.sum()))

    def __add__(self, other: Coherence) -> Coherence:
        return Coherence(self.pixels + other.pixels, self.incoherent + other.incoherent)

    @property
    def rate(self) -> float:
        """Part of the pixels that are incoherent; NaN where none was checked."""
        return self.incoherent / self.pixels if self.pixels else float("nan")

    def as_dict(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "incoherent": self.incoherent}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The counts that :meth:`as_dict` wrote; InputError where ``values`` are not such."""
        found = cls(*(whole(field(values, key), key) for key in ("pixels", "incoherent")))
        if found.incoherent > found.pixels:
            raise InputError(
                f"{found.incoherent} of {found.pixels} pixels are incoherent; expected at most all"
            )
        return found


def _lookup(taxonomy: Taxonomy, level: int) -> NDArray[np.uint16]:
    """(65536,): code at ``level`` of each decided code; undecided stays."""
    lookup = taxonomy.ancestor_lookup(level)
    if (code := undecided_code(taxonomy)) is not None:
        lookup[code] = code
    return lookup
