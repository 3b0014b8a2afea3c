"""Patch classification: a network that names the centre pixel of a window, run over whole images at once.

Ciresan, Giusti, Gambardella & Schmidhuber 2012, "Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy
Images", NeurIPS. The default is the paper's largest network, N4: windows of 95 x 95 px, four convolutions of 48 maps
with a pool after each, and a layer of 200. Sliding it pixel by pixel computes the same products over and over; instead
each pool takes every position and what comes after is dilated, which gives the same numbers (Giusti et al. 2013,
arXiv 1302.1700; Li, Zhao & Wang 2014, arXiv 1412.4526).

Two things are our own: units are rectified and batch normalised, and beyond the image's border is its outermost row or
column, not its mirror image, which an image smaller than half a window does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PatchClassifier"]


class PatchClassifier(nn.Module):
    """A window's classifier over ``bands`` input bands and ``classes`` output classes, for every pixel.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``classify`` is the classifier itself. ``kernels`` are the sides of the convolutions, each with ``width`` channels
    and a pool of 2 x 2 px after it; ``last`` is the side of what the layer of ``hidden`` units then sees, in pixels.
    ``window`` follows from these.

    Raises
    ------
    ValueError
        The window has an even side, and so no centre pixel.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        kernels: Sequence[int] = (4, 5, 4, 4),
        last: int = 3,
        width: int = 48,
        hidden: int = 200,
        drop: float = 0.5,
    ) -> None:
        super().__init__()
        self.window = last
        for side in reversed(kernels):
            self.window = 2 * self.window + side - 1
        if self.window % 2 == 0 or min(*kernels, last) < 1:
            raise ValueError(
                f"kernels of {tuple(kernels)} and a last side of {last} px see a window of {self.window} px; expected "
                "an odd number, so that it has a centre pixel: add 1 to the first kernel"
            )
        inputs = [bands] + [width] * (len(kernels) - 1)
        self.layers = nn.ModuleList(Spaced(c, width, side) for c, side in zip(inputs, kernels, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in kernels)
        self.hidden = Spaced(width, hidden, last)  # all of what is left of a window: fully connected
        self.drop = nn.Dropout(drop)
        self.head = nn.Conv2d(hidden, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = self.window // 2
        return self._run(F.pad(x, (half, half, half, half), mode="replicate"), dense=True)

    def classify(self, windows: Tensor) -> Tensor:
        """(B, bands, window, window) -> logits of the centre pixels (B, classes)."""
        return self._run(windows, dense=False).flatten(1)

    def _run(self, x: Tensor, *, dense: bool) -> Tensor:
        step = 1  # px between what are neighbours for the classifier
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x, step))
            x = F.relu(F.max_pool2d(x, 2, stride=1 if dense else 2, dilation=step))
            step *= 2 if dense else 1
        x = self.hidden(x, step)
        logits: Tensor = self.head(self.drop(F.relu(x)))
        return logits


class Spaced(nn.Conv2d):
    """A convolution without padding over pixels that lie ``step`` px apart."""

    def forward(self, input: Tensor, step: int = 1) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, dilation=step)
