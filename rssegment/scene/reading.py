"""Stored pixels to values and validity, on a file's own grid or one of its overviews."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rssegment.errors import ReadError, SceneError
from rssegment.grid import Box
from rssegment.scene.bands import Band
from rssegment.scene.handles import Dataset, complaints, discard, gdal, handle, reason
from rssegment.scene.source import Source
from rssegment.scene.validity import has_data, tested_bands

__all__ = ["read_validity", "read_values"]

Array = NDArray[Any]

# Types whose every value is a float32: GDAL converts them while it copies.
_NARROW = {"uint8", "int8", "uint16", "int16", "float16", "float32"}


@dataclass(frozen=True)
class _Part:
    """The bands that one file gives, and their places among the scene's."""

    source: Source
    bands: tuple[Band, ...]
    places: tuple[int, ...]

    @property
    def indexes(self) -> list[int]:
        """Indices of the file's bands that are read: one for all channels of a colour table."""
        return [self.bands[0].index] if self.source.palette else [band.index for band in self.bands]


def _parts(sources: Sequence[Source], bands: Sequence[Band]) -> Iterator[_Part]:
    for source in sources:
        places = tuple(place for place, band in enumerate(bands) if band.source == source.path)
        if places:
            yield _Part(source, tuple(bands[place] for place in places), places)


