"""Cascades: a main model that tells coarse classes apart, and specialists that refine one of them each.

The probability of a leaf is that of the refined node, by the models above, times the leaf's share of it, by the
specialist: P(leaf) = P(node) · Q(leaf | node). So leaves still sum to 1 and children to their parent.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rssegment.errors import BundleError
from rssegment.model.inference import LeafModel, Model, Values
from rssegment.model.outputs import log_shares, tempered
from rssegment.model.spec import ModelSpec
from rssegment.taxonomy import Node, Taxonomy

__all__ = ["Cascade", "Member", "check_specialist", "main_tree", "run_all", "subtree"]


class Cascade:
    """A :class:`rssegment.model.LeafModel` made of several: probabilities of all leaves of ``taxonomy``.

    ``main`` knows the tree of :func:`main_tree`, and each of ``members`` the classes below its node. A member runs on
    a batch if in one of its patches the node's probability exceeds the member's threshold somewhere, and counts for
    those patches alone. Elsewhere the node's probability is shared as the models above say; equally, where they
    say nothing.
    The temperature applies to the composed probabilities, members' own to their shares.
    """

    def __init__(
        self, main: Model, members: Sequence[Member], taxonomy: Taxonomy, temperature: float = 1.0
    ) -> None:
        rows = {node.code: row for row, node in enumerate(taxonomy.nodes)}
        self.main = main
        self.members = tuple(sorted(members, key=lambda member: rows[member.node]))  # those above come first
        self.leaves: tuple[int, ...] = tuple(taxonomy.leaf_codes.tolist())
        self.temperature = temperature
        # leaves below a node stand next to each other
        below = {code: np.flatnonzero(taxonomy.membership[row]).tolist() for code, row in rows.items()}
        self._places = [slice(min(below[m.node]), max(below[m.node]) + 1) for m in self.members]
        self._spread = _spread([below[code] for code in main.leaves], self.device)
        self._orders = [
            torch.tensor([m.model.leaves.index(code) for code in self.leaves[place]], device=self.device)
            for m, place in zip(self.members, self._places, strict=True)
        ]
        self._fill = _pixel(main.fill, self.device)
        self._fills = [_pixel(m.model.fill, self.device) for m in self.members]

    @property
    def spec(self) -> ModelSpec:
        """The main model's."""
        return self.main.spec

    @property
    def device(self) -> torch.device:
        return self.main.device

    @property
    def fill(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Band values (C,) to put where a scene has no data; members see their own there."""
        return self.main.fill

    def __call__(self, values: Values) -> Tensor:
        """Leaf probabilities (B, L, H, W) float32 of scene values (B, C, H, W), on the main model's device.

        Raises
        ------
        MismatchError, ModelError
            As of a single model, of any member.
        """
        with torch.inference_mode():
            shares = self._compose(values)
            if self.temperature == 1:
                return shares
            return tempered(log_shares(shares), self.temperature)

    def leaf_logits(self, values: Values) -> Tensor:
        """Logarithms of the leaves' probabilities (B, L, H, W) float32 before the temperature."""
        with torch.inference_mode():
            return log_shares(self._compose(values))

    def _compose(self, values: Values) -> Tensor:
        values = torch.as_tensor(values).to(self.device)
        shares = self.main(values)
        if self._spread is not None:
            channels, counts = self._spread
            shares = shares.index_select(1, channels).div_(counts)
        blank = (values == self._fill).all(1, keepdim=True)
        for k, (member, place, order) in enumerate(
            zip(self.members, self._places, self._orders, strict=True)
        ):
            part = shares[:, place]
            first, *others = part.unsqueeze(1).unbind(2)
            mass = sum(others, first)  # (B, 1, H, W): the node's probability, in one order whatever the batch
            # at most 1, whatever the sum's last bits
            needed = mass.amax((1, 2, 3)).clamp_max(1) > member.threshold
            if bool(needed.any()):
                seen = torch.where(blank, self._fills[k], member.select(values))
                refined = mass * member.shares(seen).index_select(1, order)
                shares[:, place] = torch.where(needed.view(-1, 1, 1, 1), refined, part)
        return shares


class Member:
    """A specialist in a cascade: ``model`` tells apart the classes below ``node`` (code).

    ``names`` are those of the cascade's bands, and ``bands`` the places of the model's among them; None for an optional
    one that isn't.
    """

    def __init__(self, node: int, model: LeafModel, threshold: float, names: Sequence[str]) -> None:
        self.node = node
        self.model = model
        self.threshold = threshold
        folded = [name.casefold() for name in names]
        wanted = [name.casefold() for name in model.spec.band_names]
        self.bands = [folded.index(name) if name in folded else None for name in wanted]

    def select(self, values: Tensor) -> Tensor:
        """The model's bands of values (B, C, H, W) in those of the cascade; NaN where there is none."""
        places = [place for place in self.bands if place is not None]
        if len(places) == len(self.bands):
            return values[:, places]
        rows = [k for k, place in enumerate(self.bands) if place is not None]
        shape = len(values), len(self.bands), *values.shape[2:]
        chosen = torch.full(shape, torch.nan, device=values.device)
        chosen[:, rows] = values[:, places].to(chosen.dtype)
        return chosen

    def shares(self, values: Tensor) -> Tensor:
        """Probabilities of the model's leaves (B, L, H, W), of values in its own bands."""
        size = self.model.spec.batch
        if size is None or size == len(values):
            return self.model(values)
        return torch.cat(list(self._in_batches(values, size)))

    def _in_batches(self, values: Tensor, size: int) -> Iterator[Tensor]:
        """For an artifact that works with one batch size only; the last batch is filled up."""
        for start in range(0, len(values), size):
            part = values[start : start + size]
            full = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
            yield self.model(full)[: len(part)]


def _pixel(values: np.ndarray[Any, np.dtype[np.float32]], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device).view(1, -1, 1, 1)


def _spread(groups: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor] | None:
    """For each leaf the main model's channel above it, and among how many leaves that is shared; None if it is its own.

    ``groups`` are, for each of the main model's channels, the leaves at or below it.
    """
    if all(len(group) == 1 for group in groups):
        return None
    pairs = sorted((leaf, channel, len(group)) for channel, group in enumerate(groups) for leaf in group)
    counts = torch.tensor([float(count) for _, _, count in pairs], device=device)
    return torch.tensor([channel for _, channel, _ in pairs], device=device), counts.view(1, -1, 1, 1)


def run_all(model: LeafModel, patch: Tensor) -> None:
    """A forward pass of every model on one patch (1, C, H, W), also of those that a threshold would spare."""
    if isinstance(model, Cascade):
        run_all(model.main, patch)
        for member in model.members:
            run_all(member.model, member.select(patch))
    else:
        model(patch.expand(model.spec.batch or 1, -1, -1, -1))


def main_tree(spec: ModelSpec, taxonomy: Taxonomy, refined: Collection[int]) -> Taxonomy:
    """The tree that a cascade's main model knows: ``taxonomy`` without what is below those of the ``refined`` nodes
    (codes) that are channels of its own.
    """
    codes = set(spec.codes)
    cut = [
        taxonomy.node(code)
        for code in refined
        if code in codes and codes.isdisjoint(node.code for node in _below(taxonomy, taxonomy.node(code)))
    ]
    dropped = {below.code for node in cut for below in _below(taxonomy, node)}
    if not dropped:
        return taxonomy
    return replace(taxonomy, nodes=tuple(node for node in taxonomy.nodes if node.code not in dropped))


def subtree(taxonomy: Taxonomy, node: Node, name: str) -> Taxonomy:
    """The classes below ``node`` as a tree of their own, called ``name``."""
    depth = node.level
    nodes = tuple(
        replace(
            below,
            level=below.level - depth,
            parent=None if below.parent == node.code else below.parent,
            path=below.path[depth:],
        )
        for below in _below(taxonomy, node)
    )
    return Taxonomy(name, nodes)


def _below(taxonomy: Taxonomy, node: Node) -> list[Node]:
    """All nodes below ``node``, in pre-order."""
    depth = node.level
    return [n for n in taxonomy.nodes if n.level > depth and n.path[:depth] == node.path]


def check_specialist(main: ModelSpec, taxonomy: Taxonomy, node: int, spec: ModelSpec, tree: Taxonomy) -> None:
    """Refuses a specialist of ``spec`` and ``tree`` that can't refine ``node`` (code) for the model of ``main``.

    Raises
    ------
    BundleError
        Classes, bands, ground resolution or values don't fit; says which and what to do.
    """
    if node not in {known.code for known in taxonomy.nodes}:
        codes = ", ".join(str(known.code) for known in taxonomy.nodes[:40])
        raise BundleError(
            f"a specialist is for node {node}, which is not in the taxonomy {taxonomy.name} (codes {codes}); "
            "name one of its nodes that has classes below it"
        )
    place = taxonomy.node(node)
    who = f"specialist {spec.name} for {'/'.join(place.path)} (code {node})"
    _check_classes(who, _below(taxonomy, place), place, tree)
    known = {name.casefold() for name in main.band_names}
    if lacking := [name for name in spec.required if name.casefold() not in known]:
        raise BundleError(
            f"{who} wants the band {', '.join(lacking)}, and the main model {main.name} reads only "
            f"{', '.join(main.band_names)}; use a specialist for these bands, or a main model with more"
        )
    if not math.isclose(spec.ground_resolution, main.ground_resolution, rel_tol=1e-6):
        raise BundleError(
            f"{who} was trained on pixels of {spec.ground_resolution:g} m and the main model {main.name} on pixels of "
            f"{main.ground_resolution:g} m; both see the same patches, so use models of one ground resolution"
        )
    if (spec.dtype, spec.scaled) != (main.dtype, main.scaled):
        raise BundleError(
            f"{who} was trained on {_values(spec)} and the main model {main.name} on {_values(main)}; "
            "both see the same values, so use models that were trained on the same kind"
        )


def _values(spec: ModelSpec) -> str:
    return f"{'scaled' if spec.scaled else 'stored'} {spec.dtype} values"


def _check_classes(who: str, wanted: Sequence[Node], place: Node, tree: Taxonomy) -> None:
    if not wanted:
        raise BundleError(
            f"{who}: that class has none below it in the cascade's taxonomy; "
            "add the specialist's classes below it there, or name another node"
        )
    expected = {n.code: (n.name, None if n.parent == place.code else n.parent) for n in wanted}
    found = {n.code: (n.name, n.parent) for n in tree.nodes}
    if expected == found:
        return
    faults = [
        _listed("it lacks", set(expected) - set(found)),
        _listed("it has besides", set(found) - set(expected)),
        *(
            f"code {code} is {_placed(found[code])} and not {_placed(expected[code])}"
            for code in sorted(set(expected) & set(found))
            if expected[code] != found[code]
        ),
    ]
    told = "; ".join([fault for fault in faults if fault][:4])
    raise BundleError(
        f"{who}: its taxonomy {tree.name} is not what is below that class: {told}; "
        "a specialist has the same codes and names, with the class's children at its top"
    )


def _listed(label: str, codes: set[int]) -> str:
    return f"{label} code {', '.join(map(str, sorted(codes)[:12]))}" if codes else ""


def _placed(entry: tuple[str, int | None]) -> str:
    name, parent = entry
    return f"{name!r} at the top" if parent is None else f"{name!r} below {parent}"
