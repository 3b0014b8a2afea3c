"""What other programs leave beside an output, or hold: found by name, and removed or refused."""

from __future__ import annotations

import glob
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from rssegment.errors import OutputError

__all__ = ["check_not_held", "remove_strays"]

_PATIENCE = 0.5  # s that another program may take to let a database go
_MAGIC = b"SQLite format 3\0"
_HELD = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


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


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
