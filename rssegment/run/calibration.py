"""Calibration: how far a model's probabilities can be trusted, measured on scenes that it was not trained on.

Pixels beside each other err together, so the unit of observation is a *spatial block* of the scene, not a pixel.
Some of the blocks are kept back, and what was found on the others is checked on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.config import Settings, parse_length
from rssegment.decode import Leaf, decide, quantize_confidence
from rssegment.decode.conformal import MissCounts, scores
from rssegment.decode.temperature import fit_temperature
from rssegment.errors import InputError, SettingsError
from rssegment.evaluation import LabelPairs, Reliability
from rssegment.model import Bundle, Calibration, LeafModel, save_calibration
from rssegment.model.saving import calibration_target
from rssegment.run.held_out import Ground, Sampling, Steps, Sweep, log_loss
from rssegment.run.planning import Plan, make_plan
from rssegment.run.progress import Progress
from rssegment.run.references import ReferenceOptions, open_reference
from rssegment.scene import Scene
from rssegment.taxonomy import ClassMapping, Taxonomy

__all__ = ["CalibrationResult", "calibrate"]

COARSE = (0.4, 0.63, 1.0, 1.6, 2.5)  # temperatures tried first, then five around the best
ALPHAS = tuple(round(k / 100, 2) for k in range(1, 51))
CHECKED = (0.05, 0.1, 0.2)  # shares of errors that are checked on the blocks kept back
FEWEST = 8  # spatial blocks, below which nothing can be said

Pair = tuple[str | Path, str | Path]


@dataclass(frozen=True)
class CalibrationResult:
    """What was found: the ``bundle`` that holds it now, and the ``calibration`` with what it was measured on."""

    bundle: Path
    calibration: Calibration

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"bundle": str(self.bundle), **self.calibration.model_dump(mode="json")}

    def __str__(self) -> str:
        facts = self.calibration.measured
        on = f"{facts['blocks_checked']} blocks kept back" if facts["blocks_checked"] else "the same blocks"
        lines = [
            f"temperature {self.calibration.temperature:.3f}, from {facts['blocks']} blocks of "
            f"{facts['spatial_block']}; checked on {on}:",
            f"  {'':<24}{'before':>8}{'after':>8}",
            f"  {'log-loss':<24}{facts['log_loss']['before']:8.4f}{facts['log_loss']['after']:8.4f}",
        ]
        for level, ece in facts["calibration_error"].items():
            name = f"calibration error, level {level}"
            lines.append(f"  {name:<24}{ece['before']:8.4f}{ece['after']:8.4f}")
        for row in facts["coverage"]:
            lines.append(
                f"  conformal:{row['alpha']:g} backs off to P >= {row['tau']:.3f} and is right on "
                f"{row['covered']:.3f} ± {row['half_width']:.3f} of the area (asked: {1 - row['alpha']:g})"
            )
        return "\n".join([*lines, f"  {self.bundle}"])


def calibrate(
    model: str | Path,
    pairs: Sequence[Pair],
    *,
    out: str | Path | None = None,
    settings: Settings | None = None,
    spatial_block: float | str = 100.0,
    check: float = 0.5,
    seed: int = 0,
    mapping: str | Path | None = None,
    column: str | None = None,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Measures on scenes with references how sure ``model`` may be, and stores it in the bundle or a copy at ``out``.

    ``pairs`` are scenes that the model was not trained on, each with its reference: a label raster on the scene's grid,
    or polygons (with the class in ``column``), in codes of the model's classes at any level or as ``mapping`` says. One
    *temperature* for all logits is chosen for the least log-loss of the blended probabilities (Guo et al. 2017), then
    for each share of errors α the threshold of back-off whose expected share of area with a wrong class is at most α in
    a new block (conformal risk control, Angelopoulos et al. 2022). ``spatial_block`` (m, or "256px"): side of the
    blocks that count as one observation; ``check``: share of them, drawn by ``seed``, on which the result is checked
    only.

    Raises
    ------
    InputError
        A scene or reference can't be used or has codes that the model lacks, or there are too few blocks.
    """
    chosen = settings or Settings()
    bundle = Bundle.open(model)
    if not 0 <= check < 1:
        raise SettingsError(f"check is {check}; expected a share of the blocks, 0 or more and less than 1")
    if not pairs:
        raise InputError("no scene was given; calibration needs scenes with references")
    calibration_target(bundle, out)  # before the work, not after it
    how = Sampling(parse_length(spatial_block, "the side of a spatial block"), check, seed)
    classes = None if mapping is None else ClassMapping.load(mapping)
    grounds = [
        _ground(
            make_plan(Scene.open(scene, chosen.scene), bundle, chosen, Path()),
            reference,
            replace(how, scene=index),
            (classes, ReferenceOptions(column=column)),
        )
        for index, (scene, reference) in enumerate(pairs)
    ]
    network = bundle.load(grounds[0].plan.device, calibrated=False)
    told = Steps(progress, 3 * sum(len(ground.blocks) for ground in grounds))
    temperature = _temperature(grounds, network, bundle.taxonomy, told)
    found = _measure(grounds, network, bundle.taxonomy, temperature, told)
    calibration = _calibration(grounds, found, temperature, how)
    stored = save_calibration(bundle.path, calibration, out=out)
    return CalibrationResult(stored.path, calibration)


