"""Which window comes next: a pure function of the seed and the window's number.

A window is drawn in three steps: a source, by its weight; a cell of it, uniformly over labelled training ground or, for
a share of the windows, over the ground of one class, rare ones more often; a place of the window around that cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.training.census import TRAIN, Census, Roles
from rssegment.training.recipe import Recipe

__all__ = ["Sampler", "Window", "cells_mask"]

_RAREST = 1e-3  # a class with less of the ground than this is drawn as often as one with as much
_FEW_CELLS = (
    16  # a class in fewer cells is drawn less often, or the same few windows would come again and again
)
_PLACES = 4  # at which a window is tried before one that holds ground of no training is taken


class Window(NamedTuple):
    """The ``box`` of scene number ``scene``; it may reach beyond the scene."""

    scene: int
    box: Box


@dataclass(frozen=True, eq=False)
class _Cells:
    """Cells to draw from: flat ``indices`` over all scenes, and the running sum of their weights."""

    indices: NDArray[np.int64]
    sums: NDArray[np.float64]

    @classmethod
    def of(cls, indices: NDArray[np.int64], weights: NDArray[np.float64]) -> _Cells:
        return cls(indices, np.cumsum(weights))

    def draw(self, number: float) -> int:
        """The cell at ``number``, uniform in [0, 1)."""
        place = int(np.searchsorted(self.sums, number * self.sums[-1], "right"))
        return int(self.indices[min(place, len(self.indices) - 1)])


@dataclass(frozen=True, eq=False)
class _Source:
    """The training ground of a source: ``cells`` all of it, ``classes`` those of each class, drawn by ``chances``."""

    name: str
    area: float
    cells: _Cells
    classes: tuple[_Cells, ...]
    chances: NDArray[np.float64]


class Sampler:
    """Windows of ``recipe.window`` px from the training cells of ``roles``.

    ``balance`` of the windows are drawn around a class: class c with a chance that goes as 1 / sqrt(its share of the
    source's labelled ground), less for classes that few cells hold; among the pixels of the class uniformly. Others
    are drawn uniformly over labelled ground. The cell that was drawn lies wholly in the window, near its middle,
    unless cells are larger than windows. A window reaches beyond its scene by no more than what turning and zooming
    need around a patch, or where the scene is smaller than a window. Where it holds other cells than of training,
    those are to be taken for no data (:meth:`mask`): a window with none of them is preferred.

    Raises
    ------
    InputError
        There is no labelled training ground, or the weights of sources add up to too much.
    """

    def __init__(self, census: Census, roles: Roles, recipe: Recipe) -> None:
        self.roles, self.cell, self.seed = roles, census.cell, recipe.seed
        self.side, self.patch, self.balance = recipe.window, recipe.sample.patch, recipe.sample.balance
        self.shapes = [scene.shape for scene in census.scenes]
        self._starts = np.cumsum([0, *(cells.size for cells in roles)])
        self._closed = tuple(_integral(cells != TRAIN) for cells in roles)
        self.sources = tuple(_sources(census, roles, self._starts))
        weights = {source.name: source.weight for source in recipe.sources}
        self.shares = _shares([(s.name, s.area, weights.get(s.name)) for s in self.sources])
        self._share_sums = np.cumsum(self.shares)

    def window(self, index: int, attempt: int = 0) -> Window:
        """The window of number ``index``; further attempts give others, where one turns out to be of no use."""
        rng = np.random.Generator(np.random.Philox(key=(self.seed << 32) + attempt, counter=index << 64))
        numbers = rng.random(6 + 2 * _PLACES).tolist()
        source = self.sources[_place(self._share_sums, numbers[0])]
        cells = source.cells
        if numbers[1] < self.balance:
            cells = source.classes[_place(source.chances, numbers[2])]
        scene, row, col = self._cell(cells.draw(numbers[3]))
        best, least = Box(0, 0, 0, 0), -1
        for place in range(_PLACES):
            box = self._around(scene, row, col, (numbers[6 + 2 * place], numbers[7 + 2 * place]))
            closed = self._closed_cells(scene, box)
            if least < 0 or closed < least:
                best, least = box, closed
            if not closed:
                break
        return Window(scene, best)

    def mask(self, window: Window, inside: Box) -> NDArray[np.bool_] | None:
        """Which pixels of ``inside``, the window's part in the scene, are in training cells; None for all."""
        if not self._closed_cells(window.scene, inside):
            return None
        return cells_mask(self.roles[window.scene], TRAIN, self.cell, inside)

    def _cell(self, index: int) -> tuple[int, int, int]:
        scene = int(np.searchsorted(self._starts, index, "right")) - 1
        return scene, *divmod(index - int(self._starts[scene]), self.roles[scene].shape[1])

    def _around(self, scene: int, row: int, col: int, numbers: Sequence[float]) -> Box:
        starts = [
            self._start(place * self.cell, length, number)
            for place, length, number in zip((row, col), self.shapes[scene], numbers, strict=True)
        ]
        return Box(starts[0], starts[1], self.side, self.side)

    def _start(self, cell: int, length: int, number: float) -> int:
        """Where a window begins, on one axis, that holds the cell which begins at ``cell``."""
        side, reach = self.side, (self.side - self.patch) // 2
        least, most = sorted(
            (-reach, length + reach - side)
        )  # the patch in the scene, or the scene in the patch
        if length <= self.patch:
            low, high = least, most
        else:
            # the cell's middle in the middle half of the patch, which augmentation leaves in view
            stop = min(cell + self.cell, length)
            middle, half = (cell + stop - side) // 2, self.patch // 4
            low, high = middle - half, middle + half
            if stop - cell <= side:  # the cell wholly
                low, high = max(low, stop - side), min(high, cell)
            low, high = min(max(low, least), most), min(max(high, least), most)
        return low + int(number * (high - low + 1))

    def _closed_cells(self, scene: int, box: Box) -> int:
        """Number of cells that aren't of training and share a pixel with ``box``."""
        sums, cell = self._closed[scene], self.cell
        rows, cols = sums.shape[0] - 1, sums.shape[1] - 1
        top, left = max(0, box.row // cell), max(0, box.col // cell)
        bottom, right = min(rows, -(-box.stop_row // cell)), min(cols, -(-box.stop_col // cell))
        return int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])


def cells_mask(roles: NDArray[np.uint8], role: int, cell: int, box: Box) -> NDArray[np.bool_]:
    """(H, W): which pixels of ``box``, inside the scene, lie in cells of ``role``."""
    rows = np.arange(box.row, box.stop_row) // cell
    cols = np.arange(box.col, box.stop_col) // cell
    found: NDArray[np.bool_] = (roles[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] == role)[
        np.ix_(rows - rows[0], cols - cols[0])
    ]
    return found


def _place(sums: NDArray[np.float64], number: float) -> int:
    """The entry at ``number``, uniform in [0, 1), of running sums."""
    return min(int(np.searchsorted(sums, number * sums[-1], "right")), len(sums) - 1)


def _integral(cells: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(rows + 1, cols + 1): sums over all cells above and to the left."""
    return np.pad(cells.cumsum(0, np.int32).cumsum(1, np.int32), ((1, 0), (1, 0)))


def _sources(census: Census, roles: Roles, starts: NDArray[np.int64]) -> list[_Source]:
    found = []
    for name in dict.fromkeys(scene.source for scene in census.scenes):
        numbers = [n for n, scene in enumerate(census.scenes) if scene.source == name]
        source = _source(name, numbers, census, roles, starts)
        if source is not None:
            found.append(source)
    if not found:
        raise InputError(
            "there is no labelled ground to train on: no source has role train, or split with some left"
        )
    return found


def _source(
    name: str, numbers: Sequence[int], census: Census, roles: Roles, starts: NDArray[np.int64]
) -> _Source | None:
    indices, areas = [], []
    for number in numbers:
        scene = census.scenes[number]
        counts = scene.counts[..., :-1].reshape(-1, len(census.codes))
        chosen = np.flatnonzero((roles[number].ravel() == TRAIN) & counts.any(1))
        indices.append(chosen + starts[number])
        areas.append(counts[chosen] * scene.resolution**2)
    cells, area = np.concatenate(indices), np.concatenate(areas)  # (n,), (n, N)
    if not len(cells):
        return None
    held = [np.flatnonzero(area[:, node]) for node in range(area.shape[1])]
    nodes = [node for node, rows in enumerate(held) if len(rows)]
    classes = tuple(_Cells.of(cells[held[node]], area[held[node], node]) for node in nodes)
    total = float(area.sum())
    shares = np.array([area[:, node].sum() / total for node in nodes])
    chances = np.maximum(shares, _RAREST) ** -0.5
    chances *= [min(1.0, len(held[node]) / _FEW_CELLS) for node in nodes]
    return _Source(name, total, _Cells.of(cells, area.sum(1)), classes, np.cumsum(chances / chances.sum()))


def _shares(sources: Sequence[tuple[str, float, float | None]]) -> NDArray[np.float64]:
    """Each source's share of the windows, from its name, labelled area and weight.

    Weights are shares; sources without one share what is left, by area. Where all have one, only their ratios matter.
    """
    given = sum(weight for _, _, weight in sources if weight is not None)
    open_area = sum(area for _, area, weight in sources if weight is None)
    if not open_area:
        return np.array([weight / given for _, _, weight in sources if weight is not None])
    if given >= 1:
        names = ", ".join(name for name, _, weight in sources if weight is None)
        raise InputError(
            f"the weights of sources add up to {given:g}, which leaves nothing for {names}: give those a weight "
            "too, or the others less than 1 together"
        )
    rest = (1 - given) / open_area
    return np.array([area * rest if weight is None else weight for _, area, weight in sources])
