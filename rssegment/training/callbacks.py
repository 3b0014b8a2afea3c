"""What happens beside the training steps: the average of weights, checkpoints, the log, pictures, and progress."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save
from torch import Tensor

from rssegment.errors import OutputError
from rssegment.run.progress import Progress
from rssegment.training.batch import Batch
from rssegment.training.folder import BEST, CHECKPOINT
from rssegment.training.module import MEAN_OF_LEVELS, Segmenter, validation_values
from rssegment.training.recipe import Recipe
from rssegment.training.watch import Watch
from rssegment.training.windows import ValidationBatch
from rssegment.write.atomic import staged, write_bytes

__all__ = ["Averaging", "Keeper", "Log", "Pictures", "Reporting", "averaged"]


class Averaging(Callback):
    """The exponential moving average of the network's weights and buffers, which is what is validated and kept.

    The decay rises from little to ``decay``, so that the first weights are soon forgotten (as in Tarvainen & Valpola
    2017, "Mean teachers"). Nothing here waits for the device.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {}
        self._step = 0  # the last that is in the average

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        current = _weights(module)
        if trainer.global_step and self.tensors.keys() != current.keys():
            raise OutputError("the checkpoint has no average of weights: start afresh with --overwrite")
        held = self.tensors or current
        self.tensors = {name: torch.empty_like(value).copy_(held[name]) for name, value in current.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        done = trainer.global_step
        if done == self._step:  # a batch of several in a step
            return
        self._step = done
        share = 1 - min(self.decay, (1 + done) / (10 + done)) if done > 1 else 1.0
        averages, currents = self._pairs(module, floating=True)
        torch._foreach_lerp_(averages, currents, share)
        averages, currents = self._pairs(module, floating=False)
        if averages:  # counters
            torch._foreach_copy_(averages, currents)

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        self._swap(module)

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        self._swap(module)

    @torch.no_grad()
    def _swap(self, module: Any) -> None:
        for floating in (True, False):
            averages, currents = self._pairs(module, floating)
            if averages:
                before = [value.clone() for value in currents]
                torch._foreach_copy_(currents, averages)
                torch._foreach_copy_(averages, before)

    def _pairs(self, module: Any, floating: bool) -> tuple[list[Tensor], list[Tensor]]:
        current = _weights(module)
        names = [name for name, value in current.items() if value.is_floating_point() == floating]
        return [self.tensors[name] for name in names], [current[name] for name in names]

    def state_dict(self) -> dict[str, Any]:
        return {"tensors": dict(self.tensors), "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tensors, self._step = dict(state["tensors"]), state["step"]


def _weights(module: Any) -> dict[str, Tensor]:
    return dict(module.model.network.state_dict())


class Keeper(Callback):
    """After each validation a checkpoint to resume from, and with patience the best weights so far.

    Either appears whole or not at all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.best, self.best_step, self.waited = folder, -1.0, 0, 0
        self._before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent on the training, before and after it was resumed."""
        return self._before + time.monotonic() - self._began

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """A training that had ended early is not gone on with."""
        assert isinstance(module, Segmenter)
        trainer.should_stop = self._waited_enough(module)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Segmenter)
        if trainer.sanity_checking:
            return
        score = validation_values(module.scores[""])[MEAN_OF_LEVELS] if module.scores else 0.0
        self.waited += 1
        if score > self.best:
            self.best, self.best_step, self.waited = score, trainer.global_step, 0
            if module.recipe.patience is not None:
                self._keep_best(trainer, module)
        trainer.should_stop = self._waited_enough(module)

    def _waited_enough(self, module: Segmenter) -> bool:
        patience = module.recipe.patience
        return patience is not None and self.waited >= patience

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """After the last thing that changes a state in an epoch."""
        assert isinstance(module, Segmenter)
        module.check_finite()
        if not trainer.is_global_zero:  # every rank takes part in gathering the state; the first writes
            trainer.save_checkpoint(self.folder / CHECKPOINT)
            return
        with staged(self.folder / CHECKPOINT) as place:
            trainer.save_checkpoint(place)

    def _keep_best(self, trainer: lightning.Trainer, module: Segmenter) -> None:
        if trainer.is_global_zero:
            tensors = {k: v.detach().cpu().contiguous() for k, v in averaged(trainer, module).items()}
            write_bytes(self.folder / BEST, save(tensors))

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_step": self.best_step,
            "waited": self.waited,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
        self._before, self._began = state["seconds"], time.monotonic()


def averaged(trainer: lightning.Trainer, module: Segmenter) -> dict[str, Tensor]:
    """The network's weights that are validated: the moving average where the recipe asks for one."""
    if not module.recipe.optimizer.average:
        return _weights(module)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Averaging) and callback.tensors:
            return dict(callback.tensors)
    raise RuntimeError("the average of weights that the recipe asks for was not taken")


