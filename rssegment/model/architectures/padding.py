"""Images of any size through networks that halve them a fixed number of times."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["pad_to_multiple"]


def pad_to_multiple(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) with rows and columns repeated at the bottom and right until ``factor`` divides both sides.

    Crop what comes out of the network by ``[..., :H, :W]``.
    """
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % factor, 0, -height % factor), mode="replicate")