def read_values(
    sources: Sequence[Source], bands: Sequence[Band], box: Box, level: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``(C, H, W)``, 0 where invalid, and validity ``(H, W)`` of ``box`` on overview ``level``.

    Raises
    ------
    ReadError
        The pixels can't be read; names the file and the place.
    """
    values = np.empty((len(bands), *box.shape), dtype=np.float32)
    stored: list[Array | None] = [None] * len(bands)
    valid = np.ones(box.shape, dtype=np.bool_)
    for part in _parts(sources, bands):
        for place, layer in zip(part.places, _fill(part, box, level, values, valid), strict=True):
            stored[place] = layer
    _narrow_down(valid, has_data([s for s in stored if s is not None], bands, bands))
    for place, band in enumerate(bands):
        _convert(stored[place], band, values[place])
    if not valid.all():
        np.copyto(values, 0.0, where=~valid)
    return values, valid


def read_validity(
    sources: Sequence[Source], bands: Sequence[Band], box: Box, level: int | None = None
) -> NDArray[np.bool_]:
    """What :func:`read_values` says of validity, reading only the bands that tell.

    Raises
    ------
    ReadError
        The pixels can't be read; names the file and the place.
    """
    valid = np.ones(box.shape, dtype=np.bool_)
    tested = {(band.source, band.index) for band in tested_bands(bands)}
    layers: list[Array] = []
    told: list[Band] = []
    for part in _parts(sources, bands):
        wanted = tuple(
            band for band in part.bands if (band.source, band.index) in tested or part.source.palette
        )
        if wanted:
            reduced = _Part(part.source, wanted, ())
            layers += _fill(reduced, box, level, None, valid)
            told += wanted
        else:
            _explicit(part.source, part.bands, box, level, valid)
    _narrow_down(valid, has_data(layers, told, bands))
    return valid


def _fill(
    part: _Part, box: Box, level: int | None, values: NDArray[np.float32] | None, valid: NDArray[np.bool_]
) -> list[Array]:
    """Reads the part's stored layers, one for each of its bands, and narrows ``valid`` by masks and alpha.

    Reads straight into ``values`` where that loses nothing.
    """
    source, band = part.source, part.bands[0]
    _explicit(source, part.bands, box, level, valid)
    if source.palette:
        entries = np.empty((1, *box.shape), dtype=np.uint16)
        _read(source, part.indexes, box, level, entries)
        _narrow_down(valid, _palette_data(entries[0], part.bands[0], source))
        return [source.colors[:, band.channel][entries[0]] for band in part.bands]
    narrow = band.dtype in _NARROW
    first, last = (part.places[0], part.places[-1] + 1) if part.places else (0, 0)
    if narrow and values is not None and part.places == tuple(range(first, last)):
        out: Array = values[first:last]
    else:
        out = np.empty((len(part.bands), *box.shape), dtype=np.float32 if narrow else band.dtype)
    _read(source, part.indexes, box, level, out)
    return list(out)


def _palette_data(entries: Array, band: Band, source: Source) -> NDArray[np.bool_]:
    """Which entries are visible colours and not the file's nodata value."""
    shown = source.colors[:, 3] > 0
    if band.nodata is not None:
        shown = shown.copy()
        shown[int(band.nodata)] = False
    return np.asarray(shown[entries])


def _convert(stored: Array | None, band: Band, out: NDArray[np.float32]) -> None:
    """Writes ``stored * scale + offset`` to ``out``."""
    if stored is None:
        return
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 are invalid and zeroed
        if band.scaled:
            np.copyto(out, stored.astype(np.float64) * band.scale + band.offset, casting="same_kind")
        elif stored is not out and not np.shares_memory(stored, out):
            np.copyto(out, stored, casting="unsafe")


def _narrow_down(valid: NDArray[np.bool_], by: NDArray[np.bool_] | None) -> None:
    if by is not None:
        np.logical_and(valid, by, out=valid)


def _explicit(
    source: Source, bands: Sequence[Band], box: Box, level: int | None, valid: NDArray[np.bool_]
) -> None:
    """Narrows ``valid`` by the file's masks and its alpha band."""
    if source.mask != "none":
        indexes = [bands[0].index] if source.mask == "dataset" else sorted({band.index for band in bands})
        mask = np.empty((len(indexes), *box.shape), dtype=np.uint8)
        _read(source, indexes, box, level, mask, masks=True)
        _narrow_down(valid, (mask != 0).all(axis=0))
    if source.alpha is not None:
        alpha = np.empty((1, *box.shape), dtype=np.float32)
        _read(source, [source.alpha], box, level, alpha)
        _narrow_down(valid, alpha[0] != 0)


def _read(
    source: Source, indexes: Sequence[int], box: Box, level: int | None, out: Array, *, masks: bool = False
) -> None:
    """Reads the bands ``indexes`` of ``box`` into ``out`` ``(len(indexes), H, W)``."""
    try:
        with gdal(source.path):
            dataset = handle(source.path, level, source.stamp)
            for tile in _tiles(source, box, dataset):
                if tile == box:
                    _read_window(dataset, indexes, box, out, masks)
                    continue
                whole = np.empty((len(indexes), *tile.shape), dtype=out.dtype)
                _read_window(dataset, indexes, tile, whole, masks)
                common = tile.clip(box)
                out[(slice(None), *common.relative_to(box).slices)] = whole[
                    (slice(None), *common.relative_to(tile).slices)
                ]
    except (RasterioError, SceneError, OSError, ValueError) as error:
        discard(source.path, level, source.stamp)
        grid = "" if level is None else f" of overview {level}"
        raise ReadError(
            f"can't read rows {box.row} to {box.stop_row - 1}, columns {box.col} to {box.stop_col - 1}{grid}, "
            f"band {', '.join(map(str, indexes))} of {os.path.basename(source.path)}: {reason(error)} ({source.path})"
        ) from error


def _read_window(dataset: Dataset, indexes: Sequence[int], box: Box, out: Array, masks: bool) -> None:
    window = Window(box.col, box.row, box.width, box.height)
    with complaints():
        (dataset.read_masks if masks else dataset.read)(list(indexes), window=window, out=out)


def _tiles(source: Source, box: Box, dataset: Dataset) -> Iterator[Box]:
    """The box itself, or the tiles that cover it where GDAL's answer depends on the window."""
    if source.tile is None:
        yield box
        return
    side, whole = source.tile, Box.of(dataset.shape)
    for row in range(box.row // side * side, box.stop_row, side):
        for col in range(box.col // side * side, box.stop_col, side):
            yield Box(row, col, side, side).clip(whole)
