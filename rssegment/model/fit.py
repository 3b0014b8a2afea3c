"""Whether a scene suits a model. A mismatch is refused, never guessed at."""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    ``rescaled``: the user gave the value range that is mapped to the model's.
    """

    band_names: tuple[str, ...]
    dtype: str
    scaled: bool
    ground_resolution: tuple[float, float]
    chosen: bool = False
    rescaled: bool = False


@dataclass(frozen=True, slots=True)
class Fit:
    """How a scene is fed to a model: ``bands`` are places, from 1, among the scene's bands, in the model's order."""

    bands: tuple[int, ...]
    notes: tuple[str, ...] = ()


def check_scene(spec: ModelSpec, scene: SceneFacts) -> Fit:
    """The way ``scene`` fits the model of ``spec``, with ``notes`` on what the user should know.

    Raises
    ------
    MismatchError
        Bands, stored type, scaling or ground resolution don't fit.
    """
    bands = match_bands(spec, scene.band_names, chosen=scene.chosen)
    if not scene.rescaled:
        _check_values(spec, scene.dtype, scene.scaled)
    notes = []
    if [scene.band_names[i - 1].casefold() for i in bands] != [name.casefold() for name in spec.band_names]:
        pairs = (
            f"{scene.band_names[i - 1]} as {name}" for i, name in zip(bands, spec.band_names, strict=True)
        )
        notes.append(f"bands are taken by their order: {', '.join(pairs)}")
    return Fit(bands, (*notes, *_check_resolution(spec, scene.ground_resolution)))


def match_bands(spec: ModelSpec, names: Sequence[str], *, chosen: bool = False) -> tuple[int, ...]:
    """Places, from 1, of the scene's bands that are the model's, in the model's order.

    By name where the scene has every name of the model's; else by order, if the scene's bands have no names
    or the user chose them, and there are as many as the model wants.

    Raises
    ------
    MismatchError
        Neither is possible.
    """
    folded = [name.strip().casefold() for name in names]
    wanted = [name.strip().casefold() for name in spec.band_names]
    repeated = [name for name in spec.band_names if folded.count(name.strip().casefold()) > 1]
    if repeated and not chosen:
        raise MismatchError(f"the scene has several bands named {repeated[0]}; say which to use with --bands")
    if chosen and len(names) == len(wanted):
        return tuple(range(1, len(wanted) + 1))
    if set(wanted) <= set(folded) and not repeated:
        return tuple(folded.index(name) + 1 for name in wanted)
    by_order = chosen or all(_NAMELESS.fullmatch(name) for name in folded)
    if by_order and len(names) == len(wanted):
        return tuple(range(1, len(wanted) + 1))
    raise MismatchError(_band_message(spec, names, by_order))


def _band_message(spec: ModelSpec, names: Sequence[str], by_order: bool) -> str:
    wants = f"model {spec.name} wants {len(spec.bands)} bands, {', '.join(spec.band_names)}"
    has = f"the scene has {len(names)}, {', '.join(names)}"
    if len(names) < len(spec.bands):
        return f"{wants}; {has}; use a scene with these bands, or a model for fewer"
    example = ",".join(str(i + 1) for i in range(len(spec.bands)))
    if by_order:
        return f"{wants}; {has}; pick them in the model's order with --bands, as '--bands {example}'"
    known = {name.strip().casefold() for name in names}
    missing = ", ".join(name for name in spec.band_names if name.strip().casefold() not in known)
    return (
        f"{wants}; {has}: no {missing}; pick them in the model's order with --bands, as '--bands {example}'"
    )


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
