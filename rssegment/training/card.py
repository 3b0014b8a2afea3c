"""The model card (Mitchell et al. 2019): what a model was made of, how well it does, and what it does not know."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from rssegment.evaluation import Confusion, Scores
from rssegment.model import Calibration
from rssegment.taxonomy import Taxonomy
from rssegment.training.census import TRAIN, VALIDATION, Census, Roles
from rssegment.training.ground import LabelledScene
from rssegment.training.recipe import Recipe

__all__ = ["ModelCard", "Outcome", "SourceFacts", "hardware", "sources_of", "versions"]

ByRegion = Mapping[str, Scores]  # "" is all of it

_FILES = {
    "images",
    "labels",
    "folder",
    "within",
    "mapping",
}  # of a recipe's sources: paths on somebody's disk
_DIGITS = 4  # of scores


@dataclass(frozen=True)
class SourceFacts:
    """What one source gave: its scenes, their regions, and labelled ground (m²) by node for each purpose.

    ``seen`` are the regions with ground that was trained on; ``placed`` tells whether it is known where all scenes lie.
    """

    name: str
    scenes: int
    regions: tuple[str, ...]
    seen: tuple[str, ...]
    train: Mapping[int, float]
    validation: Mapping[int, float]
    placed: bool = True


@dataclass(frozen=True)
class Outcome:
    """How the training went.

    ``network`` is the architecture and its encoder; ``origin`` says where the first weights came from, and ``credit``
    whom to credit for a bundle that was gone on from; ``kept`` is the step whose weights were kept of ``steps``.
    """

    network: str
    parameters: int
    origin: str
    steps: int
    kept: int
    seconds: float
    hardware: str
    versions: Mapping[str, str]
    credit: str = ""


@dataclass(frozen=True)
class ModelCard:
    """All that is said of a trained model, for people (:meth:`markdown`) and for its bundle (:meth:`facts`).

    ``scores`` are those on validation ground by region, "" for all of it, empty where there is none. ``without`` are
    the same with the optional bands left out. ``unseen`` are regions that were left out of this training to score it
    there; ``left_out`` are scores of others that were trained without one region each, in ``left_out_steps`` steps
    (None: in as many as this one). ``remarks`` are what was noticed of the data.
    """

    recipe: Recipe
    taxonomy: Taxonomy
    sources: tuple[SourceFacts, ...]
    outcome: Outcome
    scores: ByRegion = field(default_factory=dict)
    without: ByRegion = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    left_out: ByRegion = field(default_factory=dict)
    left_out_steps: int | None = None
    calibration: Calibration | None = None
    remarks: tuple[str, ...] = ()

    def of_seen(self, scores: ByRegion) -> ByRegion:
        """``scores`` in regions that it was trained in, "" for their sum; without any, empty."""
        if not self.unseen:
            return scores
        kept = {name: each for name, each in scores.items() if name and name not in self.unseen}
        total = sum((each.confusion for each in kept.values()), Confusion.empty(self.taxonomy))
        return {"": Scores.of(total), **kept} if kept else {}

    @property
    def elsewhere(self) -> ByRegion:
        """Scores in regions that the model which was scored there was not trained in."""
        return {**self.left_out, **{name: self.scores[name] for name in self.unseen if name in self.scores}}

    def markdown(self) -> str:
        """The README.md of the bundle, with the front matter that model hubs read."""
        from rssegment.training.card_page import page

        return page(self)

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON: what goes into the bundle's ``model.json``. No paths of files are among them."""
        outcome = self.outcome
        values: dict[str, Any] = {
            "recipe": _recipe_facts(self.recipe),
            "sources": [self._source_facts(source) for source in self.sources],
            "classes": {
                "/".join(self.taxonomy.node(code).path): {
                    "train_m2": round(train),
                    "validation_m2": round(held),
                }
                for code, (train, held) in self.areas().items()
            },
            "network": outcome.network,
            "parameters": outcome.parameters,
            "origin": outcome.origin,
            "steps": outcome.steps,
            "kept_step": outcome.kept,
            "seconds": round(outcome.seconds),
            "hardware": outcome.hardware,
            "versions": dict(outcome.versions),
            "scores": {name: summary(each) for name, each in self.of_seen(self.scores).items()},
        }
        further: dict[str, Any] = {
            "scores_without_optional_bands": {
                name: summary(each) for name, each in self.of_seen(self.without).items()
            },
            "regions_left_out": list(self.unseen),
            "scores_in_regions_left_out": {name: summary(each) for name, each in self.elsewhere.items()},
            "remarks": list(self.remarks),
        }
        if self.left_out and self.left_out_steps:
            further["steps_with_regions_left_out"] = self.left_out_steps
        return values | {name: value for name, value in further.items() if value}

    def areas(self) -> dict[int, tuple[float, float]]:
        """Ground (m²) labelled as a node, by its code in pre-order: (training, validation)."""
        sums = {
            node.code: tuple(
                math.fsum(getattr(source, role).get(node.code, 0.0) for source in self.sources)
                for role in ("train", "validation")
            )
            for node in self.taxonomy.nodes
        }
        return {code: (train, held) for code, (train, held) in sums.items() if train or held}

    def _source_facts(self, source: SourceFacts) -> dict[str, Any]:
        options = next((each for each in self.recipe.sources if each.name == source.name), None)
        return {
            "name": source.name,
            "credit": options.credit if options else "",
            "license": options.license if options else "",
            "scenes": source.scenes,
            "regions": list(source.regions),
            "train_m2": round(math.fsum(source.train.values())),
            "validation_m2": round(math.fsum(source.validation.values())),
        }


