"""What the vector writers take: features chunk by chunk, as arrays, and what is known of the layer as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.write._geometry import oriented

if TYPE_CHECKING:
    import pyarrow as pa

    from rssegment.write.lonlat import Coordinates

__all__ = [
    "REGION_SCHEMA",
    "Chunk",
    "Features",
    "Kind",
    "Layer",
    "Rings",
    "Schema",
    "chunks_of",
    "inferred",
    "region_schema",
]

Float = NDArray[np.float64]
Int64 = NDArray[np.int64]

Kind = Literal["int32", "int64", "float64", "bool", "text"]
"""What a column holds. Numbers and text may be null: masked (``numpy.ma``), not finite, or None."""
Schema = Mapping[str, Kind]
"""Columns in their order."""

REGION_SCHEMA: Schema = {
    "id": "int64",
    "parent_id": "int64",
    "code": "int32",
    "name": "text",
    "level": "int32",
    "path": "text",
    "pixels": "int64",
    "area_m2": "float64",
    "perimeter_m": "float64",
    "confidence": "float64",
    "confidence_min": "float64",
    "margin": "float64",
    "touches_nodata": "bool",
    "touches_edge": "bool",
}
"""The columns of a layer of regions."""


def region_schema(codes: NDArray[np.integer[Any]] | None = None) -> Schema:
    """The columns of a layer of regions of these ``codes`` (any shape): 64 bits a code where one needs them."""
    limit = np.iinfo(np.int32)
    if codes is None or not codes.size or (limit.min <= codes.min() and codes.max() <= limit.max):
        return REGION_SCHEMA
    return {**REGION_SCHEMA, "code": "int64"}


@dataclass(frozen=True, eq=False)
class Rings:
    """Polygons of features as arrays: ``xy`` (N, 2) points of closed rings, offsets of ``rings`` into points, of
    ``polygons`` into rings (the exterior first) and of ``features`` into polygons."""

    xy: Float
    rings: Int64
    polygons: Int64
    features: Int64

    def __len__(self) -> int:
        return self.features.size - 1

    @classmethod
    def of(cls, polygons: NDArray[np.object_]) -> Self:
        """The rings of shapely Polygons and MultiPolygons (F,).

        Raises
        ------
        InputError
            A geometry is another kind, or empty.
        """
        import shapely

        kinds = shapely.get_type_id(polygons)
        wrong = ~np.isin(kinds, [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON])
        if wrong.any() or shapely.is_empty(polygons).any():
            raise InputError("only polygons that are not empty can be written")
        parts, owner = shapely.get_parts(polygons, return_index=True)
        _, xy, (rings, ends) = shapely.to_ragged_array(parts, include_z=False)
        features = np.searchsorted(owner, np.arange(len(polygons) + 1))
        return cls(xy, *(each.astype(np.int64) for each in (rings, ends, features)))

    def oriented(self) -> Self:
        """The same with exteriors anticlockwise and holes clockwise."""
        out = np.empty_like(self.xy)
        turned = oriented(np.ascontiguousarray(self.xy), self.rings, self.polygons, out)
        return type(self)(out, self.rings, self.polygons, self.features) if turned else self

    def bounds(self) -> Float:
        """(F, 4) least x, least y, greatest x, greatest y of each feature."""
        starts = self.rings[self.polygons[self.features[:-1]]]
        low, high = np.minimum.reduceat(self.xy, starts), np.maximum.reduceat(self.xy, starts)
        return np.concatenate([low, high], axis=1)


Features = tuple["NDArray[np.object_] | Rings", Mapping[str, NDArray[Any]]]
"""Polygons of (F,) features in the scene's CRS, as :class:`Rings` or as shapely Polygons and MultiPolygons, and columns
of (F,) values: text, whole numbers, decimal numbers (NaN is null) or truth values; masked values are null."""


@dataclass(frozen=True)
class Layer:
    """What is known of a layer before its first feature.

    ``crs``: of the features (WKT or anything pyproj reads), None where the scene has none: coordinates then are pixels
    (col, row). ``pixel``: side of a pixel in CRS units. ``schema``: the columns; taken from the first features
    where it is not given. ``side``: the longer side of the scene in CRS units, where known.
    """

    crs: str | None
    pixel: float = 1.0
    name: str = "regions"
    schema: Schema | None = None
    side: float | None = None


class Chunk:
    """Some features of a layer; what several formats need of them is made once, whoever asks first."""

    def __init__(
        self, rings: Rings, columns: Mapping[str, NDArray[Any]], schema: Schema, layer: Layer
    ) -> None:
        self.rings, self.layer, self.schema = rings, layer, schema
        self._columns = columns
        self._arrow_lock, self._lonlat_lock = Lock(), Lock()
        self._arrow: dict[str, pa.Array] | None = None
        self._lonlat: Coordinates | None = None

    def __len__(self) -> int:
        return len(self.rings)

    @property
    def arrow(self) -> dict[str, pa.Array]:
        """The columns as Arrow arrays of the layer's types."""
        from rssegment.write.arrow import to_arrow

        with self._arrow_lock:
            if self._arrow is None:
                self._arrow = {
                    name: to_arrow(name, self._columns[name], kind) for name, kind in self.schema.items()
                }
            return self._arrow

    @property
    def lonlat(self) -> Coordinates:
        """WGS 84 coordinates as RFC 7946 wants them; plain ones without a CRS."""
        from rssegment.write.lonlat import lonlat_coordinates, plain_coordinates

        with self._lonlat_lock:
            if self._lonlat is None:
                layer = self.layer
                self._lonlat = (
                    plain_coordinates(self.rings)
                    if layer.crs is None
                    else lonlat_coordinates(self.rings, layer.crs, layer.pixel)
                )
            return self._lonlat


def chunks_of(features: Iterable[Features], layer: Layer) -> Iterator[Chunk]:
    """The features that are not empty chunks, checked against one schema.

    Raises
    ------
    InputError
        A geometry is not a polygon or not finite; columns differ in length or from the schema.
    """
    schema = layer.schema
    for polygons, columns in features:
        if not len(polygons):
            continue
        rings = polygons if isinstance(polygons, Rings) else Rings.of(polygons)
        if schema is None:
            schema = inferred(columns)
        _check(rings, columns, schema)
        yield Chunk(rings.oriented(), columns, schema, layer)


def inferred(columns: Mapping[str, NDArray[Any]]) -> Schema:
    """The schema of ``columns``: small whole numbers are int32, what is no number is text."""
    kinds: dict[str, Kind] = {}
    for name, values in columns.items():
        dtype = np.asarray(values).dtype
        whole: Kind = "int32" if np.can_cast(dtype, np.int32) else "int64"
        kinds[name] = {"i": whole, "u": whole, "f": "float64", "b": "bool"}.get(dtype.kind, "text")
    return kinds


def _check(rings: Rings, columns: Mapping[str, NDArray[Any]], schema: Schema) -> None:
    if not np.isfinite(rings.xy).all():
        raise InputError("a polygon has a coordinate that is not a number; is the raster's transform right?")
    if list(columns) != list(schema):
        raise InputError(f"the features have the columns {list(columns)}; the layer has {list(schema)}")
    for name, values in columns.items():
        if len(values) != len(rings):
            raise InputError(f"column {name!r} has {len(values)} values for {len(rings)} polygons")
