"""Polygons as objects: which of a map's are those of the reference, and how well they lie on them.

A map's polygon and the reference's are the same object if they have the same class and an IoU, intersection over union
of their areas, of at least a threshold. Each is matched once, the best overlap first. From 0.5 on, polygons of one file
that do not overlap can have one partner only, so the order decides nothing; polygons that do overlap (detections drawn
twice, say) are told apart by it, and equal overlaps by where the polygons lie, never by their order in the file.

Panoptic quality is the sum of the matches' IoU over (matched + half of the unmatched of both sides): Kirillov, He,
Girshick, Rother and Dollár, CVPR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import GEOSException

from rssegment.errors import InputError
from rssegment.evaluation.plain import number, texts, wholes

__all__ = ["ObjectCounts", "ObjectScores", "Objects", "match"]

_ONE = 1 << 32  # an IoU of 1; sums of whole numbers are the same in any order
_CHUNK = 1 << 16  # pairs whose intersections are held at a time

Ints = NDArray[np.int64]
Geometries = NDArray[np.object_]


class Objects(NamedTuple):
    """Polygons and multipolygons (n,) in planar coordinates, and the code of each one's class (n,)."""

    geometries: Any
    codes: Any


@dataclass(frozen=True, slots=True)
class ObjectScores:
    """One class: numbers of polygons, and scores from 0 to 1, NaN where there is nothing to score."""

    code: int
    true: int
    predicted: int
    matched: int
    precision: float
    recall: float
    f1: float
    mean_iou: float  # of the matches
    panoptic_quality: float


