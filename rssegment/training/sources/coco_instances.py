"""Sources of kind ``coco_instances``: outlines of objects, as polygons or run lengths, in one JSON file.

Where objects overlap, the smaller one lies on top. Crowds are left unlabelled, since what lies between their members
belongs to them too; ``outside`` is the class of pixels that no object covers, which otherwise have no label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.training.sources.coco import Annotations, Json, field, is_crowd
from rssegment.training.sources.labels import Labels
from rssegment.training.sources.majority import Majority
from rssegment.training.sources.rle import decoded, run_lengths
from rssegment.training.sources.scenes import SourceScene, Task
from rssegment.vector.rasterize import PixelShapes

__all__ = ["InstanceLabels", "open_coco_instances"]


@dataclass(frozen=True)
class Instance:
    """An object: its ``code``, and as bytes ``polygons`` (float64 pairs of column and row) or ``runs`` (int64)."""

    code: int
    polygons: tuple[bytes, ...] = ()
    runs: bytes = b""


@dataclass(frozen=True)
class InstanceLabels:
    """Objects of an image of ``shape`` pixels, those on top last; ``outside``: the code where none is."""

    shape: tuple[int, int]
    instances: tuple[Instance, ...]
    outside: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        digest = hashlib.sha256(repr((self.instances, self.outside)).encode())
        return (digest.hexdigest(),)  # another object in the JSON file changes the labels of its image only

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W) of the object that is on top at each pixel's centre."""
        codes: NDArray[np.uint16] = _drawn(self)[box.slices].copy()
        return codes


@lru_cache(maxsize=16)  # whole images: run lengths know no windows, and such images are small
def _drawn(labels: InstanceLabels) -> NDArray[np.uint16]:
    codes = np.full(labels.shape, labels.outside, np.uint16)
    for instance in labels.instances:
        if instance.runs:
            codes[decoded(np.frombuffer(instance.runs, np.int64), labels.shape)] = instance.code
        for ring in instance.polygons:
            _draw(np.frombuffer(ring, np.float64).reshape(-1, 2), instance.code, codes)
    return codes


def _draw(ring: NDArray[np.float64], code: int, codes: NDArray[np.uint16]) -> None:
    low, high = np.floor(ring.min(axis=0)), np.ceil(ring.max(axis=0))
    box = Box.between(int(low[1]), int(low[0]), int(high[1]), int(high[0])).clip(Box.of(codes.shape))
    if box.size:
        shapes = PixelShapes.of(np.array([shapely.Polygon(ring)], object), np.array([code]))
        codes[box.slices][shapes.burn(box).values >= 0] = code


def open_coco_instances(task: Task) -> list[SourceScene]:
    """The images of the JSON file with the objects on each.

    Raises
    ------
    InputError
        Files are missing or damaged, or categories are unknown.
    MismatchError
        Images are of another size than the file says.
    """
    annotations = Annotations.load(task, "instances")
    outside = task.options.outside
    code = 0 if outside is None else task.taxonomy.node(outside).code
    scenes = []
    for key, path in annotations.paths(task).items():
        image = task.image(path)
        rows, cols = (int(side) for side in image.scene.native.shape)
        annotations.check_size(key, path, (rows, cols))
        instances = tuple(_instances(annotations, key, (rows, cols)))
        own = InstanceLabels((rows, cols), instances, code)
        labels: Labels = Majority(own, own.shape, image.scene.factor) if image.scene.resampled else own
        scenes.append(task.scene(image, labels))
    return scenes


def _instances(annotations: Annotations, key: int, shape: tuple[int, int]) -> Iterator[Instance]:
    """Crowds first, then objects, the largest first."""
    path = annotations.path
    entries = [
        (is_crowd(each, path), each, *_outline(each, shape, path)) for each in annotations.of_image[key]
    ]
    for crowd, each, polygons, runs, _ in sorted(entries, key=lambda entry: (not entry[0], -entry[4])):
        code = annotations.code(field(each, "category_id", int, path))
        yield Instance(0 if crowd else code, polygons, runs)


def _outline(entry: Json, shape: tuple[int, int], path: Path) -> tuple[tuple[bytes, ...], bytes, float]:
    """Polygons or run lengths of an annotation, and its area (px)."""
    where = f"{path}: annotation {entry.get('id', '')}"
    outline: Any = entry.get("segmentation")
    if isinstance(outline, dict):
        runs = run_lengths(outline, shape, where)
        return (), runs.tobytes(), float(runs[1::2].sum())
    if not isinstance(outline, list):
        raise InputError(
            f"{where} has no 'segmentation'; expected polygons or run lengths (boxes alone label no pixels)"
        )
    rings = [_ring(ring, where) for ring in outline]
    return tuple(ring.tobytes() for ring in rings), b"", sum(shapely.Polygon(ring).area for ring in rings)


def _ring(ring: Any, where: str) -> NDArray[np.float64]:
    try:
        found = np.array(ring, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        found = np.empty((0, 2))
    if len(found) < 3 or not np.isfinite(found).all():
        raise InputError(
            f"{where} has a polygon that is none; expected x and y in turn, of three corners or more"
        )
    return found
