"""Sources of kind ``polygons``: images, and vector files that tell their classes, one for all or one for each."""

from __future__ import annotations

from rssegment.errors import InputError
from rssegment.reference.footprint import windows_of
from rssegment.reference.references import ReferenceOptions
from rssegment.reference.vector_files import describe
from rssegment.training.sources.imagery import Image
from rssegment.training.sources.labels import Labels
from rssegment.training.sources.patterns import pairs_of
from rssegment.training.sources.scenes import SourceScene, Task
from rssegment.training.sources.shapes import Everywhere, nothing_there, shapes_on

__all__ = ["open_polygons"]


def open_polygons(task: Task) -> list[SourceScene]:
    """The source's images with the polygons that lie on each.

    Where one file is for all images, some may have no polygon: they are ``outside`` all over, if they lie where the
    file's features do, or have no label.

    Raises
    ------
    InputError
        Files are missing or don't fit, or no polygon lies on any image.
    """
    options = task.options
    pairs = pairs_of(options.images, options.labels, task.root, task.name)
    shared, bare = len({file for _, file in pairs}) < len(pairs), list[InputError]()
    scenes = []
    for path, file in pairs:
        image = task.image(path)
        try:
            labels: Labels = shapes_on(
                file,
                image,
                ReferenceOptions(options.column, options.label, options.outside),
                task.mapping,
                task.taxonomy,
            )
        except InputError as error:
            if not shared or not nothing_there(error):
                raise
            labels = _without(file, image, task, error)
            bare.append(error)
        scenes.append(task.scene(image, labels))
    if len(bare) == len(scenes):
        raise bare[0]
    return scenes


def _without(file: str, image: Image, task: Task, error: InputError) -> Labels:
    """The labels of an image on which no polygon of a file for all images lies."""
    outside = task.options.outside
    if outside is None:
        return Everywhere(0, file)
    layer = describe(file, None, "labels")
    windows = windows_of(image.scene.geobox, layer.crs)
    if layer.bounds is not None and not any(_meet(window.near, layer.bounds) for window in windows):
        raise InputError(
            f"{error}. It lies beyond all of them, where nobody looked; so it can't be {outside!r} (outside) all over: "
            "leave the image out, or give polygons there"
        ) from error
    return Everywhere(task.taxonomy.node(outside).code, file)


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]
