"""From joined regions to vector files and the counts that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError
from rssegment.taxonomy import Node
from rssegment.vector import Regions
from rssegment.vector.attributes import attributes
from rssegment.write.atomic import staged
from rssegment.write.geojson import Features, write_geojson

__all__ = ["ClassTree", "pixel_size", "write_regions"]

EARTH_M2 = 5.10065622e14  # surface of the WGS 84 ellipsoid


class ClassTree(Protocol):
    """What is asked of a taxonomy: a raster without one has a stand-in."""

    @property
    def nodes(self) -> tuple[Node, ...]: ...

    def node(self, key: int) -> Node: ...


def write_regions(
    regions: Regions, geobox: GeoBox, taxonomy: ClassTree, paths: Mapping[str, Path]
) -> dict[str, Any]:
    """Writes ``regions`` in each format of ``paths``, each file whole or not at all.

    Returns counts: regions, and for each class present its regions, pixels and area (m², None without a CRS).
    """
    tally = _Tally(taxonomy)
    crs = str(geobox.crs) if geobox.crs else None
    for path in paths.values():
        tally = _Tally(taxonomy)
        with staged(path) as temporary:
            write_geojson(temporary, _features(regions, geobox, taxonomy, tally), crs, pixel_size(geobox))
            tally.check(crs)
    return tally.counts()


def _features(regions: Regions, geobox: GeoBox, taxonomy: ClassTree, tally: _Tally) -> Iterator[Features]:
    """Chunks of polygons with their attributes; each is counted as it passes."""
    crs = str(geobox.crs) if geobox.crs else None
    for chunk in regions.chunks():
        columns = attributes(chunk, taxonomy, geobox.affine, crs)
        tally.add(columns)
        yield chunk.to_shapely(geobox.affine), columns


def pixel_size(geobox: GeoBox) -> float:
    """Side of a pixel in CRS units."""
    return float(np.sqrt(abs(geobox.affine.determinant)))


class _Tally:
    """Regions, pixels and square metres per class."""

    def __init__(self, taxonomy: ClassTree) -> None:
        self._taxonomy = taxonomy
        self._rows: dict[int, list[float]] = {}

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        codes, place = np.unique(columns["code"], return_inverse=True)
        for index, code in enumerate(codes.tolist()):
            mine = place == index
            row = self._rows.setdefault(code, [0, 0, 0.0])
            row[0] += int(mine.sum())
            row[1] += int(columns["pixels"][mine].sum())
            row[2] += float(columns["area_m2"][mine].sum())

    def check(self, crs: str | None) -> None:
        """Refuses areas that no map of the Earth has."""
        total = sum(row[2] for row in self._rows.values())
        if total > EARTH_M2 * 1.0001:
            raise InputError(
                f"the regions add up to {total:.3g} m², more than the Earth has ({EARTH_M2:.3g}): the grid reaches "
                f"beyond where {crs} is defined, or over itself; cut it first, as by gdalwarp -te"
            )

    def counts(self) -> dict[str, Any]:
        classes = []
        for code, (regions, pixels, area) in sorted(self._rows.items()):
            node = self._taxonomy.node(code)
            known = None if np.isnan(area) else round(area, 2)
            path = "/".join(node.path)
            classes.append(
                {"code": code, "path": path, "regions": regions, "pixels": pixels, "area_m2": known}
            )
        return {"regions": sum(each["regions"] for each in classes), "classes": classes}
