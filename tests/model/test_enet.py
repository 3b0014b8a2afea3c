"""ENet: shapes for any input, the published size, and the laws of its unpooling."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from rssegment.model.architectures.enet import ENet, max_unpool

torch.manual_seed(0)
NET = ENet(4, 8).eval()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on patches this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@settings(max_examples=15)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 3))
def test_logits_have_the_input_s_height_and_width(height: int, width: int, batch: int) -> None:
    with torch.inference_mode():
        logits = NET(torch.randn(batch, 4, height, width))
    assert logits.shape == (batch, 8, height, width)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("bands", [1, 3, 13, 16, 40])
def test_any_number_of_bands(bands: int) -> None:
    assert ENet(bands, 5)(torch.randn(2, bands, 33, 47)).shape == (2, 5, 33, 47)


def test_size_is_the_published_one() -> None:
    """Table 3 of the paper: 0.37 M parameters, for RGB and 19 or 20 classes."""
    count = sum(parameter.numel() for parameter in ENet(3, 20).parameters())
    assert count == pytest.approx(0.37e6, rel=0.03)


def test_every_parameter_learns() -> None:
    net = ENet(4, 8, drop=0.0).train()
    F.cross_entropy(net(torch.randn(2, 4, 64, 64)), torch.randint(0, 8, (2, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_overfits_a_pattern() -> None:
    """A few steps tell left from right: the gradient points the right way."""
    torch.manual_seed(1)
    net = ENet(1, 2, drop=0.0).train()
    image = torch.randn(2, 1, 32, 32) * 0.1
    image[..., 16:] += 1
    truth = torch.zeros(2, 32, 32, dtype=torch.long)
    truth[..., 16:] = 1
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(16):
        loss = F.cross_entropy(net(image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (net(image).argmax(1) == truth).float().mean() > 0.95


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_max_unpool_equals_torch_s(seed: int) -> None:
    x = torch.randn(2, 3, 6, 10, generator=torch.Generator().manual_seed(seed))
    pooled, flat = F.max_pool2d(x, 2, return_indices=True)
    corner = (flat // 10 % 2) * 2 + flat % 10 % 2
    assert torch.equal(max_unpool(pooled, corner), F.max_unpool2d(pooled, flat, 2))


def test_unpooling_needs_no_nondeterministic_operation() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        net = ENet(3, 4, drop=0.0)
        net(torch.randn(1, 3, 16, 16)).mean().backward()
    finally:
        torch.use_deterministic_algorithms(False)


def test_same_pixels_whatever_the_batch_s_neighbours() -> None:
    """With one batch size a patch's logits do not depend on the other patches."""
    x = torch.randn(3, 4, 64, 64)
    other = torch.cat([x[:1], torch.randn(2, 4, 64, 64)])
    with torch.inference_mode():
        assert torch.equal(NET(x)[0], NET(other)[0])


def test_exports_with_free_height_and_width() -> None:
    size = torch.export.Dim("side", min=2, max=64)
    shape = {2: 8 * size, 3: 8 * size}
    program = torch.export.export(NET, (torch.randn(1, 4, 64, 64),), dynamic_shapes=(shape,))
    x = torch.randn(1, 4, 96, 96)
    assert torch.allclose(program.module()(x), NET(x), atol=1e-5)
