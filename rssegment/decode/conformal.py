"""Thresholds of back-off that keep a promise: on new ground, at most a share alpha of the area is decided wrongly.

A decision is right where the decided node is the true one, lies above it, or, if the truth is known to a coarser class
only, lies in it; undecided is always right. As tau grows, fewer pixels are wrong. Pixels near each other go wrong
together, so one observation is a block of ground, which should be larger than the patches in which mistakes come.

If blocks for calibration and new ones are exchangeable, conformal risk control (Angelopoulos, Bates, Fisch, Lei and
Schuster 2022) takes the least tau at which the observed risk is at most alpha even with one more block that is wrong
all over. The promise then holds on average over calibrations and new blocks; not for each class, nor each block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.decode._layout import Tree, check_channels
from rssegment.decode._student import t_quantile
from rssegment.decode.sums import marginals
from rssegment.errors import InputError, ModelError, SettingsError
from rssegment.taxonomy import Taxonomy

__all__ = ["TAUS", "MissCounts", "Weight", "scores"]

STEPS = 1000
TAUS: NDArray[np.float64] = np.arange(STEPS + 1) / STEPS  # thresholds that are looked at
TAUS.flags.writeable = False
_TAUS32 = TAUS.astype(np.float32)  # probabilities are float32, and so a threshold is when it comes to them
_PIXELS = 1 << 16  # scored at a time

Weight = Literal["area", "block"]
Alpha = float


def scores(
    probabilities: NDArray[np.float32], taxonomy: Taxonomy, truth: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """How sure each pixel's first mistake on the way down the tree is, (H, W) float32; NaN where ``truth`` is 0.

    ``probabilities`` (L, H, W) are those of leaves, ``truth`` (H, W) holds codes of nodes at any level. On the path
    that ever goes to the most probable child, the score is P of the first node that neither holds the true node nor
    lies in it; 0 if there is none. Law: ``decide(..., Backoff(tau))`` for tau > 0 is right exactly where tau > score.

    Raises
    ------
    InputError
        Truth and probabilities differ in shape, or a code is none of the taxonomy's.
    ModelError
        The channels are not the taxonomy's leaves, or a labelled pixel has NaN.
    """
    from rssegment.decode._conformal_kernels import first_misses  # compiled when first imported

    check_channels(probabilities, taxonomy)
    rows = _rows(truth, probabilities.shape[1:], taxonomy)
    tree, above = Tree.of(taxonomy), taxonomy.arrays.ancestry.copy()
    found, width, size = np.empty(rows.shape, np.float32), rows.shape[1], len(taxonomy.nodes)
    step = max(1, _PIXELS // max(1, width))
    memory = np.empty(size * step * width, np.float32)
    for row in range(0, len(rows) if width else 0, step):
        truths = rows[row : row + step]
        out = memory[: size * truths.size].reshape(size, *truths.shape)
        nodes = marginals(np.asarray(probabilities[:, row : row + step], np.float32), taxonomy, out)
        broken = np.isnan(nodes[tree.parents == size]).any(axis=0)  # a NaN reaches its top class
        if missing := int(np.count_nonzero(broken & (truths >= 0))):
            raise ModelError(
                f"the model gave NaN for {missing} labelled pixels; nothing can be measured there"
            )
        scores_there = found[row : row + step].reshape(-1)
        first_misses(nodes.reshape(size, -1), tree.first, tree.children, above, truths.ravel(), scores_there)
    return found


def _rows(truth: NDArray[np.integer[Any]], shape: tuple[int, ...], taxonomy: Taxonomy) -> NDArray[np.int32]:
    """(H, W): rows of the true nodes, -1 where there is none."""
    if truth.shape != shape:
        raise InputError(
            f"the reference has shape {truth.shape}; expected {shape}, as the probabilities have"
        )
    codes = taxonomy.arrays.codes
    lookup = np.full(1 << 16, -2, np.int32)
    lookup[0] = -1
    lookup[codes] = np.arange(len(codes))
    outside = (truth < 0) | (truth > 65535)
    rows = lookup[np.where(outside, 0, truth)]
    unknown = outside | (rows == -2)
    if unknown.any():
        found = ", ".join(map(str, np.unique(truth[unknown])[:10].tolist()))
        raise InputError(
            f"the reference has codes that taxonomy {taxonomy.name!r} lacks: {found}; map them first"
        )
    return np.ascontiguousarray(rows)


@dataclass(frozen=True, eq=False)
class MissCounts:
    """Labelled area of blocks of ground by the thresholds at which it is missed; counts of the same block add up.

    ``blocks`` (n): names, sorted. ``counts`` (n, 1002) int64: the area of pixels whose score reaches so many of
    :data:`TAUS`, at which they are wrong. ``capacity``: the most area that a block can have. The unit of area is a
    pixel, or where pixels differ in size a part of one, the same in all that is added up.
    """

    blocks: tuple[str, ...]
    counts: NDArray[np.int64]
    capacity: int

    @classmethod
    def empty(cls, capacity: int) -> Self:
        """No blocks yet, of at most ``capacity`` units of area."""
        if capacity < 1:
            raise SettingsError(f"blocks of {capacity} units of area; expected 1 or more")
        return cls((), np.zeros((0, STEPS + 2), np.int64), int(capacity))

    @classmethod
    def of(cls, values: NDArray[np.float32], block: str, capacity: int, weight: int = 1) -> Self:
        """Counts of :func:`scores`, in any shape, of pixels of one block, each ``weight`` units large; NaN don't count.

        Raises
        ------
        SettingsError
            ``weight`` isn't a whole number above 0.
        """
        if weight != int(weight) or weight < 1:
            raise SettingsError(f"pixels of {weight} units of area; expected a whole number, 1 or more")
        known = values[~np.isnan(values)]
        if not known.size:
            return cls.empty(capacity)
        reached = np.searchsorted(_TAUS32, known, side="right")
        counts = np.bincount(reached, minlength=STEPS + 2)[None].astype(np.int64) * int(weight)
        return cls.joined([cls((block,), counts, capacity)])

    @classmethod
    def joined(cls, parts: Iterable[MissCounts]) -> Self:
        """The sum of one or more.

        Raises
        ------
        InputError
            A block has more labelled area than it can have: two have the same name.
        """
        parts = list(parts)
        capacity = max(part.capacity for part in parts)
        total: dict[str, NDArray[np.int64]] = {}
        for part in parts:
            for block, counts in zip(part.blocks, part.counts, strict=True):
                total[block] = total[block] + counts if block in total else counts
        names = tuple(sorted(total))
        for name in names:
            if (area := int(total[name].sum())) > capacity:
                raise InputError(
                    f"block {name!r} has {area} labelled pixels; expected at most {capacity}: is each pixel counted "
                    "once, and does each block of each scene have a name of its own?"
                )
        rows = [total[name] for name in names]
        return cls(names, np.array(rows, np.int64).reshape(len(rows), STEPS + 2), capacity)

    def __add__(self, other: MissCounts) -> MissCounts:
        return MissCounts.joined([self, other])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MissCounts) or (self.blocks, self.capacity) != (
            other.blocks,
            other.capacity,
        ):
            return False
        return np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        """Number of blocks with labelled pixels."""
        return len(self.blocks)

    def only(self, blocks: Iterable[str]) -> MissCounts:
        """These blocks alone, as far as they are there."""
        chosen = set(blocks)
        rows = [k for k, name in enumerate(self.blocks) if name in chosen]
        return MissCounts(tuple(self.blocks[k] for k in rows), self.counts[rows], self.capacity)

    def as_dict(self) -> dict[str, Any]:
        """Plain values: of each block, the numbers of thresholds reached and the area that reaches so many."""
        blocks = {
            name: [np.flatnonzero(row).tolist(), row[row > 0].tolist()]
            for name, row in zip(self.blocks, self.counts, strict=True)
        }
        return {"capacity": self.capacity, "steps": STEPS, "blocks": blocks}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What :meth:`as_dict` gave; raises InputError for anything else."""
        try:
            found = cls.empty(int(values["capacity"]))
            if values["steps"] != STEPS:
                raise ValueError("another number of thresholds")
            parts: list[MissCounts] = [found]
            for name, (reached, pixels) in values["blocks"].items():
                row = np.zeros((1, STEPS + 2), np.int64)
                row[0, reached] = pixels
                parts.append(cls((str(name),), row, found.capacity))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise InputError(f"these are no counts of misses: {error!r}") from error
        return cls.joined(parts)

    # What they tell

    @cached_property
    def area(self) -> NDArray[np.int64]:
        """(n,): labelled area of each block."""
        return np.asarray(self.counts.sum(axis=1))

    @cached_property
    def misses(self) -> NDArray[np.int64]:
        """(n, 1001): what of it is wrong at each of :data:`TAUS`."""
        return self.area[:, None] - np.cumsum(self.counts, axis=1)[:, :-1]

    def threshold(self, alpha: Alpha, weight: Weight = "area") -> float:
        """The least of :data:`TAUS` with which new ground has an expected share of at most ``alpha`` of errors.

        ``weight`` "block": the risk is the mean over blocks of the share of their labelled area that is wrong.
        "area": it is the expected wrong area of a block, over the labelled one. That is risk control with the loss
        (misses - alpha * area) / capacity + alpha of a block, which lies in [0, 1], at level alpha.

        Raises
        ------
        SettingsError
            ``alpha`` isn't between 0 and 1.
        InputError
            There are too few blocks for so small an ``alpha``; says how many it needs. Or so much is wrong even at 1.
        """
        if not 0 < alpha < 1:
            raise SettingsError(f"alpha {alpha!r}; expected a share of errors between 0 and 1, as 0.1")
        risks, least = self._risks(weight)
        if least > alpha * (1 + _SLACK):
            raise InputError(self._too_few(alpha, weight))
        fits = np.flatnonzero(risks <= alpha * (1 + _SLACK))
        if not fits.size:
            raise InputError(
                f"no threshold keeps the share of errors at {alpha:g}: even if only what is certain is decided, it is "
                f"{risks[-1]:.3g}; calibrate the temperature first, or ask for a larger share"
            )
        return float(TAUS[fits[0]])

    def thresholds(self, alphas: Sequence[Alpha], weight: Weight = "area") -> dict[Alpha, float]:
        """:meth:`threshold` of each of ``alphas``."""
        return {alpha: self.threshold(alpha, weight) for alpha in alphas}

    def _risks(self, weight: Weight) -> tuple[NDArray[np.float64], float]:
        """Risk at each threshold with one more block that is all wrong; and what it would be without other misses."""
        if weight == "block":
            shares = self.misses / self.area[:, None]
            return (shares.sum(axis=0) + 1) / (len(self) + 1), 1 / (len(self) + 1)
        area = int(self.area.sum()) + self.capacity
        return (self.misses.sum(axis=0) + self.capacity) / area, self.capacity / area

    def _too_few(self, alpha: Alpha, weight: Weight) -> str:
        needed = math.ceil((1 - alpha) / alpha * (1 - _SLACK))
        if weight == "block":
            return (
                f"{len(self)} blocks with labels are too few for a share of errors of {alpha:g}: it needs {needed}; "
                "add scenes, take smaller blocks, or ask for a larger share"
            )
        worth = int(self.area.sum()) / self.capacity
        return (
            f"the labels of {len(self)} blocks are too few for a share of errors of {alpha:g}: it needs the area of "
            f"{needed} whole blocks, and they are worth {worth:.1f}; add scenes, take smaller blocks, or ask for a "
            "larger share"
        )

    def coverage(self, tau: float, level: float = 0.95) -> tuple[float, float]:
        """The share of the labelled area that is decided right at ``tau``, and its confidence interval's half width.

        A ratio estimator over blocks (Cochran 1977, 6.3), with Student's t for n - 1 degrees of freedom at confidence
        ``level``; 1 if there are fewer than two blocks. Of thresholds between two of :data:`TAUS`, the lower counts.

        Raises
        ------
        SettingsError
            ``tau`` isn't a probability.
        InputError
            No pixel has a label.
        """
        if not 0 <= tau <= 1:
            raise SettingsError(f"threshold {tau!r}; expected a probability from 0 to 1")
        if not len(self):
            raise InputError("there are no labelled pixels to measure coverage on")
        wrong = self.misses[:, np.searchsorted(_TAUS32, np.float32(tau), side="right") - 1]
        total = float(self.area.sum())
        share = float(wrong.sum()) / total
        if len(self) < 2:
            return 1 - share, 1.0
        n = len(self)
        spread = math.sqrt(float(np.square(wrong - share * self.area).sum()) * n / (n - 1)) / total
        return 1 - share, min(1.0, t_quantile((1 + level) / 2, n - 1) * spread)


_SLACK = 1e-9  # of a share: 1 / (n + 1) isn't exact
