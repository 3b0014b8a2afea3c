"""What is known of each region: its class, its confidence, its size on the ground, and what it touches."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rssegment.errors import InputError
from rssegment.geodesy import is_on_earth
from rssegment.vector.ground import ground_size
from rssegment.vector.regions import Regions

__all__ = ["CONFIDENCE_ONE", "attributes", "ground_size"]

CONFIDENCE_ONE = 254  # value of a confidence raster that means probability 1; 255 is no data
_MAX_LISTED = 20
# What areas and lengths are rounded to, in pixels' areas and sides, though not to less than two decimals. One-pixel
# regions are nearly alike and are rounded the same way, so areas would else not add up to those of the scene.
_FINEST_AREA, _FINEST_LENGTH = 1e-9, 1e-6


class ClassNode(Protocol):
    """What this room needs to know of a class."""

    @property
    def name(self) -> str: ...
    @property
    def level(self) -> int: ...
    @property
    def path(self) -> tuple[str, ...]: ...


class ClassTree(Protocol):
    """What this room needs of a taxonomy."""

    @property
    def nodes(self) -> tuple[Any, ...]: ...
    def node(self, key: int) -> Any: ...


def attributes(
    regions: Regions, taxonomy: ClassTree, affine: Affine, crs: str | None, *, level: int | None = None
) -> dict[str, NDArray[Any]]:
    """Columns of (R,) values, always the same, in this order; null is masked in whole numbers and NaN in others.

    ``parent_id`` is masked where a region has no parent. ``level`` is that of the layer if one is asked for, else the
    class's own. ``path`` is as "built/building". ``pixels`` are those of the raster; ``area_m2`` and ``perimeter_m``,
    on the ellipsoid, those of the polygon as it is; null without a CRS that lies on the Earth. ``confidence``
    and ``margin`` are means, ``confidence_min`` the least, as probabilities with 4 decimals; null if no pixel has one.

    Raises
    ------
    InputError
        The taxonomy lacks a code (lists those missing), or a corner is outside what the CRS can express.
    """
    nodes, rows = _nodes(regions.code, taxonomy)
    own = np.array([node.level for node in nodes], np.int64)
    area, perimeter = _sizes(regions, affine, crs)
    least = np.where(regions.least == 255, np.nan, regions.least / CONFIDENCE_ONE)
    return {
        "id": regions.id,
        "parent_id": np.ma.array(regions.parent, mask=regions.parent == 0),
        "code": regions.code.astype(np.int64),
        "name": _texts([node.name for node in nodes])[rows],
        "level": own[rows] if level is None else np.full(len(regions), level, np.int64),
        "path": _texts(["/".join(node.path) for node in nodes])[rows],
        "pixels": regions.pixels,
        "area_m2": area,
        "perimeter_m": perimeter,
        "confidence": np.round(regions.confidence / CONFIDENCE_ONE, 4),
        "confidence_min": np.round(least, 4),
        "margin": np.round(regions.margin / CONFIDENCE_ONE, 4),
        "touches_nodata": (regions.touches & 1) != 0,
        "touches_edge": (regions.touches & 2) != 0,
    }


def _texts(values: list[str]) -> NDArray[np.object_]:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def _sizes(
    regions: Regions, affine: Affine, crs: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area and perimeter, rounded to what a pixel of the grid makes sensible; the same for all regions of a grid."""
    if crs is None or not is_on_earth(crs):
        unknown = np.full(len(regions), np.nan)
        return unknown, unknown
    area, perimeter = ground_size(regions, affine, crs)
    system = CRS.from_user_input(crs)
    unit = system.axis_info[0].unit_conversion_factor * (6.4e6 if system.is_geographic else 1.0)
    square = abs(affine.determinant) * unit**2
    side = math.sqrt(square)
    return (
        np.round(area, _decimals(square * _FINEST_AREA)),
        np.round(perimeter, _decimals(side * _FINEST_LENGTH)),
    )


def _decimals(finest: float) -> int:
    return max(2, math.ceil(-math.log10(finest)))


def _nodes(codes: NDArray[np.integer[Any]], taxonomy: ClassTree) -> tuple[list[ClassNode], NDArray[np.int64]]:
    """The classes present, and which of them each region has."""
    present, rows = np.unique(codes, return_inverse=True)
    known = {node.code for node in taxonomy.nodes}
    missing = [int(code) for code in present if int(code) not in known]
    if missing:
        listed = ", ".join(map(str, missing[:_MAX_LISTED])) + (", ..." if len(missing) > _MAX_LISTED else "")
        raise InputError(
            f"the labels hold {len(missing)} codes that the taxonomy lacks: {listed}; "
            "add them to the taxonomy or choose the one the labels were made with"
        )
    return [taxonomy.node(int(code)) for code in present], rows
