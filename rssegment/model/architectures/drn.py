"""DRN: a residual network that stops at an eighth of the resolution, dilated, and without grid artefacts.

Yu, Koltun & Funkhouser 2017, "Dilated Residual Networks", arXiv 1705.09914. Written from the paper's sections 2 to 4.
Levels 5 and 6 keep the resolution of level 4 and dilate by 2 and 4. Dilated filters leave a grid in what they make, so
levels 7 and 8 *degrid*: convolutions with dilation 2 and 1, not residual, since a shortcut would carry the grid past
them. Max-pooling, which makes high frequencies, is replaced by convolutions. DRN-C does the first and last levels in
blocks, DRN-D in plain convolutions. Our own: any height and width is accepted, padded to a multiple of 8, and cropped.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes
from rssegment.model.architectures.upsampling import resized

__all__ = ["DRN"]

FACTOR = 8  # side of the input cell that becomes one pixel of the deepest layer
MULTIPLES = (1, 2, 4, 8, 16, 32, 32, 32)  # channels of the eight levels, in widths
STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 1, 2, 4, 2, 1)
EXPANSION = 4  # a bottleneck's output is this many times its inner channels


@dataclass(frozen=True)
class Variant:
    """What tells one DRN from another: blocks in levels 3 to 6, their kind, and the first and last two levels' kind."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    plain: bool  # levels 1, 2, 7 and 8 are single convolutions, not blocks


VARIANTS = {
    "C-26": Variant((2, 2, 2, 2), bottleneck=False, plain=False),
    "C-42": Variant((3, 4, 6, 3), bottleneck=False, plain=False),
    "D-22": Variant((2, 2, 2, 2), bottleneck=False, plain=True),
    "D-38": Variant((3, 4, 6, 3), bottleneck=False, plain=True),
    "D-54": Variant((3, 4, 6, 3), bottleneck=True, plain=True),
    "D-105": Variant((3, 4, 23, 3), bottleneck=True, plain=True),
}


class DRN(nn.Module):
    """DRN with a segmentation head over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``variant`` is "C-26", "C-42", "D-22", "D-38", "D-54" or "D-105". ``width`` is the number of channels at full
    resolution, 16 in the paper.

    Raises
    ------
    ValueError
        There is no such variant.
    """

    def __init__(self, bands: int, classes: int, *, variant: str = "D-22", width: int = 16) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width)
        if variant not in VARIANTS:
            raise ValueError(f"variant is {variant!r}; expected one of {', '.join(VARIANTS)}")
        chosen = VARIANTS[variant]
        self.first = nn.Sequential(*activated(bands, width, 7))
        self.levels = nn.ModuleList()
        channels = width
        for number in range(8):
            level = _level(chosen, number, channels, MULTIPLES[number] * width)
            self.levels.append(level)
            channels = (
                MULTIPLES[number] * width * (EXPANSION if chosen.bottleneck and 2 <= number <= 5 else 1)
            )
        self.head = nn.Conv2d(channels, classes, 1)
        self.apply(_he_normal)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.first(pad_to_multiple(x, FACTOR))  # (B, 16, 8h, 8w)
        features = x
        for level in self.levels:
            features = level(features)  # at last (B, 512, h, w)
        logits = resized(self.head(features), x)
        return logits[..., :height, :width]


def _level(variant: Variant, number: int, channels: int, wide: int) -> nn.Sequential:
    """Level ``number`` (0 is the first after the stem) from ``channels`` to ``wide`` channels, or expanded ones."""
    stride, dilation = STRIDES[number], DILATIONS[number]
    middle = 2 <= number <= 5
    if not middle and variant.plain:
        return nn.Sequential(*activated(channels, wide, stride=stride, dilation=dilation))
    if not middle:
        residual = number < 2
        return nn.Sequential(Block(channels, wide, stride, (dilation, dilation), residual=residual))
    kind: type[Block] = Bottleneck if variant.bottleneck else Block
    out = wide * EXPANSION if variant.bottleneck else wide
    entry = max(1, dilation // 2)  # dilation grows within the first block, not at one blow
    first = kind(channels, wide, stride, (entry, dilation))
    return nn.Sequential(
        first, *(kind(out, wide, 1, (dilation, dilation)) for _ in range(variant.blocks[number - 2] - 1))
    )


class Block(nn.Module):
    """(B, C, H, W) -> (B, wide, H/stride, W/stride): two 3 x 3 convolutions, added to the input if ``residual``."""

    def __init__(
        self, channels: int, wide: int, stride: int, dilations: tuple[int, int], *, residual: bool = True
    ) -> None:
        super().__init__()
        out = self._out(wide)
        self.branch = self._branch(channels, wide, stride, dilations)
        self.shortcut: nn.Module | None = None
        if residual:
            same = stride == 1 and channels == out
            self.shortcut = nn.Identity() if same else projection(channels, out, stride)

    def _out(self, wide: int) -> int:
        return wide

    def _branch(self, channels: int, wide: int, stride: int, dilations: tuple[int, int]) -> nn.Sequential:
        return nn.Sequential(
            *activated(channels, wide, stride=stride, dilation=dilations[0]),
            *activated(wide, wide, dilation=dilations[1])[:-1],
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.branch(x)
        if self.shortcut is not None:
            result = result + self.shortcut(x)
        return F.relu(result)


class Bottleneck(Block):
    """(B, C, H, W) -> (B, 4 * wide, H/stride, W/stride): 1 x 1, 3 x 3 with the second dilation, 1 x 1."""

    def _out(self, wide: int) -> int:
        return wide * EXPANSION

    def _branch(self, channels: int, wide: int, stride: int, dilations: tuple[int, int]) -> nn.Sequential:
        return nn.Sequential(
            *activated(channels, wide, 1),
            *activated(wide, wide, stride=stride, dilation=dilations[1]),
            *activated(wide, wide * EXPANSION, 1)[:-1],
        )


def activated(
    channels: int, wide: int, side: int = 3, *, stride: int = 1, dilation: int = 1
) -> list[nn.Module]:
    """A convolution of ``side`` x ``side``, normalised and rectified."""
    convolution = nn.Conv2d(
        channels, wide, side, stride=stride, padding=side // 2 * dilation, dilation=dilation, bias=False
    )
    return [convolution, nn.BatchNorm2d(wide), nn.ReLU()]


def projection(channels: int, wide: int, stride: int) -> nn.Sequential:
    """A shortcut where number of channels or resolution change."""
    return nn.Sequential(nn.Conv2d(channels, wide, 1, stride=stride, bias=False), nn.BatchNorm2d(wide))


def _he_normal(module: nn.Module) -> None:
    """Weights by the number of outputs, as residual networks start."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
