"""Network architectures by name: our own, and those of segmentation_models_pytorch as ``smp:<Name>``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from rssegment.errors import BundleError
from rssegment.model.hierarchy import Head, head_codes
from rssegment.taxonomy import Taxonomy

__all__ = ["architecture_names", "create_architecture", "create_model"]


def _enet(bands: int, classes: int, **options: Any) -> nn.Module:
    from rssegment.model.architectures.enet import ENet

    return ENet(bands, classes, **options)


_OWN: dict[str, Callable[..., nn.Module]] = {"enet": _enet}
_SMP_PREFIX = "smp:"


def architecture_names() -> tuple[str, ...]:
    """Every name that :func:`create_architecture` takes."""
    return (*_OWN, *(_SMP_PREFIX + name for name in _smp_classes()))


def create_architecture(name: str, bands: int, classes: int, **options: Any) -> nn.Module:
    """A network with random weights: (B, bands, H, W) normalised float -> logits (B, classes, H, W).

    ``options`` go to the architecture, as ``encoder_name="resnet18"`` for ``smp:Unet``. Weights are never downloaded.

    Raises
    ------
    BundleError
        There is no such architecture or encoder, or it does not take these options.
    """
    build = _OWN.get(name)
    if build is None:
        build = _smp_builder(name)
    try:
        return build(bands, classes, **options)
    except (TypeError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise BundleError(
            f"can't build the architecture {name} with {options or 'no options'}: {_said(error)}"
        ) from error


def create_model(name: str, bands: int, taxonomy: Taxonomy, head: Head = "flat", **options: Any) -> nn.Module:
    """A network with random weights for the classes of ``taxonomy``: as many output channels as ``head`` needs.

    They stand for ``head_codes(taxonomy, head)``: leaves of a "flat" head, whose bundle's output is "logits"; all nodes
    of a "hierarchical" one, whose output is "scores". ``options`` go to the architecture.

    Raises
    ------
    InputError
        There is no such head.
    BundleError
        There is no such architecture or encoder, or it does not take these options.
    """
    return create_architecture(name, bands, len(head_codes(taxonomy, head)), **options)


def _smp_builder(name: str) -> Callable[..., nn.Module]:
    classes = _smp_classes() if name.startswith(_SMP_PREFIX) else {}
    kind = classes.get(name.removeprefix(_SMP_PREFIX))
    if kind is None:
        names = architecture_names()
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BundleError(f"unknown architecture {name!r}; {hint}there are {', '.join(names)}")

    def build(bands: int, channels: int, **options: Any) -> nn.Module:
        if options.get("encoder_weights") is not None:
            raise ValueError("encoder_weights can't be set: a bundle's weights are in its own file")
        if options.get("aux_params") is not None:
            raise ValueError("aux_params can't be set: a second output has no place in a class map")
        known = [p.name for p in inspect.signature(kind).parameters.values() if p.kind is not p.VAR_KEYWORD]
        if strange := set(options) - set(known):  # smp itself swallows a misspelt option
            raise ValueError(f"unknown option {', '.join(sorted(strange))}; there are {', '.join(known)}")
        options["encoder_weights"] = None
        module: nn.Module = kind(in_channels=bands, classes=channels, **options)
        return module

    return build


def _smp_classes() -> dict[str, type[nn.Module]]:
    """Architectures of smp by their class names; imported here since it takes seconds."""
    import segmentation_models_pytorch as smp

    return {
        name: kind
        for name, kind in sorted(vars(smp).items())
        if inspect.isclass(kind)
        and issubclass(kind, nn.Module)
        and "encoder_weights" in inspect.signature(kind).parameters
    }


def _said(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text if len(text) <= 300 else text[:300] + " …"
