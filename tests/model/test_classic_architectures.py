"""The classic architectures: what each paper says of its network, and what all promise: any size, any layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.errors import RssegmentError
from rssegment.model.architectures.catalogue import OWN
from rssegment.model.architectures.deeplab import DeepLab
from rssegment.model.architectures.dilated import DILATIONS, WIDTHS, ContextModule, Dilated
from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.fcn import FCN
from rssegment.model.architectures.gcn import GCN, BoundaryRefinement, GlobalConvolution
from rssegment.model.architectures.patch_classifier import PatchClassifier
from rssegment.model.architectures.refinenet import ChainedPooling, RefineNet, ResidualUnit
from rssegment.model.architectures.segnet import SegNet
from rssegment.model.architectures.unet import UNet
from rssegment.model.architectures.unpooling import max_pool, max_unpool
from rssegment.model.architectures.upsampling import LearnedUpsampling
from rssegment.model.architectures.vgg import VGG, encoder_for, feature_at

VGG_NARROW: dict[str, Any] = {"width": 0.125}
RESNET: dict[str, Any] = {"encoder": "test_resnet"}
SMALL: dict[str, dict[str, Any]] = {
    "patch": {"width": 8, "hidden": 16},
    "fcn32s": {**VGG_NARROW, "fc": 32},
    "fcn16s": RESNET,
    "fcn8s": {**VGG_NARROW, "fc": 32},
    "unet": {"width": 8},
    "segnet": VGG_NARROW,
    "deconvnet": {**VGG_NARROW, "fc": 32},
    "dilated": {**VGG_NARROW, "fc": 32},
    "deeplabv1": {**VGG_NARROW, "fc": 32},
    "deeplabv2": RESNET,
    "gcn": RESNET,
    "refinenet": {**RESNET, "channels": 16},
}


def small(name: str, bands: int = 4, classes: int = 5) -> nn.Module:
    """``name`` with random weights, narrowed so that it runs in milliseconds."""
    torch.manual_seed(0)
    return OWN[name].build(bands, classes, **SMALL[name])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on images this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seen_from_centre(layer: nn.Module, channels: int, side: int) -> tuple[int, int]:
    """Height and width of the input pixels that the centre of the output of ``layer`` depends on."""
    x = torch.ones(1, channels, side, side, requires_grad=True)
    layer(x)[..., side // 2, side // 2].sum().backward()
    assert x.grad is not None
    rows, cols = (x.grad[0] != 0).any(dim=0).nonzero().T
    return int(rows.max() - rows.min() + 1), int(cols.max() - cols.min() + 1)


# ---- what all promise


@pytest.mark.parametrize("name", SMALL)
def test_logits_have_the_image_s_size_whatever_it_is(name: str) -> None:
    net = small(name).eval()
    with torch.inference_mode():
        for height, width in ((1, 1), (33, 47), (64, 96)):
            logits = net(torch.randn(2, 4, height, width))
            assert logits.shape == (2, 5, height, width)
            assert logits.isfinite().all()
            assert logits.std() > 0


@pytest.mark.parametrize("name", SMALL)
def test_layout_precision_and_neighbours_do_not_matter(name: str) -> None:
    net = small(name).eval()
    x = torch.randn(2, 4, 32, 64)
    with torch.inference_mode():
        logits = net(x)
        other = net(torch.cat([x[:1], torch.randn(1, 4, 32, 64)]))
        assert torch.equal(other[0], logits[0])
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x).float()
        net = net.to(memory_format=torch.channels_last)
        last = net(x.contiguous(memory_format=torch.channels_last))
    size = logits.abs().max()
    assert (last - logits).abs().max() < 1e-5 * size
    assert (rough - logits).abs().max() < 0.1 * size


@pytest.mark.parametrize("name", SMALL)
def test_exports_with_free_height_and_width(name: str) -> None:
    net = small(name).eval()
    sides = {2: 32 * torch.export.Dim("rows", min=2, max=64), 3: 32 * torch.export.Dim("cols", min=2, max=64)}
    program = torch.export.export(net, (torch.randn(1, 4, 64, 96),), dynamic_shapes=(sides,))
    x = torch.randn(1, 4, 96, 64)
    with torch.inference_mode():
        assert torch.allclose(program.module()(x), net(x), atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns_deterministically(name: str) -> None:
    x, truth = torch.randn(2, 4, 64, 64), torch.randint(0, 5, (2, 64, 64))
    gradients = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            net = small(name).train()
            for layer in net.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    nn.init.ones_(
                        layer.weight
                    )  # timm starts some at 0, which nothing before them learns from
            F.cross_entropy(net(x), truth).backward()
            gradients.append({n: p.grad for n, p in net.named_parameters()})
    finally:
        torch.use_deterministic_algorithms(False)
    for parameter, gradient in gradients[0].items():
        assert gradient is not None, parameter
        assert gradient.abs().sum() > 0, parameter
        assert torch.equal(gradient, gradients[1][parameter]), parameter


@pytest.mark.parametrize("name", [name for name in SMALL if OWN[name].published])
def test_size_is_the_published_one(name: str) -> None:
    entry = OWN[name]
    with torch.device("meta"):
        net = entry.build(3, entry.published_classes)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert millions == pytest.approx(entry.published, rel=0.03)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: FCN(3, 2, stride=4), "stride is 4; expected 32, 16 or 8"),
        (lambda: FCN(3, 2, encoder="vgg17"), "vgg17"),
        (lambda: FCN(3, 2, encoder="resnet18", width=0.5), "only a VGG can be narrowed"),
        (lambda: FCN(3, 2, width=0), "width is 0"),
        (lambda: SegNet(3, 2, encoder="resnet18"), "'resnet18'; expected a VGG"),
        (lambda: Dilated(3, 2, context="huge"), "expected one of basic, large, none"),  # type: ignore[arg-type]
        (lambda: Dilated(3, 2, encoder="test_vit"), "test_vit can't give features"),
        (lambda: DeepLab(3, 2, rates=(6, 0)), "expected some, all above 0"),
        (lambda: DeepLab(3, 2, scales=()), "expected some, all above 0"),
        (lambda: GCN(3, 2, kernel=14), "expected an odd number"),
        (lambda: RefineNet(3, 2, encoder="test_vit"), "stride of 32"),
        (lambda: PatchClassifier(3, 2, kernels=(5, 5, 4, 4), last=3), "window of 96 px"),
        (lambda: UNet(3, 2, depth=0), "depth is 0"),
        (lambda: LearnedUpsampling(3, 3), "expected an even number"),
        (lambda: VGG("vgg11", 3, output_stride=4), "expected 8, 16 or 32"),
        (lambda: feature_at(Encoder("test_resnet", 3, output_stride=8), 16), "stride of 16"),
    ],
)
def test_what_cannot_be_built(build: Callable[[], object], said: str) -> None:
    with pytest.raises((ValueError, RssegmentError), match=said):
        build()


# ---- patch classification


@pytest.mark.parametrize(
    ("kernels", "last", "window"),
    [((4, 5, 4, 4), 3, 95), ((3, 2), 2, 12), ((2, 4), 3, 19), ((3,), 1, 4), ((2,), 4, 9)],
)
def test_patch_classifier_is_the_sliding_window(kernels: tuple[int, ...], last: int, window: int) -> None:
    if window % 2 == 0:
        with pytest.raises(ValueError, match=f"window of {window} px; expected an odd number"):
            PatchClassifier(3, 4, kernels=kernels, last=last)
        return
    torch.manual_seed(0)
    net = PatchClassifier(3, 4, kernels=kernels, last=last, width=6, hidden=8)
    assert net.window == window
    with torch.no_grad():
        net.train()(torch.randn(4, 3, 8, 8) * 3 + 1)  # statistics that are not 0 and 1
        net.eval()
        x = torch.randn(1, 3, 7, 9)
        padded = F.pad(x, (window // 2,) * 4, mode="replicate")
        windows = padded.unfold(2, window, 1).unfold(3, window, 1)  # (1, bands, H, W, window, window)
        slid = net.classify(windows[0].permute(1, 2, 0, 3, 4).flatten(0, 1))  # (H * W, classes)
    assert torch.allclose(net(x)[0].flatten(1).T, slid, atol=1e-6)
    assert slid.std(dim=0).min() > 1e-4


# ---- VGG as an encoder


def convolutions(encoder: VGG) -> list[nn.Conv2d]:
    return [layer for layer in encoder.body.values() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_weights_of_vgg_fit_whatever_becomes_of_its_pools(stride: int) -> None:
    with torch.device("meta"):
        plain = Encoder("vgg16_bn", 3).state_dict()
        ours = VGG("vgg16_bn", 3, output_stride=stride).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in plain.items()
    }


@pytest.mark.parametrize(("stride", "fourth", "fifth"), [(32, 1, 1), (16, 1, 1), (8, 1, 2)])
def test_strides_become_dilation(stride: int, fourth: int, fifth: int) -> None:
    encoder = VGG("vgg16_bn", 3, width=0.125, output_stride=stride)
    assert [layer.dilation[0] for layer in convolutions(encoder)] == [1] * 7 + [fourth] * 3 + [fifth] * 3
    features = encoder(torch.randn(1, 3, 64, 64))
    assert encoder.strides == tuple(min(s, stride) for s in (2, 4, 8, 16, 32))
    assert [64 // f.shape[-1] for f in features] == list(encoder.strides)
    assert tuple(f.shape[1] for f in features) == encoder.channels == (8, 16, 32, 64, 64)


def test_dilation_keeps_every_number_of_the_strided_network() -> None:
    """The atrous law: where the strided network has a value, the dilated one has the same."""
    torch.manual_seed(0)
    dense = VGG("vgg11_bn", 3, width=0.125, output_stride=8, late_pools="drop").eval()
    strided = VGG("vgg11_bn", 3, width=0.125).eval()
    strided.load_state_dict(dense.state_dict())
    pools = [name for name, layer in strided.body.items() if isinstance(layer, nn.MaxPool2d)]
    for name in pools[3:]:
        strided.body[name] = nn.MaxPool2d(1, 2)  # a stride without a pool
    x = torch.randn(1, 3, 128, 96)
    with torch.inference_mode():
        assert torch.allclose(dense(x)[-1][..., ::4, ::4], strided(x)[-1], atol=1e-6)


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg19"])
def test_every_vgg_mirrors(name: str) -> None:
    net = SegNet(3, 2, encoder=name, width=0.0625).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 40, 20)).shape == (1, 2, 40, 20)


# ---- FCN


@given(st.integers(1, 3), st.sampled_from([2, 4]), st.integers(3, 9), st.integers(3, 9))
@settings(max_examples=20)
def test_upsampling_starts_bilinear(channels: int, factor: int, height: int, width: int) -> None:
    x = torch.randn(1, channels, height, width)
    with torch.no_grad():
        learned = LearnedUpsampling(channels, factor)(x)
    bilinear = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    assert learned.shape == bilinear.shape
    inside = (..., slice(factor // 2, -(factor // 2)), slice(factor // 2, -(factor // 2)))
    assert torch.allclose(learned[inside], bilinear[inside], atol=1e-6)


def test_fcn_16s_is_32s_and_a_skip_from_the_fourth_pool() -> None:
    coarse, fine = small("fcn32s").eval(), FCN(4, 5, stride=16, **SMALL["fcn32s"]).eval()
    lacking, strange = fine.load_state_dict(coarse.state_dict(), strict=False)
    assert set(lacking) == {"skips.0.weight", "skips.0.bias", "upsamplings.0.weight"}
    assert not strange
    assert isinstance(fine.skips[0], nn.Conv2d)
    x = torch.randn(1, 4, 128, 128)
    with torch.no_grad():
        fourth, fifth = fine.encoder(x)[-2:]
        assert fourth.shape[-1] == 8
        assert fine.skips[0].in_channels == fourth.shape[1]
        scores = fine.head(fine.classifier(fifth))
        assert torch.equal(
            coarse(x), F.interpolate(scores, scale_factor=32, mode="bilinear", align_corners=False)
        )
        # the skip starts at zero, so at first both say the same, but for how twice bilinear is not bilinear
        inside = (..., slice(32, 96), slice(32, 96))
        assert (fine(x) - coarse(x))[inside].abs().max() < 0.2 * coarse(x).abs().max()
        nn.init.normal_(fine.skips[0].weight)
        joined = fine.upsamplings[0](scores) + fine.skips[0](fourth)
        expected = F.interpolate(joined, scale_factor=16, mode="bilinear", align_corners=False)
    assert torch.allclose(fine(x), expected, atol=1e-5)


def test_fcn_8s_has_both_skips_and_a_resnet_has_no_classifier_of_4096() -> None:
    net = FCN(4, 5, stride=8, **RESNET)
    assert [net.encoder.strides[place] for place in net.places] == [16, 8]
    assert len(net.classifier) == 0
    with torch.device("meta"):
        assert FCN(4, 5).classifier[0].weight.shape == (4096, 512, 7, 7)


# ---- U-Net


def test_unet_without_normalisation_has_the_paper_s_weights() -> None:
    """31.0 M: one band, two classes, and a bias in each convolution."""
    with torch.device("meta"):
        net = UNet(1, 2, norm=False)
    assert sum(p.numel() for p in net.parameters()) == 31_030_658
    assert [layer.in_channels for layer in net.up] == [1024, 512, 256, 128]


def test_unet_hands_across_each_stage() -> None:
    """With the way through the bottom shut, an image's finest detail still comes out."""
    net = small("unet").eval()
    with torch.no_grad():
        for up in net.up:  # type: ignore[union-attr]
            up.weight.zero_()
            up.bias.zero_()
        a = torch.randn(1, 4, 32, 32)
        b = a.clone()
        b[..., 16, 16] += 1
        changed = (net(a) != net(b)).any(dim=1).nonzero()[:, 1:]
    assert (changed.amax(dim=0) - changed.amin(dim=0) + 1).tolist() == [9, 9]  # four convolutions of 3 x 3


