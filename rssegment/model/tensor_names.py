"""Which tensor of a weight file is which of a network, where wrappers and libraries name them differently."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

__all__ = ["COUNTER", "pair_names"]

COUNTER = (
    "num_batches_tracked"  # of a batch normalisation; many files leave it out, and inference doesn't use it
)
_DEPTH = 4  # how many leading words of a tensor's name may be a wrapper's

Tensors = Mapping[str, Tensor]


def pair_names(wanted: Tensors, source: Tensors, *, in_order: bool) -> dict[str, str]:
    """Names of an encoder's tensors -> those of the same tensors in a file, as far as they are found.

    ``in_order``: the file has its tensors in the network's order, and not in that of the alphabet.
    """
    pairs = _by_name(wanted, source)
    if in_order and len(pairs) < len(wanted) / 2:
        return _by_order(wanted, source) or pairs
    return pairs


def _by_order(wanted: Tensors, source: Tensors) -> dict[str, str]:
    """Pairs of the n-th with the n-th, for a network that has other names but is built the same; empty if it isn't.

    So are MobileNets and EfficientNets of timm and torchvision. Every tensor has to be of the same kind and shape,
    from the first on to the encoder's last; the first, which sees the bands, may be of another number of them.
    """
    ours, theirs = ([n for n in names if not n.endswith(COUNTER)] for names in (wanted, source))
    if len(theirs) < len(ours):
        return {}
    for place, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        here, there = wanted[a].shape, source[b].shape
        if place == 0:
            here, there = (torch.Size([*shape[:1], *shape[2:]]) for shape in (here, there))
        if here != there or a.rsplit(".", 1)[-1] != b.rsplit(".", 1)[-1]:
            return {}
    return dict(zip(ours, theirs, strict=False))


def _by_name(wanted: Collection[str], source: Collection[str]) -> dict[str, str]:
    """Pairs of the same name, under the wrapper's prefix that gives most of them."""
    common = _common_prefix(wanted)
    targets = [name[len(common) :] for name in wanted]
    best: dict[str, str] = {}
    for prefix in _prefixes(source, len(targets) // 2):
        inner = [name[len(prefix) :] for name in source if name.startswith(prefix)]
        ours, theirs = _translated(targets, inner), _translated(inner, targets)
        pairs = {common + name: prefix + theirs[plain] for plain, name in ours.items() if plain in theirs}
        if len(pairs) > len(best):
            best = pairs
    return best


def _plain(name: str) -> str:
    """``features_0.weight`` and ``features.0.weight`` are one: timm joins words where it takes networks apart."""
    return re.sub(r"\.+", ".", name.replace("_", ".")).strip(".")


def _common_prefix(names: Collection[str]) -> str:
    """The words that all names begin with, as ``body.model.``."""
    first, last = min(names).split("."), max(names).split(".")
    words = []
    for a, b in zip(first[:-1], last[:-1], strict=False):
        if a != b:
            break
        words.append(a)
    return "".join(word + "." for word in words)


def _prefixes(names: Collection[str], least: int) -> list[str]:
    """What wrappers may have put before the names of at least ``least`` tensors, shortest first."""
    counts: dict[str, int] = {"": len(names)}
    for name in names:
        words = name.split(".")[:-1]
        for depth in range(1, min(_DEPTH, len(words)) + 1):
            prefix = ".".join(words[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    return sorted(
        (prefix for prefix, count in counts.items() if count >= least or not prefix),
        key=lambda p: (p.count("."), p),
    )


_OUTER = {
    "_conv_stem": "conv.stem",
    "_bn0": "bn1",
    "_conv_head": "conv.head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv.reduce", "_se_expand": "se.conv.expand"}
_SEPARABLE = {
    "_depthwise_conv": "conv.dw",
    "_bn1": "bn1",
    "_project_conv": "conv.pw",
    "_bn2": "bn2",
} | _SQUEEZE
_INVERTED = {
    "_expand_conv": "conv.pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv.dw",
    "_bn1": "bn2",
    "_project_conv": "conv.pwl",
    "_bn2": "bn3",
} | _SQUEEZE


def _translated(names: Collection[str], others: Collection[str]) -> dict[str, str]:
    """Plain names, those of efficientnet_pytorch in timm's terms where the ``others`` are timm's -> names as given."""
    if "_conv_stem.weight" not in names or "conv_stem.weight" not in others:
        return {_plain(name): name for name in names}
    return {new: old for old, new in _as_timm(names, others)}


def _as_timm(names: Collection[str], others: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names of efficientnet_pytorch, which numbers blocks through, with timm's, which numbers them within stages."""
    blocks = {
        (int(m[1]), int(m[2])) for name in others if (m := re.match(r"blocks[._](\d+)[._](\d+)\.", name))
    }
    places = [f"blocks.{stage}.{block}." for stage, block in sorted(blocks)]
    for name in names:
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name):
            number, part, kind = int(match[1]), match[2], match[3]
            words = _INVERTED if f"_blocks.{number}._expand_conv.weight" in names else _SEPARABLE
            if number < len(places) and part in words:
                yield name, f"{places[number]}{words[part]}.{_plain(kind)}"
        elif (match := re.fullmatch(r"(\w+)\.(\w+)", name)) and match[1] in _OUTER:
            yield name, f"{_OUTER[match[1]]}.{_plain(match[2])}"
