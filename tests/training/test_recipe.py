"""Recipes: what can't be meant is refused before anything runs, by the key's name."""

from __future__ import annotations

from typing import Any

import pytest

from rssegment.errors import InputError
from rssegment.training.recipe import Recipe
from tests.training.trainings import a_recipe

YAML = """
name: tiny
taxonomy: demo
bands: [red, green, blue]
resolution: 0.4
sources: [{name: a, images: "*.tif", labels: "{stem}.png"}]
"""


def refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Recipe.loads(YAML + text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("optimizer: {steps: true}", "optimizer.steps"),
        ("optimizer: {rate: yes}", "optimizer.rate"),
        ("optimizer: {class_weights: {house: on}}", "optimizer.class_weights"),
        ("sample: {workers: no}", "sample.workers"),
        ("split: {validation: true}", "split.validation"),
        ("patience: true", "patience"),
        ("seed: false", "seed"),
    ],
)
def test_truth_is_no_number(text: str, place: str) -> None:
    refused(text, f"{place}: true and false .* no value for it")


def test_truth_is_no_name() -> None:
    with pytest.raises(InputError, match=r"sources\.0\.outside: true and false .* names in quotes"):
        Recipe.loads(YAML.replace("name: a,", "name: a, outside: no,"))
    with pytest.raises(InputError, match=r"sources\.0\.mapping: true and false"):
        Recipe.loads(YAML.replace("name: a,", "name: a, mapping: {1: yes},"))


def test_numbers_as_yaml_has_them() -> None:
    recipe = Recipe.loads(
        YAML + "optimizer: {rate: 1e-3, steps: 10_000, clip: 2}\naugment: {flips: no}\nhalf: yes\n"
        "model: {architecture: enet, options: {fancy: true}}\nsample: {workers: null}"
    )
    assert (recipe.optimizer.rate, recipe.optimizer.steps, recipe.optimizer.clip) == (1e-3, 10_000, 2.0)
    assert (recipe.augment.flips, recipe.half, recipe.model.options) == (False, True, {"fancy": True})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patch: 256\noverlap: 129", "overlap: 129 px is more than half the patch of 256 px"),
        ("patch: 128", "overlap: 128 px is more than half"),
        ("patch: 100000", "patch: .*65536"),
        ("name: my model", "name: use a letter, then letters, digits"),
        ("name: my/model", "name: use a letter"),
        ("name: x", "name: use a letter"),
        ("bands: [red, '', blue]", r"bands\.1: "),
        ("bands: [red, ' ']", r"bands\.1: "),
        ("bands: [red, Red]", "bands: one is listed twice"),
    ],
)
def test_what_no_bundle_could_have(text: str, said: str) -> None:
    refused(text, said)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "enet"),
        ("encoder", "resnet18"),
        ("encoder_weights", "a.pth"),
        ("options", {"drop": 0.1}),
    ],
)
def test_nothing_of_a_network_is_said_beside_a_start(key: str, value: Any) -> None:
    refused(f"model: {{start: other, {key}: {value}}}", f"model: start takes .*; leave out {key}")


def test_a_start_has_a_head_of_its_own() -> None:
    recipe = Recipe.loads(YAML + "model: {start: other, head: hierarchical}")
    assert (recipe.model.start, recipe.model.head) == ("other", "hierarchical")
    assert Recipe.loads(YAML + "model: {architecture: enet, start: null}").model.start is None
    empty = Recipe.loads(YAML + "model: {start: other, encoder: null, encoder_weights: null, options: {}}")
    assert Recipe(**empty.model_dump(exclude_unset=True)) == empty


@pytest.mark.parametrize("option", ["bands", "taxonomy", "head", "classes", "in_channels", "name"])
def test_options_that_the_recipe_sets(option: str) -> None:
    refused(f"model: {{options: {{{option}: 3}}}}", f"model: options: {option} is set by .*; leave it out")


@pytest.mark.parametrize("option", ["encoder", "encoder_name"])
def test_one_encoder(option: str) -> None:
    refused(f"model: {{encoder: a, options: {{{option}: b}}}}", f"options: {option} says the same as encoder")
    assert Recipe.loads(YAML + f"model: {{options: {{{option}: b}}}}").model.options == {option: "b"}


def test_a_recipe_survives_its_own_text() -> None:
    recipe = a_recipe(model={"architecture": "enet", "options": {"drop": 0.2}})
    assert Recipe(**recipe.model_dump()) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_everybody_is_credited_once() -> None:
    source = {"images": "*.tif", "labels": "{stem}.tif", "credit": "IGN"}
    sources = [source | {"name": name} for name in "ab"] + [source | {"name": "c", "credit": ""}]
    recipe = a_recipe(sources=sources, model={"credit": "ImageNet; Google"})
    assert recipe.credits() == ("IGN", "ImageNet; Google")
    assert recipe.credits("IGN; somebody") == ("IGN", "ImageNet; Google", "somebody")
    assert a_recipe().credits() == ()
