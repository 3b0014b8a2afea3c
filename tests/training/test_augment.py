"""Laws of augmentation: labels go with pixels, what is missing stays missing, and (seed, step) decides everything."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.errors import SettingsError
from rssegment.training.augment import Augment
from rssegment.training.batch import Batch
from rssegment.training.recipe import AugmentOptions
from rssegment.training.turning import Turns, turned

OFF: dict[str, Any] = {
    "flips": False,
    "scale": 1.0,
    "rotate": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "haze": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "cutmix": 0.0,
    "drop_optional_bands": 0.0,
}
ALL: dict[str, Any] = OFF | {
    "flips": True,
    "scale": 1.4,
    "rotate": 0.5,
    "brightness": 0.5,
    "contrast": 0.5,
    "haze": 1.0,
    "blur": 1.0,
    "noise": 1.0,
    "cutmix": 1.0,
    "drop_optional_bands": 1.0,
}


def augment(patch: int, optional: tuple[bool, ...], **options: Any) -> Augment:
    return Augment(AugmentOptions(**(OFF | options)), patch, optional)


def blobs(count: int, bands: int, side: int, seed: int = 0, whole: bool = False) -> Batch:
    """Windows of smooth regions whose values in every band are their labels."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side] / side
    waves = rng.uniform(-9, 9, (3, count, 1, 1))
    field = np.sin(waves[0] * rows + waves[1]) + np.cos(waves[2] * cols + 3 * rows)
    labels = torch.from_numpy(np.digitize(field, [-1, -0.4, 0.3, 1]).astype(np.int32) + 1)
    valid = torch.from_numpy(np.ones(field.shape, bool) if whole else rng.random(field.shape) < 0.9)
    present = torch.from_numpy(np.ones((count, bands), bool) if whole else rng.random((count, bands)) < 0.7)
    labels = labels * valid
    values = labels[:, None].float() * present[:, :, None, None]
    return Batch(values.contiguous(memory_format=torch.channels_last), labels, valid, present)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("side", "patch"), [(32, 32), (40, 32), (41, 32), (47, 33)])
@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_all_off_is_the_middle_of_the_window(side: int, patch: int, bands: int) -> None:
    batch = blobs(3, bands, side)
    start = (side - patch) // 2
    at = slice(start, start + patch)
    found = augment(patch, (False,) * bands)(batch, 5, 7)
    assert torch.equal(found.values, batch.values[:, :, at, at])
    assert torch.equal(found.labels, batch.labels[:, at, at])
    assert torch.equal(found.valid, batch.valid[:, at, at])
    assert torch.equal(found.present, batch.present)
    assert found.values.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(0, 9), st.integers(24, 33))
def test_right_angles_are_permutations_of_pixels(seed: int, step: int, extra: int, patch: int) -> None:
    """An image that is its own labels stays so, and holds the pixels of the middle, each once."""
    side = patch + extra
    count = 4
    codes = torch.arange(count * side * side, dtype=torch.int32).view(count, side, side) + 1
    ones = torch.ones(count, side, side, dtype=torch.bool)
    batch = Batch(codes[:, None].float(), codes, ones, torch.ones(count, 1, dtype=torch.bool))
    found = augment(patch, (False,), flips=True)(batch, seed, step)
    assert found.valid.all()
    assert torch.equal(found.values[:, 0].int(), found.labels)
    at = slice(start := (side - patch) // 2, start + patch)
    middles = codes[:, at, at]
    for one, middle in zip(found.labels, middles, strict=True):
        ways = [torch.rot90(m, k) for m in (middle, middle.flip(-1)) for k in range(4)]
        assert sum(torch.equal(one, way) for way in ways) == 1


def test_all_eight_ways_come_up_equally_often() -> None:
    corners = (
        torch.tensor([[1, 2], [3, 4]], dtype=torch.int32).repeat_interleave(16, 0).repeat_interleave(16, 1)
    )
    labels = corners.expand(400, 32, 32).contiguous()
    batch = Batch(labels[:, None].float(), labels, labels > 0, torch.ones(400, 1, dtype=torch.bool))
    found = augment(32, (False,), flips=True)(batch, 0, 0).labels[:, [0, 0, -1], [0, -1, 0]]
    _, counts = found.unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert counts.min() > 25


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(1.0, 4.0), st.floats(0, 1), st.booleans(), st.integers(1, 5))
def test_labels_stay_with_their_pixels(
    seed: int, scale: float, rotate: float, flips: bool, bands: int
) -> None:
    """Where the bilinear value is a class's own, the label is that class: windows that are their labels stay so."""
    batch = blobs(4, bands, 72, seed, whole=True)
    found = augment(48, (False,) * bands, flips=flips, scale=scale, rotate=rotate, cutmix=0.5)(batch, seed, 3)
    values, labels = found.values, found.labels[:, None].expand(found.values.shape)
    # bilinear between neighbours: nearest never differs from it by as much as the neighbours do
    sure = (values - values.round()).abs() < 1e-3
    flat = (
        torch.nn.functional.max_pool2d(values, 3, 1, 1) + torch.nn.functional.max_pool2d(-values, 3, 1, 1)
        < 1e-3
    )
    inside = found.valid[:, None].expand(values.shape)
    assert (sure & flat & inside).float().mean() > 0.3
    assert torch.equal(values[sure & flat & inside].round().int(), labels[sure & flat & inside])
    assert set(found.labels.unique().tolist()) <= {0, *batch.labels.unique().tolist()}
    assert torch.equal(found.labels == 0, ~found.valid)


