"""What makes a raster unusable, each told with its cure."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import ProjError

from rssegment import grid
from rssegment.errors import RssegmentError, SceneError
from rssegment.scene.bands import Band
from rssegment.scene.handles import Dataset, is_remote, open_dataset

__all__ = ["check_blocks", "check_dtypes", "check_is_raster", "check_same_grid", "crs_of", "placed"]

MAX_BLOCKS_CHECKED = 4096


def check_is_raster(dataset: Dataset, path: str) -> None:
    """Refuses a container of several rasters, and a raster without a band or a pixel."""
    if dataset.count == 0 and dataset.subdatasets:
        listing = "\n  ".join(dataset.subdatasets)
        raise SceneError(
            f"{path} is a container of {len(dataset.subdatasets)} rasters; give one of them:\n  {listing}"
        )
    if dataset.count == 0 or 0 in dataset.shape:
        raise SceneError(
            f"{path} holds no pixels: {dataset.count} bands of {dataset.height} x {dataset.width} px; "
            "expected a raster with at least one band"
        )


def check_blocks(dataset: Dataset, path: str) -> None:
    """Refuses a local TIFF that ends before its pixels do, as an interrupted copy leaves it.

    Looks at the place of up to ``MAX_BLOCKS_CHECKED`` blocks per band and grid; reads no pixel.
    """
    if dataset.driver != "GTiff" or is_remote(path) or not os.path.isfile(path):
        return
    length = os.path.getsize(path)
    for level in (None, *range(len(dataset.overviews(1)))):
        end = _last_byte(dataset, level)
        if end > length:
            part = "its pixels" if level is None else "its overviews"
            raise SceneError(
                f"{path} is truncated: {part} end at byte {end:,} and the file at byte {length:,}; "
                "copy or make the file again"
            )


def _last_byte(dataset: Dataset, level: int | None) -> int:
    if level is None:
        shape, block = dataset.shape, dataset.block_shapes[0]
    else:
        with open_dataset(dataset.name, overview_level=level) as reduced:
            shape, block = reduced.shape, reduced.block_shapes[0]
    rows, cols = (math.ceil(n / side) for n, side in zip(shape, block, strict=True))
    stride = max(1, rows * cols // MAX_BLOCKS_CHECKED)
    end = 0
    for number in {*range(0, rows * cols, stride), rows * cols - 1}:
        for band in {1, dataset.count}:
            key = f"{number % cols}_{number // cols}"
            start = dataset.get_tag_item(f"BLOCK_OFFSET_{key}", "TIFF", bidx=band, ovr=level)
            size = dataset.get_tag_item(f"BLOCK_SIZE_{key}", "TIFF", bidx=band, ovr=level)
            if start and size:  # a sparse block has neither
                end = max(end, int(start) + int(size))
    return end


def check_dtypes(bands: Sequence[Band], scene: str) -> str:
    """The stored type that all ``bands`` share."""
    kinds: dict[str, list[str]] = {}
    for band in bands:
        kinds.setdefault(band.dtype, []).append(band.name)
    if len(kinds) > 1:
        listing = "; ".join(f"{dtype}: {', '.join(names)}" for dtype, names in kinds.items())
        raise SceneError(
            f"the bands of {scene} are of {len(kinds)} types ({listing}); choose bands of one type"
        )
    dtype = bands[0].dtype
    if not np.issubdtype(np.dtype(dtype), np.integer) and not np.issubdtype(np.dtype(dtype), np.floating):
        raise SceneError(
            f"{scene} holds {dtype} values; expected integers or real numbers "
            "(for radar data make an amplitude raster first, as by gdal_calc.py 'abs(A)')"
        )
    return dtype


def placed(dataset: Dataset, path: str, crs: str | None) -> tuple[GeoBox, tuple[str, ...]]:
    """The grid of ``dataset`` and warnings about it; ``crs`` outranks the file's own.

    Raises
    ------
    SceneError
        The raster isn't georeferenced, or not by an affine transform, or its CRS can't place it on the Earth.
    """
    transform = dataset.transform
    if transform == Affine.identity():
        _refuse_unplaced(dataset, path)
    if not all(map(math.isfinite, transform[:6])) or transform.is_degenerate:
        raise SceneError(
            f"{path} has the transform {tuple(transform[:6])}, in which pixels have no size; mend it first"
        )
    own = CRS.from_wkt(dataset.crs.to_wkt()) if dataset.crs else None
    chosen = _crs(crs) if crs is not None else own
    if chosen is None:
        raise SceneError(f"{path} has no CRS; say which one its coordinates are in, as --crs EPSG:32633")
    geobox = GeoBox(dataset.shape, transform, _named(chosen))
    _check_on_earth(geobox, path)
    if crs is not None and own is not None and own != chosen:
        return geobox, (f"the file's CRS, {_label(own)}, is overridden by {_label(chosen)}",)
    return geobox, ()


def _refuse_unplaced(dataset: Dataset, path: str) -> None:
    for kind, flag, found in (
        ("ground control points", "", dataset.gcps[0]),
        ("RPCs", "-rpc ", dataset.rpcs),
    ):
        if found:
            raise SceneError(
                f"{path} is placed by {kind} only; make its pixels regular on the ground first: "
                f"gdalwarp {flag}-t_srs EPSG:XXXX {path} warped.tif"
            )
    raise SceneError(
        f"{path} is not georeferenced: it has no transform from pixels to coordinates; "
        f"give it one, as by gdal_translate -a_srs EPSG:XXXX -a_ullr LEFT TOP RIGHT BOTTOM {path} placed.tif"
    )


def _crs(crs: str) -> CRS:
    try:
        return CRS.from_user_input(crs)
    except ProjError as error:
        raise SceneError(
            f"crs is {crs!r}, which is no coordinate reference system; expected as 'EPSG:32633'"
        ) from error


def _named(crs: CRS) -> str:
    """The CRS by its EPSG code where that says all, else as WKT."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code is not None and CRS.from_epsg(code) == crs else str(crs.to_wkt())


