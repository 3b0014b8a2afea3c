"""Pretrained weights of a classification network into the encoder of a segmentation network, from a local file.

Files are safetensors, or torch checkpoints, of which only tensors are read: nothing in them is run. Names may be
those of timm, of torchvision where timm kept them (ResNet, VGG, …), or of efficientnet_pytorch, whose EfficientNets
and EfficientNet-lites are translated to timm's.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rssegment.errors import BundleError, InputError
from rssegment.model.architectures.encoders import Encoder
from rssegment.model.weights import read_tensors

__all__ = ["FurtherBands", "LoadedEncoder", "load_encoder"]

FurtherBands = Literal["mean", "zero"]
_COUNTER = (
    "num_batches_tracked"  # of a batch normalisation; many files leave it out, and inference doesn't use it
)
_INSIDE = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net", "weights")
_DEPTH = 4  # how many leading words of a tensor's name may be a wrapper's
_SHOWN = 6


@dataclass(frozen=True)
class LoadedEncoder:
    """What was loaded: ``found`` of the encoder's ``tensors``; names of those ``missing``, and of what was ``unused``.

    Unused are, as a rule, the classifier's. ``adapted`` says what was done to the first convolution; empty if nothing.
    """

    path: Path
    tensors: int
    found: int
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: str = ""

    @property
    def share(self) -> float:
        """Share of the encoder's tensors that the file had, 0 to 1."""
        return self.found / self.tensors

    def __str__(self) -> str:
        parts = [
            f"{self.found} of {self.tensors} tensors ({self.share:.1%}) of the encoder from {self.path.name}"
        ]
        parts += [self.adapted] * bool(self.adapted)
        parts += [f"not in the file: {_some(self.missing)}"] * bool(self.missing)
        return "; ".join(parts)


def load_encoder(
    network: nn.Module,
    path: str | Path,
    *,
    rgb: Sequence[int] = (0, 1, 2),
    further: FurtherBands = "mean",
    least: float = 0.9,
) -> LoadedEncoder:
    """Loads the file ``path`` into ``network.encoder``, or into ``network`` if it is an :class:`Encoder` itself.

    ``rgb`` are the positions of red, green and blue among the network's bands. Where its bands are others than those
    three, a ``further`` band starts with the mean of their filters, all filters being scaled by 3 / bands so that
    activations keep their size; or with zeros, so that the network starts as it was for RGB. A network of one band
    gets their sum.

    Raises
    ------
    BundleError
        The file can't be read without running code, or holds another network: a tensor has another shape, or fewer
        than the share ``least`` of the encoder's tensors are in it. The network is then as it was.
    InputError
        The network has no encoder, or an option is out of range.
    """
    path, encoder = Path(path), _encoder_of(network)
    rule = _InputRule(tuple(rgb), further)
    wanted = {name: value for name, value in encoder.state_dict().items() if not name.endswith(_COUNTER)}
    source = _read(path)
    pairs = _pairs(wanted, source)
    adapted = rule.adapt(encoder, pairs, source)
    _check_shapes(path, wanted, pairs, source)
    used = set(pairs.values())
    loaded = LoadedEncoder(
        path=path,
        tensors=len(wanted),
        found=len(pairs),
        missing=tuple(name for name in wanted if name not in pairs),
        unused=tuple(name for name in source if name not in used and not name.endswith(_COUNTER)),
        adapted=adapted,
    )
    if not loaded.found or loaded.share < least:
        raise BundleError(_refusal(loaded, least))
    own = encoder.state_dict()
    with (
        torch.no_grad()
    ):  # not by load_state_dict, which some of smp's encoders change to drop or want further names
        for name, key in pairs.items():
            own[name].copy_(source[key])
    return loaded


def _encoder_of(network: nn.Module) -> nn.Module:
    encoder = network if isinstance(network, Encoder) else getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module) or not encoder.state_dict():
        raise InputError(
            f"{type(network).__name__} has no encoder that pretrained weights could go to; "
            "choose an architecture that takes encoder=…"
        )
    return encoder


def _refusal(loaded: LoadedEncoder, least: float) -> str:
    return (
        f"{loaded.path} fits {loaded.share:.1%} of the encoder's {loaded.tensors} tensors, expected at least "
        f"{least:.0%}; not in the file: {_some(loaded.missing)}; it has, unused: {_some(loaded.unused)}; "
        "give the file of the same encoder, in the naming of timm, torchvision or efficientnet_pytorch"
    )


# ---- files


