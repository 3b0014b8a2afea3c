"""VGG as the encoder of the first segmentation networks: narrowed, dilated, or with its pools' corners remembered.

Simonyan & Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556. The
layers are timm's, by the same names, so that pretrained weights fit whatever is done to pools and dilation. Dropping a
pool and dilating what comes after keeps each filter on the pixels that it was trained for ("atrous", Chen et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.unpooling import max_pool

__all__ = ["VGG", "encoder_for", "feature_at", "fully_convolutional", "is_vgg", "width_of_hidden"]

LatePools = Literal["smooth", "drop"]
CLASSIFIER = 4096  # channels of VGG's fully connected layers


class VGG(Encoder):
    """VGG up to its last pool: ``forward`` gives what comes out of each of the five pools, finest first.

    ``width`` multiplies all channels. ``output_stride`` 16 or 8 takes the stride from the last one or two pools, which
    become maxima over 3 x 3 px ("smooth", DeepLab) or nothing ("drop", Yu & Koltun), and dilates what comes after.

    Raises
    ------
    ValueError
        ``name`` is no VGG of timm, or an option is out of range.
    """

    body: nn.ModuleDict

    def __init__(
        self,
        name: str,
        bands: int,
        *,
        width: float = 1.0,
        output_stride: int = 32,
        late_pools: LatePools = "smooth",
    ) -> None:
        if not is_vgg(name):
            raise ValueError(f"the encoder is {name!r}; expected a VGG of timm, as vgg16_bn")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; expected 8, 16 or 32")
        with (
            nullcontext() if width == 1 else torch.device("meta")
        ):  # layers that are replaced at once need no memory
            super().__init__(name, bands)
        if width != 1:
            _narrow(self.body, bands, width)
        self._stages = _stages(self.body)
        self._dilate(output_stride, late_pools)
        #: for each stage the channels that go in, and those that come out of each of its convolutions
        self.widths = [_widths([self.body[name] for name in names]) for names, _ in self._stages]
        self.channels = tuple(stage[-1] for stage in self.widths)
        self.strides = tuple(min(2 ** (k + 1), output_stride) for k in range(len(self._stages)))

    def _dilate(self, output_stride: int, late_pools: LatePools) -> None:
        dilation = 1
        for number, (names, pool) in enumerate(self._stages):
            for convolution in (self.body[name] for name in names):
                if isinstance(convolution, nn.Conv2d):
                    convolution.dilation = convolution.padding = (dilation, dilation)
            if 2 ** (number + 1) > output_stride:
                # a pool of 2 x 2 px without a stride would move the image by half a pixel: hence 3 x 3
                self.body[pool] = nn.MaxPool2d(3, 1, padding=1) if late_pools == "smooth" else nn.Identity()
                dilation *= 2

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        features = []
        for names, pool in self._stages:
            x = self.body[pool](self._run(names, x))
            features.append(x)
        return features

    def with_corners(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, bands, 32h, 32w) -> what the last pool gives, (B, C, h, w), and all pools' corners, finest first."""
        corners = []
        for names, _ in self._stages:
            x, corner = max_pool(self._run(names, x))
            corners.append(corner)
        return x, corners

    def _run(self, names: Sequence[str], x: Tensor) -> Tensor:
        for name in names:
            x = self.body[name](x)
        return x


def is_vgg(name: str) -> bool:
    """Whether ``name`` is timm's for one of the original VGG networks."""
    return name.startswith("vgg")


def encoder_for(
    name: str, bands: int, *, width: float = 1.0, output_stride: int = 32, late_pools: LatePools = "smooth"
) -> Encoder:
    """The encoder ``name``: a :class:`VGG`, or any other of timm at ``output_stride``, which can't be narrowed."""
    if is_vgg(name):
        return VGG(name, bands, width=width, output_stride=output_stride, late_pools=late_pools)
    if width != 1:
        raise ValueError(
            f"width is {width}, but only a VGG can be narrowed; instead of {name} choose a smaller encoder"
        )
    return Encoder(name, bands, output_stride=output_stride)


def feature_at(encoder: Encoder, stride: int) -> int:
    """Position of the deepest feature of ``encoder`` that has this stride.

    Raises
    ------
    ValueError
        There is none.
    """
    places = [k for k, s in enumerate(encoder.strides) if s == stride]
    if not places:
        raise ValueError(
            f"needs features at a stride of {stride}; the encoder gives those at {encoder.strides}"
        )
    return places[-1]


def width_of_hidden(fc: int | None, encoder: str, default: int = CLASSIFIER) -> int:
    """``fc``, or where it is None what a VGG has between its features and its classes; other encoders have nothing."""
    if fc is None:
        return default if is_vgg(encoder) else 0
    return fc


def fully_convolutional(channels: int, fc: int, *, dilation: int = 1, drop: float = 0.5) -> nn.Sequential:
    """VGG's fully connected layers as convolutions: 7 x 7 to ``fc`` channels, then 1 x 1, with dropout after each.

    (B, channels, H, W) -> (B, fc, H, W): padded, where VGG itself takes 7 x 7 px to one. Without any if ``fc`` is 0.
    """
    if not fc:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(channels, fc, 7, padding=3 * dilation, dilation=dilation),
        nn.ReLU(inplace=True),
        nn.Dropout(drop),
        nn.Conv2d(fc, fc, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(drop),
    )


def _stages(body: nn.ModuleDict) -> list[tuple[list[str], str]]:
    """Names of the layers between pools, and of the pool after them, in order."""
    stages: list[tuple[list[str], str]] = []
    names: list[str] = []
    for name, module in body.items():
        if isinstance(module, nn.MaxPool2d):
            stages.append((names, name))
            names = []
        else:
            names.append(name)
    return stages


def _widths(layers: Sequence[nn.Module]) -> list[int]:
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return [convolutions[0].in_channels, *(layer.out_channels for layer in convolutions)]


def _narrow(body: nn.ModuleDict, bands: int, width: float) -> None:
    """Replaces all layers of ``body`` by such of ``width`` times the channels, 1 at least."""
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width is {width}; expected a factor above 0, as 0.25")
    channels = bands
    for name, module in list(body.items()):
        if isinstance(module, nn.Conv2d):
            out = max(1, round(module.out_channels * width))
            body[name] = convolution = nn.Conv2d(channels, out, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            channels = out
        elif isinstance(module, nn.BatchNorm2d):
            body[name] = nn.BatchNorm2d(channels)
