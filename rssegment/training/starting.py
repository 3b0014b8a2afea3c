"""A bundle's weights into another network of its architecture: bands by their names, classes by their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rssegment.errors import RssegmentError
from rssegment.model import ModelSpec, create_architecture
from rssegment.model.hierarchy import Head, head_codes
from rssegment.taxonomy import Taxonomy

__all__ = ["Start"]


@dataclass(frozen=True)
class Start:
    """What the rows of a network's tensors have in a bundle's: ``bands`` and ``classes`` are for each of the network's
    the place among the bundle's, None where it is new.

    Law: where every band and class has a place, the network gives for bands in its order the same scores as the
    bundle's does in its own, but for architectures that carry bands themselves further in (:attr:`inner`).
    """

    bands: tuple[int | None, ...]
    classes: tuple[int | None, ...]
    spec: ModelSpec

    @classmethod
    def of(
        cls, spec: ModelSpec, tree: Taxonomy, bands: Sequence[str], taxonomy: Taxonomy, head: Head
    ) -> Start:
        """From the bundle with ``spec`` and ``tree`` to a network of ``bands`` and of a ``head`` over ``taxonomy``."""
        names = [name.casefold() for name in spec.band_names]
        paths: dict[tuple[str, ...], int] = {}
        if spec.output == (
            "scores" if head == "hierarchical" else "logits"
        ):  # else a row means something else
            for place, code in enumerate(spec.channels):
                if code is not None:
                    paths.setdefault(tuple(tree.node(code).path), place)
        wanted = [tuple(taxonomy.node(code).path) for code in head_codes(taxonomy, head)]
        return cls(
            tuple(names.index(name.casefold()) if name.casefold() in names else None for name in bands),
            tuple(paths.get(path) for path in wanted),
            spec,
        )

    def filled(self, own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of the network's ``own`` tensors that the bundle's ``other`` has something for, with that in them."""
        axes = self._axes(own)
        found = {
            name: self._tensor(value, other[name].to(value.dtype), axes.get(name, ()))
            for name, value in own.items()
            if name in other and other[name].ndim == value.ndim
        }
        return {name: value for name, value in found.items() if value is not None}

    def told(self, inner: bool = False) -> str:
        """How many bands and classes are the bundle's, and which bands are new."""
        kept = sum(place is not None for place in self.bands)
        rows = sum(place is not None for place in self.classes)
        return (
            f"bands: {kept} of {len(self.bands)} from it, {len(self.bands) - kept} new; "
            f"head: {rows} of {len(self.classes)} classes from it, {len(self.classes) - rows} new"
            + f"; {self.spec.architecture} hands the bands themselves on to its second layer, which learns anew where "
            "they are" * inner
        )

    def inner(self, own: Mapping[str, Tensor]) -> bool:
        """Whether bands are others than the bundle's, and the network carries bands themselves past its first layer,
        as ENet and ERFNet do: what reads them there meets them in other places, and has to learn them anew."""
        same = self.bands == tuple(range(len(self.spec.bands)))
        return not same and any(axis.step < 0 for axes in self._axes(own).values() for axis in axes)

    def _tensor(self, own: Tensor, other: Tensor, axes: Sequence[_Axis]) -> Tensor | None:
        rows: dict[int, list[int]] = {}
        for axis in axes:
            size = len(self.spec.bands) if axis.of == "bands" else len(self.spec.channels)
            if axis.step < 0:  # as many less as there are bands
                both = min(own.shape[axis.dim], other.shape[axis.dim])
                other, rows[axis.dim] = other.narrow(axis.dim, 0, both), list(range(both))
                continue
            places = self.bands if axis.of == "bands" else self.classes
            there = [row for row, place in enumerate(places) if place is not None]
            if (
                not there
                or other.shape[axis.dim] != size * axis.step
                or own.shape[axis.dim] != len(places) * axis.step
            ):
                return None
            if axis.of == "bands" and axis.step == 1:
                other, rows[axis.dim] = over_bands(other, axis.dim, places), list(range(len(places)))
                continue
            taken = _blocks([place for place in places if place is not None], axis.step)
            other, rows[axis.dim] = (
                other.index_select(axis.dim, torch.tensor(taken)),
                _blocks(there, axis.step),
            )
        if any(own.shape[dim] != size for dim, size in enumerate(other.shape) if dim not in rows):
            return None
        return _placed(own, other, rows)

    def _axes(self, own: Mapping[str, Tensor]) -> dict[str, tuple[_Axis, ...]]:
        """Axes of each tensor that bands or classes go along, found by what changes with their numbers."""
        found: dict[str, tuple[_Axis, ...]] = {}
        for of, bands, classes in (("bands", 1, 0), ("classes", 0, 1)):
            more, sign = self._shapes(bands, classes)
            for name, value in own.items():
                pairs = zip(value.shape, more.get(name, value.shape), strict=True)
                steps = [(there - here) * sign for here, there in pairs]
                found[name] = found.get(name, ()) + tuple(
                    _Axis(dim, of, step) for dim, step in enumerate(steps) if step
                )
        return found

    def _shapes(self, bands: int, classes: int) -> tuple[dict[str, torch.Size], int]:
        """Shapes of the tensors of a network with so many bands or classes more (1), or less (-1)."""
        options = self.spec.architecture_options
        for sign in (1, -1):
            numbers = (len(self.bands) + sign * bands, len(self.classes) + sign * classes)
            try:
                with torch.device("meta"):
                    network = create_architecture(self.spec.architecture, *numbers, **options)
                return {name: value.shape for name, value in network.state_dict().items()}, sign
            except RssegmentError:  # one that takes no more of them
                if sign < 0 or min(numbers) < 2:
                    raise
        raise AssertionError("one of both was built")


@dataclass(frozen=True)
class _Axis:
    """Axis ``dim`` of a tensor has ``step`` rows for each of the bands or classes."""

    dim: int
    of: str
    step: int


def over_bands(filters: Tensor, dim: int, places: Sequence[int | None]) -> Tensor:
    """``filters`` with its bands along ``dim`` at their ``places``; new ones (None) are the mean of those kept.

    Where there are new ones all are scaled by kept / bands, so that activations keep their size, as
    :func:`rssegment.model.pretrained.load_encoder` does; else filters are those of the bundle to the bit.
    """
    kept = [place for place in places if place is not None]
    mean = filters.index_select(dim, torch.tensor(kept)).mean(dim)
    bands = [mean if place is None else filters.select(dim, place) for place in places]
    found = torch.stack(bands, dim)
    return found if len(kept) == len(places) else found * (len(kept) / len(places))


def _blocks(places: Sequence[int], step: int) -> list[int]:
    return [place * step + i for place in places for i in range(step)]


def _placed(own: Tensor, other: Tensor, rows: Mapping[int, list[int]]) -> Tensor:
    """``own`` with ``other`` at ``rows`` of some of its axes."""
    if all(len(chosen) == own.shape[dim] for dim, chosen in rows.items()):
        return other.clone()
    at = [torch.tensor(rows.get(dim, range(size))) for dim, size in enumerate(own.shape)]
    mesh = [each.view([-1 if i == dim else 1 for i in range(own.ndim)]) for dim, each in enumerate(at)]
    found = own.clone()
    found[tuple(mesh)] = other
    return found
