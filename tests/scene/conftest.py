"""Small rasters of every kind, written on demand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

UTM = Affine(10, 0, 500_000, 0, -10, 5_000_000)
MakeRaster = Callable[..., str]


def write_raster(path: Path, array: Any, **options: Any) -> str:
    """Writes ``array`` (C, H, W) or (H, W) to ``path``; ``options`` are GDAL's and those popped here."""
    array = np.asarray(array)
    array = array[None] if array.ndim == 2 else array
    mask, overviews = options.pop("mask", None), options.pop("overviews", ())
    colors, names = options.pop("colors", None), options.pop("names", None)
    scales, offsets = options.pop("scales", None), options.pop("offsets", None)
    colormap, method = options.pop("colormap", None), options.pop("method", "average")
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": UTM, "tiled": False, **options}
    if array.shape[0] == 4 and "alpha" not in (colors or ()):
        profile |= {"photometric": "RGB", "alpha": "NO"}
    count, height, width = array.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=options.pop("internal_mask", True)),
        rasterio.open(
            path, "w", count=count, height=height, width=width, dtype=array.dtype, **profile
        ) as file,
    ):
        file.write(array)
        if colormap:
            file.write_colormap(1, colormap)
        if colors:
            file.colorinterp = [ColorInterp[color] for color in colors]
        for index, name in enumerate(names or (), start=1):
            file.set_band_description(index, name)
        if scales:
            file.scales = scales
        if offsets:
            file.offsets = offsets
        if mask is not None:
            file.write_mask(mask)
        if overviews:
            file.build_overviews(overviews, rasterio.enums.Resampling[method])
    return str(path)


@pytest.fixture
def raster(tmp_path: Path) -> MakeRaster:
    """A function that writes an array to a new file and gives its path."""
    count = iter(range(1000))

    def make(array: Any, name: str = "", **options: Any) -> str:
        return write_raster(tmp_path / (name or f"raster_{next(count)}.tif"), array, **options)

    return make


@pytest.fixture
def bytes_3() -> np.ndarray:
    """Three bands of uint8, 40 x 50, without 0 and 255."""
    return np.random.default_rng(1).integers(1, 255, (3, 40, 50)).astype(np.uint8)
