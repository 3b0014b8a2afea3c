"""DeconvNet: all of VGG16, fully connected layers too, and its mirror image of unpooling and deconvolution.

Noh, Hong & Han 2015, "Learning Deconvolution Network for Semantic Segmentation", arXiv 1505.04366: 252 M parameters.
The paper's network takes 224 x 224 px, of which the first fully connected layer sees all, 7 x 7 px of the last pool; it
runs on proposals of objects and joins their maps. Here that layer and its image are padded, so that any size can be
run and each pixel of the last pool sees the 7 x 7 around it; and the whole image is classified at once.
"""

from __future__ import annotations

from torch import Tensor, nn

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.unpooling import MirroredDecoder
from rssegment.model.architectures.vgg import CLASSIFIER, VGG

__all__ = ["DeconvNet"]


class DeconvNet(nn.Module):
    """DeconvNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``encoder`` is any VGG of timm, since pools must have corners; ``width`` multiplies its channels, and ``fc`` is the
    width of what were fully connected layers, most of the network.

    Raises
    ------
    ValueError
        The encoder is no VGG.
    """

    def __init__(
        self, bands: int, classes: int, *, encoder: str = "vgg16_bn", fc: int = CLASSIFIER, width: float = 1.0
    ) -> None:
        super().__init__()
        self.encoder = VGG(encoder, bands, width=width)
        deepest, finest = self.encoder.channels[-1], self.encoder.widths[0][1]
        self.middle = nn.Sequential(
            *activated(nn.Conv2d(deepest, fc, 7, padding=3), fc),
            *activated(nn.Conv2d(fc, fc, 1), fc),
            *activated(nn.ConvTranspose2d(fc, deepest, 7, padding=3), deepest),
        )
        self.decoder = MirroredDecoder(self.encoder.widths, deconvolution)
        self.head = nn.Sequential(deconvolution(finest, finest), nn.Conv2d(finest, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x, corners = self.encoder.with_corners(pad_to_multiple(x, self.encoder.strides[-1]))
        logits: Tensor = self.head(self.decoder(self.middle(x), corners))
        return logits[..., :height, :width]


def deconvolution(channels: int, other: int) -> nn.Sequential:
    """A transposed convolution that makes the sparse maps of an unpooling dense."""
    return nn.Sequential(*activated(nn.ConvTranspose2d(channels, other, 3, padding=1), other))


def activated(layer: nn.Module, channels: int) -> list[nn.Module]:
    """A layer, its batch normalisation and its rectifier."""
    return [layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
