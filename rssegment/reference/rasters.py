"""Label rasters as references: on the map's own pixels, or brought there by nearest neighbour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

from rssegment.errors import InputError
from rssegment.grid import BlockGrid, Box
from rssegment.reference.footprint import crs_of, other_crs, turn_of, windows_of
from rssegment.reference.label_files import LabelFile
from rssegment.taxonomy import ClassMapping

__all__ = ["Labels", "RasterReference", "raster_reference"]

_GRID_TOLERANCE = 0.01  # px: rounded coordinates in a file's header move no pixel by more
_READ_AT_ONCE = 1 << 24  # px of a finer reference that are read for one piece of the grid
_STRIP = 1 << 20  # px whose places are computed at a time
_TURNS = (0, 1, -1, 2, -2)
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
    _check_crs(geobox, file)
    fault, places = _aligned(geobox, file)
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
                f"the reference {path} doesn't overlap the prediction: it lies {_apart(geobox, file, places[0])}; "
                "give the reference of that area"
            )
        beyond = (
            f"the reference {path} isn't compared beyond 180 degrees: {fault} there; to compare it, resample"
        )
        remarks = (*file.remarks, beyond) if fault else file.remarks
        found = RasterReference(file, geobox, met[0], mapping, remarks, tuple(met[1:]))
        parts = [whole.shift(*place).clip(Box.of(file.shape)) for place in met]
    else:
        part = _meeting(geobox, file)
        if not part.size:
            raise InputError(
                f"the reference {path} doesn't overlap the prediction; give the reference of that area"
            )
        remark = f"the reference was resampled onto the prediction's grid by nearest neighbour: {fault}"
        found, parts = RasterReference(file, geobox, None, mapping, (*file.remarks, remark)), [part]
    return replace(found, remarks=(*found.remarks, *_of_zeros(file, mapping, parts)))


def _check_crs(geobox: GeoBox, file: LabelFile) -> None:
    """Refuses pairs of which one has no CRS: nobody knows where it lies."""
    one, other = crs_of(geobox), crs_of(file.geobox)
    if (one is None) == (other is None):
        return
    bare, its = ("reference", "prediction") if other is None else ("prediction", "reference")
    named = f"the reference {file.path}" if other is None else "the prediction"
    raise InputError(
        f"{named} has no CRS, and the {its} has {_crs_name(one or other)}; give the {bare} its own, as by "
        "gdal_translate -a_srs EPSG:XXXX"
    )


def _aligned(geobox: GeoBox, file: LabelFile) -> tuple[str, list[tuple[int, int]]]:
    """Where the grid's first pixel lies in the file (row, col), or nothing and what keeps pixels from falling together.

    In degrees it may lie in it twice, a turn round the Earth apart, and pixels fall together in one place only: then
    both are told. Where it lies outside of it, that place.
    """
    one, other = crs_of(geobox), crs_of(file.geobox)
    rows, cols = geobox.shape
    if other_crs(one, other):
        return f"CRS {_crs_name(one)} and {_crs_name(other)}", []
    if (
        one is None
        and geobox.affine.is_identity
        and file.geobox.affine.is_identity
        and geobox.shape != file.shape
    ):
        return (
            f"sizes {rows} x {cols} and {file.shape[0]} x {file.shape[1]}, and neither is georeferenced",
            [],
        )
    turn = turn_of(one)
    tried = [_placed(geobox, file, k * turn if turn else 0.0) for k in (_TURNS if turn else (0,))]
    met = [each for each in tried if each.meets]
    chosen = met or tried[:1]
    fault = next((each.fault for each in chosen if each.fault), "")
    return fault, [each.offset for each in chosen if not each.fault]


class _Place(NamedTuple):
    """Where the grid's first pixel lies in a file, whether they overlap, and what keeps pixels apart."""

    offset: tuple[int, int]
    meets: bool
    fault: str


def _placed(geobox: GeoBox, file: LabelFile, shift: float) -> _Place:
    """With the grid shifted by so many units to the east."""
    rows, cols = geobox.shape
    between = ~file.geobox.affine * Affine.translation(shift, 0) * geobox.affine
    # how far the corners of the part that both have are from whole pixels
    col, row = round(between.c), round(between.f)
    part = Box(row, col, rows, cols).clip(Box.of(file.shape)).shift(-row, -col)
    spots = [(part.col, part.row), (part.stop_col, part.stop_row)] if part.size else [(0, 0), (cols, rows)]
    apart = max(math.dist(between * spot, (spot[0] + col, spot[1] + row)) for spot in (*spots, (0, 0)))
    if apart <= _GRID_TOLERANCE:
        return _Place((row, col), bool(part.size), "")
    least = 1 if shift else 0  # grids round the Earth may lap by less
    ends = [between * spot for spot in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    meets = all(
        min(end[axis] for end in ends) < size - least and max(end[axis] for end in ends) > least
        for axis, size in ((0, file.shape[1]), (1, file.shape[0]))
    )
    return _Place((row, col), meets, _turned_round(between, geobox) or f"pixels up to {apart:.3g} px apart")


def _turned_round(between: Affine, geobox: GeoBox) -> str:
    """Words for a file whose rows or columns run the other way; empty where that isn't it."""
    rows, cols = geobox.shape
    ways = round(between.a), round(between.e)
    if (abs(ways[0]), abs(ways[1])) != (1, 1) or ways == (1, 1):
        return ""
    centre = between * (0.5, 0.5)
    col, row = (round(place - 0.5) + 0.5 for place in centre)
    last = between * (cols - 0.5, rows - 0.5)
    apart = max(
        math.dist(centre, (col, row)),
        math.dist(last, (col + ways[0] * (cols - 1), row + ways[1] * (rows - 1))),
    )
    if apart > 1:
        return ""
    what = " and ".join(name for name, way in (("columns", ways[0]), ("rows", ways[1])) if way < 0)
    same = "over the same pixels" if apart <= _GRID_TOLERANCE else f"and its pixels lie {apart:.3g} px apart"
    return f"the reference's {what} run the other way, {same}"


def _meeting(geobox: GeoBox, file: LabelFile) -> Box:
    """The part of the file that boxes round the grid overlap; all of it where that can't be told."""
    rows, cols = file.shape
    windows = windows_of(geobox, crs_of(file.geobox))
    if not windows:
        return Box(0, 0, rows, cols)
    inverse, found = ~file.geobox.affine, []
    for west, south, east, north in (window.near for window in windows):
        x, y = zip(
            *(inverse * spot for spot in ((west, south), (west, north), (east, south), (east, north))),
            strict=True,
        )
        (left, right), (top, bottom) = ((min(v), max(v)) for v in (x, y))
        corners = max(0, top), max(0, left), min(rows, bottom), min(cols, right)
        if corners[0] < corners[2] and corners[1] < corners[3]:
            found.append(
                (math.floor(corners[0]), math.floor(corners[1]), math.ceil(corners[2]), math.ceil(corners[3]))
            )
    if not found:
        return Box(0, 0, 0, 0)
    first, left, last, right = zip(*found, strict=True)
    return Box.between(min(first), min(left), max(last), max(right))


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
    if not other_crs(crs, target):
        return None
    return Transformer.from_crs(crs, target, always_xy=True)
