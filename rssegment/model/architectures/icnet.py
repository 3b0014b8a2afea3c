"""ICNet: a heavy network on a small image, light ones on larger images, fused step by step.

Zhao, Qi, Shen, Shi & Jia 2018, "ICNet for Real-Time Semantic Segmentation on High-Resolution Images", arXiv
1704.08545. Written from the paper's sections 3 and 4. Three resolutions: the image itself through three convolutions;
half of it through the first stages of an encoder; a quarter through the rest of the encoder, dilated, with pyramid
pooling as in PSPNet, by sum. As in the paper, the medium branch's features, halved, go into the low branch: weights and
computation of the first stages are shared.

What differs: the branches part where the encoder's stride becomes 8, after a whole stage, not within one; widths are
those before the paper prunes half of all filters; auxiliary logits have the image's size, as the final ones do. Our
own: any height and width is accepted, padded to a multiple of 32, and the logits are cropped.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rssegment.model.architectures.encoders import Encoder
from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes
from rssegment.model.architectures.upsampling import resized

__all__ = ["ICNet"]

FACTOR = 32  # side of the input cell that becomes one pixel of the low branch
STRIDE = 8  # of each branch
BINS = (1, 2, 3, 6)  # of the pyramid pooling


class ICNet(nn.Module):
    """ICNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more. In
    training mode a tuple of three such tensors: the logits, and those of the two fusions at a 16th and an 8th of the
    resolution, for losses of 0.4 each. ``encoder`` is any network of timm made of stages in sequence that can be
    dilated: ResNets, ResNeXts, RegNets, ConvNeXts. ``width`` is the number of channels of the fused features, 256.

    Raises
    ------
    ValueError
        timm has no such encoder, or it can't be dilated or parted.
    """

    def __init__(self, bands: int, classes: int, *, encoder: str = "resnet50", width: int = 256) -> None:
        super().__init__()
        check_sizes(bands=bands, classes=classes, width=width)
        self.encoder = Encoder(encoder, bands, output_stride=STRIDE)
        self.shared = _shared_stages(self.encoder, encoder)
        medium = self.encoder.channels[self.encoder.strides.index(STRIDE)]
        self.reduce = activated(self.encoder.channels[-1], 2 * width, 1)
        thin = max(1, width // 4)
        self.high = nn.Sequential(
            activated(bands, thin, 3, 2), activated(thin, thin, 3, 2), activated(thin, 2 * thin, 3, 2)
        )
        self.fuse_medium = CascadeFusion(2 * width, medium, width)
        self.fuse_high = CascadeFusion(width, 2 * thin, width)
        self.heads = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in (width, 2 * width, width))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        height, width = x.shape[-2:]
        x = pad_to_multiple(x, FACTOR)  # (B, bands, 32h, 32w)
        medium = self._stages(F.avg_pool2d(x, 2), 0, self.shared)  # (B, 512, 2h, 2w)
        low = self._stages(F.avg_pool2d(medium, 2), self.shared, None)  # (B, 2048, h, w)
        low = self.reduce(pyramid_sum(low))  # (B, 512, h, w)
        fused, guide_low = self.fuse_medium(low, medium)  # (B, 256, 2h, 2w)
        fused, guide_medium = self.fuse_high(fused, self.high(x))  # (B, 256, 4h, 4w)
        fused = F.interpolate(
            fused, scale_factor=2.0, mode="bilinear", align_corners=False
        )  # (B, 256, 8h, 8w)
        features = (fused, guide_low, guide_medium) if self.training else (fused,)
        outputs = tuple(
            resized(head(feature), x)[..., :height, :width]
            for head, feature in zip(self.heads, features, strict=False)
        )
        return outputs if self.training else outputs[0]

    def _stages(self, x: Tensor, first: int, last: int | None) -> Tensor:
        for stage in list(cast(nn.ModuleDict, self.encoder.body).values())[first:last]:
            x = stage(x)
        return x


class CascadeFusion(nn.Module):
    """Features of a low resolution, and of twice that, to one map of the higher.

    ``forward``: (B, low, h, w), (B, high, 2h, 2w) -> the fused (B, wide, 2h, 2w), and the enlarged low features
    (B, low, 2h, 2w), from which an auxiliary head learns to say at the low resolution what is there.
    """

    def __init__(self, low: int, high: int, wide: int) -> None:
        super().__init__()
        self.low = nn.Sequential(
            nn.Conv2d(low, wide, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(wide)
        )
        self.high = nn.Sequential(nn.Conv2d(high, wide, 1, bias=False), nn.BatchNorm2d(wide))

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        low = resized(low, high)
        return F.relu(self.low(low) + self.high(high)), low


def pyramid_sum(x: Tensor) -> Tensor:
    """``x`` plus its averages over grids of 1, 2, 3 and 6 cells a side, interpolated back: (B, C, H, W) -> the same.

    Cells are those of ``adaptive_avg_pool2d``, whose gradient is not deterministic on CUDA and which ONNX lacks where
    the cells don't divide the image; so averages are products with a matrix for each axis.
    """
    height, width = x.shape[-2:]
    result = x
    for bins in BINS:
        rows, cols = averaging(height, bins, x), averaging(width, bins, x)  # (bins, H), (bins, W)
        pooled = torch.matmul(rows, torch.matmul(x, cols.T))  # (B, C, bins, bins)
        result = result + F.interpolate(pooled, size=(height, width), mode="bilinear", align_corners=False)
    return result


def averaging(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): row k averages pixels from floor(k length / bins) up to ceil((k + 1) length / bins)."""
    k = torch.arange(bins, device=like.device)[:, None]
    pixel = torch.arange(length, device=like.device)
    inside = (pixel >= k * length // bins) & (pixel < ((k + 1) * length + bins - 1) // bins)
    weights = inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


def activated(channels: int, wide: int, side: int, stride: int = 1) -> nn.Sequential:
    """A convolution of ``side`` x ``side``, normalised and rectified."""
    convolution = nn.Conv2d(channels, wide, side, stride=stride, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(wide), nn.ReLU())


def _shared_stages(encoder: Encoder, name: str) -> int:
    """How many of the encoder's modules come before its stride of 8 is over: the medium branch."""
    from timm.models import FeatureListNet

    if not isinstance(encoder.body, FeatureListNet) or STRIDE not in encoder.strides[:-1]:
        raise ValueError(
            f"{name} has no stages in sequence to part at a stride of {STRIDE}; try resnet50 or regnety_016"
        )
    returned = list(encoder.body.return_layers)
    last: str = returned[encoder.strides.index(STRIDE)]
    return list(encoder.body).index(last) + 1
