"""Stored values to what a network takes in, on the device: the same numbers as a bundle's model makes of a scene."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rssegment.training.batch import Batch

__all__ = ["Prepare", "masked"]


class Prepare(nn.Module):
    """Normalises batches by the ``means`` and ``stds`` (C,) that the bundle will have.

    Law: where a pixel is valid and the band present, values are those that :class:`rssegment.model.Model` gives its
    network, to the bit on one device: float32 ``(stored - mean) / std``, not clipped. Elsewhere they are 0, the band's
    mean, as inference fills what a scene lacks.
    """

    means: Tensor
    stds: Tensor

    def __init__(self, means: Sequence[float], stds: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("means", means), ("stds", stds)):
            constants = torch.tensor([float(value) for value in values]).view(1, -1, 1, 1)
            self.register_buffer(name, constants, persistent=False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Batch:
        """Normalised float32 values in channels_last memory, on this module's device.

        A pixel with NaN or infinity in a band that is present is invalid, as it is in a scene. Labels are 0 at
        invalid pixels. ``batch`` itself stays as it is.
        """
        device = self.means.device
        labels, valid, present = (each.to(device, non_blocking=True) for each in batch[1:])
        stored = batch.values.to(device, non_blocking=True)
        x = stored.to(torch.float32).sub(self.means).div_(self.stds)
        if stored.is_floating_point():
            lacking = ~present[:, :, None, None]
            valid = valid & (x.isfinite() | lacking).all(dim=1)
            x = x.masked_fill_(~valid[:, None] | lacking, 0)  # a product would keep NaN
        else:
            x = masked(x, valid, present)
        return Batch(x.contiguous(memory_format=torch.channels_last), labels * valid, valid, present)


def masked(values: Tensor, valid: Tensor, present: Tensor) -> Tensor:
    """``values`` (B, C, H, W), finite, in place: 0 where the pixel is not ``valid`` or the band not ``present``."""
    return values.mul_(valid[:, None]).mul_(present[:, :, None, None])
