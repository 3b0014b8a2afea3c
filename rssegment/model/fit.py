"""Whether a scene suits a model. A mismatch is refused, never guessed at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rssegment.errors import MismatchError
from rssegment.model.spec import ModelSpec

__all__ = ["Fit", "SceneFacts", "check_scene", "match_bands"]

_NAMELESS = re.compile(r"(band[ _-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """What a scene says of itself, and what the user said about it.

    ``band_names`` of its bands, of those that were ``chosen`` if the user picked and ordered them; ``dtype`` as stored;
    ``scaled``: values read are ``stored * scale + offset``; ``ground_resolution`` in metres (down, across);
    ``rescaled``: the user gave the value range that is mapped to the model's; ``doubtful``: name or place of a band
    that isn't among them, as it is marked as alpha, but looks like image data.
    """

    band_names: tuple[str, ...]
    dtype: str
    scaled: bool
    ground_resolution: tuple[float, float]
    chosen: bool = False
    rescaled: bool = False
    doubtful: str | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """How a scene is fed to a model: ``bands`` are places, from 1, among the scene's bands, in the model's order.

    They are None for optional bands that the scene lacks, whose names are ``filled``.
    """

    bands: tuple[int | None, ...]
    notes: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()

    @property
    def present(self) -> tuple[int, ...]:
        """The places of the bands that there are."""
        return tuple(place for place in self.bands if place is not None)


def check_scene(spec: ModelSpec, scene: SceneFacts) -> Fit:
    """The way ``scene`` fits the model of ``spec``, with ``notes`` on what the user should know.

    Raises
    ------
    MismatchError
        Bands, stored type, scaling or ground resolution don't fit.
    """
    bands = match_bands(spec, scene.band_names, chosen=scene.chosen, doubtful=scene.doubtful)
    if not scene.rescaled:
        _check_values(spec, scene.dtype, scene.scaled)
    filled = tuple(name for name, place in zip(spec.band_names, bands, strict=True) if place is None)
    notes = (*_order_notes(spec, scene, bands), *_filling_notes(scene, bands, filled))
    return Fit(bands, (*notes, *_check_resolution(spec, scene.ground_resolution)), filled)


def match_bands(
    spec: ModelSpec, names: Sequence[str], *, chosen: bool = False, doubtful: str | None = None
) -> tuple[int | None, ...]:
    """Places, from 1, of the scene's bands that are the model's, in the model's order; None for those that it lacks.

    By name where the scene has the names of all that the model can't do without; else by order, if the scene's bands
    have no names or the user chose them, and there are as many as the model wants, or as it wants at least.
    ``doubtful`` is as in :class:`SceneFacts`.

    Raises
    ------
    MismatchError
        Neither is possible, or a band without a name may be the one that is lacking.
    """
    folded = [_folded(name) for name in names]
    repeated = [name for name in spec.band_names if folded.count(_folded(name)) > 1]
    if repeated and not chosen:
        raise MismatchError(f"the scene has several bands named {repeated[0]}; say which to use with --bands")
    by_order = _by_order(spec, folded)
    if chosen:  # what a user picks is in the model's order
        found = by_order or (None if repeated else _by_name(spec, folded, every=True))
    else:
        found = _by_name(spec, folded) or (by_order if all(map(_NAMELESS.fullmatch, folded)) else None)
    if found is None:
        raise MismatchError(_band_message(spec, names, chosen))
    if None in found and not chosen:
        _check_clear(spec, names, found, doubtful)
    return found


def _folded(name: str) -> str:
    return name.strip().casefold()


def _by_name(spec: ModelSpec, names: Sequence[str], *, every: bool = False) -> tuple[int | None, ...] | None:
    """Places of the model's bands among ``names``; ``every``: if one is lacking, all names must be the model's."""
    wanted = [_folded(name) for name in spec.band_names]
    found = tuple(names.index(name) + 1 if name in names else None for name in wanted)
    if any(place is None and not band.optional for place, band in zip(found, spec.bands, strict=True)):
        return None
    return None if every and None in found and set(names) - set(wanted) else found


def _by_order(spec: ModelSpec, names: Sequence[str]) -> tuple[int | None, ...] | None:
    """Places in order, of all bands of the model, or of those it can't do without, where no name is another's."""
    if len(names) == len(spec.bands):
        return tuple(range(1, len(names) + 1))
    if len(names) != len(spec.required) or _optional_among(spec, names):
        return None
    places = iter(range(1, len(names) + 1))
    return tuple(None if band.optional else next(places) for band in spec.bands)


def _optional_among(spec: ModelSpec, names: Sequence[str]) -> list[str]:
    """Names of the model's optional bands that are among ``names``."""
    known = {_folded(name) for name in names}
    return [band.name for band in spec.bands if band.optional and _folded(band.name) in known]