@dataclass
class Log(Callback):
    """A table (CSV) with a line for each epoch: step, loss since the last, rate, Mpx/s, and scores if there are any.

    Scores are ``mean_iou_level_1`` and so on for the levels that count, which are those that can score at least half of
    the labelled pixels (where labels are coarse the deeper ones can't); ``mean_iou``, their mean, which ``patience``
    goes by; and ``pixel_accuracy`` at the deepest of them. They are of the validation ground but for regions left out.
    A training that is resumed after ``step`` goes on with the lines up to there.
    """

    path: Path
    watch: Watch
    step: int = 0
    _losses: list[Tensor] = field(default_factory=list)
    _since: float = 0.0
    _training: float = 0.0

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.is_global_zero and self.path.exists():
            rows = list(csv.DictReader(io.StringIO(self.path.read_text())))
            self._write([row for row in rows if int(row["step"]) <= self.step])

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._losses, self._since = [], time.monotonic()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._losses.append(outputs["loss"].detach())  # which Lightning has divided by accumulate
        self._training = time.monotonic() - self._since

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Segmenter)
        if not trainer.is_global_zero:
            return
        recipe = module.recipe
        pixels = len(self._losses) * recipe.sample.batch * recipe.sample.patch**2 * trainer.world_size
        row: dict[str, Any] = {
            "step": trainer.global_step,
            "loss": round(float(torch.stack(self._losses).mean()) * recipe.optimizer.accumulate, 5)
            if self._losses
            else "",
            "rate": f"{trainer.optimizers[0].param_groups[-1]['lr']:.3g}",
            "mpx_per_s": round(pixels / 1e6 / max(1e-6, self._training), 3),
        }
        if module.scores:
            row |= {name: round(value, 5) for name, value in validation_values(module.scores[""]).items()}
        earlier = list(csv.DictReader(io.StringIO(self.path.read_text()))) if self.path.exists() else []
        self._write([*earlier, row])
        self.watch.tell("  ".join(f"{name} {value}" for name, value in row.items()))

    def _write(self, rows: list[dict[str, Any]]) -> None:
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self.path, text.getvalue().encode())


@dataclass
class Pictures(Callback):
    """A picture of validation windows from all regions, their labels and what the model says, every few validations."""

    folder: Path
    shown: Callable[[], ValidationBatch]  # reads them
    every: int = 4
    _windows: ValidationBatch | None = None

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        """After the first batch, as the weights are then those that are validated."""
        from rssegment.training.pictures import sample_picture, scored_boxes

        epoch = trainer.current_epoch + 1
        due = epoch % self.every == 0 or epoch in (1, trainer.max_epochs)
        if index or trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        assert isinstance(module, Segmenter)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:07d}.png"
        if self._windows is None:
            self._windows = self.shown()
        windows = self._windows.batch
        codes = [
            module.predict(Batch(*(each[i : i + 1] for each in windows))) for i in range(len(windows.values))
        ]
        boxes = scored_boxes(self._windows.scored)
        sample_picture(windows, torch.cat(codes), module.taxonomy, path, boxes=boxes)


@dataclass
class Reporting(Callback):
    """Steps done and pixels seen, to whoever watches."""

    progress: Progress
    recipe: Recipe
    _first: int = 0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._first = trainer.global_step
        self._tell(trainer)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._tell(trainer)

    def _tell(self, trainer: lightning.Trainer) -> None:
        sample = self.recipe.sample
        per_step = sample.batch * self.recipe.optimizer.accumulate * sample.patch**2 * trainer.world_size
        if trainer.is_global_zero:
            step = trainer.global_step
            self.progress("train", step, self.recipe.optimizer.steps, (step - self._first) * per_step)
