"""Where a pixel grid lies in another CRS: the boxes that hold it, with longitudes of any turn round the Earth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Transformer

__all__ = ["Bounds", "Window", "crs_of", "other_crs", "same_kind", "turn_of", "windows_of"]

Bounds = tuple[float, float, float, float]  # in a CRS: least x, least y, greatest x, greatest y

_BORDER, _INNER = 128, 32  # places that are looked at along a side, and each way within
_NEAR = 0.01  # of the footprint's extent: what lies between those places may bulge by less
_REACH = 100e3  # m beyond the grid that features keep of themselves, or its extent where that is less
_LEAST = 0.05  # of the footprint's extent, where that is more
_PLAIN_REACH = 1e6  # times the extent, where nothing is transformed
_TURNS = (0, 1, -1, 2, -2)
_CLOSED = 20 / 360  # of a turn: a narrower gap between longitudes is none
_SEAM = 3e-12  # of a turn, a tenth of a millimetre: on the seam itself a place is at either end of the map
_DEGREE = 111_320.0  # m on the equator

Float = NDArray[np.float64]


class Window(NamedTuple):
    """A box in a layer's CRS: ``near`` holds what the grid covers, ``wide`` what is of use of features that touch it.

    ``shift`` brings its longitudes to the turn in which they are transformed.
    """

    near: Bounds
    wide: Bounds
    shift: float


def crs_of(geobox: GeoBox) -> CRS | None:
    """The CRS of a grid as pyproj's; None if it has none."""
    return None if geobox.crs is None else CRS.from_wkt(geobox.crs.to_wkt())


def other_crs(one: CRS | None, other: CRS | None) -> bool:
    """Whether coordinates of the one have to be transformed for the other."""
    return one is not None and other is not None and not one.equals(other, ignore_axis_order=True)


def turn_of(crs: CRS | None) -> float | None:
    """A turn round the Earth in the units of a geographic CRS, as 360 degrees; None for other CRSs."""
    if crs is None or not crs.is_geographic:
        return None
    return round(2 * math.pi / float(crs.axis_info[0].unit_conversion_factor or math.radians(1)), 9)


def same_kind(one: CRS | None, other: CRS | None) -> bool:
    """Whether both are geographic with one pair of poles, so that longitudes of one place are much the same."""
    return all(crs is not None and crs.is_geographic and not crs.is_derived for crs in (one, other))


def windows_of(geobox: GeoBox, crs: CRS | None) -> tuple[Window, ...]:
    """The boxes in ``crs`` that together hold the grid, the likeliest first; none where it has no place there.

    A geographic CRS has them for each turn of longitude, and cut where the grid's own projection has its seam: so
    features in any of them can be transformed without being torn.
    """
    own = crs_of(geobox)
    spots = _spots(geobox)
    places = spots
    if other_crs(own, crs):
        places = np.column_stack(Transformer.from_crs(own, crs, always_xy=True).transform(*spots.T))
    known = np.isfinite(places).all(axis=1)
    if not known.any():
        return ()
    spots, places = spots[known], places[known]
    turn = turn_of(crs)
    if turn is None:
        return tuple(_plain(places, own, crs))
    return tuple(_turned(spots, places, geobox, crs))


def _spots(geobox: GeoBox) -> Float:
    """World coordinates (n, 2) of places all over the grid, its corners and border among them."""
    rows, cols = geobox.shape
    along, within = np.linspace(0, 1, _BORDER + 1), np.linspace(0, 1, _INNER + 1)
    zeros, ones = np.zeros_like(along), np.ones_like(along)
    u = np.concatenate([along, along, zeros, ones, np.repeat(within, len(within))]) * cols
    v = np.concatenate([zeros, ones, along, along, np.tile(within, len(within))]) * rows
    a, b, c, d, e, f = geobox.affine[:6]
    return np.column_stack([a * u + b * v + c, d * u + e * v + f])


def _plain(places: Float, own: CRS | None, crs: CRS | None) -> Iterator[Window]:
    """In projected coordinates: one box, or two where the grid lies over the CRS's seam."""
    low, high = float(places[:, 1].min()), float(places[:, 1].max())
    for west, east in _ranges(np.sort(places[:, 0])):
        span = max(east - west, high - low)
        near, reach = _NEAR * span, _reach(span, own, crs)
        yield Window(_grown((west, low, east, high), near), _grown((west, low, east, high), reach), 0.0)


def _ranges(x: Float) -> list[tuple[float, float]]:
    """From least to greatest of sorted values, in two where they leave more than half of that between them."""
    gaps = np.diff(x)
    widest = int(gaps.argmax())
    if gaps[widest] <= (x[-1] - x[0]) / 2:
        return [(float(x[0]), float(x[-1]))]
    return [(float(x[0]), float(x[widest])), (float(x[widest + 1]), float(x[-1]))]


