"""What killed processes and other programs leave beside an output: found by name, and removed."""

from __future__ import annotations

import glob
import os
import platform
import shutil
import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path

import psutil

from rssegment.errors import OutputError

__all__ = ["check_not_held", "remove_strays", "sweep", "temporary_prefix"]

_PATIENCE = 0.5  # s that another program may take to let a database go
_MAGIC = b"SQLite format 3\0"
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def temporary_prefix(path: Path) -> str:
    """How the names begin of what this process makes on the way to ``path``: hidden, and told from others' by
    the machine and the process."""
    return f"{_mark(path)}{os.getpid()}-"


def sweep(path: Path) -> None:
    """Removes what processes of this machine, now gone, left on the way to ``path``."""
    mark = _mark(path)
    for left in path.parent.glob(f"{glob.escape(mark)}*"):
        owner = left.name.removeprefix(mark).partition("-")[0]
        if owner.isdecimal() and len(owner) < 10 and not psutil.pid_exists(int(owner)):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def remove_strays(path: Path, patterns: Iterable[str]) -> None:
    """Removes files beside ``path`` that readers would take for its own: indexes, statistics, a database's journal.

    ``patterns`` of their names, in which ``{name}`` stands for the file's and ``{stem}`` for it without suffix.

    Raises
    ------
    OutputError
        ``path`` is a database that another program holds: its journal can't be taken away.
    """
    check_not_held(path)
    for pattern in patterns:
        name = pattern.format(name=glob.escape(path.name), stem=glob.escape(path.stem))
        for stray in path.parent.glob(name):
            if stray.is_file():
                stray.unlink(missing_ok=True)


def check_not_held(path: Path) -> None:
    """Refuses to replace ``path`` if it is an SQLite database that another program holds.

    One that nobody holds is all in its one file from then on.

    A journal that outlives its database is applied to the next one of that name, which corrupts it:
    https://www.sqlite.org/howtocorrupt.html, section 1.4.

    Raises
    ------
    OutputError
        Somebody holds it.
    """
    if not _is_database(path):
        return
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)) as database:
            database.execute(
                "PRAGMA journal_mode=DELETE"
            ).fetchone()  # needs all others gone, if it has a WAL
            database.execute("BEGIN EXCLUSIVE")
            database.execute("ROLLBACK")
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _HELD:
            raise OutputError(
                f"can't replace {path}: another program has it open; close it there first (in QGIS, remove the layer)"
            ) from error


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


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
