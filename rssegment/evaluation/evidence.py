"""All that was counted of one map or several: what reports are made from and merged by."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rssegment.errors import InputError, OutputError
from rssegment.evaluation.areas import MapAreas
from rssegment.evaluation.backoff import BackoffCounts
from rssegment.evaluation.coherence import Coherence
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.plain import field as field_of
from rssegment.evaluation.reliability import Reliability
from rssegment.taxonomy import Taxonomy

if TYPE_CHECKING:
    from rssegment.evaluation.boundaries import BoundaryCounts
    from rssegment.evaluation.objects import ObjectCounts

__all__ = ["Evidence"]

Value = TypeVar("Value")
_FORMAT = "rssegment evidence"
_VERSION = 1
_FILE_LIMIT = 2**30  # bytes; a raster given in place of the file must not be read into memory
_PARTS = ("backoff", "objects", "coherence", "areas")


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
        areas: MapAreas | None = _sum(self.areas, other.areas)
        return areas

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: all counts, exactly, and the taxonomy's text; what there is no evidence of is None."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "scenes": list(self.scenes),
            "taxonomy": self.taxonomy.dump(),
            "confusion": self.confusion.as_dict(),
            "reliability": {str(key): value.as_dict() for key, value in self.reliability.items()},
            "boundaries": {str(key): value.as_dict() for key, value in self.boundaries.items()},
            **{name: _plain(getattr(self, name)) for name in _PARTS},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave.

        Raises
        ------
        InputError
            It is something else, or of a version that this rssegment does not know.
        """
        from rssegment.evaluation.boundaries import BoundaryCounts
        from rssegment.evaluation.objects import ObjectCounts

        _check_format(values)
        tree = _taxonomy(values)
        scenes = values.get("scenes")
        if not isinstance(scenes, list) or not all(isinstance(name, str) for name in scenes):
            raise InputError(f"'scenes' is {scenes!r}; expected a list of names")
        boundaries = _by_level(values, "boundaries", BoundaryCounts.from_dict)
        objects = _read(values, "objects", ObjectCounts.from_dict)
        for counts in (*boundaries.values(), *([objects] if objects else ())):
            for code in counts.classes:
                tree.node(code)  # or says that there is none
        return cls(
            Confusion.from_dict(field_of(values, "confusion"), tree),
            _by_level(values, "reliability", Reliability.from_dict),
            _read(values, "backoff", lambda plain: BackoffCounts.from_dict(plain, tree)),
            boundaries,
            objects,
            _read(values, "coherence", Coherence.from_dict),
            _read(values, "areas", lambda plain: MapAreas.from_dict(plain, tree)),
            tuple(scenes),
        )

    def save(self, path: str | Path) -> None:
        """Writes the evidence as JSON; the file appears whole or not at all.

        Raises
        ------
        OutputError
            The file can't be written.
        """
        path = Path(path)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps(self.as_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"can't write the evidence to {path}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The evidence that :meth:`save` wrote.

        Raises
        ------
        InputError
            The file can't be read, or holds something else; names it.
        """
        try:
            if (size := Path(path).stat().st_size) > _FILE_LIMIT:
                raise InputError(f"{path}: {size >> 20} MiB is too large for an evidence file (JSON)")
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"can't read the evidence {path}: {error.strerror or error}") from error
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{path} is no evidence file of rssegment: it is no JSON ({error})") from error
        try:
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _check_format(values: object) -> None:
    found = values.get("format") if isinstance(values, Mapping) else None
    if not isinstance(values, Mapping) or found != _FORMAT:
        raise InputError(f"this is no evidence of rssegment: 'format' is {found!r}; expected {_FORMAT!r}")
    if values.get("version") != _VERSION:
        raise InputError(
            f"evidence of version {values.get('version')!r}; this rssegment reads version {_VERSION}: "
            "use the one that wrote it, or evaluate again"
        )


def _taxonomy(values: Mapping[str, Any]) -> Taxonomy:
    text = field_of(values, "taxonomy")
    if not isinstance(text, str):
        raise InputError(f"'taxonomy' is {text!r}; expected the text of one")
    return Taxonomy.loads(text, "its taxonomy")


def _plain(part: Any) -> dict[str, Any] | None:
    return None if part is None else part.as_dict()


def _read(values: Mapping[str, Any], key: str, read: Callable[[Any], Value]) -> Value | None:
    plain = values.get(key)
    if plain is None:
        return None
    if not isinstance(plain, Mapping):
        raise InputError(f"{key!r} is {type(plain).__name__}; expected counts by name")
    return read(plain)


def _by_level(values: Mapping[str, Any], key: str, read: Callable[[Any], Value]) -> dict[int, Value]:
    found: Mapping[str, Any] = _read(values, key, lambda plain: plain) or {}
    if any(not (isinstance(level, str) and level.isdecimal()) for level in found):
        raise InputError(f"{key!r} has the levels {list(found)}; expected whole numbers")
    return {int(level): read(plain) for level, plain in found.items()}


def _sum(one: Any, other: Any) -> Any:
    """The sum of what is there."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _merged(one: Mapping[int, Value], other: Mapping[int, Value]) -> dict[int, Value]:
    return {key: _sum(one.get(key), other.get(key)) for key in sorted({*one, *other})}
