"""What was measured about a model after its training: a temperature, and thresholds that keep errors rare."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from rssegment.errors import BundleError, SettingsError
from rssegment.model.spec import Facts

__all__ = ["Calibration", "read_calibration"]

_NAMES = ("temperature", "thresholds", "measured")


class Calibration(Facts):
    """The file ``calibration-….json`` of a bundle.

    ``temperature`` divides a model's leaf logits (Guo et al. 2017). ``thresholds`` are the probabilities τ at which
    backing off is wrong on at most a share α of the area, by α as text: ``{"0.10": 0.83}``; the smaller α, the higher
    τ. ``measured`` are free facts: on what scenes, how many pixels, what errors.
    """

    subject: ClassVar[str] = "calibration"

    temperature: Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)] = 1.0
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]] = Field(
        default_factory=dict
    )
    measured: dict[str, Any] = Field(default_factory=dict)

    @field_validator("thresholds")
    @classmethod
    def _in_order(cls, thresholds: dict[str, float]) -> dict[str, float]:
        pairs = sorted((_alpha(text), tau, text) for text, tau in thresholds.items())
        for (low, above, first), (high, below, second) in pairwise(pairs):
            if low == high:
                raise ValueError(f"{first} and {second} are the same share of errors; keep one")
            if below > above:
                raise ValueError(
                    f"the threshold {below:g} for {second} is higher than {above:g} for {first}; "
                    "fewer errors can't need a lower one"
                )
        return dict(sorted(thresholds.items(), key=lambda pair: float(pair[0])))

    @field_validator("measured")
    @classmethod
    def _plain(cls, measured: dict[str, Any]) -> dict[str, Any]:
        try:
            same: dict[str, Any] = json.loads(json.dumps(measured, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"these facts can't be written as JSON: {error}") from error
        return same

    def threshold(self, alpha: float) -> float:
        """τ for a share of errors ``alpha``: the one on file, else that of the next smaller share, which is safer.

        Raises
        ------
        SettingsError
            There is none for this share or a smaller one; says which there are.
        """
        known = {float(text): tau for text, tau in self.thresholds.items()}
        safe = [share for share in known if share <= alpha or math.isclose(share, alpha, rel_tol=1e-9)]
        if safe:
            return known[max(safe)]
        there = f"has them from {min(known):g} to {max(known):g}" if known else "has none"
        raise SettingsError(
            f"no threshold keeps errors to a share of {alpha:g}: the model's calibration {there}; "
            "ask for a larger share, or calibrate the model on more scenes or smaller spatial blocks"
        )

    def dump(self) -> str:
        """The text of the file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file.

    Raises
    ------
    BundleError
        It is damaged, or says what can't be.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} can't be read: {error}; calibrate the model again") from error
    if not isinstance(found, Mapping) or "temperature" not in found:
        raise BundleError(f"{path} is no calibration: expected an object with {', '.join(_NAMES)}")
    try:
        return Calibration(**found)
    except BundleError as error:
        raise BundleError(f"{path}: {error}; calibrate the model again") from error


def _alpha(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise ValueError(f"{text!r} is no share of errors between 0 and 1, as '0.1'")
    return share
