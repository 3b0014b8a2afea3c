"""From a recipe to a bundle: data, network, steps, scores, card.

torch and Lightning are imported in functions, once recipe, folder and files are found to be right: that takes seconds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssegment.errors import InputError
from rssegment.run.progress import Progress
from rssegment.taxonomy import Taxonomy
from rssegment.training.folder import TrainingFolder, fingerprint_of
from rssegment.training.ground import LabelledScene
from rssegment.training.located import found_at
from rssegment.training.recipe import Recipe
from rssegment.training.watch import Watch, stops_noted

if TYPE_CHECKING:
    from rssegment.evaluation import Scores
    from rssegment.training.building import Begun
    from rssegment.training.card import ModelCard
    from rssegment.training.data import TrainingData
    from rssegment.training.fitting import Fitted

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """A finished training: the ``bundle``'s folder, the training's ``folder``, and ``scores`` on validation ground by
    region, "" for all of it, empty where there is none."""

    bundle: Path
    folder: Path
    scores: dict[str, Scores]
    card: ModelCard

    def __str__(self) -> str:
        told = self.scores[""].table() if "" in self.scores else "no validation ground, no scores"
        return f"{told}\n{self.bundle}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"bundle": str(self.bundle), "folder": str(self.folder), **self.card.facts()}


def train(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    leave_out: Sequence[str] = (),
    device: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Trained:
    """Trains the model of ``recipe`` (a YAML file) in the folder ``out``, which then has a ``bundle`` with its card.

    Paths in the recipe are relative to ``data``, by default the recipe's folder. ``leave_out`` names regions that are
    not trained on but scored. ``device`` is "cpu", "cuda", "cuda:1", or "cuda" for all GPUs, of which each
    takes as many windows in a step as the recipe says; default: one GPU, or the CPU where there is none.
    ``resume`` goes on with an interrupted training, on the same trajectory; ``overwrite`` replaces an earlier one.
    ``progress`` and ``say`` are told of steps and of scores.

    Returns
    -------
    Trained
        The bundle and its scores on validation ground.

    Raises
    ------
    InputError
        The recipe or its data can't be used, or a batch doesn't fit into memory.
    ModelError
        The loss is not finite.
    OutputError
        The folder holds something else, or another process trains in it.
    """
    check_installed()
    source = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    beside = Path.cwd() if isinstance(recipe, Recipe) else Path(recipe).resolve().parent
    left = (leave_out,) if isinstance(leave_out, str) else tuple(leave_out)
    folder = TrainingFolder(Path(out))
    with stops_noted(lambda: "stopped before the training began: nothing is changed"):
        if not of_another_process():
            folder.check_free(resume=resume, overwrite=overwrite)
        job = _Job.of(source, folder, (Path(data or beside), beside), left)
        return job.trained(device, Watch(progress, say), resume=resume, overwrite=overwrite)


def check_installed() -> None:
    """Raises InputError where what only training needs is not installed."""
    if find_spec("lightning") is None:
        raise InputError("training needs lightning, which is not installed: pip install 'rssegment[train]'")


def of_another_process() -> bool:
    """Whether this process is one that Lightning started for a further GPU: it takes part in the loop, and no more."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0


