"""A small scene and a small model, made once; real files and a real network, so that everything in between is real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from rssegment.model import BandSpec, ModelSpec, save_bundle
from rssegment.taxonomy import Taxonomy

TREE = """
name: toy
classes:
  - {code: 10, name: land, color: "#806040", classes: [
      {code: 1, name: field, color: "#E0C040"},
      {code: 2, name: forest, color: "#206020"},
      {code: 11, name: town, color: "#909090", classes: [
          {code: 3, name: roof, color: "#C03020"},
          {code: 4, name: street, color: "#606060"}]}]}
  - {code: 5, name: water, color: "#2060C0"}
"""
BANDS = ("red", "green", "blue")


def smooth_noise(shape: tuple[int, int], seed: int, sigma: float = 6) -> NDArray[np.float64]:
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma, mode="wrap")
    return field / field.std()


def write_scene(path: Path, values: NDArray[np.uint8], **profile: object) -> Path:
    """Writes ``values`` (C, H, W) as a GeoTIFF with named bands."""
    defaults: dict[str, object] = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype.name,
        "crs": "EPSG:32631",
        "transform": Affine(0.5, 0, 500000, 0, -0.5, 4800000),
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "compress": "deflate",
        "nodata": 0,
    }
    with rasterio.open(path, "w", **(defaults | profile)) as file:
        file.write(values)
        for index, name in enumerate(BANDS[: values.shape[0]], 1):
            file.set_band_description(index, name)
    return path


def scene_values(shape: tuple[int, int] = (700, 900)) -> NDArray[np.uint8]:
    """Three bands of smooth noise with a no-data wedge in a corner and a hole."""
    bands = np.stack([smooth_noise(shape, seed) for seed in range(3)])
    values = np.clip(128 + 40 * bands, 1, 255).astype(np.uint8)
    rows, cols = np.indices(shape)
    values[:, rows + cols < 260] = 0
    values[:, (rows - 400) ** 2 + (cols - 500) ** 2 < 1200] = 0
    return values


@pytest.fixture(scope="session")
def tree() -> Taxonomy:
    return Taxonomy.loads(TREE)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", scene_values())


def toy_spec(**changes: object) -> ModelSpec:
    facts: dict[str, object] = {
        "name": "toy",
        "bands": tuple(BandSpec(name=name, mean=128, std=40) for name in BANDS),
        "channels": (1, 2, 3, 4, 5),
        "ground_resolution": 0.5,
        "artifact": "torchscript",
        "patch": 64,
        "overlap": 16,
    }
    return ModelSpec(**(facts | changes))


class ToyNetwork(torch.nn.Module):
    """Convolutions with random weights over a blurred scene, so that regions have tens of pixels, not one."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.blur = torch.nn.AvgPool2d(9, stride=1, padding=4, count_include_pad=False)
        self.features = torch.nn.Conv2d(3, 12, 5, padding=2)
        self.head = torch.nn.Conv2d(12, classes, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scores = self.head(torch.tanh(3 * self.features(self.blur(values))))
        return 4 * self.blur(scores)


def toy_network(classes: int = 5) -> torch.nn.Module:
    """A network none of whose classes wins everywhere."""
    network = ToyNetwork(classes).eval()
    values = (torch.from_numpy(np.maximum(scene_values((256, 256)), 1) / 1.0).float() - 128) / 40
    with torch.no_grad():
        bias = network.head.bias
        assert bias is not None
        bias -= network(values[None]).mean((0, 2, 3)) / 4
    return network


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, tree: Taxonomy) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "toy", tree)


def make_bundle(path: Path, tree: Taxonomy, **changes: object) -> Path:
    save_bundle(path, torch.jit.script(toy_network()), toy_spec(**changes), tree)
    return path
