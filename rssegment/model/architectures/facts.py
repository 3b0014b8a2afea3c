"""What architectures cost and see: parameters, multiply-adds, receptive field, all without computing anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rssegment.errors import BundleError
from rssegment.model.architectures import create_architecture
from rssegment.model.architectures.catalogue import OWN, SMP
from rssegment.model.architectures.receptive import receptive_field

__all__ = ["ArchitectureFacts", "architecture_facts", "facts_table"]

SIDE = 512  # px of the image whose operations are counted
CLASSES = 19  # of Cityscapes, which most papers give figures for


@dataclass(frozen=True)
class ArchitectureFacts:
    """One network: ``parameters``, and ``gigaflops_per_megapixel``, which are 10^9 multiply-adds per 10^6 px.

    Multiply-adds are those of convolutions and products of matrices, for an image of 512 x 512 px. ``options`` are what
    the network was made with.
    ``receptive_field`` is the side in px of the square that an output pixel depends on at most, None for the whole
    image. ``published`` is the number of parameters that ``paper`` gives, for ``published_classes`` classes and three
    bands, and ``published_here`` ours for as many; None where none is known. ``remark`` explains a difference.
    """

    name: str
    bands: int
    classes: int
    options: dict[str, Any]
    paper: str
    parameters: int
    gigaflops_per_megapixel: float
    receptive_field: int | None
    published: int | None = None
    published_here: int | None = None
    published_classes: int | None = None
    remark: str = ""

    def describe(self) -> dict[str, Any]:
        """The facts as plain values for printing and JSON."""
        return asdict(self)


def architecture_facts(
    name: str, bands: int = 3, classes: int = CLASSES, **options: Any
) -> ArchitectureFacts:
    """Facts of the network that ``create_architecture`` makes of the same arguments.

    Raises
    ------
    BundleError
        There is no such architecture or encoder, or it does not take these options.
    """
    entry = OWN.get(name) or SMP.get(name)
    given, options = options, (entry.options if entry else {}) | options
    net = _shapes_of(name, bands, classes, options)
    try:
        with FlopCounterMode(display=False) as counter:
            field = receptive_field(net, bands, SIDE)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BundleError(f"the architecture {name} takes no image of {SIDE} x {SIDE} px: {error}") from error
    published = None if entry is None or given else entry.published
    return ArchitectureFacts(
        name=name,
        bands=bands,
        classes=classes,
        options=options,
        paper=entry.paper if entry else "",
        parameters=_count(net),
        gigaflops_per_megapixel=counter.get_total_flops() / 2 / 1e3 / SIDE**2,
        receptive_field=None if math.isinf(field) else int(field),
        published=None if published is None else round(published * 1e6),
        published_here=_count(_shapes_of(name, 3, entry.published_classes, options))
        if entry and published
        else None,
        published_classes=entry.published_classes if entry and published else None,
        remark=entry.remark if entry else "",
    )


def facts_table(facts: Iterable[ArchitectureFacts]) -> str:
    """A line of text for each architecture, under heads."""
    rows = [["architecture", "M params", "published", "G/Mpx", "field px", "described by"]]
    for each in facts:
        published = "" if each.published is None else f"{each.published / 1e6:.3g}"
        field = "whole" if each.receptive_field is None else str(each.receptive_field)
        size, work = f"{each.parameters / 1e6:.2f}", f"{each.gigaflops_per_megapixel:.1f}"
        rows.append([each.name, size, published, work, field, each.paper])
    return "\n".join(_aligned(row, _widths(rows)) for row in rows)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers between them to the right."""
    last = len(row) - 1
    cells = [
        text.ljust(width) if place in (0, last) else text.rjust(width)
        for place, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _shapes_of(name: str, bands: int, classes: int, options: dict[str, Any]) -> nn.Module:
    """The network in evaluation mode, with tensors that have shapes and no values."""
    with torch.device("meta"):
        return create_architecture(name, bands, classes, **options).eval()


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
