"""What goes from readers of windows to the device."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Batch"]


class Batch(NamedTuple):
    """Windows side by side.

    ``values`` (B, C, H, W): stored units, in the scenes' type, as read; float and normalised once prepared (0 is then
    the band's mean, which stands in for what is missing). ``labels`` (B, H, W) int32: codes, 0 to ignore.
    ``valid`` (B, H, W) bool. ``present`` (B, C) bool: the bands that a window has.
    """

    values: Tensor
    labels: Tensor
    valid: Tensor
    present: Tensor
