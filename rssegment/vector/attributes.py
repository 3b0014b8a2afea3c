"""What is known of each region: its class, its confidence, and its size on the ground."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.geodesy import ring_areas, ring_lengths, to_lonlat
from rssegment.vector.regions import Regions

__all__ = ["CONFIDENCE_ONE", "attributes", "ground_size"]

CONFIDENCE_ONE = 254  # value of a confidence raster that means probability 1; 255 is no data
_MAX_LISTED = 20

Float = NDArray[np.float64]


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


def ground_size(
    regions: Regions, affine: Affine, crs: str, *, perimeter: bool = False
) -> tuple[Float, Float | None]:
    """(R,) area in m² and, where asked for, (R,) perimeter in m, on the WGS 84 ellipsoid.

    Edges are followed as the CRS draws them. Holes are taken off the area; the perimeter includes theirs.
    Law: areas of regions that fill the scene add up to the scene's.
    """
    if not len(regions):
        return np.zeros(0), np.zeros(0) if perimeter else None
    pixel = float(np.sqrt(abs(affine.determinant)))
    corners = regions.world(affine)
    offsets = regions.corner_offsets
    if affine.determinant > 0:  # rows run up or columns run left: rings are mirrored
        corners = _reversed_rings(corners, offsets)
    rings = to_lonlat(corners, offsets, crs, pixel)
    first_ring = regions.ring_offsets[regions.part_offsets[:-1]]
    areas = np.add.reduceat(ring_areas(rings, crs), first_ring)
    return areas, np.add.reduceat(ring_lengths(rings), first_ring) if perimeter else None


def _reversed_rings(points: Float, offsets: NDArray[np.int64]) -> Float:
    """Each ring the other way round."""
    index = np.arange(len(points))
    owner = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    reversed_points: Float = points[offsets[owner] + offsets[owner + 1] - 1 - index]
    return reversed_points


def attributes(
    regions: Regions,
    taxonomy: ClassTree,
    affine: Affine,
    crs: str | None,
    *,
    perimeter: bool = False,
) -> dict[str, NDArray[Any]]:
    """Columns of (R,) values in the order to be written; NaN stands for null.

    ``id, code, name, level, path`` ("built/building"), ``confidence`` (mean probability, 4 decimals; NaN if no pixel
    has one), ``pixels``, ``area_m2`` (2 decimals) and, where asked for, ``perimeter_m``; both NaN without a CRS.

    Raises
    ------
    InputError
        The taxonomy lacks a code; lists those missing.
    """
    codes, rows = np.unique(regions.code, return_inverse=True)
    nodes = _nodes(codes, taxonomy)
    columns: dict[str, NDArray[Any]] = {
        "id": regions.id,
        "code": regions.code.astype(np.int64),
        "name": np.array([node.name for node in nodes], object)[rows],
        "level": np.array([node.level for node in nodes], np.int64)[rows],
        "path": np.array(["/".join(node.path) for node in nodes], object)[rows],
        "confidence": np.round(regions.confidence / CONFIDENCE_ONE, 4),
        "pixels": regions.pixels,
    }
    unknown = np.full(len(regions), np.nan)
    area, length = (
        (unknown, unknown) if crs is None else ground_size(regions, affine, crs, perimeter=perimeter)
    )
    columns["area_m2"] = np.round(area, 2)
    if perimeter and length is not None:
        columns["perimeter_m"] = np.round(length, 2)
    return columns


def _nodes(codes: NDArray[np.uint16], taxonomy: ClassTree) -> list[ClassNode]:
    known = {node.code for node in taxonomy.nodes}
    missing = [int(code) for code in codes if int(code) not in known]
    if missing:
        listed = ", ".join(map(str, missing[:_MAX_LISTED])) + (", ..." if len(missing) > _MAX_LISTED else "")
        raise InputError(
            f"the labels hold {len(missing)} codes that the taxonomy lacks: {listed}; "
            "add them to the taxonomy or choose the one the labels were made with"
        )
    return [taxonomy.node(int(code)) for code in codes]
