"""Which ground is trained on and which is kept for validation: whole blocks, with a gap between.

Neighbouring pixels tell of each other, so a split by pixels or by small tiles flatters a model. Blocks lie on the
ground: all scenes that show it, or lie near it, share them. What is nearer than the gap to validation ground is left
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.training.blocks import Blocks
from rssegment.training.census import TRAIN, UNUSED, VALIDATION, Census, Roles, SceneCensus
from rssegment.training.ground import LabelledScene
from rssegment.training.planes import groups_of
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
    """What is taken whole: ``place`` (U, 2), group and block; ``classes`` (U, N) and ``sources`` (U, S), labelled
    ground (m²) by node and by source."""

    place: NDArray[np.int64]
    classes: NDArray[np.float64]
    sources: NDArray[np.float64]


def split_cells(scenes: Sequence[LabelledScene], census: Census, options: SplitOptions, seed: int) -> Split:
    """Splits scenes whose role is "split"; those of role "train" or "validation" are wholly that.

    Scenes within a block and a gap of each other share one grid of blocks on the ground; others, and pictures without a
    place on Earth, have grids of their own, and what is too small to be divided is one block. Of each source, blocks
    are taken until validation has its share of the labelled ground, chosen so that each class has about that share too;
    a class that lies in one block only stays in training. Sources that share ground are split together. The same for
    the same seed and source, whatever other sources there are elsewhere. Law: no pixel of a training cell is nearer
    than ``gap`` to one of a validation cell, where one of the two is of a scene with role "split".

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
        for groups in _together(scenes, options.block + options.gap):
            remarks += _split_groups(groups, scenes, census, roles, options, seed)
    split = tuple(roles)
    if not census.area(split):
        raise InputError(
            "no labelled ground is left to train on: give smaller blocks or a smaller gap in split, or another "
            "share for validation"
        )
    if not census.area(split, VALIDATION):
        remarks.append("no labelled ground is kept for validation: scores during training can't be taken")
    return Split(split, tuple(remarks))


def _together(scenes: Sequence[LabelledScene], reach: float) -> Iterator[list[list[int]]]:
    """Groups of scenes that are to be split, by the sources that they are of."""
    groups = [group for group in groups_of(scenes, reach) if any(scenes[n].role == "split" for n in group)]
    sources = [{scenes[n].source for n in group if scenes[n].role == "split"} for group in groups]
    heads: dict[str, str] = {}

    def head(source: str) -> str:
        while heads.setdefault(source, source) != source:
            source = heads[source]
        return source

    for each in sources:
        first, *others = sorted(head(source) for source in each)
        heads.update(dict.fromkeys(others, first))
    found: dict[str, list[list[int]]] = {}
    for group, each in zip(groups, sources, strict=True):
        found.setdefault(head(min(each)), []).append(group)
    yield from found.values()


def _split_groups(  # noqa: PLR0917
    groups: Sequence[Sequence[int]],
    scenes: Sequence[LabelledScene],
    census: Census,
    roles: list[NDArray[np.uint8]],
    options: SplitOptions,
    seed: int,
) -> list[str]:
    """Marks validation cells and gaps in ``roles``; returns remarks."""
    blocks = [Blocks.under({n: scenes[n] for n in group}, census.cell, options) for group in groups]
    mine = [[n for n in group if scenes[n].role == "split"] for group in groups]
    names = sorted({scenes[n].source for group in mine for n in group})
    units = _units(mine, blocks, names, census)
    key = int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:8], "little")
    chosen = _choose(units, options.validation, np.random.default_rng((seed, key)))
    for number, (grid, group) in enumerate(zip(blocks, groups, strict=True)):
        held = units.place[chosen][units.place[chosen, 0] == number, 1]
        for n in mine[number]:
            roles[n][:] = grid.roles(n, held)
            _keep_apart(n, group, scenes, grid, roles)
    told = f"source{'s' * (len(names) > 1)} {', '.join(names)}"
    if len(units.place) and not len(chosen) and options.validation < 1:
        return [f"{told}: too few blocks of {options.block:g} m with labels to keep one for validation"]
    return [f"{told} show the same ground, or ground side by side: split together"] if len(names) > 1 else []


