"""Rasters of class codes as they are compared: codes of a taxonomy, or mapped to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError, ReadError, SceneError
from rssegment.grid import Box
from rssegment.scene import LabelRaster
from rssegment.taxonomy import ClassMapping

__all__ = ["LabelFile"]

_LIMIT = 65535


@dataclass(frozen=True)
class LabelFile:
    """A label ``raster``, and ``what`` its part in a comparison is, for messages."""

    raster: LabelRaster
    what: str

    @classmethod
    def open(cls, path: str | Path, what: str) -> Self:
        """Opens ``path`` as the ``what`` of a comparison; reads no pixel.

        Raises
        ------
        SceneError
            GDAL can't open it, or it isn't one band of whole numbers.
        """
        try:
            return cls(LabelRaster.as_stored(path), what)
        except SceneError as error:
            why = str(error).replace(f"can't open {path} as a raster", str(path))
            raise SceneError(f"can't open the {what}: {why}") from error

    @property
    def path(self) -> str:
        return self.raster.path

    @property
    def geobox(self) -> GeoBox:
        return self.raster.geobox

    @property
    def shape(self) -> tuple[int, int]:
        return self.raster.shape

    @property
    def remarks(self) -> tuple[str, ...]:
        return tuple(f"the {self.what} {self.path}: {text}" for text in self.raster.remarks)

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
        try:
            values, missing = self.raster.stored(box)
        except ReadError as error:
            raise ReadError(f"the {self.what}: {error}") from error
        mapping = None if mapping is None else mapping.named(dict(self.raster.names))
        nodata = self.raster.nodata
        if nodata is not None and (mapping is None or nodata not in mapping.named_values):
            missing = missing | (values == nodata)
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
