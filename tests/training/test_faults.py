"""What is wrong with a recipe is told by the key, what it says and what was expected, never in a library's words."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rssegment.errors import InputError
from rssegment.training.recipe import Recipe

LEAST: dict[str, Any] = {
    "name": "tiny",
    "taxonomy": "demo",
    "bands": ["red", "green", "blue"],
    "resolution": 0.4,
    "sources": [{"name": "a", "images": "*.tif", "labels": "{stem}.png"}],
}
SECTIONS = ("split", "sample", "augment", "model", "optimizer")


def said(changes: dict[Any, Any], source: dict[str, Any] | None = None) -> str:
    """What is said of the least recipe with changes."""
    sources = [LEAST["sources"][0] | (source or {})]
    with pytest.raises(InputError) as caught:
        Recipe.loads(yaml.safe_dump(LEAST | {"sources": sources} | changes), "r.yaml")
    return str(caught.value).removeprefix("bad recipe r.yaml: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"setps": 3}}, "there is no 'setps' in optimizer; did you mean steps?"),
        ({"start": "a"}, "there is no 'start' at the top of a recipe: start belongs under model"),
        (
            {"optimizer": {"patch": 3}},
            "there is no 'patch' in optimizer: patch belongs at the top of the recipe or under sample",
        ),
        ({"step": 3}, "there is no 'step' at the top of a recipe; did you mean steps under optimizer?"),
        (
            {"split": {"seeed": 1}},
            "there is no 'seeed' in split; did you mean seed at the top of the recipe?",
        ),
        ({"split": {"xyzzy": 1}}, "there is no 'xyzzy' in split; it has validation, block, gap"),
        ({7: 1}, "there is no '7' at the top of a recipe; it has name, taxonomy, bands, "),
    ],
)
def test_keys_that_there_are_not(changes: dict[Any, Any], words: str) -> None:
    assert said(changes).startswith(words)


def test_keys_that_a_source_has_not() -> None:
    assert said({}, {"imagess": "x"}) == "there is no 'imagess' in sources.0; did you mean images?"
    assert said({}, {"steps": 1}) == "there is no 'steps' in sources.0: steps belongs under optimizer"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"steps": "many"}}, "optimizer.steps: expected a whole number, got 'many'"),
        ({"optimizer": {"steps": 2.5}}, "optimizer.steps: expected a whole number, got 2.5"),
        ({"optimizer": {"steps": 0}}, "optimizer.steps: expected at least 1, got 0"),
        ({"optimizer": {"clip": 0}}, "optimizer.clip: expected more than 0, got 0"),
        ({"split": {"validation": 2}}, "split.validation: expected at most 1, got 2"),
        ({"split": {"validation": float("nan")}}, "split.validation: expected a finite number, got nan"),
        ({"seed": 2**31}, "seed: expected less than 2147483648, got 2147483648"),
        ({"sample": {"workers": "x"}}, "sample.workers: expected a whole number, got 'x'"),
        ({"augment": {"flips": 7}}, "augment.flips: expected true or false, got 7"),
        ({"model": {"head": "flta"}}, "model.head: expected one of flat, hierarchical, got 'flta'; did you mean flat?"),
        ({"title": 3}, "title: expected text, got 3; put it in quotes"),
        ({"name": None}, "name: expected text, got nothing"),
        ({"bands": "red"}, "bands: expected a list of texts, got 'red'; write [red]"),
        ({"bands": []}, "bands: expected at least one, got none"),
        ({"bands": ["red", ""]}, "bands.1: expected text that is not empty, got ''"),
        ({"optimizer": None}, "optimizer: expected keys (steps, rate, "),
        ({"model": {"options": [1]}}, "model.options: expected pairs, from texts, got [1]"),
        ({"optimizer": {"class_weights": {"house": -1}}}, "optimizer.class_weights.house: expected at least 0, got -1"),
        ({"sources": {"name": "a"}}, "sources: expected a list, each entry with keys (name, kind, "),
    ],
)  # fmt: skip
def test_values_that_are_none(changes: dict[str, Any], words: str) -> None:
    assert said(changes).startswith(words)


def test_what_may_be_of_several_types_is_told_once() -> None:
    assert (
        said({}, {"images": ["a", 3]}) == "sources.0.images: expected text or a list of texts, got ['a', 3]"
    )
    assert said({}, {"mapping": {1: ["a"]}}) == (
        "sources.0.mapping: expected text or pairs, from whole numbers or texts to whole numbers or texts, "
        "got {1: ['a']}"
    )


def test_what_is_missing() -> None:
    with pytest.raises(InputError, match=r"resolution is missing; expected a number$"):
        Recipe.loads(yaml.safe_dump({key: LEAST[key] for key in LEAST if key != "resolution"}))


def test_all_faults_are_told() -> None:
    assert said({"seed": -1, "half": "maybe"}).count("; ") == 1


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    plain, lambda v: st.lists(v, max_size=2) | st.dictionaries(plain, v, max_size=2), max_leaves=4
)
keys = st.sampled_from([*LEAST, "patch", "half", "seed", *SECTIONS]) | st.text(max_size=5)
inner = st.dictionaries(
    st.sampled_from(["steps", "rate", "options", "class_weights", "patch", "images", "mapping"]), values, max_size=2
)  # fmt: skip


@given(st.dictionaries(keys, values | inner | st.lists(inner, max_size=2), max_size=3))
def test_nothing_else_than_a_recipe_or_words_for_it(changes: dict[Any, Any]) -> None:
    text = yaml.safe_dump(LEAST | changes, allow_unicode=True)
    told = ""
    try:
        Recipe.loads(text)
    except InputError as error:
        told = str(error)
    assert "Input should" not in told
    assert "pydantic" not in told