# ---- SegNet and DeconvNet


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=30)
def test_unpooling_puts_maxima_back(seed: int, height: int, width: int) -> None:
    x = torch.randn(2, 3, 2 * height, 2 * width, generator=torch.Generator().manual_seed(seed))
    pooled, corner = max_pool(x)
    back = max_unpool(pooled, corner)
    there = back != 0
    assert torch.equal(back[there], x[there])
    assert torch.equal(F.max_pool2d(back.abs(), 2), pooled.abs())
    assert torch.equal(F.avg_pool2d(there.float(), 2), torch.full_like(pooled, 0.25))
    assert torch.equal(pooled, F.max_pool2d(x, 2))


def test_corners_are_those_of_the_encoder_s_pools() -> None:
    encoder = VGG("vgg16_bn", 3, width=0.125).eval()
    x = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        deepest, corners = encoder.with_corners(x)
        features = encoder(x)
    assert torch.equal(deepest, features[-1])
    assert [corner.shape for corner in corners] == [feature.shape for feature in features]


def test_segnet_s_decoder_is_vgg16_backwards() -> None:
    with torch.device("meta"):
        net = SegNet(3, 12)
    up = [layer for layer in net.decoder.modules() if isinstance(layer, nn.Conv2d)] + [net.head]
    down = convolutions(net.encoder)
    assert len(up) == len(down) == 13
    mirrored = [(layer.out_channels, layer.in_channels) for layer in reversed(down)]
    mirrored[-1] = (64, 12)
    assert [(layer.in_channels, layer.out_channels) for layer in up] == mirrored


