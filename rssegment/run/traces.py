"""The pieces of a class map on disk: traced block by block, knit in a tree, read again band by band."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import CRS

from rssegment.config import Area, Length, PolygonOptions
from rssegment.errors import SettingsError, TaxonomyError
from rssegment.grid import BlockGrid, Box, ground_resolution
from rssegment.taxonomy import Node, Taxonomy
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
from rssegment.vector.squaring import SCALE, Candidates, Outlined, Squaring, candidates_of, squared
from rssegment.vector.tree import Node as Place
from rssegment.write.atomic import staged, storage_errors

__all__ = [
    "ClassTree",
    "LabelBlock",
    "Source",
    "Traces",
    "check_polygons",
    "limits_of",
    "release_knots",
    "traces_of",
]


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

    ``layers`` are the sets of regions wanted, over ``partitions``; chains are simplified as ``how`` says, and then
    squared as ``squaring`` says.
    """

    folder: Path
    shape: tuple[int, int]
    block: int
    partitions: tuple[Partition, ...]
    layers: tuple[Layer, ...]
    how: Simplification | None = None
    squaring: Squaring | None = None

    @classmethod
    def of(cls, folder: Path, grid: BlockGrid, codes: LevelCodes, connectivity: int) -> Traces:
        partitions, layers = layers_of(codes, connectivity)
        return cls(folder, grid.shape, grid.block, partitions, layers)

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
        angular, scale = None, 1
        if self.squaring is not None:
            candidates = candidates_of(piece, self.squaring)
            angular, scale = candidates.rows, SCALE
            with staged(self._candidates(node), durable=False) as temporary:
                candidates.save(temporary)
        near, scene = partial(self._corners, node), Box.of(self.shape)
        chains = outlined(piece, pixels, near, self.how, scene, angular=angular, scale=scale)
        with staged(self._outlines(node), durable=False) as temporary:
            chains.save(temporary)

    def square(self, node: Place) -> None:
        """Writes the chains of a piece with right angles, where it has such, once all outlines are written."""
        self._squared(node).unlink(missing_ok=True)  # of an earlier attempt, when more blocks were missing
        if self.squaring is None or not len(Candidates.load(self._candidates(node))):
            return
        chains = squared(
            self._outlined(node), partial(self._others, node), self.squaring, Box.of(self.shape), self.block
        )
        if chains is not None:
            with staged(self._squared(node), durable=False) as temporary:
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
        if not chains:
            return piece
        changed = self.squaring is not None and self._squared(node).exists()
        return replace(piece, chains=Chains.load((self._squared if changed else self._outlines)(node)))

    def coverage(self, *, simplified: bool = False) -> Coverage:
        """The regions, once everything is knit; ``simplified``, once all outlines are written."""
        load = self.load_outlined if simplified and self.how is not None else self.load
        return Coverage(self.tree, len(self.partitions), self.layers, load)

    def _corners(self, node: Place, wanted: Callable[[Box], bool]) -> Iterator[NDArray[np.int32]]:
        """Original corners of a piece, and of those below whose boxes are wanted."""
        for each in (node, *self.tree.below(node, wanted)):
            yield Piece.load_corners(self.path(each))

    def _others(self, node: Place, wanted: Callable[[Box], bool]) -> Iterator[Outlined]:
        """What all pieces but one left whose boxes are wanted."""
        for each in (self.tree.root, *self.tree.below(self.tree.root, wanted)):
            if each != node:
                yield self._outlined(each)

    def _outlined(self, node: Place) -> Outlined:
        """What a piece left before any was squared; knots, which go round many blocks, are kept for a while."""
        paths = self._outlines(node), self._candidates(node)
        if node[0] == 0:
            return _load_outlined(*paths)
        return _load_knot(*paths, *(path.stat().st_mtime_ns for path in paths))

    def _pixels(self, node: Place) -> Path:
        return self.path(node).with_suffix(".pixels.npy")

    def _outlines(self, node: Place) -> Path:
        return self.path(node).with_suffix(".outlines.npz")

    def _candidates(self, node: Place) -> Path:
        return self.path(node).with_suffix(".candidates.npz")

    def _squared(self, node: Place) -> Path:
        return self.path(node).with_suffix(".squared.npz")


def release_knots() -> None:
    """Lets go of what was kept for a while."""
    _load_knot.cache_clear()


def _load_outlined(outlines: Path, candidates: Path) -> Outlined:
    return Outlined(Chains.load(outlines), Candidates.load(candidates))


@lru_cache(maxsize=8)
def _load_knot(outlines: Path, candidates: Path, *_times: int) -> Outlined:
    return _load_outlined(outlines, candidates)


def traces_of(
    folder: Path,
    grid: BlockGrid,
    geobox: GeoBox,
    classes: ClassTree,
    options: PolygonOptions,
    *,
    raw: bool,
    values: NDArray[np.int64] | None = None,
) -> Traces:
    """The pieces that ``options`` ask for; ``raw`` are those that are to be cleaned first.

    ``values`` (n,): the class of each label where they differ.

    Raises
    ------
    SettingsError
        Levels, a tolerance or classes that can't be had.
    """
    lookup = getattr(classes, "ancestor_lookup", None)
    depth = max(node.level for node in classes.nodes)
    codes, how = level_codes(options, depth, lookup), simplification(options, geobox)
    if raw:
        return Traces.of(folder / "raw", grid, [(None, None)], options.connectivity)
    square = squaring(options, geobox, classes, values)
    if square is not None:
        how = how or Simplification(0.0)
    traces = Traces.of(folder / "trace", grid, codes, options.connectivity)
    return replace(traces, how=how, squaring=square)


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
    traces = traces_of(Path(), BlockGrid((1, 1), 1), geobox, classes, options, raw=False)
    if traces.squaring is not None:
        traces.squaring.check_range(Box.of((int(geobox.shape[0]), int(geobox.shape[1]))))
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


def squaring(
    options: PolygonOptions, geobox: GeoBox, classes: ClassTree, values: NDArray[np.int64] | None
) -> Squaring | None:
    """Which labels have outlines to be squared, and how far they may move; None if none are.

    Raises
    ------
    SettingsError
        There is no such class, or the limit is out of its range or in metres on a grid without CRS.
    """
    if options.square is None:
        return None
    codes = sorted({code for key in options.square for code in _codes_of(key, classes)})
    if values is not None:  # 0 is no data, whatever the class of that number
        codes = (1 + np.flatnonzero(np.isin(values[1:], codes))).tolist()
    return Squaring(tuple(codes), _pixels(options.square_limit, geobox))


def _codes_of(key: int | str, classes: ClassTree) -> list[int]:
    """The codes that a class stands for: its own, and those of all under it."""
    if isinstance(classes, Taxonomy):
        try:
            path = classes.node(key).path
        except TaxonomyError as error:
            raise SettingsError(f"square names {key!r}: {error}") from error
        return [node.code for node in classes.nodes if node.path[: len(path)] == path]
    if isinstance(key, int):  # one that isn't there has no outlines
        return [key]
    codes = [node.code for node in classes.nodes if node.name == key]
    if not codes:
        raise SettingsError(
            f"square names {key!r}, which is no class of the raster; give its code, or the classes by --taxonomy"
        )
    return codes


def _pixels(length: Length, geobox: GeoBox) -> float:
    if length.unit == "px":
        return length.value
    if geobox.crs is None:
        raise SettingsError(
            f"a length of {length.value:g} m needs a CRS of the Earth, which the raster lacks; "
            "give it in pixels, as 1.5px"
        )
    return length.value / math.sqrt(math.prod(ground_resolution(geobox)))
