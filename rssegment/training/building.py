"""Networks as recipes want them, and bundles of what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rssegment.errors import InputError
from rssegment.model import BandSpec, Bundle, ModelSpec, create_architecture, create_model, head_codes
from rssegment.model.pretrained import load_encoder
from rssegment.model.weights import read_tensors
from rssegment.taxonomy import Taxonomy
from rssegment.training.data import TrainingData
from rssegment.training.located import found_at
from rssegment.training.recipe import ModelOptions, Recipe
from rssegment.training.starting import Start

__all__ = ["Begun", "begin", "check_described", "first_weights", "model_spec"]

_VISIBLE = ("red", "green", "blue")


@dataclass(frozen=True)
class Begun:
    """A network with the architecture and options that build it, where its weights are from, and whom to credit."""

    network: nn.Module
    architecture: str
    options: dict[str, Any]
    origin: str
    credit: str = ""

    @property
    def called(self) -> str:
        """The architecture with its encoder."""
        encoder = self.options.get("encoder")
        return self.architecture + (f", encoder {encoder}" if encoder else "")


def begin(recipe: Recipe, taxonomy: Taxonomy, folders: Sequence[Path]) -> Begun:
    """The network to train: new, with a pretrained encoder, or with all that fits of a bundle.

    Raises
    ------
    InputError
        There is no such architecture, file or bundle, or what it holds doesn't fit.
    """
    options = recipe.model
    if options.start is not None:
        return _from_bundle(recipe, taxonomy, found_at(options.start, folders))
    chosen = dict(options.options) | ({} if options.encoder is None else {"encoder": options.encoder})
    network = create_model(options.architecture, len(recipe.bands), taxonomy, options.head, **chosen)
    origin = "random weights"
    if options.encoder_weights is not None:
        path = found_at(options.encoder_weights, folders)
        visible = [recipe.bands.index(name) for name in _VISIBLE if name in recipe.bands]
        loaded = load_encoder(network, path, rgb=visible if len(visible) == len(_VISIBLE) else (0, 1, 2))
        origin = f"encoder: {loaded}"
    return Begun(network, options.architecture, chosen, origin)


def _from_bundle(recipe: Recipe, taxonomy: Taxonomy, source: str) -> Begun:
    """The bundle's network with its weights for the bands and classes that it knows; the rest is new."""
    bundle = Bundle.open(source)
    spec = bundle.spec
    if spec.artifact != "safetensors":
        raise InputError(
            f"the bundle {source} holds {spec.artifact}, which can't be trained on; expected safetensors"
        )
    classes = len(head_codes(taxonomy, recipe.model.head))
    # not create_model: what options a bundle lists is somebody's word, and one may be called head
    network = create_architecture(spec.architecture, len(recipe.bands), classes, **spec.architecture_options)
    start = Start.of(spec, bundle.taxonomy, recipe.bands, taxonomy, recipe.model.head)
    own = network.state_dict()
    filled = start.filled(own, read_tensors(bundle.weights))
    if not filled:
        raise InputError(
            f"no weight of the bundle {source} fits; are its architecture and bands the recipe's?"
        )
    network.load_state_dict(own | filled)
    told = start.told(start.inner(own))
    origin = f"bundle {spec.name}, {len(filled)} of {len(own)} tensors; {told}"
    return Begun(network, spec.architecture, dict(spec.architecture_options), origin, spec.credit)


def first_weights(options: ModelOptions, folders: Sequence[Path]) -> list[str]:
    """Digests of the content that a training begins from: the same file name may hold other weights tomorrow."""
    found = [] if options.start is None else [Bundle.open(found_at(options.start, folders)).fingerprint]
    if options.encoder_weights is not None:
        path = Path(found_at(options.encoder_weights, folders))
        if path.is_file():  # else it is said when they are loaded
            with path.open("rb") as file:
                found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return found


def check_described(recipe: Recipe, taxonomy: Taxonomy, begun: Begun) -> None:
    """Raises BundleError where no bundle can have what the recipe says."""
    _spec(recipe, taxonomy, begun, [(0.0, 1.0)] * len(recipe.bands))


def model_spec(data: TrainingData, begun: Begun, facts: dict[str, Any]) -> ModelSpec:
    """The description of the trained model; ``facts`` are the card's."""
    values = {"dtype": data.dtype.name, "value_range": data.value_range, "training": facts}
    return _spec(data.recipe, data.taxonomy, begun, data.constants, values)


def _spec(
    recipe: Recipe,
    taxonomy: Taxonomy,
    begun: Begun,
    constants: Sequence[tuple[float, float]],
    values: dict[str, Any] | None = None,
) -> ModelSpec:
    """``constants``: mean and standard deviation of each band; ``values``: what else is known of the data."""
    return ModelSpec(
        name=recipe.name,
        title=recipe.title or recipe.name,
        description=" ".join(text for text in (recipe.description, recipe.limits) if text),
        architecture=begun.architecture,
        architecture_options=begun.options,
        bands=tuple(
            BandSpec(name=name, mean=mean, std=std, optional=name in recipe.optional_bands)
            for name, (mean, std) in zip(recipe.bands, constants, strict=True)
        ),
        channels=head_codes(taxonomy, recipe.model.head),
        output="scores" if recipe.model.head == "hierarchical" else "logits",
        ground_resolution=recipe.resolution,
        patch=recipe.patch,
        overlap=recipe.overlap,
        license=recipe.license,
        credit="; ".join(recipe.credits(begun.credit)),
        **(values or {}),
    )
