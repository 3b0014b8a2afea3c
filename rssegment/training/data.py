"""A recipe's data, opened, counted and split: all that a training reads from."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch.utils.data import DataLoader

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.run.progress import Progress
from rssegment.taxonomy import Taxonomy
from rssegment.training.batch import Batch
from rssegment.training.cache import PixelCache
from rssegment.training.census import VALIDATION, BandStatistics, Census, Roles, take_census
from rssegment.training.ground import LabelledScene
from rssegment.training.loading import validation_loader, windows_loader
from rssegment.training.order import StepOrder
from rssegment.training.prepare import Prepare
from rssegment.training.recipe import Recipe
from rssegment.training.sampling import Sampler, Window
from rssegment.training.split import split_cells
from rssegment.training.windows import ValidationBatch, ValidationWindows, common_type

__all__ = ["TrainingData"]

_T = TypeVar("_T")
_VALIDATION_PIXELS = 1 << 20  # of a batch that is scored


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Labelled ground with the roles of its cells. ``remarks`` tell what a user should know; ``left_out`` are regions
    that are scored in the end, and decide nothing on the way."""

    recipe: Recipe
    taxonomy: Taxonomy
    scenes: tuple[LabelledScene, ...]
    cache: PixelCache
    census: Census
    roles: Roles
    statistics: BandStatistics
    remarks: tuple[str, ...]
    left_out: frozenset[str] = frozenset()

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        taxonomy: Taxonomy,
        scenes: Sequence[LabelledScene],
        work: Path,
        progress: Progress | None = None,
        *,
        left_out: Collection[str] = (),
    ) -> TrainingData:
        """Counts and splits ``scenes``; ``work`` is where decoded pixels and counts are kept for the next time.

        Raises
        ------
        InputError
            Nothing is labelled, nothing is left to train on, or a band has one value everywhere.
        ReadError
            A file can't be read.
        """
        cache = PixelCache(work / "cache", scenes, int(recipe.sample.cache * 2**30))
        census = take_census(scenes, taxonomy, cache, progress, path=work / "census.npz")
        split = split_cells(scenes, census, recipe.split, recipe.seed)
        statistics = census.statistics(split.roles, recipe.bands)
        _check_bands(recipe, statistics)
        return cls(
            recipe, taxonomy, tuple(scenes), cache, census, split.roles, statistics,
            (*census.remarks, *split.remarks), frozenset(left_out),
        )  # fmt: skip

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """Regions that have validation ground."""
        return tuple(sorted({self.scenes[window.scene].region for window in self.validation.windows}))

    @property
    def watched(self) -> tuple[str, ...]:
        """Regions that are scored on the way: those with validation ground but for those left out, whose scores would
        be too good had they decided when to stop; all, where there are no others."""
        return tuple(region for region in self.regions if region not in self.left_out) or self.regions

    @cached_property
    def validation(self) -> ValidationWindows:
        """The lattice over validation ground."""
        recipe = self.recipe
        return ValidationWindows(
            self.scenes, self.census, self.roles, self.cache, patch=recipe.patch, overlap=recipe.overlap
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values that windows have."""
        return common_type(self.scenes)

    @property
    def value_range(self) -> tuple[float, float]:
        """Least and greatest value of any band, or what the type holds where that is a byte."""
        if self.dtype == np.uint8:
            return 0.0, 255.0
        return float(np.min(self.statistics.low)), float(np.max(self.statistics.high))

    @cached_property
    def constants(self) -> tuple[tuple[float, float], ...]:
        """Mean and standard deviation of each band: to three decimals, or as many more as small values need."""
        spread = self.statistics.std.tolist()
        digits = [3 - min(0, math.floor(math.log10(std))) for std in spread]
        means = map(round, self.statistics.mean.tolist(), digits)
        return tuple(zip(means, map(round, spread, digits), strict=True))

    def prepare(self) -> Prepare:
        """The normalisation that the bundle will have."""
        means, stds = zip(*self.constants, strict=True)
        return Prepare(means, stds)

    def training_batches(self, order: StepOrder, pin_memory: bool) -> DataLoader[Batch]:
        """Batches in the order of steps."""
        sampler = Sampler(self.census, self.roles, self.recipe)
        return windows_loader(
            self.scenes, sampler, self.recipe, order, cache=self.cache, pin_memory=pin_memory
        )

    def validation_batches(
        self, rank: int, ranks: int, pin_memory: bool, regions: Collection[str] | None = None
    ) -> DataLoader[ValidationBatch]:
        """All validation windows, or those of some regions; of several processes every so many-th."""
        windows = copy(self.validation)
        chosen = [w for w in windows.windows if regions is None or self.scenes[w.scene].region in regions]
        windows.windows = tuple(chosen[rank::ranks])
        batch = max(1, _VALIDATION_PIXELS // self.recipe.patch**2)
        return validation_loader(windows, batch, workers=self.recipe.sample.workers, pin_memory=pin_memory)

    def shown(self, most: int = 8) -> ValidationBatch:
        """Validation windows from all regions to look at, at most ``most``: as many of each, spread over its ground,
        of those in which at least half as much is scored as in its fullest.

        Raises
        ------
        ReadError
            Pixels can't be read.
        """
        places: dict[str, dict[int, int]] = {region: {} for region in self.regions}
        for number, window in enumerate(self.validation.windows):
            places[self.scenes[window.scene].region][number] = self._scored(window)
        regions, found = spread([*places], most), []
        for sizes in (places[region] for region in regions):
            full = [number for number, size in sizes.items() if 2 * size >= max(sizes.values())]
            found += spread(full, max(1, most // len(regions)))
        return self.validation.__getitems__(found)

    def _scored(self, window: Window) -> int:
        """About how many pixels of a validation window are scored."""
        cell, core = self.census.cell, self.validation.core(window)
        cells = Box.between(
            core.row // cell, core.col // cell, -(-core.stop_row // cell), -(-core.stop_col // cell)
        ).slices
        kept = self.roles[window.scene][cells] == VALIDATION
        return int(self.census.scenes[window.scene].counts[cells][kept][..., :-1].sum())


def spread(items: Sequence[_T], most: int) -> list[_T]:
    """At most ``most`` of ``items`` at equal distances, the first among them."""
    count = min(most, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def _check_bands(recipe: Recipe, statistics: BandStatistics) -> None:
    for name, std, value in zip(recipe.bands, statistics.std, statistics.low, strict=True):
        if not std > 0:
            raise InputError(
                f"band {name} is {value:g} all over the ground that is trained on, so there is nothing to learn from "
                "it: leave it out of bands, or see whether the images' bands are listed in their order"
            )
