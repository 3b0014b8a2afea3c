"""A contact sheet: rows of small pictures with titles, and beside them a legend of the classes in them."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rssegment.taxonomy import Node, Taxonomy

__all__ = ["PAPER", "Panel", "contact_sheet"]

Picture = NDArray[np.uint8]  # (H, W, 3)
Codes = NDArray[np.int64]

PAPER = (250, 249, 246)
_INK, _FAINT = (34, 37, 41), (120, 124, 130)
_SIDE, _GAP, _TITLE = 288, 12, 22  # px: a panel's longest side, between panels, line of a title
_LINE, _SWATCH, _INDENT, _LETTERS = 22, 14, 14, 34  # of the legend: px, and characters of a name


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """One picture with its title."""

    title: str
    picture: Picture


def contact_sheet(
    rows: list[list[Panel]], taxonomy: Taxonomy, labels: Sequence[Codes], predicted: Sequence[Codes] | None
) -> bytes:
    """The PNG of ``rows`` of panels. The legend has each class's share of all ``labels`` and ``predicted`` pixels."""
    pictures = [[(panel.title, _sized(panel.picture)) for panel in row] for row in rows]
    width = max((sum(_width(*each) + _GAP for each in row) for row in pictures), default=0)
    heights = [max(image.height for _, image in row) + _TITLE + _GAP for row in pictures]
    entries = _entries(taxonomy, labels, predicted)
    legend = _Legend(entries, ("labels",) if predicted is None else ("labels", "predicted"))
    size = width + 2 * _GAP + legend.width, max(sum(heights), legend.height) + _GAP
    page = Image.new("RGB", size, PAPER)
    draw, y = ImageDraw.Draw(page), _GAP
    for row, height in zip(pictures, heights, strict=True):
        x = _GAP
        for title, image in row:
            draw.text((x, y), title, _INK, _font(14))
            page.paste(image, (x, y + _TITLE))
            x += _width(title, image) + _GAP
        y += height
    legend.draw(draw, width + _GAP, _GAP)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _width(title: str, image: Image.Image) -> int:
    """Of a picture with its title above."""
    return max(image.width, math.ceil(_font(14).getlength(title)))


def _sized(picture: Picture) -> Image.Image:
    """As large as a panel: small ones by whole factors with sharp pixels, larger ones averaged."""
    image = Image.fromarray(picture)
    longest = max(image.size)
    if longest > _SIDE:
        size = tuple(max(1, round(n * _SIDE / longest)) for n in image.size)
        return image.resize((size[0], size[1]), Image.Resampling.BOX)
    times = max(1, _SIDE // longest)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A class in the legend: its name, how deep it is, and its share in each column."""

    node: Node
    shares: tuple[float, ...]


def _entries(taxonomy: Taxonomy, *columns: Sequence[Codes] | None) -> list[_Entry]:
    """The classes that are in a column, and what is above them, in the tree's order."""
    counts = [
        sum((np.bincount(codes.ravel(), minlength=65536) for codes in column), np.zeros(65536, np.int64))
        for column in columns
        if column is not None
    ]
    entries = []
    for node in taxonomy.nodes:
        below = [other.code for other in taxonomy.nodes if other.path[: node.level] == node.path]
        pixels = [int(count[below].sum()) for count in counts]
        if any(pixels):
            shares = (n / max(1, int(count[1:].sum())) for n, count in zip(pixels, counts, strict=True))
            entries.append(_Entry(node, tuple(shares)))
    return entries


class _Legend:
    """A table of classes with their shares."""

    def __init__(self, entries: list[_Entry], heads: tuple[str, ...]) -> None:
        self._entries, self._heads = entries, heads
        names = (_indent(each) + _font(13).getlength(_short(each.node.label)) for each in entries)
        self._names = round(max(names, default=60)) + 10
        self._column = 68

    @property
    def width(self) -> int:
        return self._names + self._column * len(self._heads)

    @property
    def height(self) -> int:
        return _GAP + _LINE * (len(self._entries) + 1)

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
        ends = [x + self._names + self._column * (i + 1) for i in range(len(self._heads))]
        for head, end in zip(self._heads, ends, strict=True):
            draw.text((end, y), head, _FAINT, _font(12), anchor="ra")
        for entry in self._entries:
            y += _LINE
            left = x + _indent(entry)
            swatch = (left - _SWATCH - 7, y + 1, left - 7, y + 1 + _SWATCH)
            draw.rounded_rectangle(swatch, 3, fill=entry.node.color, outline=_FAINT)
            draw.text((left, y), _short(entry.node.label), _INK, _font(13))
            for share, end in zip(entry.shares, ends, strict=True):
                draw.text((end, y), f"{share:.1%}" if share else "–", _FAINT, _font(12), anchor="ra")


def _indent(entry: _Entry) -> int:
    return (entry.node.level - 1) * _INDENT + _SWATCH + 7


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1].rstrip() + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's own font: it has more of the world's letters than Pillow's."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)
