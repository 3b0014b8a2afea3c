"""Steps and validation."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rssegment.errors import ModelError
from rssegment.evaluation import Confusion, Scores
from rssegment.model import create_model
from rssegment.training.batch import Batch
from rssegment.training.data import TrainingData
from rssegment.training.fitting import fit
from rssegment.training.folder import TrainingFolder
from rssegment.training.module import MEAN_OF_LEVELS, Segmenter, rate_at, validation_values
from rssegment.training.recipe import OptimizerOptions, Recipe
from rssegment.training.sources import open_sources
from rssegment.training.watch import Watch
from tests.training.folders import TREE
from tests.training.trainings import FLAT, a_recipe

LEAVES = len(TREE.leaf_codes)


def opened(country: Path, work: Path, recipe: Recipe) -> TrainingData:
    return TrainingData.open(recipe, TREE, open_sources(recipe, country, taxonomy=TREE), work)


@pytest.fixture
def data(country: Path, tmp_path: Path) -> TrainingData:
    return opened(country, tmp_path, a_recipe(augment=FLAT))


class Plain(nn.Module):
    """Without batch normalisation, whose statistics are those of a batch."""

    def __init__(self, bands: int = 4, channels: int = LEAVES) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(bands, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Conv2d(8, channels, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.encoder(values)).relu())


def plain() -> Plain:
    torch.manual_seed(5)
    return Plain()


def step(module: Segmenter, batch: Batch, done: int = 0, index: int = 0) -> torch.Tensor:
    """The loss of a batch as in a trainer that has done so many steps."""
    module._fabric = None
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    trainer: Any = SimpleNamespace(global_step=done, world_size=1, global_rank=0)
    module._trainer = trainer
    return module.training_step(batch, index)


def windows(data: TrainingData, count: int) -> Batch:
    from rssegment.training.sampling import Sampler
    from rssegment.training.windows import Windows

    sampler = Sampler(data.census, data.roles, data.recipe)
    return Windows(data.scenes, sampler, data.cache).__getitems__(range(count))


# Steps


def test_two_batches_have_the_gradient_of_one_that_is_twice_as_large(data: TrainingData) -> None:
    """For a network without batch normalisation, windows with as many labels, and no augmentation."""
    batch = windows(data, 4)
    labelled = (batch.labels > 0).flatten(1).sum(1)
    assert (labelled == labelled[0]).all()
    whole, halves = Segmenter(plain(), data), Segmenter(plain(), data)
    step(whole, batch).backward()
    for index in range(2):
        part = Batch(*(each[2 * index : 2 * index + 2] for each in batch))
        (step(halves, part, index=index) / 2).backward()
    for one, other in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_steps_of_two_batches_are_steps_of_one_that_is_twice_as_large(country: Path, tmp_path: Path) -> None:
    found = []
    for name, sample, accumulate in (("a", 4, 1), ("b", 2, 2)):
        recipe = a_recipe(
            augment=FLAT, sample={"batch": sample}, optimizer={"accumulate": accumulate, "steps": 4}
        )
        folder, network = TrainingFolder(tmp_path / name), plain()
        folder.prepare(name, resume=False, overwrite=False)
        fitted = fit(opened(country, folder.work, recipe), network, folder, "cpu", Watch())
        assert fitted.steps == 4
        found.append(network.state_dict())
    first = plain().state_dict()
    for name, value in found[0].items():
        moved = (value - first[name]).abs().max()
        assert (value - found[1][name]).abs().max() < 0.02 * moved


def test_a_step_is_a_function_of_its_number(country: Path, tmp_path: Path) -> None:
    recipe = a_recipe(optimizer={"accumulate": 2})
    data = opened(country, tmp_path, recipe)
    network = nn.Sequential(nn.Dropout2d(0.5), plain())
    module, batch = Segmenter(network, data), windows(data, 2)
    losses = {
        (done, index): step(module, batch, done, index).item() for done in range(2) for index in range(2)
    }
    assert len(set(losses.values())) == 4
    torch.manual_seed(99)
    for (done, index), loss in reversed(losses.items()):
        assert step(module, batch, done, index + 2 * 7).item() == loss  # the index in an epoch counts on


def test_the_second_output_counts_less(data: TrainingData) -> None:
    class Several(Plain):
        def forward(self, values: torch.Tensor) -> Any:
            logits = super().forward(values)
            return (logits, 2 * logits) if self.training else logits

    torch.manual_seed(5)
    module, batch = Segmenter(Several(), data), windows(data, 2)
    prepared = module.prepare(batch)
    logits = Plain.forward(module.model.network, prepared.values)  # type: ignore[arg-type]
    labels = prepared.labels
    whole = batch._replace(labels=labels, values=prepared.values)
    expected = module.loss(logits, labels) + 0.4 * module.loss(2 * logits, labels)
    assert module.loss_of(whole).item() == pytest.approx(expected.item(), rel=1e-6)
    assert module.eval().predict(batch).shape == batch.labels.shape


def test_a_batch_without_labels_is_no_fault(data: TrainingData) -> None:
    batch = windows(data, 2)
    loss = step(Segmenter(plain(), data), batch._replace(labels=torch.zeros_like(batch.labels)))
    assert loss.item() == 0


def test_a_loss_that_is_not_finite_is_an_error(data: TrainingData) -> None:
    network = plain()
    with torch.no_grad():
        network.head.weight.fill_(torch.inf)
    with pytest.raises(ModelError, match="the loss is nan at step 3"):
        step(Segmenter(network, data), windows(data, 2), done=2)


def test_the_first_loss_that_is_not_finite_is_named_later(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where losses are looked at every few steps."""
    module, seen = Segmenter(plain(), data), Segmenter.check_finite
    monkeypatch.setattr(Segmenter, "check_finite", lambda _: None)
    original = Segmenter.loss_of
    for done in range(4):
        factor = torch.inf if done == 1 else torch.nan if done == 2 else 1.0
        monkeypatch.setattr(Segmenter, "loss_of", lambda *a, f=factor: original(*a) * f)
        step(module, windows(data, 2), done=done)
    with pytest.raises(ModelError, match="the loss is inf at step 2;"):
        seen(module)


