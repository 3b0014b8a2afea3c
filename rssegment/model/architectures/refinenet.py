"""RefineNet: each scale refines what comes from the coarser one, over paths of identity mappings.

Lin, Milan, Shen & Reid 2017, "RefineNet: Multi-Path Refinement Networks for High-Resolution Semantic Segmentation",
arXiv 1611.06612. Four blocks in a cascade; each takes the encoder's features of its scale and the coarser block's
output through two residual units, fuses them at the finer size, adds what a chain of poolings gathers around each
pixel, and ends with another residual unit. As in the paper there is no batch normalisation outside the encoder.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.upsampling import resized
from rssegment.model.architectures.vgg import encoder_for, feature_at

__all__ = ["RefineNet"]

STRIDES = (32, 16, 8, 4)


class RefineNet(nn.Module):
    """The cascade of four RefineNet blocks over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``encoder`` is any network of timm with features at strides of 4 to 32; ``width`` multiplies a VGG's channels.
    ``channels`` are those of the blocks, twice as many in the coarsest. ``pools`` is the length of the chains.

    Raises
    ------
    ValueError
        The encoder lacks a stride.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "resnet101",
        channels: int = 256,
        pools: int = 2,
        width: float = 1.0,
        drop: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoder = encoder_for(encoder, bands, width=width)
        self.places = [feature_at(self.encoder, stride) for stride in STRIDES]
        widths = [2 * channels, channels, channels, channels]
        inputs = [self.encoder.channels[place] for place in self.places]
        self.adapters = nn.ModuleList(convolution(c, w) for c, w in zip(inputs, widths, strict=True))
        paths = [widths[:1], *([w, before] for before, w in pairwise(widths))]
        self.blocks = nn.ModuleList(RefineBlock(p, w, pools) for p, w in zip(paths, widths, strict=True))
        self.last = nn.Sequential(ResidualUnit(channels), ResidualUnit(channels), nn.Dropout(drop))
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        features = self.encoder(pad_to_multiple(x, STRIDES[0]))
        refined: list[Tensor] = []  # nothing, then the output of the block before
        for place, adapter, block in zip(self.places, self.adapters, self.blocks, strict=True):
            refined = [block(adapter(features[place]), *refined)]
        scores = self.head(self.last(refined[0]))  # (B, classes, H / 4, W / 4)
        logits = F.interpolate(scores, scale_factor=float(STRIDES[-1]), mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


class RefineBlock(nn.Module):
    """Maps of channels ``paths``, finest first -> one (B, ``channels``, H, W) of the finest's size."""

    def __init__(self, paths: list[int], channels: int, pools: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(nn.Sequential(ResidualUnit(c), ResidualUnit(c)) for c in paths)
        # a single path has nothing to be fused with
        self.fusions = nn.ModuleList(convolution(c, channels) for c in paths) if len(paths) > 1 else None
        self.pooling = ChainedPooling(channels, pools)
        self.output = ResidualUnit(channels)

    def forward(self, *paths: Tensor) -> Tensor:
        ready = [unit(path) for unit, path in zip(self.units, paths, strict=True)]
        fused = ready[0]
        if self.fusions is not None:
            finest, *others = (fusion(x) for fusion, x in zip(self.fusions, ready, strict=True))
            fused = finest
            for other in others:
                fused = fused + resized(other, finest)
        result: Tensor = self.output(self.pooling(fused))
        return result


class ResidualUnit(nn.Module):
    """(B, C, H, W) -> the same shape: a ResNet's unit without batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.ReLU(), convolution(channels, channels), nn.ReLU(inplace=True), convolution(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.residual(x)
        return result


class ChainedPooling(nn.Module):
    """(B, C, H, W) -> the same shape: a chain of maxima over 5 x 5 px, each weighed by a convolution and added."""

    def __init__(self, channels: int, pools: int) -> None:
        super().__init__()
        self.links = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(5, 1, padding=2), convolution(channels, channels))
            for _ in range(pools)
        )

    def forward(self, x: Tensor) -> Tensor:
        total = link_input = F.relu(
            x
        )  # the paper's one rectifier, which makes the chain less sensitive to rates
        for link in self.links:
            link_input = link(link_input)
            total = total + link_input
        return total


def convolution(channels: int, other: int) -> nn.Conv2d:
    """3 x 3 px, of the same size."""
    return nn.Conv2d(channels, other, 3, padding=1, bias=False)