def test_deconvnet_mirrors_the_fully_connected_layers_too() -> None:
    with torch.device("meta"):
        net = OWN["deconvnet"].build(3, 21)
    shapes = [tuple(p.shape) for name, p in net.middle.named_parameters() if p.ndim == 4]  # type: ignore[union-attr]
    assert shapes == [(4096, 512, 7, 7), (4096, 4096, 1, 1), (4096, 512, 7, 7)]
    deconvolutions = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(deconvolutions) == 1 + 13


# ---- dilated convolutions


@pytest.mark.parametrize("context", ["basic", "large"])
def test_context_sees_67_pixels_and_starts_as_the_identity(context: str) -> None:
    torch.manual_seed(0)
    module = ContextModule(2, WIDTHS[context])
    x = torch.rand(1, 2, 20, 20)
    with torch.no_grad():
        assert torch.allclose(module(x), x, atol=0.05)
        assert not torch.equal(module(x), x)  # noise, without which all maps would learn the same
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1e-2)  # nothing cancels and nothing is cut off
    assert seen_from_centre(module, 2, 71) == (67, 67)
    assert 1 + 2 * sum(DILATIONS) == 67


def test_basic_context_has_64_weights_for_each_pair_of_classes() -> None:
    module = ContextModule(21, WIDTHS["basic"])
    assert sum(p.numel() for p in module.parameters() if p.ndim == 4) == 64 * 21**2


