"""Label rasters that anyone has: one band of whole numbers, with or without georeference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError
from rasterio.windows import Window

from rssegment.errors import ReadError, SceneError
from rssegment.grid import BlockGrid, Box
from rssegment.scene.checks import placed

__all__ = ["LabelRaster"]

MAX_CLASSES = 65535
_WHOLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64")


@dataclass(frozen=True)
class LabelRaster:
    """A raster of class codes. A value: it holds no open file, so it can be sent to another process.

    ``codes`` are the class values present, ascending, without no data; :meth:`read` gives 1-based positions in it
    and 0 for no data, so that any values, 0 and negative ones too, can be classes. ``names`` and ``colors`` are those
    of the file, where it has them.
    """

    path: str
    geobox: GeoBox
    nodata: float | None
    codes: tuple[int, ...]
    names: Mapping[int, str]
    colors: Mapping[int, tuple[int, int, int]]

    @classmethod
    def open(cls, path: str | Path, nodata: float | None = None) -> LabelRaster:
        """Opens ``path`` and reads it once, to know its classes.

        Value 0 is no data unless the file (or ``nodata``) says that another value is.

        Raises
        ------
        SceneError
            Not a raster of whole numbers in one band, or of more than 65535 classes.
        """
        try:
            with rasterio.open(path) as file:
                _check(file, path)
                geobox = _grid(file, path)
                missing = nodata if nodata is not None else file.nodata
                codes = _present(file, missing)
                names, colors = _names(Path(path)), _colors(file)
        except RasterioError as error:
            raise SceneError(f"can't read {path} as a label raster: {error}") from error
        if not codes:
            raise SceneError(
                f"{path} holds no class: every pixel is no data ({missing or 0:g}); "
                "if that value is a class, say what marks no data instead by --nodata"
            )
        return cls(str(path), geobox, missing, codes, names, colors)

    @classmethod
    def of_bytes(cls, path: str | Path) -> LabelRaster:
        """A raster of one band of bytes whose values mean themselves, as confidence does; it isn't read yet.

        Raises
        ------
        SceneError
            Not a raster of bytes in one band.
        """
        try:
            with rasterio.open(path) as file:
                if file.count != 1 or file.dtypes[0] != "uint8":
                    raise SceneError(
                        f"{path} has {file.count} band(s) of {file.dtypes[0]}; expected one band of uint8, "
                        "0 to 254 for a probability from 0 to 1 and 255 for no data, as segment writes it"
                    )
                return cls(str(path), _grid(file, path), 255, (), {}, {})
        except RasterioError as error:
            raise SceneError(f"can't read {path}: {error}") from error

    @property
    def shape(self) -> tuple[int, int]:
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    @property
    def georeferenced(self) -> bool:
        return self.geobox.crs is not None

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Positions (H, W) of the classes in ``codes``, counted from 1; 0 is no data.

        Raises
        ------
        ReadError
            The file is damaged there.
        """
        values, missing = self._read(box)
        return _positions(values, missing, self.codes)

    def read_values(self, box: Box) -> NDArray[np.integer]:
        """The stored values (H, W).

        Raises
        ------
        ReadError
            The file is damaged there.
        """
        return self._read(box)[0]

    def _read(self, box: Box) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        window = Window(box.col, box.row, box.width, box.height)
        try:
            with rasterio.open(self.path) as file:
                values = file.read(1, window=window)
                return values, _missing(file, values, self.nodata, window)
        except RasterioError as error:
            raise ReadError(f"can't read rows {box.row} to {box.stop_row} of {self.path}: {error}") from error


def _grid(file: rasterio.DatasetReader, path: str | Path) -> GeoBox:
    return placed(file, str(path), None)[0] if file.crs else GeoBox(file.shape, file.transform, None)


def _positions(
    values: NDArray[np.integer], missing: NDArray[np.bool_], codes: tuple[int, ...]
) -> NDArray[np.uint16]:
    if values.dtype in (np.uint8, np.uint16):  # a table look-up: ten times as fast as a search
        table = np.zeros(np.iinfo(values.dtype).max + 1, np.uint16)
        table[list(codes)] = np.arange(1, len(codes) + 1)
        positions = table[values]
    else:
        positions = (np.searchsorted(np.array(codes, values.dtype), values) + 1).astype(np.uint16)
    positions[missing] = 0
    return np.asarray(positions, np.uint16)


def _check(file: rasterio.DatasetReader, path: str | Path) -> None:
    if file.count != 1:
        raise SceneError(
            f"{path} has {file.count} bands; a label raster has one. Extract it first: "
            f"gdal_translate -b 1 {path} labels.tif"
        )
    if file.dtypes[0] not in _WHOLE:
        raise SceneError(
            f"{path} holds {file.dtypes[0]} values; class codes are whole numbers. "
            f"If these are such, convert them first: gdal_translate -ot UInt16 {path} labels.tif"
        )


def _present(file: rasterio.DatasetReader, nodata: float | None) -> tuple[int, ...]:
    found: set[int] = set()
    for block in BlockGrid(file.shape, 4096):
        box = block.core
        window = Window(box.col, box.row, box.width, box.height)
        values = file.read(1, window=window)
        found.update(int(v) for v in _unique(values[~_missing(file, values, nodata, window)]))
        if len(found) > MAX_CLASSES:
            raise SceneError(
                f"{file.name} has more than {MAX_CLASSES} distinct values: this is no class raster"
            )
    return tuple(sorted(found))


def _unique(values: NDArray[np.integer]) -> NDArray[np.integer]:
    if values.dtype in (np.uint8, np.uint16):
        return np.flatnonzero(np.bincount(values.ravel()))
    return np.unique(values)


def _missing(
    file: rasterio.DatasetReader, values: NDArray[np.integer], nodata: float | None, window: Window
) -> NDArray[np.bool_]:
    if nodata is not None:
        return np.asarray(values == nodata)
    masked = any(flag.name in ("per_dataset", "alpha") for flag in file.mask_flag_enums[0])
    return np.asarray(file.read_masks(1, window=window) == 0) if masked else np.asarray(values == 0)


def _colors(file: rasterio.DatasetReader) -> dict[int, tuple[int, int, int]]:
    try:
        return {code: color[:3] for code, color in file.colormap(1).items()}
    except ValueError:
        return {}


def _names(path: Path) -> dict[int, str]:
    """Category names from GDAL's sidecar file, where there is one: rasterio does not show them."""
    try:
        root = ElementTree.parse(path.with_name(path.name + ".aux.xml")).getroot()
    except (OSError, ElementTree.ParseError):
        return {}
    names = root.findall("./PAMRasterBand[@band='1']/CategoryNames/Category")
    return {code: name.text for code, name in enumerate(names) if name.text}
