"""Labels of finer pixels on coarser ones: the class that covers most of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.training.sources._majority_kernels import vote
from rssegment.training.sources.labels import Labels

__all__ = ["Majority", "upright"]

_UNIT = 65536  # parts of a pixel: edges of cells lie on one, and areas are whole numbers of their squares
_TOLERANCE = 0.01  # px
_READ_AT_ONCE = 1 << 24  # px of finer labels that are read for one piece


@dataclass(frozen=True)
class Majority:
    """Labels on ``shape`` cells, each the class with the largest area among ``finer`` labels; ties to the lower code.

    A cell is ``factor`` (down, across) finer pixels large, the first of them begins at ``offset``. Pixels without
    label take part as class 0, those beyond the finer raster's edge don't. Law: a cell's class is a function of its
    place alone, whatever box it is asked in.
    """

    finer: Labels
    finer_shape: tuple[int, int]
    factor: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)

    @property
    def files(self) -> tuple[str, ...]:
        return self.finer.files

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W); 0 where there is no label."""
        height = max(1, int(_READ_AT_ONCE / (box.width * self.factor[0] * self.factor[1])))
        if box.height > height:
            strips = range(box.row, box.stop_row, height)
            return np.vstack(
                [self.read(Box(row, box.col, min(height, box.stop_row - row), box.width)) for row in strips]
            )
        rows = self._edges(0, box.row, box.stop_row)
        cols = self._edges(1, box.col, box.stop_col)
        part = Box.between(
            int(rows[0]) // _UNIT,
            int(cols[0]) // _UNIT,
            -(-int(rows[-1]) // _UNIT),
            -(-int(cols[-1]) // _UNIT),
        )
        out = np.zeros(box.shape, np.uint16)
        if part.size:
            codes = np.ascontiguousarray(self.finer.read(part), np.uint16)
            vote(codes, rows, cols, part.row, part.col, out)
        return out

    def _edges(self, axis: int, start: int, stop: int) -> NDArray[np.int64]:
        """(n + 1,): where cells begin and end, within the finer raster."""
        places = np.arange(start, stop + 1, dtype=np.float64) * self.factor[axis] + self.offset[axis]
        edges = np.rint(places * _UNIT).astype(np.int64)
        return np.clip(edges, 0, self.finer_shape[axis] * _UNIT)


def upright(between: Affine, shape: tuple[int, int]) -> bool:
    """Whether rows and columns run the same way on both sides of ``between``, over a grid of ``shape``."""
    slope = abs(between.b) * shape[0] + abs(between.d) * shape[1]
    return bool(between.a > 0 and between.e > 0 and slope <= _TOLERANCE)