# Rates


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_rate_rises_and_falls(steps: int, warmup: float) -> None:
    options = OptimizerOptions(steps=steps, warmup=warmup)
    rates = [rate_at(number, options) for number in range(steps)]
    rise = max(1, round(warmup * steps))
    for number, rate in enumerate(rates):
        if number < rise:
            expected = (number + 1) / rise
        else:
            expected = max(0.001, (1 + math.cos(math.pi * (number - rise) / (steps - rise))) / 2)
        assert rate == pytest.approx(expected)
    assert min(rates) > 0
    assert max(rates) <= 1
    assert rates[: rise + 1] == sorted(rates[: rise + 1])
    assert rates[rise:] == sorted(rates[rise:], reverse=True)


@pytest.mark.parametrize("name", ["enet", "smp:Unet"])
def test_every_weight_is_in_one_group(country: Path, tmp_path: Path, name: str) -> None:
    recipe = a_recipe(optimizer={"rate": 0.01, "encoder_rate": 0.1, "weight_decay": 0.3})
    small = {
        "encoder": "tf_mobilenetv3_small_minimal_100",
        "encoder_depth": 3,
        "decoder_channels": [16, 8, 8],
    }
    network = create_model(name, 4, TREE, "flat", **small if ":" in name else {})
    module = Segmenter(network, opened(country, tmp_path, recipe))
    found = {}
    for group in module.configure_optimizers()["optimizer"].param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["initial_lr"], group["weight_decay"])
    names = dict(network.named_parameters())
    assert len(found) == len(names)
    for key, parameter in names.items():
        rate = 0.001 if key.startswith("encoder.") else 0.01
        assert found[id(parameter)] == (pytest.approx(rate), 0.0 if parameter.ndim < 2 else 0.3)


def test_what_is_frozen_is_not_optimised(data: TrainingData) -> None:
    network = plain()
    network.encoder.requires_grad_(False)
    groups = Segmenter(network, data).configure_optimizers()["optimizer"].param_groups
    assert sum(len(group["params"]) for group in groups) == 4


