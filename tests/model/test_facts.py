"""What architectures cost and see, against hand counts, published figures and numbers that are computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.errors import BundleError
from rssegment.model import architecture_facts, create_architecture
from rssegment.model.architectures.catalogue import OWN, SMP
from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.facts import facts_table
from rssegment.model.architectures.receptive import receptive_field


class Of(nn.Module):
    """A network of one function of one convolution's output."""

    def __init__(self, then: Any, kernel: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, kernel, padding=kernel // 2)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.then(self.convolution(x))
        return result


def field(net: nn.Module) -> float:
    return receptive_field(net.eval().to("meta"), 3)


WHOLE = float("inf")


def conv(kernel: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(8, 8, kernel, **options)


def per_pixel(x: Tensor) -> Tensor:
    """A fully connected layer over the channels of each pixel, as in SegFormer's decoder."""
    tokens = F.linear(x.flatten(2).transpose(1, 2), torch.ones(4, 8, device=x.device))
    return tokens.transpose(1, 2).reshape(1, 4, *x.shape[2:])


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (nn.Identity(), 3),
        (conv(5), 7),
        (conv(3, dilation=4, padding=4), 11),
        (nn.Sequential(conv(3, dilation=2), conv(3, dilation=4)), 15),
        (conv(2, stride=2), 4),
        (nn.Sequential(conv(3, stride=2), conv(3)), 9),
        (nn.Sequential(nn.MaxPool2d(2), conv(3), nn.Upsample(scale_factor=2)), 8),
        (nn.Sequential(nn.MaxPool2d(3, 2, 1), conv(3)), 9),
        (nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")), 6),
        (nn.Sequential(nn.AvgPool2d(4), nn.ConvTranspose2d(8, 8, 8, stride=4, padding=2)), 10),
        (nn.Sequential(nn.AvgPool2d(2), nn.ConvTranspose2d(8, 8, 2, stride=2)), 4),
        (nn.Sequential(conv(4, stride=4), nn.PixelShuffle(2)), 6),
        (nn.Sequential(nn.PixelUnshuffle(2)), 4),
        (nn.Sequential(nn.ReflectionPad2d(3), conv(7)), 9),
        (nn.Sequential(nn.BatchNorm2d(8), nn.PReLU(8), nn.Dropout2d(), nn.Softmax(1), nn.GELU()), 3),
        (lambda x: x[..., 5:, 7:] + F.pad(x, (0, -7, 0, -5)), 10),
        (lambda x: torch.cat([x, F.avg_pool2d(x, 5, 1, 2)], 1), 7),
        (lambda x: x.permute(0, 2, 3, 1) @ torch.ones(8, 4, device=x.device), 3),
        (per_pixel, 3),
        (lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2), 3),
        (lambda x: x * x.mean(1, keepdim=True) + x.amax(1, keepdim=True), 3),
        (lambda x: x * x.mean((2, 3), keepdim=True), WHOLE),
        (lambda x: x.sum(3, keepdim=True) + x, WHOLE),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(1), nn.Upsample(512)), WHOLE),
        (lambda x: F.interpolate(F.adaptive_avg_pool2d(x, 6), size=x.shape[2:], mode="bilinear"), WHOLE),
        (nn.GroupNorm(2, 8), WHOLE),
        (lambda x: x.softmax(3), WHOLE),
        (lambda x: x.flatten(2).softmax(2).view(x.shape), WHOLE),
        (lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT[..., :64, :]] * 3), WHOLE),
        (lambda x: x.roll(3, 2), WHOLE),
        (lambda x: x.transpose(2, 3), 3),
    ],
)  # fmt: skip
def test_fields_counted_by_hand(then: Any, expected: float) -> None:
    assert field(Of(then)) == expected


