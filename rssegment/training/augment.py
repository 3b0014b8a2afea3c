"""What is done to a batch so that a network doesn't learn it by heart, on the device that trains.

Everything random is drawn on the CPU from (seed, step), a few numbers per window, so a batch becomes the same on every
device and after every resume. Which windows get what is therefore known without asking the device, and only they
are worked on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.errors import SettingsError
from rssegment.training.batch import Batch
from rssegment.training.prepare import masked
from rssegment.training.recipe import AugmentOptions
from rssegment.training.turning import Turns, turned

__all__ = ["Augment"]

Reals = NDArray[np.float64]

_TAPS = 7  # px, of the blur
_BLUR = (0.4, 1.3)  # px, its standard deviation
_HAZE = (0.1, 0.6)  # how much of the ground it hides
_GRAIN = (0.03, 0.2)  # of the bands' standard deviations
_RECTANGLE = (0.1, 0.5)  # share of the window that CutMix replaces
_CURVE = 0.08  # most of a tone curve's bend; up to 1/8 it stays monotonic


class Augment(nn.Module):
    """Prepared windows (B, C, W, W) to patches (B, C, patch, patch), by ``options``.

    Laws: the result is a function of the batch, ``seed`` and ``step``. Labels go where their pixels go. Pixels that
    are invalid or from beyond the window, and bands that are absent or dropped, are 0; so are such pixels' labels.
    With all options off it is the middle of the window. Any number of bands is treated alike: no band has a meaning.
    """

    noise: Tensor

    def __init__(self, options: AugmentOptions, patch: int, optional: Sequence[bool]) -> None:
        super().__init__()
        self.options, self.patch, self.optional = options, patch, tuple(optional)
        side = 2 * patch if options.noise else 1
        # drawn once: as much for each batch would cost more than all the rest
        table = np.random.Generator(np.random.PCG64(0)).standard_normal((side, side), np.float32)
        self.register_buffer("noise", torch.from_numpy(table), persistent=False)

    @torch.no_grad()
    def forward(self, batch: Batch, seed: int, step: int) -> Batch:
        """The batch as step number ``step`` sees it; ``batch`` itself stays as it is.

        Raises
        ------
        SettingsError
            Windows are smaller than a patch.
        """
        if min(batch.values.shape[2:]) < self.patch:
            shape = " x ".join(map(str, batch.values.shape[2:]))
            raise SettingsError(
                f"windows of {shape} px are smaller than the patch of {self.patch} px; read larger windows"
            )
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, step))))
        batch = turned(batch, Turns.drawn(rng, batch.labels.shape, self.patch, self.options))
        values = self._toned(batch.values, rng)
        for chance, change in (
            (self.options.haze, self._hazed),
            (self.options.blur, _blurred),
            (self.options.noise, self._grained),
        ):
            chosen = np.flatnonzero(rng.random(len(values)) < chance)
            if len(chosen):
                index = torch.from_numpy(chosen).to(values.device)
                values.index_copy_(0, index, change(values.index_select(0, index), rng))
        batch = self._mixed(batch._replace(values=values), rng)
        batch = batch._replace(present=self._kept_bands(batch.present, rng))
        values = masked(batch.values, batch.valid, batch.present)
        return batch._replace(values=values.contiguous(memory_format=torch.channels_last))

    def _toned(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """Another exposure, contrast and tone curve: ``values * gain * (1 + bend * values) + shift``, by band."""
        size = values.shape[:2]
        if not (self.options.brightness or self.options.contrast):
            return values
        gain = np.exp(self.options.contrast * _deviations(rng, size))
        bend = np.clip(self.options.contrast / 4 * _deviations(rng, size), -_CURVE, _CURVE)
        shift = self.options.brightness * _deviations(rng, size)
        if not self.options.contrast:
            return values.add_(_to(values, shift))
        # beyond 4 deviations the curve goes on straight
        curve = values.clamp(-4, 4).mul_(_to(values, bend * gain)).add_(_to(values, gain))
        return values.mul_(curve).add_(_to(values, shift))

    def _hazed(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """Blended with a bright level, more or less so over the window, and by band."""
        count, bands, height, width = values.shape
        thickness = rng.uniform(*_HAZE, (count, 1, 1, 1)) * rng.uniform(0.25, 1, (count, 1, 4, 4))
        field = F.interpolate(_to(values, thickness), (height, width), mode="bicubic", align_corners=True)
        level = rng.uniform(1.0, 2.5, (count, 1)) + rng.normal(0, 0.15, (count, bands))
        share = field.clamp_(0, 1) * _to(values, rng.uniform(0.6, 1.0, (count, bands)))
        return values.lerp(_to(values, level).expand_as(values), share)

    def _grained(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """With noise of the sensor, each pixel and band by itself."""
        count, bands, height, width = values.shape
        strength = _to(values, np.repeat(rng.uniform(*_GRAIN, (count, 1)), bands, 1))
        starts = torch.from_numpy(rng.integers(0, self.patch, (2, count, bands, 1))).to(values.device)
        rows = starts[0] + torch.arange(height, device=values.device)  # (n, C, H)
        cols = starts[1] + torch.arange(width, device=values.device)
        return values.addcmul(self.noise[rows[..., None], cols[:, :, None]], strength)

    def _mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """CutMix (Yun et al. 2019): rectangles of some windows come from others, with their labels.

        Such a window keeps the bands that both have.
        """
        count = len(batch.values)
        chosen = np.flatnonzero(rng.random(count) < self.options.cutmix)
        if count < 2 or not len(chosen):
            return batch
        others = (chosen + rng.integers(1, count, len(chosen))) % count
        boxes = _rectangles(rng, len(chosen), self.patch)
        pieces = [
            [each[other, ..., rows, cols].clone() for each in batch[:3]]
            for other, (rows, cols) in zip(others, boxes, strict=True)
        ]
        for one, (rows, cols), parts in zip(chosen, boxes, pieces, strict=True):
            for whole, part in zip(batch[:3], parts, strict=True):
                whole[one, ..., rows, cols] = part
        mine, theirs = (torch.from_numpy(each).to(batch.present.device) for each in (chosen, others))
        present = batch.present.clone()
        present[mine] &= batch.present[theirs]
        return batch._replace(present=present)

    def _kept_bands(self, present: Tensor, rng: np.random.Generator) -> Tensor:
        """Bands (B, C) left of those ``present``: some windows lose optional ones, half of such windows all of them."""
        count = len(present)
        loses = rng.random((count, 1)) < self.options.drop_optional_bands
        every = rng.random((count, 1)) < 0.5
        each = rng.random((count, len(self.optional))) < 0.5
        dropped = loses & (every | each) & np.array(self.optional, bool)
        if not dropped.any():
            return present
        left = present & ~torch.from_numpy(dropped).to(present.device)
        return torch.where(left.any(1, keepdim=True), left, present)


def _deviations(rng: np.random.Generator, size: Sequence[int]) -> Reals:
    """(B, C) what a window's bands have in common, and half as much of each band's own; within ±2.5 and ±1.25."""
    common, own = rng.standard_normal((size[0], 1)), rng.standard_normal(tuple(size))
    result: Reals = np.clip(common, -2.5, 2.5) + np.clip(own, -2.5, 2.5) / 2
    return result


def _to(values: Tensor, numbers: Reals) -> Tensor:
    """(B, C) or (B, C, h, w) numbers as float32 on the values' device, fit to be broadcast."""
    tensor = torch.from_numpy(numbers.astype(np.float32)).to(values.device)
    return tensor if tensor.ndim == 4 else tensor[:, :, None, None]


