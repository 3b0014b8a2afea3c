"""DUC-HDC: logits of many pixels from each feature, and dilations that leave no pixel out.

Wang, Chen, Yuan, Liu, Huang, Hou & Cottrell 2018, "Understanding Convolution for Semantic Segmentation", arXiv
1702.08502. Written from the paper's section 3.

* *Dense upsampling convolution*: instead of interpolating logits, the last convolution makes those of every pixel of a
  cell as channels, which a pixel shuffle lays out. Things smaller than a cell can be told apart.
* *Hybrid dilated convolution*: equal dilations in sequence see a grid only, with holes between. Rates without a common
  factor, as 1, 2, 5, 9, see every pixel of the same field. The residual blocks of stage 4 take them in turn, those of
  stage 5 have 5, 9 and 17.

Our own: any height and width is accepted, padded to a multiple of 8, and the logits are cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes
from rssegment.model.architectures.upsampling import resized

__all__ = ["DUCHDC"]

FACTOR = 8  # side of the input cell that becomes one pixel of the deepest layer
HYBRID = (1, 2, 5, 9)
DEEPEST = (5, 9, 17)
PYRAMID = (6, 12, 18, 24)


class DUCHDC(nn.Module):
    """DUC-HDC over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``encoder`` is a ResNet of timm or one of its kin (ResNeXt, Wide ResNet, SE-ResNet). ``dilations`` are those of its
    third stage of blocks, in turn. Logits are the sum of 3 x 3 convolutions dilated by each of ``pyramid``, of every
    ``cell``-th pixel each way: 2 as its authors' own network, or 1, for four times the weights of these convolutions.

    Raises
    ------
    ValueError
        The encoder is no ResNet of timm, dilations leave holes, or the cell is not 1, 2, 4 or 8 px.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "resnet101",
        dilations: Sequence[int] = HYBRID,
        pyramid: Sequence[int] = PYRAMID,
        cell: int = 2,
    ) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes)
        if cell not in (1, 2, 4, 8):
            raise ValueError(f"cell is {cell}; expected 1, 2, 4 or 8 px")
        self.encoder = Encoder(encoder, bands, output_stride=FACTOR)
        make_hybrid(self.encoder, encoder, dilations)
        self.cell = cell
        self.duc = DenseUpsampling(self.encoder.channels[-1], classes, FACTOR // cell, pyramid)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, FACTOR)  # (B, bands, 8h, 8w)
        logits: Tensor = self.duc(
            self.encoder(x)[-1]
        )  # (B, 2048, h, w) -> (B, classes, 8h / cell, 8w / cell)
        if self.cell > 1:
            logits = resized(logits, x)
        return logits[..., :height, :width]


class DenseUpsampling(nn.Module):
    """(B, C, h, w) -> logits (B, classes, factor * h, factor * w), each pixel's with weights of its own.

    Channel ``class * factor² + row * factor + col`` of the convolutions is the class's logit at that place of the cell.
    """

    def __init__(self, channels: int, classes: int, factor: int, pyramid: Sequence[int]) -> None:
        super().__init__()
        if not pyramid or min(pyramid) < 1:
            raise ValueError(f"pyramid is {list(pyramid)}; expected one rate or more, of 1 or above")
        self.factor = factor
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, classes * factor**2, 3, padding=rate, dilation=rate) for rate in pyramid
        )

    def per_cell(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, classes * factor², h, w): all logits of a cell in one place."""
        first, *rest = self.convolutions
        logits: Tensor = first(x)
        for convolution in rest:
            logits = logits + convolution(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.per_cell(x), self.factor)


def leaves_holes(rates: Sequence[int]) -> bool:
    """Whether 3-tap filters dilated by ``rates``, one after the other, miss a pixel of the field that they span."""
    seen = {0}
    for rate in rates:
        seen = {place + step for place in seen for step in (-rate, 0, rate)}
    return len(seen) < 2 * sum(rates) + 1


def make_hybrid(encoder: Encoder, name: str, dilations: Sequence[int]) -> None:
    """Gives the blocks of a ResNet's last two stages their dilations.

    Raises
    ------
    ValueError
        The encoder has no such stages, or the dilations leave holes.
    """
    if not dilations or min(dilations) < 1 or leaves_holes(dilations):
        raise ValueError(
            f"dilations {list(dilations)} leave pixels between that no filter sees; expected some as {list(HYBRID)}"
        )
    body = cast(nn.ModuleDict, encoder.body)
    if "layer3" not in body or "layer4" not in body:
        raise ValueError(
            f"{name} is no ResNet of timm; expected one as resnet50, resnext50_32x4d or seresnet50"
        )
    for stage, rates in (("layer3", dilations), ("layer4", DEEPEST)):
        for block, rate in zip(cast(nn.Sequential, body[stage]), cycle(rates), strict=False):
            for layer in block.modules():
                if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                    layer.dilation = layer.padding = (rate, rate)
