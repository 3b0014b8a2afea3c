"""Pretrained weights from local files into encoders."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from rssegment.errors import BundleError, InputError
from rssegment.model import create_architecture
from rssegment.model.architectures.encoders import Encoder
from rssegment.model.pretrained import load_encoder

LITE = "tf_efficientnet_lite0"


def network(name: str, seed: int = 5) -> nn.Module:
    """A classifier of timm with weights and statistics of its own."""
    torch.manual_seed(seed)
    net: nn.Module = timm.create_model(name)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def in_efficientnet_pytorch_naming(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's names to those that packages of EfficientNet weights use, written down here once more by hand."""
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inverted |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    outer = {
        "conv_stem": "_conv_stem",
        "bn1": "_bn0",
        "conv_head": "_conv_head",
        "bn2": "_bn1",
        "classifier": "_fc",
    }
    depths = [1, 2, 2, 3, 3, 4, 1]  # blocks per stage of lite0
    named = {}
    for name, value in state.items():
        words = name.split(".")
        if words[0] == "blocks":
            stage, block = int(words[1]), int(words[2])
            part = (separable if stage == 0 else inverted)[words[3]]
            named[f"_blocks.{sum(depths[:stage]) + block}.{part}.{words[4]}"] = value
        else:
            named[f"{outer[words[0]]}.{words[1]}"] = value
    return named


