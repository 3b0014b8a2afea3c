"""An evaluation as one page: tables of all levels, pictures, and a sentence on each figure.

The page asks for nothing else (styles, script and pictures are in it), and the same scores give the same page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined

from rssegment.evaluation.drawing import INK, as_svg
from rssegment.evaluation.plots import backoff_plot, class_plot, confusion_plot, reliability_plot
from rssegment.evaluation.report import LevelScores, Scores
from rssegment.evaluation.table import compact
from rssegment.evaluation.terms import CAPTIONS, TERMS, Term
from rssegment.taxonomy import Node

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["html"]

Fact = str | int | float | Sequence[str]
_TAUS = (0, 50, 60, 70, 80, 90, 95, 99)  # rows of the back-off table, in hundredths
_UNITS = {"m²": 1.0, "ha": 1e4, "km²": 1e6}


@dataclass(frozen=True)
class _Cell:
    """Text of a cell; ``value`` sorts it, and is told in full where the text is short."""

    text: str
    value: float = math.nan
    full: str = ""


@dataclass(frozen=True)
class _Row:
    name: str
    cells: list[_Cell]
    above: str = ""  # of a path, what leads to the name
    color: str = ""


@dataclass(frozen=True)
class _Table:
    first: str
    terms: list[Term]
    rows: list[_Row]


@dataclass(frozen=True)
class _Picture:
    svg: str
    caption: str


@dataclass(frozen=True)
class _Section:
    key: str
    title: str
    text: str = ""
    tables: list[_Table] = field(default_factory=list)
    pictures: list[_Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def html(scores: Scores, title: str, facts: Mapping[str, Fact] | None = None) -> str:
    """The page. ``facts`` say what was compared: paths, tolerance, ignored codes, a date; a list is shown as one.

    Sections without evidence are left out.
    """
    sections = [*_sections(scores)]
    used = dict.fromkeys(term for section in sections for table in section.tables for term in table.terms)
    template = resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        title=title,
        facts=[(name, _listed(value)) for name, value in (_own_facts(scores) | dict(facts or {})).items()],
        tiles=[*_tiles(scores)],
        sections=sections,
        glossary=sorted(used, key=lambda term: term.head.lower()),
    )


def _listed(value: Fact) -> list[str]:
    return [str(value)] if isinstance(value, str | int | float) else [str(part) for part in value]


def _own_facts(scores: Scores) -> dict[str, Fact]:
    taxonomy, scenes = scores.taxonomy, scores.evidence.scenes
    described = (
        f"{taxonomy.title or taxonomy.name}: {len(taxonomy.leaves)} classes in {taxonomy.depth} levels"
    )
    facts: dict[str, Fact] = {"Taxonomy": described, "Pixels compared": f"{scores.confusion.pixels:,}"}
    return facts | ({"Scenes": scenes} if scenes else {})


def _tiles(scores: Scores) -> Iterator[tuple[str, str, str]]:
    """Value, name and definition of the figures that are read first."""
    leaf = scores.leaf
    yield _number(leaf.mean_iou).text, "mIoU of the finest level", TERMS["mean_iou"].definition
    if not scores.levels[0].same_as(leaf):
        yield _number(scores.levels[0].mean_iou).text, "mIoU of level 1", TERMS["mean_iou"].definition
    yield _number(leaf.pixel_accuracy).text, "accuracy, finest level", TERMS["pixel_accuracy"].definition
    if scores.stratified:
        yield (
            _interval(*scores.accuracy).text,
            "area-adjusted accuracy",
            TERMS["adjusted_accuracy"].definition,
        )
    if found := scores.reliability.get(0):
        yield _number(found.ece).text, "ECE", TERMS["ece"].definition
    if edges := scores.boundaries.get(leaf.level):
        yield (
            _number(edges.mean_f1).text,
            f"mean Boundary F1, {edges.tolerance:g} m",
            TERMS["boundary_f1"].definition,
        )
    if scores.objects and (scores.objects.total.true or scores.objects.total.predicted):
        yield _number(scores.objects.total.f1).text, "F1 of polygons", TERMS["objects_f1"].definition


def _sections(scores: Scores) -> Iterator[_Section]:
    yield _overview(scores)
    shown: list[LevelScores] = []
    for level in scores.levels:
        same = next((other for other in shown if level.same_as(other)), None)
        if same:
            yield _Section(f"level-{level.level}", f"Level {level.level}", f"As level {same.level}.")
        else:
            shown.append(level)
            yield _level(scores, level, f"Level {level.level}")
    if not any(scores.common.same_as(level) for level in shown):
        text = "The deepest classes that the reference tells apart, whatever their level."
        yield _level(scores, scores.common, "Common classes", text)
    for part in (_hierarchy, _calibration, _backoff, _objects, _areas):
        yield from part(scores)


def _overview(scores: Scores) -> _Section:
    names = [name for name in scores.leaf.overall if name != "mean_accuracy"]
    terms = [TERMS["pixels"], *(TERMS[name] for name in names)]
    terms += [TERMS["boundary_iou"], TERMS["boundary_f1"]] if scores.boundaries else []
    rows = []
    for level in scores.levels:
        cells = [_count(level.pixels), *(_number(level.overall[name]) for name in names)]
        if scores.boundaries:
            found = scores.boundaries.get(level.level)
            cells += [
                _number(value) for value in ((found.mean_iou, found.mean_f1) if found else (math.nan,) * 2)
            ]
        rows.append(_Row(f"level {level.level}", cells))
    text = (
        "All levels side by side, level 1 being the coarsest. Every figure is taken from sums over all pixels of all "
        "scenes, never averaged over blocks or scenes. What is not defined is shown as –."
    )
    tolerances: dict[float, list[str]] = {}
    for number, edges in scores.boundaries.items():
        tolerances.setdefault(edges.tolerance, []).append(str(number))
    notes = [
        f"Boundaries of level {', '.join(of)}: tolerance {metres:g} m." for metres, of in tolerances.items()
    ]
    return _Section("overview", "Overview", text, [_Table("level", terms, rows)], notes=notes)


def _level(scores: Scores, level: LevelScores, title: str, text: str = "") -> _Section:
    key = f"level-{level.level}" if level.level else "common"
    if not level.pixels:
        return _Section(key, title, "No pixels to score: the reference has no class of this level or deeper.")
    edges = scores.boundaries.get(level.level) if level.level else None
    terms = [TERMS[name] for name in ("true", "predicted", *level.by_class)]
    by_code: dict[int, list[_Cell]] = {}
    if edges:
        terms += [TERMS["boundary_iou"], TERMS["boundary_f1"]]
        values = zip(edges.classes, edges.iou.tolist(), edges.f1.tolist(), strict=True)
        by_code = {code: [_number(iou), _number(f1)] for code, iou, f1 in values}
    areas = list(level.areas())
    rows = []
    for i in level.present:
        node, true, predicted = areas[i]
        cells = [_count(true), _count(predicted), *(_number(by[i]) for by in level.by_class.values())]
        rows.append(_class_row(node, cells + (by_code.get(node.code, [_Cell("–")] * 2) if edges else [])))
    notes = []
    if absent := len(level.classes) - len(level.present):
        notes.append(
            f"{absent} of {len(level.classes)} classes are not shown: neither map nor reference has them."
        )
    if coarser := level.counts.coarser:
        notes.append(
            f"{coarser:,} pixels are not scored here: their reference is coarser than these classes."
        )
    bars = "IoU by class" + (f"; diamonds: Boundary IoU at {edges.tolerance:g} m." if edges else ".")
    pictures = [
        _picture(class_plot(level.counts, edges), f"{key}-bars", bars),
        _picture(confusion_plot(level.counts), f"{key}-matrix", CAPTIONS["matrix"]),
    ]
    return _Section(key, title, text, [_Table("class", terms, rows)], pictures, notes)


def _hierarchy(scores: Scores) -> Iterator[_Section]:
    values = {name: value for name, value in scores.hierarchy.items() if not math.isnan(value)}
    if scores.taxonomy.depth == 1 or not values:
        return
    rows = [
        _Row(TERMS[name].head, [_number(value), _Cell(TERMS[name].definition)])
        for name, value in values.items()
    ]
    text = (
        "Scores that know the class tree: a wrong class under the right parent is a lesser mistake. Where the "
        "reference is coarse, a deeper prediction under it is right."
    )
    heads = [Term("value", ""), Term("what it is", "")]
    coherence = scores.evidence.coherence
    notes = [f"Coherence was checked in {coherence.pixels:,} pixels."] if coherence else []
    yield _Section("hierarchy", "Hierarchy", text, [_Table("score", heads, rows)], notes=notes)


def _calibration(scores: Scores) -> Iterator[_Section]:
    rows = []
    for level, found in sorted(scores.reliability.items()):
        if found.total:
            right = float(found.right.sum() / found.total)
            values = (right + found.overconfidence, right, found.ece, found.mce, found.overconfidence)
            name = f"level {level}" if level else "predicted class"
            rows.append(_Row(name, [_count(found.total), *map(_number, values)]))
    if rows:
        terms = [Term("pixels", "Pixels that have a prediction, its confidence and a reference.")]
        terms += [TERMS[name] for name in ("confidence", "correct", "ece", "mce", "overconfidence")]
        picture = _picture(reliability_plot(scores.reliability), "reliability", CAPTIONS["reliability"])
        text = "Whether confidences are true: of the pixels called with 80 %, 80 % should be right."
        yield _Section("calibration", "Calibration", text, [_Table("", terms, rows)], [picture])


def _backoff(scores: Scores) -> Iterator[_Section]:
    curve = scores.curve
    if curve is None or not scores.evidence.backoff or not scores.evidence.backoff.pixels:
        return
    names = ("correct", "specificity", "decided")
    rows = [_Row(f"{curve.tau[i]:.2f}", [_number(getattr(curve, name)[i]) for name in names]) for i in _TAUS]
    text = "What the map gains by answering more coarsely where it is not sure. " + TERMS["tau"].definition
    table = _Table(TERMS["tau"].head, [TERMS[name] for name in names], rows)
    yield _Section(
        "backoff", "Back-off", text, [table], [_picture(backoff_plot(curve), "backoff", CAPTIONS["backoff"])]
    )


def _objects(scores: Scores) -> Iterator[_Section]:
    objects = scores.objects
    if objects is None:
        return
    counted = ("objects_true", "objects_predicted", "matched")
    shared = ("objects_precision", "objects_recall", "objects_f1", "mean_match", "panoptic_quality")
    terms = [TERMS[name] for name in (*counted, *shared)]
    rows = []
    for row in objects.rows():
        counts = (row.true, row.predicted, row.matched)
        shares = (row.precision, row.recall, row.f1, row.mean_iou, row.panoptic_quality)
        cells = [*map(_count, counts), *map(_number, shares)]
        rows.append(_class_row(scores.taxonomy.node(row.code), cells))
    text = f"Polygons of one class are the same object from an IoU of {objects.threshold:g}; each is matched once."
    yield _Section("objects", "Objects", text, [_Table("class", terms, rows)], notes=list(objects.remarks))


def _areas(scores: Scores) -> Iterator[_Section]:
    found = scores.stratified
    if found is None or not found.mapped_m2:
        return
    unit = next((name for name, size in _UNITS.items() if found.mapped_m2 < 1e6 * size), "km²")
    rows = []
    for row in found.classes:
        if row.mapped_m2 or row.estimated_m2 > 0:
            cells = [
                _area(row.mapped_m2, unit),
                _area(row.estimated_m2, unit, row.half_width_m2),
                _interval(row.users_accuracy, row.users_half_width),
                _interval(row.producers_accuracy, row.producers_half_width),
            ]
            rows.append(_class_row(row.node, cells))
    terms = [TERMS[name]._replace(head=f"{TERMS[name].head}, {unit}") for name in ("mapped", "estimated")]
    table = _Table("class", [*terms, TERMS["users"], TERMS["producers"]], rows)
    text = (
        f"The whole map covers {_area(found.mapped_m2, unit).text} {unit}; its area-adjusted accuracy is "
        f"{_interval(found.accuracy, found.half_width).text}."
    )
    notes = [
        "Intervals take reference pixels as independent draws: true for sampled points, far too narrow for dense "
        "references."
    ]
    left = (found.open_m2, "undecided or coarser"), (found.unsampled_m2, "of classes without reference")
    for area, what in left:
        if area:
            size = f"{_area(area, unit).text} {unit}"
            notes.append(f"{size} of the map are {what}, and left out of the estimates.")
    yield _Section("areas", "Areas", text, [table], notes=notes)


def _class_row(node: Node, cells: list[_Cell]) -> _Row:
    return _Row(node.name, cells, "".join(f"{name} / " for name in node.path[:-1]), node.hex)


def _count(number: int) -> _Cell:
    return _Cell(compact(number), number, f"{number:,}")


def _number(value: float) -> _Cell:
    value = float(value)
    return _Cell("–") if math.isnan(value) else _Cell(f"{round(value, 3) + 0.0:.3f}", value, f"{value:.6g}")


def _interval(value: float, half_width: float) -> _Cell:
    if math.isnan(value):
        return _Cell("–")
    return _Cell(f"{value:.3f} ± " + ("?" if math.isnan(half_width) else f"{half_width:.3f}"), value)


def _area(m2: float, unit: str, half_width: float | None = None) -> _Cell:
    def text(area: float) -> str:
        value = area / _UNITS[unit]
        return "–" if math.isnan(value) else f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}"

    return _Cell(text(m2) if half_width is None else f"{text(m2)} ± {text(half_width)}", m2)


def _picture(figure: Figure, key: str, caption: str) -> _Picture:
    """Inline, with ids of its own, in the page's ink, without metadata."""

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", tag.group())
        return text.replace(INK, "currentColor")

    svg = re.sub(r"<metadata>.*?</metadata>", "", as_svg(figure), flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", adapt, svg)
    return _Picture(svg.replace("<svg ", '<svg role="img" ', 1), caption)
