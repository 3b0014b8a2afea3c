"""Network architectures by name: our own, and those of segmentation_models_pytorch as ``smp:<Name>``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from rssegment.errors import BundleError
from rssegment.model.architectures.catalogue import OWN
from rssegment.model.architectures.options import check_options
from rssegment.model.hierarchy import Head, head_codes
from rssegment.taxonomy import Taxonomy

__all__ = ["architecture_names", "create_architecture", "create_model"]

_SMP_PREFIX = "smp:"
_SET = ("bands", "classes", "head", "in_channels", "name", "taxonomy")  # what can't be an option as well


def architecture_names() -> tuple[str, ...]:
    """Every name that :func:`create_architecture` takes."""
    from rssegment.model.architectures.smp import smp_names

    return (*OWN, *(_SMP_PREFIX + name for name in smp_names()))


def create_architecture(
    name: str, bands: int, classes: int, /, *, encoder: str | None = None, **options: Any
) -> nn.Module:
    """A network with random weights: (B, bands, H, W) normalised float -> logits (B, classes, H, W).

    ``encoder`` is the classification network that it is built on, by its name in timm (or in smp, for ``smp:``),
    where that can be chosen; without it, the one of the paper. ``options`` go to the architecture. Weights are never
    downloaded: see :func:`rssegment.model.load_encoder`.

    Raises
    ------
    BundleError
        There is no such architecture or encoder, or it does not take these options.
    """
    _check_not_set(name, options)
    chosen = options if encoder is None else options | {"encoder": encoder}
    try:
        if name in OWN:
            return _own(name, bands, classes, chosen)
        if not name.startswith(_SMP_PREFIX):
            raise _unknown(name)
        from rssegment.model.architectures.smp import create_smp, smp_names

        if name.removeprefix(_SMP_PREFIX) not in smp_names():
            raise _unknown(name)
        return create_smp(name.removeprefix(_SMP_PREFIX), bands, classes, chosen)
    except (TypeError, ValueError, KeyError, NotImplementedError, RuntimeError, AssertionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"can't build the architecture {name} with {chosen or 'no options'}: {_said(error)}"
        ) from error


def create_model(
    name: str,
    bands: int,
    taxonomy: Taxonomy,
    /,
    head: Head = "flat",
    *,
    encoder: str | None = None,
    **options: Any,
) -> nn.Module:
    """A network with random weights for the classes of ``taxonomy``: as many output channels as ``head`` needs.

    They stand for ``head_codes(taxonomy, head)``: leaves of a "flat" head, whose bundle's output is "logits"; all nodes
    of a "hierarchical" one, whose output is "scores". ``encoder`` and ``options`` are those of
    :func:`create_architecture`.

    Raises
    ------
    InputError
        There is no such head.
    BundleError
        There is no such architecture or encoder, or it does not take these options.
    """
    return create_architecture(name, bands, len(head_codes(taxonomy, head)), encoder=encoder, **options)


def _check_not_set(name: str, options: Mapping[str, Any]) -> None:
    if given := [option for option in _SET if option in options]:
        raise BundleError(
            f"can't build the architecture {name} with the option {', '.join(given)}, which is set by the bands and "
            "classes; leave it out"
        )


def _own(name: str, bands: int, classes: int, options: dict[str, Any]) -> nn.Module:
    known = [p.name for p in inspect.signature(OWN[name].type()).parameters.values()][
        2:
    ]  # after bands and classes
    if "encoder" in options and "encoder" not in known:
        raise ValueError("it is not built on an encoder, so none can be chosen")
    check_options(options, known)
    if isinstance(options.get("encoder"), str):  # smp's way of saying that a name is timm's
        options = options | {"encoder": options["encoder"].removeprefix("tu-")}
    return OWN[name].build(bands, classes, **options)


def _unknown(name: str) -> BundleError:
    names = architecture_names()
    folded = {known.lower(): known for known in reversed(names)}
    near = difflib.get_close_matches(name.lower(), folded, 1, 0.5)
    hint = f"did you mean {folded[near[0]]}? " if near else ""
    return BundleError(f"unknown architecture {name!r}; {hint}there are {', '.join(names)}")


def _said(error: Exception) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text if len(text) <= 300 else text[:300] + " …"
