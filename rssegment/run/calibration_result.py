"""What calibration found, for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rssegment.model import Calibration

__all__ = ["CalibrationResult"]


@dataclass(frozen=True)
class CalibrationResult:
    """What was found: the ``bundle`` that holds it now, and the ``calibration`` with what it was measured on."""

    bundle: Path
    calibration: Calibration

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"bundle": str(self.bundle), **self.calibration.model_dump(mode="json")}

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of how it was measured."""
        return tuple(self.calibration.measured["remarks"])

    def __str__(self) -> str:
        facts = self.calibration.measured
        on = f"{facts['blocks_checked']} blocks kept back" if facts["blocks_checked"] else "the same blocks"
        lines = [
            f"temperature {self.calibration.temperature:.3f}, from {facts['blocks']} blocks of "
            f"{facts['spatial_block']}; checked on {on}:",
            f"  {'':<28}{'before':>8}{'after':>8}",
            f"  {'log-loss':<28}{_columns(facts['log_loss'])}",
        ]
        for level, ece in facts["calibration_error"].items():
            lines.append(f"  {f'calibration error, level {level}':<28}{_columns(ece)}")
        for row in facts["coverage"]:
            lines.append(
                f"  conformal:{row['alpha']:g} backs off to P >= {row['tau']:.3f} and is right on "
                f"{row['covered']:.3f} ± {row['half_width']:.3f} of the area (asked: {1 - row['alpha']:g})"
            )
        notes = [f"  note: {remark}" for remark in self.remarks]
        return "\n".join([*lines, *notes, f"  {self.bundle}"])


def _columns(each: dict[str, float | None]) -> str:
    """Before and after, where either may not be known: no pixel has a label of that level."""
    return "".join(f"{'–' if each[k] is None else format(each[k], '.4f'):>8}" for k in ("before", "after"))