# Validation


def test_scores_are_those_of_the_whole_ground(data: TrainingData) -> None:
    """Each pixel of validation ground counts once, in its region."""
    module = Segmenter(plain().eval(), data).eval()
    trainer: Any = SimpleNamespace(world_size=1)
    module._trainer = trainer
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.on_validation_epoch_start()
    expected = Confusion.empty(TREE)
    for batch in data.validation_batches(0, 1, False):
        module.validation_step(batch, 0)
        codes = module.predict(batch.batch).numpy()
        expected += Confusion.of(
            codes[batch.scored.numpy()], batch.batch.labels.numpy()[batch.scored.numpy()], TREE
        )
    module.on_validation_epoch_end()
    assert module.scores.keys() == {"", "south"}
    for scores in module.scores.values():
        assert scores.leaf.mean_iou == Scores.of(expected).leaf.mean_iou
    assert module.scores[""].leaf.pixels == 64 * 96


def test_two_ranks_see_all_windows_once(data: TrainingData) -> None:
    whole = sum(int(batch.scored.sum()) for batch in data.validation_batches(0, 1, False))
    parts = [sum(int(batch.scored.sum()) for batch in data.validation_batches(r, 2, False)) for r in range(2)]
    assert sum(parts) == whole == 64 * 96
    assert min(parts) > 0


def test_optional_bands_are_dropped_as_if_absent(country: Path, tmp_path: Path) -> None:
    data = opened(country, tmp_path, a_recipe(optional_bands=("nir",), augment=FLAT))
    module, batch = Segmenter(plain(), data), windows(data, 2)
    absent = batch._replace(present=batch.present & torch.tensor([True, True, True, False]))
    expected, full = module.predict(absent), module.predict(batch)
    module.drops_optional = True
    assert torch.equal(module.predict(batch), expected)
    assert not torch.equal(expected, full)


def test_values_of_a_validation() -> None:
    codes = TREE.leaf_codes
    truth = np.array([[codes[0]] * 6 + [codes[1]] * 2], np.uint16)
    found = np.array([[codes[0]] * 5 + [codes[1]] * 3], np.uint16)
    scores = Scores.of(Confusion.of(found, truth, TREE))
    values = validation_values(scores)
    levels = [level.mean_iou for level in scores.levels]
    assert values[MEAN_OF_LEVELS] == pytest.approx(sum(levels) / len(levels))
    assert values["pixel_accuracy"] == 7 / 8
    assert validation_values(Scores.of(Confusion.empty(TREE)))[MEAN_OF_LEVELS] == 0


def coarse(parents: int, leaves: int) -> Scores:
    """Of pixels labelled "woody", and of others labelled with a leaf; half of them are right."""
    leaf = TREE.node("deciduous").code
    truth = [TREE.node("woody").code] * parents + [leaf] * leaves
    found = [leaf if place % 2 else TREE.node("water").code for place in range(parents + leaves)]
    return Scores.of(Confusion.of(np.array([found], np.uint16), np.array([truth], np.uint16), TREE))


@pytest.mark.parametrize(("parents", "leaves"), [(8, 0), (8, 4)])
def test_levels_below_most_labels_do_not_count(parents: int, leaves: int) -> None:
    scores, level = coarse(parents, leaves), TREE.node("woody").level
    values = validation_values(scores)
    kept = [f"mean_iou_level_{each.level}" for each in scores.levels[:level]]
    assert 0 < level < len(scores.levels)
    assert [*values] == [*kept, MEAN_OF_LEVELS, "pixel_accuracy"]
    assert values[MEAN_OF_LEVELS] == pytest.approx(sum(values[name] for name in kept) / level)
    assert values["pixel_accuracy"] == scores.levels[level - 1].pixel_accuracy == 0.5


def test_levels_of_at_least_half_the_labels_count() -> None:
    scores = coarse(6, 6)
    values = validation_values(scores)
    assert {f"mean_iou_level_{each.level}" for each in scores.levels} < values.keys()
    assert values["pixel_accuracy"] == scores.leaf.pixel_accuracy
