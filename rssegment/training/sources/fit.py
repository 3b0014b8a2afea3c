"""Label rasters brought onto the pixels of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import MismatchError
from rssegment.grid import Box, ground_resolution, scaled_geobox
from rssegment.reference.alignment import aligned, meeting
from rssegment.reference.footprint import crs_of, other_crs
from rssegment.reference.label_files import LabelFile
from rssegment.reference.rasters import RasterReference
from rssegment.taxonomy import ClassMapping
from rssegment.training.sources.codes import CodeFile
from rssegment.training.sources.imagery import Image
from rssegment.training.sources.labels import Labels
from rssegment.training.sources.majority import Majority, upright

__all__ = ["OnGrid", "OwnPixels", "on_image"]

_FINER = 1.01  # label pixels to an image's pixel from which on they vote
_MOST = 8  # votes along a side where grids are turned against each other


@dataclass(frozen=True)
class OwnPixels:
    """A label file on its own pixels."""

    file: LabelFile
    mapping: ClassMapping | None

    @property
    def files(self) -> tuple[str, ...]:
        return _files(self.file, self.mapping)

    def read(self, box: Box) -> NDArray[np.uint16]:
        return self.file.codes(box, self.mapping)


@dataclass(frozen=True)
class OnGrid:
    """A label file on the pixels of another grid: shifted by whole pixels, or by the pixel each centre lies in."""

    reference: RasterReference

    @property
    def files(self) -> tuple[str, ...]:
        return _files(self.reference.file, self.reference.mapping)

    def read(self, box: Box) -> NDArray[np.uint16]:
        return self.reference.read(box)


def _files(file: LabelFile, mapping: ClassMapping | None) -> tuple[str, ...]:
    """The file, and what its values mean."""
    meant = None if mapping is None else (mapping.classes, mapping.others)
    return file.path, repr((meant, getattr(file, "colors", None), getattr(file, "others", None)))


def on_image(file: LabelFile, mapping: ClassMapping | None, image: Image) -> Labels:
    """The labels of ``file`` on the pixels of ``image``: the majority of finer ones, the nearest of coarser ones.

    Raises
    ------
    MismatchError
        One of them has a place and the other hasn't and their sizes differ, or they don't meet.
    """
    if not image.placed or file.geobox.crs is None:
        file = _laid_over(file, image)
    target: GeoBox = image.scene.geobox
    if not meeting(target, file).size:
        raise MismatchError(_apart(file, image))
    fault, places = aligned(target, file)
    whole = Box.of(image.scene.shape)
    met = [place for place in places if whole.shift(*place).clip(Box.of(file.shape)).size]
    if not fault and not met:
        raise MismatchError(_apart(file, image))
    if not fault:
        return OnGrid(RasterReference(file, target, met[0], mapping, (), tuple(met[1:])))
    if not other_crs(crs_of(target), crs_of(file.geobox)):
        between = ~file.geobox.affine * target.affine
        if upright(between, image.scene.shape) and min(between.e, between.a) >= _FINER:
            return Majority(
                OwnPixels(file, mapping), file.shape, (between.e, between.a), (between.f, between.c)
            )
    votes = _votes(file.geobox, target)
    grid = scaled_geobox(target, (1 / votes, 1 / votes)) if votes > 1 else target
    nearest = OnGrid(RasterReference(file, grid, None, mapping))
    rows, cols = grid.shape
    return Majority(nearest, (int(rows), int(cols)), (float(votes), float(votes))) if votes > 1 else nearest


def _laid_over(file: LabelFile, image: Image) -> LabelFile:
    """The labels with the image's place, pixel by pixel, where one of the two tells none."""
    rows, cols = image.scene.native.shape
    own = f"the labels {file.path} have {file.shape[0]} x {file.shape[1]} px (rows x cols)"
    why = "the image isn't georeferenced" if not image.placed else "they have no CRS"
    if file.shape != (rows, cols):
        raise MismatchError(
            f"{own} and the image {image.path} has {rows} x {cols}; since {why}, expected labels of the same size, "
            "pixel by pixel"
        )
    transform = file.geobox.affine
    if image.placed and transform not in (Affine.identity(), image.scene.native.affine):
        raise MismatchError(
            f"the labels {file.path} have a place but no CRS, and it isn't the place of the image {image.path}; give "
            "them their CRS, as by gdal_translate -a_srs EPSG:XXXX"
        )
    bare = file.geobox.crs is None
    laid = replace(file, raster=replace(file.raster, geobox=image.scene.native))
    return replace(laid, bare=bare) if isinstance(laid, CodeFile) else laid


def _votes(labels: GeoBox, target: GeoBox) -> int:
    """How many pixels along a side of a target's pixel are looked up: those of finer labels, and one of coarser."""
    finest = max(ground_resolution(labels))
    return min(_MOST, max(1, math.floor(min(ground_resolution(target)) / finest + 0.1)))


def _apart(file: LabelFile, image: Image) -> str:
    return (
        f"the labels {file.path} don't lie on the image {image.path}: they cover {_extent(file.geobox)}, and the image "
        f"{_extent(image.scene.native)}. Give the labels of that area, and see that the CRS of both is right"
    )


def _extent(geobox: GeoBox) -> str:
    rows, cols = geobox.shape
    corners = [geobox.affine * corner for corner in ((0, 0), (cols, 0), (0, rows), (cols, rows))]
    (x, y), (x2, y2) = (tuple(choose(axis) for axis in zip(*corners, strict=True)) for choose in (min, max))
    crs = crs_of(geobox)
    authority = None if crs is None else crs.to_authority()
    name = "no CRS" if crs is None else ":".join(authority) if authority else crs.name
    return f"{x:.10g} to {x2:.10g} by {y:.10g} to {y2:.10g} in {name}"
