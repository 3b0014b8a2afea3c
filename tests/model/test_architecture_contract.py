"""What every architecture promises, of the catalogue's and of smp's alike.

Parameters are counted on the full networks, which have shapes only. What is computed is computed on narrow ones of the
same structure, so that all of it takes minutes: widths are divided, and encoders are the smallest of their kind.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model import BandSpec, Bundle, ModelSpec, architecture_facts, create_architecture, save_bundle
from rssegment.model.architectures.catalogue import OWN, SMP
from rssegment.taxonomy import Taxonomy
from tests.conftest import data_root

BANDS, CODES, PATCH = 4, (1, 3, 10), 96  # building, impervious, herbaceous: 37, 29 and 34 % of the tile
TILE = ("Z5_UA_train", 2400, 2016)
STEPS, ENOUGH = 240, 0.95

VGG: dict[str, Any] = {"width": 0.25}
RESNET: dict[str, Any] = {"encoder": "resnet10t"}
NARROW: dict[str, dict[str, Any]] = {
    "patch": {"width": 16, "hidden": 64},
    "fcn32s": {**VGG, "fc": 128},
    "fcn16s": {**VGG, "fc": 128},
    "fcn8s": {**VGG, "fc": 128},
    "unet": {"width": 16},
    "segnet": VGG,
    "deconvnet": {**VGG, "fc": 128},
    "dilated": {**VGG, "fc": 128},
    "deeplabv1": {**VGG, "fc": 128},
    "deeplabv2": RESNET,
    "gcn": RESNET,
    "refinenet": {**RESNET, "channels": 64},
    "enet": {},
    "erfnet": {},
    "fcdensenet56": {"growth": 6, "first": 16},
    "fcdensenet67": {"growth": 6, "first": 16},
    "fcdensenet103": {"growth": 4, "first": 16},
    "frrn_a": {"width": 8, "residual": 8},
    "frrn_b": {"width": 8, "residual": 8},
    "icnet": {**RESNET, "width": 64},
    "bisenet": {**RESNET, "width": 64},
    "denseaspp": {"encoder": "resnet10t", "width": 32},
    "duc_hdc": RESNET,
    "drn": {"width": 8},
    "mobileunet": {"width": 16},
    "smp:DPT": {"decoder_intermediate_channels": (32, 64, 128, 128), "decoder_fusion_channels": 64},
    "smp:DeepLabV3": {"decoder_channels": 64},
    "smp:MAnet": {"decoder_channels": (64, 32, 32, 16, 16)},
    "smp:UPerNet": {"decoder_channels": 64},
    "smp:UnetPlusPlus": {"decoder_channels": (64, 32, 32, 16, 16)},
}
NAMES = [*OWN, *SMP]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads only wait for each other on images this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """All tests of one architecture come one after the other, so that it is trained once and then forgotten."""
    chosen: str = request.param
    return chosen


def options_of(name: str) -> dict[str, Any]:
    return (SMP[name].options if name in SMP else {}) | NARROW.get(name, {})


def narrow(name: str, bands: int = BANDS, classes: int = len(CODES)) -> nn.Module:
    torch.manual_seed(0)
    return create_architecture(name, bands, classes, **options_of(name)).eval()


@cache
def tile() -> tuple[Tensor, Tensor, Tensor]:
    """Values (1, 4, 96, 96) as they are and normalised, and class indices (1, 96, 96), of an aerial scene."""
    root = data_root() / "flair_d034"
    window = Window(TILE[2], TILE[1], PATCH, PATCH)
    with (
        rasterio.open(root / f"{TILE[0]}.tif") as scene,
        rasterio.open(root / f"{TILE[0]}_labels.tif") as labels,
    ):
        values = torch.from_numpy(scene.read(window=window))[None].float()
        codes = labels.read(1, window=window)
    assert set(np.unique(codes)) == set(CODES)
    indices = torch.from_numpy(np.searchsorted(CODES, codes))[None]
    return values, (values - 100) / 45, indices


@lru_cache(maxsize=1)
def trained(name: str) -> tuple[nn.Module, float]:
    """The narrow network trained on the tile and its mirror image until it is right, and its accuracy on the tile."""
    _, x, target = tile()
    net = narrow(name)
    for module in net.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0  # overfitting is what is wanted
    pair, targets = torch.cat([x, x.flip(3)]), torch.cat([target, target.flip(2)])
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS, pct_start=0.1)
    accuracy = 0.0
    for step in range(STEPS):
        outputs = net.train()(pair)
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = torch.stack([loss_of(part, targets) for part in parts]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 19:
            with torch.inference_mode():
                accuracy = (net.eval()(x).argmax(1) == target).double().mean().item()
            if accuracy > ENOUGH + 0.01:
                break
    return net.eval(), accuracy


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    if logits.shape[-2:] != target.shape[-2:]:
        logits = F.interpolate(logits, target.shape[-2:], mode="bilinear")
    return F.cross_entropy(logits, target)


def described(name: str, artifact: Any = "safetensors") -> tuple[ModelSpec, Taxonomy]:
    spec = ModelSpec(
        name="contract",
        bands=tuple(BandSpec(name=band, mean=100, std=45) for band in ("red", "green", "blue", "nir")),
        channels=CODES,
        ground_resolution=0.2,
        artifact=artifact,
        architecture=name,
        architecture_options=options_of(name),
        patch=PATCH,
        overlap=16,
        batch=None if artifact == "safetensors" else 1,
    )
    return spec, Taxonomy.flat("contract", {code: (str(code), (code, code, code)) for code in CODES})


def alike(a: Tensor, b: Tensor) -> float:
    """Share of pixels that are decided alike."""
    return (a.argmax(1) == b.argmax(1)).double().mean().item()


def close(a: Tensor, b: Tensor) -> None:
    """Equal but for the order of sums: a thousandth of the logits' spread, and the same decisions."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-3 * max(1.0, a.std().item())
    assert alike(a, b) >= 0.999


