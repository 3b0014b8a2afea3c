"""Label rasters to polygons: trace each block, join what reaches its border, make rings, attribute the regions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import BlockGrid, Box
from rssegment.vector.block_pieces import piece_of
from rssegment.vector.coverage import Coverage, Layer, Span, layers_of
from rssegment.vector.knit import knit
from rssegment.vector.pieces import Chains, Partition, Piece
from rssegment.vector.polylines import outlined
from rssegment.vector.regions import Regions
from rssegment.vector.simplify import Simplification
from rssegment.vector.trace import BlockTrace, trace_block
from rssegment.vector.tree import Node, Tree

__all__ = [
    "BlockTrace",
    "Chains",
    "Coverage",
    "Layer",
    "Partition",
    "Piece",
    "Regions",
    "Simplification",
    "Span",
    "Tree",
    "knit",
    "layers_of",
    "outlined",
    "piece_of",
    "trace_bands",
    "trace_block",
    "trace_raster",
]


def trace_raster(
    labels: NDArray[Any],
    block: int = 1024,
    connectivity: int = 4,
    confidence: NDArray[np.uint8] | None = None,
    how: Simplification | None = None,
    *,
    valid: bool = True,
) -> Regions:
    """Regions of the array ``labels`` (H, W), uint8 or uint16, 0 for no data, traced in blocks of side ``block`` px.

    Boundaries are simplified as ``how`` says. The result does not depend on ``block``. With connectivity 8 a region
    may hang together by corners alone. It then has several polygons, each valid (OGC); with ``valid=False`` it is one
    polygon whose ring runs through such corners more than once, as GDAL makes them.
    """
    return Regions.joined(list(trace_bands(labels, block, connectivity, confidence, how, valid=valid)))


def trace_bands(
    labels: NDArray[Any],
    block: int = 1024,
    connectivity: int = 4,
    confidence: NDArray[np.uint8] | None = None,
    how: Simplification | None = None,
    *,
    valid: bool = True,
) -> Iterator[Regions]:
    """What :func:`trace_raster` gives, row of blocks by row of blocks, without the memory for all of it at once."""
    coverage = _coverage(labels, block, connectivity, confidence, how)
    if not valid:
        coverage.layers = tuple(replace(layer, parts=layer.regions) for layer in coverage.layers)
    for span in coverage.spans(0):
        yield coverage.regions(0, span)


def _coverage(
    labels: NDArray[Any],
    block: int,
    connectivity: int,
    confidence: NDArray[np.uint8] | None,
    how: Simplification | None,
) -> Coverage:
    """The joined pieces of an array, in memory."""
    partitions, layers = layers_of([(None, None)], connectivity)
    tree = Tree(BlockGrid((labels.shape[0], labels.shape[1]), block))
    pieces: dict[Node, Piece] = {}
    for node in tree.level(0):
        core = tree.box(node)
        values = None if confidence is None else confidence[core.slices]
        trace = trace_block(labels[core.slices], core, connectivity, values)
        pieces[node] = piece_of(trace, partitions, corners=how is not None)
    scene = Box.of(tree.grid.shape)
    for node in tree.knots():
        children = [pieces[child] for child in tree.children(node)]
        pieces[node] = knit(children, partitions, scene if node == tree.root else None)
    coverage = Coverage(tree, len(partitions), layers, lambda node, _: pieces[node])
    if how is None:
        return coverage
    for node in list(pieces):
        near = partial(_corners, tree, pieces, node)
        chains = outlined(pieces[node], coverage.pixels(node), near, how, scene)
        pieces[node] = replace(pieces[node], chains=chains)
    return coverage


def _corners(
    tree: Tree, pieces: Mapping[Node, Piece], node: Node, wanted: Callable[[Box], bool]
) -> Iterator[NDArray[np.int32]]:
    """Original corners of a piece, and of those below that are wanted."""
    return (pieces[each].corners for each in (node, *tree.below(node, wanted)))
