"""Which ground is trained on and which is kept for validation: whole blocks, with a gap between.

Neighbouring pixels tell of each other, so a split by pixels or by small tiles flatters a model. Blocks are anchored in
each scene and taken whole; cells that are nearer than the gap to validation ground are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.training.census import TRAIN, UNUSED, VALIDATION, Census, Roles, SceneCensus
from rssegment.training.ground import LabelledScene
from rssegment.training.recipe import SplitOptions

__all__ = ["Split", "split_cells"]

_CANDIDATES = 64  # blocks that are looked at before one is taken


@dataclass(frozen=True, eq=False)
class Split:
    """``roles`` of each scene's cells, and what a user should know of how they came about."""

    roles: Roles
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Units:
    """What is taken whole: ``place`` (U, 3), scene and block; ``areas`` (U, N), labelled ground (m²) by node."""

    place: NDArray[np.int64]
    areas: NDArray[np.float64]


def split_cells(scenes: Sequence[LabelledScene], census: Census, options: SplitOptions, seed: int) -> Split:
    """Splits each source whose role is "split"; scenes of role "train" or "validation" are wholly that.

    Within a source, blocks are taken until validation has its share of the labelled ground, chosen so that each
    class has about that share too; a class that lies in one block only stays in training. Where blocks are so large
    that a scene has no two of them, the scene is trained on. The same for the same seed and source, whatever other
    sources there are. Law: no pixel of a training cell is nearer than ``gap`` to one of a validation cell of its scene.

    Raises
    ------
    InputError
        Nothing is left to train on.
    """
    roles = [
        np.full(found.counts.shape[:2], VALIDATION if scene.role == "validation" else TRAIN, np.uint8)
        for scene, found in zip(scenes, census.scenes, strict=True)
    ]
    remarks: list[str] = []
    if options.validation > 0:
        for source in dict.fromkeys(scene.source for scene in scenes if scene.role == "split"):
            mine = [n for n, s in enumerate(scenes) if s.source == source and s.role == "split"]
            remarks += _split_source(source, mine, census, roles, options, seed)
    split = tuple(roles)
    if not census.area(split):
        raise InputError(
            "no labelled ground is left to train on: give smaller blocks or a smaller gap in split, or another "
            "share for validation"
        )
    if not census.area(split, VALIDATION):
        remarks.append("no labelled ground is kept for validation: scores during training can't be taken")
    return Split(split, tuple(remarks))


def _split_source(  # noqa: PLR0917
    source: str,
    numbers: Sequence[int],
    census: Census,
    roles: list[NDArray[np.uint8]],
    options: SplitOptions,
    seed: int,
) -> list[str]:
    """Marks validation cells and gaps in ``roles``; returns remarks."""
    blocks = {n: _cells(options.block, census.scenes[n], census.cell) for n in numbers}
    gaps = {n: _gap(options.gap, census.scenes[n], census.cell) for n in numbers}
    fit = [
        n
        for n in numbers
        if max(roles[n].shape) >= blocks[n] + gaps[n] + 1 and max(roles[n].shape) > blocks[n]
    ]
    small = [census.scenes[n].name for n in numbers if n not in fit]
    units = _units(fit, blocks, census)
    key = int.from_bytes(hashlib.sha256(source.encode()).digest()[:8], "little")
    chosen = _choose(units.areas, options.validation, np.random.default_rng((seed, key)))
    for scene, row, col in units.place[chosen].tolist():
        side = blocks[scene]
        roles[scene][row * side : (row + 1) * side, col * side : (col + 1) * side] = VALIDATION
    for number in fit:
        held = roles[number] == VALIDATION
        roles[number][_grown(held, gaps[number]) & ~held] = UNUSED
    return _remarks(source, small, len(units.areas), len(chosen), options)


