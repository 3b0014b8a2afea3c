"""Label rasters that anyone has: one band of whole numbers, with or without georeference."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rssegment.errors import ReadError, SceneError
from rssegment.grid import Box
from rssegment.scene.checks import check_same_grid
from rssegment.scene.codes import (
    Mask,
    Values,
    distinct_values,
    merged,
    positions_of,
    possible_codes,
    scan_boxes,
)
from rssegment.scene.handles import (
    complaints,
    discard,
    gdal,
    handle,
    reason,
)
from rssegment.scene.label_header import (
    check_labels,
    data_bands,
    grid_of,
    is_masked,
    nodata_of,
    opened,
    stamp_of,
    unplaced_allowed,
)
from rssegment.scene.legend import legend_of

__all__ = ["LabelRaster"]

MAX_CLASSES = 65535
_NO_BYTE = 255


@dataclass(frozen=True)
class LabelRaster:
    """A raster of class codes. A value: it holds no open file, so it can be sent to another process.

    ``codes`` are the class values, ascending, without no data: those present if ``scanned``, else all that the type can
    hold. :meth:`read` gives 1-based positions in it and 0 for no data, so that any values, 0 and negative ones too, can
    be classes. ``nodata`` is the value that means no data, or None if only a mask (``masked``) says; ``assumed``:
    nobody said so, it is 0 by custom. ``names`` and
    ``colors`` are those of the file, where it has them. ``remarks`` say what a user should know.
    """

    path: str
    geobox: GeoBox
    nodata: float | None
    codes: tuple[int, ...]
    names: Mapping[int, str]
    colors: Mapping[int, tuple[int, int, int]]
    scanned: bool = True
    masked: bool = False
    remarks: tuple[str, ...] = ()
    stamp: int = 0
    assumed: bool = False

    @classmethod
    def open(cls, path: str | Path, nodata: float | None = None, *, scan: bool = True) -> LabelRaster:
        """Opens ``path`` and reads it once, to know its classes.

        Value 0 is no data unless the file (or ``nodata``, which outranks it) says that another value is, or has a mask.
        ``scan`` False spares that reading where the type has few enough values for any of them to be a class, as
        8 bits; ask :attr:`scanned`. Then nobody has noticed yet if no pixel has a class: see :meth:`no_class`.

        Raises
        ------
        SceneError
            Not a raster of whole numbers in one band, of more than 65535 classes, or without any class.
        """
        with opened(path) as file:
            check_labels(file, str(path))
            masked = is_masked(file)
            missing, remarks = nodata_of(file, nodata, masked, str(path))
            possible = possible_codes(file.dtypes[0], missing)
            scanned = scan or not 0 < len(possible) <= MAX_CLASSES
            legend = legend_of(file, str(path))
            geobox, more = grid_of(file, str(path))
            raster = cls(
                str(path), geobox, missing, () if scanned else possible, legend.names, legend.colors,
                scanned, masked, (*remarks, *more), stamp_of(str(path)),
                assumed=nodata is None and file.nodata is None and not masked,
            )  # fmt: skip
            block = file.block_shapes[0]
        return raster._scanned(block) if scanned else raster

    @classmethod
    def of_bytes(cls, path: str | Path) -> LabelRaster:
        """A raster of one band of bytes whose values mean themselves, as confidence does; it isn't read yet.

        Raises
        ------
        SceneError
            Not a raster of bytes in one band.
        """
        with opened(path) as file:
            if data_bands(file) != 1 or file.dtypes[0] != "uint8":
                raise SceneError(
                    f"{path} has {file.count} band(s) of {file.dtypes[0]}; expected one band of uint8, "
                    "0 to 254 for a probability from 0 to 1 and 255 for no data, as segment writes it"
                )
            geobox, remarks = grid_of(file, str(path))
            known = file.nodata is not None and 0 <= file.nodata <= _NO_BYTE
            missing = int(file.nodata) if known else _NO_BYTE
            masked = is_masked(file)
            return cls(str(path), geobox, missing, (), {}, {}, False, masked, remarks, stamp_of(str(path)))

    @classmethod
    def as_stored(cls, path: str | Path) -> LabelRaster:
        """A raster of class codes of which only :meth:`stored` values are wanted; it isn't read yet.

        Raises
        ------
        SceneError
            Not a raster of whole numbers in one band.
        """
        with opened(path) as file:
            check_labels(file, str(path))
            masked = is_masked(file)
            missing, remarks = nodata_of(file, None, masked, str(path))
            legend, (geobox, _) = legend_of(file, str(path)), grid_of(file, str(path))
            return cls(
                str(path),
                geobox,
                missing,
                (),
                legend.names,
                legend.colors,
                False,
                masked,
                remarks,
                stamp_of(str(path)),
            )

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    @property
    def georeferenced(self) -> bool:
        return self.geobox.crs is not None

    def no_class(self) -> SceneError:
        """What to raise when no pixel has a class."""
        return SceneError(
            f"{self.path} holds no class: every pixel is no data ({self._no_data_is}); "
            "if that value is a class, say what marks no data instead by --nodata"
        )

    @property
    def _no_data_is(self) -> str:
        parts = [] if self.nodata is None else [f"{self.nodata:g}"]
        return " or ".join([*parts, "its mask"] if self.masked else parts)

    def check_same_grid(self, other: LabelRaster) -> None:
        """Refuses a raster that isn't on this one's pixels, as of confidence; without a CRS only sizes can differ.

        Raises
        ------
        SceneError
            Says what differs, and how to mend it.
        """
        if self.georeferenced != other.georeferenced:
            bare = other if self.georeferenced else self
            raise SceneError(
                f"{other.path} isn't on the pixel grid of {self.path}: {bare.path} has no CRS; "
                "give it the other's, as by gdal_translate -a_srs EPSG:XXXX"
            )
        boxes = self.geobox, other.geobox
        if not self.georeferenced:
            boxes = (
                GeoBox(self.shape, self.geobox.affine, None),
                GeoBox(other.shape, self.geobox.affine, None),
            )
        check_same_grid(boxes, (self.path, other.path))

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Positions (H, W) of the classes in ``codes``, counted from 1; 0 is no data.

        Raises
        ------
        ReadError
            The file is damaged there, or has a value that it didn't have when it was opened.
        """
        values, missing = self._read(box)
        positions = positions_of(values, self.codes)
        positions[missing] = 0
        return positions

    def read_values(self, box: Box) -> Values:
        """The stored values (H, W); for bytes that mean themselves, 255 where there is no data.

        Raises
        ------
        ReadError
            The file is damaged there.
        """
        values, missing = self._read(box)
        if not self.codes:
            values[missing] = _NO_BYTE
        return values

    def _read(self, box: Box) -> tuple[Values, Mask]:
        """Values and which of them are no data."""
        values, missing = self.stored(box)
        if self.nodata is not None:
            missing |= values == self.nodata
        return values, missing

    def stored(self, box: Box) -> tuple[Values, Mask]:
        """The stored values (H, W), and which of them a mask takes away.

        Raises
        ------
        ReadError
            The file is damaged there, or changed since it was opened.
        """
        window = Window(box.col, box.row, box.width, box.height)
        if stamp_of(self.path) != self.stamp:
            raise ReadError(f"{self.path} changed since it was opened; start again")
        try:
            with gdal(self.path), self._quiet(), complaints():
                file = handle(self.path, None, self.stamp)
                values: Values = file.read(1, window=window)
                missing = np.zeros(values.shape, np.bool_)
                if self.masked:
                    missing = file.read_masks(1, window=window) == 0
        except (RasterioError, SceneError, OSError, ValueError) as error:
            discard(self.path, None, self.stamp)
            raise ReadError(
                f"can't read rows {box.row} to {box.stop_row - 1}, columns {box.col} to {box.stop_col - 1} of "
                f"{self.path}: {reason(error)}"
            ) from error
        return values, missing

    def _quiet(self) -> AbstractContextManager[Any]:
        """Without a warning per thread that the raster isn't placed, which is told in :attr:`remarks`."""
        return nullcontext() if self.georeferenced else unplaced_allowed()

    def _scanned(self, block: tuple[int, int]) -> LabelRaster:
        """The same raster with the codes that are present; ``block`` is the shape of the file's own blocks."""
        found: Values = np.empty(0, np.uint8)
        for box in scan_boxes(self.shape, block):
            values, missing = self._read(box)
            if missing.all():
                continue
            present = distinct_values(values, missing)
            found = merged(found.astype(present.dtype), present)
            if found.size > MAX_CLASSES:
                raise SceneError(
                    f"{self.path} has more than {MAX_CLASSES} distinct values, up to row {box.stop_row} already: "
                    "this is no class raster, but one of measurements or of objects' numbers"
                )
        if not found.size:
            raise self.no_class()
        if found[-1] > np.iinfo(np.int64).max:
            raise SceneError(
                f"{self.path} holds the code {found[-1]}; expected less than 2**63: give it smaller codes"
            )
        return replace(self, codes=tuple(found.tolist()))
