from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.grid import PatchLattice
from rssegment.predict import axis_patches, axis_weights


@st.composite
def lattices(draw: st.DrawFn) -> PatchLattice:
    patch = draw(st.integers(1, 70))
    return PatchLattice(
        (draw(st.integers(1, 300)), draw(st.integers(1, 300))), patch, draw(st.integers(0, patch // 2))
    )


windows = st.sampled_from(["blend", "crop"])


@given(lattices(), st.integers(0, 1), windows)
def test_weights_are_a_partition_of_unity(lattice: PatchLattice, axis: int, window: Any) -> None:
    length = lattice.shape[axis]
    total = np.zeros(length)
    for k in range(lattice.lattice_shape[axis]):
        weights = axis_weights(lattice, axis, k, window)
        assert weights.shape == (lattice.patch,)
        assert weights.dtype == np.float32
        assert ((weights >= 0) & (weights <= 1)).all()
        at = np.arange(lattice.patch) + lattice.start(k)
        inside = (at >= 0) & (at < length)
        total[at[inside]] += weights[inside]
    np.testing.assert_allclose(total, 1, atol=2e-7)


@given(lattices(), st.integers(0, 1), windows, st.data())
def test_patches_outside_the_range_have_no_weight_in_it(
    lattice: PatchLattice, axis: int, window: Any, data: st.DataObject
) -> None:
    length = lattice.shape[axis]
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    chosen = axis_patches(lattice, axis, start, stop, window)
    assert 0 <= chosen[0] <= chosen[-1] < lattice.lattice_shape[axis]
    for k in range(lattice.lattice_shape[axis]):
        at = np.arange(lattice.patch) + lattice.start(k)
        meets = (axis_weights(lattice, axis, k, window)[(at >= start) & (at < stop)] > 0).any()
        assert meets == (k in chosen)


def test_blend_rises_and_falls_smoothly() -> None:
    weights = axis_weights(PatchLattice((1000, 1000), 64, 16), 0, 3)
    assert (np.diff(weights[:16]) > 0).all()
    np.testing.assert_array_equal(weights[16:48], 1)
    np.testing.assert_allclose(weights, weights[::-1], atol=1e-7)
    assert np.abs(np.diff(weights)).max() < 0.11


def test_weights_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        axis_weights(PatchLattice((10, 10), 4, 2), 0, 0)[0] = 2
