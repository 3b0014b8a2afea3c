"""The order in which windows are seen: numbers that are functions of the epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from rssegment.training.recipe import Recipe

__all__ = ["StepOrder"]


class StepOrder(Sequence[int]):
    """Numbers of the windows of an epoch, which is what lies between two validations.

    Of ``ranks`` processes, each takes every so many-th batch. Slices are whole batches.
    """

    def __init__(self, recipe: Recipe, rank: int = 0, ranks: int = 1) -> None:
        self.batch, self.rank, self.ranks = recipe.sample.batch, rank, ranks
        self.batches = recipe.validate_every * recipe.optimizer.accumulate
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before an epoch begins, and when one is resumed."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches * self.batch

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...

    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        number, within = divmod(place, self.batch)
        return ((self.epoch * self.batches + number) * self.ranks + self.rank) * self.batch + within
