"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rssegment.errors import OutputError, RssegmentError, StorageError
from rssegment.leftovers import sweep, temporary_prefix
from rssegment.write.leftovers import check_not_held, remove_strays

__all__ = ["hinted", "scratch", "staged", "storage_errors", "write_bytes"]

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
def staged(
    path: Path,
    companions: Iterable[str] = (),
    *,
    strays: Iterable[str] = (),
    replace: bool = True,
    durable: bool = True,
) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside ``path``; moved to it when the body ends well.

    What else the body leaves in that folder (GDAL's ``.aux.xml`` sidecars) moves along, before the file itself, so
    that whoever sees the file sees all of it. If the body raises, nothing of it is left, and its errors name ``path``.
    ``companions``: suffixes of files that belong to such a file: those of an earlier one, which the body did not make
    again, go. ``strays``: what other programs leave beside such a file, as :func:`remove_strays` takes it: gone
    before the file comes. Without ``replace``, a file that appeared meanwhile stays, and the body's goes.

    What is easily made again need not be ``durable``: such a file is whole after anything but a power cut, and costs
    a rename. It has a path beside ``path`` with the same suffix, and no sidecars.

    Raises
    ------
    StorageError
        The disk is full.
    OutputError
        The folder can't be written to, or another program holds what is to be replaced.
    """
    if not durable:
        with _beside(path, durable=False) as temporary:
            yield temporary
        return
    sweep(path)
    check_not_held(path)  # before the work, and again after it
    with (
        _folder(path) as folder,
        _renamed(folder, lambda text: _moved(text, folder, path)),
        storage_errors(path),
    ):
        yield folder / path.name
        _refuse_existing(path, replace)
        stale = [other for other in companions if not (folder / path.with_suffix(other).name).exists()]
        remove_strays(path, strays)
        _publish(folder, path, replace)
        for suffix in stale:
            path.with_suffix(suffix).unlink(missing_ok=True)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for what is only needed while it is made; gone at the end.

    One that a killed process of this machine left is swept first. Errors of the body name ``path``.
    """
    sweep(path)

    def named(folder: Path, text: str) -> str:
        return re.sub(re.escape(str(folder)) + r"[^\s:;,]*", lambda _: str(path), text)

    with _folder(path) as folder, _renamed(folder, lambda text: named(folder, text)), storage_errors(path):
        yield folder


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content`` to ``path``, whole or not at all, and safe from a power cut."""
    with _beside(path, durable=True) as temporary:
        temporary.write_bytes(content)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the system's refusals to write ``path`` into errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(
                f"no space left while writing {path}: free some space on its disk, then run again"
            ) from error
        if error.errno in _DENIED or isinstance(error, FileNotFoundError):
            raise OutputError(
                f"can't write {path}: {error.strerror}; choose an output folder you may write to"
            ) from error
        raise


@contextmanager
def hinted(hint: str) -> Iterator[None]:
    """Adds ``hint``, what else the caller's user can do, to a StorageError that does not end with it yet."""
    try:
        yield
    except StorageError as error:
        if not str(error).endswith(hint):
            error.args = (f"{error}{hint}",)
        raise


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A new hidden folder beside ``path``; gone at the end."""
    with storage_errors(path):
        # private to the user; files in it are made with the user's usual mode
        folder = Path(tempfile.mkdtemp(prefix=temporary_prefix(path), dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _beside(path: Path, *, durable: bool) -> Iterator[Path]:
    """A hidden path beside ``path``; moved to it when the body ends well."""
    # numpy wants its suffix; a marker that is not there yet must not look like one
    suffix = "" if durable else path.suffix
    temporary = path.parent / f"{temporary_prefix(path)}{os.urandom(4).hex()}{suffix}"
    with _renamed(temporary, lambda text: text.replace(str(temporary), str(path))), storage_errors(path):
        try:
            yield temporary
            if durable:
                _flush(temporary)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _publish(folder: Path, path: Path, replace: bool) -> None:
    # in order of name: of two processes that write the same, the first to get one file gets all
    sidecars = sorted(item for item in folder.iterdir() if item.name != path.name)
    items = [*sidecars, folder / path.name]
    for item in items:
        _flush(item)
    done: list[Path] = []
    try:
        for item in items:
            target = path.parent / item.name
            if replace:
                os.replace(item, target)
            else:
                _move_new(item, target)
                done.append(target)
    except BaseException:
        for target in done:  # a part of ours beside the file of another
            target.unlink(missing_ok=True)
        raise


def _move_new(source: Path, target: Path) -> None:
    """Moves a file to a name that nobody has taken.

    Raises
    ------
    OutputError
        Somebody has.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise _appeared(target) from None
    except (OSError, NotImplementedError):  # a file system without links
        _refuse_existing(target, replace=False)
        os.replace(source, target)


def _refuse_existing(path: Path, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise _appeared(path)


def _appeared(path: Path) -> OutputError:
    return OutputError(
        f"{path} appeared meanwhile: another program wrote it while this one was at work; "
        "use --overwrite to replace it, or choose another name"
    )


@contextmanager
def _renamed(place: Path, plain: Callable[[str], str]) -> Iterator[None]:
    """Has errors speak of what the user asked for, where they speak of the hidden ``place``."""
    try:
        yield
    except RssegmentError as error:
        if str(place) in str(error):
            error.args = tuple(plain(each) if isinstance(each, str) else each for each in error.args)
        raise


def _moved(text: str, folder: Path, path: Path) -> str:
    """The text with paths in ``folder`` where its files go."""
    text = text.replace(str(folder / path.name), str(path))
    beside = "" if path.parent == Path() else f"{path.parent}{os.sep}"
    return text.replace(f"{folder}{os.sep}", beside).replace(str(folder), str(path.parent))
