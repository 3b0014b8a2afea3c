"""What tells one scene from another without reading all of it.

A run resumes only on the scene it began with. The fingerprint covers the grid, the bands (type, nodata, scale,
place), how validity is told, and for every local file that makes up the scene (the files of a VRT and sidecars too)
its size, its first and last bytes and samples between. Paths and times are left out, so that a moved, copied or
touched file stays the same scene. A file that isn't local is sampled by its pixels. An edit in place that keeps
the size and misses every sample isn't seen: that would take reading the whole file.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from rssegment.grid import Box
from rssegment.scene.checks import crs_of
from rssegment.scene.handles import gdal, handle
from rssegment.scene.reading import read_values
from rssegment.scene.source import Source

if TYPE_CHECKING:
    from rssegment.scene.scene import Scene

__all__ = ["fingerprint"]

EDGE_BYTES = 1 << 16
SAMPLE_BYTES = 1 << 12
SAMPLES = 16


def fingerprint(scene: Scene) -> str:
    """SHA-256 (hex) of the scene's structure and of samples of its content."""
    digest = hashlib.sha256(json.dumps(_structure(scene), sort_keys=True).encode())
    for source in scene.sources:
        local = _local_files(source)
        if not local:
            digest.update(_pixel_samples(scene, source))
        for path in local:
            digest.update(_file_samples(path, SAMPLES if len(local) < 16 else 1))
    return digest.hexdigest()


def _structure(scene: Scene) -> dict[str, Any]:
    order = {source.path: number for number, source in enumerate(scene.sources)}
    return {
        "shape": scene.shape,
        "native": tuple(scene.native.shape),
        "transform": tuple(scene.geobox.affine[:6]),
        "crs": crs_of(scene.geobox).to_wkt(),
        "bands": [
            (b.name, order[b.source], b.index, b.channel, b.dtype, repr(b.nodata), b.scale, b.offset)
            for b in scene.bands
        ],
        "validity": [(source.mask, source.alpha) for source in scene.sources],
    }


def _local_files(source: Source) -> list[str]:
    with gdal(source.path):
        files = handle(source.path, None, source.stamp).files
    return [path for path in files if os.path.isfile(path)]


def _file_samples(path: str, samples: int) -> bytes:
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    edge = EDGE_BYTES if samples > 1 else SAMPLE_BYTES
    with open(path, "rb") as file:
        digest.update(file.read(edge))
        for number in range(samples):
            file.seek(size * (number + 1) // (samples + 1))
            digest.update(file.read(SAMPLE_BYTES))
        file.seek(max(0, size - edge))
        digest.update(file.read(edge))
    return digest.digest()


def _pixel_samples(scene: Scene, source: Source) -> bytes:
    rows, cols = scene.native.shape
    digest = hashlib.sha256()
    bands = tuple(band for band in scene.bands if band.source == source.path)
    for number in range(4 if bands else 0):
        place = (rows * (2 * number + 1) // 8, cols * (2 * number + 1) // 8)
        values, valid = read_values((source,), bands, Box(*place, 64, 64).clip(Box.of((rows, cols))))
        digest.update(values.tobytes() + valid.tobytes())
    return digest.digest()
