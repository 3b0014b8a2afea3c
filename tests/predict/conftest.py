"""Scenes that are arrays, and small networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rssegment.grid import Box, PatchLattice, reflect
from rssegment.model import BandSpec, Model, ModelSpec
from rssegment.predict import Strip, axis_weights

LEAVES = (1, 2, 3, 4)


@dataclass
class Pixels:
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass
class ArrayScene:
    """A scene in memory that remembers what was read; reading beyond it is an error."""

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    reads: list[Box] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        return self.valid.shape

    def read(self, box: Box) -> Pixels:
        assert box.clip(Box.of(self.shape)) == box
        assert box.size
        self.reads.append(box)
        return Pixels(self.values[:, *box.slices], self.valid[box.slices])


def make_scene(shape: tuple[int, int], *, holes: bool = False, seed: int = 0, bands: int = 3) -> ArrayScene:
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 255, (bands, *shape)).astype(np.float32)
    valid = np.ones(shape, bool)
    if holes:
        valid &= rng.random(shape) > 0.02
        valid[: shape[0] // 3, shape[1] // 2 :] = False
    values[:, ~valid] = 0
    return ArrayScene(values, valid)


class Net(nn.Module):
    """A small encoder and decoder with normalisation, a stride and an upsampling, as real ones have."""

    def __init__(self, bands: int = 3, classes: int = len(LEAVES)) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(bands, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.PReLU(16))
        self.wide = nn.Conv2d(16, 16, 3, padding=4, dilation=4)
        self.up = nn.ConvTranspose2d(16, classes, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(torch.relu(self.wide(self.down(x))))
        return 4 * y[..., : x.shape[2], : x.shape[3]]


def make_spec(patch: int, bands: int = 3, **changes: Any) -> ModelSpec:
    facts: dict[str, Any] = {
        "name": "net",
        "bands": tuple(BandSpec(name=f"b{i}", mean=120 + i, std=60) for i in range(bands)),
        "channels": LEAVES,
        "ground_resolution": 1.0,
        "patch": patch,
        "overlap": 0,
    }
    return ModelSpec(**(facts | changes))


def make_model(patch: int, network: Callable[[Tensor], Any] | None = None, seed: int = 5) -> Model:
    torch.manual_seed(seed)
    return Model(network or Net().eval(), make_spec(patch), LEAVES)


def gather(strips: Any, core: Box) -> Strip:
    """Strips as one, after checking that they tile ``core`` from the top down."""
    parts = list(strips)
    row = core.row
    for part in parts:
        assert (part.box.row, part.box.col, part.box.width) == (row, core.col, core.width)
        assert part.probabilities.shape[1:] == part.valid.shape == part.box.shape
        assert part.probabilities.dtype == np.float32
        row = part.box.stop_row
    assert row == core.stop_row
    return Strip(
        core,
        np.concatenate([p.probabilities for p in parts], axis=1),
        np.concatenate([p.valid for p in parts]),
    )


def plainly(scene: ArrayScene, lattice: PatchLattice, model: Model, window: Any) -> NDArray[np.float64]:
    """The whole scene at once, with nothing shared with what is tested but the weights."""
    total = np.zeros((len(LEAVES), *scene.shape))
    values = np.where(scene.valid, scene.values, model.fill[:, None, None])
    for row in range(lattice.lattice_shape[0]):
        for col in range(lattice.lattice_shape[1]):
            box = lattice.box((row, col))
            rows = reflect(np.arange(box.row, box.stop_row), scene.shape[0])
            cols = reflect(np.arange(box.col, box.stop_col), scene.shape[1])
            out = model(torch.from_numpy(values[None][:, :, rows[:, None], cols]))[0].double().numpy()
            weights = np.outer(axis_weights(lattice, 0, row, window), axis_weights(lattice, 1, col, window))
            part = box.clip(Box.of(scene.shape))
            inside = part.relative_to(box).slices
            total[:, *part.slices] += out[:, *inside] * weights[inside]
    return total
