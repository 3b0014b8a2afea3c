"""Windows of labelled scenes as arrays: random ones to train on, a lattice of them to validate on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from rssegment.errors import ReadError
from rssegment.grid import Box, PatchLattice, reflect
from rssegment.training.batch import Batch
from rssegment.training.cache import PixelCache
from rssegment.training.census import VALIDATION, Census, Roles
from rssegment.training.ground import LabelledScene, Sample
from rssegment.training.sampling import Sampler, Window, cells_mask

__all__ = ["ValidationBatch", "ValidationWindows", "Windows"]

_ATTEMPTS = 8
_ALIGNED = 64  # bytes


class ValidationBatch(NamedTuple):
    """Windows to be scored, and their ``regions``; labels of ``batch`` are 0 outside of ``scored`` (B, H, W) bool."""

    batch: Batch
    scored: torch.Tensor
    regions: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A batch while it is filled, 0 and not valid where nothing was read: arrays on the memory of ``tensors``."""

    tensors: tuple[torch.Tensor, ...]
    values: NDArray[Any]
    labels: NDArray[np.int32]
    valid: NDArray[np.bool_]
    present: NDArray[np.bool_]
    scored: NDArray[np.bool_]

    @classmethod
    def empty(
        cls, count: int, bands: int, side: int, dtype: np.dtype[Any], *, scored: bool = False
    ) -> _Arrays:
        """All in one piece of memory, so that it goes from process to process as one."""
        area = (count, side, side)
        parts: list[tuple[tuple[int, ...], Any]] = [((count, bands, side, side), dtype), (area, np.int32)]
        parts += [
            (area, np.bool_),
            ((count, bands), np.bool_),
            (area if scored else (0, side, side), np.bool_),
        ]
        sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in parts]
        starts = list(accumulate((-(-size // _ALIGNED) * _ALIGNED for size in sizes), initial=0))
        memory = _zeros(starts[-1])
        tensors = tuple(
            memory[start : start + size].view(_tensor_type(kind)).view(shape)
            for start, size, (shape, kind) in zip(starts, sizes, parts, strict=False)
        )
        return cls(tensors, *(each.numpy() for each in tensors))

    def batch(self) -> Batch:
        return Batch(*self.tensors[:4])


def _zeros(size: int) -> torch.Tensor:
    """(size,) uint8; in a worker memory that the main process can see, which saves a copy."""
    if get_worker_info() is None:
        return torch.from_numpy(np.zeros(size, np.uint8))
    # as torch's own collate function does; such memory is new, so 0
    return torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))  # type: ignore[no-untyped-call]


def _tensor_type(kind: Any) -> torch.dtype:
    return torch.from_numpy(np.empty(0, kind)).dtype


class Windows(Dataset[Batch]):
    """The sampler's windows, read through ``cache``; item ``i`` is the window of number ``i``, without end.

    What lies in cells that aren't of training has no label, no data and values of 0, so no pixel of a window is nearer
    to validation ground of any scene than the split's gap, unless both scenes are wholly for one purpose. A window that
    turns out to have no label is drawn again, a few times. ``values`` have the type of the scenes, or one that holds
    all of theirs.
    """

    def __init__(self, scenes: Sequence[LabelledScene], sampler: Sampler, cache: PixelCache) -> None:
        self.scenes, self.sampler, self.cache = tuple(scenes), sampler, cache
        self.dtype = common_type(scenes)

    def __getitem__(self, index: int) -> Batch:
        """One window: a Batch whose tensors lack the first axis."""
        return Batch(*(part[0] for part in self.__getitems__([index])))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The windows of these numbers side by side.

        Raises
        ------
        ReadError
            Pixels can't be read; names the scene and the place.
        """
        bands = len(self.scenes[0].present)
        arrays = _Arrays.empty(len(indices), bands, self.sampler.side, self.dtype)
        for place, index in enumerate(indices):
            self._fill(arrays, place, index)
        return arrays.batch()

    def _fill(self, arrays: _Arrays, place: int, index: int) -> None:
        for attempt in range(_ATTEMPTS):
            window = self.sampler.window(index, attempt)
            scene = self.scenes[window.scene]
            inside = window.box.clip(Box.of(scene.shape))
            sample = _read(self.cache, scene, inside)
            mask = self.sampler.mask(window, inside)
            labels = sample.labels if mask is None else sample.labels * mask
            if labels.any():
                break
        down, across = inside.relative_to(window.box).slices
        arrays.values[place, :, down, across] = sample.values if mask is None else sample.values * mask
        arrays.valid[place, down, across] = sample.valid if mask is None else sample.valid & mask
        arrays.labels[place, down, across] = labels
        arrays.present[place] = scene.present


class ValidationWindows(Dataset[ValidationBatch]):
    """Patches of the inference's lattice over validation ground: each of its pixels is scored in one of them.

    Patches of ``patch`` px share ``overlap``; the middle of each is scored, as far as it is validation ground. Around
    it is what the scene holds there, mirrored at the scene's edges, as when a map is made. Patches without any label to
    score are left out.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene],
        census: Census,
        roles: Roles,
        cache: PixelCache,
        *,
        patch: int,
        overlap: int,
    ) -> None:
        self.scenes, self.roles, self.cache, self.cell = tuple(scenes), roles, cache, census.cell
        self.patch, self.overlap = patch, min(overlap, patch // 2)
        self.dtype = common_type(scenes)
        self.windows = tuple(
            Window(number, box)
            for number, scene in enumerate(census.scenes)
            for box in self._boxes(scene.shape, (roles[number] == VALIDATION) & (scene.labelled > 0))
        )

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> ValidationBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> ValidationBatch:
        """These windows side by side.

        Raises
        ------
        ReadError
            Pixels can't be read; names the scene and the place.
        """
        bands = len(self.scenes[0].present)
        arrays = _Arrays.empty(len(indices), bands, self.patch, self.dtype, scored=True)
        for place, index in enumerate(indices):
            self._fill(arrays, place, self.windows[index])
        regions = tuple(self.scenes[self.windows[index].scene].region for index in indices)
        return ValidationBatch(arrays.batch(), arrays.tensors[4], regions)

    def core(self, window: Window) -> Box:
        """The pixels of the scene that this window alone scores, where they are validation ground."""
        margin, stride = self.overlap // 2, self.patch - self.overlap
        middle = Box(window.box.row + margin, window.box.col + margin, stride, stride)
        return middle.clip(Box.of(self.scenes[window.scene].shape))

    def _boxes(self, shape: tuple[int, int], cells: NDArray[np.bool_]) -> Iterable[Box]:
        """Patches in whose middle is one of ``cells``."""
        lattice = PatchLattice(shape, self.patch, self.overlap)
        sides = [np.arange(count) * lattice.stride for count in lattice.lattice_shape]
        for row, top in enumerate(sides[0].tolist()):
            for col, left in enumerate(sides[1].tolist()):
                core = Box(top, left, lattice.stride, lattice.stride)
                part = Box.between(
                    core.row // self.cell,
                    core.col // self.cell,
                    -(-core.stop_row // self.cell),
                    -(-core.stop_col // self.cell),
                )
                if cells[part.slices].any():
                    yield lattice.box((row, col))

    def _fill(self, arrays: _Arrays, place: int, window: Window) -> None:
        scene, box = self.scenes[window.scene], window.box
        rows = reflect(np.arange(box.row, box.stop_row), scene.shape[0])
        cols = reflect(np.arange(box.col, box.stop_col), scene.shape[1])
        needed = Box.between(int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1)
        sample = _read(self.cache, scene, needed)
        mirrored = np.ix_(rows - needed.row, cols - needed.col)
        arrays.values[place] = sample.values[:, mirrored[0], mirrored[1]]
        arrays.valid[place] = sample.valid[mirrored]
        arrays.present[place] = scene.present
        core = self.core(window)
        inner, scored = core.relative_to(box).slices, arrays.scored[place]
        labels = sample.labels[core.relative_to(needed).slices]
        scored[inner] = cells_mask(self.roles[window.scene], VALIDATION, self.cell, core) & (labels > 0)
        arrays.labels[place][inner] = labels * scored[inner]


def common_type(scenes: Sequence[LabelledScene]) -> np.dtype[Any]:
    """A type that holds the values of all ``scenes``, and that tensors have; 32-bit floats for wider ones."""
    found: np.dtype[Any] = np.result_type(*(np.dtype(scene.dtype) for scene in scenes)).newbyteorder("=")
    return found if found.kind in "iu" and found.itemsize <= 2 else np.dtype(np.float32)


def _read(cache: PixelCache, scene: LabelledScene, box: Box) -> Sample:
    """Pixels, or an error that names the scene and the place."""
    try:
        return cache.read(scene, box)
    except (ReadError, OSError) as error:
        if scene.name in str(error):
            raise
        raise ReadError(
            f"can't read rows {box.row} to {box.stop_row - 1}, columns {box.col} to {box.stop_col - 1} of {scene.name}"
            f" (pixels of {scene.resolution:g} m; source {scene.source}): {error}"
        ) from error
