"""Bundles as folders: finding one, checking its files, and writing a new one that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rssegment.errors import BundleError, OutputError, StorageError
from rssegment.model.files import Asset

__all__ = [
    "CALIBRATION",
    "MANIFEST",
    "TAXONOMY",
    "asset_of",
    "bundled_names",
    "check_file",
    "is_bundled",
    "locate",
    "read_manifest",
    "sha256",
    "write_manifest",
    "written_aside",
]

MANIFEST = "model.json"
TAXONOMY = "taxonomy.yaml"
CALIBRATION = "calibration.json"
_BUNDLED = Path(__file__).parents[1] / "bundles"


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
    raise BundleError(
        f"no model bundle at {source}; give a folder, or one of those that come with rssegment: {names}"
    )


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


def write_manifest(folder: Path, item: Any) -> None:
    """Writes ``model.json``."""
    text = json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


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
def written_aside(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place if all goes well, and is removed if not."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise OutputError(
            f"can't write the bundle {target}: {error.strerror or error}; choose a folder you may write to"
        ) from error
    try:
        yield folder
        # whoever may read the folder may read what is in it: safetensors makes its file private
        for item in (folder, *folder.rglob("*")):
            if item.is_dir():
                item.chmod(0o777 & ~_umask())
            elif item.stat().st_nlink == 1:  # else it is another bundle's file too, with its own rights
                item.chmod(0o666 & ~_umask())
        _swap(folder, target)
    except OSError as error:
        raise StorageError(f"the bundle {target} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, target: Path) -> None:
    """Puts ``folder`` at ``target``; what was there before is moved away first and then removed."""
    if not target.exists():
        folder.rename(target)
        return
    former = folder.with_name(folder.name + ".former")
    target.rename(former)
    try:
        folder.rename(target)
    except OSError:
        former.rename(target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
