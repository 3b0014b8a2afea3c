"""FRRN: a stream that keeps the full resolution all the way, beside one that pools and sees context.

Pohlen, Hermans, Mathias & Leibe 2017, "Full-Resolution Residual Networks for Semantic Segmentation in Street Scenes",
arXiv 1611.08323. Written from the paper's section 3 and table 1. The *residual stream* has the image's own height and
width and is only ever added to; the *pooling stream* is where filters are. Each full-resolution residual unit reads
both and writes both. So boundaries need not survive a bottleneck, at the price of memory.

Our own: any height and width is accepted, padded to a multiple of the deepest pooling, and the logits are cropped; a
1 x 1 convolution brings the joined streams to the width of the last residual units, which the paper does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes

__all__ = ["FRRN"]

# (units, channels in multiples of the width, factor of the pooling) along the pooling stream
DOWN = ((3, 2, 2), (4, 4, 4), (2, 8, 8), (2, 8, 16))
STAGES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "A": (*DOWN, (2, 4, 8), (2, 4, 4), (2, 2, 2)),
    "B": (*DOWN, (2, 8, 32), (2, 4, 16), (2, 4, 8), (2, 4, 4), (2, 2, 2)),
}


class FRRN(nn.Module):
    """FRRN over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``variant`` "A" pools to a 16th, "B" to a 32nd. ``width`` is the number of channels at full resolution, 48 in the
    paper, up to eight times as many where it is pooled; ``residual`` that of the residual stream, 32.

    Raises
    ------
    ValueError
        There is no such variant.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        variant: Literal["A", "B"] = "A",
        width: int = 48,
        residual: int = 32,
    ) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width, residual=residual)
        if variant not in STAGES:
            raise ValueError(f"variant is {variant!r}; expected {' or '.join(STAGES)}")
        self.factor = max(factor for _, _, factor in STAGES[variant])
        self.first = nn.Sequential(*activated(bands, width, 5), *(ResidualUnit(width) for _ in range(3)))
        self.split = nn.Conv2d(width, residual, 1)
        self.stages = nn.ModuleList()
        channels, before = width, 1
        for units, multiple, factor in STAGES[variant]:
            stage = Stage([channels] + [multiple * width] * units, residual, factor, pools=factor > before)
            self.stages.append(stage)
            channels, before = multiple * width, factor
        self.merge = nn.Conv2d(channels + residual, width, 1)
        self.last = nn.Sequential(*(ResidualUnit(width) for _ in range(3)))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pooled = self.first(pad_to_multiple(x, self.factor))  # (B, 48, H, W)
        residual = self.split(pooled)  # (B, 32, H, W), as it stays
        for stage in self.stages:
            pooled, residual = stage(pooled, residual)
        joined = torch.cat([repeated(pooled, 2), residual], dim=1)  # (B, 96 + 32, H, W)
        logits: Tensor = self.head(self.last(self.merge(joined)))
        return logits[..., :height, :width]


class Stage(nn.Module):
    """Units over both streams, after the pooling stream was pooled or unpooled to a ``factor``-th of the resolution.

    ``widths`` are channels of the pooling stream: what comes in, and what each unit makes.
    """

    def __init__(self, widths: Sequence[int], residual: int, factor: int, *, pools: bool) -> None:
        super().__init__()
        self.pools = pools
        self.units = nn.ModuleList(FullResolutionUnit(a, b, residual, factor) for a, b in pairwise(widths))

    def forward(self, pooled: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.max_pool2d(pooled, 2) if self.pools else repeated(pooled, 2)
        for unit in self.units:
            pooled, residual = unit(pooled, residual)
        return pooled, residual


class FullResolutionUnit(nn.Module):
    """One unit over both streams, the pooling stream ``factor`` times smaller than the residual one.

    ``forward``: (B, C, h, w), (B, residual, H, W) -> (B, wide, h, w), (B, residual, H, W). What is written to the
    residual stream is an addition, so that gradients flow along it unhindered.
    """

    def __init__(self, channels: int, wide: int, residual: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.body = nn.Sequential(*activated(channels + residual, wide), *activated(wide, wide))
        self.write = nn.Conv2d(wide, residual, 1)

    def forward(self, pooled: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        seen = F.max_pool2d(residual, self.factor)
        pooled = self.body(torch.cat([pooled, seen], dim=1))
        return pooled, residual + repeated(self.write(pooled), self.factor)


class ResidualUnit(nn.Module):
    """(B, C, H, W) -> the same shape: two 3 x 3 convolutions added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *activated(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.branch(x)
        return result


def activated(channels: int, wide: int, side: int = 3) -> list[nn.Module]:
    """A convolution of ``side`` x ``side``, normalised and rectified."""
    convolution = nn.Conv2d(channels, wide, side, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(wide), nn.ReLU()]


def repeated(x: Tensor, factor: int) -> Tensor:
    """(B, C, h, w) -> (B, C, factor * h, factor * w), each value repeated: the paper's unpooling."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")