def test_front_end_drops_two_pools_and_dilates_by_2_and_4() -> None:
    net = Dilated(3, 4, **VGG_NARROW, fc=8)
    assert isinstance(net.encoder, VGG)
    assert [layer.dilation[0] for layer in convolutions(net.encoder)] == [1] * 10 + [2] * 3
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in net.encoder.body.values()) == 3
    assert net.classifier[0].dilation == (4, 4)
    assert net.encoder(torch.zeros(1, 3, 64, 64))[-1].shape[-1] == 8


# ---- DeepLab


def test_rates_of_deeplab() -> None:
    for options, rates in (({"aspp": False}, [12]), ({}, [6, 12, 18, 24]), ({"rates": (3, 9)}, [3, 9])):
        for net in (DeepLab(3, 4, **VGG_NARROW, fc=8, **options), DeepLab(3, 4, **RESNET, **options)):  # type: ignore[arg-type]
            first = [b[0] if isinstance(b, nn.Sequential) else b for b in net.branches]
            assert [(c.dilation[0], c.padding[0], c.kernel_size[0]) for c in first] == [
                (r, r, 3) for r in rates
            ]
            assert net.encoder.strides[-1] == 8


def test_the_pyramid_is_the_sum_of_its_branches() -> None:
    net = small("deeplabv1").eval()
    pyramid = DeepLab(4, 5, rates=(12, 12), **SMALL["deeplabv1"]).eval()
    for part in pyramid.branches:
        part.load_state_dict(net.branches[0].state_dict())  # type: ignore[index, union-attr]
    pyramid.encoder.load_state_dict(net.encoder.state_dict())  # type: ignore[union-attr]
    x = torch.randn(1, 4, 33, 50)
    with torch.inference_mode():
        assert torch.allclose(pyramid(x), 2 * net(x), atol=1e-5)


