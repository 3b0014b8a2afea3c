"""BiSeNet: a shallow path that keeps the detail, a deep one that sees context, and a fusion of both.

Yu, Wang, Peng, Gao, Yu & Sang 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation",
arXiv 1808.00897. Written from the paper's section 3. The spatial path is three strided convolutions; the context path
is an encoder whose last two stages pass through attention refinement, from global averages, and are summed on the way
up. Where the paper leaves widths open they are those of its common implementations, 13.3 M parameters.

Our own: any height and width is accepted, padded to a multiple of 32, and the logits are cropped; batches of one image
can be trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes
from rssegment.model.architectures.upsampling import resized

__all__ = ["BiSeNet"]

FACTOR = 32  # side of the input cell that becomes one pixel of the deepest layer


class BiSeNet(nn.Module):
    """BiSeNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more. In
    training mode a tuple of three such tensors: the logits, and those of the context path at an 8th and a 16th of the
    resolution, for auxiliary losses of weight 1. ``encoder`` is any network of timm with features at strides of 16 and
    32. ``width`` is the number of channels of the two paths, 128.

    Raises
    ------
    ValueError
        timm has no such encoder, or it lacks features at these strides.
    """

    def __init__(self, bands: int, classes: int, *, encoder: str = "resnet18", width: int = 128) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width)
        self.encoder = Encoder(encoder, bands)
        strides = self.encoder.strides
        if 16 not in strides or 32 not in strides:
            raise ValueError(
                f"BiSeNet needs features at strides of 16 and 32; {encoder} gives {list(strides)}"
            )
        self.places = strides.index(16), strides.index(32)
        at16, at32 = (self.encoder.channels[k] for k in self.places)
        thin = max(1, width // 2)
        self.spatial = nn.Sequential(
            activated(bands, thin, 7, 2),
            activated(thin, thin, 3, 2),
            activated(thin, thin, 3, 2),
            activated(thin, width, 1),
        )
        self.tail = activated(at32, width, 1, norm=OneImageNorm)
        self.refine32, self.refine16 = AttentionRefinement(at32, width), AttentionRefinement(at16, width)
        self.smooth16, self.smooth8 = activated(width, width, 3), activated(width, width, 3)
        self.fuse = FeatureFusion(2 * width, 2 * width)
        self.head = head(2 * width, 2 * width, classes)
        self.auxiliary8, self.auxiliary16 = head(width, thin, classes), head(width, thin, classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, FACTOR)  # (B, bands, 32h, 32w)
        features = self.encoder(x)
        at16, at32 = (features[k] for k in self.places)  # (B, 256, 2h, 2w), (B, 512, h, w)
        deep = self.refine32(at32) + self.tail(average(at32))  # (B, 128, h, w)
        context16 = self.smooth16(resized(deep, at16))  # (B, 128, 2h, 2w)
        detail = self.spatial(x)  # (B, 128, 4h, 4w)
        context8 = self.smooth8(resized(self.refine16(at16) + context16, detail))  # (B, 128, 4h, 4w)
        fused = self.fuse(torch.cat([detail, context8], dim=1))  # (B, 256, 4h, 4w)
        outputs = [self.head(fused)]
        if self.training:
            outputs += [self.auxiliary8(context8), self.auxiliary16(context16)]
        logits = tuple(resized(output, x)[..., :height, :width] for output in outputs)
        return logits if self.training else logits[0]


class AttentionRefinement(nn.Module):
    """(B, C, H, W) -> (B, wide, H, W): channels weighted by what the whole image shows."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.convolution = activated(channels, wide, 3)
        self.attention = nn.Sequential(nn.Conv2d(wide, wide, 1, bias=False), OneImageNorm(wide), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        result: Tensor = x * self.attention(average(x))
        return result


class FeatureFusion(nn.Module):
    """Both paths side by side, (B, C, H, W) -> (B, wide, H, W), and channels that matter added once more."""

    def __init__(self, channels: int, wide: int) -> None:
        super().__init__()
        self.convolution = activated(channels, wide, 1)
        inner = max(1, wide // 4)
        self.attention = nn.Sequential(
            nn.Conv2d(wide, inner, 1), nn.ReLU(), nn.Conv2d(inner, wide, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        result: Tensor = x + x * self.attention(average(x))
        return result


class OneImageNorm(nn.BatchNorm2d):
    """Batch normalisation of (B, C, 1, 1), also where the batch is one image and so has no variance.

    Then it uses the running statistics, in training too: an epoch's last batch is often of one image.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.shape[0] > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def average(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)


def activated(
    channels: int, wide: int, side: int, stride: int = 1, norm: type[nn.BatchNorm2d] = nn.BatchNorm2d
) -> nn.Sequential:
    """A convolution of ``side`` x ``side``, normalised and rectified."""
    convolution = nn.Conv2d(channels, wide, side, stride=stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, norm(wide), nn.ReLU())


def head(channels: int, inner: int, classes: int) -> nn.Sequential:
    """(B, C, H, W) -> logits (B, classes, H, W)."""
    return nn.Sequential(activated(channels, inner, 3), nn.Conv2d(inner, classes, 1))