def test_parameters_are_those_published_or_the_difference_is_explained(name: str) -> None:
    facts = architecture_facts(name)
    assert facts.parameters > 0
    if facts.published is not None:
        assert facts.published_here is not None
        difference = abs(facts.published_here / facts.published - 1)
        assert difference <= 0.03 or facts.remark, f"{facts.published_here} for {facts.published}"


def test_any_size_any_bands_and_no_pixel_of_another_image(name: str) -> None:
    net = narrow(name, bands=5, classes=2)
    torch.manual_seed(1)
    with torch.inference_mode():
        for size in ((1, 1), (1, 37), (65, 33)):
            image = torch.randn(1, 5, *size)
            logits = net(image)
            assert isinstance(logits, Tensor)
            assert logits.shape == (1, 2, *size)
            assert logits.isfinite().all()
            assert net(image).equal(logits)
        close(net(torch.cat([image, 3 * torch.randn(2, 5, *size)]))[:1], logits)


def test_overfits_a_real_tile(name: str, data: Path) -> None:
    assert trained(name)[1] > ENOUGH


def test_bundles_give_what_the_network_gives(name: str, data: Path, tmp_path: Path) -> None:
    values, x, _ = tile()
    net, _ = trained(name)
    with torch.inference_mode():
        exact = net(x).softmax(1)
    spec, taxonomy = described(name)
    loaded = save_bundle(tmp_path / "full", net, spec, taxonomy).load()(values)
    assert torch.allclose(loaded, exact, atol=1e-4)
    half = save_bundle(tmp_path / "half", net, spec, taxonomy, half=True)
    assert half.files["weights"].size < 0.6 * Bundle.open(tmp_path / "full").files["weights"].size
    rounded = half.load()(values)
    assert alike(rounded, exact) > 0.999
    assert (rounded - exact).abs().mean() < 1e-3


def test_memory_layout_and_half_precision(name: str, data: Path) -> None:
    _, x, _ = tile()
    net, _ = trained(name)
    with torch.no_grad():
        exact = net(x)
        last = copy.deepcopy(net).to(memory_format=torch.channels_last)
        close(exact, last(x.to(memory_format=torch.channels_last)))
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x).float()
    assert rough.isfinite().all()
    assert alike(exact, rough) > 0.95
    assert (exact.softmax(1) - rough.softmax(1)).abs().mean() < 0.05


def test_exported_networks_give_the_same(name: str, data: Path, tmp_path: Path) -> None:
    values, x, _ = tile()
    net, _ = trained(name)
    with torch.inference_mode():
        exact = net(x).softmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (x,))
        pt2, taxonomy = described(name, "pt2")
        found = save_bundle(tmp_path / "pt2", program, pt2, taxonomy).load()(values)
        assert torch.allclose(found, exact, atol=1e-4)
        path = tmp_path / "net.onnx"
        torch.onnx.export(program, (), path, external_data=False, verbose=False, optimize=False)
    onnx, _ = described(name, "onnx")
    found = save_bundle(tmp_path / "onnx", path, onnx, taxonomy).load()(values)
    assert alike(found, exact) > 0.999
    assert (found - exact).abs().mean() < 1e-4
