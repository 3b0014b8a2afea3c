"""FCN: a classification network turned convolutional, its scores upsampled and joined with those of finer layers.

Long, Shelhamer & Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038,
and its longer version, arXiv 1605.06211. Differences from the paper, both at the border: VGG's 7 x 7 layer is padded by
3 px, where the authors pad the image by 100 px and crop; and the last upsampling, which the paper keeps bilinear,
repeats the outermost scores instead of fading into zeros. VGG without batch normalisation is ``encoder="vgg16"``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.upsampling import LearnedUpsampling
from rssegment.model.architectures.vgg import encoder_for, feature_at, fully_convolutional, width_of_hidden

__all__ = ["FCN"]

DEEPEST = 32


class FCN(nn.Module):
    """FCN-32s, -16s or -8s, by ``stride``, over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``fc`` is the width of the layers that were fully connected: by default 4096 for a VGG, and 0, none, for other
    encoders, whose classifier is a single layer. ``width`` multiplies a VGG's channels. ``drop`` is the share of
    values dropped between the layers of ``fc`` in training.

    Raises
    ------
    ValueError
        ``stride`` is another, or the encoder has no features at the strides that it needs.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        stride: int = 8,
        encoder: str = "vgg16_bn",
        fc: int | None = None,
        width: float = 1.0,
        drop: float = 0.5,
    ) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise ValueError(f"stride is {stride}; expected 32, 16 or 8")
        self.encoder = encoder_for(encoder, bands, width=width)
        deep = self.encoder.channels[feature_at(self.encoder, DEEPEST)]
        fc = width_of_hidden(fc, encoder)
        self.classifier = fully_convolutional(deep, fc, drop=drop)
        self.head = nn.Conv2d(fc or deep, classes, 1)
        self.stride = stride
        steps = [s for s in (16, 8) if s >= stride]
        self.places = [feature_at(self.encoder, s) for s in steps]
        self.upsamplings = nn.ModuleList(LearnedUpsampling(classes) for _ in steps)
        self.skips = nn.ModuleList(zeroed(self.encoder.channels[k], classes) for k in self.places)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        features = self.encoder(pad_to_multiple(x, DEEPEST))
        scores = self.head(self.classifier(features[-1]))  # (B, classes, H / 32, W / 32)
        for place, upsampling, skip in zip(self.places, self.upsamplings, self.skips, strict=True):
            scores = upsampling(scores) + skip(features[place])
        logits = F.interpolate(scores, scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        return logits[..., :height, :width]


def zeroed(channels: int, classes: int) -> nn.Conv2d:
    """Scores of a skip, which start at zero: FCN-16s starts as FCN-32s does."""
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