def _recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """The recipe but for what the bundle says elsewhere and for files, which are names on somebody's disk."""
    elsewhere = {"sources", "name", "title", "description", "limits", "license", "bands", "taxonomy"}
    values = recipe.model_dump(mode="json", exclude={*elsewhere})
    own = ("head",) if recipe.model.start else ("architecture", "encoder", "options", "head")
    values["model"] = {name: values["model"][name] for name in own}
    values["sources"] = [
        {k: v for k, v in source.model_dump(mode="json", exclude=_FILES).items() if v not in (None, "")}
        for source in recipe.sources
    ]
    return values


def summary(scores: Scores) -> dict[str, Any]:
    """Scores by level, with their numbers of pixels, and the IoU of each class that has any; None where undefined."""
    levels = [
        {"level": level.level, "pixels": level.pixels}
        | {
            name: _plain(level.overall[name])
            for name in ("mean_iou", "mean_f1", "frequency_weighted_iou", "pixel_accuracy")
        }
        for level in scores.levels
    ]
    iou = {
        "/".join(level.classes[i].path): _plain(level.by_class["iou"][i])
        for level in scores.levels
        for i in level.present
    }
    return {"levels": levels, "iou": iou}


def _plain(value: float) -> float | None:
    return round(float(value), _DIGITS) if math.isfinite(value) else None


def sources_of(
    recipe: Recipe, scenes: Sequence[LabelledScene], census: Census, roles: Roles
) -> tuple[SourceFacts, ...]:
    """What each of the recipe's sources gave, in their order; ``roles`` are those of the census's cells."""
    trained = [bool((cells == TRAIN).any()) for cells in roles]

    def facts(name: str) -> SourceFacts:
        own = [(scene, seen) for scene, seen in zip(scenes, trained, strict=True) if scene.source == name]
        return SourceFacts(
            name,
            len(own),
            tuple(sorted({scene.region for scene, _ in own})),
            tuple(sorted({scene.region for scene, seen in own if seen})),
            _ground(name, census, roles, TRAIN),
            _ground(name, census, roles, VALIDATION),
            all(scene.geobox is not None for scene, _ in own),
        )

    return tuple(facts(options.name) for options in recipe.sources)


def _ground(source: str, census: Census, roles: Roles, role: int) -> dict[int, float]:
    """Labelled ground (m²) of a source by code, in the cells of a role."""
    total = np.zeros(len(census.codes))
    for scene, cells in zip(census.scenes, roles, strict=True):
        if scene.source == source:
            total += scene.counts[cells == role].sum(0, dtype=np.int64)[:-1] * scene.resolution**2
    return {int(code): float(area) for code, area in zip(census.codes, total, strict=True) if area}


def versions() -> dict[str, str]:
    """Versions of what decides a training's numbers."""
    packages = ("rssegment", "torch", "lightning", "timm", "segmentation_models_pytorch", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def hardware(device: str | torch.device) -> str:
    """What ``device`` is, in words."""
    place = torch.device(device)
    if place.type == "cuda":
        count = torch.cuda.device_count() if place.index is None else 1
        name = torch.cuda.get_device_name(place)
        return name if count == 1 else f"{count} x {name}"
    if place.type == "cpu":
        return f"CPU ({platform.machine()}, {torch.get_num_threads()} of {os.cpu_count()} cores)"
    return place.type
