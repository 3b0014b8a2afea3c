"""Imports point downwards only, and rooms on one floor don't know each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import rssegment

PACKAGE = Path(rssegment.__file__).parent

FLOORS = {
    "errors": 0,
    "lazily": 0,
    "taxonomy": 1,
    "grid": 1,
    "config": 1,
    "geodesy": 1,
    "kernels": 1,
    "leftovers": 1,
    "model": 2,
    "decode": 2,
    "scene": 3,
    "predict": 3,
    "vector": 3,
    "write": 3,
    "reference": 4,
    "run": 5,
    "evaluation": 2,
    "report": 6,
    "training": 6,
    "demo": 6,
    "cli": 7,
}
# The package's face, whose names are imported lazily from below; only what stands above all rooms may use it.
FACE = "rssegment"
FACE_USERS = {"demo", "cli"}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else FACE


def imports(path: Path) -> Iterator[str]:
    """Every rssegment module that the file at ``path`` imports, at whatever depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == FACE:
                yield from (f"{FACE}.{alias.name}" if alias.name in FLOORS else FACE for alias in node.names)
            elif node.module and node.module.split(".")[0] == FACE:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == FACE)


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in FLOORS, f"{room} has no floor yet: give it one here and in CONTRIBUTING.md"
    for module in imports(path):
        target = room_of(module)
        if target == FACE:
            assert room in FACE_USERS, f"{path}: only {FACE_USERS} use the public face"
        elif target != room:
            assert FLOORS[target] < FLOORS[room], f"{path}: {room} may not import {target}"


def test_only_run_imports_dask() -> None:
    for path in FILES:
        room = path.relative_to(PACKAGE).parts[0]
        names = {name for name in ast_names(path) if name.split(".")[0] in {"dask", "distributed"}}
        assert not names or room in {"run", "cli"}, f"{path} imports {names}"


def ast_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_public_name_exists() -> None:
    for name in rssegment.__all__:
        assert getattr(rssegment, name) is not None


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        rssegment.nonsense  # noqa: B018
