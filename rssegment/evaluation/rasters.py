"""Scores of one label raster against another, read block by block."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rssegment.errors import InputError, ReadError, SceneError
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.report import Scores
from rssegment.grid import BlockGrid, Box
from rssegment.taxonomy import Taxonomy

__all__ = ["evaluate"]

_GRID_TOLERANCE = 0.01  # pixels: rounded coordinates in a file's header move no pixel by more


def evaluate(
    prediction: str | Path,
    reference: str | Path,
    taxonomy: Taxonomy | str | Path,
    ignore: Collection[int] = (),
    block: int = 2048,
) -> Scores:
    """Scores of the label raster ``prediction`` against ``reference``, both of codes of ``taxonomy`` at any level.

    The rasters lie on one grid. A reference pixel of 0, of the file's nodata value or of a value in ``ignore`` is
    left out; a prediction without data where the reference has a label is a miss. ``block`` (px) is the side
    of what is read at a time and never changes the result.

    Raises
    ------
    InputError
        A raster can't be used, the grids differ, or a value is no code of the taxonomy.
    ReadError
        Pixels could not be read.
    """
    tree = taxonomy if isinstance(taxonomy, Taxonomy) else Taxonomy.load(taxonomy)
    total = Confusion.empty(tree)
    with _opened(prediction, "prediction") as predicted, _opened(reference, "reference") as true:
        _check_grids(predicted, true)
        for part in BlockGrid(true.shape, block):
            labels = _read(true, part.core, "reference")
            total += Confusion.of(_read(predicted, part.core, "prediction"), labels, tree, ignore)
    return Scores.of(total)


@contextmanager
def _opened(path: str | Path, what: str) -> Iterator[Any]:
    """The raster's dataset, once it is known to hold class codes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # two plain images may be compared
        try:
            dataset = rasterio.open(path)
        except (RasterioError, OSError) as error:
            raise SceneError(f"can't open the {what} {path}: {error}") from error
    with dataset:
        dtype = np.dtype(dataset.dtypes[0]) if dataset.count else None
        if dataset.count != 1 or dtype is None or dtype.kind not in "ui":
            raise InputError(
                f"the {what} {path} has {dataset.count} band(s) of type {dtype}; "
                "expected a label raster, one band of class codes (whole numbers)"
            )
        yield dataset


def _check_grids(predicted: Any, true: Any) -> None:
    """Refuses rasters whose pixels don't cover the same ground one by one."""
    faults = []
    if predicted.shape != true.shape:
        faults.append(f"sizes {_size(predicted)} and {_size(true)}")
    if predicted.crs != true.crs:
        faults.append(f"CRS {_crs(predicted)} and {_crs(true)}")
    elif (offset := _offset(predicted, true)) > _GRID_TOLERANCE:
        faults.append(f"pixels up to {offset:.3g} px apart")
    if faults:
        raise InputError(
            f"prediction {predicted.name} and reference {true.name} are not on one grid: {'; '.join(faults)}. "
            "Warp one onto the other's grid first, with nearest neighbour (gdalwarp -t_srs, -te, -ts, -r near)"
        )


def _offset(predicted: Any, true: Any) -> float:
    """Largest distance (px of the reference) between the places of a corner pixel in the two rasters."""
    rows, cols = true.shape
    to_pixels = ~true.transform * predicted.transform
    corners = [(0, 0), (cols, 0), (0, rows), (cols, rows)]
    return float(max(np.hypot(*np.subtract(to_pixels * corner, corner)) for corner in corners))


def _size(dataset: Any) -> str:
    return f"{dataset.height} x {dataset.width}"


def _crs(dataset: Any) -> str:
    return dataset.crs.to_string() if dataset.crs else "none"


def _read(dataset: Any, core: Box, what: str) -> NDArray[np.integer[Any]]:
    """Codes (H, W) of a block, 0 where the file says no data."""
    window = Window(core.col, core.row, core.width, core.height)
    try:
        labels: NDArray[np.integer[Any]] = dataset.read(1, window=window, masked=True).filled(0)
    except (RasterioError, OSError) as error:
        raise ReadError(
            f"can't read rows {core.row} to {core.stop_row}, columns {core.col} to {core.stop_col} "
            f"of the {what} {dataset.name}: {error.__cause__ or error}"
        ) from error
    return labels
