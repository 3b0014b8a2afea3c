from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from rssegment.errors import BundleError, InputError
from rssegment.model import architecture_names, create_architecture, create_model
from rssegment.taxonomy import Taxonomy

SMP = [name for name in architecture_names() if name.startswith("smp:")]


def test_names_are_listed() -> None:
    assert architecture_names()[0] == "enet"
    assert {"smp:Unet", "smp:FPN", "smp:DeepLabV3Plus"} <= set(SMP)


def test_smp_networks_keep_the_contract() -> None:
    for name in ("smp:Unet", "smp:FPN"):
        net = create_architecture(name, 4, 5, encoder_name="resnet18").eval()
        with torch.inference_mode():
            assert net(torch.zeros(1, 4, 64, 64)).shape == (1, 5, 64, 64)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("unet", {}, "there are enet, smp:"),
        ("smp:", {}, "unknown architecture"),
        ("smp:Unett", {}, "did you mean smp:Unet"),
        ("smp:Unet", {"encoder_name": "resnet19"}, "resnet19"),
        ("smp:Unet", {"colour": 1}, "colour"),
        ("smp:Unet", {"encoder_weights": "imagenet"}, "can't be set"),
        ("smp:Unet", {"aux_params": {"classes": 1}}, "can't be set"),
    ],
)
def test_what_cannot_be_built(name: str, options: dict[str, object], said: str) -> None:
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


def test_smp_is_imported_only_when_needed() -> None:
    code = "import sys, rssegment.model; sys.exit('segmentation_models_pytorch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
