"""Images of a source on the recipe's pixels and bands."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.config import SceneOptions
from rssegment.errors import MismatchError, ReadError, SceneError
from rssegment.grid import Box, ground_resolution, scaled_geobox
from rssegment.scene import Scene
from rssegment.training.recipe import Recipe, SourceOptions
from rssegment.training.sources.places import is_placed, own_words, somewhere

__all__ = ["UNUSED", "Image", "check_bands", "open_image"]

UNUSED = "-"
"""What a source's ``bands`` call a band that the model doesn't use."""

_NARROW = ("uint8", "int8", "uint16", "int16")  # every value is a float32 and fits a tensor
_FINER, _MOST = 100, 2**36  # times as many pixels as a file has, and pixels of a scene, beyond both of which
# it is taken for a mistake
_SAME = 0.01  # of a pixel's size: no resampling for less, as scenes have it


@dataclass(frozen=True)
class Image:
    """One image: ``scene`` has those of the recipe's ``count`` bands that the image has, at ``places`` among them.

    ``resolution``: side of a pixel (m). ``placed``: whether it is known where on the Earth it lies; if not, the
    scene's grid means nothing but pixels.
    """

    path: str
    scene: Scene
    places: tuple[int, ...]
    count: int
    resolution: float
    placed: bool

    @property
    def dtype(self) -> str:
        """numpy type of values: the files' where that holds what is read, else float32."""
        return self.scene.dtype if self.scene.dtype in _NARROW and not self.scene.scaled else "float32"

    @property
    def present(self) -> tuple[bool, ...]:
        return tuple(place in self.places for place in range(self.count))

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (C, H, W), 0 where there is none, and validity (H, W).

        Raises
        ------
        ReadError
            The file can't be read there.
        """
        try:
            pixels = self.scene.read(box)
        except ReadError as error:
            if self.placed:
                raise
            raise ReadError(own_words(str(error), self.scene.sources[0].path, self.path)) from error
        dtype = np.dtype(self.dtype)
        values = np.zeros((self.count, *box.shape), dtype)
        found = pixels.values
        if dtype.kind in "iu" and self.scene.resampled:
            found = np.rint(found)
        for layer, place in zip(found, self.places, strict=True):
            values[place] = layer
        return values, pixels.valid


def open_image(path: str, options: SourceOptions, recipe: Recipe) -> Image:
    """The image in ``path`` at the recipe's resolution, with those of the recipe's bands that it has.

    Raises
    ------
    SceneError
        It can't be opened or placed.
    MismatchError
        It lacks a band that the model must have, or its bands aren't those that are named.
    """
    shape, georeferenced = is_placed(path)
    source = path if georeferenced else somewhere(path, shape, options.resolution or recipe.resolution)
    scene, names = _bands(path, source, options, recipe)
    places = tuple(place for place, band in enumerate(recipe.bands) if band in names)
    missing = [band for place, band in enumerate(recipe.bands) if place not in places]
    if lacking := [band for band in missing if band not in recipe.optional_bands]:
        raise MismatchError(
            f"{path} of source {options.name!r} has no {' and no '.join(lacking)}; its bands are {', '.join(names)}. "
            f"Every image needs them, unless the recipe lists them in optional_bands"
        )
    scene = scene.select([names.index(recipe.bands[place]) + 1 for place in places])
    if georeferenced:
        _check_size(path, scene, ground_resolution(scene.native), recipe, options.name)
        return Image(
            path, scene.on_grid(recipe.resolution), places, len(recipe.bands), recipe.resolution, True
        )
    scene, resolution = _resized(path, scene, options, recipe)
    return Image(
        path, replace(scene, name=os.path.basename(path)), places, len(recipe.bands), resolution, False
    )


def _check_size(path: str, scene: Scene, own: tuple[float, float], recipe: Recipe, source: str) -> None:
    """Refuses to make so many pixels of an image, whose ``own`` are of that size (m), that nobody can mean it."""
    (rows, cols), (down, across) = scene.native.shape, own
    finer = (down / recipe.resolution) * (across / recipe.resolution)
    if finer > _FINER and rows * cols * finer > _MOST:
        raise MismatchError(
            f"{path} of source {source!r} has {rows} x {cols} px (rows x cols) of {down:.3g} m, and would have "
            f"{rows * down / recipe.resolution:.3g} x {cols * across / recipe.resolution:.3g} at the recipe's "
            f"resolution of {recipe.resolution:g} m; give a resolution (m) near that of the images"
        )


def _resized(path: str, scene: Scene, options: SourceOptions, recipe: Recipe) -> tuple[Scene, float]:
    """A picture at the recipe's resolution, if its own is told and it is to be resampled; and its resolution."""
    if options.resolution is None:
        return scene, recipe.resolution
    factor = recipe.resolution / options.resolution
    if not options.resample or abs(1 / factor - 1) <= _SAME:
        return scene, options.resolution
    _check_size(path, scene, (options.resolution, options.resolution), recipe, options.name)
    geobox: GeoBox = scaled_geobox(scene.native, (factor, factor))
    return replace(scene, geobox=geobox), recipe.resolution


def _bands(path: str, source: str, options: SourceOptions, recipe: Recipe) -> tuple[Scene, tuple[str, ...]]:
    """The image with all its bands, and what they are."""
    try:
        scene = Scene.open(source)
    except SceneError as error:
        raise SceneError(f"source {options.name!r}: {own_words(str(error), source, path)}") from error
    wanted = options.bands or recipe.bands
    if scene.count == len(wanted) - 1 and scene.sources[0].alpha is not None:
        # A fourth band that some writer marked as transparency, and the recipe names as a measurement.
        scene = Scene.open(source, SceneOptions(bands=tuple(range(1, len(wanted) + 1))))
    own = tuple(band.name for band in scene.bands)
    if options.bands is None and all(band in own for band in recipe.bands):
        return scene, own
    if scene.count == len(wanted):
        return scene, wanted
    if options.bands is None and all(
        band in own for band in recipe.bands if band not in recipe.optional_bands
    ):
        return scene, own
    told = f"source {options.name!r} names {len(wanted)} bands ({', '.join(wanted)})"
    if options.bands is None:
        told = (
            f"source {options.name!r} names no bands, and the recipe has {len(wanted)} ({', '.join(wanted)})"
        )
    raise MismatchError(
        f"{path} has {scene.count} bands ({', '.join(own)}), and {told}; say by the source's 'bands' what each of its "
        f"bands is, in the file's order, with '{UNUSED}' for those that the model doesn't use"
    )


def check_bands(options: SourceOptions, recipe: Recipe) -> None:
    """Refuses names of bands that aren't the recipe's.

    Raises
    ------
    MismatchError
        Names them, and the nearest of the recipe's.
    """
    named = [band for band in options.bands or () if band != UNUSED]
    for band in named:
        if band not in recipe.bands:
            close = difflib.get_close_matches(band, recipe.bands, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise MismatchError(
                f"source {options.name!r} has a band {band!r}, and the recipe's bands are {', '.join(recipe.bands)}; "
                f"{hint}Call a band that the model doesn't use '{UNUSED}'"
            )
        if named.count(band) > 1:
            raise MismatchError(f"source {options.name!r} names the band {band!r} twice")