def _read(path: Path) -> dict[str, Tensor]:
    """Floating tensors and counters of a weight file by name."""
    if not path.is_file():
        raise BundleError(
            f"there is no file of pretrained weights {path}; give the path of one, nothing is downloaded"
        )
    tensors = read_tensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    bad = [
        name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()
    ]
    if bad:
        raise BundleError(
            f"{path} holds values that are not finite in {_some(bad)}; it is damaged: copy it again"
        )
    return tensors


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".pth", ".pt", ".bin", ".ckpt", ".tar"):
        raise BundleError(
            f"{path} is no weight file; expected .safetensors, or a torch checkpoint .pth, .pt, .bin or .ckpt"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        AttributeError,
    ) as error:
        raise BundleError(
            f"{path} can't be read as tensors alone, so it is not read: loading the rest would run code of whoever "
            f"made it, or it is damaged ({_first_line(error)}); convert it to safetensors where you trust it"
        ) from error
    for key in _INSIDE:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = (
        {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not found:
        raise BundleError(f"{path} holds no tensors by name; expected the state dict of a network")
    return found


# ---- names


def _pairs(wanted: Collection[str], source: Collection[str]) -> dict[str, str]:
    """Names of the encoder's tensors -> names in the file, under the wrapper's prefix that fits most of them."""
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


def _check_shapes(
    path: Path, wanted: Mapping[str, Tensor], pairs: Mapping[str, str], source: Mapping[str, Tensor]
) -> None:
    """Refuses a file whose tensors have other shapes than the encoder's of the same name."""
    faults = [
        f"{key} is {tuple(source[key].shape)}, expected {tuple(wanted[name].shape)}"
        for name, key in pairs.items()
        if source[key].shape != wanted[name].shape
    ]
    if faults:
        raise BundleError(
            f"{path} holds another network than this encoder: {len(faults)} of {len(pairs)} tensors of the same name "
            f"have another shape: {_some(faults)}; give the file of the same encoder"
        )


# ---- the first convolution


@dataclass(frozen=True)
class _InputRule:
    """How filters over red, green and blue become filters over a network's bands."""

    rgb: tuple[int, ...]
    further: FurtherBands

    def __post_init__(self) -> None:
        if len(self.rgb) != 3 or len(set(self.rgb)) != 3 or min(self.rgb) < 0:
            raise InputError(f"rgb is {self.rgb}; expected three different positions of bands, from 0")
        if self.further not in get_args(FurtherBands):
            raise InputError(
                f"further is {self.further!r}; expected one of {', '.join(get_args(FurtherBands))}"
            )

    def adapt(self, encoder: nn.Module, pairs: Mapping[str, str], source: dict[str, Tensor]) -> str:
        """Replaces the first convolution's filters in ``source`` by those for the encoder's bands; says what it did."""
        name, layer = _first_convolution(encoder)
        key = pairs.get(name)
        if key is None:
            return ""
        filters, bands = source[key], layer.weight.shape[1]
        if filters.ndim != 4 or filters.shape[1] != 3 or (bands == 3 and self.rgb == (0, 1, 2)):
            return ""
        source[key] = self.filters(filters.float(), bands)
        if bands == 1:
            return "filters of one band are the sum of those of RGB"
        kind = {"mean": f"the mean of RGB's, all scaled by 3/{bands}", "zero": "zeros"}[self.further]
        return f"filters of {bands} bands: RGB at {self.rgb}, others {kind}"

    def filters(self, filters: Tensor, bands: int) -> Tensor:
        """(K, 3, h, w) -> (K, bands, h, w)."""
        if bands == 1:
            return filters.sum(dim=1, keepdim=True)
        total = torch.zeros(len(filters), bands, *filters.shape[2:])
        if self.further == "mean":
            total[:] = filters.mean(dim=1, keepdim=True)
        there = [(place, color) for color, place in enumerate(self.rgb) if place < bands]
        for place, color in there:
            total[:, place] = filters[:, color]
        return total * (3 / bands if self.further == "mean" or bands < 3 else 1.0)


def _first_convolution(encoder: nn.Module) -> tuple[str, nn.Conv2d]:
    """The convolution that sees the image, and its weight's name."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            return f"{name}.weight", module
    raise InputError(
        f"{type(encoder).__name__} begins with no convolution, so weights can't be fitted to its bands"
    )


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more if items else "nothing"


def _first_line(error: Exception) -> str:
    text: Any = str(error).strip() or type(error).__name__
    return str(text).splitlines()[0][:160]
