"""Encoders of timm as parts of our own architectures: one image in, features at falling resolution out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["Encoder", "encoder_names"]


class Encoder(nn.Module):
    """A network of timm up to its last feature map, with random weights.

    ``forward``: (B, bands, H, W) -> features, finest first: the k-th is (B, ``channels[k]``, H / ``strides[k]``, …).
    Sides that ``strides[-1]`` doesn't divide are rounded up by most encoders: pad the input (see ``padding.py``).
    ``output_stride`` 8 or 16 trades strides of the deepest stages for dilation, where the encoder can (ResNets,
    EfficientNets, MobileNets; not VGG).

    Raises
    ------
    ValueError
        timm has no such network, or it can't give features at this stride.
    """

    def __init__(self, name: str, bands: int, *, output_stride: int = 32) -> None:
        super().__init__()
        import timm

        known = encoder_names()
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            raise ValueError(
                f"timm has no encoder {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
            )
        options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
        try:
            self.body = timm.create_model(
                name, features_only=True, in_chans=bands, pretrained=False, **options
            )
        except (AssertionError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{name} can't give features at a stride of {output_stride}") from error
        info: Any = self.body.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        features: Sequence[Tensor] = self.body(x)
        return features


def encoder_names() -> list[str]:
    """Every network of timm."""
    import timm

    names: list[str] = timm.list_models()
    return names
