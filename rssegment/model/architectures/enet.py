"""ENet: a segmentation network of 0.37 M parameters for real time on small machines.

Paszke, Chaurasia, Kim & Culurciello 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation", arXiv 1606.02147. Written from the paper's section 4 and table 1. Two things are our own:

* Max-unpooling goes by remembered corners, not by ``max_unpool2d``: see ``unpooling.py``.
* Any height and width is accepted: the input is padded to a multiple of 8 and the logits are cropped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.unpooling import max_pool, max_unpool

__all__ = ["ENet"]

REDUCTION = 4  # a bottleneck works on a quarter of its channels
FACTOR = 8  # side of the input cell that becomes one pixel of the deepest layer


class ENet(nn.Module):
    """ENet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``drop`` is the share of channels dropped in training, a tenth of it in the first stage.
    """

    def __init__(self, bands: int, classes: int, *, drop: float = 0.1) -> None:
        super().__init__()
        self.initial = Initial(bands, 16)
        self.down1 = Downsample(16, 64, drop=drop / 10)
        self.stage1 = nn.Sequential(*(Bottleneck(64, drop=drop / 10) for _ in range(4)))
        self.down2 = Downsample(64, 128, drop=drop)
        self.stage2 = context_stage(128, drop)
        self.stage3 = context_stage(128, drop)
        self.up4 = Upsample(128, 64, drop=drop)
        self.stage4 = nn.Sequential(Bottleneck(64, drop=drop), Bottleneck(64, drop=drop))
        self.up5 = Upsample(64, 16, drop=drop)
        self.stage5 = Bottleneck(16, drop=drop)
        self.head = nn.ConvTranspose2d(16, classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % FACTOR, 0, -height % FACTOR), mode="replicate")  # (B, bands, 8h, 8w)
        x = self.initial(x)  # (B, 16, 4h, 4w)
        x, corner1 = self.down1(x)  # (B, 64, 2h, 2w)
        x = self.stage1(x)
        x, corner2 = self.down2(x)  # (B, 128, h, w)
        x = self.stage3(self.stage2(x))
        x = self.stage4(self.up4(x, corner2))  # (B, 64, 2h, 2w)
        x = self.stage5(self.up5(x, corner1))  # (B, 16, 4h, 4w)
        logits: Tensor = self.head(x)  # (B, classes, 8h, 8w)
        return logits[..., :height, :width]


def context_stage(channels: int, drop: float) -> nn.Sequential:
    """Rows 2.1 to 2.8 of the paper's table: regular, dilated and asymmetric bottlenecks in turn."""
    return nn.Sequential(
        Bottleneck(channels, drop=drop),
        Bottleneck(channels, drop=drop, dilation=2),
        Bottleneck(channels, drop=drop, asymmetric=5),
        Bottleneck(channels, drop=drop, dilation=4),
        Bottleneck(channels, drop=drop),
        Bottleneck(channels, drop=drop, dilation=8),
        Bottleneck(channels, drop=drop, asymmetric=5),
        Bottleneck(channels, drop=drop, dilation=16),
    )


def activated(convolution: nn.Module, channels: int) -> list[nn.Module]:
    """A convolution, its batch normalisation and its PReLU."""
    return [convolution, nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels)]


def expansion(inner: int, channels: int, drop: float) -> list[nn.Module]:
    """Back from the bottleneck's width to ``channels``, with spatial dropout as the regulariser."""
    return [nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels, eps=1e-3), nn.Dropout2d(drop)]


class Initial(nn.Module):
    """(B, bands, H, W) -> (B, channels, H/2, W/2): a strided convolution beside a max-pooling of the input."""

    def __init__(self, bands: int, channels: int) -> None:
        super().__init__()
        self.pools = bands < channels  # with more bands than channels there is no room for the pooled input
        learned = channels - bands if self.pools else channels
        self.convolution = nn.Conv2d(bands, learned, 3, stride=2, padding=1, bias=False)
        self.join = nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.convolution(x)
        if self.pools:
            parts = torch.cat([parts, F.max_pool2d(x, 2)], dim=1)
        joined: Tensor = self.join(parts)
        return joined


class Bottleneck(nn.Module):
    """(B, C, H, W) -> the same shape: 1 x 1 down, a spatial convolution, 1 x 1 up, added to the input.

    The spatial convolution is 3 x 3 with ``dilation``, or ``asymmetric`` x 1 followed by 1 x ``asymmetric``.
    """

    def __init__(self, channels: int, *, drop: float, dilation: int = 1, asymmetric: int = 0) -> None:
        super().__init__()
        inner = channels // REDUCTION
        if asymmetric:
            pad = asymmetric // 2
            middle: nn.Module = nn.Sequential(
                nn.Conv2d(inner, inner, (asymmetric, 1), padding=(pad, 0), bias=False),
                nn.Conv2d(inner, inner, (1, asymmetric), padding=(0, pad), bias=False),
            )
        else:
            middle = nn.Conv2d(inner, inner, 3, padding=dilation, dilation=dilation, bias=False)
        self.branch = nn.Sequential(
            *activated(nn.Conv2d(channels, inner, 1, bias=False), inner),
            *activated(middle, inner),
            *expansion(inner, channels, drop),
        )
        self.activation = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(x + self.branch(x))
        return result


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, wider, H/2, W/2) and the corner (0 to 3) that held each cell's maximum, (B, C, H/2, W/2)."""

    def __init__(self, channels: int, wider: int, *, drop: float) -> None:
        super().__init__()
        inner = channels // REDUCTION
        self.extra = wider - channels
        self.branch = nn.Sequential(
            *activated(nn.Conv2d(channels, inner, 2, stride=2, bias=False), inner),
            *activated(nn.Conv2d(inner, inner, 3, padding=1, bias=False), inner),
            *expansion(inner, wider, drop),
        )
        self.activation = nn.PReLU(wider)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, corner = max_pool(x)
        main = F.pad(pooled, (0, 0, 0, 0, 0, self.extra))  # new channels start as zeros
        return self.activation(main + self.branch(x)), corner


class Upsample(nn.Module):
    """(B, C, H, W) and remembered corners (B, narrower, H, W) -> (B, narrower, 2H, 2W)."""

    def __init__(self, channels: int, narrower: int, *, drop: float) -> None:
        super().__init__()
        inner = channels // REDUCTION
        self.main = nn.Sequential(
            nn.Conv2d(channels, narrower, 1, bias=False), nn.BatchNorm2d(narrower, eps=1e-3)
        )
        self.branch = nn.Sequential(
            *activated(nn.Conv2d(channels, inner, 1, bias=False), inner),
            *activated(
                nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1, bias=False), inner
            ),
            *expansion(inner, narrower, drop),
        )
        self.activation = nn.PReLU(narrower)

    def forward(self, x: Tensor, corner: Tensor) -> Tensor:
        result: Tensor = self.activation(max_unpool(self.main(x), corner) + self.branch(x))
        return result