def test_several_scales_are_joined_by_their_maximum() -> None:
    def at(*scales: float) -> Tensor:
        torch.manual_seed(0)
        net = DeepLab(3, 4, **RESNET, scales=scales).eval()
        x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            return net(x)

    assert torch.equal(at(0.5, 0.75, 1), torch.maximum(torch.maximum(at(0.5), at(0.75)), at(1)))
    assert not torch.equal(at(0.5), at(1))


def test_scales_lie_on_one_another() -> None:
    """What is in the right half at one scale is there at each, though sides are no multiples of strides."""
    net = DeepLab(1, 2, encoder="vgg11_bn", width=0.125, fc=8, rates=(1,), scales=(0.5, 0.75, 1)).eval()
    seen: list[tuple[int, ...]] = []
    net.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, 33, 70)).shape == (1, 2, 33, 70)
    assert seen == [(32, 48), (48, 72), (64, 96)]


# ---- GCN


@pytest.mark.parametrize("kernel", [3, 7, 15])
def test_two_thin_convolutions_see_a_square(kernel: int) -> None:
    torch.manual_seed(0)
    layer = GlobalConvolution(2, 3, kernel)
    assert seen_from_centre(layer, 2, 21) == (kernel, kernel)
    weights = sum(p.numel() for p in layer.parameters() if p.ndim == 4)
    assert weights == 2 * kernel * (2 * 3 + 3 * 3)
    x = torch.randn(1, 2, 9, 11)
    with torch.no_grad():  # without a nonlinearity between: twice as much in, twice as much out
        offset = layer(torch.zeros_like(x))
        assert torch.allclose(layer(2 * x) - offset, 2 * (layer(x) - offset), atol=1e-4)


