"""A training's folder: what is in it, whose it is, and what may be gone on with or replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rssegment.errors import OutputError
from rssegment.run.store import read_json
from rssegment.training.ground import LabelledScene
from rssegment.training.recipe import Recipe
from rssegment.write.atomic import storage_errors, write_bytes

__all__ = ["BEST", "CHECKPOINT", "TrainingFolder", "fingerprint_of"]

CHECKPOINT, BEST = "last.ckpt", "best.safetensors"

# what decides nothing of the weights
_ABOUT: dict[str, Any] = {
    **dict.fromkeys(("title", "description", "limits", "license", "half"), True),
    "sources": {"__all__": {"credit": True, "license": True}},
    "sample": {"workers": True, "cache": True},
}


@dataclass(frozen=True)
class TrainingFolder:
    """``bundle/`` and ``training.json`` when all is done; ``log.csv``, ``pictures/``, ``logs/`` on the way; ``work/``
    what a training needs to be resumed."""

    path: Path

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def log(self) -> Path:
        return self.path / "log.csv"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def record(self) -> Path:
        return self.path / "training.json"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def checkpoint(self) -> Path | None:
        """The state to go on from, if there is one."""
        path = self.work / CHECKPOINT
        return path if path.exists() else None

    def prepare(self, fingerprint: str, *, resume: bool, overwrite: bool) -> None:
        """Makes the folder ready for the training with this fingerprint.

        Raises
        ------
        OutputError
            It holds another training, or what is no training; or ``resume`` and ``overwrite`` are both asked for.
        """
        if resume and overwrite:
            raise OutputError(
                "--overwrite and --resume exclude each other: start afresh, or go on with what is there"
            )
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"can't write to {self.path}: it is a file; choose a folder")
        mark = read_json(self._mark)
        if mark is None and self.path.is_dir() and any(self.path.iterdir()):
            raise OutputError(f"{self.path} holds files that are no training's; choose another folder")
        if mark is not None and not (resume or overwrite):
            state = "a finished" if self.record.exists() else "an unfinished"
            raise OutputError(
                f"{self.path} holds {state} training; go on with it by --resume, replace it by --overwrite, "
                "or choose another folder"
            )
        if resume and mark is not None and mark.get("fingerprint") != fingerprint:
            raise OutputError(
                f"{self.path} was left by a training with another recipe, data or version; resume it with what it was "
                "started with, or start afresh with --overwrite"
            )
        if overwrite and mark is not None:
            self._clear()
        with storage_errors(self.path):
            self.work.mkdir(parents=True, exist_ok=True)
        write_bytes(self._mark, json.dumps({"fingerprint": fingerprint}).encode())

    def finish(self, facts: dict[str, Any]) -> None:
        write_bytes(self.record, json.dumps(facts, indent=2).encode())

    @property
    def _mark(self) -> Path:
        return self.work / "training.json"

    def _clear(self) -> None:
        """Removes what trainings write on the way, and nothing else; the cache of pixels stays, and the bundle until
        there is a new one."""
        for path in (*self.pictures.glob("step_*.png"), *(self.path / "logs").glob("events.out.tfevents.*")):
            path.unlink(missing_ok=True)
        for path in (self.record, self.log, self.work / CHECKPOINT, self.work / BEST):
            path.unlink(missing_ok=True)


def fingerprint_of(recipe: Recipe, scenes: Sequence[LabelledScene], more: Sequence[str]) -> str:
    """Hex digest of all that decides the weights; ``more`` are versions and what else there is."""
    values = {
        "recipe": recipe.model_dump(mode="json", exclude=_ABOUT),
        "scenes": [(scene.source, scene.name, scene.fingerprint) for scene in scenes],
        "more": list(more),
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
