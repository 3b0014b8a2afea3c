"""Sources of kind ``rasters``: images, and for each a raster of codes, of codes with names, or of colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rssegment.errors import InputError, SceneError
from rssegment.reference.label_files import LabelFile
from rssegment.reference.vector_files import is_vector
from rssegment.scene.label_header import data_bands, opened
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.training.sources.classes import colors_of, named_alike
from rssegment.training.sources.codes import CodeFile
from rssegment.training.sources.colors import ColorFile
from rssegment.training.sources.fit import on_image
from rssegment.training.sources.patterns import pairs_of
from rssegment.training.sources.scenes import SourceScene, Task

__all__ = ["open_rasters"]


def open_rasters(task: Task) -> list[SourceScene]:
    """The source's images with the label raster of each.

    Raises
    ------
    InputError
        Files are missing, can't be read or understood, or don't fit.
    """
    options = task.options
    pairs = pairs_of(options.images, options.labels, task.root, task.name)
    scenes = []
    for path, labels in pairs:
        image = task.image(path)
        file, mapping = _label_file(labels, task.name, task.mapping, task.taxonomy)
        scenes.append(task.scene(image, on_image(file, mapping, image)))
    return scenes


def _label_file(
    path: str, source: str, mapping: ClassMapping | None, taxonomy: Taxonomy
) -> tuple[LabelFile, ClassMapping | None]:
    """A label raster of either kind, and the mapping it is read by: the source's, or one by its own names."""
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
    found = replace(CodeFile.open(path, "labels"), taxonomy=taxonomy)
    return found, mapping or named_alike(found.raster.names, taxonomy)
