"""A small land, a recipe for it that trains in a second, and what became of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rssegment.model import Bundle
from rssegment.training import Recipe, Trained, train
from tests.scene.conftest import UTM
from tests.training.folders import RGB, TREE, raster

__all__ = ["FLAT", "RGBN", "a_land", "a_recipe", "a_source", "a_training", "digest", "land"]

RGBN = (*RGB, "nir")
CLASSES = ("building", "water", "deciduous", "vineyard")
COLORS = np.array([[200, 60, 60, 90], [40, 60, 160, 20], [40, 120, 50, 220], [150, 160, 60, 170]], float)
CODES = np.array([TREE.node(name).code for name in CLASSES], np.uint8)
FLAT = {"scale": 1.0, "rotate": 0.0, "brightness": 0.0, "contrast": 0.0, "haze": 0.0, "blur": 0.0} | {
    "noise": 0.0,
    "cutmix": 0.0,
    "drop_optional_bands": 0.0,
    "flips": False,
}
"""Augmentation that does nothing."""


def land(shape: tuple[int, int], seed: int, bands: int = 4) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Values (C, H, W) and labels (H, W) of fields of 16 px whose colour tells their class."""
    rng = np.random.default_rng(seed)
    fields = rng.integers(0, len(CLASSES), tuple(-(-side // 16) for side in shape))
    chosen = fields.repeat(16, 0).repeat(16, 1)[: shape[0], : shape[1]]
    values = COLORS[chosen].transpose(2, 0, 1)[:bands] + rng.normal(0, 12, (bands, *shape))
    return values.clip(1, 254).astype(np.uint8), CODES[chosen]


def a_land(folder: Path, bands: int = 4) -> Path:
    """A folder with an image to train on and one to validate on, pixels of 10 m."""
    for seed, (name, shape) in enumerate({"north": (96, 128), "south": (64, 96)}.items()):
        values, labels = land(shape, seed, bands)
        names = RGBN[:bands]
        place = UTM * Affine.translation(0, 1000 * seed)
        raster(folder / f"{name}.tif", values, names=names, nodata=0, transform=place)
        raster(folder / f"{name}_labels.tif", labels, transform=place)
    return folder


def a_recipe(**changes: Any) -> Recipe:
    """A tiny network for six steps, validated after every second; parts that are mappings are merged,
    unless they name a start."""
    values: dict[str, Any] = {
        "name": "tiny",
        "taxonomy": TREE.name,
        "bands": RGBN,
        "resolution": 10.0,
        "sources": [a_source("north", role="train"), a_source("south", role="validation")],
        "sample": {"patch": 32, "batch": 2, "workers": 0},
        "model": {"architecture": "enet"},
        "optimizer": {"steps": 6, "average": 0.9, "precision": "float32"},
        "validate_every": 2,
        "patch": 32,
        "overlap": 16,
    }
    for key, value in changes.items():
        merged = isinstance(value, Mapping) and isinstance(values.get(key), Mapping) and "start" not in value
        values[key] = values[key] | dict(value) if merged else value
    return Recipe(**values)


def a_source(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "images": f"{name}.tif", "labels": "{stem}_labels.tif", "region": name} | more


def a_training(data: Path, out: Path, recipe: Recipe | None = None, **options: Any) -> Trained:
    return train(recipe or a_recipe(), out, data=data, device="cpu", **options)


def digest(trained: Trained | Path) -> str:
    """SHA-256 of the weights' file."""
    bundle = trained.bundle if isinstance(trained, Trained) else trained
    return hashlib.sha256(Bundle.open(bundle).weights.read_bytes()).hexdigest()
