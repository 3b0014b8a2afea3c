"""The scores of a map at every level of its taxonomy, as values, as a table and as a dictionary for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation import scores
from rssegment.evaluation.areas import AreaEstimate, MapAreas, StratifiedEstimate, estimate_areas
from rssegment.evaluation.backoff import BackoffCurve
from rssegment.evaluation.confusion import Confusion, LevelCounts
from rssegment.evaluation.evidence import Evidence
from rssegment.evaluation.hierarchy import hierarchy_scores
from rssegment.evaluation.plain import undefined
from rssegment.evaluation.reliability import Reliability
from rssegment.evaluation.table import level_table, scores_table
from rssegment.taxonomy import Node, Taxonomy

if TYPE_CHECKING:
    from rssegment.evaluation.boundaries import BoundaryCounts
    from rssegment.evaluation.objects import ObjectCounts, ObjectScores

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


@dataclass(frozen=True)
class LevelScores:
    """Scores between the classes of one level, by name: ``overall["mean_iou"]``, ``by_class["iou"]`` (K,).

    ``level`` is 0 for classes that are no level's, such as those of :attr:`Scores.common`.
    """

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
        overall = {name: undefined(value) for name, value in self.overall.items()}
        rows = [
            {
                "code": node.code,
                "name": node.name,
                "path": "/".join(node.path),
                "true": true,
                "predicted": predicted,
            }
            | {name: undefined(values[i]) for name, values in self.by_class.items()}
            for i, (node, true, predicted) in enumerate(self.areas())
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
        return level_table(self)

    def same_as(self, other: LevelScores) -> bool:
        """Whether both levels have the same counts between the same classes, but for classes without pixels."""
        mine, theirs = self.present, other.present
        return (
            self.counts.coarser == other.counts.coarser
            and [self.classes[i] for i in mine] == [other.classes[i] for i in theirs]
            and np.array_equal(self._counts_of(mine), other._counts_of(theirs))
        )

    @cached_property
    def present(self) -> list[int]:
        """Indices of the classes that are true or predicted in any scored pixel."""
        return [i for i, (_, true, predicted) in enumerate(self.areas()) if true or predicted]

    def _counts_of(self, chosen: list[int]) -> NDArray[np.int64]:
        return self.counts.counts[np.ix_(chosen, [*chosen, len(self.classes)])]

    def areas(self) -> Iterator[tuple[Node, int, int]]:
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
        """Area-adjusted estimates; None where the whole map was not counted, or the reference knows one class only."""
        several = np.count_nonzero(self.common.counts.counts.sum(axis=1)) > 1
        return self._estimated(self.evidence.areas) if self.evidence.areas and several else None

    def _estimated(self, areas: MapAreas) -> StratifiedEstimate:
        return estimate_areas(self.confusion, areas, self.common.classes)

    @property
    def areas(self) -> tuple[AreaEstimate, ...]:
        """Estimated area of each class of :attr:`common`; empty where the whole map was not counted."""
        return self.stratified.classes if self.stratified else ()

    @property
    def accuracy(self) -> tuple[float, float]:
        """Area-adjusted overall accuracy and the half width of its 95 % interval; NaN where the areas are unknown."""
        found = self.stratified
        return (found.accuracy, found.half_width) if found else (float("nan"), float("nan"))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know of scenes that were merged."""
        return self.evidence.remarks

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores that are not defined are None, and so is what there is no evidence of."""
        objects, areas, coherence = self.objects, self.stratified, self.evidence.coherence
        return {
            "taxonomy": self.taxonomy.name,
            "pixels": self.confusion.pixels,
            "scenes": list(self.evidence.scenes),
            "levels": [level.as_dict() for level in self.levels],
            "common": self.common.as_dict(),
            "hierarchy": {name: undefined(value) for name, value in self.hierarchy.items()},
            "coherence": coherence and coherence.as_dict(),
            "reliability": {str(level): found.summary() for level, found in self.reliability.items()},
            "backoff": self.curve and self.curve.as_dict(),
            "boundaries": {str(level): self._boundary(found) for level, found in self.boundaries.items()},
            "objects": objects
            and {"threshold": objects.threshold, "classes": list(map(self._object, objects.rows()))},
            "areas": areas and areas.as_dict(),
            "remarks": list(self.remarks),
        }

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Text for a terminal of 80 columns, the finest level last; a level that adds nothing is only named."""
        return scores_table(self)

    def _boundary(self, found: BoundaryCounts) -> dict[str, Any]:
        scores = {name: getattr(found, name) for name in ("iou", "f1", "precision", "recall")}
        rows = [
            self._named(code) | {name: undefined(values[i]) for name, values in scores.items()}
            for i, code in enumerate(found.classes)
        ]
        means = {name: undefined(getattr(found, name)) for name in ("mean_iou", "mean_f1")}
        return {"tolerance": found.tolerance, **means, "classes": rows}

    def _object(self, row: ObjectScores) -> dict[str, Any]:
        values = asdict(row)
        scores = {
            name: undefined(value) if isinstance(value, float) else value for name, value in values.items()
        }
        return self._named(row.code) | scores

    def _named(self, code: int) -> dict[str, Any]:
        return {"code": code, "path": "/".join(self.taxonomy.node(code).path)}
