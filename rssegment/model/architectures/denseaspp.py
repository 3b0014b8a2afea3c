"""DenseASPP: dilated convolutions in a cascade, each of which sees what all before it saw.

Yang, Yu, Zhang, Li & Yang 2018, "DenseASPP for Semantic Segmentation in Street Scenes", CVPR, 3684-3692. Written from
the paper's section 3. Rates of 3, 6, 12, 18 and 24 in parallel see five scales; in a cascade, densely connected, sums
of rates too: more scales, sampled more densely, up to a field of 127 px at an eighth of the resolution.

The encoder stops at an eighth of the resolution and is dilated after that; timm's DenseNets, which don't know how, are
dilated here. Our own: any height and width is accepted, padded to a multiple of 32, and the logits are cropped; the
first branch is normalised like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes
from rssegment.model.architectures.upsampling import resized

__all__ = ["DenseASPP"]

RATES = (3, 6, 12, 18, 24)


class DenseASPP(nn.Module):
    """DenseASPP over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``encoder`` is any network of timm, ``output_stride`` 8, 16 or 32 what it reduces the resolution by: 32 for those
    that can't be dilated. ``rates`` are the dilations of the cascade, in pixels of that. ``width`` is the number of
    channels that each step of the cascade adds, after one of twice as many: 64 for DenseNet-121.

    Raises
    ------
    ValueError
        timm has no such encoder, it does not go with this stride, or a rate is below 1.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "densenet121",
        output_stride: int = 8,
        rates: Sequence[int] = RATES,
        width: int = 64,
    ) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width)
        if not rates or min(rates) < 1:
            raise ValueError(f"rates are {list(rates)}; expected one or more of 1 or above")
        self.encoder = dilated_encoder(encoder, bands, output_stride)
        self.factor = max(self.encoder.strides)
        channels = self.encoder.channels[-1]
        halved = max(1, channels // 2)
        self.reduce = nn.Sequential(*normed(channels), nn.Conv2d(channels, halved, 1, bias=False))
        self.cascade = nn.ModuleList(
            cascaded(halved + k * width, 2 * width, width, rate) for k, rate in enumerate(rates)
        )
        self.head = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(halved + len(rates) * width, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.factor)
        features = self.reduce(self.encoder(x)[-1])  # (B, 512, h, w)
        for step in self.cascade:
            features = torch.cat([step(features), features], dim=1)
        logits = resized(self.head(features), x)
        return logits[..., :height, :width]


def cascaded(channels: int, inner: int, made: int, rate: int) -> nn.Sequential:
    """One step of the cascade: (B, C, H, W) -> (B, made, H, W), 3 x 3 dilated by ``rate`` after 1 x 1."""
    return nn.Sequential(
        *normed(channels),
        nn.Conv2d(channels, inner, 1),
        *normed(inner),
        nn.Conv2d(inner, made, 3, padding=rate, dilation=rate),
        nn.Dropout2d(0.1),
    )


def normed(channels: int) -> list[nn.Module]:
    """What comes before each convolution, as in a DenseNet."""
    return [nn.BatchNorm2d(channels), nn.ReLU()]


def dilated_encoder(name: str, bands: int, output_stride: int) -> Encoder:
    """The encoder ``name`` at this stride; a DenseNet loses poolings and is dilated after them.

    Raises
    ------
    ValueError
        It can't be had at this stride.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride is {output_stride}; expected 8, 16 or 32")
    if not name.startswith("densenet"):
        return Encoder(name, bands, output_stride=output_stride)
    encoder = Encoder(name, bands)
    body = cast(nn.ModuleDict, encoder.body)
    dilation = 1
    for number, stride in ((2, 16), (3, 32)):
        if stride <= output_stride:
            continue
        body[f"features_transition{number}"].pool = nn.Identity()
        dilation *= 2
        _dilate(body[f"features_denseblock{number + 1}"], dilation)
    encoder.strides = tuple(min(stride, output_stride) for stride in encoder.strides)
    return encoder


def _dilate(block: nn.Module, dilation: int) -> None:
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (dilation, dilation)
