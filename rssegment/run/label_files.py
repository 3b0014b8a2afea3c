"""Rasters of class codes as they are compared: one band, whole numbers, codes of a taxonomy or mapped to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rssegment.errors import InputError, ReadError, SceneError
from rssegment.geodesy import is_on_earth
from rssegment.grid import Box
from rssegment.run.vector_files import stamp
from rssegment.scene.checks import check_blocks, check_is_raster
from rssegment.scene.handles import (
    Dataset,
    complaints,
    discard,
    gdal,
    handle,
    is_remote,
    open_dataset,
    reason,
)
from rssegment.scene.legend import legend_of
from rssegment.taxonomy import ClassMapping

__all__ = ["LabelFile"]

_LIMIT = 65535


@dataclass(frozen=True)
class LabelFile:
    """A label raster. ``nodata``: the value that means no data; ``masked``: a mask tells of it too; ``what``: its part
    in a comparison, for messages; ``names`` of values, where the file has them.
    """

    path: str
    what: str
    geobox: GeoBox
    nodata: int | None
    masked: bool
    stamp: int
    remarks: tuple[str, ...] = ()
    names: tuple[tuple[int, str], ...] = ()

    @classmethod
    def open(cls, path: str | Path, what: str) -> Self:
        """Opens ``path`` as the ``what`` of a comparison; reads no pixel.

        Raises
        ------
        SceneError
            GDAL can't open it.
        InputError
            Not one band of whole numbers.
        """
        name = str(path)
        try:
            with catch_warnings():
                simplefilter("ignore")
                file = open_dataset(name)
        except SceneError as error:
            cause = str(error).partition("as a raster: ")[2] or error
            raise SceneError(f"can't open the {what} {name}: {cause}") from error
        with file:
            check_is_raster(file, name)
            _check(file, name, what)
            check_blocks(file, name)
            geobox = _geobox(file)
            masked = any(flag.name in {"per_dataset", "alpha"} for flag in file.mask_flag_enums[0])
            names = tuple(sorted(legend_of(file, name).names.items()))
            return cls(
                name, what, geobox, _nodata(file), masked, _stamp(name), _remarks(file, name, what), names
            )

    @staticmethod
    def grid(path: str | Path) -> GeoBox:
        """The pixel grid of any raster.

        Raises
        ------
        SceneError
            GDAL can't open it.
        """
        with catch_warnings(), open_dataset(str(path)) as file:
            simplefilter("ignore")
            check_is_raster(file, str(path))
            return _geobox(file)

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    def codes(self, box: Box, mapping: ClassMapping | None = None) -> NDArray[np.uint16]:
        """Codes (H, W) as stored, or through ``mapping``; 0 is no data.

        A value that ``mapping`` lists is a class, also where the file says that it marks no data.

        Raises
        ------
        ReadError
            The file is damaged there, or was replaced since it was opened.
        InputError
            Values that are no codes, or that the mapping doesn't list.
        """
        values, masked = self._read(box)
        missing = masked
        mapping = None if mapping is None else mapping.named(dict(self.names))
        if self.nodata is not None and (mapping is None or self.nodata not in mapping.named_values):
            missing = missing | (values == self.nodata)
        if missing.any():
            values = np.where(missing, values.dtype.type(0), values)
        if mapping is None:
            return self._checked(values)
        codes = mapping.apply(values, f"the {self.what} {self.path}")
        codes[missing] = 0
        return codes

    def _checked(self, values: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
        if values.itemsize > 2 or values.dtype.kind == "i":
            low, high = int(values.min()), int(values.max())
            if low < 0 or high > _LIMIT:
                raise InputError(
                    f"the {self.what} {self.path} has values from {low} to {high}; class codes are 1 to {_LIMIT}, and "
                    "0 is no data (set the raster's nodata value if it has another, or give a mapping)"
                )
        return values.astype(np.uint16, copy=False)

    def _read(self, box: Box) -> tuple[NDArray[np.integer[Any]], NDArray[np.bool_]]:
        """Stored values (H, W), and which of them a mask takes away."""
        window = Window(box.col, box.row, box.width, box.height)
        if _stamp(self.path) != self.stamp:
            raise ReadError(f"the {self.what} {self.path} changed since it was opened; start again")
        try:
            with gdal(self.path), complaints():
                file = handle(self.path, None, self.stamp)
                values: NDArray[np.integer[Any]] = file.read(1, window=window)
                masked = np.zeros(box.shape, np.bool_)
                if self.masked:
                    masked = file.read_masks(1, window=window) == 0
        except (RasterioError, SceneError, OSError, ValueError) as error:
            discard(self.path, None, self.stamp)
            raise ReadError(
                f"can't read rows {box.row} to {box.stop_row}, columns {box.col} to {box.stop_col} of the {self.what} "
                f"{self.path}: {reason(error)}"
            ) from error
        return values, masked


def _stamp(path: str) -> int:
    return 0 if is_remote(path) else stamp(path)


def _geobox(file: Dataset) -> GeoBox:
    crs = file.crs.to_wkt() if file.crs and is_on_earth(file.crs.to_wkt()) else None
    return GeoBox(file.shape, file.transform, crs)


def _check(file: Dataset, path: str, what: str) -> None:
    bands = sum(color.name != "alpha" for color in file.colorinterp)
    dtype = np.dtype(file.dtypes[0])
    if bands != 1 or dtype.kind not in "ui":
        raise InputError(
            f"the {what} {path} has {bands} band(s) of type {dtype}; expected a label raster, one band of class codes "
            "(whole numbers)"
        )


def _nodata(file: Dataset) -> int | None:
    value, bounds = file.nodata, np.iinfo(file.dtypes[0])
    whole = value is not None and value == value and abs(value) < 2**63 and value == int(value)  # noqa: PLR0124
    return int(value) if whole and bounds.min <= value <= bounds.max else None


def _remarks(file: Dataset, path: str, what: str) -> tuple[str, ...]:
    if file.nodata is not None and _nodata(file) is None:
        return (f"the nodata value {file.nodata:g} of the {what} {path} is none that {file.dtypes[0]} holds",)
    return ()
