"""What this package makes on the way to an output is hidden beside it, and found again where a process was killed."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

__all__ = ["abandoned", "remove", "sweep", "temporary_prefix"]


def temporary_prefix(path: Path) -> str:
    """How the names begin of what this process makes on the way to ``path``: hidden, and told from others' by
    the machine and the process."""
    return f"{_mark(path)}{os.getpid()}-"


def abandoned(path: Path) -> Iterator[Path]:
    """What processes of this machine, now gone, left on the way to ``path``."""
    mark = _mark(path)
    for left in path.parent.glob(f"{glob.escape(mark)}*"):
        owner = left.name.removeprefix(mark).partition("-")[0]
        if owner.isdecimal() and len(owner) < 10 and not psutil.pid_exists(int(owner)):
            yield left


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it, as far as that can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Removes what is :func:`abandoned` on the way to ``path``."""
    for left in abandoned(path):
        remove(left)


def _mark(path: Path) -> str:
    return f".{path.name}.{_machine()}-"


@cache
def _machine() -> str:
    """Eight digits for this machine: where process numbers mean the same (containers count their own)."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"
