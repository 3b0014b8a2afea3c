"""The synthetic landscape: the same from the same seed, all classes, and a truth that fits its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy import ndimage

from rssegment.demo.landscape import BANDS, Landscape, make_landscape
from rssegment.errors import SettingsError
from rssegment.grid import ground_resolution
from rssegment.taxonomy import Taxonomy

LEAVES = set(Taxonomy.load("demo").leaf_codes.tolist())


@settings(max_examples=4)
@given(st.integers(0, 2**40))
def test_same_seed_same_bytes(seed: int) -> None:
    first, second = (make_landscape((160, 200), seed) for _ in range(2))
    assert first.bands.tobytes() == second.bands.tobytes()
    assert first.truth.tobytes() == second.truth.tobytes()
    assert np.array_equal(first.valid, second.valid)


def test_another_seed_is_another_landscape() -> None:
    first, second = make_landscape((256, 256), 1), make_landscape((256, 256), 2)
    assert (first.truth != second.truth).mean() > 0.3


@settings(max_examples=6)
@given(st.integers(64, 220), st.integers(64, 220), st.integers(0, 2**32))
def test_any_size_is_covered(height: int, width: int, seed: int) -> None:
    landscape = make_landscape((height, width), seed)
    assert landscape.bands.shape == (4, height, width)
    assert landscape.truth.shape == landscape.valid.shape == landscape.geobox.shape == (height, width)
    assert set(np.unique(landscape.truth[landscape.valid])) <= LEAVES
    assert landscape.bands[:, landscape.valid].min() >= 1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_occurs_in_half_a_kilometre(seed: int) -> None:
    landscape = make_landscape((1024, 1024), seed)
    share = np.bincount(landscape.truth[landscape.valid], minlength=9) / landscape.valid.sum()
    assert share[0] == 0
    assert share[1:].min() > 0.001


def test_types(landscape: Landscape) -> None:
    assert landscape.bands.dtype == np.uint8
    assert landscape.truth.dtype == np.uint16
    assert landscape.valid.dtype == np.bool_
    assert len(BANDS) == len(landscape.bands)


def test_no_data_is_zero_in_bands_and_truth_and_nowhere_else(landscape: Landscape) -> None:
    assert 0.01 < (~landscape.valid).mean() < 0.2
    assert np.array_equal((landscape.bands == 0).all(0), ~landscape.valid)
    assert np.array_equal((landscape.bands == 0).any(0), ~landscape.valid)
    assert np.array_equal(landscape.truth == 0, ~landscape.valid)


def test_wedge_has_a_slanted_edge_and_can_be_left_out(landscape: Landscape) -> None:
    per_row = landscape.valid.sum(1)
    assert len(np.unique(per_row)) > 10
    assert (
        landscape.valid[:, :-1] >= landscape.valid[:, 1:]
    ).all()  # once out of sight, out to the row's end
    whole = make_landscape((128, 128), 3, wedge=False)
    assert whole.valid.all()
    assert (whole.truth > 0).all()


def test_wedge_does_not_change_the_ground() -> None:
    cut, whole = (make_landscape((128, 192), 7, wedge=wedge) for wedge in (True, False))
    assert np.array_equal(cut.truth[cut.valid], whole.truth[cut.valid])


def test_lies_in_utm_at_half_a_metre(landscape: Landscape) -> None:
    assert isinstance(landscape.geobox, GeoBox)
    assert landscape.geobox.crs.to_epsg() == 32631
    assert ground_resolution(landscape.geobox) == pytest.approx((0.5, 0.5), rel=1e-3)


def test_truth_lies_on_its_pixels(landscape: Landscape) -> None:
    """Water is dark and woods are green where the truth says so: no shift, no transposition."""
    red, _, _, nir = landscape.bands.astype(float)
    inner = {code: ndimage.binary_erosion(landscape.truth == code, iterations=3) for code in (3, 7)}
    ndvi = (nir - red) / np.maximum(nir + red, 1)
    assert np.median(ndvi[inner[7]]) < -0.1
    assert np.median(ndvi[inner[3]]) > 0.3
    assert np.median(nir[inner[7]]) < 70
    edge = ndimage.binary_dilation(inner[7], iterations=25) & ~ndimage.binary_dilation(
        inner[7], iterations=12
    )
    assert np.median(nir[edge & landscape.valid]) > 90


def test_colour_alone_does_not_tell_the_classes(landscape: Landscape) -> None:
    """The nearest class mean is right for less than three pixels in four: texture and shape are needed."""
    values = landscape.bands[:, landscape.valid].T.astype(np.float32)[::23]
    truth = landscape.truth[landscape.valid][::23]
    means = np.stack([values[truth == code].mean(0) for code in sorted(LEAVES)])
    nearest = ((values[:, None] - means[None]) ** 2).sum(2).argmin(1)
    assert (np.array(sorted(LEAVES))[nearest] == truth).mean() < 0.75


@pytest.mark.parametrize("shape", [(32, 4096), (4096, 63), (0, 0)])
def test_too_small_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(SettingsError, match="64 x 64"):
        make_landscape(shape)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(SettingsError, match="0 or more"):
        make_landscape((64, 64), -1)