def _keep_apart(
    number: int,
    group: Sequence[int],
    scenes: Sequence[LabelledScene],
    blocks: Blocks,
    roles: list[NDArray[np.uint8]],
) -> None:
    """Leaves out cells of a scene that are near to scenes which are wholly for the other purpose."""
    if scenes[number].geobox is None:
        return
    for role, mark in (("train", VALIDATION), ("validation", TRAIN)):
        others = [n for n in group if scenes[n].role == role]
        if others:
            roles[number][blocks.near(number, others) & (roles[number] == mark)] = UNUSED


def _units(
    groups: Sequence[Sequence[int]], blocks: Sequence[Blocks], names: Sequence[str], census: Census
) -> _Units:
    """Blocks that have labels."""
    width = len(census.codes) + len(names)
    places: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    areas: list[NDArray[np.float64]] = [np.empty((0, width))]
    for number, (group, grid) in enumerate(zip(groups, blocks, strict=True)):
        for n in group:
            homes, found = _areas(census.scenes[n], grid.home(n))
            part = np.zeros((len(homes), width))
            part[:, : len(census.codes)] = found
            part[:, len(census.codes) + names.index(census.scenes[n].source)] = found.sum(1)
            places.append(np.stack([np.full(len(homes), number), homes], 1))
            areas.append(part)
    place, inverse = np.unique(np.concatenate(places), axis=0, return_inverse=True)
    total = np.zeros((len(place), width))
    np.add.at(total, inverse.reshape(-1), np.concatenate(areas))
    return _Units(place, total[:, : len(census.codes)], total[:, len(census.codes) :])


def _areas(scene: SceneCensus, home: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Blocks (u,) in which cells of a scene have labels, and of what area (m²) by node (u, N)."""
    counts = scene.counts[..., :-1]
    some = counts.any(-1) & (home >= 0)
    homes, inverse = np.unique(home[some], return_inverse=True)
    areas = [np.bincount(inverse, counts[..., node][some], len(homes)) for node in range(counts.shape[-1])]
    return homes, np.stack(areas, 1, dtype=np.float64) * scene.resolution**2


def _choose(units: _Units, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of the units whose sum comes nearest to ``share`` of all, in total, by class and by source.

    Greedy: of some units at random the one that brings the sum nearest, until none does; then single units change
    sides as long as that helps and it isn't near enough.
    """
    count = len(units.place)
    if count < 2 or share >= 1:
        return np.arange(count) if share >= 1 else np.empty(0, np.int64)
    distance = _Distance.of(units, share)
    chosen, sums = np.zeros(count, np.bool_), np.zeros(distance.units.shape[1])
    order = rng.permutation(count)
    rest = order.copy()
    for left in range(count, 0, -1):
        # not all: seeds are to differ
        some = rng.choice(left, min(_CANDIDATES, 1 + left // 4), replace=False)
        costs = distance(sums + distance.units[rest[some]])
        best = int(costs.argmin())
        if costs[best] >= distance(sums) and chosen.any():
            break
        taken = rest[some[best]]
        chosen[taken], sums = True, sums + distance.units[taken]
        rest[some[best]] = rest[left - 1]
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
    def of(cls, units: _Units, share: float) -> _Distance:
        # ground that several sources show counts once in total
        parts = [(units.classes, 1.0), (units.sources.max(1, keepdims=True), 4.0)]
        if units.sources.shape[1] > 1:
            parts.insert(1, (units.sources, 2.0))
        areas = np.concatenate([part for part, _ in parts], 1)
        weights = np.concatenate(
            [np.full(part.shape[1], weight / part.any(0).sum()) for part, weight in parts]
        )
        known = areas.any(0)
        columns = areas[:, known] / areas[:, known].sum(0)
        target = np.where((columns > 0).sum(0) > 1, share, 0.0)  # a class of one block: for training
        return cls(columns, target, weights[known], (0.05 * share) ** 2)

    def __call__(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = ((sums - self.target) ** 2 * self.weights).sum(-1)
        return found
