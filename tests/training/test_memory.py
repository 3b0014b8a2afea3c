"""Errors that mean that memory could not be had, as they are really raised."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from rssegment.training.memory import is_allocation, told_of_batch
from tests.training.trainings import a_recipe

HUGE = 1 << 55


@pytest.mark.parametrize(
    "ask",
    [
        lambda: np.zeros(HUGE, np.uint8),
        lambda: bytearray(HUGE),
        lambda: torch.zeros(HUGE, dtype=torch.uint8),
        lambda: torch.zeros(1 << 62, dtype=torch.float64),
        lambda: torch.UntypedStorage._new_shared(1 << 45),
    ],
)
def test_what_asks_for_too_much_is_known(ask: object) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()  # type: ignore[operator]
    assert is_allocation(caught.value)


def test_others_are_not() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for error in (RuntimeError("shapes differ"), full, ValueError("out of memory"), KeyError("a")):
        assert not is_allocation(error)
    assert is_allocation(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_allocation(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))


@pytest.mark.parametrize(
    ("sample", "cure"),
    [
        (
            {"batch": 8},
            "batches of 8 x 32 px; try sample.batch: 4 with optimizer.accumulate: 4 takes half the memory",
        ),
        ({"batch": 1}, "batches of 1 x 32 px; try a smaller sample.patch than 32, or a smaller network"),
    ],
)
def test_half_the_batch_twice_is_proposed(sample: dict[str, int], cure: str) -> None:
    assert cure in str(told_of_batch(a_recipe(sample=sample, optimizer={"accumulate": 2})))
