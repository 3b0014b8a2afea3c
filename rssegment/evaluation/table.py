"""Scores as text for a terminal of 80 columns; sections only for what there is evidence of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

from rssegment.taxonomy import Node

if TYPE_CHECKING:
    from rssegment.evaluation.areas import AreaEstimate
    from rssegment.evaluation.report import LevelScores, Scores

__all__ = ["cells", "compact", "fitting", "level_table", "scores_table"]

_WIDTH = 80  # columns of a terminal
# Heads and widths: the areas, then the scores of each class.
_COLUMNS = {"true px": 8, "map px": 8, "IoU": 7, "F1": 7, "prec.": 7, "recall": 8}
_OBJECTS = {"true": 8, "map": 8, "matched": 8, "prec.": 7, "recall": 8, "F1": 7, "IoU": 7}
_AREAS = {"mapped": 10, "estimated": 10, "±": 10, "user's": 13, "producer's": 13}
_TAUS = (0, 50, 60, 70, 80, 90, 95, 99)  # of the back-off curve, in hundredths
_M2 = {"m²": 1.0, "ha": 1e4, "km²": 1e6}


def scores_table(scores: Scores) -> str:
    """All sections, with an empty line between; a level that adds nothing is only named."""
    sections = [*_levels(scores), *_common(scores)]
    for part in (_hierarchy, _calibration, _backoff, _boundaries, _objects, _areas, _remarks):
        if lines := list(part(scores)):
            sections.append("\n".join(lines))
    return "\n\n".join(sections)


def level_table(level: LevelScores) -> str:
    """Two lines of heading, then a line for each class that has pixels."""
    return "\n".join([*_heading(level), *_class_rows(level), *_notes(level)])


def _levels(scores: Scores) -> Iterator[str]:
    shown = [scores.levels[0]]
    yield scores.levels[0].table()
    for level in scores.levels[1:]:
        if level.same_as(shown[-1]):
            yield f"level {level.level}: as level {shown[-1].level}"
        else:
            shown.append(level)
            yield level.table()


def _common(scores: Scores) -> Iterator[str]:
    if not any(scores.common.same_as(level) for level in scores.levels):
        yield f"{scores.common.table()}\n  (the reference has labels above the leaves: compared at those)"


def _heading(level: LevelScores) -> list[str]:
    name = f"level {level.level}" if level.level else "common classes"
    if not level.pixels:
        return [f"{name}: no pixels to score"]
    text = {name: _text(value) for name, value in level.overall.items()}
    return [
        f"{name} ({compact(level.pixels)} px): mIoU {text['mean_iou']}"
        f"  mF1 {text['mean_f1']}  accuracy {text['pixel_accuracy']}  kappa {text['kappa']}",
        f"  fwIoU {text['frequency_weighted_iou']}  disagreement in quantity"
        f" {text['quantity_disagreement']}, in allocation {text['allocation_disagreement']}",
    ]


def _class_rows(level: LevelScores) -> Iterator[str]:
    areas = list(level.areas())
    rows = []
    for i in level.present:
        _, true, predicted = areas[i]
        scores = (_text(by[i]) for by in level.by_class.values())
        rows.append((compact(true), compact(predicted), *scores))
    yield from _rows([level.classes[i] for i in level.present], rows, _COLUMNS)


def _notes(level: LevelScores) -> Iterator[str]:
    """What is in neither rows nor scores."""
    absent = len(level.classes) - len(level.present)
    if absent and level.present:
        yield f"  not shown: {absent} of {len(level.classes)} classes, no pixels scored"
    if level.counts.coarser:
        yield f"  not scored: {compact(level.counts.coarser)} px labelled above level {level.level}"


def _hierarchy(scores: Scores) -> Iterator[str]:
    values, coherence = scores.hierarchy, scores.evidence.coherence
    if scores.confusion.pixels and (scores.taxonomy.depth > 1 or values["undecided"]):
        text = {name: _text(value) for name, value in values.items()}
        yield (
            f"hierarchy: distance {text['hierarchical_distance']} edges"
            f"  height of mistakes {text['mistake_severity']}  F1 {text['hierarchical_f1']}"
        )
        yield (
            f"  precision {text['hierarchical_precision']}  recall {text['hierarchical_recall']}"
            f"  mean level {text['mean_level']}"
        )
        yield (
            f"  at the level decided: {text['right']} right, {text['wrong']} wrong, {text['undecided']} undecided"
        )
    if coherence:
        yield f"  levels that contradict each other: {compact(coherence.incoherent)} of {compact(coherence.pixels)} px"


def _calibration(scores: Scores) -> Iterator[str]:
    if not scores.reliability:
        return
    yield _line(
        "calibration", 14, ("px", "conf.", "correct", "ECE", "MCE", "conf. - correct"), (8, 8, 9, 8, 8, 17)
    )
    for level, found in scores.reliability.items():
        correct = found.right.sum() / found.total if found.total else math.nan
        values = (correct + found.overconfidence, correct, found.ece, found.mce, found.overconfidence)
        name = f"  level {level}" if level else "  decided"
        yield _line(name, 14, (compact(found.total), *map(_text, values)), (8, 8, 9, 8, 8, 17))


def _backoff(scores: Scores) -> Iterator[str]:
    curve = scores.curve
    if curve is None or not scores.evidence.backoff or not scores.evidence.backoff.pixels:
        return
    sizes = (7,) * len(_TAUS)
    yield _line("back-off at", 14, [f"{curve.tau[i]:.2f}" for i in _TAUS], sizes)
    for name in ("correct", "specificity", "decided"):
        yield _line(f"  {name}", 14, [_text(getattr(curve, name)[i]) for i in _TAUS], sizes)


def _boundaries(scores: Scores) -> Iterator[str]:
    for level, found in scores.boundaries.items():
        yield (
            f"boundaries of level {level}, within {found.tolerance:g} m:"
            f" mean IoU {_text(found.mean_iou)}  mean F1 {_text(found.mean_f1)}"
        )


def _objects(scores: Scores) -> Iterator[str]:
    if scores.objects is None:
        return
    rows = [row for row in scores.objects.rows() if row.true or row.predicted]
    yield f"objects, matched from IoU {scores.objects.threshold:g}" + ("" if rows else ": none")
    values = [
        (
            *map(compact, (row.true, row.predicted, row.matched)),
            *map(_text, (row.precision, row.recall, row.f1, row.mean_iou)),
        )
        for row in rows
    ]
    yield from _rows([scores.taxonomy.node(row.code) for row in rows], values, _OBJECTS)


def _areas(scores: Scores) -> Iterator[str]:
    found = scores.stratified
    if found is None or not found.mapped_m2:
        return
    unit, size = next(
        ((name, size) for name, size in _M2.items() if found.mapped_m2 < 1e6 * size), ("km²", 1e6)
    )
    decimals = max(0, 4 - len(f"{found.mapped_m2 / size:.0f}"))

    def text(m2: float) -> str:
        return "-" if math.isnan(m2) else f"{m2 / size:.{decimals}f}"

    yield f"whole map, {text(found.mapped_m2)} {unit}: accuracy {_interval(found.accuracy, found.half_width)}"
    rows = [row for row in found.classes if row.mapped_m2 or row.estimated_m2 > 0]
    yield from _rows([row.node for row in rows], [_area_row(row, text) for row in rows], _AREAS)
    for area, what in (
        (found.open_m2, "undecided or coarser"),
        (found.unsampled_m2, "without reference, left out"),
    ):
        if area:
            yield f"  {what}: {text(area)} {unit}"
    yield f"  Areas in {unit}; 95 % intervals (Olofsson et al. 2014) take reference pixels as"
    yield "  independent draws: right for sampled points, too narrow for dense references."


def _remarks(scores: Scores) -> Iterator[str]:
    for remark in scores.remarks:
        yield from wrap(f"note: {remark}", _WIDTH, subsequent_indent="  ")


def _area_row(row: AreaEstimate, text: Callable[[float], str]) -> tuple[str, ...]:
    return (
        *map(text, (row.mapped_m2, row.estimated_m2, row.half_width_m2)),
        _interval(row.users_accuracy, row.users_half_width),
        _interval(row.producers_accuracy, row.producers_half_width),
    )


def _interval(value: float, half_width: float) -> str:
    return (
        "-"
        if math.isnan(value)
        else f"{value:.3f}±" + ("?" if math.isnan(half_width) else f"{half_width:.3f}")
    )


def _rows(nodes: Sequence[Node], values: Sequence[Sequence[str]], columns: dict[str, int]) -> Iterator[str]:
    """A line of heads and one for each class; nothing for no class."""
    if not nodes:
        return
    paths = fitting(nodes, _WIDTH - 2 - sum(columns.values()))
    width = max(len("class"), *map(cells, paths))
    yield _line("  class", width + 2, list(columns), columns.values())
    for path, row in zip(paths, values, strict=True):
        yield _line(f"  {path}", width + 2, row, columns.values())


def _line(name: str, width: int, values: Iterable[str], sizes: Iterable[int]) -> str:
    return _padded(name, width) + "".join(
        f"{value:>{size}}" for value, size in zip(values, sizes, strict=True)
    )


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no "-0.000"


def compact(pixels: int) -> str:
    """Three digits and a unit: 812, 253 k, 3.53 M; at most 6 characters."""
    if pixels < 1000:
        return str(pixels)
    power = 1
    while pixels / 1000**power >= 999.5:  # would round to 1000
        power += 1
    return f"{format(pixels / 1000**power, '#.3g').rstrip('.')} {' kMGTPE'[power]}"


def fitting(nodes: Sequence[Node], width: int) -> list[str]:
    """A path of at most ``width`` cells for each class; classes that would read the same get their codes."""
    paths = [_shortened(node.path, width) for node in nodes]
    times = Counter(paths)
    codes = [f" ({node.code})" if times[path] > 1 else "" for node, path in zip(nodes, paths, strict=True)]
    return [_shortened(n.path, width - len(code)) + code for n, code in zip(nodes, codes, strict=True)]


def _shortened(path: tuple[str, ...], width: int) -> str:
    """The whole path if it fits, else as many of its last names as do, else the last name without its middle."""
    whole = "/".join(path)
    if cells(whole) <= width:
        return whole
    for first in range(1, len(path)):
        if cells(tail := "…/" + "/".join(path[first:])) <= width:
            return tail
    before = "…/" if len(path) > 1 else ""
    name, half = path[-1], (width - len(before) - 1) // 2
    return f"{before}{_cut(name, half)}…{_cut(name[::-1], half)[::-1]}"


def _cut(text: str, width: int) -> str:
    """As much of the beginning as fits into ``width`` cells."""
    while cells(text) > width:
        text = text[:-1]
    return text


def cells(text: str) -> int:
    """Columns that a terminal gives to ``text``: East Asian wide characters take two, combining marks none."""
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))