def _remarks(source: str, small: Sequence[str], units: int, chosen: int, options: SplitOptions) -> list[str]:
    found = []
    if small:
        names = ", ".join(small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
        found.append(
            f"too small to be split into blocks of {options.block:g} m with a gap of {options.gap:g} m, so all for "
            f"training: {names} (source {source}); give some a source of their own with role validation, or smaller "
            "blocks"
        )
    if units and not chosen:
        found.append(f"source {source} has too few blocks with labels to keep one for validation")
    return found


def _cells(length: float, scene: SceneCensus, cell: int) -> int:
    """A length in metres as a whole number of the scene's cells, at least 1."""
    return max(1, round(length / (scene.resolution * cell)))


def _gap(length: float, scene: SceneCensus, cell: int) -> int:
    """Cells to leave out between two, so that the centres of their pixels are ``length`` metres apart at least.

    Pixels of cells with d others between them are d * cell + 1 px apart or more.
    """
    return max(0, math.ceil((length / scene.resolution - 1) / cell - 1e-9))


def _units(numbers: Sequence[int], blocks: dict[int, int], census: Census) -> _Units:
    """Blocks that have labels."""
    places: list[NDArray[np.int64]] = [np.empty((0, 3), np.int64)]
    areas: list[NDArray[np.floating]] = [np.empty((0, len(census.codes)))]
    for number in numbers:
        scene, side = census.scenes[number], blocks[number]
        counts = scene.counts[..., :-1].astype(np.int64)
        for axis in range(2):
            counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], side), axis)
        rows, cols = np.nonzero(counts.sum(-1))
        places.append(np.stack([np.full(len(rows), number), rows, cols], 1))
        areas.append(counts[rows, cols] * scene.resolution**2)
    return _Units(np.concatenate(places), np.concatenate(areas).astype(np.float64))


def _choose(areas: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of the units (U, N) whose sum comes nearest to ``share`` of all, in total and by class.

    Greedy: of some units at random the one that brings the sum nearest, until none does; then single units change
    sides as long as that helps and it isn't near enough.
    """
    if len(areas) < 2 or share >= 1:
        return np.arange(len(areas)) if share >= 1 else np.empty(0, np.int64)
    distance = _Distance.of(areas, share)
    chosen, sums = np.zeros(len(areas), np.bool_), np.zeros(distance.units.shape[1])
    order = rng.permutation(len(areas))
    for _ in range(len(areas)):
        rest = order[~chosen[order]]
        # not all: seeds are to differ
        some = rng.choice(rest, min(_CANDIDATES, 1 + len(rest) // 4), replace=False)
        costs = distance(sums + distance.units[some])
        best = int(costs.argmin())
        if costs[best] >= distance(sums) and chosen.any():
            break
        chosen[some[best]], sums = True, sums + distance.units[some[best]]
    return np.flatnonzero(_improved(chosen, sums, distance, order))


def _improved(
    chosen: NDArray[np.bool_], sums: NDArray[np.float64], distance: _Distance, order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """``chosen`` after single units have changed sides, and pairs have changed places, as long as that helps."""
    some = order[: 4 * _CANDIDATES]
    for _ in range(2 * _CANDIDATES):
        inside, outside = some[chosen[some]], some[~chosen[some]]
        leave = np.concatenate([np.zeros((1, len(sums))), -distance.units[inside]])
        enter = np.concatenate([np.zeros((1, len(sums))), distance.units[outside]])
        costs = distance(sums + leave[:, None] + enter[None])
        if chosen.sum() <= 1:
            costs[1:, 0] = np.inf  # one stays
        out, into = np.unravel_index(int(costs.argmin()), costs.shape)
        if distance(sums) <= distance.enough or costs[out, into] >= distance(sums) * (1 - 1e-9):
            break
        for moved, place in ((inside, int(out)), (outside, int(into))):
            if place:
                chosen[moved[place - 1]] ^= True
        sums = distance.units[chosen].sum(0)
    return chosen


@dataclass(frozen=True, eq=False)
class _Distance:
    """How far sums (…, N + 1) of units, the total last, are from what is aimed at: a weighted sum of squares."""

    units: NDArray[np.float64]
    target: NDArray[np.float64]
    weights: NDArray[np.float64]
    enough: float

    @classmethod
    def of(cls, areas: NDArray[np.float64], share: float) -> _Distance:
        units = np.concatenate([areas, areas.sum(1, keepdims=True)], 1)
        units = units[:, units.any(0)] / units.sum(0)[units.any(0)]
        target = np.where((units > 0).sum(0) > 1, share, 0.0)  # a class of one block: for training
        weights = np.full(len(target), 1 / (len(target) - 1))
        weights[-1] = 4.0
        return cls(units, target, weights, (0.05 * share) ** 2)

    def __call__(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = ((sums - self.target) ** 2 * self.weights).sum(-1)
        return found


def _grown(cells: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Cells that are at most ``by`` away from one of ``cells``, down, across or both."""
    for axis in range(2):
        length = cells.shape[axis]
        sums = np.concatenate([np.zeros_like(cells.take([0], axis), np.int64), cells.cumsum(axis)], axis)
        index = np.arange(length)
        cells = sums.take(np.minimum(index + by + 1, length), axis) > sums.take(
            np.maximum(index - by, 0), axis
        )
    return cells
