"""Probabilities of a block, strip by strip, from overlapping patches.

Law: a pixel's bytes depend on the scene, the model, the lattice, the window and the batch size, never on the
block it is computed for. Patches sit on the scene's lattice, edges are mirrored by the pixel's place in the scene,
and every pixel adds up its patches in the lattice's order, each by one rounded product and one rounded sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rssegment.errors import ModelError, SettingsError
from rssegment.grid import Box, PatchLattice
from rssegment.model import LeafModel
from rssegment.predict.rows import PixelRows, PixelsLike
from rssegment.predict.runtime import Leased, leased
from rssegment.predict.window import Window, axis_patches, axis_weights

__all__ = ["Strip", "predict_strips"]

Index = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Finished rows of a block: ``box``, leaf ``probabilities`` (L, h, w) float32, and ``valid`` (h, w).

    Probabilities of invalid pixels mean nothing; they are 0 where nothing was computed.
    """

    box: Box
    probabilities: NDArray[np.float32]
    valid: NDArray[np.bool_]


def predict_strips(  # noqa: PLR0917
    read: Callable[[Box], PixelsLike],
    lattice: PatchLattice,
    core: Box,
    model: LeafModel | Leased,
    batch: int = 1,
    window: Window = "blend",
) -> Iterator[Strip]:
    """Leaf probabilities of ``core`` from the top down, in strips as high as the lattice's stride or so.

    ``read`` gives the pixels of a box inside the scene: ``values`` (C, h, w) and ``valid`` (h, w). Memory is in
    proportion to the patch's height times the core's width, not to the core's height. A batch always has
    ``batch`` patches: the last one is filled up.

    Raises
    ------
    ModelError
        The model failed or gave NaN, with the place.
    """
    if core.clip(Box.of(lattice.shape)) != core or not core.size:
        raise SettingsError(f"{core} is not inside a scene of {lattice.shape[0]} x {lattice.shape[1]} px")
    device = leased(model)
    pixels = PixelRows(read, lattice, core, device.model.fill, _columns(lattice, core, window))
    canvas = _Canvas(lattice, core, len(device.model.leaves), device.model.device, window)
    work = _Batches(device, batch, lattice)
    for index, probabilities in work.run(_patches(pixels, lattice, core, window)):
        # patches come in the lattice's order: rows above this one's first get nothing more
        yield from canvas.finish(lattice.start(index[0]), pixels)
        canvas.add(index, probabilities)
    yield from canvas.finish(core.stop_row, pixels)


def _columns(lattice: PatchLattice, core: Box, window: Window) -> range:
    return axis_patches(lattice, 1, core.col, core.stop_col, window)


def _patches(
    pixels: PixelRows, lattice: PatchLattice, core: Box, window: Window
) -> Iterator[tuple[Index, NDArray[np.float32]]]:
    """Patches with a valid pixel, in the lattice's order. Others would only say something about invalid pixels."""
    for row in axis_patches(lattice, 0, core.row, core.stop_row, window):
        pixels.advance(row)
        for col in _columns(lattice, core, window):
            if pixels.any_valid(row, col):
                yield (row, col), pixels.patch(col)


class _Canvas:
    """Sums of weighted probabilities for the rows of ``core`` that still get more; kept on the model's device."""

    def __init__(
        self, lattice: PatchLattice, core: Box, leaves: int, device: torch.device, window: Window
    ) -> None:
        self._lattice, self._core, self._window, self._device = lattice, core, window, device
        height = min(core.height, lattice.patch)
        self._sums = torch.zeros((leaves, height, core.width), device=device)
        self._row = core.row  # the scene's row of the first row of sums

    def add(self, index: Index, probabilities: Tensor) -> None:
        """Adds the part inside the core of a patch's probabilities (L, patch, patch)."""
        patch = self._lattice.box(index)
        part = patch.clip(self._core)
        if not part.size:
            return
        inside = part.relative_to(patch).slices
        weights = torch.from_numpy(
            np.outer(self._weights(0, index[0])[inside[0]], self._weights(1, index[1])[inside[1]])
        )
        target = part.shift(-self._row, -self._core.col).slices
        # two operators: a fused one rounds once or twice by where the pixel falls in a vector register
        with torch.inference_mode():  # in which the model's output may be changed in place
            weighted = probabilities[(slice(None), *inside)].mul_(weights.to(self._device))
            self._sums[(slice(None), *target)] += weighted

    def finish(self, row: int, pixels: PixelRows) -> Iterator[Strip]:
        """The rows above the scene's ``row``, which are complete; none twice."""
        stop = min(row, self._core.stop_row)
        while self._row < stop:
            height = min(stop - self._row, self._sums.shape[1])
            box = Box(self._row, self._core.col, height, self._core.width)
            yield Strip(box, self._take(height), pixels.take_valid(height))

    def _take(self, height: int) -> NDArray[np.float32]:
        done, rest = self._sums[:, :height], self._sums[:, height:]
        self._sums = torch.zeros_like(self._sums)
        self._sums[:, : rest.shape[1]] = rest
        self._row += height
        result: NDArray[np.float32] = done.cpu().numpy()
        return result

    def _weights(self, axis: int, k: int) -> NDArray[np.float32]:
        return axis_weights(self._lattice, axis, k, self._window)


class _Batches:
    """Runs patches in batches of one size, some batches ahead, and gives them back one by one in order."""

    def __init__(self, device: Leased, size: int, lattice: PatchLattice) -> None:
        self._device, self._size, self._lattice = device, size, lattice

    def run(self, patches: Iterator[tuple[Index, NDArray[np.float32]]]) -> Iterator[tuple[Index, Tensor]]:
        waiting: deque[tuple[list[Index], Future[Tensor]]] = deque()
        try:
            for indices, values in self._grouped(patches):
                waiting.append((indices, self._device.submit(values)))
                if len(waiting) > self._device.workers:  # one more than can run: no worker waits for reading
                    yield from self._result(*waiting.popleft())
            while waiting:
                yield from self._result(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _grouped(
        self, patches: Iterator[tuple[Index, NDArray[np.float32]]]
    ) -> Iterator[tuple[list[Index], Tensor]]:
        indices: list[Index] = []
        values = np.empty(0, np.float32)
        for index, patch in patches:
            if not indices:
                values = np.empty((self._size, *patch.shape), np.float32)
            values[len(indices)] = patch
            indices.append(index)
            if len(indices) == self._size:
                yield indices, torch.from_numpy(values)
                indices = []
        if indices:
            values[len(indices) :] = values[len(indices) - 1]  # a batch has one size
            yield indices, torch.from_numpy(values)

    def _result(self, indices: list[Index], future: Future[Tensor]) -> Iterator[tuple[Index, Tensor]]:
        try:
            probabilities = future.result()
        except ModelError as error:
            raise ModelError(f"{error} (in {self._place(indices)})") from error
        yield from zip(indices, probabilities, strict=False)

    def _place(self, indices: list[Index]) -> str:
        scene = Box.of(self._lattice.shape)
        boxes = [self._lattice.box(index).clip(scene) for index in indices]
        rows = f"rows {min(b.row for b in boxes)} to {max(b.stop_row for b in boxes) - 1}"
        cols = f"columns {min(b.col for b in boxes)} to {max(b.stop_col for b in boxes) - 1}"
        return f"{rows}, {cols} of the model's grid"
