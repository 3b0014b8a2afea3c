"""Weights in half precision: what is halved, what is not, and what that does to a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rssegment.demo.landscape import make_landscape
from rssegment.errors import BundleError
from rssegment.model import Bundle, create_architecture, save_bundle, save_calibration
from rssegment.model.calibration import Calibration
from rssegment.model.weight_files import LOSS, halved, stored_dtype
from rssegment.model.weights import load_network
from rssegment.taxonomy import Taxonomy
from tests.model.conftest import BANDS, CODES, Tiny, make_spec


@given(st.integers(0, 2**32 - 1), st.floats(-12, 8), st.sampled_from([(4,), (8, 3, 3, 3), (5, 7), ()]))
def test_nothing_loses_more_than_rounding(seed: int, exponent: float, shape: tuple[int, ...]) -> None:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 10**exponent
    kept = halved({"a": value})["a"]
    assert kept.float().isfinite().all()
    assert (kept.double() - value.double()).norm() <= LOSS * value.double().norm()
    if kept.dtype == torch.float32:
        assert kept.equal(value)


def test_what_is_left_as_it_is() -> None:
    sound = torch.ones(2, 3)
    tensors = {
        "weight": sound,
        "double": sound.double(),
        "overflows": torch.tensor([[1.0, 7e4]]),
        "vanishes": torch.full((2, 2), 1e-9),
        "subnormal": torch.full((2, 2), 1.7e-7),
        "one_vanishes_among_large": torch.tensor([[1.0, 1e-9]]),
        "zeros": torch.zeros(2, 2),
        "running_var": torch.full((4,), 1e-7),
        "bias": torch.ones(4),
        "counter": torch.tensor(12345678),
        "index": torch.ones(2, 2, dtype=torch.int64),
    }
    result = halved(tensors)
    assert {name for name, value in result.items() if value.dtype == torch.float16} == {
        "weight",
        "double",
        "one_vanishes_among_large",
        "zeros",
    }
    assert all(result[n].equal(t) for n, t in tensors.items() if result[n].dtype == t.dtype)


def test_type_of_a_file_is_that_of_most_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.int64):
        save_file({"a": torch.zeros(8, 8).to(dtype), "b": torch.zeros(5), "c": torch.tensor(1)}, path)
        assert stored_dtype(path) in (str(dtype).removeprefix("torch."), "i64")
    save_file({}, path)
    assert stored_dtype(path) == "none"
    path.write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="no readable safetensors"):
        stored_dtype(path)


def scenes(data: Path | None) -> Tensor:
    """Values (1, 4, 512, 512): the demo's landscape, or an aerial scene."""
    if data is None:
        return torch.from_numpy(make_landscape((512, 512), seed=5).bands)[None].float()
    with rasterio.open(data / "flair_d034" / "Z1_NN_val.tif") as source:
        return torch.from_numpy(source.read(window=Window(100, 100, 512, 512)))[None].float()


@pytest.mark.parametrize("aerial", [False, True])
def test_a_trained_model_decides_alike(aerial: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    demo = Bundle.open("demo")
    values = scenes(request.getfixturevalue("data") if aerial else None)
    network = load_network(demo.weights, demo.spec, torch.device("cpu"))
    assert isinstance(network, nn.Module)
    half = save_bundle(tmp_path / "half", network, demo.spec, demo.taxonomy, half=True)
    exact, rounded = demo.load(calibrated=False)(values), half.load()(values)
    assert rounded.dtype == torch.float32
    # ENet remembers which pixel of four was the largest: where two are all but equal, another is taken
    assert ((exact - rounded).abs().amax(1) > 1e-2).double().mean() < 5e-3
    assert (exact - rounded).abs().mean() < 1e-4
    assert (exact.argmax(1) == rounded.argmax(1)).double().mean() > 0.999


def test_a_bundle_of_half_the_size_says_so(tmp_path: Path, taxonomy: Taxonomy, values: Tensor) -> None:
    spec = make_spec()
    torch.manual_seed(3)
    module = create_architecture(spec.architecture, BANDS, len(CODES), **spec.architecture_options)
    for layer in module.modules():  # as after training on a band that hardly changes
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            layer.running_var.uniform_(1e-7, 1e-2)
    full = save_bundle(tmp_path / "full", module, spec, taxonomy)
    half = save_bundle(tmp_path / "half", module, spec, taxonomy, half=True)
    again = save_bundle(tmp_path / "again", full.weights, spec, taxonomy, half=True)
    sizes = [bundle.files["weights"].size for bundle in (full, half)]
    assert sizes[1] < 0.52 * sizes[0]
    facts = [bundle.describe()["weights_dtype"] for bundle in (full, half, again)]
    assert facts == ["float32", "float16", "float16"]
    assert half.parameters == full.parameters
    assert half.weights.read_bytes() == again.weights.read_bytes()
    assert half.fingerprint != full.fingerprint
    own, stored = module.state_dict(), load_file(half.weights)
    assert all(stored[name].equal(own[name]) for name in own if "running" in name)
    network = load_network(half.weights, spec, torch.device("cpu"))
    assert isinstance(network, nn.Module)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_calibration_keeps_the_precision(tmp_path: Path) -> None:
    tree = Taxonomy.flat("tiny", {c: (str(c), (c, c, c)) for c in CODES})
    spec = make_spec()
    module = create_architecture(spec.architecture, BANDS, len(CODES), **spec.architecture_options)
    half = save_bundle(tmp_path / "half", module, spec, tree, half=True)
    copied = save_calibration(half, Calibration(temperature=2.0), tmp_path / "calibrated")
    assert copied.describe()["weights_dtype"] == "float16"
    assert np.array_equal(*(np.fromfile(b.weights, np.uint8) for b in (half, copied)))


def test_only_safetensors_are_halved(tmp_path: Path, taxonomy: Taxonomy, tiny: Tiny) -> None:
    traced = torch.jit.trace(tiny, torch.zeros(2, BANDS, 32, 32))
    with pytest.raises(BundleError, match="half precision is for safetensors, not for torchscript"):
        save_bundle(tmp_path / "a", traced, make_spec(artifact="torchscript"), taxonomy, half=True)
    assert not list(tmp_path.iterdir())
