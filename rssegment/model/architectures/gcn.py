"""GCN: a global convolutional network, whose classifier sees 15 x 15 px of every scale by two thin convolutions.

Peng, Zhang, Yu, Luo & Sun 2017, "Large Kernel Matters: Improve Semantic Segmentation by Global Convolutional Network",
arXiv 1703.02719. The scores of each stage come from k x 1 then 1 x k plus 1 x k then k x 1, without a nonlinearity
between, are refined at boundaries by a residual of two convolutions, doubled and added to those of the finer stage.
"""

from __future__ import annotations

from torch import Tensor, nn

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.upsampling import LearnedUpsampling
from rssegment.model.architectures.vgg import encoder_for, feature_at

__all__ = ["GCN"]

STRIDES = (32, 16, 8, 4)


class GCN(nn.Module):
    """GCN over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``encoder`` is any network of timm with features at strides of 4 to 32. ``kernel`` is the side that the thin
    convolutions cover together, in pixels of each stage. ``channels`` are those of the maps that are refined and added:
    as many as classes in the paper, which for a few classes is a narrow way; if given, a 1 x 1 convolution follows.

    Raises
    ------
    ValueError
        The encoder lacks a stride, or ``kernel`` is even.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        encoder: str = "resnet152",
        kernel: int = 15,
        channels: int | None = None,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel is {kernel}; expected an odd number of pixels, as 15")
        self.encoder = encoder_for(encoder, bands, width=width)
        self.places = [feature_at(self.encoder, stride) for stride in STRIDES]
        wide = channels or classes
        inputs = [self.encoder.channels[place] for place in self.places]
        self.views = nn.ModuleList(
            nn.Sequential(GlobalConvolution(c, wide, kernel), BoundaryRefinement(wide)) for c in inputs
        )
        self.joints = nn.ModuleList(BoundaryRefinement(wide) for _ in inputs[1:])
        self.upsamplings = nn.ModuleList(LearnedUpsampling(wide) for _ in inputs[1:])
        self.last = nn.Sequential(
            LearnedUpsampling(wide),
            BoundaryRefinement(wide),
            LearnedUpsampling(wide),
            BoundaryRefinement(wide),
        )
        self.head = nn.Conv2d(wide, classes, 1) if channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        features = self.encoder(pad_to_multiple(x, STRIDES[0]))
        deepest, *finer = (view(features[place]) for view, place in zip(self.views, self.places, strict=True))
        maps = deepest  # (B, channels, H / 32, W / 32)
        for upsampling, found, joint in zip(self.upsamplings, finer, self.joints, strict=True):
            maps = joint(upsampling(maps) + found)
        logits: Tensor = self.head(self.last(maps))  # from (B, channels, H / 4, W / 4)
        return logits[..., :height, :width]


class GlobalConvolution(nn.Module):
    """(B, C, H, W) -> (B, wide, H, W): a window of ``kernel`` x ``kernel`` by two pairs of thin convolutions."""

    def __init__(self, channels: int, wide: int, kernel: int) -> None:
        super().__init__()
        tall: tuple[int, int] = (kernel, 1)
        flat: tuple[int, int] = (1, kernel)
        self.left = nn.Sequential(thin(channels, wide, tall), thin(wide, wide, flat))
        self.right = nn.Sequential(thin(channels, wide, flat), thin(wide, wide, tall))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.left(x) + self.right(x)
        return result


def thin(channels: int, wide: int, kernel: tuple[int, int]) -> nn.Conv2d:
    """A convolution over one row or one column that keeps the size."""
    return nn.Conv2d(channels, wide, kernel, padding=(kernel[0] // 2, kernel[1] // 2))


class BoundaryRefinement(nn.Module):
    """(B, C, H, W) -> the same shape: the scores and what two convolutions would change of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.residual(x)
        return result
