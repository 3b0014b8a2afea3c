"""The demo on one page: the scene, its classes, the truth, and where the two differ, with a legend."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rasterio.enums import Resampling

from rssegment.errors import OutputError
from rssegment.taxonomy import Taxonomy

__all__ = ["render_overview"]

Picture = NDArray[np.uint8]  # (H, W, 3)
PANEL, GAP, TITLE, LEGEND = 860, 20, 44, 300  # px: longest side, between panels, title line, legend's width
PAPER, INK, FAINT, WRONG = (250, 249, 246), (34, 37, 41), (120, 124, 130), (222, 38, 38)
SUPERSAMPLED = 2  # rasters are read this many times as large as drawn, then averaged


def render_overview(
    scene: str | Path, labels: str | Path, truth: str | Path | None, path: str | Path, taxonomy: str = "demo"
) -> Path:
    """Draw the rasters ``scene``, ``labels`` and ``truth`` (on one grid) as a PNG at ``path``, and return it.

    The scene's first three bands are shown as red, green and blue. Without ``truth`` there are two panels.

    Raises
    ------
    OutputError
        The PNG can't be written.
    """
    tree, path = Taxonomy.load(taxonomy), Path(path)
    shape = _panel_shape(scene)
    image, codes = _read_image(scene, shape), _read_codes(labels, shape)
    panels = [("Scene", _shrink(image)), ("Classes", _shrink(_colour(codes, tree)))]
    if truth is not None:
        true_codes = _read_codes(truth, shape)
        wrong = (codes != true_codes) & (true_codes > 0)
        share = wrong.sum() / max(1, (true_codes > 0).sum())
        panels.append(("Truth", _shrink(_colour(true_codes, tree))))
        panels.append((f"Where they differ: {share:.1%} of the pixels", _shrink(_mark(image, wrong))))
    page = _compose(panels, tree, codes)
    try:
        page.save(path, format="PNG")
    except OSError as error:
        raise OutputError(f"can't write the picture {path}: {error}; choose another place") from error
    return path


def _panel_shape(scene: str | Path) -> tuple[int, int]:
    """Rows and columns to read so that the panel's longest side is PANEL."""
    with rasterio.open(scene) as file:
        scale = PANEL * SUPERSAMPLED / max(file.shape)
        height, width = (max(1, round(n * scale / SUPERSAMPLED)) * SUPERSAMPLED for n in file.shape)
    return height, width


def _read_image(scene: str | Path, shape: tuple[int, int]) -> Picture:
    """The first three bands (H, W, 3) on the page's paper."""
    with rasterio.open(scene) as file:
        bands = file.read((1, 2, 3), out_shape=(3, *shape), resampling=Resampling.average)
        valid = file.dataset_mask(out_shape=shape, resampling=Resampling.nearest) > 0
    picture: Picture = np.where(valid[..., None], np.moveaxis(bands, 0, -1), PAPER).astype(np.uint8)
    return picture


def _read_codes(labels: str | Path, shape: tuple[int, int]) -> NDArray[np.uint16]:
    with rasterio.open(labels) as file:
        codes: NDArray[np.uint16] = file.read(1, out_shape=shape, resampling=Resampling.nearest)
    return codes.astype(np.uint16)


def _colour(codes: NDArray[np.uint16], tree: Taxonomy) -> Picture:
    """Codes (H, W) in the taxonomy's colours; no data is paper."""
    table = np.full((65536, 3), PAPER, np.uint8)
    for node in tree.nodes:
        table[node.code] = node.color
    return table[codes]


def _mark(image: Picture, wrong: NDArray[np.bool_]) -> Picture:
    """``image`` in pale grey with the ``wrong`` pixels (H, W) in red."""
    grey = image.mean(axis=2, keepdims=True)
    pale = np.broadcast_to(150 + grey * 0.4, image.shape)
    return np.where(wrong[..., None], WRONG, pale).astype(np.uint8)


def _shrink(picture: Picture) -> Picture:
    """Each SUPERSAMPLED x SUPERSAMPLED cell's mean."""
    height, width = (n // SUPERSAMPLED for n in picture.shape[:2])
    cells = picture.reshape(height, SUPERSAMPLED, width, SUPERSAMPLED, 3)
    mean: Picture = np.rint(cells.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
    return mean


def _compose(panels: list[tuple[str, Picture]], tree: Taxonomy, codes: NDArray[np.uint16]) -> Image.Image:
    """Titled panels two to a row, and the legend to their right."""
    height, width = panels[0][1].shape[:2]
    rows = math.ceil(len(panels) / 2)
    page_height = max(GAP + rows * (TITLE + height + GAP), 2 * GAP + _legend_height(tree))
    page = Image.new("RGB", (3 * GAP + 2 * width + LEGEND, page_height), PAPER)
    draw = ImageDraw.Draw(page)
    for k, (title, picture) in enumerate(panels):
        x, y = GAP + (k % 2) * (width + GAP), GAP + (k // 2) * (TITLE + height + GAP)
        draw.text((x, y + 6), title, INK, ImageFont.load_default(24))
        page.paste(Image.fromarray(picture), (x, y + TITLE))
    _legend(draw, 3 * GAP + 2 * width, GAP + 6, tree, codes)
    return page


LINE, HEADING = 32, 40  # px: height of a legend's entry, of a heading


def _legend_height(tree: Taxonomy) -> int:
    return HEADING + LINE * len(tree.nodes) + 8 * len(tree.level(1))


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int, tree: Taxonomy, codes: NDArray[np.uint16]) -> None:
    """The tree from the top down; each node with its share of the pixels that have a class."""
    counts = np.bincount(codes.ravel(), minlength=65536)
    total = max(1, int(counts[1:].sum()))
    draw.text((x, y), "Share of the area", FAINT, ImageFont.load_default(18))
    y += HEADING
    for node in tree.nodes:
        parent = bool(tree.children(node))
        members = [other.code for other in tree.nodes if other.path[: node.level] == node.path]
        share = counts[members].sum() / total
        left = x + (node.level - 1) * 22
        y += 8 if node.level == 1 else 0
        draw.rounded_rectangle((left, y + 3, left + 18, y + 21), 4, fill=node.color)
        draw.text((left + 28, y), node.label, INK if not parent else FAINT, ImageFont.load_default(19))
        draw.text((x + LEGEND - 2 * GAP, y), f"{share:.1%}", FAINT, ImageFont.load_default(17), anchor="ra")
        y += LINE
