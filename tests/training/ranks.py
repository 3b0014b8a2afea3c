"""A training by two processes on the CPU: python -m tests.training.ranks DATA OUT"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning

from rssegment.training import fitting
from tests.training.trainings import a_recipe, a_training


class Two(lightning.Trainer):
    """A trainer of two processes, whatever was asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"devices": 2, "strategy": "ddp", "accelerator": "cpu"})


if __name__ == "__main__":
    fitting.lightning.Trainer = Two
    recipe = a_recipe(sample={"batch": 1})
    a_training(Path(sys.argv[1]), Path(sys.argv[2]), recipe, say=lambda line: print(line, flush=True))
    print("trained")
