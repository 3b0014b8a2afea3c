"""The order of windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.training.order import StepOrder
from tests.training.trainings import a_recipe

sizes = st.integers(1, 5)


@given(sizes, sizes, sizes, sizes, sizes)
def test_epochs_and_ranks_part_the_numbers(
    batch: int, accumulate: int, every: int, ranks: int, epochs: int
) -> None:
    recipe = a_recipe(sample={"batch": batch}, optimizer={"accumulate": accumulate}, validate_every=every)
    orders = [StepOrder(recipe, rank, ranks) for rank in range(ranks)]
    seen: list[int] = []
    for epoch in range(epochs):
        numbers = []
        for order in orders:
            order.set_epoch(epoch)
            assert len(order) == batch * accumulate * every
            numbers.append(list(order))
        rounds = zip(
            *([own[k : k + batch] for k in range(0, len(own), batch)] for own in numbers), strict=True
        )
        seen += [number for batches in rounds for part in batches for number in part]
    assert seen == list(range(batch * accumulate * every * ranks * epochs))


@given(sizes, sizes, sizes, st.integers(0, 9))
def test_slices_are_whole_batches(batch: int, every: int, ranks: int, epoch: int) -> None:
    order = StepOrder(a_recipe(sample={"batch": batch}, validate_every=every), ranks - 1, ranks)
    order.set_epoch(epoch)
    for start in range(0, len(order), batch):
        found = list(order[start : start + batch])
        assert found == list(range(found[0], found[0] + batch))
        assert found[0] % batch == 0
    assert list(order[len(order) - 1 : len(order) + 9]) == [order[len(order) - 1]]


@pytest.mark.parametrize("place", [-1, 4])
def test_an_epoch_has_an_end(place: int) -> None:
    with pytest.raises(IndexError):
        StepOrder(a_recipe())[place]
