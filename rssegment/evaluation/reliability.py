"""Whether confidences are true: of the pixels called with 80 %, are 80 % right?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation._count_kernels import LEFT_OUT, count_claims
from rssegment.evaluation.lookup import LabelPairs
from rssegment.evaluation.plain import undefined, wholes
from rssegment.evaluation.verdicts import claims_at

__all__ = ["BINS", "Reliability", "in_units"]

BINS = 20
_STEPS = 254  # confidences in rasters are bytes in steps of 1/254
_NODATA = 255
_FINER = 4000
UNITS = _STEPS * _FINER  # of confidence 1: a millionth, nearly, and whole for every byte, bin and hundredth

Confidence = NDArray[np.uint8] | NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Reliability:
    """Counts of a reliability diagram in B equal bins of confidence: ``[i / B, (i + 1) / B)``, the last one closed.

    ``pixels`` and ``right`` (B,) int64; ``confidence`` (B,) int64 sums in :data:`UNITS`, so that they are exact in
    any order.
    """

    pixels: NDArray[np.int64]
    confidence: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def empty(cls, bins: int = BINS) -> Self:
        """No pixels yet."""
        return cls(*(np.zeros(bins, np.int64) for _ in range(3)))

    @classmethod
    def of(cls, confidence: Confidence, right: NDArray[np.bool_]) -> Self:
        """Counts of ``confidence`` and ``right`` of one shape.

        ``confidence`` is bytes in 1/254 (255 none) or real numbers from 0 to 1 (NaN none), which count rounded to a
        millionth; pixels that have none are left out.

        Raises
        ------
        InputError
            The shapes differ, or a confidence lies outside 0 to 1.
        """
        if confidence.shape != right.shape:
            raise InputError(
                f"the confidence is {confidence.shape}, what is right {right.shape}; expected one shape"
            )
        units = in_units(confidence)
        known = units >= 0
        return cls._of_units(units[known], right[known].astype(np.int64))

    @classmethod
    def of_labels(
        cls,
        pairs: LabelPairs,
        confidence: Confidence,
        level: int = 0,
    ) -> Self:
        """Counts of a map: ``confidence`` is the probability of the predicted node, or of its ancestor at ``level``.

        At level 0 the predicted node itself is right if it is the truth, lies above it, or lies under a truth that is
        coarser. At a level its ancestor there (itself, where it is above) is right if it is the truth's ancestor or
        lies above it; pixels whose truth is coarser than the level are left out. So are pixels left undecided, which
        claim nothing, and those without prediction or confidence.

        Raises
        ------
        InputError
            As :meth:`of`. Values that are no codes of the taxonomy are left out; ``Confusion`` refuses them.
        """
        pairs.expect_shape(confidence)
        verdicts = claims_at(pairs.taxonomy, level)
        flat: NDArray[Any] = confidence.reshape(-1)
        if confidence.dtype == np.uint8:
            by_byte = np.zeros((256, 2), np.int64)
            for part, true, predicted in pairs.chunks():
                bytes_ = np.ascontiguousarray(flat[part])
                count_claims(true, predicted, bytes_, pairs.down, pairs.across, verdicts, by_byte)
            return cls._of_bytes(by_byte)
        total = cls.empty()
        for part, true, predicted in pairs.chunks():
            verdict = verdicts[pairs.down[true], pairs.across[predicted]]
            claimed = verdict != LEFT_OUT
            total += cls.of(flat[part][claimed], verdict[claimed] == 1)
        return total

    @classmethod
    def _of_bytes(cls, counts: NDArray[np.int64]) -> Self:
        """From ``counts`` (256, 2): how often each byte of confidence was wrong and right; 255 is left out."""
        values = np.arange(_NODATA, dtype=np.int64)
        return cls._of_units(values * _FINER, counts[:_NODATA, 1], counts[:_NODATA].sum(axis=1))

    @classmethod
    def _of_units(
        cls, units: NDArray[np.int64], right: NDArray[np.int64], times: NDArray[np.int64] | None = None
    ) -> Self:
        if times is None:
            times = np.ones(units.shape, np.int64)
        result = cls.empty()
        bins = np.minimum(units * BINS // UNITS, BINS - 1)
        np.add.at(result.pixels, bins, times)
        np.add.at(result.confidence, bins, units * times)
        np.add.at(result.right, bins, right)
        return result

    def __add__(self, other: Reliability) -> Self:
        if self.pixels.shape != other.pixels.shape:
            raise InputError(
                f"confidences counted in {len(self.pixels)} and in {len(other.pixels)} bins can't be added"
            )
        return type(self)(
            self.pixels + other.pixels, self.confidence + other.confidence, self.right + other.right
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reliability):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def total(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """(B + 1,) borders of the bins."""
        return np.linspace(0, 1, len(self.pixels) + 1)

    @property
    def mean_confidence(self) -> NDArray[np.float64]:
        """(B,) mean confidence of each bin; NaN where it is empty."""
        return _means(self.confidence / UNITS, self.pixels)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(B,) part of each bin's pixels that are right; NaN where it is empty."""
        return _means(self.right, self.pixels)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017): mean of abs(accuracy - confidence) of the bins, by pixels."""
        gaps = np.abs(self.right - self.confidence / UNITS).sum()
        return float(gaps / self.total) if self.total else float("nan")

    @property
    def mce(self) -> float:
        """Maximum calibration error: the largest abs(accuracy - confidence) of a bin."""
        gaps = np.abs(self.accuracy - self.mean_confidence)
        return float(np.nanmax(gaps)) if self.total else float("nan")

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy: positive where the map is surer than it should be."""
        above = (self.confidence / UNITS).sum() - self.right.sum()
        return float(above / self.total) if self.total else float("nan")

    def as_dict(self) -> dict[str, Any]:
        """Plain values: the counts, exactly."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The counts that :meth:`as_dict` wrote; InputError where ``values`` are not such."""
        counts = cls(*(wholes(values, name, BINS) for name in ("pixels", "confidence", "right")))
        if (counts.right > counts.pixels).any() or (counts.confidence > counts.pixels * UNITS).any():
            raise InputError(
                "the counts of confidence say that more pixels are right, or surer, than there are"
            )
        return counts

    def summary(self) -> dict[str, Any]:
        """Scores for a report; None where nothing was counted."""
        return {
            "pixels": self.total,
            **{name: undefined(getattr(self, name)) for name in ("ece", "mce", "overconfidence")},
            "bins": {
                "pixels": self.pixels.tolist(),
                "confidence": list(map(undefined, self.mean_confidence)),
                "accuracy": list(map(undefined, self.accuracy)),
            },
        }


def in_units(confidence: Confidence) -> NDArray[np.int64]:
    """Confidences in :data:`UNITS`, -1 where there is none."""
    if confidence.dtype == np.uint8:
        return np.where(confidence == _NODATA, -1, confidence.astype(np.int64) * _FINER)
    if confidence.dtype.kind != "f":
        raise InputError(
            f"the confidence has values of type {confidence.dtype}; expected bytes in 1/254, 255 none, "
            "or real numbers from 0 to 1"
        )
    units = np.rint(confidence.astype(np.float64) * UNITS)
    outside = (units < 0) | (units > UNITS)
    if outside.any():
        raise InputError(
            f"the confidence has the value {confidence[outside][0]}; expected 0 to 1 (a probability), or NaN for none"
        )
    return np.where(np.isnan(units), -1, units).astype(np.int64)


def _means(sums: NDArray[Any], pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    means: NDArray[np.float64] = np.full(pixels.shape, np.nan)
    np.divide(sums, pixels, out=means, where=pixels > 0)
    return means
