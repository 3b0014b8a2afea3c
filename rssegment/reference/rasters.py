"""Label rasters as references: on the map's own pixels, or brought there by nearest neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from rssegment.errors import InputError
from rssegment.grid import BlockGrid, Box
from rssegment.reference.alignment import aligned, check_crs, distance_of, meeting
from rssegment.reference.footprint import crs_of, other_crs, turn_of
from rssegment.reference.label_files import LabelFile
from rssegment.taxonomy import ClassMapping

__all__ = ["Labels", "RasterReference", "raster_reference"]

_READ_AT_ONCE = 1 << 24  # px of a finer reference that are read for one piece of the grid
_STRIP = 1 << 20  # px whose places are computed at a time
_LOOKED_AT = 2048  # px, side of what is looked through for zeros at a time


class Labels(NamedTuple):
    """``codes`` (H, W) uint16, 0 unlabelled; ``contested`` (H, W): whether polygons of different classes cover it."""

    codes: NDArray[np.uint16]
    contested: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class RasterReference:
    """A label raster. ``offset``: where the grid's first pixel lies in it (row, col); None: it is resampled.

    ``again``: where it lies in it too, a turn round the Earth on.
    """

    file: LabelFile
    geobox: GeoBox
    offset: tuple[int, int] | None
    mapping: ClassMapping | None = None
    remarks: tuple[str, ...] = ()
    again: tuple[tuple[int, int], ...] = ()

    def labels(self, box: Box) -> Labels:
        """The labels of ``box``.

        Raises
        ------
        ReadError
            The file is damaged there.
        InputError
            It has values that are no codes, or that the mapping doesn't list.
        """
        if self.offset is None:
            return Labels(self._resampled(box))
        codes = np.zeros(box.shape, np.uint16)
        for offset in (
            *reversed(self.again),
            self.offset,
        ):  # what a file holds twice is taken where it is first
            own = box.shift(*offset)
            part = own.clip(Box.of(self.file.shape))
            if part.size:
                codes[part.relative_to(own).slices] = self.file.codes(part, self.mapping)
        return Labels(codes)

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W); 0 where there is no label."""
        return self.labels(box).codes

    def _resampled(self, box: Box) -> NDArray[np.uint16]:
        """The label of the pixel that each centre lies in: exact transformation, pixel by pixel.

        A place is computed from the pixel's row and column in the whole grid, so it is the same in any window.
        """
        height = max(1, _STRIP // box.width)
        if box.height > height:
            strips = [
                Box(row, box.col, min(height, box.stop_row - row), box.width)
                for row in range(box.row, box.stop_row, height)
            ]
            return np.vstack([self._resampled(strip) for strip in strips])
        rows, cols = self._places(box)
        inside = (rows >= 0) & (rows < self.file.shape[0]) & (cols >= 0) & (cols < self.file.shape[1])
        codes = np.zeros(box.shape, np.uint16)
        if not inside.any():
            return codes
        low = int(rows[inside].min()), int(cols[inside].min())
        part = Box.between(*low, int(rows[inside].max()) + 1, int(cols[inside].max()) + 1)
        if part.size > _READ_AT_ONCE and box.size > 1:
            return self._halved(box)
        codes[inside] = self.file.codes(part, self.mapping)[rows[inside] - low[0], cols[inside] - low[1]]
        return codes

    def _halved(self, box: Box) -> NDArray[np.uint16]:
        if box.height >= box.width:
            half = box.height // 2
            parts = (replace(box, height=half), Box(box.row + half, box.col, box.height - half, box.width))
            return np.vstack([self._resampled(part) for part in parts])
        half = box.width // 2
        parts = (replace(box, width=half), Box(box.row, box.col + half, box.height, box.width - half))
        return np.hstack([self._resampled(part) for part in parts])

    def _places(self, box: Box) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the file's pixel that each centre of ``box`` lies in; -1 where it has no place there."""
        row = (np.arange(box.row, box.stop_row) + 0.5)[:, None]
        col = (np.arange(box.col, box.stop_col) + 0.5)[None, :]
        grid, inverse = self.geobox.affine, ~self.file.geobox.affine
        x, y = grid.a * col + grid.b * row + grid.c, grid.d * col + grid.e * row + grid.f
        if (between := _transformer(self.geobox, self.file.geobox)) is not None:
            x, y = between.transform(x, y)
        x = _in_turn(x, self.file.geobox)
        there = inverse.d * x + inverse.e * y + inverse.f, inverse.a * x + inverse.b * y + inverse.c
        rows, cols = (
            np.floor(np.where(np.isfinite(place) & (np.abs(place) < 2.0**31), place, -1.0)).astype(np.int64)
            for place in there
        )
        return rows, cols


def raster_reference(
    path: str, geobox: GeoBox, mapping: ClassMapping | None = None, *, resample: bool = False
) -> RasterReference:
    """The label raster ``path`` on the pixels of ``geobox``; ``resample`` allows one that has others.

    Raises
    ------
    InputError
        It is no label raster, doesn't overlap the grid, or has other pixels and may not be resampled.
    """
    file = LabelFile.open(path, "reference")
    check_crs(geobox, file)
    fault, places = aligned(geobox, file)
    resampled = resample and bool(fault)
    if not places and not resampled:
        raise InputError(
            f"the prediction and the reference {path} are not on one grid: {fault}. Allow resampling by nearest "
            "neighbour (resample), or warp the reference onto the prediction's grid first "
            "(gdalwarp -t_srs, -te, -tr, -r near)"
        )
    if not resampled:
        whole = Box(0, 0, *geobox.shape)
        met = [place for place in places if whole.shift(*place).clip(Box.of(file.shape)).size]
        if not met:
            raise InputError(
                f"the reference {path} doesn't overlap the prediction: it lies {distance_of(geobox, file, places[0])}; "
                "give the reference of that area"
            )
        beyond = (
            f"the reference {path} isn't compared beyond 180 degrees: {fault} there; to compare it, resample"
        )
        remarks = (*file.remarks, beyond) if fault else file.remarks
        found = RasterReference(file, geobox, met[0], mapping, remarks, tuple(met[1:]))
        parts = [whole.shift(*place).clip(Box.of(file.shape)) for place in met]
    else:
        part = meeting(geobox, file)
        if not part.size:
            raise InputError(
                f"the reference {path} doesn't overlap the prediction; give the reference of that area"
            )
        remark = f"the reference was resampled onto the prediction's grid by nearest neighbour: {fault}"
        found, parts = RasterReference(file, geobox, None, mapping, (*file.remarks, remark)), [part]
    return replace(found, remarks=(*found.remarks, *_of_zeros(file, mapping, parts)))


def _of_zeros(file: LabelFile, mapping: ClassMapping | None, parts: Sequence[Box]) -> tuple[str, ...]:
    """A remark where pixels of 0 are left out although the file says that another value marks no data."""
    raster = file.raster
    if raster.assumed or raster.nodata == 0:
        return ()
    if mapping is not None and 0 in mapping.named(dict(raster.names)).named_values:
        return ()
    if not any(_has_zeros(file, part) for part in parts):
        return ()
    marks = "its mask tells" if raster.nodata is None else f"its nodata value is {raster.nodata}, which tells"
    return (
        f"the reference {file.path} has pixels of 0, which is no class here and counts as unlabelled, though {marks} "
        "what has no data; to count them, map 0 to a class (mapping)",
    )


def _has_zeros(file: LabelFile, part: Box) -> bool:
    for block in BlockGrid(part.shape, _LOOKED_AT):
        values, missing = file.raster.stored(block.core.shift(part.row, part.col))
        if ((values == 0) & ~missing).any():
            return True
    return False


def _in_turn(x: NDArray[np.float64], geobox: GeoBox) -> NDArray[np.float64]:
    """Longitudes in the turn that a grid tells them in; others as they are."""
    if (turn := turn_of(crs_of(geobox))) is None:
        return x
    rows, cols = geobox.shape
    ends = [(geobox.affine * spot)[0] for spot in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    west, east = min(ends), max(ends)
    outside = np.isfinite(x) & ((x < west) | (x > east))
    return np.where(outside, west + np.mod(np.where(outside, x, west) - west, turn), x)


@lru_cache(maxsize=16)
def _transformer(one: GeoBox, other: GeoBox) -> Any:
    """From the first grid's CRS to the other's; None where they are the same, or unknown."""
    crs, target = crs_of(one), crs_of(other)
    if not other_crs(crs, target):
        return None
    return Transformer.from_crs(crs, target, always_xy=True)
