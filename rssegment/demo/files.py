"""A synthetic landscape as the rasters that a user would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from rssegment.demo.landscape import BANDS, Landscape
from rssegment.errors import OutputError
from rssegment.write.atomic import staged

__all__ = ["write_landscape"]

# Without ALPHA=NO the TIFF driver would call a fourth band beside RGB alpha, and no data would hide in it.
_SCENE = {"photometric": "RGB", "interleave": "pixel", "alpha": "NO"}
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)


def write_landscape(landscape: Landscape, folder: str | Path) -> tuple[Path, Path]:
    """Write ``scene.tif`` (4 bands uint8) and ``truth.tif`` (codes uint16) to ``folder``; 0 is no data in both.

    Raises
    ------
    OutputError
        The folder can't be made or written to.
    """
    folder = Path(folder)
    scene, truth = folder / "scene.tif", folder / "truth.tif"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(scene, landscape.bands, landscape, names=BANDS, colours=_COLOURS, **_SCENE)
        _write(truth, landscape.truth[None], landscape, names=("class",), colours=(ColorInterp.gray,))
    except (OSError, RasterioError) as error:
        raise OutputError(f"can't write the landscape to {folder}: {error}; choose another folder") from error
    return scene, truth


def _write(
    path: Path,
    values: NDArray[np.uint8] | NDArray[np.uint16],
    landscape: Landscape,
    *,
    names: tuple[str, ...],
    colours: tuple[ColorInterp, ...],
    **options: Any,
) -> None:
    """A tiled, compressed GeoTIFF of ``values`` (B, H, W), whole or not at all."""
    count, height, width = values.shape
    options |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with (
        staged(path) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype=values.dtype.name,
            crs=str(landscape.geobox.crs),
            transform=landscape.geobox.affine,
            nodata=0,
            predictor=2,
            **options,
        ) as file,
    ):
        file.colorinterp = colours
        file.descriptions = names
        file.update_tags(TITLE="Synthetic landscape", SEED=str(landscape.seed))
        file.write(values)
