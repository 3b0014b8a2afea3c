"""The page of an evaluation: whole by itself, the same every time, and without what there is no evidence of."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from rssegment.evaluation.areas import MapAreas
from rssegment.evaluation.backoff import BackoffCounts
from rssegment.evaluation.boundaries import BoundaryCounts
from rssegment.evaluation.coherence import Coherence
from rssegment.evaluation.confusion import Confusion
from rssegment.evaluation.evidence import Evidence
from rssegment.evaluation.html import html
from rssegment.evaluation.objects import match
from rssegment.evaluation.reliability import Reliability
from rssegment.evaluation.report import Scores
from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy

VOID = {"meta", "link", "br", "img", "input", "hr"}
SECTIONS = [
    "overview",
    "level-1",
    "level-2",
    "hierarchy",
    "calibration",
    "backoff",
    "objects",
    "areas",
    "glossary",
]

TREE = Taxonomy.loads(
    """
name: ground
classes:
- {code: 10, name: built, color: "#E0483E", classes: [
    {code: 1, name: "roof <b> & \\"co\\"", color: "#DB0E9A"}, {code: 2, name: road, color: "#938E7B"}]}
- {code: 20, name: green, color: "#58B548", classes: [
    {code: 3, name: tree, color: "#194A26"}, {code: 4, name: grass, color: "#55FF00"}]}