@dataclass(frozen=True)
class _Job:
    """A training whose recipe and scenes are checked."""

    recipe: Recipe
    taxonomy: Taxonomy
    scenes: tuple[LabelledScene, ...]
    folder: TrainingFolder
    places: tuple[Path, ...]
    left_out: tuple[str, ...]
    fingerprint: str
    series: str  # the fingerprint but for the number of steps

    @classmethod
    def of(
        cls, recipe: Recipe, folder: TrainingFolder, places: tuple[Path, ...], leave_out: Sequence[str]
    ) -> _Job:
        """``places``: the data folder, then others where files of the recipe may be."""
        from rssegment.training.sources import open_sources

        taxonomy = Taxonomy.load(found_at(recipe.taxonomy, places))
        recipe = in_whole_epochs(recipe)
        scenes = open_sources(recipe, places[0], taxonomy=taxonomy, leave_out=leave_out)
        import torch

        from rssegment.training.building import first_weights

        left = tuple(sorted(set(leave_out)))
        more = [version("rssegment"), torch.__version__, taxonomy.fingerprint, *left]
        more += first_weights(recipe.model, places)
        prints = [fingerprint_of(each, scenes, more) for each in (recipe, of_any_length(recipe))]
        return cls(recipe, taxonomy, scenes, folder, places, left, *prints)

    def trained(self, device: str | None, watch: Watch, *, resume: bool, overwrite: bool) -> Trained:
        """From the first step, or where it was left, to the bundle."""
        from rssegment.predict.runtime import resolve_device
        from rssegment.training.surroundings import left_alone

        resolve_device(device or "auto")
        folder, of = self.folder, {"series": self.series}
        with left_alone(self.recipe.seed):
            begun = self.begun()
            if of_another_process():
                self.run(begun, device, Watch())
                sys.exit()
            folder.check(self.fingerprint, resume=resume, overwrite=overwrite, **of)
            with folder.held():
                folder.prepare(self.fingerprint, resume=resume, overwrite=overwrite, **of)
                with stops_noted(folder.when_stopped):
                    if folder.finished:
                        watch.tell(
                            "the training is finished already: nothing is trained, its weights are scored"
                        )
                    return self.finished(begun, *self.run(begun, device, watch))

    def begun(self) -> Begun:
        """The network to train. What can't become a bundle in the end is refused here."""
        from rssegment.training.building import begin, check_described

        begun = begin(self.recipe, self.taxonomy, self.places)
        check_described(self.recipe, self.taxonomy, begun)
        return begun

    def run(self, begun: Begun, device: str | None, watch: Watch) -> tuple[TrainingData, Fitted]:
        """Trains the network of ``begun`` in place."""
        from rssegment.training.building import model_spec
        from rssegment.training.data import TrainingData
        from rssegment.training.fitting import fit

        place, left = self.folder.work, self.left_out
        data = TrainingData.open(
            self.recipe, self.taxonomy, self.scenes, place, watch.progress, left_out=left
        )
        for remark in data.remarks:
            watch.tell(remark)
        if self.recipe.model.start or self.recipe.model.encoder_weights:
            watch.tell(f"begins with {begun.origin}")
        model_spec(data, begun, {})  # raises what would be raised in the end
        return data, fit(data, begun.network, self.folder, device, watch)

    def finished(self, begun: Begun, data: TrainingData, fitted: Fitted) -> Trained:
        """Writes the bundle with its card."""
        from rssegment.model import save_bundle
        from rssegment.training.building import model_spec
        from rssegment.training.card import ModelCard, Outcome, hardware, sources_of, versions

        card = ModelCard(
            self.recipe,
            self.taxonomy,
            sources_of(self.recipe, self.scenes, data.census, data.roles),
            Outcome(
                begun.called,
                sum(parameter.numel() for parameter in begun.network.parameters()),
                begun.origin,
                fitted.steps,
                fitted.kept,
                fitted.seconds,
                hardware(fitted.device),
                versions(),
                begun.credit,
            ),
            fitted.scores,
            fitted.without,
            self.left_out,
            remarks=data.remarks,
        )
        bundle = save_bundle(
            self.folder.bundle,
            begun.network.eval().cpu(),
            model_spec(data, begun, card.facts()),
            self.taxonomy,
            overwrite=True,
            half=self.recipe.half,
            card=card.markdown(),
        )
        self.folder.finish(card.facts())
        data.cache.clear()
        return Trained(bundle.path, self.folder.path, fitted.scores, card)


def of_any_length(recipe: Recipe) -> Recipe:
    """What recipes have in common that differ in their number of steps alone."""
    optimizer = recipe.optimizer.model_copy(update={"steps": 1})
    return recipe.model_copy(update={"optimizer": optimizer, "validate_every": 1})


def in_whole_epochs(recipe: Recipe) -> Recipe:
    """The recipe with its steps, more or less, made a multiple of those between validations."""
    options = recipe.optimizer
    epochs = max(1, round(options.steps / recipe.validate_every))
    every = max(1, round(options.steps / epochs))
    optimizer = options.model_copy(update={"steps": epochs * every})
    return recipe.model_copy(update={"optimizer": optimizer, "validate_every": every})
