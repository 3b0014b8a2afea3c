"""What a class map can be compared with, on the map's own pixel grid: label rasters, polygons and points.

A reference is a small value without open files, so it can be sent to any worker; ``read(box)`` gives its codes, and the
same for any box that a pixel is asked in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.reference.features import FeatureSource, GridFeatures, features_on
from rssegment.reference.rasters import Labels, RasterReference, raster_reference
from rssegment.reference.vector_files import is_vector, stamp
from rssegment.taxonomy import ClassMapping, Taxonomy

__all__ = [
    "Labels",
    "LimitedReference",
    "RasterReference",
    "Reference",
    "ReferenceOptions",
    "ShapeReference",
    "open_reference",
]


@dataclass(frozen=True)
class ReferenceOptions:
    """How a reference is to be read.

    Of polygons and points: ``column`` tells their class, or ``label`` is the class of all; ``outside`` is the class of
    what no polygon covers (None: unlabelled); ``layer`` of several. Of a raster: ``resample`` allows one that lies on
    another grid, by nearest neighbour. ``within``: a file of polygons that limits what counts.
    """

    column: str | None = None
    label: int | str | None = None
    outside: int | str | None = None
    within: str | Path | None = None
    layer: str | None = None
    resample: bool = False


class Reference(Protocol):
    """What is true, on the grid of the map that is compared with it."""

    @property
    def remarks(self) -> tuple[str, ...]: ...

    def labels(self, box: Box) -> Labels: ...

    def read(self, box: Box) -> NDArray[np.uint16]: ...


@dataclass(frozen=True)
class ShapeReference:
    """Polygons or points, drawn onto the grid as they are asked for; ``outside``: the code beyond all of them."""

    source: FeatureSource
    outside: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def features(self) -> GridFeatures:
        """All features on the grid, in pixel coordinates; read once per process."""
        return features_on(self.source)

    def labels(self, box: Box) -> Labels:
        """The labels of ``box``: of the last feature in the file's order that covers a pixel's centre."""
        values, contested = self.features.shapes.burn(box)
        values[values < 0] = self.outside
        return Labels(values.astype(np.uint16), contested)

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W); 0 where there is no label."""
        return self.labels(box).codes


@dataclass(frozen=True)
class LimitedReference:
    """A reference that counts within polygons only."""

    reference: RasterReference | ShapeReference
    area: ShapeReference

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self.reference.remarks, *self.area.remarks)

    def inside(self, box: Box) -> NDArray[np.bool_]:
        """(H, W): which pixels count."""
        inside: NDArray[np.bool_] = self.area.read(box) > 0
        return inside

    def labels(self, box: Box) -> Labels:
        inside = self.inside(box)
        if not inside.any():
            return Labels(np.zeros(box.shape, np.uint16))
        codes, contested = self.reference.labels(box)
        return Labels(
            np.where(inside, codes, np.uint16(0)), None if contested is None else contested & inside
        )

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W); 0 where there is no label."""
        return self.labels(box).codes


def open_reference(
    path: str | Path,
    geobox: GeoBox,
    taxonomy: Taxonomy,
    mapping: ClassMapping | None = None,
    options: ReferenceOptions | None = None,
) -> RasterReference | ShapeReference | LimitedReference:
    """The reference in the file ``path``, on the pixels of ``geobox``, as codes of ``taxonomy`` at any level.

    Raises
    ------
    InputError
        It can't be read, doesn't lie on the grid, has no class for its features, or options don't fit its kind.
    """
    chosen = options or ReferenceOptions()
    mapping = None if mapping is None else mapping.onto(taxonomy).of_truth()
    if is_vector(str(path)):
        found: RasterReference | ShapeReference = _shapes(str(path), geobox, taxonomy, chosen, mapping)
    else:
        found = raster_reference(str(path), geobox, mapping, resample=chosen.resample)
        given = [
            name for name in ("column", "label", "outside", "layer") if getattr(chosen, name) is not None
        ]
        if given:
            raise InputError(f"{' and '.join(given)} need polygons, and the reference {path} is a raster")
    if chosen.within is None:
        return found
    area = FeatureSource(str(chosen.within), geobox, "area to count within", stamp=stamp(str(chosen.within)))
    return LimitedReference(found, ShapeReference(area, 0, features_on(area).remarks))


def _shapes(
    path: str, geobox: GeoBox, taxonomy: Taxonomy, options: ReferenceOptions, mapping: ClassMapping | None
) -> ShapeReference:
    if options.resample:
        raise InputError(f"resample is for rasters, and the reference {path} holds polygons or points")
    if options.column is not None and options.label is not None:
        raise InputError("column and label exclude each other: each feature's own class, or one for all")
    if mapping is not None and options.label is not None:
        raise InputError(
            "label gives every feature one class of the taxonomy; a mapping needs a column instead"
        )
    label = None if options.label is None else taxonomy.node(options.label).code
    outside = 0 if options.outside is None else taxonomy.node(options.outside).code
    source = FeatureSource(
        path, geobox, "reference", options.layer, options.column, label, taxonomy, mapping, stamp(path)
    )
    return ShapeReference(source, outside, features_on(source).remarks)
