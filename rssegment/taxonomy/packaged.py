"""The YAML files that come with the package, by their names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from rssegment.errors import TaxonomyError
from rssegment.taxonomy.yaml_form import decode

__all__ = ["MAPPINGS", "RECIPES", "TAXONOMIES", "Kind", "packaged", "read_yaml"]

_FOLDERS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")  # wheel, checkout


@dataclass(frozen=True)
class Kind:
    """Files of one kind: their ``folder``, what one is called, and the most bytes that one may have.

    A raster given in place of one must not be read into memory.
    """

    folder: str
    name: str
    file: str
    limit: int


TAXONOMIES = Kind("taxonomies", "taxonomy", "taxonomy file (YAML)", 16 * 2**20)
MAPPINGS = Kind("mappings", "mapping", "mapping of classes (YAML)", 4 * 2**20)
RECIPES = Kind("train", "recipe", "recipe of a training (YAML)", 1 * 2**20)


def packaged(kind: Kind) -> dict[str, Path]:
    """The packaged files of a kind, by name."""
    folders = (folder / kind.folder for folder in _FOLDERS)
    folder = next((folder for folder in folders if folder.is_dir()), Path(kind.folder))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_yaml(source: str | Path, kind: Kind) -> tuple[str, str]:
    """The text of the file meant, and its path: a bare word is a packaged name first, then a file; all else a file.

    Raises
    ------
    TaxonomyError
        Nothing has that name, and there is no such file; or it is too large, or no text.
    """
    path = _locate(source, kind)
    try:
        if path.stat().st_size > kind.limit:
            raise TaxonomyError(f"{path}: {path.stat().st_size >> 20} MiB is too large for a {kind.file}")
        data = path.read_bytes()
    except OSError as error:
        raise TaxonomyError(f"can't read the {kind.name} {path}: {error.strerror or error}") from error
    return decode(data, str(path)), str(path)


def _locate(source: str | Path, kind: Kind) -> Path:
    path = Path(source)
    if not (isinstance(source, str) and source == path.name and not path.suffix):
        return path
    known = packaged(kind)
    if source not in known and not path.is_file():
        close = difflib.get_close_matches(source, known, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        names = ", ".join(known) or "none"
        raise TaxonomyError(
            f"no {kind.name} is called {source!r}{hint}; packaged are {names}; or give a YAML file's path"
        )
    return known.get(source, path)
