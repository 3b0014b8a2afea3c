"""The loop over steps: Lightning's trainer with our callbacks, from wherever a training stands."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import lightning
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import load_file

from rssegment.errors import InputError, OutputError
from rssegment.evaluation import Scores
from rssegment.predict.runtime import resolve_device
from rssegment.training.callbacks import Averaging, Keeper, Log, Pictures, Reporting, averaged
from rssegment.training.data import TrainingData
from rssegment.training.folder import BEST, Machine, TrainingFolder
from rssegment.training.memory import telling, told_of_batch
from rssegment.training.module import Segmenter
from rssegment.training.order import StepOrder
from rssegment.training.recipe import Recipe
from rssegment.training.watch import Watch

__all__ = ["Fitted", "fit"]


@dataclass(frozen=True)
class Fitted:
    """What a training found: ``scores`` by region, "" for all of it; ``without``: the same, optional bands left out.

    ``steps``: those done; ``kept``: the step whose weights were kept; ``seconds`` spent; ``device``: where it ran.
    """

    scores: dict[str, Scores]
    without: dict[str, Scores]
    steps: int
    kept: int
    seconds: float
    device: str


def fit(
    data: TrainingData, network: torch.nn.Module, folder: TrainingFolder, device: str | None, watch: Watch
) -> Fitted:
    """Trains ``network`` in place; at the end it holds the weights to keep: the last, or with patience the best.

    Raises
    ------
    InputError
        A batch doesn't fit into memory, or there is no such device.
    OutputError
        The training was begun with another precision or number of processes.
    ModelError
        The loss is not finite.
    KeyboardInterrupt
        The user wants no more; the last checkpoint stays.
    """
    recipe = data.recipe
    _check_patience(data)
    module = Segmenter(network.to(memory_format=torch.channels_last), data)
    keeper, done = Keeper(folder.work), _steps_done(folder)
    callbacks = _callbacks(data, folder, keeper, Log(folder.log, watch, done))
    trainer = _trainer(recipe, folder, resolve_device(device or "auto"), device, callbacks)
    _enter(trainer, folder, watch, going_on=0 < done < recipe.optimizer.steps)
    order = StepOrder(recipe, trainer.global_rank, trainer.world_size)
    order.set_epoch(done // recipe.validate_every)  # workers begin to read before Lightning tells it
    on_gpu = trainer.strategy.root_device.type == "cuda"
    batches = data.training_batches(order, on_gpu)
    rank, ranks = trainer.global_rank, trainer.world_size
    held_out = data.validation_batches(rank, ranks, on_gpu) if data.regions else None
    watched = held_out
    if data.watched != data.regions:
        watched = data.validation_batches(rank, ranks, on_gpu, data.watched)
    with _ended(batches, watched, held_out):
        return _fitted(module, trainer, (batches, watched, held_out), folder, keeper)


def _check_patience(data: TrainingData) -> None:
    """Raises InputError where nothing may decide when a training ends that is to end by its scores."""
    if data.recipe.patience is None:
        return
    cure = (
        "leave patience out, or give split.validation a share of the ground or a source the role validation"
    )
    if not data.regions:
        raise InputError(f"patience ends a training by scores, and no ground is kept for validation: {cure}")
    if data.left_out.issuperset(data.regions):
        raise InputError(
            f"patience ends a training by scores, and all validation ground is left out ({', '.join(data.regions)}): "
            f"its scores would choose the weights that they are to judge; {cure}"
        )


def _fitted(
    module: Segmenter,
    trainer: lightning.Trainer,
    loaders: tuple[Any, Any, Any],
    folder: TrainingFolder,
    keeper: Keeper,
) -> Fitted:
    """Steps, then scores of the weights that are kept. ``loaders``: windows to train on, to score on the way, and to
    score in the end."""
    recipe, network, (batches, watched, held_out) = module.recipe, module.model.network, loaders
    with _interrupts(trainer), telling(told_of_batch(recipe)):
        trainer.fit(module, batches, watched, ckpt_path=folder.checkpoint, weights_only=True)
    network.load_state_dict(averaged(trainer, module))  # a training that was complete already ran no step
    kept = trainer.global_step
    if recipe.patience is not None and (folder.work / BEST).exists():
        network.load_state_dict(load_file(folder.work / BEST))
        kept = keeper.best_step
    steps, place = trainer.global_step, str(trainer.strategy.root_device)
    if trainer.world_size > 1 and place.startswith("cuda"):
        place = "cuda"  # all of them
    with _interrupts(trainer):
        scores, without = _scored(trainer, module, held_out)
    return Fitted(scores, without, steps, kept, keeper.seconds, place)


class _Curves(TensorBoardLogger):
    """TensorBoard's files alone: the recipe is in the bundle, and Lightning's file of parameters would be empty."""

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()


def _enter(trainer: lightning.Trainer, folder: TrainingFolder, watch: Watch, going_on: bool) -> None:
    """Notes what the training runs on, or tells what differs from what it ran on before."""
    if not trainer.is_global_zero:
        return
    kind, threads = trainer.strategy.root_device.type, torch.get_num_threads()
    machine = Machine(str(trainer.precision), trainer.world_size, kind, threads)
    for remark in folder.entered(machine, going_on=going_on):
        watch.tell(remark)


def _steps_done(folder: TrainingFolder) -> int:
    """The step after which the training is resumed."""
    if folder.checkpoint is None:
        return 0
    try:
        found = torch.load(folder.checkpoint, map_location="meta", weights_only=True, mmap=True)
        return int(found["global_step"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise OutputError(
            f"{folder.checkpoint}, which the training is resumed from, is damaged: start afresh with --overwrite"
        ) from error


def _callbacks(data: TrainingData, folder: TrainingFolder, keeper: Keeper, log: Log) -> list[Callback]:
    recipe = data.recipe
    callbacks: list[Callback] = [log, Pictures(folder.pictures, data.shown)]
    if recipe.optimizer.average:
        callbacks.append(Averaging(recipe.optimizer.average))
    if log.watch.progress is not None:
        callbacks.append(Reporting(log.watch.progress, recipe))
    return [*callbacks, keeper]


def _trainer(
    recipe: Recipe, folder: TrainingFolder, place: str, asked: str | None, callbacks: list[Callback]
) -> lightning.Trainer:
    kind, _, number = place.partition(":")
    several = asked == "cuda" and torch.cuda.device_count() > 1
    if several and torch.distributed.is_initialized():
        raise InputError(
            "this program has trained on several GPUs before, which one program can do once: train in another, or on "
            "one GPU (device cuda:0)"
        )
    devices: Any = "auto" if several else [int(number or 0)] if kind == "cuda" else 1
    loggers = [_Curves(folder.path, name="logs", version="")] if find_spec("tensorboard") else []
    return lightning.Trainer(
        accelerator={"cuda": "gpu"}.get(kind, kind),
        devices=devices,
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        precision="bf16-mixed" if half_precision(recipe, kind) else "32-true",
        max_epochs=recipe.optimizer.steps // recipe.validate_every,
        accumulate_grad_batches=recipe.optimizer.accumulate,
        gradient_clip_val=recipe.optimizer.clip,
        deterministic=kind == "cpu",
        benchmark=kind == "cuda",
        callbacks=callbacks,
        logger=loggers,
        log_every_n_steps=min(50, recipe.validate_every),
        default_root_dir=folder.work,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def half_precision(recipe: Recipe, kind: str) -> bool:
    """Whether forward passes are taken in bfloat16: where the device has instructions for it, unless told otherwise."""
    if recipe.optimizer.precision != "auto":
        return recipe.optimizer.precision == "bf16"
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return kind == "cuda" and torch.cuda.is_bf16_supported()


def _scored(
    trainer: lightning.Trainer, module: Segmenter, held_out: Any
) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """Scores of the weights that are kept, with all bands and without the optional ones."""
    if held_out is None:
        return {}, {}
    trainer.callbacks, trainer.loggers = [], []  # type: ignore[attr-defined]  # no average, log, pictures any more
    module.regions = module.all_regions
    found = []
    for without in (False, True)[: 1 + any(module.recipe.optional)]:
        module.drops_optional = without
        trainer.validate(module, held_out, verbose=False)
        found.append(dict(module.scores))
    module.drops_optional = False
    return found[0], found[1] if len(found) > 1 else {}


@contextmanager
def _ended(*loaders: Any) -> Iterator[None]:
    """Has the processes that read for ``loaders`` end here, not when Python cleans up."""
    try:
        yield
    finally:
        for loader in loaders:
            workers: Any = getattr(loader, "_iterator", None)
            if hasattr(workers, "_shutdown_workers"):
                workers._shutdown_workers()
                loader._iterator = None


@contextmanager
def _interrupts(trainer: lightning.Trainer) -> Iterator[None]:
    """Lightning ends the program on an interrupt; that is for whoever called us to decide."""
    try:
        yield
    except SystemExit as error:
        if trainer.interrupted:
            raise _interrupt_in(error) or KeyboardInterrupt from error
        raise
    except Exception as error:  # Lightning's own, where it is interrupted while processes start
        if (interrupt := _interrupt_in(error)) is not None:
            raise interrupt from error
        raise


def _interrupt_in(error: BaseException | None) -> BaseException | None:
    """The user's interrupt (KeyboardInterrupt, or a program's own that is no Exception) that an error came after."""
    while error is not None and isinstance(error, Exception | SystemExit | GeneratorExit):
        error = error.__cause__ or error.__context__
    return error
