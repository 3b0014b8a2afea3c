"""Label rasters as references: on the map's own pixels, or brought there by nearest neighbour."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.run.features import crs_of
from rssegment.run.label_files import LabelFile
from rssegment.taxonomy import ClassMapping

__all__ = ["Labels", "RasterReference", "raster_reference"]

_GRID_TOLERANCE = 0.01  # px: rounded coordinates in a file's header move no pixel by more
_READ_AT_ONCE = 1 << 24  # px of a finer reference that are read for one piece of the grid
_STRIP = 1 << 20  # px whose places are computed at a time


class Labels(NamedTuple):
    """``codes`` (H, W) uint16, 0 unlabelled; ``contested`` (H, W): whether polygons of different classes cover it."""

    codes: NDArray[np.uint16]
    contested: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class RasterReference:
    """A label raster. ``offset``: where the grid's first pixel lies in it (row, col); None: it is resampled."""

    file: LabelFile
    geobox: GeoBox
    offset: tuple[int, int] | None
    mapping: ClassMapping | None = None
    remarks: tuple[str, ...] = ()

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
        own = box.shift(*self.offset)
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
    fault, offset = _aligned(geobox, file)
    if offset is None and not resample:
        raise InputError(
            f"the prediction and the reference {path} are not on one grid: {fault}. Allow resampling by nearest "
            "neighbour (resample), or warp the reference onto the prediction's grid first "
            "(gdalwarp -t_srs, -te, -tr, -r near)"
        )
    if offset is not None:
        rows, cols = geobox.shape
        if not Box(0, 0, rows, cols).shift(*offset).clip(Box.of(file.shape)).size:
            raise InputError(
                f"the reference {path} doesn't overlap the prediction: it lies {_apart(geobox, file, offset)}; "
                "give the reference of that area"
            )
        return RasterReference(file, geobox, offset, mapping, file.remarks)
    if _transformer(geobox, file.geobox) is None and (crs_of(geobox) is None) != (
        crs_of(file.geobox) is None
    ):
        raise InputError(f"the reference {path} can't be resampled: {fault}; give both rasters a CRS")
    if not _may_meet(geobox, file.geobox):
        raise InputError(
            f"the reference {path} doesn't overlap the prediction; give the reference of that area"
        )
    remark = f"the reference was resampled onto the prediction's grid by nearest neighbour: {fault}"
    return RasterReference(file, geobox, None, mapping, (*file.remarks, remark))


def _aligned(geobox: GeoBox, file: LabelFile) -> tuple[str, tuple[int, int] | None]:
    """Where the grid's first pixel lies in the file (row, col), or None and what keeps pixels from falling together."""
    one, other = crs_of(geobox), crs_of(file.geobox)
    rows, cols = geobox.shape
    if (one is None) != (other is None) or (
        one is not None and other is not None and not one.equals(other, ignore_axis_order=True)
    ):
        return f"CRS {_crs_name(one)} and {_crs_name(other)}", None
    if (
        one is None
        and geobox.affine.is_identity
        and file.geobox.affine.is_identity
        and geobox.shape != file.shape
    ):
        return (
            f"sizes {rows} x {cols} and {file.shape[0]} x {file.shape[1]}, and neither is georeferenced",
            None,
        )
    between = ~file.geobox.affine * geobox.affine
    # how far the corners of the part that both have are from whole pixels
    col, row = round(between.c), round(between.f)
    part = Box(row, col, rows, cols).clip(Box.of(file.shape)).shift(-row, -col)
    spots = [(part.col, part.row), (part.stop_col, part.stop_row)] if part.size else [(0, 0), (cols, rows)]
    apart = max(math.dist(between * spot, (spot[0] + col, spot[1] + row)) for spot in (*spots, (0, 0)))
    if apart > _GRID_TOLERANCE:
        return f"pixels up to {apart:.3g} px apart", None
    return "", (row, col)


def _may_meet(one: GeoBox, other: GeoBox) -> bool:
    """Whether the boxes round two grids overlap in the first one's CRS; True where that can't be told."""
    boxes = []
    for geobox in (one, other):
        rows, cols = geobox.shape
        xs, ys = zip(*(geobox.affine * p for p in ((0, 0), (cols, 0), (0, rows), (cols, rows))), strict=True)
        boxes.append((min(xs), min(ys), max(xs), max(ys)))
    if (between := _transformer(other, one)) is not None:
        try:
            boxes[1] = between.transform_bounds(*boxes[1], densify_pts=21)
        except ProjError:
            return True
    (left, low, right, high), (west, south, east, north) = boxes
    if not all(map(math.isfinite, boxes[1])) or west > east:  # over the antimeridian
        return True
    return bool(west < right and east > left and south < high and north > low)


def _crs_name(crs: CRS | None) -> str:
    if crs is None:
        return "none"
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def _apart(geobox: GeoBox, file: LabelFile, offset: tuple[int, int]) -> str:
    """Where the file lies, seen from the grid, in pixels."""
    rows, cols = geobox.shape
    words = []
    for start, size, own, names in (
        (-offset[0], file.shape[0], rows, ("rows above", "rows below")),
        (-offset[1], file.shape[1], cols, ("columns to the left", "columns to the right")),
    ):
        if start + size <= 0:
            words.append(f"{-(start + size)} {names[0]}")
        elif start >= own:
            words.append(f"{start - own} {names[1]}")
    return " and ".join(words)


@lru_cache(maxsize=16)
def _transformer(one: GeoBox, other: GeoBox) -> Any:
    """From the first grid's CRS to the other's; None where they are the same, or unknown."""
    crs, target = crs_of(one), crs_of(other)
    if crs is None or target is None or crs.equals(target, ignore_axis_order=True):
        return None
    return Transformer.from_crs(crs, target, always_xy=True)
