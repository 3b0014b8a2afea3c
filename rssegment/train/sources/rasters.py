"""Sources of kind ``rasters``: images, and for each a raster of codes, of codes with names, or of colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, SceneError
from rssegment.grid import Box
from rssegment.reference.label_files import LabelFile
from rssegment.reference.vector_files import is_vector
from rssegment.scene.label_header import data_bands, opened
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.taxonomy.mapping import unknown_values
from rssegment.train.sources.classes import colors_of, known_codes
from rssegment.train.sources.colors import ColorFile
from rssegment.train.sources.fit import on_image
from rssegment.train.sources.patterns import images_of, labels_of
from rssegment.train.sources.scenes import SourceScene, Task

__all__ = ["CodeFile", "label_file", "open_rasters"]


@dataclass(frozen=True)
class CodeFile(LabelFile):
    """A raster of codes; without a mapping they are codes of ``taxonomy``, and others are refused."""

    taxonomy: Taxonomy | None = None

    def codes(self, box: Box, mapping: ClassMapping | None = None) -> NDArray[np.uint16]:
        codes = super().codes(box, mapping)
        if mapping is None and self.taxonomy is not None:
            known = known_codes(self.taxonomy)[codes]
            if not known.all():
                self._refuse(codes[~known])
        return codes

    def _refuse(self, values: NDArray[Any]) -> None:
        assert self.taxonomy is not None, "only codes of a taxonomy are refused"
        raise InputError(
            f"the {self.what} {self.path} have values that are no codes of taxonomy {self.taxonomy.name!r}: "
            f"{unknown_values(*np.unique(values, return_counts=True), 'px')}; give the source a 'mapping' from its "
            "values to classes, null to leave one out"
        )


def open_rasters(task: Task) -> list[SourceScene]:
    """The source's images with the label raster of each.

    Raises
    ------
    InputError
        Files are missing, can't be read or understood, or don't fit.
    """
    options = task.options
    images = images_of(options.images, task.root, task.name)
    files = labels_of(images, options.labels, task.root, task.name)
    scenes = []
    for path, labels in zip(images, files, strict=True):
        image = task.image(path)
        file, mapping = label_file(labels, task.name, task.mapping, task.taxonomy)
        scenes.append(task.scene(image, on_image(file, mapping, image)))
    return scenes


def label_file(
    path: str, source: str, mapping: ClassMapping | None, taxonomy: Taxonomy
) -> tuple[LabelFile, ClassMapping | None]:
    """A label raster of either kind, and the mapping it is read by."""
    colors = colors_of(mapping)
    if Path(path).suffix and is_vector(path):
        raise InputError(f"the labels {path} of source {source!r} are polygons; set its kind to 'polygons'")
    try:
        with opened(path) as file:
            bands = data_bands(file)
    except SceneError as error:
        raise SceneError(f"can't open the labels of source {source!r}: {error}") from error
    if bands >= 3 and not colors:
        raise InputError(
            f"the labels {path} of source {source!r} are a picture of {bands} bands, whose colours stand for classes; "
            "give a 'mapping' from colours, as '\"#3C1098\": building'"
        )
    numbered = mapping is not None and any(isinstance(value, int) for value, _ in mapping.classes)
    if colors and (bands >= 3 or (bands == 1 and not numbered)):
        return ColorFile.of(path, colors, mapping.others if mapping else None), None
    raster = LabelFile.open(path, "labels").raster
    return CodeFile(raster, "labels", taxonomy), mapping
