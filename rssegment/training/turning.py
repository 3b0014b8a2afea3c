"""Windows turned, mirrored and zoomed about their middle, with their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rssegment.training.batch import Batch
from rssegment.training.recipe import AugmentOptions

__all__ = ["Turns", "turned"]

_UNZOOMED = 1 / 3  # share of the windows at right angles that keep their pixels as they are


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """How each of B windows becomes a patch of side ``patch`` px.

    It is mirrored left to right where ``mirror``, then turned by ``quarters`` of a full turn and ``angle`` radians
    more, counter-clockwise. ``step`` is how many of the window's pixels a pixel of the patch is wide: below 1 zooms in.
    """

    patch: int
    mirror: NDArray[np.bool_]
    quarters: NDArray[np.int64]
    angle: NDArray[np.float64]
    step: NDArray[np.float64]

    @classmethod
    def drawn(
        cls, rng: np.random.Generator, shape: Sequence[int], patch: int, options: AugmentOptions
    ) -> Self:
        """Turns for windows of ``shape`` (B, H, W). They zoom out only as far as the window reaches."""
        count = shape[0]
        mirror, quarters = rng.random(count) < 0.5, rng.integers(0, 4, count)
        if not options.flips:
            mirror, quarters = np.zeros_like(mirror), np.zeros_like(quarters)
        angle = np.where(
            rng.random(count) < options.rotate, rng.uniform(-math.pi / 4, math.pi / 4, count), 0.0
        )
        if not options.flips:
            angle = angle * 4  # all directions are among them all the same
        low, high = (
            1 / options.scale,
            min(shape[1:]) / (patch * (np.abs(np.cos(angle)) + np.abs(np.sin(angle)))),
        )
        widest = np.maximum(low, np.minimum(options.scale, high))
        step = np.exp(rng.uniform(np.log(low), np.log(widest)))
        unzoomed = (rng.random(count) < _UNZOOMED) & (angle == 0)
        return cls(patch, mirror, quarters, angle, np.where(unzoomed | (options.scale == 1), 1.0, step))

    @property
    def whole(self) -> NDArray[np.bool_]:
        """(B,): whether pixels of the window become pixels of the patch as they are."""
        result: NDArray[np.bool_] = (self.angle == 0) & (self.step == 1)
        return result


def turned(batch: Batch, turns: Turns) -> Batch:
    """Patches of prepared windows, in new memory.

    Values are bilinear, labels and validity those of the nearest pixel; exact copies of pixels at right angles without
    zoom. What is beyond the window is invalid, with label 0.
    """
    count, bands = batch.values.shape[:2]
    square = (turns.patch, turns.patch)
    new = Batch(
        batch.values.new_empty((count, bands, *square)),
        batch.labels.new_empty((count, *square)),
        batch.valid.new_empty((count, *square)),
        batch.present,
    )
    kinds = 2 * turns.quarters + turns.mirror
    for kind in np.unique(kinds[turns.whole]).tolist():
        chosen = np.flatnonzero(turns.whole & (kinds == kind))
        _put(new, chosen, _copied(_take(batch, chosen), turns.patch, kind))
    if len(chosen := np.flatnonzero(~turns.whole)):
        _put(new, chosen, _warped(_take(batch, chosen), turns, chosen))
    return new


def _take(batch: Batch, chosen: NDArray[np.int64]) -> list[Tensor]:
    index = torch.from_numpy(chosen).to(batch.values.device)
    return [each.index_select(0, index) for each in batch[:3]]


def _put(batch: Batch, chosen: NDArray[np.int64], parts: list[Tensor]) -> None:
    index = torch.from_numpy(chosen).to(batch.values.device)
    for whole, part in zip(batch[:3], parts, strict=True):
        whole.index_copy_(0, index, part)


def _copied(windows: list[Tensor], patch: int, kind: int) -> list[Tensor]:
    """The middle of windows (n, …, H, W), mirrored and turned by quarters."""
    rows, cols = (slice(start := (side - patch) // 2, start + patch) for side in windows[0].shape[-2:])
    middles = [each[..., rows, cols] for each in windows]
    mirrored = [each.flip(-1) for each in middles] if kind % 2 else middles
    return [torch.rot90(each, kind // 2, (-2, -1)) for each in mirrored]


def _warped(windows: list[Tensor], turns: Turns, chosen: NDArray[np.int64]) -> list[Tensor]:
    values, labels, valid = windows
    height, width = values.shape[-2:]
    rows, cols = _places(turns, chosen, (height, width), values.device)
    # grid_sample counts x before y, each from -1 to 1 over the outer edges of the window
    grid = torch.stack([(2 * cols + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    # NCHW: on a CPU it is twice as fast as channels_last
    sampled = F.grid_sample(
        values.contiguous(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    row, col = rows.add(0.5).floor_().long(), cols.add(0.5).floor_().long()
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    nearest = (row.clamp_(0, height - 1) * width + col.clamp_(0, width - 1)).flatten(1)
    codes = labels.flatten(1).gather(1, nearest).view(row.shape)
    good = valid.flatten(1).gather(1, nearest).view(row.shape) & inside
    return [sampled, codes * good, good]


def _places(
    turns: Turns, chosen: NDArray[np.int64], shape: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows and columns (n, patch, patch) of the window, as float32, where the patch's pixels have their centres."""
    angle = turns.angle[chosen] + turns.quarters[chosen] * (math.pi / 2)
    cos, sin = turns.step[chosen] * np.cos(angle), turns.step[chosen] * np.sin(angle)
    side = np.where(turns.mirror[chosen], -1.0, 1.0)
    factors = np.stack([cos, sin, -sin * side, cos * side]).astype(np.float32)
    down_i, down_j, across_i, across_j = torch.from_numpy(factors).to(device)[:, :, None, None]
    i = torch.arange(turns.patch, device=device, dtype=torch.float32) - (turns.patch - 1) / 2
    j, i = i, i[:, None]
    rows = down_i * i + down_j * j + (shape[0] - 1) / 2
    cols = across_i * i + across_j * j + (shape[1] - 1) / 2
    return rows, cols
