"""How well a map's boundaries lie on the reference's: Boundary IoU and boundary F1, at a tolerance on the ground.

Both are sums over pixels, so blocks add up to the whole exactly, if each sees :func:`margin_px` beyond its core.

*Boundary IoU* (Cheng, Girshick, Dollár, Berg and Kirillov, CVPR 2021): the IoU of two bands. A class's band in a map is
those of its pixels that have a pixel of another class of that map within the tolerance.

*Boundary F1* (Csurka, Larlus and Perronnin, BMVC 2013): a class's boundary pixels are those with another class beside
them, up, down, left or right. Precision is the share of the map's that have one of the reference's, of the same
class, within the tolerance; recall is the same the other way round.

Distances go from pixel centre to pixel centre, Euclidean, in metres, so pixels may be oblong. What has no label is not
another class: no data makes no boundary, and where the reference has no label, neither map is looked at. The scene's
edge makes none either. (The first paper's code lets an object end at the image's border, so that the border is a
boundary there, and it grows bands by squares of 3 x 3 pixels, to 2 % of the image's diagonal.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation import _boundary_kernels as kernels
from rssegment.evaluation.plain import field, number, whole, wholes
from rssegment.grid import Box

__all__ = ["BoundaryCounts", "margin_px"]

# In UTM and in national grids, ground sizes of pixels differ from those in the CRS's units by up to this share; whoever
# asks for 1 m where pixels have 0.2 m means 5 of them.
_SLACK = 1.001
_REACH_LIMIT = 16384  # px

Codes = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]
PerClass = NDArray[np.float64]


def margin_px(tolerance: float, cell: tuple[float, float]) -> int:
    """How many pixels beyond a core decide its counts, for ``tolerance`` metres and pixels of ``cell`` (dy, dx) metres.

    Raises
    ------
    InputError
        The tolerance is less than a pixel, or no number of metres.
    """
    reach = _reach(tolerance, cell)
    return (
        max(len(reach) - 1, int(reach[0])) + 1
    )  # a pixel that far is a boundary pixel by its own neighbours


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Counts of pixels by class at one level; add those of blocks and scenes.

    ``classes`` are the K codes; ``tolerance`` is in metres. All arrays are (K,) int64: pixels in the bands of the
    reference, of the map and of both; boundary pixels of the reference, and those ``found`` by the map; boundary pixels
    of the map, and those that are ``right``. A class without band or boundary pixels scores NaN.
    """

    level: int
    classes: tuple[int, ...]
    tolerance: float
    true_band: Counts
    predicted_band: Counts
    common_band: Counts
    true_edge: Counts
    found_edge: Counts
    predicted_edge: Counts
    right_edge: Counts

    @classmethod
    def empty(cls, level: int, classes: Sequence[int], tolerance: float) -> Self:
        """No pixels yet."""
        _check_tolerance(tolerance)
        return cls(
            level, tuple(classes), float(tolerance), *(np.zeros(len(classes), np.int64) for _ in _ARRAYS)
        )

    @classmethod
    def of(
        cls,
        prediction: Codes,
        reference: Codes,
        core: Box,
        cell: tuple[float, float],
        tolerance: float,
        *,
        level: int,
        classes: Sequence[int],
    ) -> Self:
        """Counts of the pixels of ``core``, from two arrays of one shape that hold codes of ``classes``.

        Other codes are no label in the reference, as 0 is. In the prediction they are pixels that have data and none of
        these classes, as where the map is undecided or coarser: classes end there. The arrays reach :func:`margin_px`
        beyond ``core``, or to the scene's edge.
        ``cell`` is the ground size in metres of a pixel, (down, across).

        Raises
        ------
        InputError
            The shapes differ, the core lies outside, or the tolerance is less than a pixel.
        """
        if prediction.ndim != 2 or prediction.shape != reference.shape:
            raise InputError(
                f"the prediction is {prediction.shape}, the reference {reference.shape}; "
                "expected one shape, (rows, columns)"
            )
        if core.clip(Box.of((prediction.shape[0], prediction.shape[1]))) != core:
            raise InputError(f"{core} does not lie within arrays of {prediction.shape}")
        reach = _reach(tolerance, cell)
        true = _indices(reference, classes)
        predicted = _indices(prediction, classes)
        np.copyto(predicted, len(classes) + 1, where=(predicted == 0) & (prediction != 0))
        np.copyto(predicted, 0, where=true == 0)
        bands = _count_bands(predicted, true, core, reach, len(classes))
        edges = _count_edges(predicted, true, core, reach, len(classes))
        return cls(level, tuple(classes), float(tolerance), *bands, *edges)

    def __add__(self, other: BoundaryCounts) -> Self:
        for what in ("level", "classes", "tolerance"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise InputError(
                    f"boundary counts of {what} {mine} and {theirs} can't be added; expected the same"
                )
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in _ARRAYS})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoundaryCounts) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def iou(self) -> PerClass:
        """(K,) Boundary IoU: common / (true + predicted - common)."""
        return _ratio(self.common_band, self.true_band + self.predicted_band - self.common_band)

    @property
    def precision(self) -> PerClass:
        """(K,) share of the map's boundary pixels that are right."""
        return _ratio(self.right_edge, self.predicted_edge)

    @property
    def recall(self) -> PerClass:
        """(K,) share of the reference's boundary pixels that were found."""
        return _ratio(self.found_edge, self.true_edge)

    @property
    def f1(self) -> PerClass:
        """(K,) harmonic mean of precision and recall; 0 where one side has no boundary, NaN where neither has."""
        precision, recall = np.nan_to_num(self.precision), np.nan_to_num(self.recall)
        f1 = _ratio(2 * precision * recall, precision + recall)
        present = (self.true_edge + self.predicted_edge) > 0
        return np.where(present, np.nan_to_num(f1), np.nan)

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that have a band in either map; NaN where none has."""
        return _mean(self.iou)

    @property
    def mean_f1(self) -> float:
        """Mean over the classes that have boundary pixels in either map; NaN where none has."""
        return _mean(self.f1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {"level": self.level, "classes": list(self.classes), "tolerance": self.tolerance}
        return plain | {name: getattr(self, name).tolist() for name in _ARRAYS}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave.

        Raises
        ------
        InputError
            It is something else.
        """
        classes = tuple(wholes(plain, "classes").tolist())
        tolerance = number(plain, "tolerance", "a number of metres")
        _check_tolerance(tolerance)
        if len(set(classes)) != len(classes):
            raise InputError(f"'classes' are {list(classes)}; expected each code once")
        arrays = (wholes(plain, name, len(classes)) for name in _ARRAYS)
        counts = cls(whole(field(plain, "level"), "level"), classes, float(tolerance), *arrays)
        for part, total in _PARTS:
            if (getattr(counts, part) > getattr(counts, total)).any():
                raise InputError(f"{part!r} has more pixels than {total!r}; expected some of them")
        return counts

    def renamed(self, level: int, classes: Sequence[int], codes: Mapping[int, int]) -> Self:
        """The same counts at another level whose classes are those of this one under other codes.

        ``codes``: of each class here that has pixels, its code among ``classes``.
        """
        places = {code: index for index, code in enumerate(classes)}
        into = [places[code] for code in codes.values()]
        out_of = [self.classes.index(code) for code in codes]
        arrays: dict[str, Any] = {name: np.zeros(len(classes), np.int64) for name in _ARRAYS}
        for name, array in arrays.items():
            array[into] = getattr(self, name)[out_of]
        return replace(self, level=level, classes=tuple(classes), **arrays)


