"""What the README says of recipes is true: its examples open real files, its table lists all keys and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from rssegment.training.recipe import Part, Recipe, SourceKind, SourceOptions
from rssegment.training.sources import open_sources
from tests.training.folders import TREE, WEST, geojson, noise, palette, picture, raster

README = Path(__file__).parents[2] / "README.md"
EMPTY: tuple[Any, ...] = (None, "", (), {})


@pytest.fixture(scope="module")
def section() -> str:
    (found,) = re.findall(r"^## Training\n(.*?)^## ", README.read_text(encoding="utf-8"), re.M | re.S)
    return found


@pytest.fixture(scope="module")
def examples(section: str) -> list[dict[str, Any]]:
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", section, re.S)]


def tables(section: str) -> dict[str, str]:
    """Keys by what they are under."""
    return dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", section, re.M))


def parts() -> Iterator[tuple[str, type[Part]]]:
    yield "(top)", Recipe
    yield "`sources`, each", SourceOptions
    for name, field in Recipe.model_fields.items():
        if isinstance(field.default, Part):
            yield f"`{name}`", type(field.default)


def test_the_table_has_all_sections(section: str) -> None:
    assert set(tables(section)) == {"under"} | {name for name, _ in parts()}


@pytest.mark.parametrize(("name", "part"), list(parts()), ids=str)
def test_the_table_has_all_keys_and_defaults(section: str, name: str, part: type[Part]) -> None:
    cell = tables(section)[name]
    told: dict[str, Any] = {}
    for text in re.findall(r"`([^`]+)`", cell):
        value = yaml.safe_load(text)
        told |= value if isinstance(value, dict) else {value: None}
    fields = {n: f for n, f in part.model_fields.items() if not isinstance(f.default, Part)}
    assert list(told) == list(fields)
    assert set(re.findall(r"\*\*`(\w+)`\*\*", cell)) == {n for n, f in fields.items() if f.is_required()}
    defaults = {n: f.get_default(call_default_factory=True) for n, f in fields.items() if not f.is_required()}
    assert {n: told[n] for n in defaults} == {n: None if d in EMPTY else d for n, d in defaults.items()}


def test_all_kinds_are_named(section: str) -> None:
    assert all(f"`{kind}`" in section for kind in get_args(SourceKind))


def test_all_examples_are_recipes(examples: list[dict[str, Any]]) -> None:
    least, *others = examples
    recipes = [Recipe.loads(yaml.safe_dump(least | more)) for more in ({}, *others)]
    assert len(recipes) == 4
    assert [source.kind for source in recipes[1].sources] == ["polygons", "rasters", "rasters"]
    assert recipes[2].model.start is not None
    assert recipes[3].model.encoder_weights is not None


def files_of(root: Path) -> None:
    """What the README's sources name."""
    codes = noise((20, 20), 1) % 3 + 1
    for name in ("west/a", "west/b"):
        raster(root / f"{name}.tif", noise((4, 20, 20)))
        raster(root / f"{name}_labels.tif", codes)
    for name in ("east/a", "south/deep/er/b"):
        raster(root / f"{name}.tif", noise((4, 40, 60)))
    geojson(root / "land_use.geojson", [(WEST, {"use": "house"})])
    picture(root / "city" / "one" / "images" / "a.jpg", noise((20, 20, 3)))
    picture(root / "city" / "one" / "masks" / "a.png", np.full((20, 20, 3), (0x3C, 0x10, 0x98)))
    picture(root / "tiles" / "a.jpg", noise((20, 20, 3)))
    picture(root / "tiles" / "b.jpg", noise((20, 20, 3)))
    picture(root / "masks" / "a.png", codes)
    palette(root / "masks" / "b.png", codes, {1: (255, 0, 0), 2: (0, 255, 0)})


def test_the_sources_open(examples: list[dict[str, Any]], tmp_path: Path) -> None:
    files_of(tmp_path)
    least, more = examples[:2]
    sources = {"sources": least["sources"] + more["sources"]}
    recipe = Recipe.loads(yaml.safe_dump(least | sources | {"resolution": 10.0}))
    scenes = open_sources(recipe, tmp_path, taxonomy=TREE)
    assert [scene.name for scene in scenes] == [
        "west/a.tif",
        "west/b.tif",
        "east/a.tif",
        "south/deep/er/b.tif",
        "city/one/images/a.jpg",
        "tiles/a.jpg",
        "tiles/b.jpg",
    ]
