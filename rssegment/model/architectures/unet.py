"""U-Net: a contracting path, an expanding path of the same size, and all features handed across.

Ronneberger, Fischer & Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597.
Three things are our own:

* Convolutions are padded. The paper's are not, so that 572 px become 388, and what is handed across is cropped; here
  logits have the image's own size, whatever it is, and what a border costs is settled by overlapping patches.
* Batch normalisation, without which training from random weights depends on luck; ``norm=False`` is the paper's.
* Any height and width is accepted: the input is padded to a multiple of 16 and the logits are cropped.

A U-Net on an encoder of timm is ``smp:Unet``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple

__all__ = ["UNet"]


class UNet(nn.Module):
    """U-Net over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``width`` is the number of channels at full resolution, which each of the ``depth`` poolings doubles. ``drop`` is
    the share of values dropped in training at the end of the contracting path.

    Raises
    ------
    ValueError
        ``depth`` or ``width`` is below 1.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        width: int = 64,
        depth: int = 4,
        norm: bool = True,
        drop: float = 0.5,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise ValueError(f"depth is {depth} and width {width}; expected 1 at least, as 4 and 64")
        widths = [width * 2**k for k in range(depth + 1)]
        inputs = [bands, *widths[:-1]]
        self.down = nn.ModuleList(double(a, b, norm=norm) for a, b in zip(inputs, widths, strict=True))
        self.drop = nn.Dropout(drop)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.join = nn.ModuleList(double(2 * w, w, norm=norm) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer is not self.head:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # section 3 of the paper

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, 2 ** len(self.up))
        across = []
        for stage in self.down[:-1]:
            x = stage(x)
            across.append(x)
            x = F.max_pool2d(x, 2)
        x = self.drop(self.down[-1](x))
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([across.pop(), up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits[..., :height, :width]


def double(channels: int, wider: int, *, norm: bool) -> nn.Sequential:
    """Two convolutions of 3 x 3, each rectified: (B, channels, H, W) -> (B, wider, H, W)."""
    layers: list[nn.Module] = []
    for going_in in (channels, wider):
        layers.append(nn.Conv2d(going_in, wider, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(wider)] * norm
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