_PARTS = (
    ("common_band", "true_band"),
    ("common_band", "predicted_band"),
    ("found_edge", "true_edge"),
    ("right_edge", "predicted_edge"),
)
_ARRAYS = tuple(f.name for f in fields(BoundaryCounts) if f.name.endswith(("_band", "_edge")))


def _check_tolerance(tolerance: float) -> None:
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"the boundary tolerance is {tolerance} m; expected more than 0, at least a pixel")


def _reach(tolerance: float, cell: tuple[float, float]) -> Counts:
    """(V + 1,) int64: how many columns away a pixel may lie that is 0 to V rows away, to be within the tolerance."""
    _check_tolerance(tolerance)
    down, across = cell
    if not (math.isfinite(down) and math.isfinite(across) and down > 0 and across > 0):
        raise InputError(f"pixels are {down} m x {across} m; expected sizes above 0")
    limit = tolerance * _SLACK
    if limit < max(down, across):
        raise InputError(
            f"the boundary tolerance is {tolerance:g} m, less than a pixel of {down:g} m x {across:g} m, so that "
            f"not even neighbours lie that near each other; give at least {max(down, across):g} m"
        )
    if limit > _REACH_LIMIT * min(down, across):
        raise InputError(
            f"the boundary tolerance is {tolerance:g} m, more than {_REACH_LIMIT} pixels of {down:g} m x {across:g} m; "
            "is it in metres?"
        )
    squares = (np.arange(int(limit / across) + 2) * across) ** 2
    rows = np.arange(int(limit / down) + 2) * down
    return np.searchsorted(squares, limit**2 - rows[rows <= limit] ** 2, side="right") - 1