@dataclass(frozen=True, eq=False)
class ObjectCounts:
    """Numbers of polygons of the K ``classes`` (codes); add those of scenes.

    (K,) int64: ``true`` of the reference, ``predicted`` of the map, ``matched`` of both, and ``overlap``, the sum of
    the matches' IoU in units of 2**-32. ``remarks`` say what was mended or left out.
    """

    threshold: float
    classes: tuple[int, ...]
    remarks: tuple[str, ...]
    true: Ints
    predicted: Ints
    matched: Ints
    overlap: Ints

    @classmethod
    def empty(cls, classes: Collection[int] = (), threshold: float = 0.5) -> Self:
        """No polygons yet."""
        _check_threshold(threshold)
        codes = tuple(sorted(set(map(int, classes))))
        return cls(float(threshold), codes, (), *(np.zeros(len(codes), np.int64) for _ in _COUNTS))

    def __add__(self, other: ObjectCounts) -> Self:
        """Of the classes of either."""
        if self.threshold != other.threshold:
            raise InputError(
                f"polygons matched at IoU {self.threshold:g} and at {other.threshold:g} can't be added; "
                "match both at the same"
            )
        classes = tuple(sorted({*self.classes, *other.classes}))
        sums = [np.zeros(len(classes), np.int64) for _ in _COUNTS]
        for counts in (self, other):
            places = np.searchsorted(classes, counts.classes).astype(np.intp)
            for total, name in zip(sums, _COUNTS, strict=True):
                total[places] += getattr(counts, name)
        remarks = dict.fromkeys((*self.remarks, *other.remarks))
        return type(self)(self.threshold, classes, tuple(remarks), *sums)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectCounts) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    def rows(self) -> tuple[ObjectScores, ...]:
        """The scores of each class, in the order of :attr:`classes`."""
        columns = (getattr(self, name).tolist() for name in _COUNTS)
        return tuple(_scores(*row) for row in zip(self.classes, *columns, strict=True))

    @property
    def total(self) -> ObjectScores:
        """The scores of all polygons together, whatever their class; its code is 0."""
        return _scores(0, *(int(getattr(self, name).sum()) for name in _COUNTS))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {name: getattr(self, name).tolist() for name in _COUNTS}
        return {
            "threshold": self.threshold,
            "classes": list(self.classes),
            **counts,
            "remarks": list(self.remarks),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave.

        Raises
        ------
        InputError
            It is something else.
        """
        classes = tuple(wholes(plain, "classes").tolist())
        threshold, remarks = number(plain, "threshold", "an IoU"), texts(plain, "remarks", "sentences")
        if sorted(set(classes)) != list(classes):
            raise InputError(f"'classes' are {classes}; expected ascending codes")
        _check_threshold(threshold)
        arrays = (wholes(plain, name, len(classes)) for name in _COUNTS)
        counts = cls(float(threshold), classes, remarks, *arrays)
        counts._check()
        return counts

    def _check(self) -> None:
        """Refuses numbers that no polygons have."""
        least = round(self.threshold * _ONE)
        for code, true, predicted, matched, overlap in zip(
            self.classes, *(getattr(self, name).tolist() for name in _COUNTS), strict=True
        ):
            if matched > min(true, predicted):
                raise InputError(
                    f"{matched} objects of class {code} are matched, of {true} and {predicted}; expected no more than "
                    "there are"
                )
            if not matched * least <= overlap <= matched * _ONE:
                raise InputError(
                    f"the overlap of {matched} matched objects of class {code} is {overlap / _ONE:g}; expected an IoU "
                    f"of {self.threshold:g} to 1 for each"
                )


_COUNTS = ("true", "predicted", "matched", "overlap")


def match(
    predicted: Objects | tuple[Any, Any],
    true: Objects | tuple[Any, Any],
    *,
    classes: Collection[int],
    threshold: float = 0.5,
    within: shapely.Geometry | None = None,
    scene: str = "",
) -> ObjectCounts:
    """Counts of a map's polygons, of the reference's, and of those that are the same, for the codes in ``classes``.

    Both sides are in one planar CRS (areas in degrees would not be areas) and have codes of one level; polygons of
    other codes are left out. Invalid ones are made valid; what has no area is left out; ``remarks`` say so, naming
    ``scene``.

    ``within`` is the area that was labelled. Whole polygons are matched; then a true one counts if a point on it
    (``shapely.point_on_surface``) lies in the area; one of the map, if its partner counts, or if it has none and its
    own point lies there. So what the map shows beyond the labels is no error, a polygon that the area's edge cuts is
    judged whole, and the counts of adjoining areas add up to those of their union.

    Raises
    ------
    InputError
        The threshold is not in (0, 1], geometries and codes differ in number, or they are something else.
    """
    counts = ObjectCounts.empty(classes, threshold)
    remarks: list[str] = []
    predicted = _clean(predicted, counts.classes, "polygons of the map", remarks)
    true = _clean(true, counts.classes, "polygons of the reference", remarks)
    try:
        pairs = np.array([*_assign(predicted, true, threshold)], np.int64).reshape(-1, 3)
        partners = np.full(len(predicted.codes), -1)
        partners[pairs[:, 0]] = pairs[:, 1]
        counted = _inside(true.geometries, within)
        alone = partners < 0
        shown = np.append(counted, False)[partners]
        shown[alone] = _inside(predicted.geometries[alone], within)
    except GEOSException as error:
        raise InputError(f"{scene or 'the polygons'}: their areas can't be compared: {error}") from error
    pairs = pairs[counted[pairs[:, 1]]]
    matched = true.codes[pairs[:, 1]]
    counts.true[:] = _tally(counts.classes, true.codes[counted])
    counts.predicted[:] = _tally(counts.classes, predicted.codes[shown])
    counts.matched[:] = _tally(counts.classes, matched)
    np.add.at(counts.overlap, np.searchsorted(counts.classes, matched), pairs[:, 2])
    begin = f"{scene}: " if scene else ""
    return replace(counts, remarks=tuple(begin + remark for remark in remarks))


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise InputError(f"the IoU from which polygons match is {threshold}; expected more than 0, up to 1")


def _scores(code: int, true: int, predicted: int, matched: int, overlap: int) -> ObjectScores:
    def ratio(above: float, below: float) -> float:
        return above / below if below else math.nan

    return ObjectScores(
        code,
        true,
        predicted,
        matched,
        precision=ratio(matched, predicted),
        recall=ratio(matched, true),
        f1=ratio(2 * matched, true + predicted),
        mean_iou=ratio(overlap / _ONE, matched),
        panoptic_quality=ratio(2 * overlap / _ONE, true + predicted),
    )


def _tally(classes: tuple[int, ...], codes: Ints) -> Ints:
    return np.bincount(np.searchsorted(classes, codes), minlength=len(classes))


def _clean(
    side: Objects | tuple[Any, Any], classes: tuple[int, ...], what: str, remarks: list[str]
) -> Objects:
    """Valid polygons of the classes, flat, each with an area; what was done to them goes to ``remarks``."""
    geometries, codes = _as_arrays(side, what)
    chosen = np.isin(codes, classes)
    geometries, codes = geometries[chosen].copy(), codes[chosen]
    total = len(codes)
    areal = shapely.get_dimensions(geometries) == 2
    finite = np.isfinite(shapely.bounds(geometries)).all(axis=-1)
    geometries, codes = shapely.force_2d(geometries[areal & finite]), codes[areal & finite]
    broken = ~shapely.is_valid(geometries)
    geometries[broken] = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)
    mixed = shapely.get_type_id(geometries) == shapely.GeometryType.GEOMETRYCOLLECTION
    geometries[mixed] = [_polygons_of(geometry) for geometry in geometries[mixed]]
    solid = shapely.area(geometries) > 0
    if invalid := int(broken.sum()):
        remarks.append(f"{invalid} of {total} {what} {_were(invalid)} invalid and made valid")
    if dropped := total - int(solid.sum()):
        remarks.append(f"{dropped} of {total} {what} {_were(dropped)} left out: no polygon with an area")
    return Objects(geometries[solid], codes[solid])


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _as_arrays(side: Objects | tuple[Any, Any], what: str) -> tuple[Geometries, Ints]:
    geometries, codes = np.empty(len(side[0]), object), np.asarray(side[1])
    geometries[:] = side[0]
    if len(geometries) != len(codes) or codes.ndim != 1:
        raise InputError(f"{len(geometries)} {what} have codes of shape {codes.shape}; expected one for each")
    if len(codes) and codes.dtype.kind not in "ui":
        raise InputError(f"codes of the {what} are of type {codes.dtype}; expected whole numbers")
    known = shapely.is_geometry(geometries) | shapely.is_missing(geometries)
    if not known.all():
        other = type(geometries[np.argmin(known)]).__name__
        raise InputError(f"the {what} hold a {other}; expected shapely geometries")
    return geometries, codes.astype(np.int64)


def _polygons_of(collection: shapely.Geometry) -> shapely.Geometry:
    """The areas in a collection of points, lines and polygons."""
    parts = shapely.get_parts(shapely.get_parts(collection))  # multipolygons in it, too
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _assign(predicted: Objects, true: Objects, threshold: float) -> Iterator[tuple[int, int, int]]:
    """Matches (index of predicted, index of true, IoU in units of 2**-32): best first, each polygon once."""
    mine, theirs, overlap = _overlaps(predicted, true, round(threshold * _ONE))
    order = np.lexsort((_ranks(predicted.geometries)[mine], _ranks(true.geometries)[theirs], -overlap))
    taken_mine, taken_theirs = set[int](), set[int]()
    for i, j, value in np.column_stack([mine, theirs, overlap])[order].tolist():
        if i not in taken_mine and j not in taken_theirs:
            taken_mine.add(i)
            taken_theirs.add(j)
            yield i, j, value


def _ranks(geometries: Geometries) -> Ints:
    """Each polygon's place by its bounds, then area: the same whatever the order that they come in."""
    ranks = np.empty(len(geometries), np.int64)
    keys = np.column_stack([shapely.area(geometries), shapely.bounds(geometries).reshape(-1, 4)])
    ranks[np.lexsort(keys.T)] = np.arange(len(geometries))
    return ranks


def _overlaps(predicted: Objects, true: Objects, least: int) -> tuple[Ints, Ints, Ints]:
    """Pairs of one class with an IoU of at least ``least``: indices of both, and the IoU, in units of 2**-32."""
    mine, theirs = shapely.STRtree(true.geometries).query(predicted.geometries)
    same = predicted.codes[mine] == true.codes[theirs]
    mine, theirs = mine[same], theirs[same]
    areas = shapely.area(predicted.geometries), shapely.area(true.geometries)
    bounds = shapely.bounds(predicted.geometries), shapely.bounds(true.geometries)
    overlap = np.zeros(len(mine), np.int64)
    for start in range(0, len(mine), _CHUNK):
        part = slice(start, start + _CHUNK)
        i, j = mine[part], theirs[part]
        sides = np.minimum(bounds[0][i, 2:], bounds[1][j, 2:]) - np.maximum(
            bounds[0][i, :2], bounds[1][j, :2]
        )
        most = np.minimum(sides.prod(axis=1), np.minimum(areas[0][i], areas[1][j]))
        # Most pairs of neighbours are told apart by their bounds alone.
        near = np.flatnonzero(_iou(most, areas[0][i], areas[1][j]) >= least - 2)
        i, j = i[near], j[near]
        common = shapely.area(shapely.intersection(predicted.geometries[i], true.geometries[j]))
        overlap[start + near] = _iou(common, areas[0][i], areas[1][j])
    kept = overlap >= least
    return mine[kept], theirs[kept], overlap[kept]


def _iou(common: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]) -> Ints:
    """In units of 2**-32."""
    share = np.minimum(common / (first + second - common), 1)
    return np.asarray(np.rint(share * _ONE), np.int64)


def _inside(geometries: Geometries, within: shapely.Geometry | None) -> NDArray[np.bool_]:
    """(n,): does a point on the polygon lie in the area, or on its edge?"""
    if within is None:
        return np.ones(len(geometries), bool)
    shapely.prepare(within)
    return np.asarray(shapely.intersects(within, shapely.point_on_surface(geometries)), bool)
