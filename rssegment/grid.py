"""Blocks and patches: how a scene's pixel grid is cut.

Pixels are ``(row, col)``; a :class:`Box` is a half-open rectangle of them; a georeferenced grid is an
``odc.geo.GeoBox``, and a part of it is again one (``geobox[box.slices]``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer

from rssegment.errors import SettingsError

__all__ = ["Block", "BlockGrid", "Box", "PatchLattice", "ground_resolution", "reflect", "scaled_geobox"]


@dataclass(frozen=True, order=True, slots=True)
class Box:
    """Rows ``[row, row + height)`` and columns ``[col, col + width)`` of a pixel grid."""

    row: int
    col: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: tuple[int, int]) -> Box:
        """The box of a whole grid of ``shape`` (rows, cols)."""
        return cls(0, 0, *shape)

    @classmethod
    def between(cls, row: int, col: int, stop_row: int, stop_col: int) -> Box:
        """The box from its first to one past its last row and column; empty where they cross."""
        return cls(row, col, max(0, stop_row - row), max(0, stop_col - col))

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def stop_row(self) -> int:
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this box in an array or a GeoBox of the whole grid."""
        return slice(self.row, self.stop_row), slice(self.col, self.stop_col)

    def pad(self, pixels: int) -> Box:
        """Grown by ``pixels`` on all four sides."""
        return Box(self.row - pixels, self.col - pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def clip(self, other: Box) -> Box:
        """The common part with ``other`` (of size 0 if there is none)."""
        return Box.between(
            max(self.row, other.row),
            max(self.col, other.col),
            min(self.stop_row, other.stop_row),
            min(self.stop_col, other.stop_col),
        )

    def shift(self, rows: int, cols: int) -> Box:
        return Box(self.row + rows, self.col + cols, self.height, self.width)

    def relative_to(self, other: Box) -> Box:
        """The same pixels, counted from ``other``'s first pixel."""
        return self.shift(-other.row, -other.col)


@dataclass(frozen=True, order=True, slots=True)
class Block:
    """One unit of work: its ``index`` (row, col) in the block grid and its ``core``, the pixels it owns."""

    index: tuple[int, int]
    core: Box

    @property
    def name(self) -> str:
        return f"r{self.index[0]:04d}_c{self.index[1]:04d}"


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The cores of side ``block`` px that tile a grid of ``shape``: a partition, the last ones smaller."""

    shape: tuple[int, int]
    block: int

    def __post_init__(self) -> None:
        if self.block < 1:
            raise SettingsError(f"block size is {self.block} px; it must be at least 1")

    @property
    def grid_shape(self) -> tuple[int, int]:
        """Number of blocks down and across."""
        return math.ceil(self.shape[0] / self.block), math.ceil(self.shape[1] / self.block)

    def __len__(self) -> int:
        rows, cols = self.grid_shape
        return rows * cols

    def __getitem__(self, index: tuple[int, int]) -> Block:
        row, col = index
        rows, cols = self.grid_shape
        if not (0 <= row < rows and 0 <= col < cols):
            raise IndexError(f"block {index} is outside a grid of {rows} x {cols} blocks")
        core = Box(row * self.block, col * self.block, self.block, self.block)
        return Block(index, core.clip(Box.of(self.shape)))

    def __iter__(self) -> Iterator[Block]:
        rows, cols = self.grid_shape
        return (self[row, col] for row in range(rows) for col in range(cols))


@dataclass(frozen=True)
class PatchLattice:
    """The model's input windows over a scene of ``shape``: side ``patch`` px, sharing ``overlap`` px.

    Anchored at the scene's origin, so that a pixel is seen by the same patches whatever the blocks.
    Patch ``k`` of an axis covers ``[k * stride - margin, k * stride - margin + patch)``, where
    ``stride = patch - overlap`` and ``margin = overlap // 2``; patches reach beyond the scene's edges,
    where pixels are mirrored (:func:`reflect`).
    Law: every pixel of the scene lies in the middle ``stride`` px of exactly one patch.
    """

    shape: tuple[int, int]
    patch: int
    overlap: int

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise SettingsError(f"patch size is {self.patch} px; it must be at least 1")
        if not 0 <= self.overlap <= self.patch // 2:
            raise SettingsError(
                f"overlap is {self.overlap} px with a patch of {self.patch} px; "
                f"it must lie between 0 and half the patch, {self.patch // 2}"
            )

    @property
    def stride(self) -> int:
        return self.patch - self.overlap

    @property
    def margin(self) -> int:
        """How far a patch reaches before the pixels it alone is nearest to."""
        return self.overlap // 2

    @cached_property
    def lattice_shape(self) -> tuple[int, int]:
        """Number of patches down and across."""
        return math.ceil(self.shape[0] / self.stride), math.ceil(self.shape[1] / self.stride)

    def start(self, k: int) -> int:
        """First row (or column) of the ``k``-th patch of an axis; negative for patch 0 with overlap."""
        return k * self.stride - self.margin

    def box(self, index: tuple[int, int]) -> Box:
        """The patch at ``index`` (row, col) of the lattice; may reach beyond the scene."""
        return Box(self.start(index[0]), self.start(index[1]), self.patch, self.patch)

    def axis_touching(self, axis: int, start: int, stop: int) -> range:
        """Indices along ``axis`` (0 rows, 1 cols) of the patches that share a pixel with ``[start, stop)``."""
        first = (start + self.margin - self.patch) // self.stride + 1
        last = (stop - 1 + self.margin) // self.stride
        return range(max(0, first), min(self.lattice_shape[axis] - 1, last) + 1)

    def touching(self, box: Box) -> list[tuple[int, int]]:
        """Lattice indices of every patch that shares a pixel with ``box``, row by row."""
        rows = self.axis_touching(0, box.row, box.stop_row)
        cols = self.axis_touching(1, box.col, box.stop_col)
        return [(row, col) for row in rows for col in cols]


def reflect(indices: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Indices mirrored at both ends of ``[0, length)`` without repeating the edge, as often as needed.

    A function of the pixel's place in the scene only, so it does not depend on where a block was cut.
    """
    if length == 1:
        return np.zeros_like(indices)
    period = 2 * (length - 1)
    folded = np.mod(indices, period)
    return np.where(folded < length, folded, period - folded)


def scaled_geobox(geobox: GeoBox, factor: tuple[float, float]) -> GeoBox:
    """The grid over the same ground with pixels ``factor`` (down, across) times as large.

    Shares the origin and the axes of ``geobox`` (rotation and all); the last row and column may reach over.
    """
    rows, cols = (max(1, math.ceil(n / f - 1e-6)) for n, f in zip(geobox.shape, factor, strict=True))
    return GeoBox((rows, cols), geobox.affine * Affine.scale(factor[1], factor[0]), geobox.crs)


def ground_resolution(geobox: GeoBox) -> tuple[float, float]:
    """Ground size in metres of the pixel at the grid's centre, (down a row, along a column).

    Measured on the ellipsoid, so it is true in degrees and in Web Mercator, where CRS units are not metres.

    Raises
    ------
    SettingsError
        The grid has no CRS.
    """
    if geobox.crs is None:
        raise SettingsError("a grid without CRS has no ground resolution; give the raster its CRS first")
    row, col = geobox.shape[0] / 2, geobox.shape[1] / 2
    cols, rows = [col, col, col + 0.5, col - 0.5], [row + 0.5, row - 0.5, row, row]
    xs, ys = zip(*(geobox.affine * point for point in zip(cols, rows, strict=True)), strict=True)
    to_lonlat = Transformer.from_crs(
        CRS.from_user_input(str(geobox.crs)), CRS.from_epsg(4326), always_xy=True
    )
    lon, lat = to_lonlat.transform(xs, ys)
    _, _, metres = Geod(ellps="WGS84").inv(lon[::2], lat[::2], lon[1::2], lat[1::2])
    return float(metres[0]), float(metres[1])
