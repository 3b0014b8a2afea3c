"""The pieces of a class map on disk: traced block by block, knit in a tree, read again band by band."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rssegment.config import Area, Length, PolygonOptions
from rssegment.errors import SettingsError
from rssegment.grid import BlockGrid, Box, ground_resolution
from rssegment.taxonomy import Node
from rssegment.vector import (
    Chains,
    Coverage,
    Layer,
    Partition,
    Piece,
    Simplification,
    Tree,
    knit,
    layers_of,
    outlined,
    piece_of,
    trace_block,
)
from rssegment.vector.adjacency import Limits
from rssegment.vector.ground import pixel_area
from rssegment.vector.simplify import MAX_TOLERANCE
from rssegment.vector.tree import Node as Place
from rssegment.write.atomic import staged, storage_errors

__all__ = ["ClassTree", "LabelBlock", "Source", "Traces", "check_polygons", "limits_of", "traces_of"]


class ClassTree(Protocol):
    """What is asked of a taxonomy: a raster without one has a stand-in."""

    @property
    def nodes(self) -> tuple[Node, ...]: ...

    def node(self, key: int) -> Node: ...


@dataclass(frozen=True, eq=False)
class LabelBlock:
    """``labels`` (H, W), 0 no data; ``confidence`` and ``margin`` (H, W) in 1/254, 255 no data, where known."""

    labels: NDArray[np.uint16]
    confidence: NDArray[np.uint8] | None = None
    margin: NDArray[np.uint8] | None = None


class Source(Protocol):
    """Where the pixels of a class map come from; it can be sent to another process."""

    def read(self, core: Box) -> LabelBlock: ...


LevelCodes = Sequence[tuple[int | None, NDArray[np.uint16] | None]]


@dataclass(frozen=True)
class Traces:
    """Where the pieces lie and what decides them; a small value that is sent to workers.

    ``layers`` are the sets of regions wanted, over ``partitions``; chains are simplified as ``how`` says.
    """

    folder: Path
    shape: tuple[int, int]
    block: int
    partitions: tuple[Partition, ...]
    layers: tuple[Layer, ...]
    how: Simplification | None = None

    @classmethod
    def of(
        cls, folder: Path, grid: BlockGrid, codes: LevelCodes, connectivity: int, how: Simplification | None
    ) -> Traces:
        partitions, layers = layers_of(codes, connectivity)
        return cls(folder, grid.shape, grid.block, partitions, layers, how)

    @cached_property
    def tree(self) -> Tree:
        return Tree(BlockGrid(self.shape, self.block))

    @property
    def connectivity(self) -> int:
        return 8 if any(partition.diagonal for partition in self.partitions) else 4

    def path(self, node: Place) -> Path:
        level, row, col = node
        return self.folder / f"level{level}_r{row:04d}_c{col:04d}.npz"

    def create(self) -> None:
        """Makes the folder."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def piece(self, node: Place, block: LabelBlock) -> Piece:
        """The piece of one block, from its pixels."""
        trace = trace_block(
            block.labels, self.tree.box(node), self.connectivity, block.confidence, block.margin
        )
        return piece_of(trace, self.partitions, corners=self.how is not None)

    def save(self, node: Place, piece: Piece) -> None:
        """Writes a piece, whole or not at all."""
        with staged(self.path(node), durable=False) as temporary:
            piece.save(temporary)

    def blank(self, nodes: Iterable[Place]) -> None:
        """Writes pieces without data for blocks."""
        for node in nodes:
            self.save(node, self.piece(node, LabelBlock(np.zeros(self.tree.box(node).shape, np.uint16))))

    def knit(self, node: Place) -> None:
        """Joins the pieces below ``node``, which were written before, to its own."""
        children = [self.load(child, chains=False) for child in self.tree.children(node)]
        scene = Box.of(self.shape) if node == self.tree.root else None
        self.save(node, knit(children, self.partitions, scene))

    def outline(self, node: Place) -> None:
        """Writes the simplified chains of a piece, once :meth:`count` has been there."""
        if self.how is None:
            return
        piece, pixels = Piece.load(self.path(node)), np.load(self._pixels(node))
        chains = outlined(piece, pixels, partial(self._corners, node), self.how, Box.of(self.shape))
        with staged(self._outlines(node), durable=False) as temporary:
            chains.save(temporary)

    def count(self) -> None:
        """Leaves beside each piece how many pixels its parts have in the whole scene."""
        coverage = self.coverage()
        for node in self.nodes:
            with staged(self._pixels(node), durable=False) as temporary:
                np.save(temporary, coverage.pixels(node))

    @property
    def nodes(self) -> Iterator[Place]:
        """All nodes of the tree, children first."""
        return chain(self.tree.level(0), self.tree.knots())

    def load(self, node: Place, chains: bool = True) -> Piece:
        """A piece as it was knit, with its chains or without."""
        return Piece.load(self.path(node), chains=chains)

    def load_outlined(self, node: Place, chains: bool) -> Piece:
        """A piece with its simplified chains, or without any."""
        piece = Piece.load(self.path(node), chains=False)
        return replace(piece, chains=Chains.load(self._outlines(node))) if chains else piece

    def coverage(self, *, simplified: bool = False) -> Coverage:
        """The regions, once everything is knit; ``simplified``, once all outlines are written."""
        load = self.load_outlined if simplified and self.how is not None else self.load
        return Coverage(self.tree, len(self.partitions), self.layers, load)

    def _corners(self, node: Place, wanted: Callable[[Box], bool]) -> Iterator[NDArray[np.int32]]:
        """Original corners of a piece, and of those below whose boxes are wanted."""
        for each in (node, *self.tree.below(node, wanted)):
            yield Piece.load_corners(self.path(each))

    def _pixels(self, node: Place) -> Path:
        return self.path(node).with_suffix(".pixels.npy")

    def _outlines(self, node: Place) -> Path:
        return self.path(node).with_suffix(".outlines.npz")


