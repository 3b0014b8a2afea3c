"""Bands: what each is called, and how a user picks them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from rssegment.errors import SceneError

__all__ = ["PALETTE_CHANNELS", "Band", "distinct_names", "own_name", "pick"]

PALETTE_CHANNELS = ("red", "green", "blue")

# Interpretations that say how to draw a band and not what it measures.
_NAMELESS = {"undefined", "gray", "palette"}


@dataclass(frozen=True, slots=True)
class Band:
    """One band of a scene.

    ``index`` counts the bands of the file ``source`` from 1. ``nodata`` is what the file (or the user) calls
    no data, in stored values. A value is ``stored * scale + offset``. ``channel`` is set for a band that was
    expanded from a colour table: 0 red, 1 green, 2 blue.
    """

    name: str
    source: str
    index: int
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    description: str = ""
    color: str = "undefined"
    channel: int | None = None

    @property
    def scaled(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)


def own_name(description: str | None, color: str, index: int) -> str:
    """A band's name by its description, else by its colour interpretation, else by its place; lower case."""
    if description and description.strip():
        return description.strip().lower()
    return f"band_{index}" if color in _NAMELESS else color.lower()


def distinct_names(bands: Sequence[Band], several_files: bool) -> tuple[Band, ...]:
    """The bands with names that are distinct.

    A nameless band of a one-band file goes by the file's name when there are several files; a name that
    several files use is preceded by the file's name; what is still alike is numbered.
    """
    if several_files:
        per_file = Counter(band.source for band in bands)
        bands = [
            replace(band, name=_stem(band))
            if re.fullmatch(r"band_1", band.name) and per_file[band.source] == 1
            else band
            for band in bands
        ]
        uses = Counter(band.name for band in bands)
        bands = [replace(b, name=f"{_stem(b)}_{b.name}") if uses[b.name] > 1 else b for b in bands]
    taken: set[str] = set()
    named = []
    for band in bands:
        name, number = band.name, 1
        while name in taken:
            number += 1
            name = f"{band.name}_{number}"
        taken.add(name)
        named.append(replace(band, name=name))
    return tuple(named)


def pick(bands: Sequence[Band], wanted: Sequence[int | str], scene: str) -> tuple[Band, ...]:
    """The ``wanted`` bands in that order, by place from 1 or by name (whatever the case).

    Raises
    ------
    SceneError
        Nothing is wanted, or a band that the scene lacks; lists the bands there are.
    """
    if not wanted:
        raise SceneError(f"no band was chosen of {scene}; it has {_listing(bands)}")
    return tuple(_one(bands, key, scene) for key in wanted)


def _one(bands: Sequence[Band], key: int | str, scene: str) -> Band:
    by_name = {band.name.lower(): band for band in bands}
    if isinstance(key, str) and key.strip().lower() in by_name:
        return by_name[key.strip().lower()]
    # A command line gives places as text.
    if isinstance(key, int) or key.strip().isdecimal():
        place = int(key)
        if 1 <= place <= len(bands):
            return bands[place - 1]
        raise SceneError(f"{scene} has no band {place}; it has {_listing(bands)}")
    raise SceneError(f"{scene} has no band named {key!r}; it has {_listing(bands)}")


def _listing(bands: Sequence[Band]) -> str:
    return f"{len(bands)}: " + ", ".join(f"{place} {band.name}" for place, band in enumerate(bands, start=1))


def _stem(band: Band) -> str:
    return PurePosixPath(band.source.replace("\\", "/")).stem.lower()
