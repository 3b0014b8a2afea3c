"""DeepLab v1 and v2: atrous convolution instead of the last strides, and one wide view or four side by side.

v1: Chen et al. 2015, "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs", arXiv
1412.7062, as the variant LargeFOV: a VGG whose first fully connected layer is 3 x 3 with a rate of 12. v2: Chen et al.
2017, "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully Connected CRFs",
arXiv 1606.00915: atrous spatial pyramid pooling (ASPP), four such branches added up, on VGG or ResNet.
The papers' CRF is a step of its own after a network, not part of it. VGG's pools of 2 x 2 px stay where they have a
stride; the authors made them 3 x 3. DeepLab v3 and v3+ are ``smp:DeepLabV3`` and ``smp:DeepLabV3Plus``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.upsampling import resized
from rssegment.model.architectures.vgg import encoder_for, width_of_hidden

__all__ = ["DeepLab"]

STRIDE = 8
LARGE_VIEW = (12,)
PYRAMID = (6, 12, 18, 24)
HIDDEN = 1024  # channels of a branch on a VGG


class DeepLab(nn.Module):
    """DeepLab v2 (``aspp``) or v1 over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``rates`` are the branches' dilations at a stride of 8: by default 6, 12, 18 and 24, or 12 alone without ``aspp``.
    ``fc`` is the width of a branch's hidden layers: by default 1024 for a VGG, and 0, none, for other encoders, which
    must be able to give features at a stride of 8. ``width`` multiplies a VGG's channels. With several ``scales``, as
    (0.5, 0.75, 1), the network sees the image at each of them and takes the maximum of what it finds (section 4.1 of
    v2).

    Raises
    ------
    ValueError
        The encoder can't be dilated, or an option is out of range.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        aspp: bool = True,
        encoder: str = "vgg16_bn",
        rates: Sequence[int] | None = None,
        fc: int | None = None,
        width: float = 1.0,
        scales: Sequence[float] = (1,),
        drop: float = 0.5,
    ) -> None:
        super().__init__()
        rates = (PYRAMID if aspp else LARGE_VIEW) if rates is None else rates
        if not rates or min(rates) < 1 or not scales or min(scales) <= 0:
            raise ValueError(
                f"rates are {tuple(rates)} and scales {tuple(scales)}; expected some, all above 0"
            )
        self.scales = [Fraction(scale).limit_denominator(100) for scale in scales]
        # sides that are whole strides at every scale, so that what the scales find lies on one another
        self.multiple = STRIDE * math.lcm(*(scale.denominator for scale in self.scales))
        self.encoder = encoder_for(encoder, bands, width=width, output_stride=STRIDE)
        deep = self.encoder.channels[-1]
        fc = width_of_hidden(fc, encoder, HIDDEN)
        self.branches = nn.ModuleList(
            hidden_branch(deep, fc, classes, rate, drop) if fc else atrous(deep, classes, rate)
            for rate in rates
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, self.multiple)
        logits = self._at(x, self.scales[0])
        for scale in self.scales[1:]:
            logits = torch.maximum(logits, self._at(x, scale))
        return logits[..., :height, :width]

    def _at(self, x: Tensor, scale: Fraction) -> Tensor:
        """Logits (B, classes, H, W) by the network looking at ``x`` enlarged by ``scale``."""
        height, width = (side * scale.numerator // scale.denominator for side in x.shape[-2:])
        seen = (
            x if scale == 1 else F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        )
        deepest = self.encoder(seen)[-1]
        first, *others = self.branches
        scores = first(deepest)  # (B, classes, scale * H / 8, scale * W / 8)
        for branch in others:
            scores = scores + branch(deepest)
        return resized(scores, x)


def atrous(channels: int, other: int, rate: int) -> nn.Conv2d:
    """A convolution of 3 x 3 px that lie ``rate`` px apart."""
    return nn.Conv2d(channels, other, 3, padding=rate, dilation=rate)


def hidden_branch(channels: int, fc: int, classes: int, rate: int, drop: float) -> nn.Sequential:
    """What were VGG's three fully connected layers: 3 x 3 at ``rate``, 1 x 1, and 1 x 1 to classes."""
    return nn.Sequential(
        atrous(channels, fc, rate),
        nn.ReLU(inplace=True),
        nn.Dropout(drop),
        nn.Conv2d(fc, fc, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(drop),
        nn.Conv2d(fc, classes, 1),
    )
