"""The rows of a scene that the patches of a block are cut from, read from the top down and each only once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box, PatchLattice, reflect

__all__ = ["PixelRows", "PixelsLike"]


class PixelsLike(Protocol):
    """Pixels of a box: ``values`` (C, h, w), ``valid`` (h, w)."""

    @property
    def values(self) -> NDArray[np.float32]: ...
    @property
    def valid(self) -> NDArray[np.bool_]: ...


class PixelRows:
    """The rows that the current row of patches needs, as wide as all patches of the block together.

    They are mirrored at the scene's edges. Invalid pixels hold ``fill`` (C,).
    """

    def __init__(
        self,
        read: Callable[[Box], PixelsLike],
        lattice: PatchLattice,
        core: Box,
        fill: NDArray[np.float32],
        columns: range,
    ) -> None:
        self._read, self._lattice, self._core, self._fill = read, lattice, core, fill
        self._first = lattice.start(columns[0])
        width = lattice.start(columns[-1]) + lattice.patch - self._first
        self._cols = reflect(np.arange(self._first, self._first + width), lattice.shape[1])
        self._left, self._right = int(self._cols.min()), int(self._cols.max()) + 1
        self._cols -= self._left
        self._top = self._stop = 0  # the scene's rows that are held
        held = lattice.patch, self._right - self._left  # mirrored rows are among those of the patch before
        self._values = np.empty((len(fill), *held), np.float32)
        self._valid = np.empty(held, bool)
        self._rows = np.empty(0, np.int64)
        self._kept: list[NDArray[np.bool_]] = []  # validity of the core's rows that were not given out
        self._kept_stop = core.row

    def advance(self, row: int) -> None:
        """Makes the ``row``-th row of patches of the lattice the current one."""
        start = self._lattice.start(row)
        rows = reflect(np.arange(start, start + self._lattice.patch), self._lattice.shape[0])
        self._hold(int(rows.min()), int(rows.max()) + 1)
        self._rows = rows - self._top

    def any_valid(self, row: int, col: int) -> bool:
        """Whether the patch at (``row``, ``col``) of the lattice has a valid pixel."""
        part = self._lattice.box((row, col)).clip(Box.of(self._lattice.shape))
        return bool(self._valid[part.shift(-self._top, -self._left).slices].any())

    def patch(self, col: int) -> NDArray[np.float32]:
        """Values (C, patch, patch) of the ``col``-th patch of the current row; good until the next row."""
        at = self._lattice.start(col) - self._first
        cols = self._cols[at : at + self._lattice.patch]
        # slices where nothing is mirrored: they copy nothing
        columns = slice(cols[0], cols[-1] + 1) if _plain(cols) else cols
        rows = slice(self._rows[0], self._rows[-1] + 1) if _plain(self._rows) else self._rows
        values: NDArray[np.float32] = self._values[:, :, columns][:, rows]
        return values

    def take_valid(self, height: int) -> NDArray[np.bool_]:
        """Validity (height, w) of the core's next rows."""
        kept = np.concatenate(self._kept) if len(self._kept) > 1 else self._kept[0]
        self._kept = [kept[height:]]
        return kept[:height]

    def _hold(self, top: int, stop: int) -> None:
        """Holds the scene's rows ``[top, stop)`` at least; reads those that are new."""
        if not self._top <= top <= self._stop:
            self._top = self._stop = top
        if stop <= self._stop:
            return
        kept = slice(top - self._top, self._stop - self._top)
        values, valid = self._fresh(Box.between(self._stop, self._left, stop, self._right))
        # in place: new arrays of this size cost more than what is copied into them
        height, known = stop - top, self._stop - top
        self._values[:, :known], self._valid[:known] = self._values[:, kept], self._valid[kept]
        self._values[:, known:height], self._valid[known:height] = values, valid
        self._top, self._stop = top, stop

    def _fresh(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        pixels = self._read(box)
        values, valid = pixels.values, pixels.valid
        if not valid.all():
            values = np.where(valid, values, self._fill[:, None, None])
        new = box.clip(self._core)
        if new.stop_row > self._kept_stop:
            rows = slice(max(new.row, self._kept_stop) - box.row, new.stop_row - box.row)
            self._kept.append(valid[rows, new.col - box.col : new.stop_col - box.col].copy())
            self._kept_stop = new.stop_row
        return values, valid


def _plain(indices: NDArray[np.int64]) -> bool:
    """Whether mirrored indices, which go up or down by one, only go up."""
    return bool(indices[-1] - indices[0] == len(indices) - 1)
