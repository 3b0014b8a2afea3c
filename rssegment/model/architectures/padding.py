"""Images of any size through networks that halve them a fixed number of times."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["pad_to_multiple"]


def pad_to_multiple(x: Tensor, factor: int, least: int = 0) -> Tensor:
    """(B, C, H, W) with its last row and column repeated until ``factor`` divides both sides.

    Sides of less than ``least`` px, a multiple of ``factor``, are made as long as that. Crop what comes out of the
    network by ``[..., :H, :W]``.
    """
    height, width = x.shape[-2:]
    below, right = -height % factor, -width % factor
    if least:
        below, right = max(below, least - height), max(right, least - width)
    return F.pad(x, (0, right, 0, below), mode="replicate")