def _turned(spots: Float, places: Float, geobox: GeoBox, crs: CRS | None) -> Iterator[Window]:
    """In longitudes and latitudes."""
    own, turn = crs_of(geobox), turn_of(crs)
    assert turn is not None, "projected coordinates have no turns"
    moved, middle = other_crs(own, crs), None
    low, high = float(places[:, 1].min()), float(places[:, 1].max())
    if same_kind(own, crs) or not moved:
        beside = spots[:, 0] * (turn / (turn_of(own) or turn))
        x = places[:, 0] + turn * np.round((beside - places[:, 0]) / turn)
        west, east = float(x.min()), float(x.max())
    else:
        middle = _middle(own, crs, turn)
        poles = [sign * turn / 4 for sign in (-1, 1) if _holds(geobox, own, crs, sign * turn / 4)]
        low, high = min([low, *poles]), max([high, *poles])
        west, east = _arc(places[:, 0], turn, middle)
        if poles:
            west, east = (middle or 0.0) - turn / 2, (middle or 0.0) + turn / 2
    span = max(east - west, high - low)
    room = max(0.0, (turn - (east - west)) / 2)  # more would be the same ground twice
    near, reach = _NEAR * span, _reach(span, own, crs)
    south, north = (low - near, low - reach), (high + near, high + reach)
    if moved:
        south = (max(south[0], -turn / 4), max(south[1], -turn / 4))
        north = (min(north[0], turn / 4), min(north[1], turn / 4))
    inner, outer = (
        (west - min(near, room), east + min(near, room)),
        (west - min(reach, room), east + min(reach, room)),
    )
    pieces = list(_pieces(inner, outer, middle, turn))
    for k in _TURNS:
        for (w, e), (wider_w, wider_e), shift in pieces:
            yield Window(
                (w + k * turn, south[0], e + k * turn, north[0]),
                (wider_w + k * turn, south[1], wider_e + k * turn, north[1]),
                shift - k * turn,
            )


def _pieces(
    inner: tuple[float, float], outer: tuple[float, float], middle: float | None, turn: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float], float]]:
    """A range of longitudes cut half a turn from ``middle``: near, wide, and what brings it to within that of it."""
    if middle is None:
        yield inner, outer, 0.0
        return
    first = math.floor((outer[0] - middle) / turn + 0.5)
    for m in range(first, math.ceil((outer[1] - middle) / turn + 0.5)):
        start, stop = middle + (m - 0.5 + _SEAM) * turn, middle + (m + 0.5 - _SEAM) * turn
        near = max(start, inner[0]), min(stop, inner[1])
        if near[0] < near[1]:
            yield near, (max(start, outer[0]), min(stop, outer[1])), -m * turn


def _arc(x: Float, turn: float, middle: float | None) -> tuple[float, float]:
    """The shortest range that holds all longitudes, in some turn; a whole turn where they lie all round."""
    x = np.sort(np.mod(x, turn))
    gaps = np.diff(np.append(x, x[0] + turn))
    widest = int(gaps.argmax())
    if gaps[widest] < _CLOSED * turn:
        west = (middle or 0.0) - turn / 2
        return west, west + turn
    west = float(x[(widest + 1) % len(x)])
    east = float(x[widest])
    east += turn if east < west else 0.0
    back = turn * round((west + east) / 2 / turn)
    return west - back, east - back


def _middle(own: CRS | None, crs: CRS | None, turn: float) -> float | None:
    """The longitude, in ``crs``, half a turn from which the grid's projection has its seam; None if it tells none."""
    own = own.source_crs if own is not None and own.is_bound and own.source_crs is not None else own
    if own is None or crs is None or own.coordinate_operation is None or own.is_geographic:
        return None
    for each in own.coordinate_operation.params:
        if each.name.startswith("Longitude of"):
            radians = float(each.value) * each.unit_conversion_factor + _prime(own) - _prime(crs)
            return float(radians / (2 * math.pi) * turn)
    return None


def _prime(crs: CRS) -> float:
    """Longitude of the prime meridian, in radians east of Greenwich."""
    meridian = crs.prime_meridian
    return 0.0 if meridian is None else float(meridian.longitude) * float(meridian.unit_conversion_factor)


def _holds(geobox: GeoBox, own: CRS | None, crs: CRS | None, pole: float) -> bool:
    """Whether a pole, given by its latitude in ``crs``, lies on the grid or just beside it."""
    x, y = Transformer.from_crs(crs, own, always_xy=True).transform(0.0, pole)
    if not (math.isfinite(x) and math.isfinite(y)):
        return False
    (col, row), (rows, cols) = ~geobox.affine * (x, y), geobox.shape
    return all(-0.02 * n - 1 <= place <= 1.02 * n + 1 for place, n in ((row, rows), (col, cols)))


def _reach(span: float, own: CRS | None, crs: CRS | None) -> float:
    """How far beyond the footprint features are of use, in units of ``crs``."""
    if crs is None or not other_crs(own, crs):
        return _PLAIN_REACH * span
    turn = turn_of(crs)
    reach = (
        _REACH / _DEGREE * turn / 360
        if turn
        else _REACH / float(crs.axis_info[0].unit_conversion_factor or 1)
    )
    return max(min(span, reach), _LEAST * span)


def _grown(box: Bounds, more: float) -> Bounds:
    return box[0] - more, box[1] - more, box[2] + more, box[3] + more