def test_boundary_refinement_is_a_residual() -> None:
    layer = BoundaryRefinement(3)
    nn.init.zeros_(layer.residual[2].weight)
    nn.init.zeros_(layer.residual[2].bias)
    x = torch.randn(1, 3, 5, 6)
    assert torch.equal(layer(x), x)


def test_gcn_s_maps_have_as_many_channels_as_classes_unless_told_otherwise() -> None:
    assert isinstance(GCN(3, 7, **RESNET).head, nn.Identity)
    wide = GCN(3, 7, **RESNET, channels=16)
    assert wide.views[0][0].left[0].out_channels == 16
    assert wide.head.out_channels == 7
    assert [wide.encoder.strides[place] for place in wide.places] == [32, 16, 8, 4]


# ---- RefineNet


def test_chained_pooling_adds_what_each_link_gathers() -> None:
    chain = ChainedPooling(1, 2)
    for link in chain.links:
        nn.init.dirac_(link[1].weight)
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7], x[..., 0, 0] = 1, -1
    found = chain(x)[0, 0]
    assert found[7].tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 2, 2, 1, 1, 0, 0, 0]  # 5 px, and 5 px of these: 9
    assert found.min() == 0


def test_refinenet_s_blocks_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        net = RefineNet(3, 21)
    assert sum(isinstance(m, ResidualUnit) for m in net.modules()) == (2 + 1) + 3 * (2 * 2 + 1) + 2
    assert [adapter.out_channels for adapter in net.adapters] == [512, 256, 256, 256]
    assert net.blocks[0].fusions is None
    assert [[f.in_channels for f in block.fusions] for block in list(net.blocks)[1:]] == [
        [256, 512],
        [256, 256],
        [256, 256],
    ]
    for before, after in pairwise(net.places):
        assert net.encoder.strides[before] == 2 * net.encoder.strides[after]


def test_coarse_features_reach_the_output_and_so_do_fine_ones() -> None:
    net = small("refinenet").eval()
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        before = net(x)
        for adapter in net.adapters:  # type: ignore[union-attr]
            kept = adapter.weight.clone()
            adapter.weight.zero_()
            assert not torch.allclose(net(x), before)
            adapter.weight.copy_(kept)


def test_any_encoder_with_these_strides_will_do() -> None:
    x = torch.randn(1, 3, 33, 40)
    with torch.inference_mode():
        for encoder in ("test_convnext", "test_efficientnet"):
            assert GCN(3, 2, encoder=encoder).eval()(x).shape == (1, 2, 33, 40)
        assert RefineNet(3, 2, encoder="vgg11_bn", width=0.125, channels=8).eval()(x).shape == (1, 2, 33, 40)
    assert isinstance(encoder_for("vgg11", 3, width=0.1), VGG)
