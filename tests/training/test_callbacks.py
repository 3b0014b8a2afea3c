"""What happens beside the steps: the average of weights, the log, pictures, reports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from rssegment.errors import OutputError
from rssegment.model import Bundle
from rssegment.training import Trained, fitting
from rssegment.training.callbacks import Averaging, Log, Reporting, averaged
from rssegment.training.module import Segmenter
from rssegment.training.watch import Watch
from tests.training.test_fitting import log_of
from tests.training.trainings import a_recipe, a_source, a_training


class Follower(Callback):
    """The weights after each step, and their average by the formula."""

    def __init__(self) -> None:
        self.average: dict[str, torch.Tensor] = {}
        self.current: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: Any, module: Segmenter) -> None:
        self.average = {k: v.clone() for k, v in module.model.network.state_dict().items()}

    def on_train_batch_end(self, trainer: Any, module: Segmenter, *_: Any) -> None:
        done = trainer.global_step
        decay = min(0.9, (1 + done) / (10 + done)) if done > 1 else 0.0  # the first weights as they are
        self.current = {k: v.clone() for k, v in module.model.network.state_dict().items()}
        for name, value in self.current.items():
            held = self.average[name]
            self.average[name] = decay * held + (1 - decay) * value if value.is_floating_point() else value


def test_the_average_is_that_of_the_formula(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, original = Follower(), fitting._callbacks
    monkeypatch.setattr(fitting, "_callbacks", lambda *a: [follower, *original(*a)])
    trained = a_training(country, tmp_path / "out")
    kept = load_file(Bundle.open(trained.bundle).weights)
    assert kept.keys() <= follower.average.keys()
    for name, value in kept.items():
        torch.testing.assert_close(value, follower.average[name].to(value.dtype), rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(value, follower.current[name]) for name, value in kept.items())


def test_without_an_average_the_last_weights_are_kept(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, original = Follower(), fitting._callbacks
    monkeypatch.setattr(fitting, "_callbacks", lambda *a: [follower, *original(*a)])
    trained = a_training(country, tmp_path / "out", a_recipe(optimizer={"average": 0, "steps": 2}))
    kept = load_file(Bundle.open(trained.bundle).weights)
    assert all(torch.equal(value, follower.current[name]) for name, value in kept.items())


def a_module(weight: float) -> Any:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, weight)
    recipe = SimpleNamespace(optimizer=SimpleNamespace(average=0.5))
    return SimpleNamespace(model=SimpleNamespace(network=network), recipe=recipe)


def test_the_average_is_taken_once_for_a_step_of_several_batches() -> None:
    averaging, module = Averaging(0.5), a_module(0.0)
    weight = module.model.network.weight
    averaging.on_fit_start(SimpleNamespace(global_step=0), module)
    held = 0.0
    for step, value, share in ((1, 3.0, 1.0), (1, 5.0, 0), (2, 1.0, 1 - 3 / 12), (2, 4.0, 0), (90, 7.0, 0.5)):
        with torch.no_grad():
            weight.fill_(value)
        averaging.on_train_batch_end(SimpleNamespace(global_step=step), module, None, None, 0)
        held += share * (value - held)
        assert averaging.tensors["weight"].item() == pytest.approx(held)
    averaging.on_validation_epoch_start(None, module)
    assert (weight.item(), averaging.tensors["weight"].item()) == pytest.approx((held, 7.0))
    averaging.on_validation_epoch_end(None, module)
    assert (weight.item(), averaging.tensors["weight"].item()) == pytest.approx((7.0, held))


def test_an_average_is_kept_in_plain_tensors(tmp_path: Path) -> None:
    averaging, module = Averaging(0.5), a_module(2.0)
    averaging.on_fit_start(SimpleNamespace(global_step=0), module)
    torch.save(averaging.state_dict(), tmp_path / "state")
    again = Averaging(0.5)
    again.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    again.on_fit_start(SimpleNamespace(global_step=3), a_module(5.0))
    assert again.tensors["weight"].item() == 2.0
    with pytest.raises(OutputError, match="has no average of weights: start afresh"):
        Averaging(0.5).on_fit_start(SimpleNamespace(global_step=3), module)


def test_weights_that_were_not_averaged_are_never_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="was not taken"):
        averaged(SimpleNamespace(callbacks=[]), a_module(1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("times", [1, 3])
def test_the_log_has_the_loss_itself(
    country: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    original = Segmenter.loss_of
    monkeypatch.setattr(Segmenter, "loss_of", lambda *a: original(*a) * 0 + 6.0)
    recipe = a_recipe(
        sources=[a_source("north", role="train")],
        optimizer={"steps": 2, "accumulate": times},
        validate_every=1,
    )
    trained = a_training(country, tmp_path / "out", recipe)
    assert [float(row["loss"]) for row in log_of(trained.folder)] == pytest.approx([6.0, 6.0])


def test_the_log_and_pictures(trained: Trained) -> None:
    rows = log_of(trained.folder)
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(float(row["loss"]) > 0 for row in rows)
    final = trained.scores[""]
    for level in final.levels:
        assert float(rows[-1][f"mean_iou_level_{level.level}"]) == pytest.approx(level.mean_iou, abs=1e-5)
    assert float(rows[-1]["pixel_accuracy"]) == pytest.approx(final.leaf.pixel_accuracy, abs=1e-5)
    pictures = sorted((trained.folder / "pictures").iterdir())
    assert [path.name for path in pictures] == ["step_0000002.png", "step_0000006.png"]
    for path in pictures:
        with Image.open(path) as image:
            image.load()
            assert min(image.size) >= 32
    assert list((trained.folder / "logs").glob("events*"))


def test_the_log_has_losses_without_validation(country: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = a_recipe(sources=[a_source("north", role="train")], optimizer={"steps": 4})
    trained = a_training(country, tmp_path / "out", recipe, say=lines.append)
    rows = log_of(trained.folder)
    assert [row["step"] for row in rows] == ["2", "4"]
    assert rows[0].keys() == {"step", "loss", "rate"}
    assert [line.split("  ")[0] for line in lines if line.startswith("step")] == ["step 2", "step 4"]


def test_a_resumed_log_forgets_what_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n2,1.0\n4,0.5\n6,0.4\n")
    trainer: Any = SimpleNamespace(is_global_zero=True)
    Log(path, Watch(), 4).on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert path.read_text() == "step,loss\n2,1.0\n4,0.5\n"
    Log(path, Watch(), 0).on_fit_start(trainer, None)  # type: ignore[arg-type]
    assert [row for row in path.read_text().splitlines() if row[:1].isdigit()] == []


def test_progress_counts_steps_and_pixels_since_it_began() -> None:
    told: list[tuple[Any, ...]] = []
    recipe = a_recipe(optimizer={"accumulate": 3})
    reporting = Reporting(lambda *facts: told.append(facts), recipe)
    trainer: Any = SimpleNamespace(global_step=4, is_global_zero=True, world_size=2)
    reporting.on_train_start(trainer, None)  # type: ignore[arg-type]
    trainer.global_step = 5
    reporting.on_train_batch_end(trainer, None, None, None, 0)
    trainer.is_global_zero = False
    reporting.on_train_batch_end(trainer, None, None, None, 1)
    assert told == [("train", 4, 6, 0), ("train", 5, 6, 2 * 3 * 32 * 32 * 2)]
