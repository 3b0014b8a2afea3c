"""Masks whose colours stand for classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, ReadError, SceneError
from rssegment.grid import BlockGrid, Box
from rssegment.reference.label_files import LabelFile
from rssegment.scene import LabelRaster, Scene, grid_of_raster
from rssegment.taxonomy import ClassMapping
from rssegment.taxonomy.mapping import unknown_values
from rssegment.training.sources.places import is_placed, own_words, somewhere

__all__ = ["ColorFile", "Picture"]

_COLORS = 1 << 24
_LOOKED_AT = 2048  # px, side of what is looked through at a time


@dataclass(frozen=True)
class Picture:
    """A file of red, green and blue, or of grey, in bytes; a colour table is expanded."""

    path: str
    scene: Scene

    @classmethod
    def open(cls, path: str) -> Self:
        """Opens ``path``; reads no pixel.

        Raises
        ------
        SceneError
            It isn't such a picture.
        """
        shape, placed = is_placed(path)
        source = path if placed else somewhere(path, shape)
        try:
            scene = Scene.open(source)
        except SceneError as error:
            raise SceneError(own_words(str(error), source, path)) from error
        if scene.count not in (1, 3) or scene.dtype != "uint8":
            raise SceneError(
                f"{path} has {scene.count} bands of {scene.dtype}; expected red, green and blue in bytes (uint8)"
            )
        return cls(path, scene)

    def keys(self, box: Box) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Colours (H, W) as red * 65536 + green * 256 + blue, and which pixels are opaque and have data.

        Raises
        ------
        ReadError
            The file is damaged there.
        """
        try:
            pixels = self.scene.read(box)
        except ReadError as error:
            raise ReadError(own_words(str(error), self.scene.sources[0].path, self.path)) from error
        red, green, blue = pixels.values if self.scene.count == 3 else pixels.values[[0, 0, 0]]
        return (red * 65536 + green * 256 + blue).astype(
            np.int32
        ), pixels.valid  # below 2**24: exact in float32


@dataclass(frozen=True)
class ColorFile(LabelFile):
    """A mask of colours. ``colors``: pairs of a colour and its code; ``others``: the code of colours that aren't
    listed, None to refuse them.
    """

    picture: Picture
    colors: tuple[tuple[int, int], ...]
    others: int | None = None

    @classmethod
    def of(cls, path: str, colors: Mapping[int, int], others: int | None) -> Self:
        """Opens the mask ``path``; raises SceneError if it is no picture."""
        try:
            picture = Picture.open(path)
        except SceneError as error:
            raise SceneError(f"can't open the labels: {error}") from error
        raster = LabelRaster(path, grid_of_raster(path), None, (), {}, {}, False)
        return cls(raster, "labels", picture, tuple(sorted(colors.items())), others)

    def codes(self, box: Box, mapping: ClassMapping | None = None) -> NDArray[np.uint16]:  # noqa: ARG002 - colours are it
        """Codes (H, W); 0 where there is no data.

        Raises
        ------
        ReadError
            The file is damaged there.
        InputError
            It has colours that aren't listed; tells how many pixels of the whole mask.
        """
        keys, valid = self.picture.keys(box)
        table, unlisted = _table(self.colors)
        codes: NDArray[np.uint16] = table[keys]
        strange = codes == unlisted
        if strange.any():
            if self.others is None and (strange & valid).any():
                raise InputError(self._unlisted())
            codes[strange] = self.others or 0
        codes[~valid] = 0
        return codes

    def _unlisted(self) -> str:
        """What to say of colours that aren't listed, from a look at the whole mask."""
        found: NDArray[Any] = np.empty(0, np.int32)
        times: NDArray[Any] = np.empty(0, np.int64)
        size = self.shape[0] * self.shape[1]
        for block in BlockGrid(self.shape, _LOOKED_AT):
            keys, valid = self.picture.keys(block.core)
            some, counts = np.unique(keys[valid], return_counts=True)
            found, place = np.unique(np.concatenate([found, some]), return_inverse=True)
            times = np.bincount(place, weights=np.concatenate([times, counts]), minlength=len(found)).astype(
                np.int64
            )
        unlisted = ~np.isin(found, [color for color, _ in self.colors])
        names = np.array([f"#{color:06X}" for color in found[unlisted]], object)
        lossy = ""
        if self.path.lower().endswith((".jpg", ".jpeg")) or len(names) > 64:
            lossy = " So many colours are the mark of lossy compression (JPEG), which blurs classes: use masks as PNG."
        return (
            f"the labels {self.path} have {times[unlisted].sum()} of {size} px in {len(names)} colours that the "
            f"mapping doesn't list: {unknown_values(names, times[unlisted], 'px')}; list them (null leaves one out), "
            f"or say by a mapping file's 'others' what the rest means.{lossy}"
        )


@lru_cache(maxsize=4)
def _table(colors: tuple[tuple[int, int], ...]) -> tuple[NDArray[np.uint16], int]:
    """(2**24,): the code of every colour, and the one that stands for none; ten times as fast as a search."""
    codes = {code for _, code in colors}
    unlisted = next(code for code in range(65535, -1, -1) if code not in codes)
    table = np.full(_COLORS, unlisted, np.uint16)
    for color, code in colors:
        table[color] = code
    table.flags.writeable = False
    return table, unlisted
