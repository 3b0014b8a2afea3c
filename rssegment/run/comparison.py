"""Prediction against reference, block by block: all that is counted of their pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.evaluation import BackoffCounts, Coherence, Confusion, Evidence, MapAreas, Reliability
from rssegment.evaluation.boundaries import BoundaryCounts, margin_px
from rssegment.evaluation.lookup import LabelPairs, undecided_code
from rssegment.grid import Box
from rssegment.reference.pixel_areas import PixelAreas
from rssegment.reference.references import Labels, LimitedReference, RasterReference, ShapeReference
from rssegment.run.predictions import Prediction
from rssegment.scene import LabelRaster
from rssegment.taxonomy import Taxonomy

__all__ = ["Comparison", "Counted"]


@dataclass(frozen=True)
class Counted:
    """What one block gives: counts, and pixels that polygons of different classes cover."""

    evidence: Evidence
    contested: int

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.evidence + other.evidence, self.contested + other.contested)


@dataclass(frozen=True)
class Comparison:
    """Prediction against reference, block by block: a value that can be sent to a worker.

    ``tolerance`` (m) of boundaries, 0 for none; ``cell``: size of a pixel on the ground (m); ``areas``: of its
    pixels on the ground, None where unknown.
    """

    prediction: Prediction
    reference: RasterReference | ShapeReference | LimitedReference
    ignore: tuple[int, ...]
    tolerance: float
    cell: tuple[float, float]
    areas: PixelAreas | None

    @property
    def taxonomy(self) -> Taxonomy:
        return self.prediction.taxonomy

    @property
    def margin(self) -> int:
        """Pixels around a block that decide its boundary counts."""
        return margin_px(self.tolerance, self.cell) if self.tolerance else 0

    def count(self, core: Box) -> Counted:
        """All counts of the pixels of ``core``; those of blocks add up to those of the whole.

        Raises
        ------
        InputError
            A value is no code of the taxonomy.
        ReadError
            Pixels could not be read.
        """
        box = core.pad(self.margin).clip(Box.of(self.prediction.shape))
        predicted, true = self.prediction.read(box), self._true(box)
        inner = core.relative_to(box)
        mine, theirs = predicted[inner.slices], true.codes[inner.slices]
        pairs = LabelPairs(mine, theirs, self.taxonomy)
        evidence = Evidence(
            Confusion.of_pairs(pairs),
            self._reliability(core, pairs),
            self._backoff(core, pairs),
            self._boundaries(predicted, true.codes, inner),
            coherence=self._coherence(core, mine),
            areas=self._areas(core, self._counted_at_all(core, mine)),
        )
        contested = 0 if true.contested is None else int(np.count_nonzero(true.contested[inner.slices]))
        return Counted(evidence, contested)

    def _true(self, box: Box) -> Labels:
        """The reference's labels without those to be ignored."""
        codes, contested = self.reference.labels(box)
        if self.ignore:
            codes = np.where(np.isin(codes, self.ignore), np.uint16(0), codes)
        return Labels(codes, contested)

    def _reliability(self, core: Box, pairs: LabelPairs) -> dict[int, Reliability]:
        rasters = {0: self.prediction.confidence, **self.prediction.level_confidences}
        return {
            level: Reliability.of_labels(pairs, _bytes(raster, core), level)
            for level, raster in rasters.items()
            if raster is not None
        }

    def _backoff(self, core: Box, pairs: LabelPairs) -> BackoffCounts | None:
        rasters = self.prediction.level_confidences
        if set(rasters) != set(range(1, self.taxonomy.depth + 1)):
            return None
        return BackoffCounts.of(pairs, [_bytes(rasters[level], core) for level in sorted(rasters)])

    def _coherence(self, core: Box, mine: NDArray[Any]) -> Coherence | None:
        levels = {level: file.codes(core) for level, file in self.prediction.level_labels.items()}
        return Coherence.of(levels, mine, self.taxonomy) if levels else None

    def _counted_at_all(self, core: Box, mine: NDArray[Any]) -> NDArray[Any]:
        """The map where it is compared at all: within the polygons that limit it, if there are such."""
        if not isinstance(self.reference, LimitedReference):
            return mine
        return np.where(self.reference.inside(core), mine, mine.dtype.type(0))

    def _areas(self, core: Box, mine: NDArray[Any]) -> MapAreas | None:
        if self.areas is None:
            return None
        columns, areas = self.areas.within(core)
        return MapAreas.of(mine, self.taxonomy, areas, columns)

    def _boundaries(
        self, predicted: NDArray[Any], true: NDArray[Any], inner: Box
    ) -> dict[int, BoundaryCounts]:
        if not self.tolerance:
            return {}
        present = _present(predicted, true) if true[inner.slices].any() else np.empty(0, np.intp)
        counts: dict[int, BoundaryCounts] = {}
        open_ = undecided_code(self.taxonomy)
        above: NDArray[np.uint16] | None = None
        for level in range(1, self.taxonomy.depth + 1):
            lookup = self.taxonomy.ancestor_lookup(level)
            classes = [node.code for node in self.taxonomy.level(level)]
            own = np.where(np.isin(lookup[present], classes), lookup[present], np.uint16(0))
            codes = None if above is None else _same(above, own)
            above = own
            if not present.size:
                counts[level] = BoundaryCounts.empty(level, classes, self.tolerance)
            elif codes is not None:
                counts[level] = counts[level - 1].renamed(level, classes, codes)
            else:
                counts[level] = BoundaryCounts.of(
                    np.where(predicted == open_, predicted, lookup[predicted]),
                    lookup[true],
                    inner,
                    self.cell,
                    self.tolerance,
                    level=level,
                    classes=classes,
                )
        return counts


def _present(*labels: NDArray[Any]) -> NDArray[np.intp]:
    """The codes that some pixel has."""
    there = np.zeros(65536, bool)
    for each in labels:
        there[each] = True
    return np.flatnonzero(there)


def _same(coarse: NDArray[np.uint16], fine: NDArray[np.uint16]) -> dict[int, int] | None:
    """From the classes of a level to those of the next, where each is one there; None if some pixels part.

    Both (n,): classes of the codes that there are, 0 where one has none. Levels between which none part have the same
    boundaries.
    """
    pairs = set(zip(coarse.tolist(), fine.tolist(), strict=True))
    codes = {above: below for above, below in pairs if above and below}
    parted = len(pairs) != len(codes) + ((0, 0) in pairs) or len(set(codes.values())) != len(codes)
    return None if parted else codes


def _bytes(raster: LabelRaster, core: Box) -> NDArray[np.uint8]:
    return np.ascontiguousarray(raster.read_values(core), np.uint8)