def _blurred(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Out of focus: a Gaussian of another width for each window, along rows and columns in turn."""
    count, bands, height, width = values.shape
    sigma = rng.uniform(*_BLUR, (count, 1))
    taps = np.exp(-0.5 * ((np.arange(_TAPS) - _TAPS // 2) / sigma) ** 2)
    weights = _to(values, taps / taps.sum(1, keepdims=True)).view(count, 1, _TAPS)
    weights = weights.repeat_interleave(bands, 0)[:, :, None]  # (n * C, 1, 1, taps)
    half, groups = _TAPS // 2, count * bands
    x = F.pad(values.reshape(1, groups, height, width), (half,) * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, weights, groups=groups), weights.transpose(2, 3), groups=groups)
    return x.view(values.shape)


def _rectangles(rng: np.random.Generator, count: int, side: int) -> list[tuple[slice, slice]]:
    """Rows and columns of rectangles inside a square."""
    share, aspect = rng.uniform(*_RECTANGLE, count), np.exp(rng.uniform(-0.7, 0.7, count) / 2)
    sizes = np.stack([np.sqrt(share) * aspect, np.sqrt(share) / aspect]).clip(0, 1)
    sizes = np.maximum(1, np.round(side * sizes)).astype(int)  # (2, n)
    starts = rng.integers(0, side - sizes + 1)
    return [
        (slice(a, a + h), slice(b, b + w))
        for a, b, h, w in zip(*starts.tolist(), *sizes.tolist(), strict=True)
    ]
