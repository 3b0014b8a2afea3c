"""Calibration: how far a model's probabilities can be trusted, measured on scenes that it was not trained on.

Pixels beside each other err together, so the unit of observation is a *spatial block* of the scene, not a pixel.
Some of the blocks are kept back, and what was found on the others is checked on them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rssegment.config import Settings, parse_length
from rssegment.decode import Leaf, decide, quantize_confidence
from rssegment.decode.conformal import MissCounts, scores
from rssegment.decode.temperature import TEMPERATURES, fit_temperature
from rssegment.errors import InputError
from rssegment.evaluation import LabelPairs, Reliability
from rssegment.grid import BlockGrid
from rssegment.model import Bundle, Calibration, LeafModel, save_calibration
from rssegment.model.saving import calibration_target
from rssegment.reference.references import ReferenceOptions, open_reference
from rssegment.reference.same_ground import check_apart
from rssegment.run.calibration_result import CalibrationResult
from rssegment.run.held_out import EQUAL, LOOK, Ground, Sampling, Steps, default_side, look, with_weights
from rssegment.run.planning import Plan, make_plan
from rssegment.run.progress import Progress
from rssegment.run.sweeps import Effort, Sweep, log_loss
from rssegment.scene import Scene
from rssegment.taxonomy import ClassMapping, Taxonomy

__all__ = ["CalibrationResult", "calibrate"]

COARSE = tuple(
    round(t, 4) for t in TEMPERATURES[::4].tolist()
)  # temperatures tried first, then five around the best
SWEEPS = (len(COARSE), 5, 2)  # temperatures of each sweep over the scenes: coarse, finer, before and after
ALPHAS = tuple(round(k / 100, 2) for k in range(1, 51))
CHECKED = (0.05, 0.1, 0.2)  # shares of errors that are checked on the blocks kept back
MANY = 1000  # counts that are kept apart before they are added up

Pair = tuple[str | Path, str | Path]


def calibrate(
    model: str | Path,
    pairs: Sequence[Pair],
    *,
    out: str | Path | None = None,
    settings: Settings | None = None,
    spatial_block: float | str | None = None,
    check: float = 0.5,
    seed: int = 0,
    mapping: str | Path | None = None,
    column: str | None = None,
    progress: Progress | None = None,
) -> CalibrationResult:
    """Measures on scenes with references how sure ``model`` may be, and stores it in the bundle or a copy at ``out``.

    ``pairs`` are scenes of different ground that the model was not trained on, each with its reference: a label raster
    on the scene's grid, or polygons (with the class in ``column``), in codes of the model's classes at any level or as
    ``mapping`` says. One *temperature* for all logits is chosen for the least log-loss of the blended probabilities
    (Guo et al. 2017), then for each share of errors α the threshold of back-off whose expected share of area with a
    wrong class is at most α in a new block (conformal risk control, Angelopoulos et al. 2022). Both weigh pixels by
    their area, where scenes differ in pixel size. ``spatial_block`` (m, or "256px"): side of the blocks that count as
    one observation; by default as much as a patch of the model sees, and 100 m at least. ``check``: share of those with
    labels, drawn by ``seed``, on which the result is checked only.

    Raises
    ------
    InputError
        A scene or reference can't be used or has codes that the model lacks, two scenes show the same ground, or there
        are too few blocks; all before the model runs.
    """
    chosen, bundle = settings or Settings(), Bundle.open(model)
    side = default_side(bundle.spec) if spatial_block is None else parse_length(spatial_block, _SIDE)
    how = Sampling(side, check, seed)
    if not pairs:
        raise InputError("no scene was given; calibration needs scenes with references")
    calibration_target(bundle, out)  # before the work, not after it
    plans = [make_plan(Scene.open(scene, chosen.scene), bundle, chosen, Path()) for scene, _ in pairs]
    check_apart([(str(scene), plan.geobox) for (scene, _), plan in zip(pairs, plans, strict=True)])
    read = None if mapping is None else ClassMapping.load(mapping), ReferenceOptions(column=column)
    grounds = _grounds(plans, [reference for _, reference in pairs], how, read, progress)
    measured = _Measured.on(grounds, bundle, chosen, progress)
    stored = save_calibration(bundle, measured.calibration(how), out=out)
    assert stored.calibration is not None, "it was written"
    return CalibrationResult(stored.path, stored.calibration)


_SIDE = "the side of a spatial block"


def _grounds(
    plans: Sequence[Plan],
    references: Sequence[str | Path],
    how: Sampling,
    read: tuple[ClassMapping | None, ReferenceOptions],
    progress: Progress | None,
) -> list[Ground]:
    """Scenes with their references and what is kept back of each: all that can be known from the labels."""
    opened = [
        open_reference(path, plan.geobox, plan.taxonomy, *read)
        for plan, path in zip(plans, references, strict=True)
    ]
    cuts = [how.cut(plan.geobox) for plan in plans]
    told = Steps(progress, "labels", sum(len(BlockGrid(cut.shape, LOOK)) for cut in cuts))
    labelled = [
        look(plan, reference, str(path), cut, told)
        for plan, reference, path, cut in zip(plans, opened, references, cuts, strict=True)
    ]
    kept = how.draw([pixels > 0 for pixels in labelled])
    parts = zip(plans, opened, (Path(path).name for path in references), cuts, labelled, kept, strict=True)
    return with_weights([Ground(*part) for part in parts])


@dataclass
class _Tally:
    """Log-loss by area, and reliability by pixels, at one temperature."""

    levels: Sequence[int]
    loss: float = 0.0
    reliability: dict[int, Reliability] = field(init=False)

    def __post_init__(self) -> None:
        self.reliability = {level: Reliability.empty() for level in self.levels}

    def add(
        self,
        probabilities: NDArray[np.float32],
        truth: NDArray[np.uint16],
        taxonomy: Taxonomy,
        weight: int,
    ) -> None:
        """What probabilities (L, h, w) are worth beside true codes (h, w)."""
        self.loss += weight * float(log_loss(probabilities[None], truth, taxonomy)[0])
        decision = decide(probabilities, taxonomy, Leaf(), truth > 0, tuple(self.levels))
        pairs = LabelPairs(decision.codes, truth, taxonomy)
        for level, share in zip(self.levels, decision.levels, strict=True):
            quantized = quantize_confidence(share, truth > 0)
            self.reliability[level] += Reliability.of_labels(pairs, quantized, level)


@dataclass
class _Measured:
    """What was found on the ``grounds``: the temperature, misses by spatial block with it, and tallies before and after
    of what is ``checked``.
    """

    grounds: Sequence[Ground]
    checked: Sequence[NDArray[np.bool_]]
    temperature: float
    misses: MissCounts
    tallies: Sequence[_Tally]
    bundle: Bundle

    @classmethod
    def on(
        cls, grounds: Sequence[Ground], bundle: Bundle, settings: Settings, progress: Progress | None
    ) -> _Measured:
        """Runs the model over the grounds."""
        plans = [ground.plan for ground in grounds]
        effort = Effort.of(settings, plans, SWEEPS)
        network = bundle.load(plans[0].device, calibrated=False)
        told = Steps(progress, "calibrate", effort.steps(plans, SWEEPS))
        temperature = _temperature(grounds, network, effort, told)
        # the one place that says what the result is checked on
        back = any(ground.kept.any() for ground in grounds)
        checked = [ground.kept if back else ground.used for ground in grounds]
        levels = range(1, bundle.taxonomy.depth + 1)
        empty = MissCounts.empty(max(ground.capacity for ground in grounds))
        found = cls(grounds, checked, temperature, empty, (_Tally(levels), _Tally(levels)), bundle)
        found._measure(network, effort, told)
        return found

    def _measure(self, model: LeafModel, effort: Effort, told: Steps) -> None:
        taxonomy = self.bundle.taxonomy
        temperatures: Sequence[float] = (1.0, self.temperature)
        for group in effort.grouped(len(temperatures)):
            sweep = Sweep(model, temperatures[group])
            last = group.stop == len(temperatures)  # misses are those at the temperature found
            for scene, (ground, checked) in enumerate(zip(self.grounds, self.checked, strict=True)):
                chosen = checked | ground.used if last else checked
                parts = [self.misses]
                for box, channels, truth in ground.predicted(sweep, effort.side, chosen, told):
                    each = channels.reshape(len(temperatures[group]), -1, *truth.shape)
                    blocks = ground.blocks.numbers(box)
                    there = np.where(checked.ravel()[blocks], truth, 0).astype(np.uint16)
                    for tally, probabilities in zip(self.tallies[group], each, strict=True):
                        tally.add(probabilities, there, taxonomy, ground.weight)
                    if last:
                        missed = scores(each[-1], taxonomy, truth)
                        parts += _misses(missed, blocks, f"{scene}", ground.weight, self.misses.capacity)
                        parts = [MissCounts.joined(parts)] if len(parts) > MANY else parts
                self.misses = MissCounts.joined(parts)

    def of(self, chosen: Sequence[NDArray[np.bool_]]) -> MissCounts:
        """The misses of the ``chosen`` blocks (rows, cols) of each ground."""
        return self.misses.only(
            f"{scene}/{block}" for scene, each in enumerate(chosen) for block in np.flatnonzero(each).tolist()
        )

    def calibration(self, how: Sampling) -> Calibration:
        """What is stored, for blocks that were drawn so."""
        used, checked = self.of([ground.used for ground in self.grounds]), self.of(self.checked)
        thresholds = {f"{alpha:.2f}": tau for alpha, tau in _thresholds(used)}
        before, after = ({k: _rounded(r.ece) for k, r in each.reliability.items()} for each in self.tallies)
        plan = self.grounds[0].plan
        losses = {
            name: _rounded(tally.loss / int(checked.area.sum()))
            for name, tally in zip(("before", "after"), self.tallies, strict=True)
        }
        measured = {
            "scenes": [ground.plan.scene.name for ground in self.grounds],
            "references": [ground.name for ground in self.grounds],
            "spatial_block": str(how),
            "seed": how.seed,
            "blocks": len(used),
            "blocks_checked": sum(int(ground.kept.sum()) for ground in self.grounds),
            "pixels": sum(
                int(g.labelled[each].sum()) for g, each in zip(self.grounds, self.checked, strict=True)
            ),
            "log_loss": losses,
            "calibration_error": {str(k): {"before": before[k], "after": after[k]} for k in before},
            "coverage": [
                _covered(checked, alpha, thresholds[f"{alpha:.2f}"])
                for alpha in CHECKED
                if f"{alpha:.2f}" in thresholds
            ],
            "window": plan.settings.window,
            "overlap": plan.lattice.overlap,
            "batch": plan.batch,
            "filled_bands": sorted({ground.plan.filled for ground in self.grounds}),
            "remarks": [
                *_remarks(self.grounds, how, thresholds),
                *_doubts(self.temperature, losses["before"], losses["after"]),
            ],
            "rssegment": version("rssegment"),
            "date": datetime.now(UTC).date().isoformat(),
        }
        return Calibration(temperature=self.temperature, thresholds=thresholds, measured=measured)


def _temperature(grounds: Sequence[Ground], model: LeafModel, effort: Effort, told: Steps) -> float:
    """The temperature of least log-loss on the blocks that aren't kept back: a coarse search, then a finer one."""
    losses = dict(zip(COARSE, _losses(grounds, model, COARSE, effort, told), strict=True))
    best = min(range(len(COARSE)), key=lambda k: losses[COARSE[k]])
    low, high = COARSE[max(best - 1, 0)], COARSE[min(best + 1, len(COARSE) - 1)]
    finer = tuple(float(t) for t in np.geomspace(low, high, 7)[1:-1])
    losses |= dict(zip(finer, _losses(grounds, model, finer, effort, told), strict=True))
    tried = sorted(losses)
    return round(fit_temperature(np.array(tried), np.array([losses[t] for t in tried])), 4)


