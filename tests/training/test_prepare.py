"""What a network sees in training is what it sees at inference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rssegment.model import BandSpec, Model, ModelSpec
from rssegment.training.batch import Batch
from rssegment.training.prepare import Prepare

DTYPES = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-32768, 32767), "float32": (-1e6, 1e6)}
MEANS, STDS = (110.25, 83.5, 1200.0), (41.7, 0.37, 900.1)


def stored(dtype: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    low, high = DTYPES[dtype]
    return torch.from_numpy(rng.uniform(low, high, shape).astype(dtype))


def a_batch(values: torch.Tensor, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    count, bands, height, width = values.shape
    labels = torch.from_numpy(rng.integers(0, 9, (count, height, width)).astype(np.int32))
    valid = torch.from_numpy(rng.random((count, height, width)) < 0.8)
    present = torch.from_numpy(rng.random((count, bands)) < 0.7)
    return Batch(values, labels, valid, present)


def seen_at_inference(values: torch.Tensor) -> torch.Tensor:
    """What a bundle's model gives its network."""
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x.new_zeros((len(x), 2, *x.shape[2:]))

    bands = tuple(
        BandSpec(name=f"b{i}", mean=m, std=s) for i, (m, s) in enumerate(zip(MEANS, STDS, strict=True))
    )
    Model(network, ModelSpec(name="seen", bands=bands, channels=(1, 2), ground_resolution=1.0), (1, 2))(
        values
    )
    return seen[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_those_of_inference_to_the_bit(dtype: str) -> None:
    values = stored(dtype, (2, 3, 9, 7))
    batch = a_batch(values)._replace(
        valid=torch.ones(2, 9, 7, dtype=torch.bool), present=torch.ones(2, 3).bool()
    )
    ours, theirs = Prepare(MEANS, STDS)(batch).values, seen_at_inference(values)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, theirs)
    assert ours.stride() == theirs.stride()
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_missing_is_filled_as_at_inference(dtype: str) -> None:
    values = stored(dtype, (2, 3, 9, 7), seed=1)
    batch = a_batch(values, seed=1)
    gone = ~(batch.valid[:, None] & batch.present[:, :, None, None])
    means = torch.tensor(MEANS).view(1, 3, 1, 1).expand(values.shape)
    filled = torch.where(gone, means, values.to(torch.float32))
    ours = Prepare(MEANS, STDS)(batch)
    assert torch.equal(ours.values, seen_at_inference(filled))
    assert not ours.values[gone].any()
    assert torch.equal(ours.labels, torch.where(batch.valid, batch.labels, 0))
    assert torch.equal(ours.present, batch.present)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38]),
    st.integers(0, 2**16),
)
def test_no_nan_or_infinity_gets_through(bands: int, bad: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = stored("float32", (2, bands, 5, 4), seed)
    at = torch.from_numpy(rng.random(values.shape) < 0.3)
    batch = a_batch(torch.where(at, bad, values), seed)
    ours = Prepare(MEANS[:bands], (0.1,) * bands)(batch)
    assert ours.values.isfinite().all()
    struck = (at & batch.present[:, :, None, None]).any(1)
    assert torch.equal(ours.valid, batch.valid & ~struck)  # one bad band makes the pixel invalid
    assert not ours.labels[~ours.valid].any()
    assert not ours.values[~ours.valid[:, None].expand_as(ours.values)].any()
    for part, whole in zip(ours, batch, strict=True):
        assert part.shape == whole.shape


def test_an_absent_band_of_nan_harms_no_pixel() -> None:
    values = torch.tensor([100.0, float("nan")]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    batch = Batch(
        values, torch.ones(1, 4, 4).int(), torch.ones(1, 4, 4).bool(), torch.tensor([[True, False]])
    )
    ours = Prepare((90.0, 0.0), (10.0, 1.0))(batch)
    assert ours.valid.all()
    assert torch.equal(ours.values[0, :, 0, 0], torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("bands", [1, 3])
def test_the_batch_given_stays_as_it_is(bands: int) -> None:
    batch = a_batch(stored("float32", (2, bands, 6, 6)).contiguous(memory_format=torch.channels_last))
    before = [each.clone() for each in batch]
    Prepare(MEANS[:bands], STDS[:bands])(batch)
    assert all(torch.equal(one, other) for one, other in zip(batch, before, strict=True))


def test_constants_are_no_part_of_the_weights() -> None:
    assert not Prepare(MEANS, STDS).state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same() -> None:
    batch = a_batch(stored("uint16", (2, 3, 8, 8)))
    there = Prepare(MEANS, STDS).to("cuda")(batch)
    here = Prepare(MEANS, STDS)(batch)
    assert there.values.device.type == "cuda"
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(one.cpu(), other)