def crs_of(geobox: GeoBox) -> CRS:
    """The CRS of a placed grid, as pyproj's."""
    assert geobox.crs is not None, "a scene's grid has a CRS: placed() sees to it"
    return CRS.from_wkt(geobox.crs.to_wkt())


def _label(crs: CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def _check_on_earth(geobox: GeoBox, path: str) -> None:
    crs = crs_of(geobox)
    cure = "give the right one by --crs, or for good by gdal_edit.py -a_srs"
    if crs.is_geographic:
        ys = [(geobox.affine * corner)[1] for corner in _corners(geobox)]
        # Global grids with pixels centred on the poles reach half a pixel beyond them.
        slack = max(abs(geobox.affine.d), abs(geobox.affine.e), 1e-6)
        if max(map(abs, ys)) > 90 + slack:
            raise SceneError(
                f"{path} reaches latitudes {min(ys):g} to {max(ys):g} in {crs.name}; expected -90 to 90: "
                f"its CRS is wrong or its axes are swapped; {cure}"
            )
    if not (crs.is_geographic or crs.is_projected):
        raise SceneError(f"{path} has the CRS {crs.name!r}, which isn't a map of the Earth; {cure}")
    try:
        metres = grid.ground_resolution(geobox)
    except (ProjError, RssegmentError) as error:
        raise SceneError(
            f"{path} has the CRS {crs.name!r}, which has no place on the Earth; {cure}"
        ) from error
    if not all(math.isfinite(m) and m > 0 for m in metres):
        raise SceneError(f"the centre of {path} lies outside the area where {crs.name!r} is defined; {cure}")


def _corners(geobox: GeoBox) -> list[tuple[int, int]]:
    rows, cols = geobox.shape
    return [(0, 0), (cols, 0), (0, rows), (cols, rows)]


def check_same_grid(geoboxes: Sequence[GeoBox], paths: Sequence[str]) -> None:
    """Refuses files of one scene that aren't on one pixel grid; says which differs and how."""
    first = geoboxes[0]
    for geobox, path in zip(geoboxes[1:], paths[1:], strict=True):
        fault = _difference(first, geobox)
        if fault:
            raise SceneError(
                f"{path} isn't on the pixel grid of {paths[0]}: {fault}; "
                "resample the files to one grid first, as by gdalwarp -tr … -te … or gdalbuildvrt -separate"
            )


def _difference(first: GeoBox, other: GeoBox) -> str | None:
    if tuple(first.shape) != tuple(other.shape):
        return f"it has {other.shape[0]} x {other.shape[1]} px (rows x cols), not {first.shape[0]} x {first.shape[1]}"
    if first.crs != other.crs:
        return f"its CRS is {_label(crs_of(other))}, not {_label(crs_of(first))}"
    offsets = _offsets(first, other)
    if max(offsets) > 0.01:
        return f"its corners are up to {max(offsets):.3g} px off"
    return None


def _offsets(first: GeoBox, other: GeoBox) -> list[float]:
    inverse: Any = ~first.affine * other.affine
    return [math.dist(corner, inverse * corner) for corner in _corners(first)]
