"""The temperature of least loss, from losses on a grid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st

from rssegment.decode.temperature import TEMPERATURES, fit_temperature
from rssegment.errors import InputError


def test_the_grid() -> None:
    assert len(TEMPERATURES) == 17
    assert TEMPERATURES[[0, 8, 16]].tolist() == [0.25, 1.0, 4.0]


@given(st.floats(0.3, 3.5), st.floats(0.01, 100), st.floats(0, 1e6))
def test_a_parabola_in_log_t_is_met_exactly(minimum: float, steepness: float, least: float) -> None:
    losses = least + steepness * np.log(TEMPERATURES / minimum) ** 2
    assert fit_temperature(TEMPERATURES, losses) == pytest.approx(minimum, rel=1e-3)


@pytest.mark.parametrize("true", [0.4, 0.7, 1.0, 1.31, 2.5])
def test_the_temperature_of_a_softmax_is_found(true: float) -> None:
    """Labels drawn from softmax(logits / T): the fit is as good as a proper minimiser's."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(20_000, 6, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / true).softmax(1), 1, generator=generator)[:, 0]

    def loss(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / temperature, labels, reduction="sum"))

    found = fit_temperature(TEMPERATURES, [loss(t) for t in TEMPERATURES])
    best = scipy.optimize.minimize_scalar(loss, bounds=(0.2, 5), method="bounded")
    assert found == pytest.approx(best.x, rel=0.02)
    assert loss(found) <= best.fun * 1.0005


def test_order_does_not_matter_and_ends_are_kept() -> None:
    losses = np.log(TEMPERATURES / 1.4) ** 2
    order = np.random.default_rng(0).permutation(17)
    assert fit_temperature(TEMPERATURES[order], losses[order]) == fit_temperature(TEMPERATURES, losses)
    assert fit_temperature(TEMPERATURES, -TEMPERATURES) == 4.0
    assert fit_temperature(TEMPERATURES, TEMPERATURES) == 0.25
    assert fit_temperature([1, 2, 4], [1, 1, 5]) < 2


@pytest.mark.parametrize(
    ("temperatures", "losses", "fault"),
    [
        ([], [], "three or more"),
        ([1, 2], [1, 2], "three or more"),
        ([1, 2, 3], [1, 2], "three or more"),
        ([1, 2, 2], [1, 2, 3], "different numbers above 0"),
        ([0, 1, 2], [1, 2, 3], "different numbers above 0"),
        ([1, 2, math.nan], [1, 2, 3], "different numbers above 0"),
        ([1, 2, 3], [1, math.nan, 3], "not a number"),
        ([1, 2, 3], [1, 2, math.inf], "not a number"),
        ([1, 2, 3], [0, 0, 0], "the same at every temperature"),
        ([1, 2, 3], [5, 5, 5], "the same at every temperature"),
    ],
)
def test_what_tells_nothing(temperatures: Any, losses: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        fit_temperature(temperatures, losses)