def _ground(
    plan: Plan, reference: str | Path, how: Sampling, read: tuple[ClassMapping | None, ReferenceOptions]
) -> Ground:
    known = open_reference(reference, plan.geobox, plan.taxonomy, *read)
    side, kept = how.cut(plan.geobox)
    return Ground(plan, known, Path(reference).name, side, kept)


def _temperature(grounds: Sequence[Ground], model: LeafModel, taxonomy: Taxonomy, told: Steps) -> float:
    """The temperature of least log-loss on the blocks that aren't kept back: a coarse search, then a finer one."""
    losses = dict(zip(COARSE, _losses(grounds, model, taxonomy, COARSE, told), strict=True))
    best = min(range(len(COARSE)), key=lambda k: losses[COARSE[k]])
    low, high = COARSE[max(best - 1, 0)], COARSE[min(best + 1, len(COARSE) - 1)]
    finer = tuple(float(t) for t in np.geomspace(low, high, 7)[1:-1])
    losses |= dict(zip(finer, _losses(grounds, model, taxonomy, finer, told), strict=True))
    tried = sorted(losses)
    return round(fit_temperature(np.array(tried), np.array([losses[t] for t in tried])), 4)


def _losses(
    grounds: Sequence[Ground],
    model: LeafModel,
    taxonomy: Taxonomy,
    temperatures: Sequence[float],
    told: Steps,
) -> NDArray[np.float64]:
    """(K,) summed log-loss at each temperature."""
    total = np.zeros(len(temperatures))
    sweep = Sweep(model, temperatures)
    for ground in grounds:
        for box, channels, truth in ground.labelled(sweep, told):
            chosen = np.where(ground.kept.ravel()[ground.spatial_blocks(box)], 0, truth)
            total += log_loss(channels.reshape(len(temperatures), -1, *truth.shape), chosen, taxonomy)
    return total


@dataclass
class _Found:
    """What the last pass gathers: misses by spatial block, of those calibrated on and of those kept back; log-loss,
    pixels and reliability before and after, on what is checked.
    """

    misses: tuple[MissCounts, MissCounts]
    loss: NDArray[np.float64]
    pixels: int
    reliability: tuple[dict[int, Reliability], dict[int, Reliability]]

    @classmethod
    def nothing(cls, capacity: int, levels: Sequence[int]) -> Self:
        before, after = ({level: Reliability.empty() for level in levels} for _ in range(2))
        return cls((MissCounts.empty(capacity), MissCounts.empty(capacity)), np.zeros(2), 0, (before, after))


