"""Trainings that are killed at chosen instants, each in a process of its own: python -m tests.training.killed DATA OUT

Processes are forked from one that has imported everything, which takes longer than to train.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["INSTANTS"]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(place: Any, name: str, when: Callable[..., bool]) -> None:
    """Dies where ``place.name`` is called and ``when`` is true of its arguments."""
    original = getattr(place, name)

    def replaced(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            _die()
        return original(*arguments, **options)

    setattr(place, name, replaced)


def _in_a_step(step: int) -> None:
    from rssegment.training.module import Segmenter

    _before(Segmenter, "training_step", lambda module, *_: module.global_step == step)


def _in_validation() -> None:
    from rssegment.training.module import Segmenter

    _before(Segmenter, "validation_step", lambda module, *_: module.global_step == 4)


def _between_best_and_checkpoint() -> None:
    from rssegment.training.callbacks import Keeper

    _before(Keeper, "on_train_epoch_end", lambda _, trainer, *__: trainer.global_step == 4)


def _in_the_checkpoint() -> None:
    import lightning

    original = lightning.Trainer.save_checkpoint

    def half(trainer: lightning.Trainer, path: Path) -> None:
        original(trainer, path)
        if trainer.global_step == 4:
            os.truncate(path, path.stat().st_size // 2)
            _die()

    lightning.Trainer.save_checkpoint = half


def _before_the_bundle() -> None:
    from rssegment import model

    _before(model, "save_bundle", lambda *_: True)


def _before_the_record() -> None:
    from rssegment.training.folder import TrainingFolder

    _before(TrainingFolder, "finish", lambda *_: True)


INSTANTS: dict[str, Callable[[], None]] = {
    "before any checkpoint": lambda: _in_a_step(1),
    "in an epoch": lambda: _in_a_step(3),
    "in validation": _in_validation,
    "between best and checkpoint": _between_best_and_checkpoint,
    "in the checkpoint": _in_the_checkpoint,
    "before the bundle": _before_the_bundle,
    "before the record": _before_the_record,
}


def _child(instant: str, data: Path, out: Path) -> None:
    from tests.training.trainings import a_training

    INSTANTS[instant]()
    a_training(data, out / instant)


def main(data: Path, out: Path) -> None:
    for name in ("rssegment.training.fitting", "rssegment.training.sources", "tests.training.trainings"):
        import_module(name)
    for instant in INSTANTS:
        child = os.fork()
        if not child:
            try:
                _child(instant, data, out)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f"{instant}: not killed, status {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
