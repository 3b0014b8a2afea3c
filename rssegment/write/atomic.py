"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from rssegment.errors import OutputError, StorageError

__all__ = ["scratch", "staged", "storage_errors", "write_bytes"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EEXIST,
    errno.ELOOP,
}


@contextmanager
def staged(path: Path, companions: Iterable[str] = ()) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside ``path``; moved to it when the body ends well.

    What else the body leaves in that folder (GDAL's ``.aux.xml`` sidecars) moves along, before the file itself, so
    that whoever sees the file sees all of it. If the body raises, nothing of it is left. ``companions``: suffixes of
    files that belong to such a file: those of an earlier one, which the body did not make again, go.

    Raises
    ------
    StorageError
        The disk is full.
    OutputError
        The folder can't be written to.
    """
    with storage_errors(path):
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield folder / path.name
            stale = [other for other in companions if not (folder / path.with_suffix(other).name).exists()]
            _publish(folder, path)
            for suffix in stale:
                path.with_suffix(suffix).unlink(missing_ok=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for what is only needed while it is made; gone at the end.

    One that a killed process of this machine left is swept first.
    """
    mark = f".{path.name}.{platform.node()}-"
    for left in path.parent.glob(f"{glob.escape(mark)}*"):
        owner = left.name.removeprefix(mark).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    with storage_errors(path):
        folder = Path(tempfile.mkdtemp(prefix=f"{mark}{os.getpid()}-", dir=path.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``, whole or not at all, and safe from a power cut."""
    with staged(path) as temporary:
        temporary.write_bytes(content)


def _publish(folder: Path, path: Path) -> None:
    sidecars = [item for item in folder.iterdir() if item.name != path.name]
    for item in [*sidecars, folder / path.name]:
        with item.open("rb+") as file:
            os.fsync(file.fileno())
        # mkdtemp is private to the user; files in it were made with the user's usual mode
        os.replace(item, path.parent / item.name)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write ``path`` into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"no space left while writing {path}: free some space on its disk and run again; segment goes on "
                "with --resume"
            ) from error
        if error.errno in _DENIED or isinstance(error, FileNotFoundError):
            raise OutputError(
                f"can't write {path}: {error.strerror}; choose an output folder you may write to"
            ) from error
        raise