@settings(max_examples=25, deadline=None)
@given(st.floats(-math.pi, math.pi), st.floats(0.5, 2.0), st.booleans(), st.integers(0, 3))
def test_a_warp_is_the_affine_map_it_says(angle: float, step: float, mirror: bool, quarters: int) -> None:
    """On an image that is linear in row and column, bilinear values are those of the map to float precision."""
    side, patch = 41, 17
    rows, cols = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
    values = torch.stack([rows, cols])[None]
    ones = torch.ones(1, side, side, dtype=torch.bool)
    batch = Batch(values, (rows * side + cols + 1).int()[None], ones, torch.ones(1, 2, dtype=torch.bool))
    turns = Turns(patch, np.array([mirror]), np.array([quarters]), np.array([angle]), np.array([step]))
    found = turned(batch, turns)
    i, j = (np.mgrid[:patch, :patch] - (patch - 1) / 2).astype(float)
    theta = angle + quarters * np.pi / 2
    row = 20 + step * (np.cos(theta) * i + np.sin(theta) * j)
    col = 20 + (-1 if mirror else 1) * step * (-np.sin(theta) * i + np.cos(theta) * j)
    inner = (row > 0) & (row < 40) & (col > 0) & (col < 40)
    assert np.abs(found.values[0, 0].numpy() - row)[inner].max() < 1e-3
    assert np.abs(found.values[0, 1].numpy() - col)[inner].max() < 1e-3
    beyond = np.maximum(abs(row - 20), abs(col - 20)) > 20.5 + 1e-3
    assert not found.valid[0].numpy()[beyond].any()
    assert not found.labels[0].numpy()[beyond].any()
    assert found.valid[0].numpy()[inner].all()
    # the label is of the pixel nearest to the place
    codes = found.labels[0].numpy()[inner] - 1
    assert np.abs(codes // side - row[inner]).max() < 0.501
    assert np.abs(codes % side - col[inner]).max() < 0.501


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_a_warp_by_right_angles_is_the_exact_copy(quarters: int, mirror: bool) -> None:
    batch = blobs(1, 2, 40, whole=True)
    batch = batch._replace(values=torch.rand(batch.values.shape))
    one = (np.array([mirror]), np.array([quarters]))
    exact = turned(batch, Turns(32, *one, np.array([0.0]), np.array([1.0])))
    warped = turned(batch, Turns(32, *one, np.array([1e-9]), np.array([1.0])))
    torch.testing.assert_close(warped.values, exact.values, atol=1e-4, rtol=0)
    assert torch.equal(warped.labels, exact.labels)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(1, 6), st.sampled_from([1, 3, 4, 13]))