def traces_of(
    folder: Path, grid: BlockGrid, geobox: GeoBox, classes: ClassTree, options: PolygonOptions, *, raw: bool
) -> Traces:
    """The pieces that ``options`` ask for; ``raw`` are those that are to be cleaned first.

    Raises
    ------
    SettingsError
        Levels or a tolerance that can't be had.
    """
    lookup = getattr(classes, "ancestor_lookup", None)
    depth = max(node.level for node in classes.nodes)
    codes, how = level_codes(options, depth, lookup), simplification(options, geobox)
    if raw:
        return Traces.of(folder / "raw", grid, [(None, None)], options.connectivity, None)
    return Traces.of(folder / "trace", grid, codes, options.connectivity, how)


def level_codes(
    options: PolygonOptions, depth: int, lookup: Callable[[int], NDArray[np.uint16]] | None
) -> LevelCodes:
    """What the levels asked for make of each label; ``depth`` levels there are, and ``lookup`` gives one's table.

    Raises
    ------
    SettingsError
        A level that the taxonomy does not have, or levels without a taxonomy.
    """
    if options.levels is None:
        return [(None, None)]
    if lookup is None:
        raise SettingsError("levels need a taxonomy: the labels alone have no tree; name one by --taxonomy")
    wanted = tuple(range(1, depth + 1)) if options.levels == "all" else options.levels
    if wanted[-1] > depth:
        raise SettingsError(f"level {wanted[-1]} was asked for; the taxonomy has levels 1 to {depth}")
    return [(level, None if level == depth else lookup(level)) for level in wanted]


def check_polygons(geobox: GeoBox, classes: ClassTree, options: PolygonOptions) -> None:
    """Refuses what can't be had, before anything is done.

    Raises
    ------
    SettingsError
        Levels without a taxonomy or beyond it; metres on a grid without CRS.
    """
    traces_of(Path(), BlockGrid((1, 1), 1), geobox, classes, options, raw=False)
    limits_of(options, geobox)
    if geobox.crs is not None and geobox.crs.geographic and _turns(geobox) > 1 + 1e-6:
        raise SettingsError(
            f"the raster goes round the Earth {_turns(geobox):.3g} times, so its regions would have more than the "
            "Earth has; cut it first, as by gdalwarp -te"
        )


def _turns(geobox: GeoBox) -> float:
    """How often a geographic grid goes round the Earth, along its rows or columns."""
    unit = CRS.from_user_input(str(geobox.crs)).axis_info[0].unit_conversion_factor
    rows, cols = geobox.shape
    across = max(abs(geobox.affine.a) * cols, abs(geobox.affine.b) * rows)
    return float(across * unit / math.tau)


def limits_of(options: PolygonOptions, geobox: GeoBox) -> Limits:
    """The least areas.

    Raises
    ------
    SettingsError
        Square metres on a grid without CRS.
    """
    region, hole = options.min_area or Area(0.0, "px"), options.fill_holes or Area(0.0, "px")
    metric = [each.value for each in (region, hole) if each.unit == "m2" and each.value > 0]
    if metric and geobox.crs is None:
        raise SettingsError(
            f"an area of {metric[0]:g} m² needs a CRS of the Earth, which the raster lacks; give it in pixels, as 20px"
        )
    crs, affine = str(geobox.crs), geobox.affine
    return Limits(
        region.value,
        hole.value,
        (lambda rows, cols: pixel_area(affine, crs, rows, cols)) if metric else None,
        region.unit == "px",
        hole.unit == "px",
    )


def simplification(options: PolygonOptions, geobox: GeoBox) -> Simplification | None:
    """The simplification in pixels of the grid; None if chains stay as they are.

    Raises
    ------
    SettingsError
        A tolerance in metres on a grid without CRS.
    """
    tolerance = 0.0 if options.simplify is None else _pixels(options.simplify, geobox)
    if options.simplify is not None and not tolerance <= MAX_TOLERANCE:
        raise SettingsError(
            f"simplify is {options.simplify.value:g} {options.simplify.unit}, {tolerance:.4g} px on this raster; "
            f"expected at most {MAX_TOLERANCE} px"
        )
    if tolerance == 0 and options.smooth == 0:
        return None
    return Simplification(tolerance, options.method, options.smooth)


def _pixels(length: Length, geobox: GeoBox) -> float:
    if length.unit == "px":
        return length.value
    if geobox.crs is None:
        raise SettingsError(
            f"a tolerance of {length.value:g} m needs a CRS of the Earth, which the raster lacks; "
            "give it in pixels, as 1.5px"
        )
    return length.value / math.sqrt(math.prod(ground_resolution(geobox)))
