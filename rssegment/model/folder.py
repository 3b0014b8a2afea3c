"""Bundles as folders: finding one, checking its files, and writing so that what is there is whole at any moment."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rssegment.errors import BundleError, OutputError, StorageError
from rssegment.leftovers import abandoned, remove, temporary_prefix
from rssegment.model.files import Asset, assets_from_item

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "CARD",
    "MANIFEST",
    "TAXONOMY",
    "asset_of",
    "bundled_names",
    "calibration_name",
    "changed_alone",
    "check_file",
    "drop_unnamed",
    "is_bundled",
    "is_calibration",
    "locate",
    "manifest_text",
    "put_file",
    "read_manifest",
    "sha256",
    "write_manifest",
    "written_aside",
]

MANIFEST = "model.json"
TAXONOMY = "taxonomy.yaml"
CARD = "README.md"
_FORMER = ".former"  # of a bundle that is being replaced
_BUNDLED = Path(__file__).parents[1] / "bundles"
_CALIBRATION = re.compile(r"calibration(-[0-9a-f]{8})?\.json")
# what a program that was killed can leave in a bundle
_LEFT = re.compile(
    r"calibration-[0-9a-f]{8}\.json|\.(model|calibration-[0-9a-f]{8})\.json\.[0-9a-f]{8}\.part"
)


def bundled_names() -> tuple[str, ...]:
    """Names of the bundles that come with the package."""
    return tuple(sorted(p.parent.name for p in _BUNDLED.glob(f"*/{MANIFEST}")))


def is_bundled(path: Path) -> bool:
    """Whether ``path`` is inside a bundle that comes with the package."""
    return _BUNDLED.resolve() in path.resolve().parents


def locate(source: str | Path) -> Path:
    """The folder meant: a bare word is a name of ours first, then a folder (``./demo`` is always the folder)."""
    path = Path(source)
    bare = source == path.name
    if bare and (_BUNDLED / path / MANIFEST).is_file():
        return _BUNDLED / path
    if path.is_dir():
        return path
    names = ", ".join(bundled_names()) or "none"
    if path.is_file():
        raise BundleError(
            f"{path} is a file; a model is a bundle: a folder with {MANIFEST}, weights and {TAXONOMY} (see save_bundle)"
        )
    if former := _former(path):
        raise BundleError(
            f"no model bundle at {source}: a program was killed while it replaced it. What was there is in {former}; "
            f"rename that folder to {path.name}"
        )
    raise BundleError(
        f"no model bundle at {source}; give a folder, or one of those that come with rssegment: {names}"
    )


def _former(path: Path) -> Path | None:
    """What was at ``path`` before :func:`written_aside` was killed between its two last steps."""
    pattern = f".{glob.escape(path.name)}.*{_FORMER}"
    found = sorted(each for each in path.parent.glob(pattern) if (each / MANIFEST).is_file())
    return found[-1] if found else None


def read_manifest(path: Path) -> Any:
    """The JSON of ``model.json`` in the folder ``path``; raises BundleError if it can't be read."""
    manifest = path / MANIFEST
    try:
        item = json.loads(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} has no {MANIFEST}, so it is no model bundle; make one with save_bundle"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{manifest} can't be read: {error}") from error
    if not isinstance(item, dict):
        raise BundleError(f"{manifest} holds a {type(item).__name__}; expected a STAC item")
    return item


def manifest_text(item: Any) -> str:
    """The text of ``model.json``."""
    return json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_manifest(folder: Path, item: Any) -> None:
    """Writes the ``model.json`` of a new bundle."""
    (folder / MANIFEST).write_text(manifest_text(item), encoding="utf-8")


def check_file(folder: Path, asset: Asset) -> None:
    """Raises BundleError unless the file is there and has its checksum."""
    path = folder / asset.href
    if not path.is_file():
        raise BundleError(f"bundle {folder} lacks its file {asset.href}; copy the whole folder again")
    try:
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}") from error
    if found != asset.sha256:
        raise BundleError(
            f"{path} was changed or damaged: its SHA-256 is {found[:12]}…, and {MANIFEST} says {asset.sha256[:12]}…; "
            "copy it again, or make the bundle anew with save_bundle"
        )


def asset_of(path: Path) -> Asset:
    """A file as its bundle names it."""
    return Asset(path.name, path.stat().st_size, sha256(path))


def sha256(path: Path) -> str:
    """The checksum of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_aside(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place if all goes well, and is removed if not.

    ``overwrite``: what is there is replaced. A link stays, and what it leads to is replaced. What a killed process of
    this machine left on the way to ``target`` is removed.
    """
    target = target.resolve() if target.is_symlink() else target
    folder = target.with_name(f"{temporary_prefix(target)}{secrets.token_hex(4)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        folder.mkdir()
    except OSError as error:
        raise OutputError(
            f"can't write the bundle {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    try:
        yield folder
        # whoever may read the folder may read what is in it: safetensors makes its file private
        mode = folder.stat().st_mode & 0o666
        for item in folder.rglob("*"):
            if item.is_file() and not item.is_symlink():
                item.chmod(mode)
        _move(folder, target, overwrite)
    except OSError as error:
        raise StorageError(f"the bundle {target} could not be written: {_told(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(target: Path) -> None:
    for left in abandoned(target):
        if target.exists() or not left.name.endswith(_FORMER):  # which may be all that there is of the bundle
            remove(left)


def _move(folder: Path, target: Path, overwrite: bool) -> None:
    """Puts ``folder`` at ``target``; what is replaced is moved away first, and back if there is trouble of any kind."""
    former = folder.with_name(folder.name + _FORMER)
    try:
        if overwrite and target.exists():
            target.rename(former)
        folder.rename(target)
    except BaseException:  # also when the user stops the program
        if former.exists() and not target.exists():
            former.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)


def _told(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{where}"


# Changes in place: a new file gets a name of its own, and model.json, which names it, is replaced in one step


def calibration_name(content: bytes) -> str:
    """The name of a calibration's file, by its content: none is ever written over another."""
    return f"calibration-{hashlib.sha256(content).hexdigest()[:8]}.json"


def is_calibration(name: str) -> bool:
    """Whether a file of this name in a bundle may be its calibration."""
    return _CALIBRATION.fullmatch(name) is not None


@contextmanager
def changed_alone(folder: Path) -> Iterator[bool]:
    """Waits until no other program changes the bundle in place; False where the file system can't tell."""
    held = None
    if fcntl is not None:
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY)
    try:
        alone = False
        if held is not None:
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_EX)
                alone = True
        yield alone
    finally:
        if held is not None:
            os.close(held)  # which ends the lock


def put_file(path: Path, content: bytes) -> None:
    """Writes or replaces a file of a bundle in one step; it may be read by those who may read ``model.json``."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    manifest = path.with_name(MANIFEST)
    try:
        with part.open("xb") as file:
            if not manifest.is_symlink():  # of a link it would be the rights of a file elsewhere
                part.chmod(manifest.stat().st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Has names reach the disk in the order in which they were given, where the system can do that."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def drop_unnamed(folder: Path, names: set[str], alone: bool) -> None:
    """Removes calibrations called ``names``, and if ``alone`` what killed programs left, unless ``model.json`` names
    them. What can't be removed stays: it does no harm.
    """
    with suppress(OSError, BundleError):
        kept = {asset.href for asset in assets_from_item(read_manifest(folder)).values()}
        ours = {name for name in names if is_calibration(name)}
        ours |= {path.name for path in folder.iterdir() if _LEFT.fullmatch(path.name)} if alone else set()
        for name in sorted(ours - kept):
            (folder / name).unlink(missing_ok=True)
