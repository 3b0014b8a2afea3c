"""The YAML files that come with the package, by their names."""

from __future__ import annotations

import difflib
from pathlib import Path

from rssegment.errors import TaxonomyError

__all__ = ["locate", "packaged"]

_FOLDERS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")  # wheel, checkout


def packaged(kind: str) -> dict[str, Path]:
    """Files of a kind, "taxonomies" or "mappings", by name."""
    folders = (folder / kind for folder in _FOLDERS)
    folder = next((folder for folder in folders if folder.is_dir()), Path(kind))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def locate(source: str | Path, kind: str, what: str) -> Path:
    """The file meant: a bare word is a packaged name first, then a file; anything else is a file.

    Raises
    ------
    TaxonomyError
        No ``what`` has that name, and there is no such file.
    """
    path = Path(source)
    if not (isinstance(source, str) and source == path.name and not path.suffix):
        return path
    known = packaged(kind)
    if source not in known and not path.is_file():
        close = difflib.get_close_matches(source, known, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        names = ", ".join(known) or "none"
        raise TaxonomyError(
            f"no {what} is called {source!r}{hint}; packaged are {names}; or give a YAML file's path"
        )
    return known.get(source, path)