def features_of(net: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        found: list[Tensor] = net.eval().forward_intermediates(x, intermediates_only=True)  # type: ignore[operator]
    return found


def same_features(encoder: nn.Module, net: nn.Module, bands: int = 3) -> None:
    x = torch.randn(1, bands, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        for ours, theirs in zip(encoder.eval()(x), features_of(net, x), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "name", ["resnet18", LITE, "vgg11", "convnext_atto", "regnety_002", "mobilenetv3_small_050"]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_features_are_those_of_the_classifier(name: str, suffix: str, tmp_path: Path) -> None:
    net, path = network(name), tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(net.state_dict(), path)  # type: ignore[operator]
    encoder = Encoder(name, 3)
    loaded = load_encoder(encoder, path)
    assert loaded.share == 1
    assert (loaded.missing, loaded.adapted) == ((), "")
    assert all(
        any(word in unused for word in ("fc", "classifier", "head", "bn2")) for unused in loaded.unused
    )
    if name != "vgg11":  # whose intermediate features timm takes at other layers
        same_features(encoder, net)


def test_efficientnet_lite_in_the_naming_of_efficientnet_pytorch(tmp_path: Path) -> None:
    net, path = network(LITE), tmp_path / "lite0.pth"
    state = in_efficientnet_pytorch_naming(net.state_dict())
    torch.save(state, path)
    encoder = Encoder(LITE, 3)
    loaded = load_encoder(encoder, path)
    assert loaded.share == 1
    assert set(loaded.unused) >= {"_fc.weight", "_fc.bias", "_conv_head.weight"}
    same_features(encoder, net)


def test_efficientnets_of_smp_in_either_naming(tmp_path: Path) -> None:
    """Squeeze and excitation too: smp names the same network as efficientnet_pytorch does."""
    target = create_architecture("smp:Unet", 3, 2, encoder_name="efficientnet-b0")
    net, path = network("efficientnet_b0"), tmp_path / "b0.pth"
    torch.save(net.state_dict(), path)
    assert load_encoder(target, path).share == 1
    for ours, theirs in (
        ("_blocks.5._se_reduce.bias", "blocks.3.0.se.conv_reduce.bias"),
        ("_bn1.bias", "bn2.bias"),
    ):
        torch.testing.assert_close(target.encoder.state_dict()[ours], net.state_dict()[theirs])
    torch.save(target.encoder.state_dict(), path)
    encoder = Encoder("efficientnet_b0", 3)
    assert load_encoder(encoder, path).share == 1
    same_features(encoder, net)


@pytest.mark.parametrize(
    ("encoder", "source"),
    [
        ("timm-tf_efficientnet_lite0", LITE),
        ("tu-tf_efficientnet_lite0", LITE),
        ("resnet18", "resnet18"),
        ("vgg11", "vgg11"),
        ("densenet121", "densenet121"),
        ("tu-convnext_atto", "convnext_atto"),
    ],
)
def test_encoders_of_smp(encoder: str, source: str, tmp_path: Path) -> None:
    net, path = network(source), tmp_path / "weights.bin"
    torch.save(net.state_dict(), path)
    target = create_architecture(
        "smp:Unet" if "convnext" not in encoder else "smp:FPN", 5, 2, encoder_name=encoder
    )
    loaded = load_encoder(target, path)
    assert loaded.share == 1
    assert "5 bands" in loaded.adapted
    if encoder == "resnet18":
        torch.testing.assert_close(target.encoder.layer3[1].conv2.weight, net.layer3[1].conv2.weight)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("resnet18", "resnet18"),
        ("densenet121", "densenet121"),
    ],
)
def test_files_of_torchvision(theirs: str, ours: str, tmp_path: Path) -> None:
    torch.manual_seed(4)
    net = getattr(torchvision.models, theirs)().eval()
    torch.save(net.state_dict(), tmp_path / "a.pth")
    encoder = Encoder(ours, 3).eval()
    assert load_encoder(encoder, tmp_path / "a.pth").share == 1
    x, seen = torch.randn(1, 3, 64, 64), []
    for module in net.modules():
        module.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        net(x)
        for feature in encoder(x):
            assert any(feature.shape == o.shape and torch.allclose(feature, o, atol=1e-4) for o in seen)
    adapted = load_encoder(Encoder(ours, 4), tmp_path / "a.pth")
    assert adapted.share == 1
    assert "4 bands" in adapted.adapted


def test_order_alone_is_no_ground_for_another_network(tmp_path: Path) -> None:
    """Names differ, and so does one shape or kind on the way; or the file is in the alphabet's order."""
    net = torchvision.models.mobilenet_v2()
    torch.save(net.state_dict(), tmp_path / "a.pth")
    save_file(net.state_dict(), tmp_path / "a.safetensors")
    for encoder, path in (
        ("mobilenetv2_110d", "a.pth"),
        ("mnasnet_100", "a.pth"),
        ("mobilenetv2_100", "a.safetensors"),
    ):
        with pytest.raises(BundleError, match="fits"):
            load_encoder(Encoder(encoder, 3), tmp_path / path)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_networks_on_a_vgg_of_our_own(name: str, tmp_path: Path) -> None:
    source = {k: v for k, v in network(name).state_dict().items() if k.startswith("features")}
    torch.save(source, tmp_path / "a.pth")
    for architecture in ("segnet", "deeplabv1"):
        target = create_architecture(
            architecture, 4, 2, encoder=name, **({"fc": 8} if architecture != "segnet" else {})
        )
        loaded = load_encoder(target, tmp_path / "a.pth")
        assert loaded.share == 1
        assert not loaded.unused


@pytest.mark.parametrize("wrap", ["", "module.", "model.encoder.", "encoder.body."])
@pytest.mark.parametrize("key", ["", "state_dict", "model"])
def test_wrappers_names_are_seen_through(wrap: str, key: str, tmp_path: Path) -> None:
    state = {f"{wrap}{k}": v for k, v in network("resnet18").state_dict().items()}
    if wrap:
        state["model.head.weight"] = torch.zeros(3)
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "a.pt")
    assert load_encoder(Encoder("resnet18", 3), tmp_path / "a.pt").share == 1


