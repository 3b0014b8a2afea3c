"""Polygons and points drawn onto an image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.reference.features import FeatureSource, features_on
from rssegment.reference.references import ReferenceOptions, ShapeReference, open_reference
from rssegment.reference.vector_files import is_vector, stamp
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.training.sources.imagery import Image
from rssegment.training.sources.labels import Labels

__all__ = ["Everywhere", "Shapes", "limited", "shapes_on"]


@dataclass(frozen=True)
class Shapes:
    """The features of a vector file on an image's pixels; ``outside``: the code of what none covers."""

    source: FeatureSource
    outside: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        return (self.source.path,)

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W), of the last feature in the file's order that covers a pixel's centre."""
        values = _features(self.source).shapes.burn(box).values
        return np.where(values < 0, self.outside, values).astype(np.uint16)


@dataclass(frozen=True)
class Everywhere:
    """One code for all of an image."""

    code: int
    path: str

    @property
    def files(self) -> tuple[str, ...]:
        return (self.path,)

    def read(self, box: Box) -> NDArray[np.uint16]:
        return np.full(box.shape, self.code, np.uint16)


@dataclass(frozen=True)
class Limited:
    """Labels that count within polygons only."""

    labels: Labels
    area: Labels

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.labels.files, *self.area.files)

    def read(self, box: Box) -> NDArray[np.uint16]:
        inside = self.area.read(box) > 0
        if not inside.any():
            return np.zeros(box.shape, np.uint16)
        return np.where(inside, self.labels.read(box), np.uint16(0))


# One file may label many images, and windows come from all of them in turn.
_features = lru_cache(maxsize=256)(features_on)


def shapes_on(
    path: str, image: Image, options: ReferenceOptions, mapping: ClassMapping | None, taxonomy: Taxonomy
) -> Shapes:
    """The features of the vector file ``path`` on the pixels of ``image``.

    Raises
    ------
    InputError
        It can't be read or placed, has no such column, classes that are unknown, or nothing on the image.
    """
    check_placed(path, image)
    if not is_vector(path):
        raise InputError(
            f"the labels {path} are no polygons or points that can be read; a raster is of kind 'rasters'"
        )
    try:
        found = open_reference(path, image.scene.geobox, taxonomy, mapping, options)
    except InputError as error:
        raise type(error)(_words(str(error), image)) from error
    assert isinstance(found, ShapeReference), "a vector file without limits gives shapes"
    _features(found.source)
    return Shapes(found.source, found.outside)


def limited(labels: Labels, image: Image, path: str) -> Labels:
    """``labels`` within the polygons of the file ``path``; where none lies on the image, none at all."""
    check_placed(path, image)
    area = FeatureSource(path, image.scene.geobox, "area to train within", stamp=stamp(path))
    try:
        _features(area)
    except InputError as error:
        if not nothing_there(error):
            raise type(error)(_words(str(error), image)) from error
        return Everywhere(0, path)
    return Limited(labels, Shapes(area))


def nothing_there(error: InputError) -> bool:
    """Whether the error says that no feature lies on the image."""
    return str(error).startswith("none of the ") and " lies on the " in str(error)


def check_placed(path: str, image: Image) -> None:
    if not image.placed:
        raise InputError(
            f"the image {image.path} isn't georeferenced, so the polygons of {path} can't be laid over it; give it its "
            "place, as by gdal_translate -a_srs EPSG:XXXX -a_ullr LEFT TOP RIGHT BOTTOM"
        )


def _words(message: str, image: Image) -> str:
    return message.replace("the prediction", f"the image {image.path}").replace("the reference", "the labels")
