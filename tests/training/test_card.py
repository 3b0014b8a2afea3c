"""The card says what is so, to people, to hubs and to JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rssegment.evaluation import Confusion, Scores
from rssegment.model import BandSpec, Calibration, ModelSpec
from rssegment.taxonomy import Taxonomy
from rssegment.training.card import ModelCard, Outcome, SourceFacts, hardware, sources_of, versions
from rssegment.training.census import TRAIN, UNUSED, VALIDATION, Census, SceneCensus
from rssegment.training.markdown import area, duration, line, paragraph, table
from rssegment.training.recipe import Recipe, SourceOptions

TREE = Taxonomy.load("landcover")
CODES = {"/".join(node.path): node.code for node in TREE.nodes}
SECRET = "/home/somebody"


def a_recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "cover",
        "title": "Land cover | at 0.4 m",
        "taxonomy": "landcover",
        "bands": ("red", "green", "blue", "nir"),
        "optional_bands": ("nir",),
        "resolution": 0.4,
        "limits": "Only one <summer>.",
        "license": "CC-BY-4.0",
        "sources": (
            SourceOptions(
                name="FLAIR Hérault",
                images=f"{SECRET}/*.tif",
                labels="x",
                credit="IGN - FLAIR #1",
                license="etalab-2.0",
            ),
            SourceOptions(
                name="dubai", images="d/*.jpg", labels="x", credit="Humans in the Loop", role="train"
            ),
        ),
        "model": {"encoder_weights": f"{SECRET}/weights.pth"},
    }
    return Recipe(**(values | changes))


def scores(seed: int = 0, zero: tuple[str, ...] = ()) -> Scores:
    rng = np.random.default_rng(seed)
    leaves = TREE.leaf_codes.astype(np.uint16)
    truth = rng.choice(leaves, (200, 200))
    found = np.where(rng.random(truth.shape) < 0.75, truth, rng.choice(leaves, truth.shape))
    for name in zero:
        node = TREE.node(name).code
        truth[truth == node], found[found == node] = 0, leaves[0]
    return Scores.of(Confusion.of(found.astype(np.uint16), truth.astype(np.uint16), TREE))


OUTCOME = Outcome(
    "smp:Unet",
    9_800_000,
    "encoder weights of a.pth",
    6000,
    5500,
    11_520,
    "CPU",
    {"rssegment": "1", "torch": "2"},
)


def a_card(**changes: Any) -> ModelCard:
    codes = [TREE.node(name).code for name in ("building", "herbaceous", "water")]
    sources = (
        SourceFacts(
            "FLAIR Hérault",
            10,
            ("Z1", "Z2"),
            ("Z1", "Z2"),
            {codes[0]: 1e4, codes[1]: 3e6},
            {codes[0]: 1e4, codes[1]: 4e5},
        ),
        SourceFacts("dubai", 44, ("dubai",), ("dubai",), {codes[2]: 5e5}, {}),
    )
    values: dict[str, Any] = {
        "recipe": a_recipe(),
        "taxonomy": TREE,
        "sources": sources,
        "outcome": OUTCOME,
        "scores": {"": scores(), "Z1": scores(1), "Z2": scores(2)},
        "without": {"": scores(3)},
        "left_out": {"Z1": scores(4), "Z2": scores(5)},
        "remarks": ("a thing was noticed",),
    }
    return ModelCard(**(values | changes))


def front(card: ModelCard) -> dict[str, Any]:
    _, text, _ = card.markdown().split("---\n", 2)
    values: dict[str, Any] = yaml.safe_load(text)
    return values


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    below = page.split(f"{heading}\n", 1)[1]
    found = re.search(r"(?:^\|.*\n?)+", below, re.MULTILINE)
    assert found
    return [[c.strip() for c in re.split(r"(?<!\\)\|", row)[1:-1]] for row in found[0].strip().splitlines()]


def test_the_page_has_its_parts_in_order() -> None:
    page = a_card().markdown()
    heads = re.findall(r"^#+ .*$", page, re.MULTILINE)
    assert heads == [
        "# Land cover | at 0.4 m",
        "## Intended use",
        "## What it does not know",
        "## Scores",
        "### By class",
        "### By region",
        "### Without nir",
        "### In regions it had not seen",
        "## Data",
        "## Training",
        "## Credit",
    ]
    assert page.endswith("\n")
    assert "\n\n\n" not in page


def test_every_table_has_as_many_cells_in_each_row() -> None:
    page = a_card(calibration=calibration()).markdown()
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(tables) >= 9
    for text in tables:
        lines = text.strip().splitlines()
        assert {len(re.findall(r"(?<!\\)\|", each)) for each in lines} == {len(re.findall(r"\|", lines[1]))}
        assert set(lines[1]) <= set("|-: ")
        assert len(lines) > 2


def test_scores_are_those_of_the_evaluation() -> None:
    card = a_card()
    page, whole = card.markdown(), card.scores[""]
    found = rows(page, "## Scores")[2:]
    assert [row[0] for row in found] == [str(level.level) for level in whole.levels]
    assert [row[3] for row in found] == [f"{level.mean_iou:.3f}" for level in whole.levels]
    classes = {row[0].replace("&emsp;", ""): row for row in rows(page, "### By class")[2:]}
    leaf = whole.leaf
    for i in leaf.present:
        row = classes[leaf.classes[i].label]
        assert row[3:] == [f"{leaf.by_class[name][i]:.3f}" for name in ("iou", "f1", "precision", "recall")]
    regions = {row[0]: row for row in rows(page, "### By region")[2:]}
    assert set(regions) == {"Z1", "Z2"}
    assert regions["Z1"][1 + TREE.depth] == f"{card.scores['Z1'].leaf.mean_iou:.3f}"
    [without] = rows(page, "### Without nir")[2:]
    assert without[0] == "all"
    assert without[-1] == f"{whole.leaf.mean_iou:.3f}"
    assert without[1 + TREE.depth] == f"{card.without[''].leaf.mean_iou:.3f}"


def test_areas_add_up_the_tree() -> None:
    page = a_card().markdown()
    found = {
        row[0].replace("&emsp;", ""): row[1:]
        for row in rows(page, "Labelled ground by class, with all below it:")[2:]
    }
    assert found[TREE.node("vegetation").label] == ["3 km² (85.5%)", "0.4 km² (97.6%)"]
    assert found[TREE.node("herbaceous").label] == found[TREE.node("vegetation").label]
    assert found[TREE.node("water").label] == ["0.5 km² (14.2%)", "–"]
    data = {row[0]: row for row in rows(page, "## Data")[2:]}
    assert data["FLAIR Hérault"][1:] == ["10", "3.01 km²", "0.41 km²", "etalab-2.0", "IGN - FLAIR #1"]
    assert data["dubai"][3:5] == ["–", "–"]


def test_it_says_what_it_does_not_know() -> None:
    page = a_card(scores={"": scores(zero=("vineyard",))}).markdown()
    limits = page.split("## What it does not know\n")[1].split("## Scores")[0]
    assert "Only one &lt;summer>." in limits
    assert "3 regions: Z1, Z2, dubai." in limits
    assert TREE.node("vineyard").label in re.findall("No training label of: (.*)\\.", limits)[0]
    assert re.findall("Less than 1% of the training ground each: (.*)\\.", limits) == [
        TREE.node("building").label
    ]
    assert TREE.node("building").label not in re.findall("No validation label of: (.*)\\.", limits)[0]
    assert TREE.node("water").label in re.findall("No validation label of: (.*)\\.", limits)[0]
    assert "- A thing was noticed." in limits


def test_regions_that_were_only_validated_were_not_seen() -> None:
    only = SourceFacts("dubai", 1, ("Elsewhere",), (), {}, {CODES["water"]: 5.0})
    page = a_card(sources=(a_card().sources[0], only)).markdown()
    assert "It has seen 2 regions: Z1, Z2." in page


def test_regions_left_out_are_scored_apart() -> None:
    card = a_card(unseen=("Z2",), left_out={})
    page, facts = card.markdown(), card.facts()
    assert card.of_seen(card.scores)[""].confusion.pixels == card.scores["Z1"].confusion.pixels
    assert "Left out, to see how it does where it was not trained: Z2." in page
    assert "Regions that were left out of the training: what to expect elsewhere." in page
    assert [row[0] for row in rows(page, "### In regions it had not seen")[2:]] == ["Z2"]
    assert "### By region" not in page
    assert (facts["regions_left_out"], set(facts["scores"])) == (["Z2"], {"", "Z1"})
    assert facts["scores_in_regions_left_out"] == {"Z2": a_card().facts()["scores"]["Z2"]}


def test_a_model_that_was_scored_only_where_it_was_not_trained() -> None:
    card = a_card(unseen=("Z1", "Z2"), left_out={}, without={})
    page = card.markdown()
    assert "On validation ground" not in page
    assert [row[0] for row in rows(page, "### In regions it had not seen")[2:]] == ["Z1", "Z2"]
    assert "model-index" not in front(card)
    assert card.facts()["scores"] == {}


def test_the_split_is_told_as_it_came_out() -> None:
    split = "of what was split (20% were asked for)"
    assert f"Validation ground is 12% {split}" in a_card().markdown()
    one, other = a_card().sources
    assert "lie is not known" not in a_card().markdown()
    assert (
        "the pictures of FLAIR Hérault lie is not known"
        in a_card(sources=(replace(one, placed=False), other)).markdown()
    )
    fixed = tuple(options.model_copy(update={"role": "train"}) for options in a_recipe().sources)
    assert split not in a_card(recipe=a_recipe(sources=fixed)).markdown()


def test_the_network_of_a_bundle_that_was_gone_on_from() -> None:
    begun = replace(OUTCOME, network="enet", origin="bundle cover")
    card = a_card(recipe=a_recipe(model={"start": "bundle"}), outcome=begun)
    assert "| Architecture | enet |" in card.markdown()
    assert card.facts()["recipe"]["model"] == {"head": "flat"}
    assert card.facts()["network"] == "enet"


def test_confusions_are_told_largest_first() -> None:
    deciduous, brushwood, water = (TREE.node(name).code for name in ("deciduous", "brushwood", "water"))
    truth = np.array([[deciduous] * 10 + [brushwood] * 10 + [water] * 20], np.uint16)
    found = np.array(
        [[brushwood] * 6 + [deciduous] * 4 + [deciduous] * 3 + [brushwood] * 7 + [water] * 20], np.uint16
    )
    page = a_card(scores={"": Scores.of(Confusion.of(found, truth, TREE))}).markdown()
    names = TREE.node("deciduous").label, TREE.node("brushwood").label
    assert (
        f"Taken for something else: {names[0]} for {names[1]} (60%); {names[1]} for {names[0]} (30%)." in page
    )
    assert f"Weak, with an IoU below 0.4 on validation ground: {names[0]} (0.31)." in page


def test_shorter_trainings_without_a_region_are_told() -> None:
    other = "trained in the same way on all others"
    assert f"{other}: what to expect elsewhere" in a_card().markdown()
    assert "steps_with_regions_left_out" not in a_card().facts()
    short = a_card(left_out_steps=70)
    assert f"{other}, but for 70 instead of {OUTCOME.steps} steps: what to" in short.markdown()
    assert short.facts()["steps_with_regions_left_out"] == 70


def test_those_who_made_what_it_was_begun_from_are_credited() -> None:
    begun = replace(OUTCOME, credit="one; another")
    assert "- one\n- another\n" in a_card(outcome=begun).markdown() + "\n"


def test_without_validation_it_says_so_and_claims_nothing() -> None:
    card = a_card(scores={}, without={}, left_out={})
    page = card.markdown()
    assert "It was never scored: no ground was kept for validation." in page
    assert "## Scores" not in page
    assert "model-index" not in front(card)
    assert card.facts()["scores"] == {}


def test_the_front_matter_is_what_hubs_want() -> None:
    values = front(a_card())
    assert values["license"] == "cc-by-4.0"
    assert values["library_name"] == "rssegment"
    assert values["datasets"] == ["flair-herault", "dubai"]
    assert "landcover" in values["tags"]
    [result] = values["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [
        round(level.mean_iou, 4) for level in a_card().scores[""].levels
    ]


@pytest.mark.parametrize(
    ("license_", "expected"), [("Apache-2.0", ("apache-2.0", None)), ("My own: v1", ("other", "my-own-v1"))]
)
def test_licences_are_those_that_the_hub_knows(license_: str, expected: tuple[str, str | None]) -> None:
    values = front(a_card(recipe=a_recipe(license=license_)))
    assert (values["license"], values.get("license_name")) == expected


def test_the_hub_reads_it() -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(a_card().markdown())
    assert card.data.license == "cc-by-4.0"
    assert card.data.model_name == "cover"
    assert len(card.data.eval_results) == TREE.depth


def test_facts_are_plain_and_fit_a_bundle() -> None:
    card = a_card(scores={"": Scores.of(Confusion.empty(TREE)), "Z1": scores()})
    facts = card.facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["scores"][""]["levels"][0]["mean_iou"] is None
    assert facts["scores"]["Z1"]["iou"].keys() <= set(CODES)
    assert facts["classes"]["water"] == {"train_m2": 500_000, "validation_m2": 0}
    assert facts["sources"][0]["train_m2"] == 3_010_000
    assert facts["recipe"]["optimizer"]["rate"] == a_recipe().optimizer.rate
    spec = ModelSpec(
        name="cover", bands=(BandSpec(name="b"),), channels=(1,), ground_resolution=1.0, training=facts
    )
    assert spec.training == facts


def test_nobodys_disk_is_told_of() -> None:
    card = a_card()
    assert SECRET not in json.dumps(card.facts())
    assert SECRET not in card.markdown()


def calibration() -> Calibration:
    measured = {
        "blocks": 40,
        "spatial_block": "150 m",
        "calibration_error": {"1": {"before": 0.08, "after": 0.02}, "2": {"before": None, "after": None}},
    }
    return Calibration(temperature=1.25, thresholds={"0.10": 0.71}, measured=measured)


def test_a_calibration_is_told() -> None:
    page = a_card(calibration=calibration()).markdown()
    assert "Temperature 1.250, measured on 40 blocks of 150 m; errors on the same blocks." in page
    assert rows(page, "## Calibration")[2:] == [["1", "0.080", "0.020"], ["2", "–", "–"]]
    assert "| 10% | 0.710 |" in page
    many = {f"{share / 100:.2f}": max(0.001, 1.2 - share / 20) for share in range(8, 50)}
    page = a_card(calibration=Calibration(thresholds=many, measured={"blocks_checked": 7})).markdown()
    assert "errors on 7 others." in page
    assert rows(page, "## Calibration")[2:] == [
        ["8%", "0.800"],
        ["10%", "0.700"],
        ["15%", "0.450"],
        ["20%", "0.200"],
        ["25%", "0.001"],
    ]


def test_sources_are_counted_from_the_census() -> None:
    nodes = len(TREE.nodes)

    def scene(source: str, first: int) -> SceneCensus:
        counts = np.zeros((1, 3, nodes + 1), np.uint16)
        counts[0, :, first], counts[0, :, -1] = (10, 20, 40), 7
        return SceneCensus("s", source, (4, 12), 0.5, (True,), counts, np.zeros((1, 3, 4, 1)))

    census = Census(4, TREE.arrays.codes, (scene("FLAIR Hérault", 3), scene("dubai", 0)), "key")
    roles = (np.array([[TRAIN, VALIDATION, UNUSED]], np.uint8), np.array([[TRAIN, TRAIN, UNUSED]], np.uint8))

    class Found:
        def __init__(self, source: str, region: str) -> None:
            self.source, self.region = source, region
            self.geobox = None if source == "dubai" else object()

    scenes: Any = [Found("FLAIR Hérault", "Z1"), Found("dubai", "d")]
    one, other = sources_of(a_recipe(), scenes, census, roles)
    code: Mapping[int, int] = dict(enumerate(TREE.arrays.codes.tolist()))
    assert one == SourceFacts("FLAIR Hérault", 1, ("Z1",), ("Z1",), {code[3]: 2.5}, {code[3]: 5.0})
    assert other == SourceFacts("dubai", 1, ("d",), ("d",), {code[0]: 7.5}, {}, placed=False)


@pytest.mark.parametrize("text", ["# a", "- a", "--- a", "``` a", "1. a", "> a", "| a", "* a", "= a"])
def test_text_begins_no_block(text: str) -> None:
    place = 1 if text[0].isdigit() else 0
    assert paragraph(text) == f"{text[:place]}\\{text[place:]}"


def test_text_stays_in_its_line_and_direction() -> None:
    assert paragraph("3 <b>classes</b>\n-- of\u202e land") == "3 &lt;b>classes&lt;/b> -- of land"
    assert line("\u2066a <https://b.c>") == "a <https://b.c>"
    leaf = TREE.leaves[0]
    assert leaf.label in a_card(scores={"": scores()}).markdown()


def test_words() -> None:
    assert [duration(s) for s in (12, 600, 11_520, 3599)] == ["12 s", "10 min", "3 h 12 min", "1 h 0 min"]
    assert [area(m2) for m2 in (0, 5e4, 1.234e6, 9.96e7, 1.2345e9)] == [
        "–",
        "0.05 km²",
        "1.23 km²",
        "100 km²",
        "1,234 km²",
    ]
    assert (
        table(("a", "b"), [("x|y\nz", 1), ("", "–")])
        == "| a | b |\n| --- | ---: |\n| x\\|y z | 1 |\n|  | – |"
    )


def test_hardware_and_versions_are_named() -> None:
    assert hardware("cpu").startswith("CPU")
    assert {"rssegment", "torch", "python"} <= set(versions())


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    assert a_card().markdown() == a_card().markdown()