def test_the_better_of_two_networks_in_a_file_is_taken(tmp_path: Path) -> None:
    student, teacher = network("resnet18", 1), network("resnet34", 2)
    state = {f"a.{k}": v for k, v in teacher.state_dict().items() if "layer4" not in k}
    torch.save(state | {f"b.{k}": v for k, v in student.state_dict().items()}, tmp_path / "a.pt")
    encoder = Encoder("resnet18", 3)
    load_encoder(encoder, tmp_path / "a.pt")
    same_features(encoder, student)


class TestFirstConvolution:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        torch.save(network("resnet18").state_dict(), tmp_path / "a.pth")
        return tmp_path / "a.pth"

    def filters(self, path: Path, bands: int, **options: Any) -> tuple[Tensor, Tensor]:
        encoder = Encoder("resnet18", bands)
        load_encoder(encoder, path, **options)
        return encoder.body.conv1.weight.detach(), torch.load(path)["conv1.weight"]

    def test_a_further_band_gets_the_mean_and_activations_keep_their_size(self, path: Path) -> None:
        ours, rgb = self.filters(path, 4)
        torch.testing.assert_close(ours[:, :3] * 4 / 3, rgb)
        torch.testing.assert_close(ours[:, 3] * 4 / 3, rgb.mean(1))
        grey = torch.ones(1, 1, 32, 32)  # all bands alike: what comes out is the same as from RGB
        torch.testing.assert_close(
            nn.functional.conv2d(grey.expand(1, 4, 32, 32), ours),
            nn.functional.conv2d(grey.expand(1, 3, 32, 32), rgb),
        )

    def test_zeros_leave_rgb_as_it_was(self, path: Path) -> None:
        ours, rgb = self.filters(path, 6, further="zero")
        torch.testing.assert_close(ours[:, :3], rgb)
        assert not ours[:, 3:].any()

    def test_places_of_red_green_and_blue(self, path: Path) -> None:
        ours, rgb = self.filters(path, 4, rgb=(3, 2, 1), further="zero")
        torch.testing.assert_close(ours[:, [3, 2, 1]], rgb)
        turned, _ = self.filters(path, 3, rgb=(2, 1, 0))
        torch.testing.assert_close(turned.flip(1), rgb)

    def test_false_colour_lacks_blue(self, path: Path) -> None:
        ours, rgb = self.filters(path, 3, rgb=(1, 2, 9))  # near infrared, red, green
        torch.testing.assert_close(ours[:, 1:], rgb[:, :2])
        torch.testing.assert_close(ours[:, 0], rgb.mean(1))

    def test_one_and_two_bands(self, path: Path) -> None:
        ours, rgb = self.filters(path, 1)
        torch.testing.assert_close(ours, rgb.sum(1, keepdim=True))
        ours, rgb = self.filters(path, 2)
        torch.testing.assert_close(ours * 2 / 3, rgb[:, :2])

    def test_a_file_for_as_many_bands_is_taken_as_it_is(self, tmp_path: Path) -> None:
        net = timm.create_model("resnet18", in_chans=4)
        torch.save(net.state_dict(), tmp_path / "b.pth")
        ours, theirs = self.filters(tmp_path / "b.pth", 4)
        torch.testing.assert_close(ours, theirs)
        with pytest.raises(BundleError, match=r"conv1.weight is \(64, 4, 7, 7\), expected \(64, 5, 7, 7\)"):
            self.filters(tmp_path / "b.pth", 5)

    @pytest.mark.parametrize(
        "options", [{"rgb": (0, 1)}, {"rgb": (0, 0, 1)}, {"rgb": (-1, 0, 1)}, {"further": "copy"}]
    )
    def test_options_out_of_range(self, options: dict[str, Any], path: Path) -> None:
        with pytest.raises(InputError, match="expected"):
            self.filters(path, 4, **options)


class Runs:
    """Code in a pickle."""

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(Runs.proof),))

    proof: Path


