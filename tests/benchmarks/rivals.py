"""Other ways from an array of labels to shapely polygons: GDAL's always, others where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import rasterio.features
import shapely
import shapely.geometry
from numpy.typing import NDArray

__all__ = ["GDAL", "rivals"]

GDAL = "rasterio.features.shapes"
Polygons = NDArray[np.object_]


def rivals() -> dict[str, Callable[[NDArray[Any]], Polygons]]:
    """By name; says which are left out."""
    found: dict[str, Callable[[NDArray[Any]], Polygons]] = {GDAL: _gdal}
    for name, module, work in (
        ("xarray-spatial", "xrspatial", _xarray_spatial),
        ("contourrs", "contourrs", _contourrs),
    ):
        if find_spec(module) is None:
            print(f"{name} is not installed here: left out")
        else:
            found[name] = work
    return found


def _gdal(labels: NDArray[Any]) -> Polygons:
    shapes = rasterio.features.shapes(labels, mask=labels != 0)
    return np.array([shapely.geometry.shape(geometry) for geometry, _ in shapes], np.object_)


def _xarray_spatial(labels: NDArray[Any]) -> Polygons:
    import xarray
    from xrspatial.polygonize import polygonize

    _, rings = polygonize(xarray.DataArray(labels), mask=xarray.DataArray(labels != 0))
    return np.array([shapely.Polygon(each[0], each[1:]) for each in rings], np.object_)


def _contourrs(labels: NDArray[Any]) -> Polygons:
    import contourrs

    table = contourrs.shapes_arrow(labels, mask=labels != 0)
    geometries: Polygons = shapely.from_wkb(np.array(table["geometry"].to_pylist(), np.object_))
    return geometries
