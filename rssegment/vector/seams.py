"""The lines of pixel corners between blocks and round the scene: which regions meet there, chains along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rssegment.vector.trace import BlockTrace

__all__ = ["Seams", "find_seams"]

Int64 = NDArray[np.int64]
RIGHT, UP, LEFT, DOWN = 0, 1, 2, 3


@dataclass(frozen=True)
class Seams:
    """What all seams add. Regions are numbered through all blocks, in their order; -1 is no data or no block.

    ``corners`` (S, 2, 2): both ends (row, col) of each straight chain; ``leaving`` (S, 2): the directions leaving them;
    ``sides`` (S, 2): region on the left and right. ``joined`` and ``touching`` (n, 2): pairs of regions of one class
    that share an edge, or only a corner, on a seam.
    """

    corners: Int64
    leaving: Int64
    sides: Int64
    joined: Int64
    touching: Int64


def find_seams(traces: Sequence[BlockTrace], bases: Int64, codes: NDArray[np.uint16]) -> Seams:
    """Walks every line on which a block begins or ends.

    ``bases``: number of the first region of each block; ``codes``: class of every region.
    """
    height = max(trace.core.stop_row for trace in traces)
    width = max(trace.core.stop_col for trace in traces)
    rows: dict[int, Int64] = {}
    cols: dict[int, Int64] = {}
    for trace, base in zip(traces, bases, strict=True):
        core = trace.core
        top, bottom, left, right = (np.where(line >= 0, line + base, -1) for line in trace.lines())
        _line(rows, core.row, width)[1, core.col : core.stop_col] = top
        _line(rows, core.stop_row, width)[0, core.col : core.stop_col] = bottom
        _line(cols, core.col, height)[1, core.row : core.stop_row] = left
        _line(cols, core.stop_col, height)[0, core.row : core.stop_row] = right
    class_of = np.append(codes.astype(np.int64), 0)  # index -1: no data
    cuts_down, cuts_across = (np.array(sorted(lines), np.int64) for lines in (rows, cols))
    down = [_seam(sides, class_of, cuts_across).placed(row, along_row=True) for row, sides in rows.items()]
    across = [_seam(sides, class_of, cuts_down).placed(col, along_row=False) for col, sides in cols.items()]
    return _concatenate(down + across)


def _line(lines: dict[int, Int64], at: int, length: int) -> Int64:
    """(2, length): the regions before and after the line; -1 where there is no block."""
    if at not in lines:
        lines[at] = np.full((2, length), -1, np.int64)
    return lines[at]


@dataclass(frozen=True)
class _Seam:
    start: Int64
    stop: Int64
    before: Int64
    after: Int64
    joined: Int64
    touching: Int64

    def placed(self, at: int, *, along_row: bool) -> Seams:
        """Going right along a row, the pixels before the line are on the left; going down a column, on the right."""
        line = np.full_like(self.start, at)
        if along_row:
            ends, leaving, sides = (
                ((line, self.start), (line, self.stop)),
                (RIGHT, LEFT),
                (self.before, self.after),
            )
        else:
            ends, leaving, sides = (
                ((self.start, line), (self.stop, line)),
                (DOWN, UP),
                (self.after, self.before),
            )
        corners = np.stack([np.stack(end, axis=1) for end in ends], axis=1)
        directions = np.tile(np.array(leaving, np.int64), (line.size, 1))
        return Seams(corners, directions, np.stack(sides, axis=1), self.joined, self.touching)


def _seam(sides: Int64, class_of: Int64, cuts: Int64) -> _Seam:
    """One line cut wherever another boundary may meet it: where a class changes on either side, and at ``cuts``."""
    length = sides.shape[1]
    classes = class_of[sides]
    changes = np.flatnonzero((classes[:, 1:] != classes[:, :-1]).any(axis=0)) + 1
    at = np.unique(np.concatenate([changes, cuts[cuts <= length], [0, length]]))
    start, stop = at[:-1], at[1:]
    before, after = sides[:, start]
    same = classes[0, start] == classes[1, start]
    joined = np.stack([before, after], axis=1)[same & (classes[0, start] != 0)]
    edge = ~same
    inner = at[1:-1]
    falling = np.stack([sides[0, inner - 1], sides[1, inner]], axis=1)
    rising = np.stack([sides[0, inner], sides[1, inner - 1]], axis=1)
    diagonal = np.concatenate([falling, rising])
    met = (class_of[diagonal[:, 0]] == class_of[diagonal[:, 1]]) & (diagonal[:, 0] >= 0)
    return _Seam(start[edge], stop[edge], before[edge], after[edge], joined, diagonal[met])


def _concatenate(parts: Sequence[Seams]) -> Seams:
    def joint(name: str) -> Int64:
        return cast(Int64, np.concatenate([getattr(part, name) for part in parts]))

    return Seams(*(joint(name) for name in ("corners", "leaving", "sides", "joined", "touching")))
