"""Upsampling layers that several architectures share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LearnedUpsampling", "resized"]


class LearnedUpsampling(nn.ConvTranspose2d):
    """(B, C, H, W) -> (B, C, factor * H, factor * W) by a transposed convolution that starts as bilinear interpolation.

    Channels don't mix before the layer has learned to. Off the border it starts equal to bilinear interpolation with
    ``align_corners=False``; at the border it takes what lies outside as zeros.
    """

    def __init__(self, channels: int, factor: int = 2) -> None:
        if factor < 2 or factor % 2:
            raise ValueError(f"factor is {factor}; expected an even number")
        super().__init__(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
        tent = 1 - (torch.arange(2 * factor) + 0.5 - factor).abs() / factor  # weights by distance in pixels
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(channels), range(channels)] = tent[:, None] * tent


def resized(x: Tensor, like: Tensor) -> Tensor:
    """``x`` interpolated bilinearly to the height and width of ``like``."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
