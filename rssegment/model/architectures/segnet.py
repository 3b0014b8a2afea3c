"""SegNet: the convolutions of VGG16 and their mirror image, which puts each maximum back where it was.

Badrinarayanan, Kendall & Cipolla 2017, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", arXiv 1511.00561. Without VGG's fully connected layers, so 29.5 M parameters, not DeconvNet's 252 M.
"""

from __future__ import annotations

from torch import Tensor, nn

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.unpooling import MirroredDecoder
from rssegment.model.architectures.vgg import VGG

__all__ = ["SegNet"]


class SegNet(nn.Module):
    """SegNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``encoder`` is any VGG of timm, since pools must have corners; ``width`` multiplies all its channels.

    Raises
    ------
    ValueError
        The encoder is no VGG.
    """

    def __init__(self, bands: int, classes: int, *, encoder: str = "vgg16_bn", width: float = 1.0) -> None:
        super().__init__()
        self.encoder = VGG(encoder, bands, width=width)
        self.decoder = MirroredDecoder(self.encoder.widths, convolution)
        # the mirror image of the very first convolution gives classes where that took bands
        self.head = nn.Conv2d(self.encoder.widths[0][1], classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x, corners = self.encoder.with_corners(pad_to_multiple(x, self.encoder.strides[-1]))
        logits: Tensor = self.head(self.decoder(x, corners))
        return logits[..., :height, :width]


def convolution(channels: int, other: int) -> nn.Sequential:
    """A convolution that makes the sparse maps of an unpooling dense."""
    return nn.Sequential(
        nn.Conv2d(channels, other, 3, padding=1), nn.BatchNorm2d(other), nn.ReLU(inplace=True)
    )
