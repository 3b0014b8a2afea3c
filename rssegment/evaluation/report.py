"""The scores of a map at every level of its taxonomy, as values, as a table and as a dictionary for JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Self
from unicodedata import combining, east_asian_width

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation import scores
from rssegment.evaluation.areas import AreaEstimate, StratifiedEstimate, estimate_areas
from rssegment.evaluation.backoff import BackoffCurve
from rssegment.evaluation.confusion import Confusion, LevelCounts
from rssegment.evaluation.evidence import Evidence
from rssegment.evaluation.hierarchy import hierarchy_scores
from rssegment.evaluation.reliability import Reliability
from rssegment.taxonomy import Node, Taxonomy

if TYPE_CHECKING:
    from rssegment.evaluation.boundaries import BoundaryCounts
    from rssegment.evaluation.objects import ObjectCounts

__all__ = ["LevelScores", "Scores"]

_OVERALL = {
    "pixel_accuracy": scores.pixel_accuracy,
    "mean_accuracy": scores.mean_accuracy,
    "mean_iou": scores.mean_iou,
    "mean_f1": scores.mean_f1,
    "frequency_weighted_iou": scores.frequency_weighted_iou,
    "kappa": scores.kappa,
    "quantity_disagreement": scores.quantity_disagreement,
    "allocation_disagreement": scores.allocation_disagreement,
}
_BY_CLASS = {"iou": scores.iou, "f1": scores.f1, "precision": scores.precision, "recall": scores.recall}
_WIDTH = 80  # columns of a terminal
# Heads and widths: the areas, then the scores of _BY_CLASS.
_COLUMNS = {"true px": 8, "map px": 8, "IoU": 7, "F1": 7, "prec.": 7, "recall": 8}
_VALUES_WIDTH = 2 + sum(_COLUMNS.values())  # with the indent


@dataclass(frozen=True)
class LevelScores:
    """Scores between the classes of one level, by name: ``overall["mean_iou"]``, ``by_class["iou"]`` (K,)."""

    counts: LevelCounts

    @property
    def level(self) -> int:
        return self.counts.level

    @property
    def classes(self) -> tuple[Node, ...]:
        return self.counts.classes

    @property
    def pixels(self) -> int:
        """Number of reference pixels that this level can score."""
        return int(self.counts.counts.sum())

    @cached_property
    def overall(self) -> dict[str, float]:
        return {name: score(self.counts.counts) for name, score in _OVERALL.items()}

    @cached_property
    def by_class(self) -> dict[str, NDArray[np.float64]]:
        return {name: score(self.counts.counts) for name, score in _BY_CLASS.items()}

    @property
    def mean_iou(self) -> float:
        return self.overall["mean_iou"]

    @property
    def pixel_accuracy(self) -> float:
        return self.overall["pixel_accuracy"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores that are not defined are None."""
        overall = {name: _plain(value) for name, value in self.overall.items()}
        rows = [
            {
                "code": node.code,
                "name": node.name,
                "path": "/".join(node.path),
                "true": true,
                "predicted": predicted,
            }
            | {name: _plain(values[i]) for name, values in self.by_class.items()}
            for i, (node, true, predicted) in enumerate(self._areas())
        ]
        return {
            "level": self.level,
            "pixels": self.pixels,
            "coarser": self.counts.coarser,
            **overall,
            "classes": rows,
        }

    def table(self) -> str:
        """Text for a terminal of 80 columns: two lines of heading, then a line for each class that has pixels."""
        return "\n".join([*self._heading(), *self._rows(), *self._notes()])

    def same_as(self, other: LevelScores) -> bool:
        """Whether both levels have the same counts between the same classes, but for classes without pixels."""
        mine, theirs = self._present, other._present
        return (
            self.counts.coarser == other.counts.coarser
            and [self.classes[i] for i in mine] == [other.classes[i] for i in theirs]
            and np.array_equal(self._counts_of(mine), other._counts_of(theirs))
        )

    @cached_property
    def _present(self) -> list[int]:
        """Indices of the classes that are true or predicted in any scored pixel."""
        return [i for i, (_, true, predicted) in enumerate(self._areas()) if true or predicted]

    def _counts_of(self, chosen: list[int]) -> NDArray[np.int64]:
        return self.counts.counts[np.ix_(chosen, [*chosen, len(self.classes)])]

    def _heading(self) -> list[str]:
        if not self.pixels:
            return [f"level {self.level}: no pixels to score"]
        text = {name: _text(value) for name, value in self.overall.items()}
        return [
            f"level {self.level} ({_compact(self.pixels)} px): mIoU {text['mean_iou']}"
            f"  mF1 {text['mean_f1']}  accuracy {text['pixel_accuracy']}  kappa {text['kappa']}",
            f"  fwIoU {text['frequency_weighted_iou']}  disagreement in quantity"
            f" {text['quantity_disagreement']}, in allocation {text['allocation_disagreement']}",
        ]

    def _rows(self) -> Iterator[str]:
        if not self._present:
            return
        paths = _fitting([self.classes[i] for i in self._present], _WIDTH - _VALUES_WIDTH)
        width = max(len("class"), *map(_cells, paths))
        yield f"  {_padded('class', width)}{''.join(f'{head:>{size}}' for head, size in _COLUMNS.items())}"
        areas = list(self._areas())
        for i, path in zip(self._present, paths, strict=True):
            _, true, predicted = areas[i]
            values = (_compact(true), _compact(predicted), *(_text(by[i]) for by in self.by_class.values()))
            sizes = zip(values, _COLUMNS.values(), strict=True)
            yield f"  {_padded(path, width)}{''.join(f'{value:>{size}}' for value, size in sizes)}"

    def _notes(self) -> Iterator[str]:
        """What is in neither rows nor scores."""
        absent = len(self.classes) - len(self._present)
        if absent and self._present:
            yield f"  not shown: {absent} of {len(self.classes)} classes, no pixels scored"
        if self.counts.coarser:
            yield f"  not scored: {_compact(self.counts.coarser)} px labelled above level {self.level}"

    def _areas(self) -> Iterator[tuple[Node, int, int]]:
        """Each class with its numbers of true and of predicted pixels."""
        true = self.counts.counts.sum(axis=1).tolist()
        predicted = self.counts.counts.sum(axis=0).tolist()[:-1]
        return zip(self.classes, true, predicted, strict=True)


