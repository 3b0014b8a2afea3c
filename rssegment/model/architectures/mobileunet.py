"""MobileUNet: a U of depthwise separable convolutions, for machines without a GPU.

Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", arXiv
1704.04861, for the convolutions: one filter per channel, then a 1 x 1 convolution across channels, at about a ninth of
the cost of 3 x 3. The U has no paper of its own. It is the one known as MobileUNet in collections of networks: five
poolings between stages of separable convolutions, transposed convolutions back, and what was before each pooling added
to what comes back. Any height and width is accepted: padded to a multiple of 32, and the logits are cropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes

__all__ = ["MobileUNet"]

# channels of the separable convolutions of each stage, in widths
DOWN = ((1,), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))
UP = ((8, 8, 8), (8, 8, 4), (4, 4, 2), (2, 1), (1, 1))


class MobileUNet(nn.Module):
    """MobileUNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``width`` is the number of channels at full resolution, up to eight times as many follow. Without ``skips`` nothing
    goes across the U: smaller in memory, and blurred.

    Raises
    ------
    ValueError
        A number of channels is below 1.
    """

    def __init__(self, bands: int, classes: int, *, width: int = 64, skips: bool = True) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width)
        self.skips = skips
        self.first = nn.Sequential(nn.Conv2d(bands, width, 3, padding=1, bias=False), *normed(width))
        self.down, self.up, self.unpool = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels = width
        for multiples in DOWN:
            self.down.append(separable_stage(channels, (m * width for m in multiples)))
            channels = multiples[-1] * width
        for multiples in UP:
            self.unpool.append(upsample(channels, multiples[0] * width))
            self.up.append(separable_stage(multiples[0] * width, (m * width for m in multiples)))
            channels = multiples[-1] * width
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.first(pad_to_multiple(x, 2 ** len(DOWN)))  # (B, 64, 32h, 32w)
        across = []
        for stage in self.down:
            x = stage(x)
            across.append(x)
            x = F.max_pool2d(x, 2)
        for unpool, stage in zip(self.unpool, self.up, strict=True):
            x, skip = unpool(x), across.pop()
            x = stage(x + skip if self.skips else x)
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


def separable_stage(channels: int, made: Iterable[int]) -> nn.Sequential:
    """Separable convolutions in sequence, from ``channels`` to each of ``made``."""
    return nn.Sequential(*(layer for a, b in pairwise([channels, *made]) for layer in separable(a, b)))


def separable(channels: int, made: int) -> list[nn.Module]:
    """A 3 x 3 filter per channel, then 1 x 1 across channels, each normalised and rectified."""
    return [
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        *normed(channels),
        nn.Conv2d(channels, made, 1, bias=False),
        *normed(made),
    ]


def upsample(channels: int, made: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, made, 2H, 2W) by a transposed convolution."""
    up = nn.ConvTranspose2d(channels, made, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(up, *normed(made))


def normed(channels: int) -> list[nn.Module]:
    """What follows each convolution."""
    return [nn.BatchNorm2d(channels), nn.ReLU()]
