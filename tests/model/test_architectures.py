from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch

from rssegment.errors import BundleError, InputError
from rssegment.model import architecture_names, create_architecture, create_model
from rssegment.model.architectures.catalogue import OWN
from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.taxonomy import Taxonomy

SMP = [name for name in architecture_names() if name.startswith("smp:")]


def test_names_are_listed() -> None:
    assert set(architecture_names()) == {*OWN, *SMP}
    assert {"smp:Unet", "smp:FPN", "smp:DeepLabV3Plus"} <= set(SMP)


def test_smp_networks_keep_the_contract() -> None:
    for name in ("smp:Unet", "smp:FPN"):
        net = create_architecture(name, 4, 5, encoder_name="resnet18").eval()
        with torch.inference_mode():
            assert net(torch.zeros(1, 4, 64, 64)).shape == (1, 5, 64, 64)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("unett", {}, "did you mean unet.* there are patch, .*, enet, .*, smp:DPT"),
        ("Unet", {}, "did you mean unet"),
        ("deeplab", {}, "did you mean deeplabv"),
        ("enet", {"colour": 1}, "unknown option colour; there are drop"),
        ("enet", {"drp": 0.1}, "did you mean drop"),
        ("enet", {"encoder": "resnet18"}, "not built on an encoder"),
        ("fcn8s", {"encoder": "resnet19"}, "encoder 'resnet19'; did you mean .*resnet18"),
        ("smp:Unet", {"encoder": "resnet19"}, "encoder 'resnet19'; did you mean .*resnet18"),
        ("smp:Unet", {"encoder": "resnet18", "encoder_name": "resnet34"}, "give one"),
        ("smp:", {}, "unknown architecture"),
        ("smp:Unett", {}, "did you mean smp:Unet"),
        ("smp:Unet", {"encoder_name": "resnet19"}, "resnet19"),
        ("smp:Unet", {"colour": 1}, "unknown option colour"),
        ("smp:Unet", {"encoder_weights": "imagenet"}, "can't be set"),
        ("smp:Unet", {"aux_params": {"classes": 1}}, "can't be set"),
        ("smp:Unet", {"in_channels": 3}, "in_channels, which is set by the bands and classes; leave it out"),
        ("smp:Unet", {"classes": 3}, "classes, which is set by"),
        ("enet", {"bands": 3}, "bands, which is set by"),
        ("enet", {"name": "enet", "taxonomy": "demo"}, "name, taxonomy, which is set by"),
    ],
)
def test_what_cannot_be_built(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        create_architecture(name, 3, 2, **options)


def test_a_head_has_a_channel_for_each_leaf_or_node() -> None:
    tree = Taxonomy.load("demo")
    values = torch.zeros(1, 4, 64, 64)
    for head, channels in (("flat", len(tree.leaves)), ("hierarchical", len(tree.nodes))):
        net = create_model("enet", 4, tree, head).eval()  # type: ignore[arg-type]
        with torch.inference_mode():
            assert net(values).shape == (1, channels, 64, 64)
    assert len(tree.nodes) > len(tree.leaves)
    with pytest.raises(InputError, match="no head 'tree'; expected one of flat, hierarchical"):
        create_model("enet", 4, tree, "tree")  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="colour"):
        create_model("smp:Unet", 4, tree, colour=1)
    for option in ("bands", "taxonomy", "classes", "in_channels"):
        with pytest.raises(
            BundleError, match=f"{option}, which is set by the bands and classes; leave it out"
        ):
            create_model("enet", 4, tree, **{option: 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "encoder", "known"),
    [
        ("fcn8s", "resnet18", "layer1.0.conv1.weight"),
        ("fcn8s", "tu-resnet18", "layer1.0.conv1.weight"),
        ("smp:Unet", "resnet18", "layer1.0.conv1.weight"),
        ("smp:Unet", "tf_efficientnet_lite0", "blocks.0.0.conv_dw.weight"),  # timm's own name
        ("smp:Unet", "tu-resnet18", "layer1.0.conv1.weight"),
        ("smp:DPT", "vit_tiny_patch16_224", "blocks.0.attn.qkv.weight"),
    ],
)
def test_an_encoder_is_chosen_alike_for_all(name: str, encoder: str, known: str) -> None:
    net = create_model(name, 4, Taxonomy.load("demo"), encoder=encoder)
    assert any(key.endswith(known) for key in net.encoder.state_dict())  # type: ignore[union-attr]


def test_padding_repeats_the_last_row_and_column() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert pad_to_multiple(x, 1).equal(x)
    assert pad_to_multiple(x, 4)[0, 0, :, 3].tolist() == [2, 5, 5, 5]
    assert pad_to_multiple(x, 2, least=8).shape == (1, 1, 8, 8)
    assert pad_to_multiple(x, 5, least=5).shape == (1, 1, 5, 5)


def test_padding_leaves_sizes_alone_that_smp_takes() -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    net = create_architecture("smp:Unet", 3, 2, encoder="resnet18").eval()
    plain = smp.Unet("resnet18", encoder_weights=None, in_channels=3, classes=2).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert net(x).equal(plain(x))
        assert pickle.loads(pickle.dumps(net))(x).equal(plain(x))


def test_libraries_of_networks_are_imported_only_when_needed() -> None:
    code = """
import sys, rssegment.model
rssegment.model.create_architecture("enet", 3, 2)
sys.exit(bool({"segmentation_models_pytorch", "timm"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
