"""From joined pieces to vector files and the counts that go with them, as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError
from rssegment.run.traces import ClassTree
from rssegment.vector import Coverage, Regions
from rssegment.vector.attributes import attributes
from rssegment.write.atomic import staged
from rssegment.write.vectors import FORMATS, REGION_SCHEMA, Features, Layer, Rings, write_vectors

__all__ = ["pixel_size", "write_regions"]

EARTH_M2 = 5.10065622e14  # surface of the WGS 84 ellipsoid
_AHEAD = 2  # chunks of features that are made while one is written
_CORNERS = 200_000  # in a chunk: enough for arrays to be worth it

In = TypeVar("In")
Out = TypeVar("Out")


def write_regions(
    coverage: Coverage,
    geobox: GeoBox,
    taxonomy: ClassTree,
    paths: Mapping[str, Path],
    values: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Writes the regions of ``coverage`` in each format of ``paths`` in one pass, each file whole or not at all.

    ``values`` (n,): the class code of each label, where they differ. Returns counts: regions; for each class
    present its regions, pixels and area (m², None without a CRS); the levels, where some were asked for.
    """
    crs = str(geobox.crs) if geobox.crs else None
    tally = _Tally(taxonomy)
    side = max(geobox.shape) * pixel_size(geobox)
    layer = Layer(crs, pixel_size(geobox), schema=REGION_SCHEMA, side=side)
    with ExitStack() as stack:
        temporary = {
            name: stack.enter_context(staged(path, FORMATS[name].companions)) for name, path in paths.items()
        }
        with ThreadPoolExecutor(_AHEAD) as pool:
            make = _Maker(coverage, geobox, taxonomy, values)
            write_vectors(temporary, (tally.counted(each) for each in make.features(pool)), layer)
        tally.check(crs)
    levels = [each.level for each in coverage.layers if each.level is not None]
    return tally.counts() | {"levels": levels}


class _Maker:
    """Features from a coverage, chunk by chunk, in the order of their ids."""

    def __init__(
        self, coverage: Coverage, geobox: GeoBox, taxonomy: ClassTree, values: NDArray[np.int64] | None
    ) -> None:
        self._coverage, self._taxonomy, self._values = coverage, taxonomy, values
        self._affine = geobox.affine
        self._crs = str(geobox.crs) if geobox.crs else None

    def features(self, pool: Executor) -> Iterator[Features]:
        for number, layer in enumerate(self._coverage.layers):
            bands = _ordered(
                pool, partial(self._coverage.regions, number), range(self._coverage.bands), 1
            )
            chunks = (chunk for regions in bands for chunk in regions.chunks(_CORNERS))
            yield from _ordered(pool, partial(self._features, layer.level), chunks, _AHEAD)

    def _features(self, level: int | None, regions: Regions) -> Features:
        if self._values is not None:
            regions = replace(regions, code=self._values[regions.code])
        columns = attributes(regions, self._taxonomy, self._affine, self._crs, level=level)
        rings = Rings(
            regions.world(self._affine), regions.corner_offsets, regions.ring_offsets, regions.part_offsets
        )
        return rings, columns


def _ordered(
    pool: Executor, function: Callable[[In], Out], items: Iterable[In], ahead: int
) -> Iterator[Out]:
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
        self._rows: dict[tuple[int, int], list[float]] = {}

    def counted(self, features: Features) -> Features:
        """The same ``features``, added to the counts."""
        columns = features[1]
        keys = np.stack([columns["level"], columns["code"]], axis=1)
        kinds, place = np.unique(keys, axis=0, return_inverse=True)
        place = place.ravel()
        sums = [
            np.bincount(place, weights, len(kinds))
            for weights in (None, columns["pixels"], columns["area_m2"])
        ]
        for (level, code), *row in zip(kinds.tolist(), *(each.tolist() for each in sums), strict=True):
            known = self._rows.setdefault((level, code), [0, 0, 0.0])
            self._rows[level, code] = [a + b for a, b in zip(known, row, strict=True)]
        return features

    def check(self, crs: str | None) -> None:
        """Refuses areas that no map of the Earth has."""
        levels = {level for level, _ in self._rows}
        total = max(
            (sum(row[2] for key, row in self._rows.items() if key[0] == k) for k in levels), default=0.0
        )
        if total > EARTH_M2 * 1.0001:
            raise InputError(
                f"the regions add up to {total:.3g} m², more than the Earth has ({EARTH_M2:.3g}): the grid reaches "
                f"beyond where {crs} is defined, or over itself; cut it first, as by gdalwarp -te"
            )

    def counts(self) -> dict[str, Any]:
        classes = []
        for (level, code), (regions, pixels, area) in sorted(self._rows.items()):
            node = self._taxonomy.node(code)
            known = None if np.isnan(area) else round(area, 2)
            classes.append(
                {
                    "code": code,
                    "path": "/".join(node.path),
                    "level": level,
                    "regions": int(regions),
                    "pixels": int(pixels),
                    "area_m2": known,
                }
            )
        return {"regions": sum(each["regions"] for each in classes), "classes": classes}
