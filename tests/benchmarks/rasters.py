"""Label rasters to measure with: noise of chosen roughness, and the Cropland Data Layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tests.conftest import data_root

__all__ = ["cropland", "cropland_path", "noise_labels", "tiled"]

CLASSES = 6


def noise_labels(side: int, sigma: float) -> NDArray[np.uint8]:
    """(side, side) codes 1 to 6: the greatest of six fields of noise, smoothed by a Gaussian of ``sigma`` px."""
    random = np.random.default_rng(0)
    labels = np.ones((side, side), np.uint8)
    greatest = np.full((side, side), -np.inf, np.float32)
    for code in range(1, CLASSES + 1):
        noise = random.standard_normal((side, side), dtype=np.float32)
        field = gaussian_filter(noise, sigma, mode="wrap")
        np.putmask(labels, field > greatest, code)
        np.maximum(greatest, field, out=greatest)
    return labels


def cropland_path() -> Path | None:
    """The Cropland Data Layer raster, or None where there is no real data."""
    path = data_root() / "fixtures" / "label_rasters" / "CDL_2016_19_train.tif"
    return path if path.is_file() else None


def cropland(path: Path, side: int) -> NDArray[np.uint8]:
    """Its first ``side`` rows and columns, at most."""
    with rasterio.open(path) as file:
        window = rasterio.windows.Window(0, 0, min(side, file.width), min(side, file.height))
        labels: NDArray[np.uint8] = file.read(1, window=window)
    return labels


def tiled(source: Path, side: int, out: Path) -> Path:
    """A VRT of ``side`` rows and columns at ``out``: the raster ``source`` again and again."""
    with rasterio.open(source) as file:
        width, height, crs, transform = file.width, file.height, file.crs, file.transform
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" xSize="{min(width, side - col)}" ySize="{min(height, side - row)}"/>'
        f'<DstRect xOff="{col}" yOff="{row}" xSize="{min(width, side - col)}" ySize="{min(height, side - row)}"/>'
        "</SimpleSource>"
        for row in range(0, side, height)
        for col in range(0, side, width)
    )
    place = ", ".join(repr(value) for value in transform.to_gdal())
    out.write_text(
        f'<VRTDataset rasterXSize="{side}" rasterYSize="{side}"><SRS>{crs.to_wkt()}</SRS>'
        f"<GeoTransform>{place}</GeoTransform>"
        f'<VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue>{sources}</VRTRasterBand></VRTDataset>'
    )
    return out
