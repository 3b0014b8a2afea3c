"""Dilated convolutions: a VGG without its last two pools, and a context module that sees 67 x 67 px at full detail.

Yu & Koltun 2016, "Multi-Scale Context Aggregation by Dilated Convolutions", arXiv 1511.07122. The front end drops the
last two pools and dilates the layers after them by 2 and by 4; the context module is a cascade of 3 x 3 convolutions
dilated by 1, 1, 2, 4, 8, 16 and 1, whose receptive field grows exponentially while no resolution is lost. It starts
as the identity, so that it can be added to a front end that was trained alone. Convolutions are padded by zeros, where
the authors pad the image by its reflection, which small images lack.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.vgg import encoder_for, fully_convolutional, width_of_hidden

__all__ = ["ContextModule", "Dilated"]

STRIDE = 8
Context = Literal["basic", "large", "none"]
DILATIONS = (1, 1, 2, 4, 8, 16, 1)
WIDTHS = {"basic": (1, 1, 1, 1, 1, 1, 1), "large": (2, 2, 4, 8, 16, 32, 32)}  # in classes


class Dilated(nn.Module):
    """The front end and a ``context`` module ("basic", "large", "none") over ``bands`` bands and ``classes`` classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``fc`` is the width of the layers that were fully connected: by default 4096 for a VGG, and 0, none, for other
    encoders, which must be able to give features at a stride of 8. ``width`` multiplies a VGG's channels.

    Raises
    ------
    ValueError
        There is no such context module, or the encoder can't be dilated.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        context: Context = "basic",
        encoder: str = "vgg16_bn",
        fc: int | None = None,
        width: float = 1.0,
        drop: float = 0.5,
    ) -> None:
        super().__init__()
        if context not in get_args(Context):
            raise ValueError(f"context is {context!r}; expected one of {', '.join(get_args(Context))}")
        self.encoder = encoder_for(encoder, bands, width=width, output_stride=STRIDE, late_pools="drop")
        deep = self.encoder.channels[-1]
        fc = width_of_hidden(fc, encoder)
        self.classifier = fully_convolutional(deep, fc, dilation=4, drop=drop)
        self.head = nn.Conv2d(fc or deep, classes, 1)
        self.context = nn.Identity() if context == "none" else ContextModule(classes, WIDTHS[context])

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        deepest = self.encoder(pad_to_multiple(x, STRIDE))[-1]
        scores = self.context(self.head(self.classifier(deepest)))  # (B, classes, H / 8, W / 8)
        logits = F.interpolate(scores, scale_factor=float(STRIDE), mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


class ContextModule(nn.Sequential):
    """(B, C, H, W) -> (B, C, H, W), each pixel from 67 x 67 around it.

    ``widths`` are those of the seven layers, in multiples of C.
    It starts as the identity on what is not negative, as its layers are rectified (section 3 of the paper).
    """

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        layers: list[nn.Module] = []
        going_in = channels
        for multiple, dilation in zip(widths, DILATIONS, strict=True):
            wide = multiple * channels
            layers.append(
                passing(nn.Conv2d(going_in, wide, 3, padding=dilation, dilation=dilation), channels)
            )
            layers.append(nn.ReLU(inplace=True))
            going_in = wide
        layers.append(passing(nn.Conv2d(going_in, channels, 1), channels))
        super().__init__(*layers)


def passing(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    """``layer`` with weights that hand each of ``channels`` groups of maps on unchanged, and a little noise.

    Equation 5 of the paper: with a of ``c`` inputs, b of ``d`` outputs and C channels, the middle weight is C / d where
    floor(a C / c) = floor(b C / d), and all others are drawn from N(0, s^2), s far below C / d.
    """
    inputs, outputs = layer.in_channels, layer.out_channels
    same = (torch.arange(outputs) * channels // outputs)[:, None] == torch.arange(inputs) * channels // inputs
    middle = layer.kernel_size[0] // 2
    with torch.no_grad():
        layer.weight.normal_(0, 1e-3 * channels / outputs)
        layer.weight[:, :, middle, middle][same] = channels / outputs
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