- {code: 30, name: water, color: "#2A7FC9"}
"""
)


class Page(HTMLParser):
    """What a reader gets: text by section, ids, links; raises where tags don't close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text: dict[str, list[str]] = {"": []}
        self.open: list[str] = []
        self.section = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        if values.get("id"):
            self.ids[str(values["id"])] += 1
        if tag == "section":
            self.section = str(values["id"])
            self.text[self.section] = []
        self.links += [str(values[key]) for key in ("href", "xlink:href", "src", "action") if key in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"} and data.strip():
            self.text[self.section].append(data.strip())


def labels(seed: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    return np.kron(rng.choice(TREE.leaf_codes, (8, 8)), np.ones((5, 5), np.uint16)).astype(np.uint16)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    reference = labels(1)
    prediction = np.where(np.random.default_rng(2).random(reference.shape) < 0.3, labels(3), reference)
    rng = np.random.default_rng(4)
    confidence = rng.random(1000)
    counts = BackoffCounts.empty(TREE)
    counts.counts[2, 2, 1, :60] = counts.counts[2, 1, 1, 60:] = 90
    counts.counts[2, 2, 0] = 10
    boundaries = {}
    for level in (1, 2):
        lookup, classes = TREE.ancestor_lookup(level), [node.code for node in TREE.level(level)]
        core = Box.of(reference.shape)
        boundaries[level] = BoundaryCounts.of(
            lookup[prediction], lookup[reference], core, (0.5, 0.5), 1.5, level=level, classes=classes
        )
    squares = shapely.box([0, 20, 40], 0, [10, 30, 50], 10)
    bow = shapely.Polygon([(0, 20), (9, 29), (9, 20), (0, 29)])
    objects = match((squares[:2], [1, 1]), ([*squares, bow], [1, 1, 1, 4]), classes=[1, 4], scene="<north>")
    return Evidence(
        Confusion.of(prediction, reference, TREE),
        {level: Reliability.of(confidence, rng.random(1000) < confidence) for level in (0, 1, 2)},
        counts,
        boundaries,
        objects,
        Coherence(1600, 8),
        MapAreas.of(prediction, TREE, 0.25),
        ("<north>", "south"),
    )


@pytest.fixture(scope="module")
def text(evidence: Evidence) -> str:
    facts = {"Map": "out/<map>.tif", "References": ["a & b.tif", "c.gpkg"], "Tolerance": 1.5}
    return html(Scores(evidence), "Title <script>alert(1)</script>", facts)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_is_whole_by_itself(text: str, page: Page) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert {"link", "img", "iframe", "object", "form"}.isdisjoint(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= page.ids.keys()
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= page.ids.keys()
    assert "@import" not in text
    assert page.tags["script"] == 1


def test_ids_are_unique(page: Page) -> None:
    assert [name for name, times in page.ids.items() if times > 1] == []


def test_names_and_facts_are_text(text: str, page: Page) -> None:
    assert "Title <script>alert(1)</script>" in page.text[""]
    assert {"out/<map>.tif", "a & b.tif", "c.gpkg", "1.5", "<north>", "south"} <= set(page.text[""])
    assert 'roof <b> & "co"' in page.text["level-2"]
    assert "alert(1)</script>" not in text
    assert page.tags["b"] == 0


def test_every_section_is_there_with_its_pictures(page: Page) -> None:
    assert [name for name in page.text if name] == SECTIONS
    assert page.tags["svg"] == page.tags["figure"] == 2 * 2 + 2


def test_figures_are_those_of_the_scores(evidence: Evidence, page: Page) -> None:
    scores = Scores(evidence)
    for level in scores.levels:
        shown = set(page.text[f"level-{level.level}"])
        assert {f"{value:.3f}" for value in level.by_class["iou"] if not np.isnan(value)} <= shown
        edges = scores.boundaries[level.level]
        assert {f"{value:.3f}" for value in edges.f1 if not np.isnan(value)} <= shown
        assert {f"{value:.3f}" for value in level.overall.values()} - set(page.text["overview"]) <= {
            f"{level.overall['mean_accuracy']:.3f}"
        }
    assert {"0.005", "Coherence was checked in 1,600 pixels."} <= set(page.text["hierarchy"])
    assert f"{scores.reliability[2].ece:.3f}" in page.text["calibration"]
    assert {"0.900", "0.100"} & set(page.text["backoff"])
    assert {"0.667", "–", "<north>: 1 of 4 polygons of the reference was invalid and made valid"} <= set(
        page.text["objects"]
    )
    assert any("400 m²" in line for line in page.text["areas"])
    assert "Boundaries of level 1, 2: tolerance 1.5 m." in page.text["overview"]


def test_every_column_is_explained(text: str, page: Page) -> None:
    explained = set(page.text["glossary"])
    heads = re.findall(r'<th scope="col" title="[^"]+">([^<]+)</th>', text)
    assert len(set(heads)) > 20
    assert {head.replace("&#39;", "'") for head in heads} <= explained


def test_the_same_scores_give_the_same_page(evidence: Evidence, text: str) -> None:
    facts = {"Map": "out/<map>.tif", "References": ["a & b.tif", "c.gpkg"], "Tolerance": 1.5}
    assert html(Scores(evidence), "Title <script>alert(1)</script>", facts) == text


def test_without_evidence_no_section() -> None:
    flat = Taxonomy.flat("flat", {1: ("field", (1, 2, 3)), 2: ("forest", (4, 5, 6))})
    page = Page(html(Scores.of(Confusion.of(np.array([1, 2, 2]), np.array([1, 2, 1]), flat)), "Small"))
    assert [name for name in page.text if name] == ["overview", "level-1", "glossary"]
    assert not any("Boundary" in line for line in page.text["overview"])


def test_nothing_compared() -> None:
    page = Page(html(Scores.of(Confusion.empty(TREE)), "Nothing"))
    assert any("No pixels to score" in line for line in page.text["level-1"])
    assert page.tags["svg"] == 0
    assert "nan" not in " ".join(line for lines in page.text.values() for line in lines).lower()


def test_a_level_like_another_is_only_named() -> None:
    tree = Taxonomy.loads(
        'name: t\nclasses:\n- {code: 1, name: a, color: "#000000"}\n'
        '- {code: 2, name: b, color: "#000000", classes: [{code: 3, name: c, color: "#000000"}]}\n'
    )
    page = Page(html(Scores.of(Confusion.of(np.array([1, 1]), np.array([1, 1]), tree)), "Twins"))
    assert page.text["level-2"] == ["Level 2", "As level 1."]


def test_a_reference_of_several_depths_has_its_own_section() -> None:
    reference = np.array([10, 3, 3, 4, 30])
    page = Page(html(Scores.of(Confusion.of(np.array([1, 3, 4, 4, 30]), reference, TREE)), "Mixed"))
    assert "common" in page.text
    assert "built" in page.text["common"]
