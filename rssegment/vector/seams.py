"""The lines of pixel corners between pieces and round the scene: which groups meet there, and chains along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.vector.pieces import Int64, Piece

__all__ = ["OUTSIDE", "Seams", "find_seams"]

RIGHT, UP, LEFT, DOWN = 0, 1, 2, 3
OUTSIDE = -2  # beyond the scene; -1 is no data in it


@dataclass(frozen=True)
class Seams:
    """What all seams add. Groups are finest ones, numbered through all pieces; -1 is no data, -2 outside the scene.

    ``corners`` (S, 2, 2): both ends (row, col) of each straight chain; ``leaving`` (S, 2): the directions leaving them;
    ``sides`` (S, 2): group on the left and right. ``beside`` and ``touching`` (n, 2): pairs of groups that share an
    edge, or a corner, on a seam.
    """

    corners: Int64
    leaving: Int64
    sides: Int64
    beside: Int64
    touching: Int64


def find_seams(
    pieces: Sequence[Piece], bases: Int64, codes: NDArray[np.uint16], box: Box, scene: Box | None
) -> Seams:
    """Walks every line between ``pieces``, and the edge of the ``scene`` if they fill it (``scene`` is not None).

    ``bases``: number of the first group of each piece; ``codes``: label of every group; ``box``: what the pieces fill.
    """
    rows: dict[int, Int64] = {}
    cols: dict[int, Int64] = {}
    for piece, base in zip(pieces, bases, strict=True):
        core = piece.box.relative_to(box)
        top, bottom, left, right = (np.where(line >= 0, line + base, -1) for line in piece.lines())
        in_cols, in_rows = slice(core.col, core.stop_col), slice(core.row, core.stop_row)
        _line(rows, core.row, box.width)[1, in_cols] = top
        _line(rows, core.stop_row, box.width)[0, in_cols] = bottom
        _line(cols, core.col, box.height)[1, in_rows] = left
        _line(cols, core.stop_col, box.height)[0, in_rows] = right
    cuts_down, cuts_across = (np.array(sorted(lines), np.int64) for lines in (rows, cols))
    if scene is None:
        for lines, length in ((rows, box.height), (cols, box.width)):
            lines.pop(0, None)
            lines.pop(length, None)
    class_of = np.append(codes.astype(np.int64), [0, 0])  # indexes -2 and -1
    down = [
        _seam(sides, class_of, cuts_across).placed(row, box, along_row=True) for row, sides in rows.items()
    ]
    across = [
        _seam(sides, class_of, cuts_down).placed(col, box, along_row=False) for col, sides in cols.items()
    ]
    return _concatenate(down + across)


def _line(lines: dict[int, Int64], at: int, length: int) -> Int64:
    """(2, length): the groups before and after the line."""
    if at not in lines:
        lines[at] = np.full((2, length), OUTSIDE, np.int64)
    return lines[at]


@dataclass(frozen=True)
class _Seam:
    start: Int64
    stop: Int64
    before: Int64
    after: Int64
    beside: Int64
    touching: Int64

    def placed(self, at: int, box: Box, *, along_row: bool) -> Seams:
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
        corners = np.stack([np.stack(end, axis=1) for end in ends], axis=1) + np.array([box.row, box.col])
        directions = np.tile(np.array(leaving, np.int64), (line.size, 1))
        return Seams(corners, directions, np.stack(sides, axis=1), self.beside, self.touching)


def _seam(sides: Int64, class_of: Int64, cuts: Int64) -> _Seam:
    """One line cut wherever another boundary may meet it: where a class changes on either side, and at ``cuts``."""
    length = sides.shape[1]
    classes = class_of[sides]
    changes = np.flatnonzero((classes[:, 1:] != classes[:, :-1]).any(axis=0)) + 1
    at = np.unique(np.concatenate([changes, cuts[cuts <= length], [0, length]]))
    start, stop = at[:-1], at[1:]
    before, after = sides[:, start]
    inner = at[1:-1]
    falling = np.stack([sides[0, inner - 1], sides[1, inner]], axis=1)
    rising = np.stack([sides[0, inner], sides[1, inner - 1]], axis=1)
    edge = classes[0, start] != classes[1, start]
    beside, diagonal = np.stack([before, after], axis=1), np.concatenate([falling, rising])
    return _Seam(
        start[edge],
        stop[edge],
        before[edge],
        after[edge],
        beside[(beside >= 0).all(axis=1)],
        diagonal[(diagonal >= 0).all(axis=1)],
    )


def _concatenate(parts: Sequence[Seams]) -> Seams:
    def joint(name: str, shape: tuple[int, ...]) -> Int64:
        arrays = [np.empty((0, *shape), np.int64), *(getattr(part, name) for part in parts)]
        return cast(Int64, np.concatenate(arrays))

    shapes = {"corners": (2, 2), "leaving": (2,), "sides": (2,), "beside": (2,), "touching": (2,)}
    return Seams(*(joint(name, shape) for name, shape in shapes.items()))
