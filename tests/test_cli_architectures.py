"""``rssegment inspect`` of architectures: one by name, and the list of all."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from rssegment.cli.app import app
from rssegment.cli.main import main  # noqa: F401 (which brings all verbs)
from rssegment.errors import InputError
from rssegment.model import architecture_facts, architecture_names


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["inspect", *arguments], catch_exceptions=True)


def test_one_by_name() -> None:
    for name in ("enet", "smp:Unet"):
        facts = json.loads(run(name, "--json").stdout)
        assert facts == {"kind": "architecture"} | json.loads(json.dumps(architecture_facts(name).describe()))
    assert "receptive_field: 563" in run("smp:Unet").stdout


def test_all() -> None:
    result = run("--architectures", "--json")
    found = json.loads(result.stdout)["architectures"]
    assert [each["name"] for each in found] == list(architecture_names())
    assert all(each["parameters"] > 0 and each["gigaflops_per_megapixel"] > 0 for each in found)
    # how near is a question of the catalogue; here, that a figure and the paper stand beside
    assert all(each["paper"] for each in found)
    assert sum(each["published"] is not None for each in found) > 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to inspect"),
        (["unet", "--architectures"], "for one alone: rssegment inspect unet"),
        (["unett"], "for names of architectures: rssegment inspect --architectures"),
        (["unet", "--model", "demo"], "goes with a scene, and unet isn't one"),
    ],
)
def test_what_is_refused(arguments: list[str], said: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert said in str(error)
