"""Batches that don't fit into memory: how that shows, and what to do."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from rssegment.errors import InputError, RssegmentError
from rssegment.training.recipe import Recipe

__all__ = ["is_allocation", "telling", "told_of_batch", "told_of_validation"]

_ALLOCATION = re.compile(
    r"out of memory|cannot allocate|can't allocate|unable to (allocate|mmap|resize|write)|not enough memory"
    r"|no space left|storage size calculation overflowed|invalid buffer size",
    re.IGNORECASE,
)


def is_allocation(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: Python's, numpy's, or torch's, which has no type of its own
    for that of the computer."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return _ALLOCATION.search(str(error)) is not None
    return isinstance(error, MemoryError)


@contextmanager
def telling(too_large: InputError) -> Iterator[None]:
    """Raises ``too_large`` where memory could not be had, unless something within said what did not fit."""
    try:
        yield
    except RssegmentError:
        raise
    except (MemoryError, RuntimeError) as error:
        if is_allocation(error):
            raise too_large from error
        raise


def told_of_batch(recipe: Recipe) -> InputError:
    """What to say where a batch of ``recipe`` doesn't fit: the half of it, twice."""
    size, times = recipe.sample.batch, recipe.optimizer.accumulate
    cure = (
        f"sample.batch: {size // 2} with optimizer.accumulate: {times * 2} takes half the memory for nearly the same "
        "training"
        if size > 1
        else f"a smaller sample.patch than {recipe.sample.patch}, or a smaller network"
    )
    return InputError(f"out of memory with batches of {size} x {recipe.sample.patch} px; try {cure}")


def told_of_validation(patch: int, batch: int) -> InputError:
    """What to say where ``batch`` patches to be scored don't fit."""
    return InputError(
        f"out of memory with {batch} x {patch} px to be scored; try a smaller patch than {patch}"
    )
