"""Max-pooling that remembers where each maximum was, its inverse, and a decoder that mirrors a VGG by it.

``max_unpool2d`` of PyTorch counts as non-deterministic on CUDA and ONNX lacks it; so the place is kept as the corner
of its 2 x 2 cell, and unpooling is a comparison with that corner and a pixel shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MirroredDecoder", "max_pool", "max_unpool"]


def max_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, 2H, 2W) -> maxima of 2 x 2 px and the corner (2 * row + col) where each was, both (B, C, H, W)."""
    pooled, flat = F.max_pool2d(x, 2, return_indices=True)
    width = x.shape[-1]
    return pooled, (flat // width % 2) * 2 + flat % width % 2


def max_unpool(x: Tensor, corner: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W): each value at its cell's ``corner`` (2 * row + col), zeros elsewhere."""
    corners = torch.arange(4, device=x.device).view(1, 1, 4, 1, 1)
    cells = torch.where(corner.unsqueeze(2) == corners, x.unsqueeze(2), 0)  # (B, C, 4, H, W)
    return F.pixel_shuffle(cells.flatten(1, 2), 2)


class MirroredDecoder(nn.Module):
    """Up through the stages of an encoder backwards: unpool, then the mirror image of each of its convolutions.

    ``stages`` are the encoder's: for each, finest first, the channels that go in and those that come out of each
    convolution. ``layer`` makes a module (B, C, H, W) -> (B, D, H, W) from C and D. The image of the encoder's very
    first convolution, which would end in bands, is left to whoever needs classes there.

    ``forward``: (B, deepest, H, W) and the corners of n pools, finest first -> (B, first, H * 2^n, W * 2^n).
    """

    def __init__(self, stages: Sequence[Sequence[int]], layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        ways = [list(stages[0][1:]), *map(list, stages[1:])]
        self.stages = nn.ModuleList(
            nn.Sequential(*(layer(b, a) for a, b in reversed(list(pairwise(way))))) for way in reversed(ways)
        )

    def forward(self, x: Tensor, corners: Sequence[Tensor]) -> Tensor:
        for stage, corner in zip(self.stages, reversed(corners), strict=True):
            x = stage(max_unpool(x, corner))
        return x
