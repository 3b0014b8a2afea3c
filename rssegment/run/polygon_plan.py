"""What the options of polygons come to on one raster: partitions, limits, tolerances, and what can't be had."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rssegment.config import Area, Length, PolygonOptions
from rssegment.errors import SettingsError, TaxonomyError
from rssegment.grid import BlockGrid, Box, ground_resolution
from rssegment.run.traces import ClassTree, LevelCodes, Traces
from rssegment.taxonomy import Taxonomy
from rssegment.vector import Simplification
from rssegment.vector.adjacency import Limits
from rssegment.vector.ground import pixel_area
from rssegment.vector.simplify import MAX_TOLERANCE
from rssegment.vector.squaring import Squaring

__all__ = ["check_polygons", "limits_of", "traces_of"]


def traces_of(
    folder: Path,
    grid: BlockGrid,
    geobox: GeoBox,
    classes: ClassTree,
    options: PolygonOptions,
    *,
    raw: bool,
    values: NDArray[np.int64] | None = None,
) -> Traces:
    """The pieces that ``options`` ask for; ``raw`` are those that are to be cleaned first.

    ``values`` (n,): the class of each label where they differ.

    Raises
    ------
    SettingsError
        Levels, a tolerance or classes that can't be had.
    """
    lookup = getattr(classes, "ancestor_lookup", None)
    depth = max(node.level for node in classes.nodes)
    codes, how = level_codes(options, depth, lookup), simplification(options, geobox)
    if raw:
        return Traces.of(folder / "raw", grid, [(None, None)], options.connectivity)
    square = squaring(options, geobox, classes, values)
    if square is not None:
        how = how or Simplification(0.0)
    traces = Traces.of(folder / "trace", grid, codes, options.connectivity)
    return replace(traces, how=how, squaring=square)


def level_codes(
    options: PolygonOptions, depth: int, lookup: Callable[[int], NDArray[np.uint16]] | None
) -> LevelCodes:
    """What the levels asked for make of each label; ``depth`` levels there are, and ``lookup`` gives one's table.

    Raises
    ------
    SettingsError
        A level that the taxonomy does not have, or levels without a taxonomy.
    """
    if options.levels is None:
        return [(None, None)]
    if lookup is None:
        raise SettingsError("levels need a taxonomy: the labels alone have no tree; name one by --taxonomy")
    wanted = tuple(range(1, depth + 1)) if options.levels == "all" else options.levels
    if wanted[-1] > depth:
        raise SettingsError(f"level {wanted[-1]} was asked for; the taxonomy has levels 1 to {depth}")
    return [(level, None if level == depth else lookup(level)) for level in wanted]


def check_polygons(geobox: GeoBox, classes: ClassTree, options: PolygonOptions) -> None:
    """Refuses what can't be had, before anything is done.

    Raises
    ------
    SettingsError
        Levels without a taxonomy or beyond it; metres on a grid without CRS.
    """
    traces = traces_of(Path(), BlockGrid((1, 1), 1), geobox, classes, options, raw=False)
    if traces.squaring is not None:
        traces.squaring.check_range(Box.of((int(geobox.shape[0]), int(geobox.shape[1]))))
    limits_of(options, geobox)
    if geobox.crs is not None and geobox.crs.geographic and _turns(geobox) > 1 + 1e-6:
        raise SettingsError(
            f"the raster goes round the Earth {_turns(geobox):.3g} times, so its regions would have more than the "
            "Earth has; cut it first, as by gdalwarp -te"
        )


def _turns(geobox: GeoBox) -> float:
    """How often a geographic grid goes round the Earth, along its rows or columns."""
    unit = CRS.from_user_input(str(geobox.crs)).axis_info[0].unit_conversion_factor
    rows, cols = geobox.shape
    across = max(abs(geobox.affine.a) * cols, abs(geobox.affine.b) * rows)
    return float(across * unit / math.tau)


def limits_of(options: PolygonOptions, geobox: GeoBox) -> Limits:
    """The least areas.

    Raises
    ------
    SettingsError
        Square metres on a grid without CRS.
    """
    region, hole = options.min_area or Area(0.0, "px"), options.fill_holes or Area(0.0, "px")
    metric = [each.value for each in (region, hole) if each.unit == "m2" and each.value > 0]
    if metric and geobox.crs is None:
        raise SettingsError(
            f"an area of {metric[0]:g} m² needs a CRS of the Earth, which the raster lacks; give it in pixels, as 20px"
        )
    crs, affine = str(geobox.crs), geobox.affine
    return Limits(
        region.value,
        hole.value,
        (lambda rows, cols: pixel_area(affine, crs, rows, cols)) if metric else None,
        region.unit == "px",
        hole.unit == "px",
    )


def simplification(options: PolygonOptions, geobox: GeoBox) -> Simplification | None:
    """The simplification in pixels of the grid; None if chains stay as they are.

    Raises
    ------
    SettingsError
        A tolerance in metres on a grid without CRS.
    """
    tolerance = 0.0 if options.simplify is None else _pixels(options.simplify, geobox)
    if options.simplify is not None and not tolerance <= MAX_TOLERANCE:
        raise SettingsError(
            f"simplify is {options.simplify.value:g} {options.simplify.unit}, {tolerance:.4g} px on this raster; "
            f"expected at most {MAX_TOLERANCE} px"
        )
    if tolerance == 0 and options.smooth == 0:
        return None
    return Simplification(tolerance, options.method, options.smooth)


def squaring(
    options: PolygonOptions, geobox: GeoBox, classes: ClassTree, values: NDArray[np.int64] | None
) -> Squaring | None:
    """Which labels have outlines to be squared, and how far they may move; None if none are.

    Raises
    ------
    SettingsError
        There is no such class, or the limit is out of its range or in metres on a grid without CRS.
    """
    if options.square is None:
        return None
    codes = sorted({code for key in options.square for code in _codes_of(key, classes)})
    if values is not None:  # 0 is no data, whatever the class of that number
        codes = (1 + np.flatnonzero(np.isin(values[1:], codes))).tolist()
    return Squaring(tuple(codes), _pixels(options.square_limit, geobox))


def _codes_of(key: int | str, classes: ClassTree) -> list[int]:
    """The codes that a class stands for: its own, and those of all under it."""
    if isinstance(classes, Taxonomy):
        try:
            path = classes.node(key).path
        except TaxonomyError as error:
            raise SettingsError(f"square names {key!r}: {error}") from error
        return [node.code for node in classes.nodes if node.path[: len(path)] == path]
    if isinstance(key, int):  # one that isn't there has no outlines
        return [key]
    codes = [node.code for node in classes.nodes if node.name == key]
    if not codes:
        raise SettingsError(
            f"square names {key!r}, which is no class of the raster; give its code, or the classes by --taxonomy"
        )
    return codes


def _pixels(length: Length, geobox: GeoBox) -> float:
    if length.unit == "px":
        return length.value
    if geobox.crs is None:
        raise SettingsError(
            f"a length of {length.value:g} m needs a CRS of the Earth, which the raster lacks; "
            "give it in pixels, as 1.5px"
        )
    return length.value / math.sqrt(math.prod(ground_resolution(geobox)))
