"""The regions of a scene as a table of arrays, with their rings in whole pixel corners."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, cast

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rssegment.errors import InputError

__all__ = ["Regions"]

CACHED = 50_000  # corners at a time, whose coordinates stay in a core's cache


@dataclass(frozen=True, eq=False)
class Regions:
    """Connected regions of one class, in the order of their ``id`` (counted by first pixel, row-major).

    ``parent`` (R,): id of the region of the next coarser level that holds it, 0 for none. ``code`` (R,): class;
    ``sums`` (R, 5): pixels, sum of confidence, pixels that have one, sum of margins, pixels that have one;
    ``least`` (R,): least confidence, 255 for none; ``touches`` (R,): bits, 1 shares an edge with no data, 2 with the
    scene's edge; ``first`` (R, 2): first pixel (row, col).

    Region k has polygons ``part_offsets[k : k + 2]``, polygon p rings ``ring_offsets[p : p + 2]``, exterior first,
    ring r ``corners[corner_offsets[r] : corner_offsets[r + 1]]``: corners (row, col) in 1 / ``scale`` px, the first
    repeated at the end. Unless simplified, every pixel corner where the boundary turns or where three regions meet is
    there and no other. Neighbours share all their vertices. The region is on the left of its rings, seen with row 0 on
    top.
    """

    id: NDArray[np.int64]
    parent: NDArray[np.int64]
    code: NDArray[np.integer[Any]]
    sums: NDArray[np.int64]
    least: NDArray[np.uint8]
    touches: NDArray[np.uint8]
    first: NDArray[np.int64]
    part_offsets: NDArray[np.int64]
    ring_offsets: NDArray[np.int64]
    corner_offsets: NDArray[np.int64]
    corners: NDArray[np.int32] = field(repr=False)
    scale: int = 1

    @classmethod
    def none(cls) -> Self:
        """No region at all."""
        zero, nothing = np.zeros(1, np.int64), np.empty(0, np.int64)
        flags = np.empty(0, np.uint8)
        return cls(
            nothing, nothing, np.empty(0, np.uint16), np.empty((0, 5), np.int64), flags, flags,
            np.empty((0, 2), np.int64), zero, zero, zero, np.empty((0, 2), np.int32),
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[Regions]) -> Regions:
        """One table after the other."""
        if len(parts) < 2:
            return parts[0] if parts else cls.none()
        names = ("part_offsets", "ring_offsets", "corner_offsets")
        offsets: dict[str, list[NDArray[Any]]] = {name: [np.zeros(1, np.int64)] for name in names}
        for name, each in offsets.items():
            end = 0
            for part in parts:
                each.append(getattr(part, name)[1:] + end)
                end += int(getattr(part, name)[-1])
        rows = ("id", "parent", "code", "sums", "least", "touches", "first", "corners")
        arrays: dict[str, NDArray[Any]] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in rows
        }
        arrays |= {name: np.concatenate(each) for name, each in offsets.items()}
        return cls(**arrays, scale=max(part.scale for part in parts))

    def __len__(self) -> int:
        return int(self.id.size)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """(R,) number of pixels."""
        return self.sums[:, 0]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(R,) mean confidence in the unit of the raster; NaN where no pixel has one."""
        with np.errstate(invalid="ignore"):
            return self.sums[:, 1] / self.sums[:, 2]

    @property
    def margin(self) -> NDArray[np.float64]:
        """(R,) mean margin in the unit of the raster; NaN where no pixel has one."""
        with np.errstate(invalid="ignore"):
            return self.sums[:, 3] / self.sums[:, 4]

    def __getitem__(self, rows: slice) -> Regions:
        """The regions at consecutive ``rows``; arrays are views where they can be."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise InputError(f"rows {rows} skip some; take consecutive ones, as regions[10:20]")
        stop = max(start, stop)
        parts = self.part_offsets[start : stop + 1]
        rings = self.ring_offsets[parts[0] : parts[-1] + 1]
        corners = self.corner_offsets[rings[0] : rings[-1] + 1]
        rows = slice(start, stop)
        return Regions(
            self.id[rows], self.parent[rows], self.code[rows], self.sums[rows], self.least[rows], self.touches[rows],
            self.first[rows], parts - parts[0], rings - rings[0], corners - corners[0],
            self.corners[corners[0] : corners[-1]], self.scale,
        )  # fmt: skip

    def chunks(self, corners: int = 500_000) -> Iterator[Regions]:
        """Consecutive rows with about ``corners`` corners together (a larger region comes alone)."""
        ends = self.corner_offsets[self.ring_offsets[self.part_offsets]]
        start = 0
        while start < len(self):
            stop = int(np.searchsorted(ends, ends[start] + corners, side="right")) - 1
            stop = max(start + 1, stop)
            yield self[start:stop]
            start = stop

    def world(self, affine: Affine | None = None) -> NDArray[np.float64]:
        """(N, 2) world coordinates (x, y) of ``corners``; pixel coordinates (col, row) without ``affine``."""
        place = Affine.identity() if affine is None else affine
        place = place * Affine.scale(1 / self.scale)  # exact: scales are powers of two
        xy = np.empty((len(self.corners), 2), np.float64)
        for start in range(0, len(xy), CACHED):
            corners, out = self.corners[start : start + CACHED], xy[start : start + CACHED]
            row, col = corners[:, 0].astype(np.float64), corners[:, 1].astype(np.float64)
            out[:, 0] = place.a * col + place.b * row + place.c
            out[:, 1] = place.d * col + place.e * row + place.f
        return xy

    def to_shapely(self, affine: Affine | None = None) -> NDArray[np.object_]:
        """(R,) shapely polygons in world coordinates, MultiPolygons where a region has several."""
        out = np.empty(len(self), np.object_)
        row = 0
        with _no_collection():
            for chunk in self.chunks(CACHED):
                out[row : row + len(chunk)] = chunk._geometries(affine)
                row += len(chunk)
        return cast(NDArray[np.object_], out)

    def _geometries(self, affine: Affine | None) -> NDArray[np.object_]:
        import shapely

        offsets = (self.corner_offsets, self.ring_offsets)
        polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, self.world(affine), offsets)
        parts = np.diff(self.part_offsets)
        if (parts == 1).all():
            return cast(NDArray[np.object_], polygons)
        out = polygons[self.part_offsets[:-1]]
        owner = np.repeat(np.arange(len(self)), parts)
        several = (parts > 1)[owner]
        rows, dense = np.unique(owner[several], return_inverse=True)
        out[rows] = shapely.multipolygons(polygons[several], indices=dense)
        return cast(NDArray[np.object_], out)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Geometries are tracked by Python's collector, which would walk all made so far again and again; they hold no
    cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
