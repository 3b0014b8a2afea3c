"""What happens beside the training steps: the average of weights, checkpoints, the log, pictures, and progress."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from safetensors.torch import save
from torch import Tensor

from rssegment.run.progress import Progress
from rssegment.training.folder import BEST, CHECKPOINT
from rssegment.training.module import MEAN_OF_LEVELS, Segmenter, validation_values
from rssegment.training.recipe import Recipe
from rssegment.training.watch import Watch
from rssegment.write.atomic import staged, write_bytes

__all__ = ["Averaging", "Keeper", "Log", "Pictures", "Reporting", "averaged"]


class Averaging(WeightAveraging):
    """The exponential moving average of weights and buffers, which is what is validated and kept.

    The decay rises from little to ``decay``, so that the first weights are soon forgotten (as in Tarvainen & Valpola
    2017, "Mean teachers").
    """

    def __init__(self, decay: float) -> None:
        self._decay, self._share = decay, 1.0
        super().__init__(use_buffers=True, multi_avg_fn=self._average)

    def on_train_batch_end(self, trainer: Any, module: Any, *others: Any) -> None:
        done = trainer.global_step  # known here, while the averaged model's own count is on the device
        self._share = 1 - min(self._decay, (1 + done) / (10 + done))
        super().on_train_batch_end(trainer, module, *others)

    @torch.no_grad()
    def _average(self, averages: Sequence[Tensor], currents: Sequence[Tensor], _: Any) -> None:
        """Called with tensors of one type at a time."""
        if averages[0].is_floating_point():
            torch._foreach_lerp_(list(averages), list(currents), self._share)
        else:
            torch._foreach_copy_(list(averages), list(currents))


class Keeper(Callback):
    """After each validation a checkpoint to resume from, and the best weights so far; either appears whole or not."""

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
            self._keep_best(trainer, module)
        trainer.should_stop = self._waited_enough(module)

    def _waited_enough(self, module: Segmenter) -> bool:
        patience = module.recipe.patience
        return patience is not None and self.waited >= patience

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """After the last thing that changes a state in an epoch."""
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
    """The network's weights that are validated: the moving average where there is one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        average = getattr(callback, "_average_model", None)
        if average is not None:
            network: dict[str, Tensor] = average.module.model.network.state_dict()
            return network
    return dict(module.model.network.state_dict())


@dataclass
class Log(Callback):
    """A table (CSV) with a line for each epoch: step, loss since the last, rate, Mpx/s, scores if there are any.

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
        self._losses.append(outputs["loss"].detach())
        self._training = time.monotonic() - self._since

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Segmenter)
        if not trainer.is_global_zero:
            return
        recipe = module.recipe
        pixels = len(self._losses) * recipe.sample.batch * recipe.sample.patch**2 * trainer.world_size
        row: dict[str, Any] = {
            "step": trainer.global_step,
            "loss": round(float(torch.stack(self._losses).mean()), 5) if self._losses else "",
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
    """A picture of the first validation windows, their labels and what the model says, every few validations."""

    folder: Path
    every: int = 4

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int, *_: Any
    ) -> None:
        from rssegment.training.pictures import sample_picture

        epoch = trainer.current_epoch + 1
        due = epoch % self.every == 0 or epoch in (1, trainer.max_epochs)
        if index or trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        assert isinstance(module, Segmenter)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{trainer.global_step:07d}.png"
        sample_picture(batch.batch, module.predict(batch.batch), module.taxonomy, path)


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