def _check_clear(
    spec: ModelSpec, names: Sequence[str], found: tuple[int | None, ...], doubtful: str | None
) -> None:
    """Refuses a scene that may have the band which it seems to lack."""
    unused = [name for place, name in enumerate(names, 1) if place not in found]
    unclear = [name for name in unused if _NAMELESS.fullmatch(_folded(name))]
    if not unclear and doubtful is None:
        return
    lacking = [name for name, place in zip(spec.band_names, found, strict=True) if place is None]
    told = [f"{', '.join(unclear)} without a name"] if unclear else []
    if doubtful is not None:
        told.append(f"an alpha band ({doubtful}) that looks like image data")
        unclear.append(doubtful)
    least = [names[place - 1] for place in found if place is not None]
    spare = iter(unclear)
    full = [next(spare, "") if place is None else names[place - 1] for place in found]
    cure = f"'--bands {','.join(full)}' takes it as {lacking[0]}"
    if len(lacking) != 1 or len(unclear) != 1:
        cure = f"if one is, pick all {len(full)} bands in the model's order with --bands, or give them their names"
    raise MismatchError(
        f"model {spec.name} can use {', '.join(lacking)}, no band of the scene has that name, and the scene has "
        f"{' and '.join(told)}: {cure}; '--bands {','.join(least)}' does without"
    )


def _order_notes(spec: ModelSpec, scene: SceneFacts, bands: tuple[int | None, ...]) -> Iterator[str]:
    pairs = [
        (scene.band_names[i - 1], name)
        for i, name in zip(bands, spec.band_names, strict=True)
        if i is not None
    ]
    if any(own.casefold() != name.casefold() for own, name in pairs):
        yield f"bands are taken by their order: {', '.join(f'{own} as {name}' for own, name in pairs)}"


def _filling_notes(
    scene: SceneFacts, bands: tuple[int | None, ...], filled: tuple[str, ...]
) -> Iterator[str]:
    if not filled:
        return
    means = "its mean" if len(filled) == 1 else "their means"
    unused = [name for place, name in enumerate(scene.band_names, 1) if place not in bands]
    others = f" (not used: {', '.join(unused[:12])}{', ...' if len(unused) > 12 else ''})" if unused else ""
    yield f"the scene lacks {', '.join(filled)}: filled by {means}, as in training{others}"


def _band_message(spec: ModelSpec, names: Sequence[str], chosen: bool) -> str:
    told = (f"{band.name} (optional)" if band.optional else band.name for band in spec.bands)
    wants = f"model {spec.name} wants {len(spec.bands)} bands, {', '.join(told)}"
    has = f"the scene has {len(names)}, {', '.join(names)}"
    known, optional = {_folded(name) for name in names}, _optional_among(spec, names)
    missing = ", ".join(name for name in spec.required if _folded(name) not in known)
    by_order = chosen or all(_NAMELESS.fullmatch(_folded(name)) for name in names)
    lacks = f": no {missing}" if missing and (optional or not by_order) else ""
    least = len(spec.required)
    if len(names) < least or (len(names) == least and optional):
        return f"{wants}; {has}{lacks}; use a scene with these bands, or a model for fewer"
    counts = [count for count in sorted({len(spec.bands), least}, reverse=True) if count <= len(names)]
    examples = (",".join(str(i + 1) for i in range(count)) for count in counts)
    cure = " or ".join(f"'--bands {example}'" for example in examples)
    return f"{wants}; {has}{lacks}; pick them in the model's order with --bands, as {cure}"


def _check_values(spec: ModelSpec, dtype: str, scaled: bool) -> None:
    low, high = spec.value_range
    cure = f"use '--rescale LOW HIGH' with the scene's values that mean {low:g} and {high:g} to the model"
    if scaled != spec.scaled:
        kinds = {True: "scaled (stored * scale + offset)", False: "stored"}
        raise MismatchError(
            f"the scene's values are {kinds[scaled]}, and model {spec.name} was trained on {kinds[spec.scaled]} "
            f"values from {low:g} to {high:g}; {cure}"
        )
    if dtype != spec.dtype:
        raise MismatchError(
            f"the scene stores {dtype}, and model {spec.name} was trained on {spec.dtype} values "
            f"from {low:g} to {high:g}; {cure}"
        )


def _check_resolution(spec: ModelSpec, metres: tuple[float, float]) -> tuple[str, ...]:
    model = spec.ground_resolution
    worst, best = max(metres), min(metres)
    if not best > 0:
        raise MismatchError(
            f"the scene's pixels measure {metres[0]:g} x {metres[1]:g} m; check its transform and CRS"
        )
    if worst > model * spec.resolution_factor * (1 + 1e-6):
        raise MismatchError(
            f"the scene's pixels are {worst:.4g} m, {worst / model:.3g} times those of model {spec.name} "
            f"({model:g} m); at most {spec.resolution_factor:g} times can be bridged; use a sharper scene, "
            f"or a model for about {worst:.2g} m"
        )
    if worst > model * 1.01:
        return (
            f"the scene's pixels ({worst:.4g} m) are coarser than the model's ({model:g} m): "
            "expect fewer small objects",
        )
    return ()
