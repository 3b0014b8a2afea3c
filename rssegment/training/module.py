"""The training step and what is measured on validation ground, as Lightning wants them."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
import torch.distributed
from torch import Tensor, nn

from rssegment.errors import ModelError
from rssegment.evaluation import Confusion, Scores
from rssegment.model import Hierarchical, HierarchicalLoss
from rssegment.training.augment import Augment
from rssegment.training.batch import Batch
from rssegment.training.data import TrainingData
from rssegment.training.memory import telling, told_of_validation
from rssegment.training.recipe import OptimizerOptions
from rssegment.training.windows import ValidationBatch

__all__ = ["Segmenter", "rate_at"]

_AUXILIARY = 0.4  # weight of second outputs that some networks have while they are trained (Zhao et al. 2017)
_LOOK = 20  # steps on a GPU after which the losses are looked at
MEAN_OF_LEVELS = "mean_iou"


class Segmenter(lightning.LightningModule):
    """A network with its head, its loss and the preparation of its input.

    Whatever is random in a step is a function of the recipe's seed and the step's number. ``scores`` are those of the
    last validation, by region; the regions' sum is under "".
    """

    def __init__(self, network: nn.Module, data: TrainingData) -> None:
        super().__init__()
        self.recipe, self.taxonomy = data.recipe, data.taxonomy
        self.regions, self.all_regions = data.watched, data.regions  # of those scored now, and in the end
        recipe, options = data.recipe, data.recipe.optimizer
        self.model = Hierarchical(network, data.taxonomy, recipe.model.head)
        self.loss = HierarchicalLoss(
            data.taxonomy,
            class_weights=options.class_weights,
            label_smoothing=options.label_smoothing,
            dice=options.dice,
            lovasz=options.lovasz,
        )
        self.prepare = data.prepare()
        self.augment = Augment(recipe.augment, recipe.sample.patch, recipe.optional)
        self.scores: dict[str, Scores] = {}
        self.drops_optional = False  # in validation: what a scene without these bands would give
        self._counts: dict[str, Confusion] = {}
        self._fault: Tensor | None = None  # step and value of the first loss that is not finite

    # Training

    def training_step(self, batch: Batch, index: int) -> Tensor:
        micro = self.global_step * self.recipe.optimizer.accumulate + index % self.recipe.optimizer.accumulate
        rank_step = micro * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.recipe.seed * 1_000_003 + rank_step)  # dropout
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            batch = self.augment(self.prepare(batch), self.recipe.seed, rank_step)
        loss = self.loss_of(batch)
        self._watch(loss.detach())
        self.log("loss", loss.detach(), prog_bar=False)
        return loss

    def _watch(self, loss: Tensor) -> None:
        """Remembers the first loss that is not finite where it is: to look at each would wait for the GPU."""
        found = torch.stack([torch.full_like(loss, self.global_step + 1), loss]).float()
        if self._fault is None:
            self._fault = torch.zeros_like(found)
        self._fault = torch.where((self._fault[0] == 0) & ~torch.isfinite(loss), found, self._fault)
        if loss.device.type == "cpu" or self.global_step % _LOOK == 0:
            self.check_finite()

    def check_finite(self) -> None:
        """Raises ModelError where the loss of a step was not finite; names the first such step."""
        step, loss = (0.0, 0.0) if self._fault is None else self._fault.tolist()
        if step:
            raise ModelError(f"the loss is {loss} at step {step:.0f}; lower optimizer.rate, or raise warmup")

    def loss_of(self, batch: Batch) -> Tensor:
        """The loss of prepared patches, that of second outputs included."""
        outputs = self.model.network(batch.values)
        several = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
        losses = [self.loss(self.model.leaf_logits(output), batch.labels) for output in several]
        total: Tensor = losses[0]
        for further in losses[1:]:
            total = total + _AUXILIARY * further
        return total

    def configure_optimizers(self) -> Any:
        options = self.recipe.optimizer
        optimizer = torch.optim.AdamW(_groups(self.model.network, options), foreach=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, options))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Validation

    def on_validation_epoch_start(self) -> None:
        self.check_finite()
        self._counts = {region: Confusion.empty(self.taxonomy) for region in self.regions}

    def validation_step(self, batch: ValidationBatch, index: int) -> None:
        count, _, _, patch = batch.batch.values.shape
        with telling(told_of_validation(patch, count)):
            predicted = self.predict(batch.batch)
        for codes, labels, region in zip(predicted, batch.batch.labels.cpu(), batch.regions, strict=True):
            self._counts[region] += Confusion.of(codes.numpy(), labels.numpy(), self.taxonomy)

    def predict(self, batch: Batch) -> Tensor:
        """Codes (B, H, W) of the most probable leaves, on the CPU."""
        if self.drops_optional:
            kept = ~torch.tensor(self.recipe.optional, device=batch.present.device)
            batch = batch._replace(present=batch.present & kept)
        logits = self.model(self.prepare(batch).values)
        codes = torch.as_tensor(self.taxonomy.leaf_codes.astype("int32"), device=logits.device)
        return codes[logits.argmax(1)].cpu()

    def on_validation_epoch_end(self) -> None:
        for region, counts in self._counts.items():
            self._counts[region] = self._of_all_ranks(counts)
        total = sum(self._counts.values(), Confusion.empty(self.taxonomy))
        self.scores = {"": Scores.of(total)} | {
            region: Scores.of(counts) for region, counts in self._counts.items()
        }
        for name, value in validation_values(self.scores[""]).items():
            self.log(name, value, sync_dist=False)

    def _of_all_ranks(self, counts: Confusion) -> Confusion:
        if self.trainer.world_size == 1:
            return counts
        table = torch.as_tensor(counts.counts, device=self.device)
        torch.distributed.all_reduce(table)
        return Confusion(self.taxonomy, table.cpu().numpy())


def validation_values(scores: Scores) -> dict[str, float]:
    """What is logged of a validation, of the levels that count.

    ``mean_iou_level_1`` ... by level, ``mean_iou`` their mean, ``pixel_accuracy`` at the deepest of them. A level
    counts where it can score at least half of the labelled pixels: labels above its classes tell nothing of it. Where
    all are labels of leaves, all levels count.
    """
    most = max(level.pixels for level in scores.levels)
    levels = [level for level in scores.levels if level.pixels and 2 * level.pixels >= most]
    values = {f"mean_iou_level_{level.level}": level.mean_iou for level in levels}
    values[MEAN_OF_LEVELS] = sum(values.values()) / len(values) if values else 0.0
    values["pixel_accuracy"] = (levels[-1] if levels else scores.leaf).pixel_accuracy
    return values


def rate_at(step: int, options: OptimizerOptions) -> float:
    """Share of the highest learning rate at a step: a straight line up, then half a cosine down to a thousandth."""
    rise = max(1, round(options.warmup * options.steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, options.steps - rise)
    return max(1e-3, 0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


def _groups(network: nn.Module, options: OptimizerOptions) -> list[dict[str, Any]]:
    """Parameters with their rates; biases and normalisations don't decay."""
    groups: list[dict[str, Any]] = []
    for own in (True, False):
        rate = options.rate * (options.encoder_rate if own else 1.0)
        chosen = [
            p
            for name, p in network.named_parameters()
            if name.startswith("encoder.") == own and p.requires_grad
        ]
        for flat in (True, False):
            parameters = [p for p in chosen if (p.ndim < 2) == flat]
            if parameters:
                decay = 0.0 if flat else options.weight_decay
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return groups