class TestRefused:
    def refused(self, path: Path, said: str, name: str = "resnet18", **options: Any) -> None:
        encoder = Encoder(name, 3)
        before = {k: v.clone() for k, v in encoder.state_dict().items()}
        with pytest.raises(BundleError, match=said):
            load_encoder(encoder, path, **options)
        assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())

    def test_code_in_a_checkpoint_is_not_run(self, tmp_path: Path) -> None:
        Runs.proof = tmp_path / "ran"
        torch.save({"state_dict": network("resnet18").state_dict(), "hook": Runs()}, tmp_path / "a.pth")
        (tmp_path / "b.pth").write_bytes(pickle.dumps(Runs()))
        for name in ("a.pth", "b.pth"):
            self.refused(tmp_path / name, "can't be read as tensors alone")
        assert not Runs.proof.exists()

    def test_what_torch_advises_is_not_repeated(self, tmp_path: Path, recwarn: Any) -> None:
        torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
        torch.save({"a": torch.zeros(2)}, tmp_path / "cut.pth")
        (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:300])
        (tmp_path / "new.pth").write_bytes(pickle.dumps({"a": 1}, protocol=5))
        (tmp_path / "text.pth").write_bytes(b"nonsense" * 40)
        said = {}
        for path in tmp_path.iterdir():
            with pytest.raises(BundleError) as caught:
                load_encoder(Encoder("resnet18", 3), path)
            said[path.stem] = str(caught.value)
        assert "it holds torch.nn.modules.linear.Linear, which is no tensor" in said["whole"]
        assert "missing" in said["cut"]
        assert "no pickle of tensors" in said["text"]
        for text in said.values():
            assert text.isprintable()
            assert not any(
                word in text for word in ("weights_only", "trust the source", "file an issue", "miniz")
            )
        assert not len(recwarn)

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none.pth", "there is no file")
        for name in ("a.pth", "a.pt", "a.bin", "a.safetensors", "a.npz"):
            for content in (b"", b"nonsense" * 40):
                (tmp_path / name).write_bytes(content)
                self.refused(tmp_path / name, "a\\.")
        torch.save([1, 2], tmp_path / "list.pt")
        self.refused(tmp_path / "list.pt", "no tensors by name")

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        state = network("resnet18").state_dict()
        state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.nan
        torch.save(state, tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", "not finite in layer1.0.conv1.weight")

    def test_another_network(self, tmp_path: Path) -> None:
        torch.save(network("resnet18").state_dict(), tmp_path / "a.pth")
        self.refused(tmp_path / "a.pth", "fits [0-9.]+% of the encoder's .* unused: ", "convnext_atto")
        self.refused(tmp_path / "a.pth", "another shape", "resnet50")
        self.refused(tmp_path / "a.pth", "not in the file: .*layer1.2", "resnet34")

    def test_part_of_a_network(self, tmp_path: Path) -> None:
        state = {k: v for k, v in network("resnet18").state_dict().items() if not k.startswith("layer4.1")}
        torch.save(state, tmp_path / "a.pth")
        self.refused(
            tmp_path / "a.pth",
            "expected at least 95%; not in the file: body.layer4.1.conv1.weight",
            least=0.95,
        )
        loaded = load_encoder(Encoder("resnet18", 3), tmp_path / "a.pth", least=0.5)
        assert {name.removeprefix("body.")[:8] for name in loaded.missing} == {"layer4.1"}
        assert 0.5 < loaded.share < 1
        assert "not in the file: body.layer4.1" in str(loaded)

    def test_a_network_without_an_encoder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="ENet has no encoder"):
            load_encoder(create_architecture("enet", 3, 2), tmp_path / "a.pth")


def test_half_precision_files_are_read(tmp_path: Path) -> None:
    net = network("resnet18")
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()},
        tmp_path / "a.safetensors",
    )
    encoder = Encoder("resnet18", 3)
    load_encoder(encoder, tmp_path / "a.safetensors")
    assert encoder.body.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(encoder.body.conv1.weight, net.conv1.weight, rtol=1e-3, atol=1e-4)
