"""ERFNet to MobileUNet: any size, published numbers of parameters, and what makes each of them what it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.errors import BundleError
from rssegment.model.architectures import create_architecture
from rssegment.model.architectures.bisenet import OneImageNorm
from rssegment.model.architectures.catalogue import OWN
from rssegment.model.architectures.denseaspp import DenseASPP, dilated_encoder
from rssegment.model.architectures.drn import DRN, Block
from rssegment.model.architectures.duc_hdc import DUCHDC, DenseUpsampling, leaves_holes
from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.erfnet import ERFNet
from rssegment.model.architectures.fcdensenet import FCDenseNet
from rssegment.model.architectures.frrn import FRRN, FullResolutionUnit
from rssegment.model.architectures.icnet import ICNet, pyramid_sum
from rssegment.model.architectures.mobileunet import MobileUNet, separable

SMALL = "resnet10t"  # an encoder of 5 M parameters
NARROW: dict[str, dict[str, Any]] = {
    "erfnet": {"width": 4},
    "fcdensenet56": {"growth": 4, "first": 8},
    "frrn_a": {"width": 4, "residual": 4},
    "frrn_b": {"width": 4, "residual": 4},
    "icnet": {"encoder": SMALL, "width": 16},
    "bisenet": {"encoder": SMALL, "width": 16},
    "denseaspp": {"encoder": SMALL, "width": 8},
    "duc_hdc": {"encoder": SMALL, "pyramid": [6, 12], "cell": 4},
    "drn": {"width": 4},
    "mobileunet": {"width": 8},
}
BANDS, CLASSES = 4, 5
WITH_AUXILIARY = ("icnet", "bisenet")
_BUILT: dict[str, nn.Module] = {}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on patches this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=NARROW)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def net(name: str) -> nn.Module:
    """The narrow network in evaluation mode, built once; normalised by what a batch of noise looks like inside."""
    if name not in _BUILT:
        torch.manual_seed(0)
        built = create_architecture(name, BANDS, CLASSES, **NARROW[name])
        with torch.no_grad():
            built.train()(noise(2, 64, 64))
        _BUILT[name] = built.eval()
    return _BUILT[name]


def noise(batch: int, height: int, width: int, bands: int = BANDS) -> Tensor:
    return torch.randn(batch, bands, height, width, generator=torch.Generator().manual_seed(height))


def parameters(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (64, 96)])
def test_logits_have_the_input_s_height_and_width(net: nn.Module, height: int, width: int) -> None:
    with torch.inference_mode():
        logits = net(noise(2, height, width))
    assert logits.shape == (2, CLASSES, height, width)
    assert torch.isfinite(logits).all()
    assert logits.std() > 1e-4  # it looks at its input


@pytest.mark.parametrize("name", [*NARROW, "fcdensenet67", "fcdensenet103"])
def test_size_is_the_published_one(name: str) -> None:
    """Within 3 %; figures of the papers, and where they differ from their own description, of the description."""
    described = {"fcdensenet56": 1.377, "duc_hdc": 64.91, "mobileunet": 8.87}
    entry = OWN[name]
    with torch.device("meta"):
        count = parameters(entry.build(3, entry.published_classes))
    assert count == pytest.approx(described.get(name, entry.published), rel=0.03)
    assert name not in described or entry.remark


def test_channels_last_changes_nothing(net: nn.Module) -> None:
    x = noise(2, 33, 64)
    with torch.inference_mode():
        expected = net(x)
        logits = net(x.to(memory_format=torch.channels_last))
    assert torch.allclose(logits, expected, atol=1e-4 * float(expected.abs().max()))


def test_runs_in_half_precision(net: nn.Module) -> None:
    x = noise(2, 64, 64)
    with torch.inference_mode():
        expected = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x).float()
    assert (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_same_pixels_whenever_and_whatever_the_batch_s_neighbours(net: nn.Module) -> None:
    x = noise(3, 40, 64)
    other = torch.cat([x[:1], torch.rand(2, BANDS, 40, 64)])
    with torch.inference_mode():
        assert torch.equal(net(x), net(x))
        assert torch.equal(net(x)[0], net(other)[0])


def test_exports_with_any_batch(net: nn.Module) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(net, (noise(2, 33, 64),), dynamic_shapes=shapes)
    x = noise(3, 33, 64)
    with torch.no_grad():
        expected = net(x)
        assert torch.allclose(program.module()(x), expected, atol=1e-5 * float(expected.abs().max()))


def test_every_parameter_learns(name: str) -> None:
    """In training mode, from all outputs, without an operation that is not deterministic."""
    torch.manual_seed(1)
    net = create_architecture(name, BANDS, CLASSES, **NARROW[name]).train()
    torch.use_deterministic_algorithms(True)
    try:
        outputs = net(noise(2, 64, 96))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        truth = torch.randint(0, CLASSES, (2, 64, 96))
        sum(F.cross_entropy(output, truth) for output in outputs).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    learning = {}
    for label, parameter in net.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        learning[label] = bool(parameter.grad.any())
    # timm's residual branches start as zeros, so that what is inside them learns from the second step on
    assert all(learns for label, learns in learning.items() if not label.startswith("encoder.")), learning
    assert next(iter(learning.values())), learning


def test_auxiliary_outputs_in_training_only(net: nn.Module, name: str) -> None:
    x = noise(2, 33, 64)
    try:
        outputs = net.train()(x)
        if name in WITH_AUXILIARY:
            assert isinstance(outputs, tuple)
            assert [output.shape for output in outputs] == [(2, CLASSES, 33, 64)] * 3
        else:
            assert outputs.shape == (2, CLASSES, 33, 64)
    finally:
        net.eval()
    assert isinstance(net(x), Tensor)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("erfnet", {"width": 0}, "width is 0"),
        ("erfnet", {"width": 2.5}, "width is 2.5"),
        ("fcdensenet103", {"layers": 100}, "56, 67, 103"),
        ("fcdensenet103", {"growth": 0}, "growth is 0"),
        ("frrn_a", {"variant": "C"}, "A or B"),
        ("frrn_a", {"residual": -1}, "residual is -1"),
        ("icnet", {"encoder": "mobilenetv2_050"}, "no stages in sequence"),
        ("icnet", {"encoder": "vgg11"}, "stride of 8"),
        ("bisenet", {"encoder": "vit_tiny_patch16_224"}, "strides of 16 and 32"),
        ("denseaspp", {"encoder": SMALL, "rates": []}, "one or more"),
        ("denseaspp", {"output_stride": 12}, "8, 16 or 32"),
        ("duc_hdc", {"encoder": SMALL, "dilations": [2, 2, 2]}, "leave pixels between"),
        ("duc_hdc", {"encoder": "regnety_002"}, "no ResNet"),
        ("duc_hdc", {"encoder": SMALL, "cell": 3}, "1, 2, 4 or 8"),
        ("duc_hdc", {"encoder": SMALL, "pyramid": [0]}, "1 or above"),
        ("drn", {"variant": "D-23"}, "D-22"),
        ("mobileunet", {"width": True}, "whole number"),
    ],
)
def test_options_that_make_no_network_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        create_architecture(name, 3, 4, **options)


# ERFNet


@pytest.mark.parametrize("bands", [1, 16, 20])
def test_erfnet_takes_more_bands_than_its_first_layer_has_channels(bands: int) -> None:
    assert ERFNet(bands, 3, width=4).eval()(noise(1, 16, 16, bands)).shape == (1, 3, 16, 16)


def test_erfnet_s_residual_layers_are_factorised() -> None:
    net = ERFNet(3, 4)
    kernels = {layer.kernel_size for layer in net.stage2.modules() if isinstance(layer, nn.Conv2d)}
    assert kernels == {(3, 1), (1, 3)}
    reach = [max(layer.dilation) for layer in net.stage2.modules() if isinstance(layer, nn.Conv2d)]
    assert reach[2::4] == [2, 4, 8, 16, 2, 4, 8, 16]


# FC-DenseNet


@pytest.mark.parametrize("layers", [56, 67, 103])
def test_fcdensenet_has_as_many_layers_as_it_is_called_by(layers: int) -> None:
    with torch.device("meta"):
        net = FCDenseNet(3, 12, layers=layers)
    assert sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in net.modules()) == layers


def test_fcdensenet_s_feature_maps_are_those_of_the_paper() -> None:
    """Table 2 of the paper for 103 layers; its 578 is a misprint, 160 + 304 + 7 * 16 being 576."""
    with torch.device("meta"):
        net = FCDenseNet(3, 12, layers=103)
    pooled = [pool[2].in_channels for pool in net.pool]
    assert pooled == [112, 192, 304, 464, 656]
    ends = [block.layers[-1][2] for block in net.up]
    assert [end.in_channels + end.out_channels for end in ends] == [1088, 816, 576, 384, 256]
    assert [unpool.in_channels for unpool in net.unpool] == [
        240,
        192,
        160,
        112,
        80,
    ]  # only what is fresh goes up
    assert net.head.in_channels == 256


# FRRN


@pytest.mark.parametrize("variant", ["A", "B"])
def test_frrn_s_residual_stream_keeps_the_full_resolution(variant: str) -> None:
    net = FRRN(3, 4, variant=variant, width=4, residual=3).eval()
    seen: list[tuple[torch.Size, torch.Size]] = []
    for unit in net.modules():
        if isinstance(unit, FullResolutionUnit):
            unit.register_forward_hook(lambda _, __, out: seen.append((out[0].shape, out[1].shape)))
    with torch.inference_mode():
        net(noise(1, 64, 96, 3))
    assert {residual for _, residual in seen} == {(1, 3, 64, 96)}
    heights = [pooled[2] for pooled, _ in seen]
    assert min(heights) == (4 if variant == "A" else 2)
    assert len(heights) == (17 if variant == "A" else 21)
    assert heights == sorted(heights[: heights.index(min(heights))], reverse=True) + sorted(
        heights[heights.index(min(heights)) :]
    )


def test_frrn_s_residual_stream_is_only_added_to() -> None:
    """If no unit writes, what the first layers put in comes out at the end, untouched by any pooling."""
    net = FRRN(3, 4, width=4, residual=3).eval()
    for unit in net.modules():
        if isinstance(unit, FullResolutionUnit):
            nn.init.zeros_(unit.write.weight)
            nn.init.zeros_(unit.write.bias)
    joined: list[Tensor] = []
    net.merge.register_forward_pre_hook(lambda _, given: joined.append(given[0]))
    x = noise(1, 32, 32, 3)
    with torch.inference_mode():
        net(x)
        assert torch.equal(joined[0][:, -3:], net.split(net.first(x)))


# ICNet and BiSeNet


@settings(max_examples=25)
@given(st.integers(1, 20), st.integers(1, 20))
def test_pyramid_s_cells_are_those_of_adaptive_pooling(height: int, width: int) -> None:
    x = noise(2, height, width)
    expected = x.clone()
    for bins in (1, 2, 3, 6):
        pooled = F.adaptive_avg_pool2d(x, bins)
        expected += F.interpolate(pooled, size=(height, width), mode="bilinear", align_corners=False)
    assert torch.allclose(pyramid_sum(x), expected, atol=1e-5)


@pytest.mark.parametrize("encoder", [SMALL, "regnety_002", "convnext_atto"])
def test_icnet_runs_each_stage_of_its_encoder_once(encoder: str) -> None:
    net = ICNet(3, 4, encoder=encoder, width=8).eval()
    shapes = []
    for stage in net.encoder.body.values():
        stage.register_forward_hook(lambda _, given, out: shapes.append((given[0].shape[2:], out.shape[2:])))
    with torch.inference_mode():
        net(noise(1, 128, 192, 3))
    assert len(shapes) == len(net.encoder.body)
    assert shapes[0][0] == (64, 96)  # half the image goes in
    assert shapes[net.shared - 1][1] == (8, 12)  # the medium branch ends at a 16th of the image
    assert {out for _, out in shapes[net.shared :]} == {(4, 6)}  # the low one is dilated, at a 32nd


def test_encoder_s_weights_are_where_pretrained_ones_are_loaded() -> None:
    for kind in (ICNet, DenseASPP, DUCHDC):
        net = kind(3, 4, encoder=SMALL)
        assert net.encoder.state_dict().keys() == Encoder(SMALL, 3).state_dict().keys()
        net.encoder.load_state_dict(Encoder(SMALL, 3).state_dict())


def test_bisenet_trains_on_one_image() -> None:
    """The last batch of an epoch is often of one, whose global averages have no variance."""
    net = create_architecture("bisenet", 3, 4, encoder=SMALL, width=8).train()
    logits, *_ = net(noise(1, 64, 64, 3))
    logits.mean().backward()
    assert torch.isfinite(logits).all()


def test_one_image_s_norm_is_batch_normalisation_where_that_is_defined() -> None:
    ours, usual = OneImageNorm(4), nn.BatchNorm2d(4)
    x = torch.randn(6, 4, 1, 1)
    assert torch.equal(ours(x), usual(x))
    assert torch.equal(ours.running_var, usual.running_var)
    assert torch.equal(ours.eval()(x[:1]), usual.eval()(x[:1]))


def test_bisenet_keeps_spatial_detail_beside_context() -> None:
    net = create_architecture("bisenet", 3, 4, encoder=SMALL, width=8).eval()
    joined: list[Tensor] = []
    net.fuse.register_forward_pre_hook(lambda _, given: joined.append(given[0]))
    with torch.inference_mode():
        net(noise(1, 64, 96, 3))
    assert joined[0].shape == (1, 16, 8, 12)


# DenseASPP


@pytest.mark.parametrize(("output_stride", "dilations"), [(8, (2, 4)), (16, (1, 2)), (32, (1, 1))])
def test_densenet_is_dilated_after_the_poolings_it_loses(
    output_stride: int, dilations: tuple[int, int]
) -> None:
    with torch.device("meta"):
        encoder = dilated_encoder("densenet121", 3, output_stride)
        features = encoder(torch.empty(1, 3, 64, 64))
        assert encoder.state_dict().keys() == Encoder("densenet121", 3).state_dict().keys()
    assert [64 // f.shape[-1] for f in features] == list(encoder.strides)
    assert max(encoder.strides) == output_stride
    found = tuple(
        {c.dilation[0] for c in encoder.body[f"features_denseblock{k}"].modules() if is_3x3(c)}
        for k in (3, 4)
    )
    assert found == tuple({dilation} for dilation in dilations)


def is_3x3(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)


def test_each_step_of_denseaspp_sees_all_before() -> None:
    net = DenseASPP(3, 4, encoder=SMALL, width=8)
    assert [step[2].in_channels for step in net.cascade] == [256 + 8 * k for k in range(5)]
    assert [step[5].dilation[0] for step in net.cascade] == [3, 6, 12, 18, 24]
    assert net.head[1].in_channels == 256 + 5 * 8


# DUC and HDC


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_holes_are_pixels_that_no_filter_sees(rates: list[int]) -> None:
    side = sum(rates)
    field = torch.zeros(1, 1, 2 * side + 1)
    field[..., side] = 1
    for rate in rates:
        field = F.conv1d(field, torch.ones(1, 1, 3), padding=rate, dilation=rate)
    assert leaves_holes(rates) == bool((field == 0).any())


def test_hybrid_dilation_sees_every_pixel_where_equal_rates_see_a_grid() -> None:
    assert not leaves_holes((1, 2, 5, 9))
    assert leaves_holes((2, 2, 2))
    assert leaves_holes((2, 4, 8))


def test_residual_blocks_take_hybrid_dilations_in_turn() -> None:
    """Section 3.2 of the paper, "Dilation-bigger": 23 blocks of stage 4, the last three 1, 2, 5; then 5, 9, 17."""
    with torch.device("meta"):
        net = DUCHDC(3, 4)
        assert net.encoder(torch.empty(1, 3, 64, 64))[-1].shape[2:] == (8, 8)
    rates = {
        stage: [c.dilation[0] for c in net.encoder.body[stage].modules() if is_3x3(c)]
        for stage in ("layer2", "layer3", "layer4")
    }
    assert set(rates["layer2"]) == {1}
    assert rates["layer3"] == [1, 2, 5, 9] * 5 + [1, 2, 5]
    assert rates["layer4"] == [5, 9, 17]


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_dense_upsampling_gives_each_pixel_of_a_cell_weights_of_its_own(factor: int) -> None:
    layer = DenseUpsampling(6, 3, factor, (1, 2))
    x = noise(2, 5, 7, 6)
    logits = layer(x)
    assert logits.shape == (2, 3, 5 * factor, 7 * factor)
    for row, col in [(0, 0), (0, factor - 1), (factor - 1, 0), (1, 1)]:
        channels = [k * factor**2 + row * factor + col for k in range(3)]
        expected = sum(
            F.conv2d(x, c.weight[channels], c.bias[channels], padding=c.padding, dilation=c.dilation)
            for c in layer.convolutions
        )
        assert torch.allclose(logits[..., row::factor, col::factor], expected, atol=1e-5)


def test_cell_of_one_pixel_interpolates_nothing() -> None:
    net = DUCHDC(3, 4, encoder=SMALL, pyramid=(6,), cell=1).eval()
    x = noise(1, 32, 40, 3)
    with torch.inference_mode():
        assert torch.equal(net(x), net.duc(net.encoder(x)[-1]))


# DRN


@pytest.mark.parametrize(
    ("variant", "published"),
    [("C-26", 21.1), ("C-42", 31.2), ("D-22", 16.4), ("D-38", 26.5), ("D-54", 35.8), ("D-105", 54.8)],
)
def test_drn_s_sizes_are_the_published_ones(variant: str, published: float) -> None:
    with torch.device("meta"):
        assert parameters(DRN(3, 1000, variant=variant)) == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize("variant", ["C-26", "D-22", "D-54"])
def test_drn_degrids_without_shortcuts(variant: str) -> None:
    with torch.device("meta"):
        net = DRN(3, 4, variant=variant, width=4)
        x = net.first(torch.empty(1, 3, 64, 64))
        strides = []
        for level in net.levels:
            x = level(x)
            strides.append(64 // x.shape[-1])
    assert strides == [1, 2, 4, 8, 8, 8, 8, 8]
    deepest = [[c.dilation[0] for c in level.modules() if is_3x3(c)][-1] for level in net.levels[4:]]
    assert deepest == [2, 4, 2, 1]
    for level in net.levels[6:]:
        assert all(block.shortcut is None for block in level.modules() if isinstance(block, Block))
    for level in net.levels[2:6]:
        assert all(block.shortcut is not None for block in level.modules() if isinstance(block, Block))
    assert not any(isinstance(module, nn.MaxPool2d) for module in net.modules())


# MobileUNet


def test_separable_convolution_costs_about_a_ninth() -> None:
    cheap, usual = parameters(nn.Sequential(*separable(256, 256))), parameters(nn.Conv2d(256, 256, 3))
    assert 8 < usual / cheap < 9
    net = MobileUNet(3, 4, width=8)
    wide = [c for c in net.down.modules() if is_3x3(c)]
    assert wide
    assert all(c.groups == c.in_channels for c in wide)


def test_mobileunet_s_skips_carry_detail() -> None:
    """Without them nothing finer than the last pooling is left in the features that come back up."""
    torch.manual_seed(0)
    with_skips, without = MobileUNet(1, 2, width=4).eval(), MobileUNet(1, 2, width=4, skips=False).eval()
    without.load_state_dict(with_skips.state_dict())
    x = noise(1, 64, 64, 1)
    given: list[Tensor] = []
    for net in (with_skips, without):
        net.up[-1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        with torch.inference_mode():
            net(x)
    assert given[0].shape == given[1].shape
    added = given[0] - given[1]
    assert added.std() > given[1].std()


def test_widths_scale_all_layers() -> None:
    """Half the width is about a quarter of the weights, for whoever has a small machine."""
    for kind in (ERFNet, FRRN, DRN, MobileUNet):
        with torch.device("meta"):
            sizes = [parameters(kind(3, 4, width=width)) for width in (16, 32, 64)]
        assert all(2.5 < b / a < 4.5 for a, b in pairwise(sizes)), kind
