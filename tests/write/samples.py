"""Features for the tests of vector files: regions of a random label raster, with every column there is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from numpy.typing import NDArray

from rssegment.write.features import REGION_SCHEMA, Features, Layer

UTM33 = Affine(10, 0, 500_000, 0, -10, 5_500_000)
LAYER = Layer("EPSG:32633", 10.0, schema=REGION_SCHEMA)
NAMES = ["Wald, dicht", 'he said "öäü"', "水 🌊", "x\\y\n"]


def regions(n: int = 30, affine: Affine = UTM33, seed: int = 0) -> Features:
    """Regions of n x n random labels, some with holes, some of several parts."""
    labels = np.random.default_rng(seed).integers(0, 4, (n, n)).astype(np.uint8)
    labels[-7:-4, 4:7], labels[-6, 5] = 1, 2  # a hole at least
    shapes = list(rasterio.features.shapes(labels, mask=labels > 0, transform=affine))
    polygons = np.array([shapely.geometry.shape(shape) for shape, _ in shapes], object)
    third = len(polygons) // 3
    joined = shapely.union(polygons[:third], polygons[third : 2 * third])
    kept = np.concatenate([joined, polygons[2 * third :]])
    return kept, columns(np.arange(len(kept)) % 4)


def columns(code: NDArray[np.integer[Any]]) -> dict[str, NDArray[Any]]:
    """Every column of a region, with nulls in all that may have them."""
    k = np.arange(len(code))
    names = np.array(NAMES, object)[code % 4]
    unknown = np.where(k % 3 == 0, np.nan, np.round(k / 7, 4))
    return {
        "id": k + 1,
        "parent_id": np.ma.masked_array(k + (1 << 40), k % 4 == 0),
        "code": code.astype(np.uint16),
        "name": names,
        "level": np.ones(len(code), np.int64),
        "path": names,
        "pixels": k**2 + 1,
        "area_m2": k * 100.25,
        "perimeter_m": unknown,
        "confidence": unknown,
        "confidence_min": np.full(len(code), np.nan),
        "margin": unknown,
        "touches_nodata": k % 2 == 0,
        "touches_edge": k % 5 == 0,
    }


def cut(features: Features, ends: list[int]) -> Iterator[Features]:
    """The same features in chunks that end at ``ends``."""
    polygons, table = features
    for start, stop in pairwise([0, *ends, len(polygons)]):
        yield polygons[start:stop], {name: values[start:stop] for name, values in table.items()}
