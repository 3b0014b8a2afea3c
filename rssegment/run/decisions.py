"""From the setting ``decide`` to the rule that blocks follow, and the rasters that tell what was decided."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rssegment.config import Decide, Settings
from rssegment.decode import Backoff, Cost, Leaf, Level, Rule
from rssegment.errors import SettingsError
from rssegment.model import Bundle, Calibration
from rssegment.taxonomy import Taxonomy
from rssegment.write.rasters import RasterKind, confidence_kind, label_kind

__all__ = ["calibration_notes", "legend_of", "levels_of", "raster_kinds", "rule_facts", "rule_of"]


def rule_of(decide: Decide, bundle: Bundle) -> Rule:
    """The rule that ``decide`` means for the classes and the calibration of ``bundle``.

    Raises
    ------
    SettingsError
        There is no such level, the costs don't fit the classes, or the bundle isn't calibrated for it.
    """
    rule = _rule(decide, bundle)
    rule.check(bundle.taxonomy)
    return rule


def _rule(decide: Decide, bundle: Bundle) -> Rule:
    kind, value = decide
    if kind == "level":
        return Level(int(value or 0))
    if kind == "backoff":
        return Backoff(float(value or 0))
    if kind == "conformal":
        return Backoff(_calibration(bundle).threshold(float(value or 0)))
    if kind == "cost":
        return Cost() if value is None else Cost.read(str(value), bundle.taxonomy)
    return Leaf()


def _calibration(bundle: Bundle) -> Calibration:
    if bundle.calibration is None:
        raise SettingsError(
            f"decide is conformal, and the model {bundle.spec.name} has no calibration; make one from scenes with "
            "reference that it was not trained on: rssegment calibrate MODEL SCENE REFERENCE ..., "
            "or give a threshold yourself, as backoff:0.7"
        )
    return bundle.calibration


def calibration_notes(bundle: Bundle, window: str, overlap: int, filled: Sequence[str] = ()) -> Iterator[str]:
    """What to say of a run with ``window`` and ``overlap`` (px) and without the bands ``filled``, if the model was
    calibrated with others.
    """
    measured = bundle.calibration.measured if bundle.calibration else {}
    if list(filled) not in (lacked := measured.get("filled_bands", [list(filled)])):
        others = " and ".join(
            f"without {', '.join(bands)}" if bands else "with all bands" for bands in lacked
        )
        yield (
            f"the model's calibration was measured on scenes {others}: its temperature and thresholds may not hold "
            "for this one; calibrate on scenes with the same bands too"
        )
    then = measured.get("window", window), measured.get("overlap", overlap)
    if then == (window, overlap):
        return
    yield (
        f"the model's calibration was measured with window {then[0]} and overlap {then[1]} px, and this run has "
        f"{window} and {overlap} px: its temperature and thresholds may not hold; take the same, or calibrate again"
    )


def legend_of(taxonomy: Taxonomy, rule: Rule) -> Taxonomy:
    """The classes of the map: those of the model, and "undecided" where ``rule`` may stop above all of them."""
    return taxonomy.with_undecided() if rule.may_stay_open(taxonomy) else taxonomy


def levels_of(settings: Settings, taxonomy: Taxonomy) -> tuple[int, ...]:
    """The levels that get rasters of their own.

    Raises
    ------
    SettingsError
        The taxonomy doesn't have one of them.
    """
    if settings.level_rasters is None:
        return ()
    if settings.level_rasters == "all":
        return tuple(range(1, taxonomy.depth + 1))
    if (deepest := settings.level_rasters[-1]) > taxonomy.depth:
        raise SettingsError(
            f"a raster of level {deepest} was asked for; taxonomy {taxonomy.name!r} has levels 1 to {taxonomy.depth}"
        )
    return settings.level_rasters


def raster_kinds(legend: Taxonomy, levels: tuple[int, ...], margin: bool) -> dict[str, RasterKind]:
    """What each raster of a run holds, by name."""
    labels = label_kind(legend.colormap(), legend.category_names())
    kinds = {"labels": labels, "confidence": confidence_kind()}
    if margin:
        kinds["margin"] = confidence_kind("margin")
    for level in levels:
        kinds |= {f"labels_level{level}": labels, f"confidence_level{level}": confidence_kind()}
    return kinds


def rule_facts(rule: Rule) -> dict[str, Any]:
    """The rule as plain values for fingerprints and records; tables as their SHA-256."""
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    return {"rule": type(rule).__name__.lower()} | {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return hashlib.sha256(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes()).hexdigest()
