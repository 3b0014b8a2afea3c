"""Decision rules: how the class of a pixel follows from its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rssegment.errors import SettingsError, TaxonomyError
from rssegment.taxonomy import Taxonomy

__all__ = ["Backoff", "Cost", "Leaf", "Level", "Rule"]


@dataclass(frozen=True)
class Leaf:
    """The most probable leaf; of equals, the one with the lowest channel."""

    def check(self, taxonomy: Taxonomy) -> None:
        """Nothing can be wrong: every taxonomy has leaves."""

    def may_stay_open(self, _: Taxonomy) -> bool:
        """Whether a pixel may be left undecided: never."""
        return False


@dataclass(frozen=True)
class Level:
    """The most probable class of level ``k``, 1 at the top, or leaf above it; of equals, the first in pre-order."""

    k: int

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int | np.integer) or self.k < 1:
            raise SettingsError(f"level {self.k!r}; expected a whole number, 1 for the top classes")
        object.__setattr__(self, "k", int(self.k))

    def check(self, taxonomy: Taxonomy) -> None:
        """Raises SettingsError if ``taxonomy`` has no such level."""
        if self.k > taxonomy.depth:
            raise SettingsError(
                f"level {self.k} can't be decided: taxonomy {taxonomy.name!r} has levels 1 to {taxonomy.depth}"
            )

    def may_stay_open(self, _: Taxonomy) -> bool:
        """Whether a pixel may be left undecided: never."""
        return False


@dataclass(frozen=True)
class Backoff:
    """From the root down to the most probable child, as long as that has a probability of ``tau`` or more.

    For ``tau`` > 0.5 this is the deepest node with P >= ``tau``. As ``tau`` falls, each decision lies under the one
    before. Where no top class has ``tau``, the pixel is undecided. ``tau`` counts as its nearest float32, as
    probabilities do, so that a probability of 0.7 reaches 0.7.
    """

    tau: float

    def __post_init__(self) -> None:
        number = isinstance(self.tau, int | float | np.number) and not isinstance(self.tau, bool)
        if not number or not 0 <= self.tau <= 1:
            raise SettingsError(
                f"back-off threshold {self.tau!r}; expected a probability from 0 (always a leaf) to 1"
            )
        object.__setattr__(self, "tau", float(self.tau))

    def check(self, taxonomy: Taxonomy) -> None:
        """Raises TaxonomyError if a class of ``taxonomy`` has the code that undecided pixels need."""
        if self.may_stay_open(taxonomy):
            _ = taxonomy.undecided

    def may_stay_open(self, _: Taxonomy) -> bool:
        """Whether a pixel may be left undecided."""
        return self.tau > 0


@dataclass(frozen=True, eq=False)
class Cost:
    """The node of least expected cost; of equals, the first.

    Without ``matrix``, candidates are the leaves, and a cost is the number of edges of the tree between the decided
    and the true leaf (Karthik et al., ICLR 2021). Else ``matrix`` (K, L) is what it costs to decide candidate k where
    leaf l, in channel order, is true: finite and 0 or more. ``candidates`` (K,) are codes of any nodes, or
    ``taxonomy.undecided``; without them, the leaves.
    """

    matrix: NDArray[np.float64] | None = None
    candidates: tuple[int, ...] | None = None

    def __init__(self, matrix: ArrayLike | None = None, candidates: Sequence[int] | None = None) -> None:
        costs = None if matrix is None else _costs(matrix)
        if candidates is not None:
            candidates = _candidates(candidates, costs)
        elif costs is not None and costs.shape[0] != costs.shape[1]:
            raise SettingsError(
                f"the costs have {costs.shape[0]} rows and {costs.shape[1]} columns; expected a square, leaves by "
                "leaves, or the codes of the rows as candidates"
            )
        object.__setattr__(self, "matrix", costs)
        object.__setattr__(self, "candidates", candidates)

    @classmethod
    def read(cls, path: str | Path, taxonomy: Taxonomy) -> Self:
        """The costs of a CSV file.

        Either numbers only, leaves by leaves in channel order: decided down, true across. Or with names, paths or
        codes: the leaves in the first row, in any order, and in the first column the nodes that may be decided, of any
        level; ``undecided`` stands for leaving the pixel open.

        Raises
        ------
        SettingsError
            The file is no such table, misses a class, or has an invalid cost; names the place.
        """
        from rssegment.decode.cost_file import read_costs

        return cls(*read_costs(Path(path), taxonomy))

    def check(self, taxonomy: Taxonomy) -> None:
        """Raises SettingsError if costs and candidates are not for the classes of ``taxonomy``."""
        leaves = len(taxonomy.leaves)
        if self.matrix is not None and self.matrix.shape[1] != leaves:
            raise SettingsError(
                f"the costs are for {self.matrix.shape[1]} true classes; taxonomy {taxonomy.name!r} has {leaves} leaves"
            )
        self.rows(taxonomy)

    def may_stay_open(self, taxonomy: Taxonomy) -> bool:
        """Whether a pixel may be left undecided."""
        return self.candidates is not None and len(taxonomy.nodes) in self.rows(taxonomy)

    def rows(self, taxonomy: Taxonomy) -> NDArray[np.int32]:
        """(K,): rows of the candidates in ``taxonomy.arrays``; N where the pixel is left undecided."""
        if self.candidates is None:
            return taxonomy.arrays.leaves.copy()
        row = {int(code): k for k, code in enumerate(taxonomy.arrays.codes)}
        unknown = [code for code in self.candidates if code not in row]
        if unknown and unknown == [_undecided(taxonomy)]:
            row[unknown[0]] = len(taxonomy.nodes)
        elif unknown:
            raise SettingsError(
                f"costs are given for deciding code {unknown[0]}; taxonomy {taxonomy.name!r} has no such class"
            )
        return np.array([row[code] for code in self.candidates], np.int32)

    def _key(self) -> tuple[Any, ...]:
        table = None if self.matrix is None else (self.matrix.shape, self.matrix.tobytes())
        return table, self.candidates

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cost) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


Rule = Leaf | Level | Backoff | Cost


def _undecided(taxonomy: Taxonomy) -> int | None:
    try:
        return taxonomy.undecided
    except TaxonomyError:  # the code is a class's, so no stranger
        return None


def _costs(matrix: ArrayLike) -> NDArray[np.float64]:
    try:
        costs = np.array(matrix, np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise SettingsError("the costs are no table of numbers; expected (K decided, L true)") from error
    if costs.ndim != 2 or not costs.size:
        raise SettingsError(f"the costs have shape {costs.shape}; expected (K decided, L true)")
    bad = np.argwhere(~(np.isfinite(costs) & (costs >= 0)))
    if len(bad):
        row, col = bad[0].tolist()
        raise SettingsError(
            f"the cost in row {row + 1}, column {col + 1} is {costs[row, col]:g}; expected a number of 0 or more"
        )
    costs += 0.0  # no -0
    costs.flags.writeable = False
    return costs


def _candidates(candidates: Sequence[int], costs: NDArray[np.float64] | None) -> tuple[int, ...]:
    if costs is None:
        raise SettingsError(
            "candidates without costs; tree distances are for leaves, give a matrix for others"
        )
    codes = tuple(int(code) for code in candidates)
    if len(codes) != len(costs):
        raise SettingsError(f"{len(codes)} candidates for {len(costs)} rows of costs; expected one for each")
    twice = next((code for code in codes if codes.count(code) > 1), None)
    if twice is not None:
        raise SettingsError(f"code {twice} stands twice among the candidates; expected each once")
    return codes