@pytest.mark.parametrize(("name", "expected"), [("vgg16", 212), ("resnet18", 435), ("mobilenetv1_100", 315)])
def test_fields_of_encoders_are_those_published(name: str, expected: int) -> None:
    """Araujo, Norris & Sim 2019, for VGG and MobileNet; ResNet-18's is common knowledge."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder(name, 3)

        def forward(self, x: Tensor) -> Tensor:
            last: Tensor = self.encoder(x)[-1]
            return last

    with torch.device("meta"):
        net = Last().eval()
    assert receptive_field(net, 3) == expected


def positive(net: nn.Module) -> nn.Module:
    """All weights positive, so that nothing an output depends on cancels out, and of a size that doesn't explode."""
    for module in net.modules():
        for name, value in module.named_parameters(recurse=False):
            fan = value[0].numel() if value.ndim > 1 else 1
            nn.init.constant_(value, 1 / fan if "weight" in name else 0.0)
    return net.double().eval()


def widest(net: nn.Module, width: int) -> int:
    """Most columns of an image (32, width) that the logits of one column depend on, of 7 columns in different places.

    A maximum depends on one pixel only: of a rising image on the last, of a falling one on the first.
    """
    ramp = torch.linspace(1, 2, width, dtype=torch.float64)
    hit = torch.zeros(7, width, dtype=torch.bool)
    for values in (ramp, ramp.flip(0)):
        x = values.expand(1, 3, 32, width).clone().requires_grad_()
        sums = net(x).sum((0, 1, 2))[width // 2 : width // 2 + 35 : 5]
        for number, total in enumerate(sums):
            (gradient,) = torch.autograd.grad(total, x, retain_graph=True)
            hit[number] |= gradient.abs().sum((0, 1, 2)) > 0
    columns = [row.nonzero().flatten() for row in hit]
    return max(int(found[-1] - found[0]) + 1 for found in columns)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 4, "depth": 3}),
        ("segnet", {"width": 0.0625}),
        ("fcn8s", {"width": 0.0625, "fc": 8}),
        ("erfnet", {"width": 4}),
        ("frrn_a", {"width": 4, "residual": 4}),
        ("smp:Linknet", {"encoder": "resnet18"}),
        ("smp:Unet", {"encoder": "resnet18", "decoder_channels": (16, 16, 8, 8, 8)}),
    ],
)
def test_fields_are_what_gradients_reach(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    facts = architecture_facts(name, 3, 2, **options)
    assert facts.receptive_field is not None
    size = facts.receptive_field
    width = -(-(2 * size + 128) // 64) * 64
    found = widest(positive(create_architecture(name, 3, 2, **options)), width)
    if name == "segnet":
        # unpooling puts a maximum at one of four pixels, so a ramp doesn't reach the outermost
        assert size - 64 <= found <= size
    else:
        assert found == size


def test_whole_image_where_a_decoder_pools_it_all() -> None:
    assert architecture_facts("smp:PSPNet", encoder="resnet18").receptive_field is None
    assert architecture_facts("bisenet").receptive_field is None


def test_costs_counted_by_hand() -> None:
    net = create_architecture("enet", 3, 19)
    facts = architecture_facts("enet")
    assert facts.parameters == sum(p.numel() for p in net.parameters())
    assert facts.published == 370_000
    assert facts.published_here is not None
    assert abs(facts.published_here / 370_000 - 1) < 0.03
    # the head: 16 x 19 x 2 x 2 weights, each used once for each of half x half cells
    wider = architecture_facts("enet", classes=38).gigaflops_per_megapixel - facts.gigaflops_per_megapixel
    assert wider == pytest.approx(16 * 19 * 4 / 4 * 1e6 / 1e9)


def test_a_table_has_a_line_for_each() -> None:
    facts = [architecture_facts(name) for name in ("enet", "smp:PSPNet")]
    lines = facts_table(facts).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:3] == ["architecture", "M", "params"]
    assert lines[1].split()[:5] == ["enet", "0.36", "0.37", "7.5", "1249"]
    assert "whole" in lines[2]
    assert "Zhao et al. 2017" in lines[2]


def test_catalogue_and_smp_name_the_same() -> None:
    from rssegment.model import architecture_names

    assert set(architecture_names()) == {*OWN, *SMP}


def test_what_has_no_facts() -> None:
    with pytest.raises(BundleError, match="did you mean unet"):
        architecture_facts("unett")
    with pytest.raises(BundleError, match="unknown option"):
        architecture_facts("unet", colour=1)
