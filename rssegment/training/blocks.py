"""Blocks of ground: squares of metres that lie alike under all scenes of a group, and the cells that touch them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from rssegment.training.census import TRAIN, UNUSED, VALIDATION
from rssegment.training.ground import LabelledScene
from rssegment.training.planes import Plane, plane_of
from rssegment.training.recipe import SplitOptions

__all__ = ["Blocks"]

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]

_INSIDE = 0.02  # of a pixel: cells that only touch a block's edge don't reach into it


@dataclass(frozen=True, eq=False)
class Blocks:
    """A grid of ``count`` blocks of ``side`` m (both across, down), numbered row by row, under scenes by number.

    Sides are whole numbers of the cells of the scene along whose axes they lie. Ground that has no room for two blocks
    and the gap is one; what remains of less than half a block belongs to the one before.
    """

    plane: Plane
    cells: Mapping[int, _Cells]
    origin: Float
    side: Float
    count: Int64
    gap: float

    @classmethod
    def under(cls, scenes: Mapping[int, LabelledScene], cell: int, options: SplitOptions) -> Blocks:
        """The blocks under the scenes of a group, whose cells have sides of ``cell`` px."""
        plane = plane_of(scenes)
        cells = {number: _Cells.of(plane, number, scene.shape, cell) for number, scene in scenes.items()}
        known = [each for each in cells.values() if each.there.any()]
        if not known:
            return cls(plane, cells, np.zeros(2), np.ones(2), np.ones(2, np.int64), 0.0)
        unit = np.max([each.side for each in known], axis=0)
        low = np.min([each.least for each in known], axis=0)
        high = np.max([each.greatest for each in known], axis=0)
        gap = options.gap * plane.stretch
        side = np.maximum(1, np.round(options.block / unit)) * unit
        if ((high - low) < side + gap + unit).all():
            return cls(plane, cells, low, side, np.ones(2, np.int64), gap)
        origin = np.floor(low / side + _INSIDE) * side
        count = np.maximum(1, np.round((high - origin) / side)).astype(np.int64)
        return cls(plane, cells, origin, side, count, gap)

    def home(self, number: int) -> Int64:
        """(rows, cols): the block in which the middle of each of a scene's cells lies; -1 for nowhere."""
        cells = self.cells[number]
        x, y = self._index((cells.low + cells.high) / 2)
        return np.where(cells.there, y * self.count[0] + x, -1)

    def roles(self, number: int, held: Int64) -> NDArray[np.uint8]:
        """(rows, cols) of a scene's cells, where the blocks ``held`` are for validation.

        A cell is of validation where all blocks that it touches are, and of training where none is that it touches when
        it is grown by the gap.
        """
        cells = self.cells[number]
        if not len(held):
            return np.full(cells.there.shape, TRAIN, np.uint8)
        inside = _Counts.of(held % self.count[0], held // self.count[0])
        found = np.full(cells.there.shape, UNUSED, np.uint8)
        low, high = self._index(cells.low - self.gap), self._index(cells.high + self.gap)
        found[cells.there & (inside(low, high) == 0)] = TRAIN
        low, high = self._index(cells.low), self._index(cells.high)
        touched = np.prod(high - low + 1, axis=0)
        found[cells.there & (inside(low, high) == touched)] = VALIDATION
        return found

    def near(self, number: int, others: Sequence[int]) -> NDArray[np.bool_]:
        """(rows, cols): which of a scene's cells are nearer than the gap to one of the scenes ``others``."""
        cells = self.cells[number]
        found = np.zeros(cells.there.shape, np.bool_)
        for beside in (self.cells[other] for other in others if self.cells[other].there.any()):
            low, high = beside.least - self.gap, beside.greatest + self.gap
            some = cells.there & (
                (cells.low <= high[:, None, None]) & (cells.high >= low[:, None, None])
            ).all(0)
            rows, cols = np.nonzero(some)
            squares = shapely.box(*cells.low[:, rows, cols], *cells.high[:, rows, cols])
            found[rows, cols] |= shapely.dwithin(squares, beside.hull, self.gap)
        return found

    def _index(self, places: Float) -> Int64:
        """(2, …) across and down of the blocks in which places lie, or of the nearest."""
        shape = (2,) + (1,) * (places.ndim - 1)
        index = np.floor((places - self.origin.reshape(shape)) / self.side.reshape(shape))
        last = (self.count - 1).reshape(shape)
        return np.asarray(np.clip(np.nan_to_num(index), 0, last), np.int64)


@dataclass(frozen=True, eq=False)
class _Cells:
    """The upright boxes in a plane that hold a scene's cells: ``low`` and ``high`` (2, rows, cols), x before y."""

    low: Float
    high: Float
    there: NDArray[np.bool_]  # where they lie on Earth at all
    side: Float  # across and down, of the largest

    @classmethod
    def of(cls, plane: Plane, number: int, shape: tuple[int, int], cell: int) -> _Cells:
        rows, cols = (np.append(np.arange(0, length, cell), length).astype(np.float64) for length in shape)
        corners = plane.at(number, *np.meshgrid(cols, rows))
        corners[~np.isfinite(corners)] = np.nan
        parts = [corners[:, :-1, :-1], corners[:, :-1, 1:], corners[:, 1:, :-1], corners[:, 1:, 1:]]
        low, high = parts[0].copy(), parts[0].copy()
        for part in parts[1:]:
            np.minimum(low, part, out=low)
            np.maximum(high, part, out=high)
        there = np.asarray(np.isfinite(low).all(0))
        edges = [np.hypot(*np.diff(corners, axis=axis)) for axis in (2, 1)]
        side = np.array([each[np.isfinite(each)].max(initial=0.0) for each in edges])
        pixel = side / [min(cell, shape[1]), min(cell, shape[0])]
        inset = (_INSIDE * pixel)[:, None, None]
        return cls(low + inset, high - inset, there, side)

    @property
    def least(self) -> Float:
        """(2,): x and y."""
        return np.asarray(self.low[:, self.there].min(1))

    @property
    def greatest(self) -> Float:
        """(2,): x and y."""
        return np.asarray(self.high[:, self.there].max(1))

    @property
    def hull(self) -> shapely.Geometry:
        """What holds the scene, without dents."""
        edge = np.zeros(self.there.shape, np.bool_)
        edge[[0, -1]] = edge[:, [0, -1]] = True
        low, high = (each[:, edge & self.there] for each in (self.low, self.high))
        places = [np.stack([x[0], y[1]], 1) for x in (low, high) for y in (low, high)]
        return shapely.MultiPoint(np.concatenate(places)).convex_hull


@dataclass(frozen=True, eq=False)
class _Counts:
    """How many of some blocks lie in ranges of columns and rows: sums over those that have any."""

    cols: Int64
    rows: Int64
    sums: NDArray[np.int32]

    @classmethod
    def of(cls, cols: Int64, rows: Int64) -> _Counts:
        known_cols, col = np.unique(cols, return_inverse=True)
        known_rows, row = np.unique(rows, return_inverse=True)
        sums = np.zeros((len(known_rows) + 1, len(known_cols) + 1), np.int32)
        sums[row + 1, col + 1] = 1
        return cls(known_cols, known_rows, sums.cumsum(0, np.int32).cumsum(1, np.int32))

    def __call__(self, low: Int64, high: Int64) -> NDArray[np.int32]:
        """Of ranges (2, …), across and down, both ends included."""
        left, right = np.searchsorted(self.cols, low[0]), np.searchsorted(self.cols, high[0], "right")
        top, bottom = np.searchsorted(self.rows, low[1]), np.searchsorted(self.rows, high[1], "right")
        found: NDArray[np.int32] = (
            self.sums[bottom, right] - self.sums[top, right] - self.sums[bottom, left] + self.sums[top, left]
        )
        return found
