"""Parts of a scene, as far as they are joined: a block at first, then ever larger rectangles of blocks.

A piece knows three kinds of things: groups of pixels (regions, and their unions at coarser levels), chains that are
complete, and what is still loose: groups that reach the piece's border and chains that end there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.vector.array_files import read_arrays

__all__ = [
    "Chains",
    "Partition",
    "Piece",
    "Table",
    "keys_of",
    "places_of",
    "ragged",
    "within",
]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

NO_DATA = 1  # bits of ``touches``
EDGE = 2
_COLUMN_BITS = 32


def keys_of(places: NDArray[np.integer[Any]]) -> Int64:
    """One number for each (row, col) of ``places`` (n, 2), ascending in row-major order."""
    return (places[:, 0].astype(np.int64) << _COLUMN_BITS) | places[:, 1]


def places_of(keys: Int64) -> Int64:
    """(n, 2) the (row, col) of ``keys``."""
    return np.stack([keys >> _COLUMN_BITS, keys & (2**_COLUMN_BITS - 1)], axis=1)


def within(places: Int32, box: Box) -> NDArray[np.bool_]:
    """(n,) whether each corner (row, col) lies strictly within ``box``, not on its border."""
    row, col = places.T
    inside: NDArray[np.bool_] = (
        (row > box.row) & (row < box.stop_row) & (col > box.col) & (col < box.stop_col)
    )
    return inside


def ragged(offsets: Int64, rows: NDArray[np.integer[Any]]) -> tuple[Int64, Int64]:
    """Where the items of ``rows`` of a ragged array lie, one after the other, and their own offsets."""
    sizes = (offsets[1:] - offsets[:-1])[rows]
    out = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(sizes, out=out[1:])
    index = np.arange(out[-1])
    index += np.repeat(offsets[rows] - out[:-1], sizes)
    return index, out


@dataclass(frozen=True, eq=False)
class Partition:
    """A way to group pixels: by equal ``codes`` (n,) of their labels (None: the labels themselves), connected over
    edges, or over corners too (``diagonal``)."""

    codes: NDArray[np.uint16] | None = None
    diagonal: bool = False

    def of(self, labels: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """The codes that decide, for any array of labels."""
        return labels if self.codes is None else self.codes[labels]


@dataclass(frozen=True, eq=False)
class Table:
    """Groups: ``code`` (n,), ``sums`` (n, 5), ``least`` (n,), ``touches`` (n,) as in Regions, and ``first`` (n,).

    The last is the key of a group's first pixel, by which it is known: it does not depend on how the scene was cut.
    """

    code: NDArray[np.uint16]
    sums: Int64
    least: NDArray[np.uint8]
    touches: NDArray[np.uint8]
    first: Int64

    def __len__(self) -> int:
        return int(self.code.size)

    def __getitem__(self, rows: Any) -> Table:
        return Table(*(getattr(self, name)[rows] for name in _TABLE))

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """One table after the other."""
        return cls(*(np.concatenate([getattr(table, name) for table in tables]) for name in _TABLE))

    def united(self, pairs: Sequence[NDArray[np.integer[Any]]]) -> tuple[Table, Int32]:
        """The table of groups when the members of each pair are one, by first pixel; and the group of each row."""
        from rssegment.vector import _join_kernels as kernels

        parent = np.arange(len(self))
        for each in pairs:
            kernels.unite_pairs(parent, np.ascontiguousarray(each, np.int64))
        kernels.flatten(parent)
        roots = np.flatnonzero(parent == np.arange(parent.size))
        first = np.full(len(self), np.iinfo(np.int64).max)
        np.minimum.at(first, parent, self.first)
        order = np.argsort(first[roots])
        group = np.empty(len(self), np.int32)
        group[roots[order]] = np.arange(roots.size, dtype=np.int32)
        group = group[parent]
        if roots.size == len(self):
            return self[order], group
        n = roots.size
        sums, least, touches = np.zeros((n, 5), np.int64), np.full(n, 255, np.uint8), np.zeros(n, np.uint8)
        kernels.sum_groups(group, self.sums, self.least, self.touches, sums, least, touches)
        chosen = roots[order]
        return Table(self.code[chosen], sums, least, touches, first[chosen]), group


@dataclass(frozen=True, eq=False)
class Chains:
    """Boundaries between ``nodes`` (N, 2), corners (row, col), in 1 / ``scale`` px.

    ``ends`` (C, 4): start node, direction leaving it, end node, direction leaving it; -1 for a closed chain. Directions
    are 0 right, 1 up, 2 left, 3 down. ``vertices`` (V, 2) between ``offsets`` (C + 1,): the corners of each chain
    without its nodes. ``sides`` (C, 2): the group on the left and on the right; negative for no data, or where nobody
    asks.
    """

    nodes: Int32
    ends: Int32
    sides: Int32
    offsets: Int64
    vertices: Int32
    scale: int = 1

    def __len__(self) -> int:
        return int(self.ends.shape[0])

    @classmethod
    def none(cls) -> Self:
        def empty(n: int) -> Int32:
            return np.empty((0, n), np.int32)

        return cls(empty(2), empty(4), empty(2), np.zeros(1, np.int64), empty(2))

    def save(self, path: str | Path) -> None:
        """Writes one ``.npz`` file at exactly ``path``."""
        with Path(path).open("wb") as file:
            np.savez(file, scale=self.scale, **{part: getattr(self, part) for part in _CHAINS})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads what :meth:`save` wrote.

        Raises
        ------
        ReadError
            The file is missing, cut short, or holds no chains.
        """
        return read_arrays(
            path, lambda file: cls(**{part: file[part] for part in _CHAINS}, scale=int(file["scale"]))
        )

    def take(self, rows: NDArray[np.integer[Any]]) -> Chains:
        """The chains at ``rows``, with the nodes they use."""
        index, offsets = ragged(self.offsets, rows)
        used, at = np.unique(self.ends[rows][:, [0, 2]], return_inverse=True)
        ends = self.ends[rows]
        ends[:, [0, 2]] = at.reshape(-1, 2) - (used[0] < 0 if used.size else 0)  # -1 stays: it comes first
        nodes = self.nodes[used[used >= 0]]
        return Chains(nodes, ends, self.sides[rows], offsets, self.vertices[index], self.scale)

    def scaled(self, scale: int) -> Chains:
        """The same in 1 / ``scale`` px, a multiple of what they are in."""
        if scale == self.scale:
            return self
        factor = np.int32(scale // self.scale)
        return replace(self, nodes=self.nodes * factor, vertices=self.vertices * factor, scale=scale)

    def replaced(self, rows: NDArray[np.integer[Any]], vertices: Int32, sizes: Int64) -> Chains:
        """The chains with other ``vertices`` (V, 2), so many as ``sizes`` (R,) says for each of ``rows`` (R,)."""
        counts, starts = np.diff(self.offsets), self.offsets[:-1].copy()
        counts[rows] = sizes
        starts[rows] = len(self.vertices) + np.cumsum(sizes) - sizes
        offsets = np.concatenate([[0], np.cumsum(counts)])
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], counts)
        return replace(self, offsets=offsets, vertices=np.concatenate([self.vertices, vertices])[index])

    @classmethod
    def joined(cls, parts: Sequence[Chains]) -> Chains:
        """All chains together; nodes at one place become one. All have one scale."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls.none()
        if len(parts) == 1:
            return parts[0]
        keys, at = np.unique(keys_of(np.concatenate([part.nodes for part in parts])), return_inverse=True)
        at = np.append(at, -1).astype(np.int32)
        ends = np.concatenate([part.ends for part in parts])
        shift = np.repeat(
            np.cumsum([0, *(len(part.nodes) for part in parts[:-1])]), [len(part) for part in parts]
        )
        for column in (0, 2):
            ends[:, column] = at[np.where(ends[:, column] >= 0, ends[:, column] + shift, -1)]
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            places_of(keys).astype(np.int32),
            ends,
            np.concatenate([part.sides for part in parts]),
            np.concatenate([[0], np.cumsum(sizes)]),
            np.concatenate([part.vertices for part in parts]),
            parts[0].scale,
        )


@dataclass(frozen=True, eq=False)
class Piece:
    """A rectangle of the scene, ``box``, joined inside.

    ``tables``: its groups in each partition, the last of which is that of the labels themselves over edges alone, the
    *finest*. ``members``: for each partition, the group of each finest group. ``open``: for each, the groups that reach
    the piece's border, ascending. ``border`` (2 * (H + W),): finest group along the top, bottom, left and right line of
    pixels, -1 for no data. ``chains``: those completed here; ``loose``: those that end at the border, unsimplified.
    Sides are finest groups. ``corners`` (K, 2): where the boundary turned or branched, inside this piece and in none of
    its children. ``maps``: for each partition, the group that each open group of each child became.
    ``touching`` (T, 2): finest groups that meet at a corner, as ``corners`` are, where a partition is diagonal.
    """

    box: Box
    tables: tuple[Table, ...]
    members: tuple[Int32, ...]
    open: tuple[Int32, ...]
    border: Int32
    chains: Chains
    loose: Chains
    corners: Int32
    maps: tuple[Int32, ...] = ()
    touching: Int32 = field(default_factory=lambda: np.empty((0, 2), np.int32))

    def lines(self) -> tuple[Int32, Int32, Int32, Int32]:
        """The parts of ``border``: top (W,), bottom (W,), left (H,), right (H,)."""
        height, width = self.box.shape
        top, bottom, left, right = np.split(self.border, [width, 2 * width, 2 * width + height])
        return top, bottom, left, right

    def frontier(self) -> Piece:
        """Only what is loose: all that its neighbours need to know."""
        renumber = [_positions(rows, len(table)) for rows, table in zip(self.open, self.tables, strict=True)]
        finest = renumber[-1]
        members = [number[each[self.open[-1]]] for number, each in zip(renumber, self.members, strict=True)]
        loose = self.loose
        loose = Chains(loose.nodes, loose.ends, finest[loose.sides], loose.offsets, loose.vertices)
        tables = tuple(table[rows] for table, rows in zip(self.tables, self.open, strict=True))
        every = tuple(np.arange(rows.size, dtype=np.int32) for rows in self.open)
        return Piece(
            self.box, tables, tuple(members), every, finest[self.border], Chains.none(), loose,
            np.empty((0, 2), np.int32),
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Writes one ``.npz`` file at exactly ``path``."""
        with Path(path).open("wb") as file:
            np.savez(file, **dict(self._arrays()))  # type: ignore[arg-type]

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        box = self.box
        head = [box.row, box.col, box.height, box.width, len(self.tables), len(self.maps), self.chains.scale]
        yield "head", np.array(head, np.int64)
        yield "border", self.border
        yield "corners", self.corners
        yield "touching", self.touching
        for k, table in enumerate(self.tables):
            yield from ((f"table{k}_{name}", getattr(table, name)) for name in _TABLE)
        for name in ("members", "open", "maps"):
            yield from ((f"{name}{k}", each) for k, each in enumerate(getattr(self, name)))
        for name in ("chains", "loose"):
            yield from ((f"{name}_{part}", getattr(getattr(self, name), part)) for part in _CHAINS)

    @classmethod
    def load(cls, path: str | Path, *, chains: bool = True) -> Self:
        """Reads what :meth:`save` wrote; without ``chains``, only what is loose and the tables.

        Raises
        ------
        ReadError
            The file is missing, cut short, or not a piece.
        """
        return read_arrays(path, lambda file: cls._of(file, chains))

    @classmethod
    def _of(cls, file: Mapping[str, Any], chains: bool) -> Self:
        row, col, height, width, n, n_maps, scale = (int(value) for value in file["head"])
        return cls(
            Box(row, col, height, width),
            tuple(Table(*(file[f"table{k}_{name}"] for name in _TABLE)) for k in range(n)),
            tuple(file[f"members{k}"] for k in range(n)),
            tuple(file[f"open{k}"] for k in range(n)),
            file["border"],
            _chains(file, "chains", scale) if chains else Chains.none(),
            _chains(file, "loose"),
            np.empty((0, 2), np.int32),
            tuple(file[f"maps{k}"] for k in range(n_maps)),
            file["touching"],
        )

    @staticmethod
    def load_corners(path: str | Path) -> Int32:
        """Only the ``corners`` of the piece at ``path``."""
        return read_arrays(path, lambda file: file["corners"])


_TABLE = tuple(each.name for each in fields(Table))
_CHAINS = ("nodes", "ends", "sides", "offsets", "vertices")


def _chains(file: Mapping[str, Any], name: str, scale: int = 1) -> Chains:
    return Chains(**{part: file[f"{name}_{part}"] for part in _CHAINS}, scale=scale)


def _positions(rows: Int32, n: int) -> Int32:
    """(n + 1,) the place of each of ``n`` groups in ``rows``, -1 for those not there and for group -1."""
    out = np.full(n + 1, -1, np.int32)
    out[rows] = np.arange(rows.size, dtype=np.int32)
    return out
