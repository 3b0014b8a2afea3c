"""Areas and accuracies of a whole map, estimated from reference pixels in a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.lookup import check_labels, refuse_unknown, rows_of_codes
from rssegment.evaluation.plain import undefined
from rssegment.taxonomy import Node, Taxonomy

__all__ = ["AreaEstimate", "MapAreas", "StratifiedEstimate", "estimate_areas"]

_PER_M2 = 10**9  # areas are summed in whole parts of a square metre, so that sums are exact in any order
_Z = 1.959963984540054  # 95 % of a normal distribution lie within as many standard errors


@dataclass(frozen=True, eq=False)
class MapAreas:
    """How much of a whole map each node covers, with or without reference.

    ``pixels`` (N + 2,) int64: nodes in pre-order, then undecided, then no data. ``area``: their areas as whole
    numbers of 1e-9 m², so that maps of different pixel sizes add up exactly.
    """

    taxonomy: Taxonomy
    pixels: NDArray[np.int64]
    area: tuple[int, ...]

    @classmethod
    def empty(cls, taxonomy: Taxonomy) -> Self:
        """No pixels yet."""
        size = len(taxonomy.nodes) + 2
        return cls(taxonomy, np.zeros(size, np.int64), (0,) * size)

    @classmethod
    def of(
        cls,
        labels: NDArray[np.integer[Any]],
        taxonomy: Taxonomy,
        pixel_m2: float | NDArray[np.floating[Any]],
    ) -> Self:
        """Areas of a label array (H, W) whose pixels have ``pixel_m2`` square metres each, or (H,) in each row.

        Raises
        ------
        InputError
            A value is no code of the taxonomy, or an area is not positive.
        """
        check_labels(labels, "map")
        sizes = np.asarray(pixel_m2, np.float64)
        if sizes.shape not in ((), labels.shape[:1]):
            raise InputError(
                f"the pixels' areas are {sizes.shape}, the map {labels.shape}; expected one, or one for each row"
            )
        if not (np.isfinite(sizes) & (sizes > 0)).all():
            raise InputError("a pixel's area is not a positive number of square metres")
        table, nodes = rows_of_codes(taxonomy), len(taxonomy.nodes)
        if sizes.ndim == 0:
            counts = np.bincount(table[labels.reshape(-1)], minlength=nodes + 3)[None]
        else:
            counts = np.stack([np.bincount(table[row], minlength=nodes + 3) for row in labels])
        if counts[:, -1].any():
            refuse_unknown(labels, table == nodes + 2, "map", taxonomy)
        units = [round(float(size) * _PER_M2) for size in sizes.reshape(-1)]
        area = (counts[:, :-1].astype(object) * np.array(units, object)[:, None]).sum(axis=0)
        return cls(taxonomy, counts[:, :-1].sum(axis=0), tuple(int(value) for value in area))

    def __add__(self, other: MapAreas) -> MapAreas:
        area = tuple(mine + theirs for mine, theirs in zip(self.area, other.area, strict=True))
        return MapAreas(self.taxonomy, self.pixels + other.pixels, area)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MapAreas):
            return NotImplemented
        return (
            self.taxonomy == other.taxonomy
            and self.area == other.area
            and np.array_equal(self.pixels, other.pixels)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def m2(self) -> NDArray[np.float64]:
        """(N + 2,) square metres: nodes, undecided, no data."""
        return np.array([value / _PER_M2 for value in self.area])

    def as_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], taxonomy: Taxonomy) -> Self:
        raise NotImplementedError


@dataclass(frozen=True)
class AreaEstimate:
    """One class: what the map says, and what it should say; half widths are those of 95 % intervals, NaN if unknown."""

    node: Node
    mapped_m2: float
    estimated_m2: float
    half_width_m2: float
    users_accuracy: float
    users_half_width: float
    producers_accuracy: float
    producers_half_width: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is None."""
        numbers = {
            name: undefined(getattr(self, name)) for name in self.__dataclass_fields__ if name != "node"
        }
        return {"code": self.node.code, "path": "/".join(self.node.path), **numbers}


@dataclass(frozen=True)
class StratifiedEstimate:
    """Estimates of all classes, and the overall accuracy with its 95 % half width."""

    classes: tuple[AreaEstimate, ...]
    accuracy: float
    half_width: float
    mapped_m2: float
    unsampled_m2: float


def estimate_areas(confusion: Confusion, areas: MapAreas) -> StratifiedEstimate:
    raise NotImplementedError
