"""The scores of a map at every level of its taxonomy, as values, as a table and as a dictionary for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.evaluation import scores
from rssegment.evaluation.confusion import Confusion, LevelCounts
from rssegment.taxonomy import Node

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
        """Text for a terminal: a heading, then a line for each class."""
        width = max(len("class"), *(len("/".join(node.path)) for node in self.classes))
        heads = "".join(f"{name:>11}" for name in self.by_class)
        lines = [self._heading(), f"  {'class':<{width}}{'true px':>14}{'predicted px':>14}{heads}"]
        for i, (node, true, predicted) in enumerate(self._areas()):
            values = "".join(f"{_text(column[i]):>11}" for column in self.by_class.values())
            lines.append(f"  {'/'.join(node.path):<{width}}{true:>14,}{predicted:>14,}{values}")
        return "\n".join(lines)

    def _heading(self) -> str:
        shown = {
            "mIoU": "mean_iou",
            "accuracy": "pixel_accuracy",
            "F1": "mean_f1",
            "fwIoU": "frequency_weighted_iou",
            "kappa": "kappa",
            "quantity": "quantity_disagreement",
            "allocation": "allocation_disagreement",
        }
        text = "  ".join(f"{label} {_text(self.overall[name])}" for label, name in shown.items())
        coarser = f", {self.counts.coarser:,} px labelled above it not scored" if self.counts.coarser else ""
        return f"level {self.level} ({self.pixels:,} px{coarser}): {text}"

    def _areas(self) -> Iterator[tuple[Node, int, int]]:
        """Each class with its numbers of true and of predicted pixels."""
        true = self.counts.counts.sum(axis=1).tolist()
        predicted = self.counts.counts.sum(axis=0).tolist()[:-1]
        return zip(self.classes, true, predicted, strict=True)


@dataclass(frozen=True)
class Scores:
    """Scores of a map against its reference, at every level; :attr:`leaf` is the finest."""

    confusion: Confusion

    @cached_property
    def levels(self) -> tuple[LevelScores, ...]:
        """From the coarsest level, 1, to the leaves."""
        depth = self.confusion.taxonomy.depth
        return tuple(LevelScores(self.confusion.at_level(level)) for level in range(1, depth + 1))

    @property
    def leaf(self) -> LevelScores:
        return self.levels[-1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; scores that are not defined are None."""
        taxonomy, pixels = self.confusion.taxonomy.name, self.confusion.pixels
        return {"taxonomy": taxonomy, "pixels": pixels, "levels": [level.as_dict() for level in self.levels]}

    def table(self) -> str:
        """Text for a terminal, the finest level last."""
        return "\n\n".join(level.table() for level in self.levels)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
