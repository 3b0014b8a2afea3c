"""What a map gains in correctness by answering more coarsely where it is not sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation._count_kernels import LEFT_OUT, count_backoff
from rssegment.evaluation.lookup import LabelPairs
from rssegment.evaluation.plain import field, undefined, whole, wholes
from rssegment.evaluation.reliability import UNITS, Confidence, in_units
from rssegment.evaluation.verdicts import right_to
from rssegment.taxonomy import Taxonomy

__all__ = ["THRESHOLDS", "BackoffCounts", "BackoffCurve"]

_STEPS = 100
THRESHOLDS = np.arange(_STEPS + 1) / _STEPS
THRESHOLDS.flags.writeable = False


@dataclass(frozen=True, eq=False)
class BackoffCurve:
    """Correctness against specificity; arrays (T,) over the thresholds ``tau``, NaN where no pixel was counted.

    ``correct``: part of the pixels whose decided node is, or contains, the truth. ``specificity``: mean of the
    decided level over the level of the deepest leaf that the prediction may mean. ``decided``: part decided below the
    root.
    """

    tau: NDArray[np.float64]
    correct: NDArray[np.float64]
    specificity: NDArray[np.float64]
    decided: NDArray[np.float64]

    @property
    def begin(self) -> int:
        """Index of the last threshold up to which nothing changes: what was decided less surely isn't known."""
        same = np.ones(len(self.tau), np.bool_)
        for values in (self.correct, self.specificity, self.decided):
            same &= values == values[0]
        return int(np.argmin(same)) - 1 if not same.all() else 0

    def as_dict(self) -> dict[str, Any]:
        return {name: list(map(undefined, getattr(self, name))) for name in self.__dataclass_fields__}


@dataclass(frozen=True, eq=False)
class BackoffCounts:
    """For each threshold 0, 0.01 … 1, how many pixels would be decided at which level, wrong and right.

    ``counts`` (D + 1, D + 1, 2, T) int64: level of the deepest leaf under the predicted node, level decided at the
    threshold (0 the root), wrong or right, threshold; D is the depth of the taxonomy.
    """

    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, taxonomy: Taxonomy) -> Self:
        """No pixels yet."""
        size = taxonomy.depth + 1
        return cls(np.zeros((size, size, 2, len(THRESHOLDS)), np.int64))

    @classmethod
    def of(
        cls,
        pairs: LabelPairs,
        confidences: Sequence[Confidence],
    ) -> Self:
        """Counts of a map with, for each level from 1 to the depth, the probability of the predicted node's ancestor.

        ``confidences`` are as :class:`~rssegment.evaluation.reliability.Reliability` takes them, one array for each
        level. At a threshold, a pixel is decided at the deepest level down to which all of them reach it. It is right
        there if that node is the truth or contains it, or lies under a truth that is coarser. For thresholds above
        0.5 that is what back-off would have decided; below, it follows the path of ``prediction``, where back-off
        follows the most probable child. Pixels without prediction or confidence are left out; undecided ones stay so.

        Raises
        ------
        InputError
            As for :class:`~rssegment.evaluation.reliability.Reliability`, or the number of levels is wrong.
        """
        taxonomy = pairs.taxonomy
        if len(confidences) != taxonomy.depth:
            raise InputError(
                f"there are {len(confidences)} confidences; taxonomy {taxonomy.name!r} has {taxonomy.depth} levels, "
                "and each needs one"
            )
        for confidence in confidences:
            pairs.expect_shape(confidence)
        flat: list[Any] = [confidence.reshape(-1) for confidence in confidences]
        levels, right, changes = _tables(taxonomy)
        bytes_ = all(confidence.dtype == np.uint8 for confidence in flat)
        every = np.arange(256, dtype=np.uint8)
        table = _passed(every) if bytes_ else every
        for part, true, predicted in pairs.chunks():
            passed = np.stack([c[part] if bytes_ else _passed(c[part]) for c in flat])
            count_backoff(true, predicted, passed, pairs.down, pairs.across, table, levels, right, changes)
        return cls(changes[..., :-1].cumsum(axis=-1))

    def __add__(self, other: BackoffCounts) -> Self:
        if self.counts.shape != other.counts.shape:
            raise InputError(
                f"back-off counts of {len(self.counts) - 1} and of {len(other.counts) - 1} levels can't be added"
            )
        return type(self)(self.counts + other.counts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BackoffCounts):
            return NotImplemented
        return np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return int(self.counts[..., 0].sum())

    @property
    def curve(self) -> BackoffCurve:
        """The curve over all thresholds."""
        full, level = np.indices(self.counts.shape[:2])
        specificity = np.divide(level, full, out=np.zeros(full.shape), where=full > 0)
        by_level = self.counts.sum(axis=2)  # (D + 1, D + 1, T)
        below = max(self.pixels, 1) if self.pixels else np.nan
        return BackoffCurve(
            THRESHOLDS,
            self.counts[:, :, 1].sum(axis=(0, 1)) / below,
            (by_level * specificity[:, :, None]).sum(axis=(0, 1)) / below,
            by_level[:, 1:].sum(axis=(0, 1)) / below,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values: of each full level, decided level and verdict that occurs, the pixels at every threshold."""
        rows = [
            {"full": f, "level": k, "right": r, "pixels": self.counts[f, k, r].tolist()}
            for f, k, r in np.ndindex(self.counts.shape[:3])
            if self.counts[f, k, r].any()
        ]
        return {"depth": len(self.counts) - 1, "rows": rows}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], taxonomy: Taxonomy) -> Self:
        """The counts that :meth:`as_dict` wrote; InputError where ``values`` are not such."""
        result = cls.empty(taxonomy)
        if field(values, "depth") != taxonomy.depth:
            raise InputError(
                f"back-off counts are of {values['depth']!r} levels; taxonomy {taxonomy.name!r} has {taxonomy.depth}"
            )
        rows = field(values, "rows")
        if not isinstance(rows, list):
            raise InputError(f"'rows' is {type(rows).__name__}; expected a list of counts")
        for row in rows:
            place = tuple(whole(field(row, key), key) for key in ("full", "level", "right"))
            if any(index >= size for index, size in zip(place, result.counts.shape, strict=False)):
                raise InputError(f"back-off counts have full level, level, right {place}; there is no such")
            result.counts[place] += wholes(row, "pixels", len(THRESHOLDS))
        return result


def _tables(
    taxonomy: Taxonomy,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Own and full level of each row (2, N + 3), deepest right level of each pair (N + 3, N + 3), and zeros to count
    into.
    """
    nodes, depth, tree = len(taxonomy.nodes), taxonomy.depth, taxonomy.arrays
    levels = np.zeros((2, nodes + 3), np.uint8)
    levels[0, :nodes] = tree.levels
    levels[1, :nodes] = np.where(tree.membership, tree.levels[tree.leaves], 0).max(axis=1)
    levels[1, nodes] = depth  # undecided pixels
    right = np.full((nodes + 3, nodes + 3), LEFT_OUT, np.uint8)
    right[:nodes, : nodes + 1] = right_to(taxonomy)
    return levels, right, np.zeros((depth + 1, depth + 1, 2, len(THRESHOLDS) + 1), np.int64)


def _passed(confidence: Confidence) -> NDArray[np.uint8]:
    """Index of the last threshold that each confidence reaches; left out where there is none."""
    units = in_units(confidence)
    return np.where(units < 0, LEFT_OUT, units * _STEPS // UNITS).astype(np.uint8)