def test_what_is_missing_stays_missing(seed: int, count: int, bands: int) -> None:
    batch = blobs(count, bands, 48, seed)
    optional = tuple(i > 0 for i in range(bands))
    found = Augment(AugmentOptions(**ALL), 32, optional)(batch, seed, 11)
    gone = ~(found.valid[:, None] & found.present[:, :, None, None])
    assert found.values.shape == (count, bands, 32, 32)
    assert found.values.isfinite().all()
    assert not found.values[gone].any()
    assert not found.labels[~found.valid].any()
    assert not (found.present & ~batch.present).any()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**9))
def test_seed_and_step_decide_everything(seed: int, step: int) -> None:
    batch = blobs(4, 3, 48)
    before = [each.clone() for each in batch]
    optional = (False, False, True)
    one = Augment(AugmentOptions(**ALL), 32, optional)(batch, seed, step)
    torch.manual_seed(seed % 1000)
    np.random.seed(seed % 1000)  # noqa: NPY002
    torch.rand(5)
    state = torch.random.get_rng_state()
    other = Augment(AugmentOptions(**ALL), 32, optional)
    other(batch, seed, step + 1)
    assert equal(one, other(batch, seed, step))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))
    assert not torch.equal(one.values, other(batch, seed, step + 1).values)
    assert not torch.equal(one.values, other(batch, (seed + 1) % 2**31, step).values)


@pytest.mark.parametrize("name", ["brightness", "contrast", "haze", "blur", "noise"])
def test_what_changes_values_changes_no_labels(name: str) -> None:
    batch = blobs(4, 3, 32, whole=True)
    batch = batch._replace(values=torch.randn(batch.values.shape, generator=torch.Generator().manual_seed(0)))
    found = augment(32, (False,) * 3, **{name: 1.0 if name != "contrast" else 0.5})(batch, 1, 2)
    assert equal(found._replace(values=batch.values), batch)
    changed = (found.values != batch.values).flatten(1).any(1)
    assert changed.all()


def test_a_tone_curve_keeps_the_order_of_brightness() -> None:
    ramp = torch.linspace(-8, 8, 64).view(1, 1, 1, 64).expand(200, 2, 64, 64)
    ones = torch.ones(200, 64, 64, dtype=torch.bool)
    batch = Batch(ramp, ones.int(), ones, torch.ones(200, 2, dtype=torch.bool))
    found = augment(64, (False,) * 2, contrast=0.5, brightness=0.5)(batch, 0, 0).values
    assert (found.diff(dim=-1) > 0).all()


def test_haze_brightens_smoothly() -> None:
    values = torch.zeros(16, 3, 64, 64)
    ones = torch.ones(16, 64, 64, dtype=torch.bool)
    batch = Batch(values, ones.int(), ones, torch.ones(16, 3, dtype=torch.bool))
    found = augment(64, (False,) * 3, haze=1.0)(batch, 0, 0).values
    assert (found >= 0).all()
    assert found.amax((1, 2, 3)).gt(0.05).all()
    assert found.diff(dim=-1).abs().max() < 0.1
    assert (found.amax((2, 3)) - found.amin((2, 3))).gt(0.02).all()


