"""Sources of kind ``coco_panoptic``: masks whose colours are ids of segments, and a JSON file that tells their classes.

A segment's id is red + 256 * green + 65536 * blue, and 0 is none. Masks lie in the folder beside the JSON file that has
its name. Segments of crowds are left unlabelled: their outlines are rough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.scene import LabelRaster, grid_of_raster
from rssegment.taxonomy import ClassMapping
from rssegment.taxonomy.mapping import unknown_values
from rssegment.training.sources.coco import Annotations, Json, field, is_crowd, once
from rssegment.training.sources.colors import ColorFile, Picture
from rssegment.training.sources.fit import on_image
from rssegment.training.sources.patterns import listed_missing
from rssegment.training.sources.scenes import SourceScene, Task

__all__ = ["SegmentFile", "open_coco_panoptic"]

_IDS = 1 << 24  # colours that there are


@dataclass(frozen=True)
class SegmentFile(ColorFile):
    """A mask of segments' ids; ``colors``: pairs of an id and its code, ascending."""

    def codes(self, box: Box, mapping: ClassMapping | None = None) -> NDArray[np.uint16]:  # noqa: ARG002 - ids are it
        keys, valid = self.picture.keys(box)
        ids = (keys >> 16) | (keys & 0xFF00) | (keys & 0xFF) << 16
        listed = np.array([(0, 0), *self.colors], np.int32)
        place = np.searchsorted(listed[:, 0], ids)
        place[place == len(listed)] = 0
        known = listed[place, 0] == ids
        if not known.all():
            raise InputError(
                f"the labels {self.path} have segments that their JSON file doesn't list: "
                f"{unknown_values(*np.unique(ids[~known], return_counts=True), 'px')}; give the JSON file of these "
                "masks"
            )
        codes: NDArray[np.uint16] = listed[place, 1].astype(np.uint16)
        codes[~valid] = 0
        return codes


def open_coco_panoptic(task: Task) -> list[SourceScene]:
    """The images of the JSON file with their masks.

    Raises
    ------
    InputError
        Files are missing or damaged, categories are unknown, or segments' ids are no colours or listed twice.
    MismatchError
        Images are of another size than the file says.
    """
    annotations = Annotations.load(task, "panoptic")
    paths = annotations.paths(task)
    masks = annotations.path.with_suffix("")
    listed = {key: _mask(each, masks, annotations.path) for key, each in annotations.of_image.items() if each}
    listed_missing([key for key in paths if key not in listed], list(paths), "annotation", task.name)
    missing = [path.name for path, _ in listed.values() if not path.is_file()]
    listed_missing(missing, list(paths), f"masks in {masks}", task.name)
    scenes = []
    for key, path in paths.items():
        mask, segments = listed[key]
        image = task.image(path)
        rows, cols = image.scene.native.shape
        annotations.check_size(key, path, (int(rows), int(cols)))
        scenes.append(task.scene(image, on_image(_opened(mask, segments, annotations), None, image)))
    return scenes


def _mask(entries: Sequence[Json], masks: Path, path: Path) -> tuple[Path, list[Json]]:
    """The mask of an image and its segments."""
    if len(entries) > 1:
        raise InputError(
            f"{path} has {len(entries)} annotations of one image; expected one, with its segments"
        )
    name, segments = field(entries[0], "file_name", str, path), field(entries[0], "segments_info", list, path)
    if strange := [each for each in segments if not isinstance(each, dict)]:
        raise InputError(
            f"{path}: 'segments_info' of {name} has {str(strange[0])[:80]} in it; expected segments, each with 'id' "
            "and 'category_id'"
        )
    return masks / name, segments


def _opened(mask: Path, segments: list[Json], annotations: Annotations) -> SegmentFile:
    path, codes = annotations.path, {}
    for key, each in once(segments, "segments", f"{path}: 'segments_info' of {mask.name}", path).items():
        if not 0 <= key < _IDS:
            raise InputError(
                f"{path}: 'segments_info' of {mask.name} has a segment of id {key}; expected 0 to {_IDS - 1}, as red + "
                "256 * green + 65536 * blue"
            )
        code = annotations.code(field(each, "category_id", int, path))
        codes[key] = 0 if is_crowd(each, path) else code
    raster = LabelRaster(str(mask), grid_of_raster(mask), None, (), {}, {}, False)
    return SegmentFile(raster, "labels", Picture.open(str(mask)), tuple(sorted(codes.items())))
