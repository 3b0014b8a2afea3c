"""From joined pieces to vector files and the counts that go with them, as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError
from rssegment.run.progress import Progress
from rssegment.run.traces import ClassTree
from rssegment.vector import Coverage, Regions, Span
from rssegment.vector.attributes import attributes
from rssegment.write.atomic import staged
from rssegment.write.vectors import FORMATS, Features, Layer, Rings, region_schema, write_vectors

__all__ = ["RegionOutput", "pixel_size", "write_regions"]

EARTH_M2 = 5.10065622e14  # surface of the WGS 84 ellipsoid
_SHARES = 10_000  # of a square metre: fine enough to add up, and the Earth fits 64 bits
_AHEAD = 2  # chunks of features that are made while one is written
_CORNERS = 200_000  # in a chunk: enough for arrays to be worth it

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class RegionOutput:
    """What regions become features by: grid, classes, and ``values`` (n,), the code of each label if they differ."""

    geobox: GeoBox
    classes: ClassTree
    values: NDArray[np.int64] | None = None
    overwrite: bool = True

    @property
    def crs(self) -> str | None:
        return str(self.geobox.crs) if self.geobox.crs else None

    @property
    def layer(self) -> Layer:
        pixel = pixel_size(self.geobox)
        return Layer(self.crs, pixel, schema=region_schema(self.values), side=max(self.geobox.shape) * pixel)

    def features(self, level: int | None, regions: Regions) -> Features:
        """Rings in the scene's CRS, and their columns."""
        if self.values is not None:
            regions = replace(regions, code=self.values[regions.code])
        affine = self.geobox.affine
        columns = attributes(regions, self.classes, affine, self.crs, level=level)
        offsets = regions.corner_offsets, regions.ring_offsets, regions.part_offsets
        return Rings(regions.world(affine), *offsets), columns


def write_regions(
    coverage: Coverage, output: RegionOutput, paths: Mapping[str, Path], progress: Progress | None = None
) -> dict[str, Any]:
    """Writes the regions of ``coverage`` in each format of ``paths`` in one pass, each file whole or not at all.

    Returns counts: regions; for each class present its regions, pixels and area (m², None without a CRS); the levels,
    where some were asked for.
    """
    tally = _Tally(output.classes)
    with ExitStack() as stack:
        temporary = {
            name: stack.enter_context(
                staged(path, FORMATS[name].companions, strays=FORMATS[name].strays, replace=output.overwrite)
            )
            for name, path in paths.items()
        }
        with ThreadPoolExecutor(_AHEAD) as pool:
            features = _features(coverage, output, pool, progress)
            write_vectors(temporary, map(tally.counted, features), output.layer)
        tally.check(output.crs)
    levels = [each.level for each in coverage.layers if each.level is not None]
    return tally.counts() | {"levels": levels}


def _features(
    coverage: Coverage, output: RegionOutput, pool: Executor, progress: Progress | None
) -> Iterator[Features]:
    """Chunks in the order of ids."""
    for number, layer in enumerate(coverage.layers):
        bands = _ordered(pool, partial(_regions, coverage, number), coverage.spans(number), 1)
        chunks = (
            chunk
            for regions in _told(bands, coverage, number, progress)
            for chunk in regions.chunks(_CORNERS)
        )
        yield from _ordered(pool, partial(output.features, layer.level), chunks, _AHEAD)


def _regions(coverage: Coverage, layer: int, span: Span) -> tuple[int, Regions]:
    return span.band, coverage.regions(layer, span)


def _told(
    spans: Iterator[tuple[int, Regions]], coverage: Coverage, layer: int, progress: Progress | None
) -> Iterator[Regions]:
    """Tells of each band when its last regions were taken."""
    total, told = len(coverage.layers) * coverage.bands, 0
    size = coverage.shape[0] * coverage.shape[1] / coverage.bands
    for band, regions in spans:
        yield regions
        count = layer * coverage.bands + band + 1
        if progress and count > told:
            progress("polygons", count, total, int(count * size))
            told = count


def _ordered(pool: Executor, function: Callable[[In], Out], items: Iterable[In], ahead: int) -> Iterator[Out]:
    """Results in the order of ``items``; while one is used, those of the next few are made."""
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def pixel_size(geobox: GeoBox) -> float:
    """Side of a pixel in CRS units."""
    return float(np.sqrt(abs(geobox.affine.determinant)))


class _Tally:
    """Regions, pixels and square metres per level and class."""

    def __init__(self, taxonomy: ClassTree) -> None:
        self._taxonomy = taxonomy
        self._rows: dict[tuple[int, int], list[int]] = {}
        self._known = True

    def counted(self, features: Features) -> Features:
        """The same ``features``, added to the counts."""
        columns = features[1]
        keys = np.stack([columns["level"], columns["code"]], axis=1)
        kinds, place = np.unique(keys, axis=0, return_inverse=True)
        place = place.ravel()
        self._known &= not np.isnan(columns["area_m2"]).any()
        area = np.rint(np.nan_to_num(columns["area_m2"]) * _SHARES).astype(np.int64)
        sums = np.zeros((len(kinds), 3), np.int64)  # whole numbers: their sum doesn't depend on the chunks
        np.add.at(sums, place, np.stack([np.ones_like(area), columns["pixels"], area], axis=1))
        for (level, code), row in zip(kinds.tolist(), sums.tolist(), strict=True):
            known = self._rows.setdefault((level, code), [0, 0, 0])
            self._rows[level, code] = [a + b for a, b in zip(known, row, strict=True)]
        return features

    def check(self, crs: str | None) -> None:
        """Refuses areas that no map of the Earth has."""
        levels = {level for level, _ in self._rows}
        areas = (sum(row[2] for key, row in self._rows.items() if key[0] == level) for level in levels)
        total = max(areas, default=0) / _SHARES
        if total > EARTH_M2 * 1.0001:
            raise InputError(
                f"the regions add up to {total:.3g} m², more than the Earth has ({EARTH_M2:.3g}): the grid reaches "
                f"beyond where {crs} is defined, or over itself; cut it first, as by gdalwarp -te"
            )

    def counts(self) -> dict[str, Any]:
        classes = []
        for (level, code), (regions, pixels, area) in sorted(self._rows.items()):
            node = self._taxonomy.node(code)
            known = round(area / _SHARES, 2) if self._known else None
            classes.append(
                {
                    "code": code,
                    "path": "/".join(node.path),
                    "level": level,
                    "regions": regions,
                    "pixels": pixels,
                    "area_m2": known,
                }
            )
        return {"regions": sum(each["regions"] for each in classes), "classes": classes}