def test_blur_keeps_the_mean_and_takes_detail() -> None:
    values = torch.randn(8, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(8, 64, 64, dtype=torch.bool)
    batch = Batch(values, ones.int(), ones, torch.ones(8, 2, dtype=torch.bool))
    found = augment(64, (False,) * 2, blur=1.0)(batch, 0, 0).values
    inner = (..., slice(8, -8), slice(8, -8))
    assert (found[inner].mean((1, 2, 3)) - values[inner].mean((1, 2, 3))).abs().max() < 0.03
    assert (found.std((2, 3)) < 0.9 * values.std((2, 3))).all()
    flat = augment(64, (False,) * 2, blur=1.0)(
        batch._replace(values=torch.full_like(values, 2.5)), 0, 0
    ).values
    torch.testing.assert_close(flat, torch.full_like(flat, 2.5))


def test_noise_is_white_and_each_bands_own() -> None:
    values = torch.zeros(6, 3, 64, 64)
    ones = torch.ones(6, 64, 64, dtype=torch.bool)
    batch = Batch(values, ones.int(), ones, torch.ones(6, 3, dtype=torch.bool))
    found = augment(64, (False,) * 3, noise=1.0)(batch, 0, 0).values
    deviations = found.std((2, 3))
    assert deviations.min() > 0.02
    assert deviations.max() < 0.22
    scaled = (found / deviations[:, :, None, None]).flatten(2)  # (B, C, pixels)
    correlation = (scaled @ scaled.transpose(1, 2)) / scaled.shape[2]
    assert (correlation - torch.eye(3)).abs().max() < 0.08
    picture = scaled.view(found.shape)
    assert (picture[..., 1:] * picture[..., :-1]).mean((2, 3)).abs().max() < 0.08


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 6))
def test_cutmix_pastes_rectangles_with_their_labels(seed: int, count: int) -> None:
    """Window i is all i: what isn't i is one rectangle of one other window."""
    labels = torch.arange(1, count + 1, dtype=torch.int32).view(-1, 1, 1).expand(count, 32, 32)
    present = torch.ones(count, 2, dtype=torch.bool)
    present[0, 1] = False
    values = labels[:, None] * present[:, :, None, None].float()
    batch = Batch(values, labels, torch.ones(count, 32, 32, dtype=torch.bool), present)
    found = augment(32, (False, True), cutmix=1.0)(batch, seed, 1)
    for i in range(count):
        pasted = found.labels[i] != i + 1
        rows, cols = torch.nonzero(pasted.any(1)).flatten(), torch.nonzero(pasted.any(0)).flatten()
        box = pasted[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
        assert box.all()
        assert box.sum() == pasted.sum()
        others = found.labels[i][pasted].unique()
        assert len(others) == 1
        assert 0.05 <= pasted.float().mean() <= 0.55
        bands = present[i] & present[others[0] - 1]
        assert torch.equal(found.present[i], bands)
        assert torch.equal(found.values[i], found.labels[i] * bands[:, None, None].float())


def test_cutmix_of_one_window_does_nothing() -> None:
    batch = blobs(1, 2, 32, whole=True)
    assert equal(augment(32, (False, False), cutmix=1.0)(batch, 0, 0), batch)


def test_only_optional_bands_are_dropped_and_for_whole_windows() -> None:
    batch = blobs(300, 4, 32, whole=True)
    found = augment(32, (False, False, True, True), drop_optional_bands=0.5)(batch, 0, 0)
    assert found.present[:, :2].all()
    kinds, counts = found.present[:, 2:].unique(dim=0, return_counts=True)
    assert len(kinds) == 4  # both, either, none
    assert 0.4 < counts[-1] / 300 < 0.75
    assert torch.equal(found.values, batch.values * found.present[:, :, None, None])


def test_the_last_band_of_a_window_is_never_dropped() -> None:
    batch = blobs(8, 2, 32, whole=True)
    lonely = batch.present.clone()
    lonely[:, 0] = False
    found = augment(32, (False, True), drop_optional_bands=1.0)(batch._replace(present=lonely), 0, 0)
    assert torch.equal(found.present, lonely)


@pytest.mark.parametrize("scale", [1.2, 1.4, 2.0])
def test_windows_as_large_as_recipes_read_fill_the_patch(scale: float) -> None:
    """Turned by any angle, a patch reaches beyond the window only where even zooming in can't help."""
    side = -(-round(64 * scale) // 8) * 8
    batch = blobs(64, 1, side, whole=True)
    found = augment(64, (False,), flips=True, scale=scale, rotate=1.0)(batch, 0, 0)
    assert found.valid.float().mean() > (0.97 if scale < 1.4 else 0.99999)


def test_windows_smaller_than_the_patch_are_refused() -> None:
    with pytest.raises(SettingsError, match="40 x 40 px are smaller than the patch of 48 px"):
        augment(48, (False,))(blobs(1, 1, 40), 0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_does_the_same() -> None:
    batch = blobs(8, 4, 90)
    optional = (False, False, False, True)
    here = Augment(AugmentOptions(**ALL), 64, optional)(batch, 3, 4)
    there = Augment(AugmentOptions(**ALL), 64, optional).cuda()(Batch(*(each.cuda() for each in batch)), 3, 4)
    assert torch.equal(here.present, there.present.cpu())
    same = here.labels == there.labels.cpu()
    assert same.float().mean() > 0.9999  # the nearest of two pixels as near
    assert (here.values - there.values.cpu()).abs().amax(1)[same].quantile(0.999) < 1e-3
