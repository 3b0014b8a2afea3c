"""ERFNet: residual layers of 3 x 1 and 1 x 3 convolutions, 2.1 M parameters, for real time.

Romera, Álvarez, Bergasa & Arroyo 2018, "ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic
Segmentation", IEEE Transactions on Intelligent Transportation Systems 19(1), 263-272. Written from the paper's section
3 and table 1. Two things are our own:

* Any height and width is accepted: the input is padded to a multiple of 8 and the logits are cropped.
* With as many bands as channels of the first layer or more, that layer has no pooled input beside its convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes

__all__ = ["ERFNet"]

FACTOR = 8  # side of the input cell that becomes one pixel of the deepest layer
CONTEXT = (2, 4, 8, 16)  # dilation of the layers at the deepest resolution, gone through twice


class ERFNet(nn.Module):
    """ERFNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``width`` is the number of channels at half resolution, 16 in the paper: four times as many follow at a quarter and
    eight times at an eighth. ``drop`` is the share of values dropped in training, a tenth of it at a quarter.

    Raises
    ------
    ValueError
        A number of channels is below 1.
    """

    def __init__(self, bands: int, classes: int, *, width: int = 16, drop: float = 0.3) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width)
        half, quarter, eighth = width, 4 * width, 8 * width
        self.down1 = Downsample(bands, half)
        self.down2 = Downsample(half, quarter)
        self.stage1 = nn.Sequential(*(NonBottleneck1D(quarter, drop=drop / 10) for _ in range(5)))
        self.down3 = Downsample(quarter, eighth)
        self.stage2 = nn.Sequential(*(NonBottleneck1D(eighth, dilation=d, drop=drop) for d in CONTEXT * 2))
        self.up1 = upsample(eighth, quarter)
        self.stage3 = nn.Sequential(NonBottleneck1D(quarter), NonBottleneck1D(quarter))
        self.up2 = upsample(quarter, half)
        self.stage4 = nn.Sequential(NonBottleneck1D(half), NonBottleneck1D(half))
        self.head = nn.ConvTranspose2d(half, classes, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, FACTOR)  # (B, bands, 8h, 8w)
        x = self.stage1(self.down2(self.down1(x)))  # (B, 64, 2h, 2w)
        x = self.stage2(self.down3(x))  # (B, 128, h, w)
        x = self.stage3(self.up1(x))  # (B, 64, 2h, 2w)
        x = self.stage4(self.up2(x))  # (B, 16, 4h, 4w)
        logits: Tensor = self.head(x)  # (B, classes, 8h, 8w)
        return logits[..., :height, :width]


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, wider, H/2, W/2): a strided convolution beside a max-pooling of the input."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.pools = channels < wider
        learned = wider - channels if self.pools else wider
        self.convolution = nn.Conv2d(channels, learned, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(wider, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.convolution(x)
        if self.pools:
            parts = torch.cat([parts, F.max_pool2d(x, 2)], dim=1)
        return F.relu(self.norm(parts))


class NonBottleneck1D(nn.Module):
    """(B, C, H, W) -> the same shape: two 3 x 3 convolutions, each as 3 x 1 and 1 x 3, added to the input.

    Each of the four is rectified, which a 3 x 3 convolution could not be inside. The second pair has ``dilation``.
    """

    def __init__(self, channels: int, *, dilation: int = 1, drop: float = 0.0) -> None:
        super().__init__()
        self.branch = nn.Sequential(*factorised(channels, 1), nn.ReLU(), *factorised(channels, dilation))
        self.drop = nn.Dropout2d(drop)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.drop(self.branch(x)))


def factorised(channels: int, dilation: int) -> list[nn.Module]:
    """A 3 x 3 convolution as one along columns and one along rows, rectified between, normalised after."""
    d = dilation
    return [
        nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1)),
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d)),
        nn.BatchNorm2d(channels, eps=1e-3),
    ]


def upsample(channels: int, narrower: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, narrower, 2H, 2W) by a transposed convolution."""
    return nn.Sequential(
        nn.ConvTranspose2d(channels, narrower, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(narrower, eps=1e-3),
        nn.ReLU(),
    )
