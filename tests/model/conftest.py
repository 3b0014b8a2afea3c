"""Tiny bundles of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rssegment.model import BandSpec, ModelSpec
from rssegment.taxonomy import Taxonomy

PATCH = 32
BANDS = 3
CODES = (10, 20, 30)


class Tiny(nn.Module):
    """Three layers that see 5 x 5 px; stands in for a network of the user's own."""

    def __init__(self, bands: int = BANDS, classes: int = len(CODES)) -> None:
        super().__init__()
        self.body = nn.Conv2d(bands, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.body(x))))


def make_spec(**changes: Any) -> ModelSpec:
    facts: dict[str, Any] = {
        "name": "tiny",
        "bands": tuple(
            BandSpec(name=n, mean=m, std=s)
            for n, m, s in (("red", 90, 40), ("green", 100, 30), ("nir", 120, 50))
        ),
        "channels": CODES,
        "ground_resolution": 0.5,
        "architecture": "smp:Unet",
        "architecture_options": {
            "encoder_name": "resnet18",
            "encoder_depth": 3,
            "decoder_channels": [16, 8, 8],
        },
        "patch": PATCH,
        "overlap": 8,
    }
    return ModelSpec(**(facts | changes))


@pytest.fixture
def taxonomy() -> Taxonomy:
    colors = {10: ("field", (200, 180, 60)), 20: ("forest", (20, 100, 30)), 30: ("water", (20, 60, 200))}
    return Taxonomy.flat("tiny", colors)


@pytest.fixture
def tiny() -> Tiny:
    torch.manual_seed(1)
    return Tiny().eval()


@pytest.fixture
def values() -> Tensor:
    return torch.randint(0, 256, (2, BANDS, PATCH, PATCH), generator=torch.Generator().manual_seed(2)).float()


@pytest.fixture
def artifact(tiny: Tiny, tmp_path: Path) -> Any:
    """``artifact(kind)`` -> what ``save_bundle`` takes as weights, and the changes of the spec."""

    def make(kind: str) -> tuple[Any, dict[str, Any]]:
        blank = torch.zeros(2, BANDS, PATCH, PATCH)
        if kind == "torchscript":
            return torch.jit.trace(tiny, blank), {"artifact": kind, "architecture": "tiny"}
        if kind == "pt2":
            shapes = ({0: torch.export.Dim("batch", min=1, max=64)},)
            return torch.export.export(tiny, (blank,), dynamic_shapes=shapes), {
                "artifact": kind,
                "architecture": "tiny",
            }
        if kind == "onnx":
            path = tmp_path / "exported.onnx"
            torch.onnx.export(
                tiny,
                (blank,),
                path,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
            )
            return path, {"artifact": kind, "architecture": "tiny"}
        raise AssertionError(kind)

    return make
