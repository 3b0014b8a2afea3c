"""What a label raster's file says of itself: whether it is one, its grid, and what marks no data."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning

from rssegment.errors import SceneError
from rssegment.geodesy import is_on_earth
from rssegment.scene.checks import check_blocks, check_is_raster, placed
from rssegment.scene.handles import Dataset, gdal, is_remote, open_dataset

__all__ = [
    "check_labels",
    "data_bands",
    "grid_of",
    "grid_of_raster",
    "is_masked",
    "nodata_of",
    "opened",
    "stamp_of",
    "unplaced_allowed",
]

_WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64")


def grid_of_raster(path: str | Path) -> GeoBox:
    """The pixel grid of any raster; raises SceneError if GDAL can't open it."""
    with opened(path) as file:
        return grid_of(file, str(path))[0]


@contextmanager
def unplaced_allowed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def opened(path: str | Path) -> Iterator[Dataset]:
    with gdal(str(path)), unplaced_allowed(), open_dataset(str(path)) as file:
        check_is_raster(file, str(path))
        check_blocks(file, str(path))
        yield file


def stamp_of(path: str) -> int:
    return 0 if is_remote(path) or not os.path.isfile(path) else os.stat(path).st_mtime_ns


def check_labels(file: Dataset, path: str) -> None:
    bands = data_bands(file)
    if bands != 1:
        picture = "as of a picture whose colours stand for classes" if bands == 3 else "as of a scene"
        raise SceneError(
            f"{path} has {bands} bands, {picture}; a label raster has one, of class codes. If one of them is that, "
            f"extract it: gdal_translate -b 1 {path} labels.tif"
        )
    if file.dtypes[0] not in _WHOLE:
        raise SceneError(
            f"{path} holds {file.dtypes[0]} values; expected class codes, which are whole numbers. "
            f"If these are such, convert them first: gdal_translate -ot UInt16 {path} labels.tif"
        )


def data_bands(file: Dataset) -> int:
    """Number of bands without the alpha band."""
    return sum(color.name != "alpha" for color in file.colorinterp)


def is_masked(file: Dataset) -> bool:
    return any(flag.name in {"per_dataset", "alpha"} for flag in file.mask_flag_enums[0])


def nodata_of(
    file: Dataset, asked: float | None, masked: bool, path: str
) -> tuple[int | None, tuple[str, ...]]:
    """The value that means no data, and what to tell of the file's own."""
    bounds = np.iinfo(file.dtypes[0])
    span = f"{file.dtypes[0]}, whole numbers from {bounds.min} to {bounds.max}"
    if asked is not None:
        if not _held(asked, bounds):
            raise SceneError(
                f"nodata is {asked:g}, which {path} can't hold: it is of {span}; give a value that it holds"
            )
        return int(asked), ()
    if file.nodata is not None and _held(file.nodata, bounds):
        return int(file.nodata), ()
    value = None if masked else 0
    if file.nodata is None:
        return value, ()
    instead = "its mask tells what is no data" if masked else "0 is taken for no data"
    return value, (f"the file's nodata value {file.nodata:g} is ignored: it is of {span}; {instead}",)


def _held(value: float, bounds: np.iinfo[Any]) -> bool:
    return math.isfinite(value) and value == int(value) and bounds.min <= value <= bounds.max


def grid_of(file: Dataset, path: str) -> tuple[GeoBox, tuple[str, ...]]:
    """The grid, without a CRS if there is none on the Earth, and what to tell of that."""
    shape = file.shape
    if file.crs is None:
        points = (
            " (it is placed by ground control points: gdalwarp makes its pixels regular)"
            if file.gcps[0]
            else ""
        )
        return GeoBox(shape, file.transform, None), (
            f"the raster has no CRS{points}: coordinates are pixels (col, row) with rows downwards, "
            "which a GIS shows upside down, and areas are unknown",
        )
    if not is_on_earth(file.crs.to_wkt()):
        return GeoBox(shape, file.transform, None), (
            f"the raster's CRS {file.crs.to_wkt()[:60]!r} is no map of the Earth: coordinates are pixels (col, row), "
            "and areas are unknown",
        )
    return placed(file, path, None)