@dataclass(frozen=True)
class Scores:
    """Scores of a map against its reference, at every level; :attr:`leaf` is the finest."""

    evidence: Evidence

    @classmethod
    def of(cls, confusion: Confusion) -> Self:
        """Scores from confusion counts alone."""
        return cls(Evidence(confusion))

    @classmethod
    def merge(cls, scores: Iterable[Scores]) -> Scores:
        """Scores of several maps as of one: counts are summed, never scores averaged."""
        parts = list(scores)
        if not parts:
            raise InputError("there are no scores to merge; expected at least one")
        return reduce(add, parts)

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.evidence + other.evidence)

    @property
    def confusion(self) -> Confusion:
        return self.evidence.confusion

    @property
    def taxonomy(self) -> Taxonomy:
        return self.evidence.taxonomy

    @cached_property
    def levels(self) -> tuple[LevelScores, ...]:
        """From the coarsest level, 1, to the leaves."""
        depth = self.taxonomy.depth
        return tuple(LevelScores(self.confusion.at_level(level)) for level in range(1, depth + 1))

    @property
    def leaf(self) -> LevelScores:
        return self.levels[-1]

    @cached_property
    def common(self) -> LevelScores:
        """At the deepest classes that the reference distinguishes."""
        return LevelScores(self.confusion.at_cut(self.confusion.common_cut()))

    @cached_property
    def hierarchy(self) -> dict[str, float]:
        """Scores that know the tree; see :mod:`rssegment.evaluation.hierarchy`."""
        coherence = self.evidence.coherence
        rate = coherence.rate if coherence else float("nan")
        return {**hierarchy_scores(self.confusion), "incoherence_rate": rate}

    @property
    def reliability(self) -> dict[int, Reliability]:
        return self.evidence.reliability

    @cached_property
    def curve(self) -> BackoffCurve | None:
        return self.evidence.backoff.curve if self.evidence.backoff else None

    @property
    def boundaries(self) -> dict[int, BoundaryCounts]:
        return self.evidence.boundaries

    @property
    def objects(self) -> ObjectCounts | None:
        return self.evidence.objects

    @cached_property
    def stratified(self) -> StratifiedEstimate | None:
        """Area-adjusted estimates; None where the whole map was not counted."""
        return estimate_areas(self.confusion, self.evidence.areas) if self.evidence.areas else None

    @property
    def areas(self) -> tuple[AreaEstimate, ...]:
        """Estimated area of each class of :attr:`common`; empty where the whole map was not counted."""
        return self.stratified.classes if self.stratified else ()

    @property
    def accuracy(self) -> tuple[float, float]:
        """Area-adjusted overall accuracy and the half width of its 95 % interval; NaN where the areas are unknown."""
        found = self.stratified
        return (found.accuracy, found.half_width) if found else (float("nan"), float("nan"))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores that are not defined are None."""
        taxonomy, pixels = self.taxonomy.name, self.confusion.pixels
        return {"taxonomy": taxonomy, "pixels": pixels, "levels": [level.as_dict() for level in self.levels]}

    def table(self) -> str:
        """Text for a terminal of 80 columns, the finest level last; a level that adds nothing is only named."""
        shown = [self.levels[0]]
        parts = [self.levels[0].table()]
        for level in self.levels[1:]:
            if level.same_as(shown[-1]):
                parts.append(f"level {level.level}: as level {shown[-1].level}")
            else:
                shown.append(level)
                parts.append(level.table())
        return "\n\n".join(parts)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no "-0.000"


def _compact(pixels: int) -> str:
    """Three digits and a unit: 812, 253 k, 3.53 M; at most 6 characters."""
    if pixels < 1000:
        return str(pixels)
    power = 1
    while pixels / 1000**power >= 999.5:  # would round to 1000
        power += 1
    return f"{format(pixels / 1000**power, '#.3g').rstrip('.')} {' kMGTPE'[power]}"


def _fitting(nodes: Sequence[Node], width: int) -> list[str]:
    """A path of at most ``width`` cells for each class; classes that would read the same get their codes."""
    paths = [_shortened(node.path, width) for node in nodes]
    times = Counter(paths)
    codes = [f" ({node.code})" if times[path] > 1 else "" for node, path in zip(nodes, paths, strict=True)]
    return [_shortened(n.path, width - len(code)) + code for n, code in zip(nodes, codes, strict=True)]


def _shortened(path: tuple[str, ...], width: int) -> str:
    """The whole path if it fits, else as many of its last names as do, else the last name without its middle."""
    whole = "/".join(path)
    if _cells(whole) <= width:
        return whole
    for first in range(1, len(path)):
        if _cells(tail := "…/" + "/".join(path[first:])) <= width:
            return tail
    before = "…/" if len(path) > 1 else ""
    name, half = path[-1], (width - len(before) - 1) // 2
    return f"{before}{_cut(name, half)}…{_cut(name[::-1], half)[::-1]}"


def _cut(text: str, width: int) -> str:
    """As much of the beginning as fits into ``width`` cells."""
    while _cells(text) > width:
        text = text[:-1]
    return text


def _cells(text: str) -> int:
    """Columns that a terminal gives to ``text``: East Asian wide characters take two, combining marks none."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))
