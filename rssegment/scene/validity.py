"""Which pixels have data.

A pixel is valid only if the model can be shown it:

* an explicit mask (inside the file or beside it) and an alpha band say so in every file;
* no chosen band is NaN, infinite or beyond float32 there, declared or not;
* no chosen band holds a nodata value that can't be a measurement (negative, NaN, or an odd number in a raster
  of real numbers, as -9999);
* not **every** chosen band holds a nodata value that real pixels also take: 0 or more in a raster of integers,
  and 0, 255, 65535 in one of real numbers. A roof that saturates red at 255, or deep shadow with 0 in one band,
  is data; the collar round an orthophoto is at that value in all bands. (GDAL's dataset mask and
  ``gdalwarp -srcnodata`` decide alike.) A chosen band without a nodata value always counts as data here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import SceneError
from rssegment.scene.bands import Band

__all__ = ["has_data", "tested_bands", "with_nodata"]

FLOAT32_MAX = float(np.finfo(np.float32).max)
# Text formats cut the digits of the largest float32, which is a common nodata value.
NEARLY_MAX = 3.4028e38

Stored = NDArray[Any]


def with_nodata(
    bands: Sequence[Band], override: float | None, scene: str
) -> tuple[tuple[Band, ...], tuple[str, ...]]:
    """The bands with the nodata value that will be used, and warnings.

    ``override`` outranks the files' values. A file's value that its type can't hold is dropped with a warning.

    Raises
    ------
    SceneError
        No pixel of the scene's type can be ``override``.
    """
    if override is not None:
        for band in bands:
            if not _representable(override, band.dtype):
                raise SceneError(
                    f"nodata is {override:g}, but {band.name} of {scene} holds {_range(band.dtype)}"
                )
        return tuple(replace(band, nodata=override) for band in bands), ()
    kept, warnings = [], []
    for band in bands:
        held = band.nodata is None or _representable(band.nodata, band.dtype)
        kept.append(band if held else replace(band, nodata=None))
        if not held:
            holds = f"{band.dtype} holds {_range(band.dtype)}"
            warnings.append(f"the file's nodata value {band.nodata:g} is ignored: {holds}")
    return tuple(kept), tuple(dict.fromkeys(warnings))


def _is_float(dtype: str) -> bool:
    return np.issubdtype(np.dtype(dtype), np.floating)


def _representable(value: float, dtype: str) -> bool:
    if _is_float(dtype):
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _range(dtype: str) -> str:
    if _is_float(dtype):
        return "real numbers"
    limits = np.iinfo(dtype)
    return f"integers from {limits.min} to {limits.max}"


def _shared(band: Band) -> bool:
    """Whether the band's nodata value is one that real pixels take too."""
    if band.nodata is None:
        return False
    return band.nodata in (0.0, 255.0, 65535.0) if _is_float(band.dtype) else band.nodata >= 0


def _alone(band: Band) -> bool:
    """Whether one look at this band alone can make a pixel invalid."""
    return _is_float(band.dtype) or (band.nodata is not None and not _shared(band))


def tested_bands(bands: Sequence[Band]) -> tuple[Band, ...]:
    """The bands whose pixels must be looked at to know which are valid; none if every pixel is."""
    if all(map(_shared, bands)):
        return tuple(bands)
    return tuple(band for band in bands if _alone(band))


def has_data(
    stored: Sequence[Stored], bands: Sequence[Band], chosen: Sequence[Band]
) -> NDArray[np.bool_] | None:
    """Which pixels have data by their stored values, or None where the values can't tell that any has none.

    ``stored[k]`` are the values ``(H, W)`` of ``bands[k]``, which are all chosen bands or the tested ones of them.
    """
    invalid: NDArray[np.bool_] | None = None
    everywhere: NDArray[np.bool_] | None = None
    every = all(map(_shared, chosen))
    for values, band in zip(stored, bands, strict=True):
        if every:
            hit = _is_nodata(values, band)
            everywhere = hit if everywhere is None else np.logical_and(everywhere, hit, out=everywhere)
        if _alone(band):
            bad = _unusable(values, band)
            invalid = bad if invalid is None else np.logical_or(invalid, bad, out=invalid)
    if everywhere is not None:
        invalid = everywhere if invalid is None else np.logical_or(invalid, everywhere, out=invalid)
    return None if invalid is None else np.logical_not(invalid, out=invalid)


def _is_nodata(values: Stored, band: Band) -> NDArray[np.bool_]:
    nodata = band.nodata
    if nodata is None or math.isnan(nodata):
        return np.zeros(values.shape, dtype=np.bool_)  # NaN is never equal; _unusable finds it
    if _is_float(band.dtype) and abs(nodata) >= NEARLY_MAX:
        return np.asarray(values >= NEARLY_MAX if nodata > 0 else values <= -NEARLY_MAX)
    # Compared as stored: -9999.1 in a float32 raster is the float32 nearest to it. Integers in float32 are exact.
    return np.asarray(
        values == (np.float32(nodata) if values.dtype == np.float32 else values.dtype.type(nodata))
    )


def _unusable(values: Stored, band: Band) -> NDArray[np.bool_]:
    bad = np.zeros(values.shape, dtype=np.bool_) if _shared(band) else _is_nodata(values, band)
    if _is_float(band.dtype):
        if values.dtype == np.float64:
            bad |= ~(np.abs(values) <= FLOAT32_MAX)  # NaN compares false
        else:
            bad |= ~np.isfinite(values)
    return bad
