"""All that was counted of one map or several: what reports are made from and merged by."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rssegment.errors import InputError, OutputError
from rssegment.evaluation.areas import MapAreas
from rssegment.evaluation.backoff import BackoffCounts
from rssegment.evaluation.coherence import Coherence
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.plain import field as field_of
from rssegment.evaluation.plain import texts, whole
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
_TITLES = {
    "reliability": "calibration scores",
    "boundaries": "boundary scores",
    "objects": "scores of objects",
    "backoff": "back-off scores",
    "coherence": "contradictions between levels",
    "areas": "areas",
}


@dataclass(frozen=True)
class Evidence:
    """Counts of a map; those of blocks, or of scenes, add up. What was not asked for is empty or None.

    ``reliability`` and ``boundaries`` are by level; 0 is the predicted class itself. ``partial``: in how many of the
    ``scenes`` the parts are counted that not all have, as "backoff", "boundaries/2" (level) or "objects/15" (class).
    ``areas`` are of whole maps: a sum has them only if every part with reference pixels has, since estimates take
    them together with the confusion, which is of all scenes.
    """

    confusion: Confusion
    reliability: dict[int, Reliability] = field(default_factory=dict)
    backoff: BackoffCounts | None = None
    boundaries: dict[int, BoundaryCounts] = field(default_factory=dict)
    objects: ObjectCounts | None = None
    coherence: Coherence | None = None
    areas: MapAreas | None = None
    scenes: tuple[str, ...] = ()
    partial: dict[str, int] = field(default_factory=dict)

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
            self._partial_with(other),
        )

    def _areas_with(self, other: Evidence) -> MapAreas | None:
        for one in (self, other):
            if one.areas is None and one.confusion.pixels:
                return None
        areas: MapAreas | None = _sum(self.areas, other.areas)
        return areas

    def _partial_with(self, other: Evidence) -> dict[str, int]:
        total = len(self.scenes) + len(other.scenes)
        counted = Counter(self._scenes_of_parts()) + Counter(other._scenes_of_parts())
        return {part: number for part, number in sorted(counted.items()) if number < total}

    def _scenes_of_parts(self) -> dict[str, int]:
        """In how many scenes each part is counted."""
        return dict.fromkeys(self._parts(), len(self.scenes)) | self.partial

    def _parts(self) -> Iterator[str]:
        """What there is evidence of beside the confusion."""
        for name in ("reliability", "boundaries"):
            yield from (f"{name}/{level}" for level in getattr(self, name))
        yield from (f"objects/{code}" for code in (self.objects.classes if self.objects else ()))
        yield from (name for name in ("backoff", "coherence", "areas") if getattr(self, name) is not None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know of the scenes that were merged: parts that only some have, and names that several have."""
        return (*self._partial_remarks(), *self._double_remarks())

    def _partial_remarks(self) -> Iterator[str]:
        groups: dict[tuple[str, int], list[str]] = {}
        for part, number in self.partial.items():
            name, _, key = part.partition("/")
            groups.setdefault((name, number), []).append(key)
        every = Counter(part.partition("/")[0] for part in self._parts())
        for (name, number), keys in groups.items():
            which = "" if len(keys) >= every[name] else f" of {self._told(name, keys)}"
            some = f"{number} of {len(self.scenes)} scenes"
            if name == "areas" and self.areas is None:
                yield f"areas are left out: only {some} have them"
            else:
                yield f"{_TITLES[name]}{which} are of {some}"

    def _told(self, name: str, keys: list[str]) -> str:
        if name == "objects":
            return ", ".join(self.taxonomy.node(int(key)).name for key in keys)
        return ", ".join(f"level {key}" if key != "0" else "decided classes" for key in keys)

    def _double_remarks(self) -> Iterator[str]:
        names = [name for name, times in Counter(self.scenes).items() if times > 1]
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            yield f"several of the scenes are called {shown}: if they are the same, their pixels count twice"

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
            "partial": self.partial,
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
        scenes = texts(values, "scenes", "names")
        boundaries = _by_level(values, "boundaries", BoundaryCounts.from_dict)
        objects = _read(values, "objects", ObjectCounts.from_dict)
        for counts in (*boundaries.values(), *([objects] if objects else ())):
            for code in counts.classes:
                tree.node(code)  # or says that there is none
        reliability = _by_level(values, "reliability", Reliability.from_dict)
        _check_levels(tree, reliability, boundaries)
        found = cls(
            Confusion.from_dict(field_of(values, "confusion"), tree),
            reliability,
            _read(values, "backoff", lambda plain: BackoffCounts.from_dict(plain, tree)),
            boundaries,
            objects,
            _read(values, "coherence", Coherence.from_dict),
            _read(values, "areas", lambda plain: MapAreas.from_dict(plain, tree)),
            scenes,
        )
        return replace(found, partial=_partial(values, found))

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
        except (ValueError, RecursionError) as error:  # also of numbers of thousands of digits
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


def _check_levels(
    taxonomy: Taxonomy, reliability: Mapping[int, Reliability], boundaries: Mapping[int, BoundaryCounts]
) -> None:
    for name, levels, first in (("reliability", reliability, 0), ("boundaries", boundaries, 1)):
        if any(not first <= level <= taxonomy.depth for level in levels):
            raise InputError(
                f"{name!r} has the levels {list(levels)}; taxonomy {taxonomy.name!r} has {first} to {taxonomy.depth}"
            )
    for level, counts in boundaries.items():
        if counts.level != level:
            raise InputError(f"boundaries of level {level} say that they are of level {counts.level}")


def _partial(values: Mapping[str, Any], found: Evidence) -> dict[str, int]:
    plain: Mapping[str, Any] = _read(values, "partial", lambda part: part) or {}
    parts = {*found._parts(), "areas"}
    if unknown := [part for part in plain if part not in parts]:
        raise InputError(f"'partial' tells of {unknown[0]!a}, of which there is no evidence")
    numbers = {part: whole(number, f"partial, {part}") for part, number in plain.items()}
    if any(not 0 < number < len(found.scenes) for number in numbers.values()):
        raise InputError(
            f"'partial' is {numbers}; expected less than the {len(found.scenes)} scenes, and some"
        )
    return numbers


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