def _losses(
    grounds: Sequence[Ground], model: LeafModel, temperatures: Sequence[float], effort: Effort, told: Steps
) -> NDArray[np.float64]:
    """(K,) log-loss at each temperature, summed over area."""
    total = np.zeros(len(temperatures))
    for group in effort.grouped(len(temperatures)):
        sweep = Sweep(model, temperatures[group])
        for ground in grounds:
            for _, channels, truth in ground.predicted(sweep, effort.side, ground.used, told):
                each = channels.reshape(len(temperatures[group]), -1, *truth.shape)
                total[group] += ground.weight * log_loss(each, truth, ground.plan.taxonomy)
    return total


def _misses(
    missed: NDArray[np.float32], blocks: NDArray[np.int64], scene: str, weight: int, capacity: int
) -> Iterator[MissCounts]:
    """Counts of the scores (h, w) by spatial block."""
    for block in np.unique(blocks[~np.isnan(missed)]).tolist():
        yield MissCounts.of(missed[blocks == block], f"{scene}/{block}", capacity, weight)


def _remarks(grounds: Sequence[Ground], how: Sampling, thresholds: dict[str, float]) -> Iterator[str]:
    """What to know before the numbers are trusted."""
    spec = grounds[0].plan.spec
    patch = spec.patch * spec.ground_resolution
    if min(how.metres(ground.plan.geobox) for ground in grounds) < patch * (1 - EQUAL):
        yield (
            f"spatial blocks of {how} are smaller than the model's patch ({patch:g} m, {spec.patch} px of "
            f"{spec.ground_resolution:g} m): mistakes of one patch count as several observations, so intervals are too "
            "narrow"
        )
    if not thresholds:
        yield "no threshold can be promised for any share of errors up to 0.5; conformal decisions need more blocks"
    elif (least := float(min(thresholds, key=float))) > CHECKED[0]:
        yield (
            f"the least share of errors that can be promised is {least:g}; for less, as conformal:{CHECKED[0]:g}, more "
            "scenes are needed"
        )
    for ground in grounds:
        yield from ground.reference.remarks
    for filled in sorted({ground.plan.filled for ground in grounds} - {()}):
        scenes = ", ".join(ground.plan.scene.name for ground in grounds if ground.plan.filled == filled)
        yield f"{scenes}: no {', '.join(filled)}, filled as in training"


def _doubts(temperature: float, before: float | None, after: float | None) -> Iterator[str]:
    """What is odd about a temperature."""
    if temperature in (COARSE[0], COARSE[-1]):
        yield (
            f"the temperature is the last that was tried, {temperature:g}: the model is far too sure or unsure here; "
            "is this the kind of ground that it was trained for?"
        )
    if before is not None and after is not None and after > before:
        yield (
            f"on the blocks that it was checked on, the temperature makes the log-loss worse ({before:.4f} to "
            f"{after:.4f}): there are too few scenes to tell; calibrate on more"
        )


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
