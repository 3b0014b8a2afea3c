"""A training's folder: what is in it, whose it is, and what may be gone on with or replaced."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rssegment.errors import OutputError
from rssegment.run.json_file import read_json
from rssegment.training.ground import LabelledScene
from rssegment.training.recipe import Recipe
from rssegment.write.atomic import storage_errors, write_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["BEST", "CHECKPOINT", "Machine", "TrainingFolder", "fingerprint_of"]

CHECKPOINT, BEST, LOCK = "last.ckpt", "best.safetensors", "lock"

# what decides nothing of the weights
_ABOUT: dict[str, Any] = {
    **dict.fromkeys(("title", "description", "limits", "license", "half"), True),
    "sources": {"__all__": {"credit": True, "license": True}},
    "model": {"credit": True},
    "sample": {"workers": True, "cache": True},
}


@dataclass(frozen=True)
class Machine:
    """What a training runs on: ``precision`` of its steps, kind of ``device``, number of processes, and of ``threads``.

    Another precision or number of processes is another training; other threads or another device change last bits.
    """

    precision: str
    processes: int
    device: str
    threads: int


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

    @property
    def finished(self) -> bool:
        """Whether the training is done, and its result can be given again."""
        return self.record.exists() and self.checkpoint is not None

    def when_stopped(self) -> str:
        """What a user is told who stops the training."""
        if self.checkpoint is None:
            return "stopped before the first validation, so no step is kept: begin again with --resume"
        return (
            "stopped; what is done is kept: run the command again with --resume, which goes on from the last "
            "validation on"
        )

    def prepare(self, fingerprint: str, *, resume: bool, overwrite: bool, series: str = "") -> None:
        """Makes the folder ready for the training with this fingerprint; ``series`` is that but for its steps.

        Raises
        ------
        OutputError
            It holds another training, or what is no training; or ``resume`` and ``overwrite`` are both asked for.
        """
        mark = self.check(fingerprint, resume=resume, overwrite=overwrite, series=series)
        if overwrite and mark is not None:
            self._clear()
        with storage_errors(self.path):
            self.work.mkdir(parents=True, exist_ok=True)
        kept = (mark or {}) if resume else {}
        self._note({**kept, "fingerprint": fingerprint, "series": series})

    def check(
        self, fingerprint: str, *, resume: bool, overwrite: bool, series: str = ""
    ) -> dict[str, Any] | None:
        """What is noted of the training that is there; raises as :meth:`prepare`, and changes nothing."""
        mark = self.check_free(resume=resume, overwrite=overwrite)
        if resume and mark is not None and mark.get("fingerprint") != fingerprint:
            raise OutputError(self._of_another(bool(series) and mark.get("series") == series))
        return mark

    def _of_another(self, steps_alone: bool) -> str:
        """Why the training that is there can't be gone on with."""
        other = "another number of steps" if steps_alone else "another recipe, data or version"
        if self.record.exists():
            return f"{self.path} holds a finished training with {other}; {self._beyond}"
        why = ", which learning rates follow" if steps_alone else ""
        return (
            f"{self.path} was left by a training with {other}{why}; resume it with what it was started with, or start "
            "afresh with --overwrite"
        )

    @property
    def _beyond(self) -> str:
        """What can be done where a training is finished."""
        return (
            f"train on from its bundle into another folder (model: {{start: {self.bundle}}} in a recipe), replace it "
            "by --overwrite, or choose another folder"
        )

    def check_free(self, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
        """As :meth:`check`, before it is known which training it is to be."""
        if resume and overwrite:
            raise OutputError(
                "--overwrite and --resume exclude each other: start afresh, or go on with what is there"
            )
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"can't write to {self.path}: it is a file; choose a folder")
        mark: dict[str, Any] | None = read_json(self._mark)
        if mark is None and self.path.is_dir() and self._has_anything():
            raise OutputError(f"{self.path} holds files that are no training's; choose another folder")
        if mark is not None and not (resume or overwrite):
            if self.record.exists():
                raise OutputError(f"{self.path} holds a finished training; {self._beyond}")
            raise OutputError(
                f"{self.path} holds an unfinished training; go on with it by --resume, replace it by --overwrite, "
                "or choose another folder"
            )
        return mark

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training here, until it ends or this process is killed.

        On Windows, and where the file system has no locks, nobody is kept from it.

        Raises
        ------
        OutputError
            Another process trains in this folder.
        """
        with storage_errors(self.path):
            self.work.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.work / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._lock(lock)
            yield
        finally:
            os.close(lock)  # which ends it

    def _lock(self, file: int) -> None:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another process trains in {self.path}: wait for it or stop it, or choose another folder"
            ) from error
        except OSError:  # a file system without locks
            return

    def entered(self, machine: Machine, *, going_on: bool) -> tuple[str, ...]:
        """Notes what the training runs on; where it is ``going_on``, remarks of what is not as it was.

        Raises
        ------
        OutputError
            It was begun with another precision or number of processes.
        """
        mark = read_json(self._mark) or {}
        before, now = mark.get("machine"), asdict(machine)
        remarks: list[str] = []
        if going_on and isinstance(before, dict):
            others = [name for name, value in now.items() if name in before and before[name] != value]
            told = [f"{name} {before[name]}, now {now[name]}" for name in others]
            if {"precision", "processes"} & set(others):
                raise OutputError(
                    f"{self.path} was left by a training on another machine: {'; '.join(told)}; resume it on one like "
                    "that (optimizer.precision, device), or start afresh with --overwrite"
                )
            remarks = [f"the training began with {each}: its last bits may differ" for each in told]
        self._note({**mark, "machine": now})
        return tuple(remarks)

    def finish(self, facts: dict[str, Any]) -> None:
        write_bytes(self.record, json.dumps(facts, indent=2).encode())

    @property
    def _mark(self) -> Path:
        return self.work / "training.json"

    def _note(self, values: dict[str, Any]) -> None:
        write_bytes(self._mark, json.dumps(values).encode())

    def _has_anything(self) -> bool:
        """Whether there is a file or folder but for the lock."""
        if any(path != self.work for path in self.path.iterdir()):
            return True
        return self.work.exists() and (
            not self.work.is_dir() or any(p.name != LOCK for p in self.work.iterdir())
        )

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
