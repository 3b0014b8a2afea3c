"""How the pixels of a label raster lie to those of a grid: on them, turned round, a turn of the Earth on, or apart."""

from __future__ import annotations

import math
from typing import NamedTuple

from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.reference.footprint import crs_of, other_crs, turn_of, windows_of
from rssegment.reference.label_files import LabelFile

__all__ = ["aligned", "check_crs", "distance_of", "meeting"]

_GRID_TOLERANCE = 0.01  # px: rounded coordinates in a file's header move no pixel by more
_TURNS = (0, 1, -1, 2, -2)


def check_crs(geobox: GeoBox, file: LabelFile) -> None:
    """Refuses pairs of which one has no CRS: nobody knows where it lies."""
    one, other = crs_of(geobox), crs_of(file.geobox)
    if (one is None) == (other is None):
        return
    bare, its = ("reference", "prediction") if other is None else ("prediction", "reference")
    named = f"the reference {file.path}" if other is None else "the prediction"
    raise InputError(
        f"{named} has no CRS, and the {its} has {_crs_name(one or other)}; give the {bare} its own, as by "
        "gdal_translate -a_srs EPSG:XXXX"
    )


def aligned(geobox: GeoBox, file: LabelFile) -> tuple[str, list[tuple[int, int]]]:
    """Where the grid's first pixel lies in the file (row, col), or nothing and what keeps pixels from falling together.

    In degrees it may lie in it twice, a turn round the Earth apart, and pixels fall together in one place only: then
    both are told. Where it lies outside of it, that place.
    """
    one, other = crs_of(geobox), crs_of(file.geobox)
    rows, cols = geobox.shape
    if other_crs(one, other):
        return f"CRS {_crs_name(one)} and {_crs_name(other)}", []
    if (
        one is None
        and geobox.affine.is_identity
        and file.geobox.affine.is_identity
        and geobox.shape != file.shape
    ):
        return (
            f"sizes {rows} x {cols} and {file.shape[0]} x {file.shape[1]}, and neither is georeferenced",
            [],
        )
    turn = turn_of(one)
    tried = [_placed(geobox, file, k * turn if turn else 0.0) for k in (_TURNS if turn else (0,))]
    met = [each for each in tried if each.meets]
    chosen = met or tried[:1]
    fault = next((each.fault for each in chosen if each.fault), "")
    return fault, [each.offset for each in chosen if not each.fault]


class _Place(NamedTuple):
    """Where the grid's first pixel lies in a file, whether they overlap, and what keeps pixels apart."""

    offset: tuple[int, int]
    meets: bool
    fault: str


def _placed(geobox: GeoBox, file: LabelFile, shift: float) -> _Place:
    """With the grid shifted by so many units to the east."""
    rows, cols = geobox.shape
    between = ~file.geobox.affine * Affine.translation(shift, 0) * geobox.affine
    # how far the corners of the part that both have are from whole pixels
    col, row = round(between.c), round(between.f)
    part = Box(row, col, rows, cols).clip(Box.of(file.shape)).shift(-row, -col)
    spots = [(part.col, part.row), (part.stop_col, part.stop_row)] if part.size else [(0, 0), (cols, rows)]
    apart = max(math.dist(between * spot, (spot[0] + col, spot[1] + row)) for spot in (*spots, (0, 0)))
    if apart <= _GRID_TOLERANCE:
        return _Place((row, col), bool(part.size), "")
    least = 1 if shift else 0  # grids round the Earth may lap by less
    ends = [between * spot for spot in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    meets = all(
        min(end[axis] for end in ends) < size - least and max(end[axis] for end in ends) > least
        for axis, size in ((0, file.shape[1]), (1, file.shape[0]))
    )
    return _Place((row, col), meets, _turned_round(between, geobox) or f"pixels up to {apart:.3g} px apart")


def _turned_round(between: Affine, geobox: GeoBox) -> str:
    """Words for a file whose rows or columns run the other way; empty where that isn't it."""
    rows, cols = geobox.shape
    ways = round(between.a), round(between.e)
    if (abs(ways[0]), abs(ways[1])) != (1, 1) or ways == (1, 1):
        return ""
    centre = between * (0.5, 0.5)
    col, row = (round(place - 0.5) + 0.5 for place in centre)
    last = between * (cols - 0.5, rows - 0.5)
    apart = max(
        math.dist(centre, (col, row)),
        math.dist(last, (col + ways[0] * (cols - 1), row + ways[1] * (rows - 1))),
    )
    if apart > 1:
        return ""
    what = " and ".join(name for name, way in (("columns", ways[0]), ("rows", ways[1])) if way < 0)
    same = "over the same pixels" if apart <= _GRID_TOLERANCE else f"and its pixels lie {apart:.3g} px apart"
    return f"the reference's {what} run the other way, {same}"


def meeting(geobox: GeoBox, file: LabelFile) -> Box:
    """The part of the file that boxes round the grid overlap; all of it where that can't be told."""
    rows, cols = file.shape
    windows = windows_of(geobox, crs_of(file.geobox))
    if not windows:
        return Box(0, 0, rows, cols)
    inverse, found = ~file.geobox.affine, []
    for west, south, east, north in (window.near for window in windows):
        x, y = zip(
            *(inverse * spot for spot in ((west, south), (west, north), (east, south), (east, north))),
            strict=True,
        )
        (left, right), (top, bottom) = ((min(v), max(v)) for v in (x, y))
        corners = max(0, top), max(0, left), min(rows, bottom), min(cols, right)
        if corners[0] < corners[2] and corners[1] < corners[3]:
            found.append(
                (math.floor(corners[0]), math.floor(corners[1]), math.ceil(corners[2]), math.ceil(corners[3]))
            )
    if not found:
        return Box(0, 0, 0, 0)
    first, left, last, right = zip(*found, strict=True)
    return Box.between(min(first), min(left), max(last), max(right))


def _crs_name(crs: CRS | None) -> str:
    if crs is None:
        return "none"
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)


def distance_of(geobox: GeoBox, file: LabelFile, offset: tuple[int, int]) -> str:
    """Where the file lies, seen from the grid, in pixels."""
    rows, cols = geobox.shape
    words = []
    for start, size, own, names in (
        (-offset[0], file.shape[0], rows, ("rows above", "rows below")),
        (-offset[1], file.shape[1], cols, ("columns to the left", "columns to the right")),
    ):
        if start + size <= 0:
            words.append(f"{-(start + size)} {names[0]}")
        elif start >= own:
            words.append(f"{start - own} {names[1]}")
    return " and ".join(words)
