"""A scene: one georeferenced pixel grid, whatever it is stored as."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment import grid
from rssegment.config import SceneOptions
from rssegment.errors import SceneError
from rssegment.grid import Box
from rssegment.scene import describe, fingerprint
from rssegment.scene.bands import Band, distinct_names, pick
from rssegment.scene.checks import check_dtypes, check_same_grid
from rssegment.scene.reading import read_validity, read_values
from rssegment.scene.resample import Taps, best_level, resample, resample_valid, taps
from rssegment.scene.source import Inspected, Source, inspect_source, locate
from rssegment.scene.validity import with_nodata

__all__ = ["Pixels", "Scene"]

Location = str | os.PathLike[str]

STEP_BYTES = 64 << 20  # input of one step of resampling
LOOK_BYTES = 8 << 20  # of one step of looking for a valid pixel
SAME_RESOLUTION = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """What a box of a scene holds: ``values`` ``(C, H, W)`` float32, 0 where ``valid`` ``(H, W)`` is false."""

    values: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """One georeferenced pixel grid: a value that holds no open file and can be pickled.

    ``bands`` are the chosen bands in order. ``native`` is the files' grid; ``geobox`` the same, or one over the
    same ground with other pixels (:meth:`on_grid`). ``warnings`` tell what a user should look at.
    """

    name: str
    geobox: GeoBox
    bands: tuple[Band, ...]
    sources: tuple[Source, ...]
    native: GeoBox
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def open(cls, source: Location | Sequence[Location], options: SceneOptions | None = None) -> Scene:
        """The scene in one raster (a path or URL), or in several files on one pixel grid.

        Bands are counted from 1 over all files, alpha bands included. An alpha band makes pixels invalid and isn't
        among the scene's bands, unless ``options.bands`` names it: then it is a band like others.
        ``options.crs`` outranks the file's CRS (with a warning) and ``options.nodata`` its nodata values.

        Raises
        ------
        SceneError
            The raster can't be opened, placed on the Earth or used as asked; says why and what to do.
        """
        options = options or SceneOptions()
        paths = _paths(source)
        files = [inspect_source(path, options, alone=len(paths) == 1) for path in paths]
        check_same_grid([file.geobox for file in files], paths)
        name = Path(paths[0].rstrip("/")).stem or paths[0]
        everything = distinct_names([band for file in files for band in file.bands], len(files) > 1)
        alphas = {(file.source.path, file.source.alpha) for file in files if file.source.alpha is not None}
        if options.bands is not None:
            bands = pick(everything, options.bands, name)
        else:
            bands = tuple(band for band in everything if (band.source, band.index) not in alphas)
        if not bands:
            raise SceneError(f"{name} has an alpha band only; expected at least one band of data")
        check_dtypes(bands, name)
        bands, about_nodata = with_nodata(bands, options.nodata, name)
        warnings = dict.fromkeys((*(w for file in files for w in file.warnings), *about_nodata))
        sources = tuple(_without_chosen_alpha(file, bands) for file in files)
        return cls(
            name, files[0].geobox, bands, _with_common_overviews(sources), files[0].geobox, tuple(warnings)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, cols = self.geobox.shape
        return int(rows), int(cols)

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.bands)

    @property
    def dtype(self) -> str:
        """Name of the numpy type that all bands are stored in; ``read`` gives float32 whatever it is."""
        return self.bands[0].dtype

    @property
    def scaled(self) -> bool:
        """Whether ``read`` applies a scale or an offset, so that values aren't the stored ones."""
        return any(band.scaled for band in self.bands)

    @property
    def doubtful(self) -> str | None:
        """What a user calls an alpha band that looks like image data and was not chosen as such; None if none does."""
        found = [source.alpha for source in self.sources if source.alpha is not None and source.doubtful]
        return (str(found[0]) if len(self.sources) == 1 else "alpha") if found else None

    @cached_property
    def ground_resolution(self) -> tuple[float, float]:
        """Size of the central pixel on the ground (metres, down and across)."""
        return grid.ground_resolution(self.geobox)

    @cached_property
    def factor(self) -> tuple[float, float]:
        """Size of a pixel in pixels of the files, (down, across)."""
        inverse = ~self.native.affine * self.geobox.affine
        return float(inverse.e), float(inverse.a)

    @property
    def resampled(self) -> bool:
        """Whether the scene's grid isn't the files'."""
        return bool(self.geobox != self.native)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key in self.__dataclass_fields__}

    def select(self, bands: Sequence[int | str]) -> Scene:
        """The scene with these of its bands, in this order: places from 1, or names.

        Raises
        ------
        SceneError
            A band that the scene lacks; lists those it has.
        """
        return replace(self, bands=pick(self.bands, bands, self.name))

    def on_grid(self, resolution: float) -> Scene:
        """The scene over the same ground with pixels of ``resolution`` metres, which share origin and axes.

        Larger pixels are means (of overviews, where those are fine enough), smaller ones linear interpolations;
        no-data pixels take no part. The same scene if its pixels differ by less than 1 %.
        """
        if not resolution > 0:
            raise SceneError(f"ground resolution is {resolution} m; it must be more than 0")
        for scene in (self, replace(self, geobox=self.native)):
            if all(abs(metres / resolution - 1) <= SAME_RESOLUTION for metres in scene.ground_resolution):
                return scene
        down, across = grid.ground_resolution(self.native)
        return replace(self, geobox=grid.scaled_geobox(self.native, (resolution / down, resolution / across)))

    def read(self, box: Box) -> Pixels:
        """The pixels of ``box``, which must lie inside the scene; ``stored * scale + offset`` in float32.

        Law: byte for byte the same as that part of a read of the whole scene.

        Raises
        ------
        SceneError
            The box reaches beyond the scene.
        ReadError
            The file can't be read there.
        """
        self._check_inside(box)
        if not self.resampled:
            return Pixels(*read_values(self.sources, self.bands, box))
        values = np.empty((self.count, *box.shape), dtype=np.float32)
        valid = np.empty(box.shape, dtype=np.bool_)
        for part, level, rows, cols, needed in self._steps(box):
            inside = part.relative_to(box).slices
            pixels = read_values(self.sources, self.bands, needed, level)
            values[(slice(None), *inside)], valid[inside] = resample(
                *pixels, rows, cols, (needed.row, needed.col)
            )
        return Pixels(values, valid)

    def read_valid(self, box: Box) -> NDArray[np.bool_]:
        """Which pixels of ``box`` have data, ``(H, W)``: the same as ``read(box).valid``, at less cost.

        Raises
        ------
        SceneError
            The box reaches beyond the scene.
        ReadError
            The file can't be read there.
        """
        self._check_inside(box)
        valid = np.empty(box.shape, dtype=np.bool_)
        for part, found in self._validity(box):
            valid[part.relative_to(box).slices] = found
        return valid

    def any_valid(self, box: Box) -> bool:
        """Whether ``box`` has a valid pixel; exact, and stops at the first one.

        Raises
        ------
        SceneError
            The box reaches beyond the scene.
        ReadError
            The file can't be read there.
        """
        self._check_inside(box)
        return any(found.any() for _, found in self._validity(box, LOOK_BYTES))

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the scene is: see :mod:`rssegment.scene.fingerprint`."""
        return fingerprint.fingerprint(self)

    def describe(self) -> dict[str, Any]:
        """What the scene is and what to look at, as values for JSON."""
        return describe.describe(self)

    def _check_inside(self, box: Box) -> None:
        if box.clip(Box.of(self.shape)) != box or box.size == 0:
            raise SceneError(
                f"rows {box.row} to {box.stop_row - 1}, columns {box.col} to {box.stop_col - 1} aren't all inside "
                f"{self.name}, which has {self.shape[0]} rows and {self.shape[1]} columns"
            )

    def _validity(self, box: Box, step: int = STEP_BYTES) -> Iterator[tuple[Box, NDArray[np.bool_]]]:
        """Parts of ``box``, each read at the price of about ``step`` bytes, with their validity."""
        if not self.resampled:
            for part in _strips(box, max(256, step // (box.width * 4 * self.count))):
                yield part, read_validity(self.sources, self.bands, part)
            return
        for part, level, rows, cols, needed in self._steps(box, step):
            valid = read_validity(self.sources, self.bands, needed, level)
            yield part, resample_valid(valid, rows, cols, (needed.row, needed.col))

    def _steps(self, box: Box, step: int = STEP_BYTES) -> Iterator[tuple[Box, int | None, Taps, Taps, Box]]:
        """Parts of ``box``, each with the overview to read, the taps, and the box that those need of it.

        Parts keep the input of a step small; by the law of :mod:`resample` they don't change the result.
        """
        native = int(self.native.shape[0]), int(self.native.shape[1])
        level = best_level(native, self.sources[0].overviews, self.factor)
        shape = native if level is None else self.sources[0].overviews[level]
        down, across = (f * r / n for f, r, n in zip(self.factor, shape, native, strict=True))
        cols = taps(box.col, box.stop_col, across, shape[1])
        left, right = cols.span
        per_row = (right - left) * max(1.0, down) * 4 * self.count
        for part in _strips(box, max(1, int(step / per_row))):
            rows = taps(part.row, part.stop_row, down, shape[0])
            top, bottom = rows.span
            yield part, level, rows, cols, Box.between(top, left, bottom, right)


def _strips(box: Box, height: int) -> Iterator[Box]:
    for row in range(box.row, box.stop_row, height):
        yield Box(row, box.col, min(height, box.stop_row - row), box.width)


def _paths(source: Location | Sequence[Location]) -> tuple[str, ...]:
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not paths:
        raise SceneError("no file was given; expected a raster's path or URL, or several")
    located = tuple(locate(path) for path in paths)
    twice = {path for path in located if located.count(path) > 1}
    if twice:
        raise SceneError(f"{', '.join(sorted(twice))} was given twice; give every file of a scene once")
    return located


def _without_chosen_alpha(file: Inspected, bands: Sequence[Band]) -> Source:
    """The file, its alpha band no mask if it was chosen as data."""
    chosen = {band.index for band in bands if band.source == file.source.path and band.channel is None}
    return replace(file.source, alpha=None) if file.source.alpha in chosen else file.source


def _with_common_overviews(sources: Sequence[Source]) -> tuple[Source, ...]:
    """The files, with those overviews only that all of them have at the same levels."""
    common = 0
    for shapes in zip(*(source.overviews for source in sources), strict=False):
        if len(set(shapes)) > 1:
            break
        common += 1
    return tuple(replace(source, overviews=source.overviews[:common]) for source in sources)