def _measure(
    grounds: Sequence[Ground], model: LeafModel, taxonomy: Taxonomy, temperature: float, steps: Steps
) -> _Found:
    """What the model is worth with ``temperature`` and without, on the blocks kept back if there are any."""
    capacity = max(math.prod(ground.side) for ground in grounds)
    found = _Found.nothing(capacity, range(1, taxonomy.depth + 1))
    sweep = Sweep(model, (1.0, temperature))
    checks = any(ground.kept.any() for ground in grounds)
    for scene, ground in enumerate(grounds):
        parts: tuple[list[MissCounts], list[MissCounts]] = ([], [])
        for box, channels, truth in ground.labelled(sweep, steps):
            both, blocks = channels.reshape(2, -1, *truth.shape), ground.spatial_blocks(box)
            kept = ground.kept.ravel()[blocks]
            missed = scores(both[1], taxonomy, truth)
            for block in np.unique(blocks[truth > 0]).tolist():
                counts = MissCounts.of(missed[blocks == block], f"{scene}/{block}", capacity)
                parts[int(ground.kept.flat[block])].append(counts)
            checked = np.where(kept == checks, truth, 0).astype(np.uint16)
            found.loss += log_loss(both, checked, taxonomy)
            found.pixels += int(np.count_nonzero(checked))
            for probabilities, reliability in zip(both, found.reliability, strict=True):
                _add_reliability(reliability, probabilities, checked, taxonomy)
        used, back = (
            MissCounts.joined([total, *new]) for total, new in zip(found.misses, parts, strict=True)
        )
        found.misses = used, back
    return found


def _add_reliability(
    reliability: dict[int, Reliability],
    probabilities: NDArray[np.float32],
    truth: NDArray[np.uint16],
    taxonomy: Taxonomy,
) -> None:
    decision = decide(probabilities, taxonomy, Leaf(), truth > 0, tuple(reliability))
    pairs = LabelPairs(decision.codes, truth, taxonomy)
    for level, share in zip(reliability, decision.levels, strict=True):
        quantized = quantize_confidence(share, truth > 0)
        reliability[level] += Reliability.of_labels(pairs, quantized, level)


def _calibration(grounds: Sequence[Ground], found: _Found, temperature: float, how: Sampling) -> Calibration:
    misses, kept = found.misses
    if len(misses) < FEWEST:
        raise InputError(
            f"the references cover {len(misses)} spatial blocks to calibrate on; at least {FEWEST} are needed: "
            "give more scenes, or smaller blocks by --spatial-block"
        )
    thresholds = {f"{alpha:.2f}": tau for alpha, tau in _thresholds(misses)}
    checked = kept if len(kept) else misses
    before, after = ({k: _rounded(r.ece) for k, r in each.items()} for each in found.reliability)
    measured = {
        "scenes": [ground.plan.scene.name for ground in grounds],
        "references": [ground.name for ground in grounds],
        "spatial_block": f"{how.side.value:g} {how.side.unit}",
        "seed": how.seed,
        "blocks": len(misses),
        "blocks_checked": len(kept),
        "pixels": found.pixels,
        "log_loss": {
            name: _rounded(loss / max(1, found.pixels))
            for name, loss in zip(("before", "after"), found.loss, strict=True)
        },
        "calibration_error": {str(k): {"before": before[k], "after": after[k]} for k in before},
        "coverage": [
            _covered(checked, alpha, thresholds[f"{alpha:.2f}"])
            for alpha in CHECKED
            if f"{alpha:.2f}" in thresholds
        ],
        "window": grounds[0].plan.settings.window,
        "overlap": grounds[0].plan.lattice.overlap,
        "rssegment": version("rssegment"),
        "date": datetime.now(UTC).date().isoformat(),
    }
    return Calibration(temperature=temperature, thresholds=thresholds, measured=measured)


def _thresholds(misses: MissCounts) -> Iterator[tuple[float, float]]:
    """Each share of errors that so many blocks can keep to, with its threshold."""
    for alpha in ALPHAS:
        with suppress(InputError):  # too few blocks, or too much is wrong, for so small a share
            yield alpha, misses.threshold(alpha)


def _covered(misses: MissCounts, alpha: float, tau: float) -> dict[str, float | None]:
    share, half = misses.coverage(tau)
    return {"alpha": alpha, "tau": tau, "covered": _rounded(share), "half_width": _rounded(half)}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 5)
