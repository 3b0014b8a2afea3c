"""One pass over all labelled ground: which classes lie where, and what the bands' values are.

Scenes are counted in *cells*, squares of a few pixels that are anchored at the scene's origin. Split and sampling work
on cells alone; so all that needs pixels is done once, and its file spares a second training the pass.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import BlockGrid, Box
from rssegment.run.cores import cores
from rssegment.run.progress import Progress
from rssegment.taxonomy import Taxonomy
from rssegment.training._census_kernels import measure_cells
from rssegment.training.cache import BLOCK, PixelCache
from rssegment.training.ground import LabelledScene
from rssegment.training.outliers import outlier
from rssegment.write.atomic import staged

__all__ = ["TRAIN", "UNUSED", "VALIDATION", "BandStatistics", "Census", "Roles", "SceneCensus", "take_census"]

UNUSED, TRAIN, VALIDATION = 0, 1, 2
"""Roles of a cell."""

Roles = tuple[NDArray[np.uint8], ...]
"""For each scene its cells' roles (rows, cols)."""

_CELL, _LARGEST_CELL = 32, 128  # px; the counts of a cell must fit 16 bits
_CELLS_AT_MOST = 2_000_000
_SUMS, _SQUARES, _LEAST, _GREATEST = range(4)
_FORM = 1  # of the file


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """Of each band (C,), in stored units, over so many ``pixels`` of training ground."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pixels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SceneCensus:
    """A scene's cells. ``counts`` (rows, cols, N + 1) uint16: pixels by the row of their label's node, those with data
    and no label last. ``sums`` (rows, cols, 4, C) float64: of values and of squares, least and greatest, with data."""

    name: str
    source: str
    shape: tuple[int, int]
    resolution: float
    present: tuple[bool, ...]
    counts: NDArray[np.uint16]
    sums: NDArray[np.float64]

    @property
    def labelled(self) -> NDArray[np.int64]:
        """(rows, cols): pixels with a label."""
        return np.asarray(self.counts[..., :-1].sum(-1, dtype=np.int64))

    @property
    def valid(self) -> NDArray[np.int64]:
        """(rows, cols): pixels with data."""
        return np.asarray(self.counts.sum(-1, dtype=np.int64))

    @property
    def classes(self) -> NDArray[np.int64]:
        """(N,): pixels by node."""
        return np.asarray(self.counts[..., :-1].sum((0, 1), dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Census:
    """What was found in each scene, by cells of side ``cell`` px; ``codes`` (N,) are the nodes' in pre-order.

    ``remarks`` tell what a user should know, as of scenes without any label.
    """

    cell: int
    codes: NDArray[np.uint16]
    scenes: tuple[SceneCensus, ...]
    key: str
    remarks: tuple[str, ...] = ()

    def pixels(self, roles: Roles, role: int = TRAIN) -> NDArray[np.int64]:
        """(N,): labelled pixels by node in the cells of ``role``."""
        parts = [scene.counts[cells == role].sum(0, dtype=np.int64) for scene, cells in self._with(roles)]
        return np.asarray(np.sum(parts, axis=0)[:-1])

    def area(self, roles: Roles, role: int = TRAIN) -> float:
        """Labelled ground (m²) in the cells of ``role``."""
        parts = [
            float(scene.labelled[cells == role].sum()) * scene.resolution**2
            for scene, cells in self._with(roles)
        ]
        return math.fsum(parts)

    def statistics(self, roles: Roles, names: Sequence[str] = ()) -> BandStatistics:
        """Bands over all pixels with data in training cells, labelled or not; the same whatever the order of reading.

        ``names`` are the bands'; without them messages count.

        Raises
        ------
        InputError
            No training ground has a band, or ground with a role has a value in one that can be no measurement and
            would decide mean and deviation alone.
        """
        bands = range(len(self.scenes[0].present))
        called = names or [f"{band + 1} of the recipe" for band in bands]
        for band in bands:
            self._check_band(roles, band, called[band])
        found = [self._band(roles, band, called[band]) for band in bands]
        mean, std, low, high, pixels = (np.array(column) for column in zip(*found, strict=True))
        return BandStatistics(mean, std, low, high, pixels)

    def _check_band(self, roles: Roles, band: int, name: str) -> None:
        """Refuses values in cells with a role that are undeclared fill."""
        seen = [
            (scene, np.argwhere((cells != UNUSED) & (scene.valid > 0)))
            for scene, cells in self._with(roles)
            if scene.present[band]
        ]
        if not seen:
            return
        sums = np.concatenate([scene.sums[(*places.T, slice(None), band)] for scene, places in seen])
        valid = np.concatenate([scene.valid[tuple(places.T)] for scene, places in seen])
        found = outlier(sums[:, _LEAST], sums[:, _GREATEST], np.sqrt(sums[:, _SQUARES] / valid))
        if found is None:
            return
        scene, place = [(scene, place) for scene, places in seen for place in places][found.cell]
        raise InputError(
            f"{scene.name} of source {scene.source!r} has the value {found.value:g} in band {name}, "
            f"{_in_cell(place, self.cell, scene.shape)}, far from all others: it can't be measured, and alone would "
            "decide the band's mean and deviation; declare it as no data (gdal_edit.py -a_nodata), or mend the file"
        )

    def _band(self, roles: Roles, band: int, name: str) -> tuple[float, float, float, float, int]:
        having = [(scene, cells) for scene, cells in self._with(roles) if scene.present[band]]
        chosen = [scene.sums[(cells == TRAIN) & (scene.valid > 0)][:, :, band] for scene, cells in having]
        pixels = sum(int(scene.valid[cells == TRAIN].sum()) for scene, cells in having)
        if not pixels:
            raise InputError(
                f"no training ground has band {name}: leave it out of bands, or add a source that has it"
            )
        cells = np.concatenate(chosen)
        # exact sums: no order or grouping shows in the last bits
        mean = math.fsum(cells[:, _SUMS].tolist()) / pixels
        low, high = float(cells[:, _LEAST].min()), float(cells[:, _GREATEST].max())
        # of one value all over the difference is what rounding leaves
        variance = math.fsum(cells[:, _SQUARES].tolist()) / pixels - mean**2 if low < high else 0.0
        return mean, math.sqrt(max(0.0, variance)), low, high, pixels

    def _with(self, roles: Roles) -> Iterable[tuple[SceneCensus, NDArray[np.uint8]]]:
        return zip(self.scenes, roles, strict=True)

    def save(self, path: Path) -> None:
        """Writes the counts to a file, whole or not at all."""
        arrays: dict[str, Any] = {"key": np.array(self.key)}
        for number, scene in enumerate(self.scenes):
            arrays[f"counts{number}"], arrays[f"sums{number}"] = scene.counts, scene.sums
        with staged(path, durable=False) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path, scenes: Sequence[LabelledScene], taxonomy: Taxonomy) -> Self | None:
        """The census in a file; None where there is none of these very scenes, or it is damaged."""
        empty = cls._empty(scenes, taxonomy)
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file["key"]) != empty.key:
                    return None
                found = [
                    replace(scene, counts=file[f"counts{number}"], sums=file[f"sums{number}"])
                    for number, scene in enumerate(empty.scenes)
                ]
        except (OSError, ValueError, KeyError, EOFError, _bad_zip()):
            return None
        return replace(empty, scenes=tuple(found))._checked()

    @classmethod
    def _empty(cls, scenes: Sequence[LabelledScene], taxonomy: Taxonomy) -> Self:
        cell, codes = _cell_side(scenes), taxonomy.arrays.codes
        about = [[scene.fingerprint, scene.shape, scene.dtype, scene.present] for scene in scenes]
        text = json.dumps([_FORM, cell, codes.tolist(), about])
        found = tuple(_empty_scene(scene, cell, len(codes)) for scene in scenes)
        return cls(cell, codes, found, hashlib.sha256(text.encode()).hexdigest())

    def _checked(self) -> Self:
        """The same with remarks on scenes without labels.

        Raises
        ------
        InputError
            No scene has any label.
        """
        bare = [scene.name for scene in self.scenes if not scene.labelled.any()]
        names = ", ".join(bare[:10]) + (f" and {len(bare) - 10} more" if len(bare) > 10 else "")
        if len(bare) == len(self.scenes):
            raise InputError(
                f"no pixel of {names or 'any scene'} has both data and a label: check that images and labels overlap, "
                "and that the sources' mappings lead to classes of the taxonomy"
            )
        if not bare:
            return self
        return replace(self, remarks=(f"no pixel has a label in {names}: of no use for training",))


def take_census(
    scenes: Sequence[LabelledScene],
    taxonomy: Taxonomy,
    cache: PixelCache,
    progress: Progress | None = None,
    *,
    path: Path | None = None,
    threads: int | None = None,
) -> Census:
    """Counts all scenes, through ``cache``, which is full afterwards; or takes what ``path`` holds, if it is of them.

    Law: the same for any number of ``threads``. ``path`` is written when all is counted.

    Raises
    ------
    InputError
        No scene has a label, a label is no code of the taxonomy, or a value is infinite; names the scene.
    ReadError
        A file can't be read.
    """
    if not scenes:
        raise InputError("there is no labelled scene: check the paths of the recipe's sources")
    if path is not None and (known := Census.load(path, scenes, taxonomy)) is not None:
        return known
    census = Census._empty(scenes, taxonomy)
    rows = _columns(taxonomy)
    jobs = [(n, block.core) for n, scene in enumerate(scenes) for block in BlockGrid(scene.shape, BLOCK)]

    def work(job: tuple[int, Box]) -> int:
        number, box = job
        _count_block(scenes[number], box, cache, census.scenes[number], (rows, census.cell))
        return box.size

    pixels = 0
    for done, size in enumerate(_on_threads(work, jobs, threads or cores()), 1):
        pixels += size
        if progress is not None:
            progress("counting classes", done, len(jobs), pixels)
    census = census._checked()
    if path is not None:
        census.save(path)
    return census


def _count_block(
    scene: LabelledScene, box: Box, cache: PixelCache, found: SceneCensus, how: tuple[NDArray[np.int32], int]
) -> None:
    rows, cell = how
    sample = cache.read(scene, box)
    height, width = -(-box.height // cell), -(-box.width // cell)
    place = slice(box.row // cell, box.row // cell + height), slice(box.col // cell, box.col // cell + width)
    counts = np.zeros((height, width, found.counts.shape[-1]), np.uint16)
    sums = _no_sums(height, width, len(sample.values))
    values = np.ascontiguousarray(sample.values, np.float64)
    labels, valid = np.ascontiguousarray(sample.labels), np.ascontiguousarray(sample.valid)
    code: int = measure_cells(values, labels, valid, rows, cell, counts, sums)  # type: ignore[no-untyped-call]
    if code:
        raise InputError(
            f"{scene.name} has the label {code}, which is no class of the taxonomy: mend the mapping of {scene.source}"
        )
    if not np.isfinite(sums[:, :, :_LEAST]).all():
        raise InputError(
            f"{scene.name} holds values in rows {box.row} to {box.stop_row - 1}, columns {box.col} to "
            f"{box.stop_col - 1} that are infinite, or too large to square: declare them as no data"
        )
    found.counts[place], found.sums[place] = counts, sums


def _on_threads(
    work: Callable[[tuple[int, Box]], int], jobs: Iterable[tuple[int, Box]], threads: int
) -> Iterable[int]:
    """Results as they are done, with few jobs ahead; a failure or an interrupt ends it at once."""
    queue = iter(jobs)
    with ThreadPoolExecutor(threads, thread_name_prefix="census") as pool:
        running: set[Future[int]] = set()
        try:
            while True:
                running |= {pool.submit(work, job) for job in islice(queue, 2 * threads - len(running))}
                if not running:
                    return
                done = next(as_completed(running))
                running.discard(done)
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_cell(place: NDArray[np.int64], cell: int, shape: tuple[int, int]) -> str:
    """Where a cell is, in words."""
    (row, col), (rows, cols) = (place * cell).tolist(), shape
    return f"rows {row} to {min(row + cell, rows) - 1}, columns {col} to {min(col + cell, cols) - 1}"


def _cell_side(scenes: Sequence[LabelledScene]) -> int:
    """The side that keeps the number of cells in bounds, so that memory is."""
    pixels, side = sum(scene.shape[0] * scene.shape[1] for scene in scenes), _CELL
    while side < _LARGEST_CELL and pixels > _CELLS_AT_MOST * side**2:
        side *= 2
    return side


def _columns(taxonomy: Taxonomy) -> NDArray[np.int32]:
    """(65536,): each code's column of the counts, -1 for no code; 0 has the last."""
    codes = taxonomy.arrays.codes
    columns = np.full(65536, -1, np.int32)
    columns[codes] = np.arange(len(codes))
    columns[0] = len(codes)
    return columns


def _empty_scene(scene: LabelledScene, cell: int, nodes: int) -> SceneCensus:
    height, width = -(-scene.shape[0] // cell), -(-scene.shape[1] // cell)
    counts = np.zeros((height, width, nodes + 1), np.uint16)
    sums = _no_sums(height, width, len(scene.present))
    return SceneCensus(scene.name, scene.source, scene.shape, scene.resolution, scene.present, counts, sums)


def _no_sums(height: int, width: int, bands: int) -> NDArray[np.float64]:
    sums = np.zeros((height, width, 4, bands))
    sums[:, :, _LEAST], sums[:, :, _GREATEST] = np.inf, -np.inf
    return sums


def _bad_zip() -> type[Exception]:
    from zipfile import BadZipFile

    return BadZipFile
