"""What a scene is, and what would go wrong with it, for people and for JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pyproj import CRS, Transformer

from rssegment.scene.bands import Band
from rssegment.scene.checks import crs_of
from rssegment.scene.validity import tested_bands

if TYPE_CHECKING:
    from rssegment.scene.scene import Scene

__all__ = ["describe", "lonlat_bounds"]

LARGE = 50_000_000  # pixels from which the lack of overviews is felt
EXACT_IN_FLOAT32 = 1 << 24


def describe(scene: Scene) -> dict[str, Any]:
    """Size, bands, type, CRS, validity, overviews, place and warnings; every value fits JSON."""
    crs = crs_of(scene.geobox)
    authority = crs.to_authority()
    down, across = scene.ground_resolution
    return {
        "name": scene.name,
        "files": [source.path for source in scene.sources],
        "driver": sorted({source.driver for source in scene.sources}),
        "shape": list(scene.shape),
        "megapixels": round(scene.shape[0] * scene.shape[1] / 1e6, 3),
        "bands": [_band(band) for band in scene.bands],
        "dtype": scene.dtype,
        "scaled": scene.scaled,
        "crs": ":".join(authority) if authority else crs.name,
        "transform": list(scene.geobox.affine[:6]),
        "ground_resolution": [down, across],
        "validity": _validity(scene),
        "overviews": [list(shape) for shape in scene.sources[0].overviews],
        "bounds_lonlat": lonlat_bounds(scene),
        "warnings": [*scene.warnings, *_about_classes(scene), *_remarks(scene)],
    }


def _band(band: Band) -> dict[str, Any]:
    return {
        "name": band.name,
        "index": band.index,
        "dtype": band.dtype,
        "nodata": None
        if band.nodata is None
        else band.nodata
        if np.isfinite(band.nodata)
        else str(band.nodata),
        "scale": band.scale,
        "offset": band.offset,
        "description": band.description,
        "color": band.color,
    }


def _validity(scene: Scene) -> list[str]:
    """What makes a pixel invalid, in words."""
    told = []
    if any(source.mask != "none" for source in scene.sources):
        told.append("mask")
    if any(source.alpha is not None for source in scene.sources):
        told.append("alpha band")
    if any(source.palette and (source.colors[:, 3] == 0).any() for source in scene.sources):
        told.append("transparent colours")
    nodata = dict.fromkeys(f"{band.nodata:g}" for band in scene.bands if band.nodata is not None)
    told += [f"nodata {value}" for value in nodata]
    if any(np.issubdtype(np.dtype(band.dtype), np.floating) for band in tested_bands(scene.bands)):
        told.append("NaN and infinity")
    return told


def _about_classes(scene: Scene) -> list[str]:
    """Remarks on a raster whose values are classes, or the places of colours in a table."""
    expanded = any(source.palette for source in scene.sources)
    if not expanded and not _says_classes(scene):
        return []
    remarks = ["this looks like a class map; see rssegment vectorize"]
    if expanded:
        remarks.insert(
            0, "its colour table is expanded: the bands are the red, green and blue of its colours"
        )
    return remarks


def _says_classes(scene: Scene) -> bool:
    """Whether a raster of one band of whole numbers names its values, or calls itself classes."""
    band = scene.bands[0]
    if len(scene.bands) > 1 or not np.issubdtype(np.dtype(band.dtype), np.integer):
        return False
    if band.description.strip().lower() in ("class", "classes"):
        return True
    try:  # GDAL keeps the names in this file beside the raster; rasterio doesn't show them
        return b"<CategoryNames>" in Path(f"{band.source}.aux.xml").read_bytes()
    except OSError:
        return False


def _remarks(scene: Scene) -> list[str]:
    remarks = []
    down, across = scene.ground_resolution
    if max(down, across) > 1.05 * min(down, across):
        remarks.append(f"pixels aren't square on the ground: {down:.4g} m down, {across:.4g} m across")
    stored = np.dtype(scene.dtype)
    if stored.itemsize > 2 and scene.dtype != "float32":
        remarks.append(
            f"{scene.dtype} values are read as float32: exact up to {EXACT_IN_FLOAT32:,}, else 7 digits"
        )
    rows, cols = scene.native.shape
    if rows * cols >= LARGE and not scene.sources[0].overviews:
        remarks.append("no overviews: resampling to coarser pixels reads every pixel; gdaladdo makes them")
    return remarks


def lonlat_bounds(scene: Scene) -> list[float] | None:
    """``[west, south, east, north]`` in degrees (WGS 84); west > east where the scene crosses the antimeridian.

    None if no part of the scene can be placed (the space around a full-disc image has no place).
    """
    rows, cols = (np.linspace(0, n, 33) for n in scene.shape)
    col, row = np.meshgrid(cols, rows)
    a, b, c, d, e, f = scene.geobox.affine[:6]
    x, y = a * col.ravel() + b * row.ravel() + c, d * col.ravel() + e * row.ravel() + f
    crs = crs_of(scene.geobox)
    lon, lat = Transformer.from_crs(crs, CRS.from_epsg(4326), always_xy=True).transform(x, y)
    found = np.isfinite(lon) & np.isfinite(lat)
    if not found.any():
        return None
    lon, lat = lon[found], np.clip(lat[found], -90, 90)
    # Longitudes counted from one of them, so that those on both sides of the antimeridian are neighbours.
    if not crs.is_geographic:
        middle = lon[len(lon) // 2]
        away = lon - middle
        lon = middle + np.where(np.abs(away) > 180, (away + 180) % 360 - 180, away)
    west, east = float(lon.min()), float(lon.max())
    if east - west >= 360:
        west, east = -180.0, 180.0
    else:
        west, east = (w if -180 <= w <= 180 else (w + 180) % 360 - 180 for w in (west, east))
    return [west, float(lat.min()), east, float(lat.max())]
