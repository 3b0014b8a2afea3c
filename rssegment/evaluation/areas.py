"""Areas and accuracies of a whole map, estimated from reference pixels in a part of it.

The stratified estimators of Olofsson et al. 2014 (Remote Sensing of Environment 148, 42-57, equations 1 to 11): the
strata are the classes as mapped, weighted by their area in the map; the reference pixels in each tell what is there in
truth. Map pixels that are undecided, or coarser than the classes, are a stratum that is right nowhere.

**Intervals take reference pixels as independent draws within each mapped class.** That is true for points that were
sampled so; for dense references, whose neighbours are alike, they are far too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation._count_kernels import PER_M2, SPLIT, sum_areas
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.lookup import check_labels, places_in_cut, refuse_unknown, rows_of_codes
from rssegment.evaluation.plain import difference, entries, undefined, whole
from rssegment.taxonomy import Node, Taxonomy

__all__ = ["AreaEstimate", "MapAreas", "StratifiedEstimate", "estimate_areas"]

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
        columns: NDArray[np.integer[Any]] | None = None,
    ) -> Self:
        """Areas of a label array (H, W) whose pixels have ``pixel_m2`` square metres each, or (H,) in each row.

        With ``columns`` (J,), rising from 0 or before, ``pixel_m2`` (H, J) is of each row's pixels there; in between it
        changes evenly. Pixels may then have an area of 0, where there is no ground.

        Raises
        ------
        InputError
            A value is no code of the taxonomy, or an area is not positive.
        """
        check_labels(labels, "map")
        sizes = np.asarray(pixel_m2, np.float64)
        knots = np.zeros(1, np.int64) if columns is None else np.array(columns, np.int64)
        if sizes.shape not in ({(), labels.shape[:1]} if columns is None else {(len(labels), knots.size)}):
            raise InputError(
                f"the pixels' areas are {sizes.shape}, the map {labels.shape}; expected one, one for each row, or "
                "some in each row with their columns"
            )
        if not (np.isfinite(sizes) & (sizes >= 0 if sizes.ndim == 2 else sizes > 0)).all():
            raise InputError("a pixel's area is not a positive number of square metres")
        if knots[0] > 0 or (np.diff(knots) <= 0).any():
            raise InputError("the columns of pixels' areas don't rise from 0 or before")
        table, sums = rows_of_codes(taxonomy), np.zeros((3, len(taxonomy.nodes) + 3), np.int64)
        plain = np.ascontiguousarray(labels, np.uint8 if labels.dtype == np.uint8 else np.uint16)
        image, rows = (plain.reshape(1, -1) if sizes.ndim == 0 else plain), sizes.reshape(-1, knots.size)
        sum_areas(image, table, knots, np.array(rows, order="C"), sums)
        if sums[0, -1]:
            refuse_unknown(labels, table == len(taxonomy.nodes) + 2, "map", taxonomy)
        area = (SPLIT * int(high) + int(low) for high, low in sums[1:, :-1].T)
        return cls(taxonomy, sums[0, :-1].copy(), tuple(area))

    def __add__(self, other: MapAreas) -> MapAreas:
        if self.taxonomy != other.taxonomy:
            raise InputError(f"areas of {difference(self.taxonomy, other.taxonomy)} can't be added")
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
        return np.array([value / PER_M2 for value in self.area])

    def as_dict(self) -> dict[str, Any]:
        """Plain values: ``areas`` is a list of code (or "undecided", "none"), pixels, units of 1e-9 m²."""
        rows = zip(_names(self.taxonomy), self.pixels.tolist(), self.area, strict=True)
        return {"areas": [list(row) for row in rows if row[1]]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], taxonomy: Taxonomy) -> Self:
        """The areas that :meth:`as_dict` wrote; InputError where ``values`` are not such."""
        row = {name: index for index, name in enumerate(_names(taxonomy))}
        pixels, area = np.zeros(len(row), np.int64), [0] * len(row)
        for name, number, units in entries(values, "areas", 3):
            if name not in row:
                raise InputError(f"areas of {name!r}: no code of taxonomy {taxonomy.name!r}")
            pixels[row[name]] += whole(number, "pixels")
            area[row[name]] += whole(units, "area", None)
        return cls(taxonomy, pixels, tuple(area))


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
    """Estimates for a map's classes, and its overall accuracy with the half width of the 95 % interval.

    ``mapped_m2``: area of the map, without no data; ``open_m2``: the part of it that is undecided or coarser than the
    classes; ``unsampled_m2``: the part mapped as classes without any reference pixel, for which estimates can't speak.
    """

    classes: tuple[AreaEstimate, ...]
    accuracy: float
    half_width: float
    mapped_m2: float
    open_m2: float
    unsampled_m2: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is None."""
        numbers = {
            name: undefined(getattr(self, name)) for name in self.__dataclass_fields__ if name != "classes"
        }
        return {**numbers, "classes": [row.as_dict() for row in self.classes]}


