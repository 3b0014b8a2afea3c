"""Networks of segmentation_models_pytorch as they are, but for images of any size and with encoders by one name."""

from __future__ import annotations

import difflib
import inspect
from functools import cache
from typing import Any

from torch import Tensor, nn

from rssegment.model.architectures.encoders import encoder_names
from rssegment.model.architectures.options import check_options
from rssegment.model.architectures.padding import pad_to_multiple

__all__ = ["create_smp", "smp_names"]

_TIMM = "tu-"  # smp's sign that an encoder is timm's
_CELLS = {
    "DPT": 2
}  # the deepest layer's sides must be even, since one of its features is at half the resolution
_LEAST = {"PAN": 8}  # cells of the deepest layer, which its pyramid halves three times


@cache
def smp_names() -> tuple[str, ...]:
    """Class names of smp's architectures; importing it takes seconds."""
    return tuple(_kinds())


def create_smp(name: str, bands: int, classes: int, options: dict[str, Any]) -> nn.Module:
    """smp's architecture ``name`` with random weights.

    ``options`` are smp's own, and ``encoder``, which is ``encoder_name``: one of smp's encoders, or any of timm's.

    Raises
    ------
    ValueError, TypeError, KeyError, NotImplementedError, RuntimeError
        It does not take these options.
    """
    kind, options = _kinds()[name], dict(options)
    if options.get("encoder_weights") is not None:
        raise ValueError("encoder_weights can't be set: a bundle's weights are in its own file")
    if options.get("aux_params") is not None:
        raise ValueError("aux_params can't be set: a second output has no place in a class map")
    parameters = inspect.signature(kind).parameters.values()  # smp itself swallows a misspelt option
    check_options(options, ["encoder", *(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)])
    if "encoder" in options:
        if "encoder_name" in options:
            raise ValueError("encoder and encoder_name are the same; give one")
        options["encoder_name"] = options.pop("encoder")
    if "encoder_name" in options:
        options["encoder_name"] = _encoder(name, options["encoder_name"])
    if name == "DPT":  # or a vision transformer takes images of one size only
        options["dynamic_img_size"] = True
    options |= {"encoder_weights": None, "in_channels": bands, "classes": classes}
    module: nn.Module = _of_any_size(name)(**options)
    return module


def _encoder(architecture: str, name: str) -> str:
    """What smp calls the encoder ``name``."""
    from segmentation_models_pytorch.encoders import encoders

    timms = name.removeprefix(_TIMM)
    if name in encoders and architecture != "DPT":
        return name
    if timms.split(".")[0] in encoder_names():
        return _TIMM + timms
    near = difflib.get_close_matches(name, {*encoders, *encoder_names()}, 3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"neither smp nor timm has an encoder {name!r}{hint}")


@cache
def _kinds() -> dict[str, type[nn.Module]]:
    import segmentation_models_pytorch as smp

    return {
        name: kind
        for name, kind in sorted(vars(smp).items())
        if inspect.isclass(kind)
        and issubclass(kind, nn.Module)
        and "encoder_weights" in inspect.signature(kind).parameters
    }


@cache
def _of_any_size(name: str) -> type[nn.Module]:
    """smp's class, which wants sides that the encoder's stride divides, with padding around it."""
    kind: Any = _kinds()[name]

    def forward(self: Any, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        stride = self.encoder.output_stride
        padded = pad_to_multiple(x, stride * _CELLS.get(name, 1), least=stride * _LEAST.get(name, 0))
        logits: Tensor = kind.forward(self, padded)
        return logits[..., :height, :width]

    return type(name, (kind,), {"forward": forward, "__module__": __name__, "__doc__": kind.__doc__})


def __getattr__(name: str) -> type[nn.Module]:
    """Classes by name, so that networks can be pickled to workers."""
    if name.startswith("_") or name not in smp_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _of_any_size(name)
