"""Where the files are that a recipe names."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rssegment.errors import InputError

__all__ = ["found_at"]

_PACKAGE = "package:"


def found_at(path: str, folders: Sequence[Path]) -> str:
    """``path`` below the first of ``folders`` that has it, "package:name/path" in that package; else as it is."""
    if path.startswith(_PACKAGE):
        return _in_package(path.removeprefix(_PACKAGE))
    places = [Path(path), *(folder / path for folder in folders)]
    return str(next((place for place in places if place.exists()), path))


def _in_package(path: str) -> str:
    """A file of an installed package, which is not imported."""
    name, _, rest = path.partition("/")
    if not name.isidentifier() or not rest:
        raise InputError(
            f"{_PACKAGE}{path} names no file of a package; expected {_PACKAGE}name/path, the name without dots"
        )
    spec = find_spec(name)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    if not folders:
        raise InputError(f"the package {name} is not installed; install it by: pip install {name}")
    return str(Path(folders[0]) / rest)