def estimate_areas(confusion: Confusion, areas: MapAreas, classes: Sequence[Node]) -> StratifiedEstimate:
    """What a whole map's areas and accuracies are, by the reference pixels of ``confusion``.

    ``classes`` exclude each other, and the reference is not coarser than they are. Reference pixels where the map has
    no data are left out, as they are no part of it. Half widths are NaN where a class was mapped at one reference pixel
    only: one draw has no variance.
    """
    sample, mapped = _strata(confusion, areas, classes)
    drawn = sample.sum(axis=1)
    sampled = (drawn > 0) & (mapped > 0)
    total = mapped[sampled].sum()
    weights = np.where(sampled, mapped, 0) / total if total else np.full(len(mapped), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # empty strata are NaN until they are taken out
        share = sample / drawn[:, None]
        within = share * (1 - share) / (drawn[:, None] - 1)  # variance of a share, in its stratum
        place = np.arange(len(classes))
        users, users_variance = share[place, place], within[place, place]
        nothing = 0 * weights[:, None]  # NaN where nothing was sampled
        part = np.where(sampled[:, None], weights[:, None] * share, nothing)
        variance = np.where(sampled[:, None], weights[:, None] ** 2 * within, nothing)
        there = part.sum(axis=0)
        right, right_variance = part[place, place], variance[place, place]
        producers = right / there
        others = variance.sum(axis=0) - right_variance
        producers_variance = ((1 - producers) ** 2 * right_variance + producers**2 * others) / there**2
    columns = (
        mapped[:-1],
        there * total,
        _half_width(variance.sum(axis=0)) * total,
        users,
        _half_width(users_variance),
        producers,
        _half_width(producers_variance),
    )
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return StratifiedEstimate(
        tuple(AreaEstimate(*row) for row in rows),
        float(right.sum()),
        float(_half_width(right_variance.sum())),
        float(mapped.sum()),
        float(mapped[-1]),
        float(mapped[~sampled].sum()),
    )


def _strata(
    confusion: Confusion, areas: MapAreas, classes: Sequence[Node]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Reference pixels (K + 1, K), as mapped down, true across, and mapped areas (K + 1,) in m²; last what is open."""
    counts = confusion.counts.copy()
    counts[:, -1] = 0
    sample = replace(confusion, counts=counts).at_cut(classes).counts.T
    places = places_in_cut(areas.taxonomy, classes)[:-1]  # not of no data
    mapped = [0] * (len(classes) + 1)
    for place, area in zip(places.tolist(), areas.area, strict=False):
        mapped[place] += area
    return sample, np.array([value / PER_M2 for value in mapped])


def _half_width(variance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(_Z * np.sqrt(variance))


def _names(taxonomy: Taxonomy) -> list[int | str]:
    return [*(node.code for node in taxonomy.nodes), "undecided", "none"]
