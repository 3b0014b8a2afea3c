"""Scenes held out from training, cut into blocks that count as one observation each.

Which blocks have labels is known from the references alone, so what is drawn among them, and whether they are enough,
is settled before a model runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.config import Length
from rssegment.errors import InputError, SettingsError
from rssegment.grid import BlockGrid, Box, ground_resolution
from rssegment.model import LeafModel, ModelSpec
from rssegment.predict import leased
from rssegment.reference.references import Reference
from rssegment.run.block import strips
from rssegment.run.planning import Plan
from rssegment.run.progress import Progress

__all__ = ["FEWEST", "Ground", "Sampling", "SpatialBlocks", "Steps", "default_side", "look", "with_weights"]

FEWEST = 8  # spatial blocks, below which nothing can be said
SHORTEST = 100.0  # m, of a spatial block's side unless told
LOOK = 2048  # px: side of what is read of a reference at a time
UNIT = 1000  # units of area in the smallest pixel, where scenes differ
EQUAL = (
    5e-3  # pixels whose areas differ by less have the same size: the scale of a map projection does as much
)


def default_side(spec: ModelSpec) -> Length:
    """The side of spatial blocks in metres: as much ground as one patch sees, and 100 m at least."""
    return Length(max(SHORTEST, spec.patch * spec.ground_resolution), "m")


@dataclass(frozen=True)
class SpatialBlocks:
    """The spatial blocks of a scene of ``shape`` px, each of ``side`` (rows, cols) px; the last ones are smaller."""

    shape: tuple[int, int]
    side: tuple[int, int]

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Number of blocks down and across."""
        return math.ceil(self.shape[0] / self.side[0]), math.ceil(self.shape[1] / self.side[1])

    def numbers(self, box: Box) -> NDArray[np.int64]:
        """(h, w): each pixel's block, counted row by row."""
        rows = np.arange(box.row, box.stop_row) // self.side[0]
        cols = np.arange(box.col, box.stop_col) // self.side[1]
        numbers: NDArray[np.int64] = rows[:, None] * self.grid_shape[1] + cols[None, :]
        return numbers

    def touching(self, box: Box) -> tuple[slice, slice]:
        """The blocks, as an index of their grid, that share a pixel with ``box``."""
        (rows, cols), (down, across) = box.slices, self.side
        return (
            slice(rows.start // down, math.ceil(rows.stop / down)),
            slice(cols.start // across, math.ceil(cols.stop / across)),
        )


@dataclass(frozen=True)
class Sampling:
    """Into blocks of which ``side`` scenes are cut, and which share of those with labels is kept back to ``check``,
    drawn by ``seed``.
    """

    side: Length
    check: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.check < 1:
            raise SettingsError(
                f"check is {self.check}; expected a share of the blocks, 0 or more and less than 1"
            )

    def __str__(self) -> str:
        return f"{self.side.value:g} {self.side.unit}"

    def cut(self, geobox: GeoBox) -> SpatialBlocks:
        """The blocks of a scene.

        Raises
        ------
        SettingsError
            They would be smaller than a pixel.
        """
        metres = (1.0, 1.0) if self.side.unit == "px" else ground_resolution(geobox)
        rows, cols = (round(self.side.value / each) for each in metres)
        if min(rows, cols) < 1:
            raise SettingsError(f"spatial blocks of {self} are smaller than a pixel; give a larger side")
        return SpatialBlocks((int(geobox.shape[0]), int(geobox.shape[1])), (rows, cols))

    def metres(self, geobox: GeoBox) -> float:
        """The blocks' shorter side on a scene's ground."""
        return self.side.value * (1.0 if self.side.unit == "m" else min(ground_resolution(geobox)))

    def draw(self, labelled: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
        """Which of each scene's ``labelled`` blocks (rows, cols) are kept back.

        In all the asked share of them, at least one unless the share is 0, and of each scene the same share, up to one
        block.

        Raises
        ------
        InputError
            Too few are left to calibrate on.
        """
        count = sum(int(each.sum()) for each in labelled)
        back = max(1, int(self.check * count + 1e-9)) if self.check else 0
        if count - back < FEWEST:
            raise InputError(self._too_few(count, back))
        kept = [np.zeros(each.shape, bool) for each in labelled]
        at = 0  # of all blocks, scene after scene, each in an order of its own, every so manieth is taken
        for scene in np.random.default_rng([self.seed]).permutation(len(labelled)).tolist():
            blocks = np.random.default_rng([self.seed, scene]).permutation(np.flatnonzero(labelled[scene]))
            places = ((at + np.arange(len(blocks) + 1)) * 2 * back + count) // (2 * count)
            kept[scene].flat[blocks[np.diff(places) > 0]] = True
            at += len(blocks)
        return kept

    def _too_few(self, count: int, back: int) -> str:
        checked = f", and {back} of them would be kept back to check" if back else ""
        smaller = "a smaller share to check (--check), " if back else ""
        return (
            f"the references cover {count} spatial blocks of {self}{checked}; at least {FEWEST} are needed to "
            f"calibrate on: give more scenes, {smaller}or smaller blocks by --spatial-block (where they are smaller "
            "than the model's patch, what is found looks surer than it is)"
        )


@dataclass(frozen=True)
class Ground:
    """One scene with its reference.

    ``labelled`` (rows, cols): pixels of each spatial block that have data and a label; ``kept``: which of the blocks
    with such pixels are kept back; ``weight``: the area of a pixel, in a unit that all scenes share.
    """

    plan: Plan
    reference: Reference
    name: str
    blocks: SpatialBlocks
    labelled: NDArray[np.int64]
    kept: NDArray[np.bool_]
    weight: int = 1

    @property
    def used(self) -> NDArray[np.bool_]:
        """The blocks to calibrate on."""
        return (self.labelled > 0) & ~self.kept

    @property
    def capacity(self) -> int:
        """The most area that a block can have."""
        return math.prod(self.blocks.side) * self.weight

    def predicted(
        self, model: LeafModel, side: int, chosen: NDArray[np.bool_], told: Steps
    ) -> Iterator[tuple[Box, NDArray[np.float32], NDArray[np.uint16]]]:
        """What ``model`` gives where the spatial blocks ``chosen`` have labels, strip by strip: the box, its channels
        (K, h, w), and its true codes, 0 outside of them.

        ``side`` px are predicted at a time, which changes no value.
        """
        leases = leased(model)
        for block in BlockGrid(self.plan.blocks.shape, side):
            core, truth = self._truth(block.core, chosen)
            if core.size:
                for strip in strips(self.plan, core, leases):
                    rows = truth[strip.box.relative_to(block.core).slices]
                    yield strip.box, strip.probabilities, np.where(strip.valid, rows, 0).astype(np.uint16)
            told.step(core.size)

    def _truth(self, box: Box, chosen: NDArray[np.bool_]) -> tuple[Box, NDArray[np.uint16]]:
        """The true codes of ``box`` in ``chosen`` blocks, and the part of it that holds all of them."""
        nothing = Box(box.row, box.col, 0, 0), np.zeros((0, 0), np.uint16)
        if not chosen[self.blocks.touching(box)].any():
            return nothing
        truth = np.where(chosen.ravel()[self.blocks.numbers(box)], self.reference.read(box), 0)
        rows, cols = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
        if not rows.size:
            return nothing
        part = Box.between(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
        return part.shift(box.row, box.col), truth.astype(np.uint16)


class Steps:
    """Tells of progress of a stage over several passes."""

    def __init__(self, progress: Progress | None, stage: str, total: int) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = self._pixels = 0

    def step(self, pixels: int) -> None:
        """One step is done, which took so many pixels."""
        self._done, self._pixels = self._done + 1, self._pixels + pixels
        if self._progress:
            self._progress(self._stage, self._done, self._total, self._pixels)


def look(
    plan: Plan, reference: Reference, path: str, blocks: SpatialBlocks, told: Steps
) -> NDArray[np.int64]:
    """(rows, cols): pixels with data and a label in each of the spatial ``blocks`` of a plan's scene.

    Raises
    ------
    InputError
        There are none at all, or codes that the model's classes lack.
    """
    known = np.zeros(1 << 16, bool)
    known[[0, *plan.taxonomy.arrays.codes.tolist()]] = True
    found, labels = np.zeros(math.prod(blocks.grid_shape), np.int64), 0
    for block in BlockGrid(blocks.shape, LOOK):
        truth = reference.read(block.core)
        if not known[truth].all():
            codes = ", ".join(map(str, np.unique(truth[~known[truth]])[:10].tolist()))
            raise InputError(
                f"the reference {path} has codes that the model's classes lack: {codes}; give a mapping to them (--map)"
            )
        if truth.any():
            labels += int(np.count_nonzero(truth))
            there = blocks.numbers(block.core)[(truth > 0) & plan.scene.read_valid(block.core)]
            found += np.bincount(there, minlength=found.size)
        told.step(block.core.size)
    if not found.any():
        where = f": its {labels} labels lie where the scene has no data" if labels else ""
        raise InputError(
            f"the reference {path} labels no pixel of the scene {plan.scene.name}{where}; give the reference of that "
            "scene, or leave the two out"
        )
    return found.reshape(blocks.grid_shape)


def with_weights(grounds: Sequence[Ground]) -> list[Ground]:
    """The grounds, a pixel of each weighing as much as its area.

    All weigh 1 where they have the same size; else the smallest weighs :data:`UNIT`, and the others in proportion.
    """
    areas = np.array([math.prod(ground.plan.scene.ground_resolution) for ground in grounds])
    ratios = areas / areas.min()
    weights = np.ones(len(areas), np.int64) if ratios.max() <= 1 + EQUAL else np.rint(UNIT * ratios)
    return [replace(ground, weight=int(each)) for ground, each in zip(grounds, weights, strict=True)]