def _indices(codes: Codes, classes: Sequence[int]) -> NDArray[np.uint16]:
    """1 to K for the classes, 0 for all else; a new array."""
    if codes.dtype.kind not in "ui":
        raise InputError(f"labels have values of type {codes.dtype}; expected class codes, whole numbers")
    table = np.zeros(65536, np.uint16)
    table[list(classes)] = np.arange(1, len(classes) + 1)
    if codes.dtype not in (np.uint8, np.uint16):
        codes = np.where((codes >= 0) & (codes <= 65535), codes, 0)
    return np.ascontiguousarray(table[codes])


def _count_bands(
    predicted: NDArray[np.uint16], true: NDArray[np.uint16], core: Box, reach: Counts, classes: int
) -> tuple[Counts, Counts, Counts]:
    """Pixels of the core by class in the bands of the reference, of the map, of both."""
    in_true, in_predicted = (_near(labels, core, reach) for labels in (true, predicted))
    true, predicted = true[core.slices], predicted[core.slices]
    both = in_true & in_predicted & (true == predicted)
    counted = ((true, in_true), (predicted, in_predicted), (true, both))
    first, second, third = (
        np.bincount(labels[band], minlength=classes + 2)[1 : classes + 1] for labels, band in counted
    )
    return first, second, third


def _near(labels: NDArray[np.uint16], core: Box, reach: Counts) -> NDArray[np.bool_]:
    """(h, w) of the core: has the pixel one of another class within the tolerance?"""
    up, down = np.empty(labels.shape, np.int32), np.empty(labels.shape, np.int32)
    near = np.zeros(labels.shape, np.uint8)
    if labels.size:
        kernels.measure_columns(labels, up, -1)
        kernels.measure_columns(labels, down, 1)
        kernels.find_near(labels, up, down, reach, core.row, core.stop_row, near)
    return near[core.slices].view(np.bool_)


def _count_edges(
    predicted: NDArray[np.uint16], true: NDArray[np.uint16], core: Box, reach: Counts, classes: int
) -> tuple[Counts, Counts, Counts, Counts]:
    """Boundary pixels of the core by class: of the reference and those found, of the map and those right."""
    mine, theirs = _sites(true, classes + 1), _sites(predicted, classes + 1)
    window = np.array([core.row, core.col, core.stop_row, core.stop_col], np.int64)
    found, right = (np.zeros((classes + 1, 2), np.int64) for _ in range(2))
    kernels.match_sites(*mine, *theirs, reach, window, found)
    kernels.match_sites(*theirs, *mine, reach, window, right)
    found, right = found[:classes], right[:classes]
    return found[:, 0].copy(), found[:, 1].copy(), right[:, 0].copy(), right[:, 1].copy()


def _sites(labels: NDArray[np.uint16], classes: int) -> tuple[Counts, NDArray[np.int32]]:
    """Columns of all boundary pixels by row and class; see ``list_sites``."""
    boundary = np.zeros(labels.shape, np.uint8)
    kernels.find_boundary(labels, boundary)
    starts = np.zeros((labels.shape[0], classes + 1), np.int64)
    cols = np.empty(int(np.count_nonzero(boundary)), np.int32)
    kernels.list_sites(labels, boundary, starts, cols)
    return starts, cols


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> PerClass:
    """``above / below``, NaN where ``below`` is 0."""
    scores: PerClass = np.full(len(below), np.nan)
    np.divide(above, below, out=scores, where=below != 0)
    return scores


def _mean(scores: PerClass) -> float:
    """Mean of those that are not NaN; NaN where all are."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
