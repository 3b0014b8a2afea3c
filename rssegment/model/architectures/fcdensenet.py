"""FC-DenseNet, "Tiramisu": dense blocks in a U, with few parameters and much memory.

Jégou, Drozdzal, Vázquez, Romero & Bengio 2017, "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for
Semantic Segmentation", arXiv 1611.09326. Written from the paper's sections 3 and 4 and tables 1 and 2. On the way up
only the features that the block below has just made are upsampled, not those that it was given: so their number does
not explode. Our own: any height and width is accepted, padded to a multiple of 32, and the logits are cropped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rssegment.model.architectures.padding import pad_to_multiple
from rssegment.model.architectures.sizes import check_sizes

__all__ = ["FCDenseNet"]

# layers of the whole network -> growth, layers per block on the way down, layers of the deepest block
VARIANTS: dict[int, tuple[int, tuple[int, ...], int]] = {
    56: (12, (4, 4, 4, 4, 4), 4),
    67: (16, (5, 5, 5, 5, 5), 5),
    103: (16, (4, 5, 7, 10, 12), 15),
}


class FCDenseNet(nn.Module):
    """FC-DenseNet over ``bands`` input bands and ``classes`` output classes.

    ``forward``: (B, bands, H, W) normalised float -> logits (B, classes, H, W), for any H and W of 1 px or more.
    ``layers`` is 56, 67 or 103: convolutions from input to output. ``growth`` is what each layer of a block adds, in
    channels, 12 or 16 in the paper; ``first`` the channels of the first convolution. ``drop`` is the share of values
    dropped in training.

    Raises
    ------
    ValueError
        ``layers`` is another number.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        *,
        layers: int = 103,
        growth: int | None = None,
        first: int = 48,
        drop: float = 0.2,
    ) -> None:
        super().__init__()
        if layers not in VARIANTS:
            raise ValueError(f"layers is {layers}; expected one of {', '.join(map(str, VARIANTS))}")
        usual, blocks, deepest = VARIANTS[layers]
        growth = usual if growth is None else growth
        check_sizes(bands=bands, classes=classes, growth=growth, first=first)
        self.factor = 2 ** len(blocks)
        self.first = nn.Conv2d(bands, first, 3, padding=1)
        self.down, self.pool = nn.ModuleList(), nn.ModuleList()
        channels, skips = first, []
        for count in blocks:
            self.down.append(DenseBlock(channels, count, growth, drop))
            channels += count * growth
            skips.append(channels)
            self.pool.append(transition_down(channels, drop))
        self.deepest = DenseBlock(channels, deepest, growth, drop)
        self.unpool, self.up = nn.ModuleList(), nn.ModuleList()
        fresh = deepest * growth  # channels that the block below has made
        for count, skip in zip(reversed(blocks), reversed(skips), strict=True):
            self.unpool.append(nn.ConvTranspose2d(fresh, fresh, 3, stride=2, padding=1, output_padding=1))
            channels, fresh = fresh + skip, count * growth
            self.up.append(DenseBlock(channels, count, growth, drop))
        self.head = nn.Conv2d(channels + fresh, classes, 1)
        self.apply(_he_uniform)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = self.first(pad_to_multiple(x, self.factor))  # (B, 48, 32h, 32w)
        skips = []
        for block, pool in zip(self.down, self.pool, strict=True):
            x = torch.cat([x, block(x)], dim=1)
            skips.append(x)
            x = pool(x)
        fresh = self.deepest(x)  # (B, deepest * growth, h, w)
        for unpool, block in zip(self.unpool, self.up, strict=True):
            x = torch.cat([unpool(fresh), skips.pop()], dim=1)
            fresh = block(x)
        logits: Tensor = self.head(torch.cat([x, fresh], dim=1))  # the last block's input counts too
        return logits[..., :height, :width]


class DenseBlock(nn.Module):
    """(B, C, H, W) -> what its layers made, (B, layers * growth, H, W); each sees the input and all layers before."""

    def __init__(self, channels: int, layers: int, growth: int, drop: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            normed_convolution(channels + k * growth, growth, 3, drop) for k in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        made = []
        for layer in self.layers:
            made.append(layer(x))
            x = torch.cat([x, made[-1]], dim=1)
        return torch.cat(made, dim=1)


def normed_convolution(channels: int, made: int, side: int, drop: float) -> nn.Sequential:
    """Normalised, rectified, then convolved by ``side`` x ``side``: (B, C, H, W) -> (B, made, H, W)."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, made, side, padding=side // 2),
        nn.Dropout2d(drop),
    )


def transition_down(channels: int, drop: float) -> nn.Sequential:
    """(B, C, H, W) -> (B, C, H/2, W/2)."""
    return nn.Sequential(*normed_convolution(channels, channels, 1, drop), nn.MaxPool2d(2))


def _he_uniform(module: nn.Module) -> None:
    """The paper's initial weights."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
