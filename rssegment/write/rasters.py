"""Label and confidence rasters: block parts, a VRT over them, and the final cloud-optimised GeoTIFF."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from rssegment.errors import ReadError, StorageError
from rssegment.grid import Box
from rssegment.write.atomic import staged, write_bytes

__all__ = ["RasterKind", "confidence_kind", "label_kind", "write_cog", "write_part", "write_vrt"]

TILE = 512
_STRAYS = ("{name}.ovr", "{name}.msk", "{name}.aux.xml")  # readers would take them for those of a new file
_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}
_FULL = re.compile(r"no space left|disk (is )?full|write error|TIFFAppendToStrip|WriteEncoded", re.IGNORECASE)


@dataclass(frozen=True)
class RasterKind:
    """What a one-band output raster holds, beside its pixels.

    ``colors`` are RGBA per code, ``categories`` names per code, ``scale`` turns stored values into real ones,
    ``overviews`` names the resampling of reduced copies.
    """

    dtype: str
    nodata: int
    description: str
    overviews: str
    colors: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    scale: float | None = None


def label_kind(colors: Mapping[int, tuple[int, int, int, int]], names: Mapping[int, str]) -> RasterKind:
    """Class codes, 0 no data: one byte each where all codes fit in it; overviews show the commonest class."""
    dtype = "uint8" if max(colors) < 256 else "uint16"
    return RasterKind(dtype, 0, "class", "MODE", dict(colors), dict(names))


def confidence_kind(description: str = "confidence") -> RasterKind:
    """Probability of the decided class, or a difference of such, in steps of 1/254; 255 no data."""
    return RasterKind("uint8", 255, description, "AVERAGE", scale=1 / 254)


def write_part(path: Path, values: NDArray[Any], geobox: GeoBox, kind: RasterKind) -> None:
    """Writes the pixels ``values (H, W)`` of one block as a small GeoTIFF, whole or not at all.

    Encoded in memory first: a full disk then shows as a plain error of the one write, which GDAL can hide.
    """
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": kind.dtype,
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "crs": str(geobox.crs) if geobox.crs else None,
        "transform": geobox.affine,
        "nodata": kind.nodata,
        "compress": "deflate",
        "zlevel": 1,
    }
    if min(values.shape) >= TILE:
        profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE}
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as file:
            file.write(values.astype(kind.dtype, copy=False), 1)
        write_bytes(path, bytes(memory.getbuffer()))


def read_part(path: Path) -> NDArray[Any]:
    """The pixels (H, W) that :func:`write_part` wrote.

    Raises
    ------
    ReadError
        The file is missing or damaged.
    """
    try:
        with rasterio.open(path) as file:
            values: NDArray[Any] = file.read(1)
            return values
    except RasterioError as error:
        raise ReadError(f"can't read {path} ({error}); delete it and run again with --resume") from error


def write_vrt(path: Path, parts: Iterable[tuple[Path, Box]], geobox: GeoBox, kind: RasterKind) -> None:
    """Writes a VRT that shows all ``parts`` as one raster; places without a part are no data.

    Parts are named relative to the VRT, so the folder can be moved as a whole.
    """
    sources = "".join(_source(part, box, path.parent, kind) for part, box in parts)
    crs = f"  <SRS>{escape(geobox.crs.to_wkt())}</SRS>\n" if geobox.crs else ""
    transform = ", ".join(repr(float(value)) for value in geobox.affine.to_gdal())
    text = (
        f'<VRTDataset rasterXSize="{geobox.shape[1]}" rasterYSize="{geobox.shape[0]}">\n'
        f"{crs}  <GeoTransform>{transform}</GeoTransform>\n"
        f'  <VRTRasterBand dataType="{_GDAL_TYPES[kind.dtype]}" band="1" blockXSize="{TILE}" blockYSize="{TILE}">\n'
        f"    <Description>{escape(kind.description)}</Description>\n"
        f"    <NoDataValue>{kind.nodata}</NoDataValue>\n{_band_metadata(kind)}{sources}"
        "  </VRTRasterBand>\n</VRTDataset>\n"
    )
    write_bytes(path, text.encode())


def write_cog(vrt: Path, path: Path, kind: RasterKind) -> None:
    """Makes the cloud-optimised GeoTIFF ``path`` from ``vrt``, whole or not at all.

    Raises
    ------
    StorageError
        GDAL could not write it all.
    """
    options = {
        "driver": "COG",
        "compress": "DEFLATE",
        "level": 6,
        "blocksize": TILE,
        "overview_resampling": kind.overviews,
        "bigtiff": "IF_SAFER",
        "num_threads": str(min(8, os.cpu_count() or 1)),
        "geotiff_version": "1.1",
        "statistics": "NO",
    }
    with staged(path, strays=_STRAYS) as temporary:
        try:
            rasterio.shutil.copy(vrt, temporary, **options)
            _read_through(temporary)
        except (RasterioError, CPLE_BaseError) as error:  # some of GDAL's own errors come unwrapped
            raise _storage_error(path, error) from error


def _read_through(path: Path) -> None:
    """Reads the file's first and last tile and overview: GDAL can lose the error of a short write."""
    with rasterio.open(path) as file:
        corner = max(0, file.height - TILE), max(0, file.width - TILE)
        file.read(1, window=((0, min(TILE, file.height)), (0, min(TILE, file.width))))
        file.read(1, window=((corner[0], file.height), (corner[1], file.width)))
        if file.overviews(1):
            file.read(1, out_shape=(1, 1))


def _storage_error(path: Path, error: Exception) -> StorageError:
    free = (
        os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize if hasattr(os, "statvfs") else -1
    )
    if _FULL.search(str(error)) or 0 <= free < 1 << 20:
        return StorageError(
            f"no space left while writing {path}: free some space on its disk, then run again"
        )
    return StorageError(f"could not write {path}: {error}; run again")


def _source(part: Path, box: Box, folder: Path, kind: RasterKind) -> str:
    name = escape(Path(os.path.relpath(part, folder)).as_posix())
    size = f'xSize="{box.width}" ySize="{box.height}"'
    tile = TILE if min(box.shape) >= TILE else None
    block = f'BlockXSize="{tile}" BlockYSize="{tile}"' if tile else ""
    properties = (
        f'RasterXSize="{box.width}" RasterYSize="{box.height}" DataType="{_GDAL_TYPES[kind.dtype]}" {block}'
    )
    return (
        f'    <SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SourceProperties {properties}/><SrcRect xOff="0" yOff="0" {size}/>'
        f'<DstRect xOff="{box.col}" yOff="{box.row}" {size}/></SimpleSource>\n'
    )


def _band_metadata(kind: RasterKind) -> str:
    if kind.scale is not None:
        return f"    <Offset>0</Offset>\n    <Scale>{kind.scale!r}</Scale>\n    <ColorInterp>Gray</ColorInterp>\n"
    if not kind.colors:
        return ""
    top = max(kind.colors)
    black = (0, 0, 0, 0)
    entries = (kind.colors.get(code, black) for code in range(top + 1))
    table = "".join('<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>'.format(*entry) for entry in entries)
    names = (kind.categories.get(code, "") for code in range(top + 1))
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in names)
    return (
        f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>{table}</ColorTable>\n"
        f"    <CategoryNames>{categories}</CategoryNames>\n"
    )
