"""Probabilities from the model's grid to the output's grid, which share origin and axes.

``factor`` (down, across) is the size of a model pixel in output pixels. Values are interpolated linearly between
pixel centres. Law: an output pixel's bytes depend on its place alone, not on the strips or the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.predict.strips import Strip

__all__ = ["model_core", "resample_strips"]

# Output rows of a strip at most, so that a much finer output grid needs no more memory.
_ROWS = 128

Floats = NDArray[np.float32]
Valid = NDArray[np.bool_]


def model_core(core: Box, factor: tuple[float, float], shape: tuple[int, int]) -> Box:
    """The pixels of a model grid of ``shape`` that the output pixels of ``core`` are interpolated from."""
    top, bottom = _span(core.row, core.stop_row, factor[0], shape[0])
    left, right = _span(core.col, core.stop_col, factor[1], shape[1])
    return Box.between(top, left, bottom, right)


def resample_strips(
    strips: Iterable[Strip], core: Box, factor: tuple[float, float], read_valid: Callable[[Box], Valid]
) -> Iterator[Strip]:
    """Strips of ``core`` on the output grid from ``strips`` of its :func:`model_core`.

    ``read_valid`` gives the validity (h, w) of a box of the output grid. Invalid model pixels have no weight,
    unless an output pixel has no other. Where nothing was computed an output pixel is not valid.
    """
    window = _Window()
    done = core.row
    for strip in strips:
        window.append(strip)
        stop = min(core.stop_row, _complete(window.stop, factor[0]))
        yield from _chunks(window, Box.between(done, core.col, stop, core.stop_col), factor, read_valid)
        done = max(done, stop)
        window.drop_above(int(np.floor(_centre(done, factor[0]))))
    yield from _chunks(window, Box.between(done, core.col, core.stop_row, core.stop_col), factor, read_valid)


def _chunks(
    window: _Window, box: Box, factor: tuple[float, float], read_valid: Callable[[Box], Valid]
) -> Iterator[Strip]:
    for row in range(box.row, box.stop_row, _ROWS):
        part = Box(row, box.col, min(_ROWS, box.stop_row - row), box.width)
        yield window.resampled(part, factor, read_valid(part))


def _centre(index: int, factor: float) -> float:
    """Where the centre of output pixel ``index`` lies, counted in model pixels from the centre of the first."""
    return (index + 0.5) / factor - 0.5


def _span(start: int, stop: int, factor: float, length: int) -> tuple[int, int]:
    """First and one past the last model pixel that output pixels ``[start, stop)`` touch."""
    first = int(np.floor(_centre(start, factor)))
    last = int(np.floor(_centre(stop - 1, factor))) + 1
    return min(max(first, 0), length - 1), min(max(last, 0), length - 1) + 1


def _complete(stop: int, factor: float) -> int:
    """Output rows above this one need no model row from ``stop`` on."""
    row = max(0, int((stop - 0.5) * factor))  # about right; the loops make it exactly what _Taps will ask for
    while np.floor(_centre(row, factor)) + 1 < stop:
        row += 1
    while row > 0 and np.floor(_centre(row - 1, factor)) + 1 >= stop:
        row -= 1
    return row


@dataclass(frozen=True, slots=True)
class _Taps:
    """The two model pixels of each output pixel along an axis, and the second's share."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: Floats

    @classmethod
    def of(cls, start: int, stop: int, factor: float, low: int, high: int) -> _Taps:
        """For output pixels ``[start, stop)``, from model pixels ``[low, high)``, counted from ``low``."""
        place = (np.arange(start, stop, dtype=np.float64) + 0.5) / factor - 0.5
        below = np.floor(place)
        first = np.clip(below.astype(np.int64), low, high - 1) - low
        second = np.clip(below.astype(np.int64) + 1, low, high - 1) - low
        return cls(first, second, (place - below).astype(np.float32))


class _Window:
    """The rows of the model grid that output rows still need."""

    def __init__(self) -> None:
        self._strips: list[Strip] = []

    @property
    def stop(self) -> int:
        return self._strips[-1].box.stop_row

    def append(self, strip: Strip) -> None:
        self._strips.append(strip)

    def drop_above(self, row: int) -> None:
        """Forgets strips that end above ``row``, but the last one."""
        self._strips = [s for s in self._strips[:-1] if s.box.stop_row > row] + self._strips[-1:]

    def resampled(self, box: Box, factor: tuple[float, float], valid: Valid) -> Strip:
        source, known = self._joined()
        low, cols = self._strips[0].box.row, self._strips[0].box
        down = _Taps.of(box.row, box.stop_row, factor[0], low, self.stop)
        across = _Taps.of(box.col, box.stop_col, factor[1], cols.col, cols.stop_col)
        top, bottom = int(down.first.min()), int(down.second.max()) + 1
        rows = _Taps(down.first - top, down.second - top, down.share)
        source, known = source[:, top:bottom], known[top:bottom]
        probabilities = _interpolated(source, rows, across)
        return Strip(box, probabilities, valid & _mend(probabilities, source, known, rows, across))

    def _joined(self) -> tuple[Floats, Valid]:
        if len(self._strips) > 1:
            first, last = self._strips[0].box, self._strips[-1].box
            box = Box.between(first.row, first.col, last.stop_row, first.stop_col)
            probabilities = np.concatenate([s.probabilities for s in self._strips], axis=1)
            self._strips = [Strip(box, probabilities, np.concatenate([s.valid for s in self._strips]))]
        return self._strips[0].probabilities, self._strips[0].valid


def _interpolated(values: Floats, rows: _Taps, cols: _Taps) -> Floats:
    """Values (L, h, w) at the taps of output rows and columns; one rounding for each product and sum."""
    one = np.float32(1)
    down: Floats = values[:, rows.first] * (one - rows.share)[:, None]
    down += values[:, rows.second] * rows.share[:, None]
    result: Floats = down[..., cols.first] * (one - cols.share)
    result += down[..., cols.second] * cols.share
    return result


def _mend(result: Floats, values: Floats, known: Valid, rows: _Taps, cols: _Taps) -> Valid:
    """Redoes those pixels of ``result`` that touch an unknown one; returns where there is a result (h, w)."""
    computed = np.ones(result.shape[1:], bool)
    if known.all():
        return computed
    whole = known[rows.first] & known[rows.second]
    r, c = np.nonzero(~(whole[:, cols.first] & whole[:, cols.second]))
    weights = [
        (i[r], j[c], u[r] * v[c])
        for i, u in ((rows.first, 1 - rows.share), (rows.second, rows.share))
        for j, v in ((cols.first, 1 - cols.share), (cols.second, cols.share))
    ]
    inner, plain = np.zeros((2, len(values), len(r)), np.float32)
    for i, j, weight in weights:
        plain += values[:, i, j] * weight
        inner += values[:, i, j] * (weight * known[i, j])
    # where no known pixel takes part, what the model made of filled-in values is the best there is
    mended = np.where(inner.any(0), inner, plain)
    total = np.zeros(len(r), np.float32)
    for leaf in mended:  # in this order whatever the shape
        total += leaf
    computed[r, c] = total > 0
    result[:, r, c] = mended / np.where(total > 0, total, np.float32(1))
    return computed
