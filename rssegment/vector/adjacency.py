"""Which small regions of a scene share how much boundary with whom: the graph that cleaning works on.

Only regions below the limits and their neighbours are in it: about 200 bytes each, whatever else the scene holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rssegment.vector.clean import RegionGraph, clean
from rssegment.vector.coverage import Coverage
from rssegment.vector.pieces import Chains, Int64, Piece, Table, keys_of, places_of

__all__ = ["Limits", "Recoding", "cleaned", "finest_codes"]

Float = NDArray[np.float64]

_SAMPLES = 65  # rows and columns at which pixels are measured
_BETWEEN_SAMPLES = 1.1  # more than pixels differ from the nearest of these, but at the poles


@dataclass(frozen=True)
class Limits:
    """Least area of a region and of a hole, in m² or, where ``pixel_area`` is None, in pixels.

    ``pixel_area(rows, cols)`` gives the area of the pixels at these places; a region is measured with its first one.
    """

    region: float
    hole: float
    pixel_area: Callable[[Int64, Int64], Float] | None = None
    region_in_px: bool = False
    hole_in_px: bool = False

    def widest_hole(self, shape: tuple[int, int]) -> float:
        """The greatest limit of a hole, in pixels, that a region anywhere in a scene of ``shape`` may have."""
        rows, cols = (np.unique(np.linspace(0, n - 1, _SAMPLES).astype(np.int64)) for n in shape)
        places = np.stack(np.meshgrid(rows, cols), axis=-1).reshape(-1, 2)
        return float(self.pixels(keys_of(places))[1].max()) * _BETWEEN_SAMPLES

    def pixels(self, keys: Int64) -> tuple[Float, Float]:
        """(n,) both limits in pixels, for regions with first pixels at ``keys``."""
        one = np.ones(keys.size)
        if self.pixel_area is None or not keys.size:
            return self.region * one, self.hole * one
        rows, cols = places_of(keys).T
        area = self.pixel_area(rows, cols)
        return (
            self.region / (one if self.region_in_px else area),
            self.hole / (one if self.hole_in_px else area),
        )


@dataclass(frozen=True)
class Recoding:
    """New codes (n,) of the regions whose first pixels are at ``keys``, ascending; all others keep theirs."""

    keys: Int64
    codes: NDArray[np.uint16]

    def apply(self, keys: Int64, codes: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The codes of regions at ``keys`` that had ``codes``."""
        if not self.keys.size:
            return codes
        at = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        return np.where(self.keys[at] == keys, self.codes[at], codes)


def cleaned(coverage: Coverage, limits: Limits) -> Recoding:
    """What :func:`rssegment.vector.clean.clean` makes of the regions of the first layer of ``coverage``.

    Its chains must not be simplified.
    """
    widest = limits.widest_hole(coverage.shape)
    tables, pairs, lengths = _near_small(coverage, limits, widest)
    keys, first = np.unique(tables.first, return_index=True)
    table = tables[first]
    region, hole = limits.pixels(keys)
    large = ~_below(table, limits, widest)
    graph = RegionGraph(
        code=table.code,
        pixels=table.sums[:, 0],
        key=keys,
        # pairs of two large regions are not there, so none of them may seem to be enclosed
        open=(table.touches != 0) | large,
        pairs=np.searchsorted(keys, pairs),
        lengths=lengths,
    )
    codes = clean(graph, region, hole)
    changed = codes != table.code
    return Recoding(keys[changed], codes[changed])


def _near_small(coverage: Coverage, limits: Limits, widest: float) -> tuple[Table, Int64, Int64]:
    """Regions below the limits and their neighbours (some more than once), pairs (E, 2) of their keys, and lengths."""
    k = coverage.layers[0].regions
    outer = coverage.outer(k)
    outer_small = _below(outer, limits, widest)
    tables, pairs, lengths = [outer[:0]], [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for piece, final in coverage.pieces():
        table = piece.tables[k]
        small = _below(table, limits, widest)
        at = np.searchsorted(outer.first, final[k][piece.open[k]])
        small[piece.open[k]] = outer_small[at]
        if piece.maps:  # a knot: all its groups reach a block's border
            at = np.searchsorted(outer.first, final[k])
            small, table = outer_small[at], outer[at]
        else:
            whole = table.sums.copy(), table.touches.copy()
            whole[0][piece.open[k]], whole[1][piece.open[k]] = outer.sums[at], outer.touches[at]
            table = Table(table.code, whole[0], table.least, whole[1], final[k])
        sides = piece.members[k][piece.chains.sides]
        kept = (piece.chains.sides >= 0).all(axis=1) & (sides[:, 0] != sides[:, 1])
        kept[kept] = small[sides[kept]].any(axis=1)
        touching = piece.members[k][piece.touching]
        touching = touching[(touching[:, 0] != touching[:, 1]) & small[touching].any(axis=1)]
        beside = np.concatenate([sides[kept], touching])
        tables.append(table[np.unique(beside)])
        pairs.append(final[k][beside])
        lengths.append(np.append(_lengths(piece.chains)[kept], np.zeros(len(touching), np.int64)))
    return Table.joined(tables), np.concatenate(pairs), np.concatenate(lengths)


def _below(table: Table, limits: Limits, widest: float) -> NDArray[np.bool_]:
    """Whether a region may be absorbed, or lie in a hole that is filled: of whomever, so the widest one counts."""
    below: NDArray[np.bool_] = table.sums[:, 0] < np.maximum(limits.pixels(table.first)[0], widest)
    return below


def _lengths(chains: Chains) -> Int64:
    """(C,) pixel edges of each chain."""
    from rssegment.vector import _join_kernels as kernels

    out = np.empty(len(chains), np.int64)
    kernels.chain_lengths(chains.ends, chains.offsets, chains.vertices, chains.nodes, out)
    return out


def finest_codes(piece: Piece, final: tuple[Int64, ...], k: int, recoding: Recoding) -> NDArray[np.uint16]:
    """(F,) new codes of the finest groups of a block's piece."""
    members = piece.members[k]
    return recoding.apply(final[k][members], piece.tables[-1].code)
