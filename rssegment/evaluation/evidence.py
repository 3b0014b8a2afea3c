"""All that was counted of one map or several: what reports are made from and merged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rssegment.evaluation.areas import MapAreas
from rssegment.evaluation.backoff import BackoffCounts
from rssegment.evaluation.coherence import Coherence
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.reliability import Reliability
from rssegment.taxonomy import Taxonomy

if TYPE_CHECKING:
    from rssegment.evaluation.boundaries import BoundaryCounts
    from rssegment.evaluation.objects import ObjectCounts

__all__ = ["Evidence"]

Value = TypeVar("Value")


@dataclass(frozen=True)
class Evidence:
    """Counts of a map; those of blocks, or of scenes, add up. What was not asked for is empty or None.

    ``reliability`` and ``boundaries`` are by level; 0 is the predicted class itself. ``areas`` are of whole maps: a
    sum has them only if every part with reference pixels has, since they would speak of some scenes and the
    confusion of all.
    """

    confusion: Confusion
    reliability: dict[int, Reliability] = field(default_factory=dict)
    backoff: BackoffCounts | None = None
    boundaries: dict[int, BoundaryCounts] = field(default_factory=dict)
    objects: ObjectCounts | None = None
    coherence: Coherence | None = None
    areas: MapAreas | None = None
    scenes: tuple[str, ...] = ()

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def empty(cls, taxonomy: Taxonomy) -> Self:
        """Nothing counted yet."""
        return cls(Confusion.empty(taxonomy))

    @property
    def taxonomy(self) -> Taxonomy:
        return self.confusion.taxonomy

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.confusion + other.confusion,
            _merged(self.reliability, other.reliability),
            _sum(self.backoff, other.backoff),
            _merged(self.boundaries, other.boundaries),
            _sum(self.objects, other.objects),
            _sum(self.coherence, other.coherence),
            self._areas_with(other),
            tuple(sorted(self.scenes + other.scenes)),
        )

    def _areas_with(self, other: Evidence) -> MapAreas | None:
        for one in (self, other):
            if one.areas is None and one.confusion.pixels:
                return None
        return _sum(self.areas, other.areas)

    def as_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, path: str | Path) -> Self:
        raise NotImplementedError


def _sum(one: Any, other: Any) -> Any:
    """The sum of what is there."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _merged(one: Mapping[int, Value], other: Mapping[int, Value]) -> dict[int, Value]:
    return {key: _sum(one.get(key), other.get(key)) for key in sorted({*one, *other})}
