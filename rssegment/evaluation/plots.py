"""Pictures of an evaluation: matplotlib figures, drawn without pyplot, so any thread may draw one.

Colours are told apart by colour-blind readers too (Okabe and Ito 2008), and none carries meaning alone. Classes without
pixels are left out, and the picture says how many.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rssegment.evaluation import scores
from rssegment.evaluation.backoff import BackoffCurve
from rssegment.evaluation.boundaries import BoundaryCounts
from rssegment.evaluation.confusion import LevelCounts
from rssegment.evaluation.drawing import BLUE, GREEN, INK, ORANGE, QUIET, drawing, save_plot
from rssegment.evaluation.reliability import Reliability
from rssegment.evaluation.table import compact
from rssegment.taxonomy import Node

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["backoff_plot", "class_plot", "confusion_plot", "reliability_plot", "save_plot"]

_MOST_CLASSES = 120  # of a confusion matrix; more are too many to be read
_TEXT_CLASSES = 25  # up to so many, cells bear numbers
_LABEL = 34  # characters
_FEW = 1e-3  # share of the pixels below which a bin says little


def confusion_plot(counts: LevelCounts) -> Figure:
    """The confusion matrix: of each true class, the shares of its pixels by predicted class.

    Rows are true classes with their number of pixels, columns predicted ones; up to 25 classes, cells bear whole
    percents. With more than 120 classes those with most pixels are shown.
    """
    shown = _present(counts.counts)
    absent = len(counts.classes) - len(shown)
    crowd = len(shown) - _MOST_CLASSES
    if crowd > 0:
        pixels = counts.counts.sum(axis=1) + counts.counts[:, :-1].sum(axis=0)
        shown = np.sort(shown[np.argsort(-pixels[shown], kind="stable")[:_MOST_CLASSES]])
    others = np.setdiff1d(np.arange(len(counts.classes)), shown)
    matrix = counts.counts[shown][:, shown]
    rows, columns = _names([counts.classes[i] for i in shown]), _names([counts.classes[i] for i in shown])
    for name, extra in (
        ("other classes", counts.counts[shown][:, others].sum(axis=1)),
        ("no class", counts.counts[shown, -1]),
    ):
        if extra.any():
            matrix, columns = np.column_stack([matrix, extra]), [*columns, name]
    notes = [f"{absent} classes without pixels are left out"] if absent else []
    notes += [f"the {_MOST_CLASSES} classes with most pixels of {crowd + _MOST_CLASSES}"] if crowd > 0 else []
    tops = [counts.classes[i].path[0] for i in shown]
    borders = [i for i in range(1, len(tops)) if tops[i] != tops[i - 1]]
    with drawing():
        return _matrix(matrix, rows, columns, borders if len(borders) < len(tops) // 2 else [], notes)


def class_plot(counts: LevelCounts, boundaries: BoundaryCounts | None = None) -> Figure:
    """IoU of each class as bars; a mark for its Boundary IoU, where that was counted."""
    shown = _present(counts.counts)
    names = _names([counts.classes[i] for i in shown])
    values = scores.iou(counts.counts)[shown]
    with drawing():
        figure, axes = _one(7.2, 1.0 + 0.27 * max(1, len(shown)))
        places = np.arange(len(shown))
        axes.barh(places, np.nan_to_num(values), height=0.62, color=BLUE, alpha=0.75, label="IoU")
        for place, value in enumerate(values.tolist()):
            axes.text(1.02, place, f"{value:.3f}", va="center", ha="left", fontsize=8)
        if boundaries is not None:
            by_code = dict(zip(boundaries.classes, boundaries.iou.tolist(), strict=True))
            edge = [by_code.get(counts.classes[i].code, math.nan) for i in shown]
            label = f"Boundary IoU at {boundaries.tolerance:g} m"
            axes.plot(edge, places, "D", color=ORANGE, markersize=5, markeredgecolor="white", label=label)
            figure.legend(loc="outside upper right", ncols=2, frameon=False)
        axes.set(xlim=(0, 1), ylim=(len(shown) - 0.4, -0.6), yticks=places, yticklabels=names)
        axes.set_xlabel("IoU")
        axes.grid(axis="x", color=QUIET, alpha=0.3, linewidth=0.6)
        axes.axvline(0, color=QUIET, linewidth=1)
        axes.tick_params(length=0)
        if not shown.size:
            _say_empty(axes, "no class has pixels")
        elif absent := len(counts.classes) - len(shown):
            _note(figure, f"{absent} classes without pixels are left out")
    return figure


def reliability_plot(reliability: Mapping[int, Reliability]) -> Figure:
    """A reliability diagram for each level (0: the predicted class itself): is what was said with p right in p?

    Points are bins of confidence, hollow where they hold less than 0.1 % of the pixels; below, the bins' shares.
    """
    levels = [level for level in sorted(reliability) if reliability[level].total]
    columns, lines = min(3, max(1, len(levels))), max(1, math.ceil(len(levels) / 3))
    width, height = 3.0 * columns + 0.3, 4.0 * lines  # inches
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height))
        for place, level in enumerate(levels or [-1]):
            line, column = divmod(place, columns)
            left, bottom = 0.55 + 3.0 * column, height - 4.0 * (line + 1) + 0.5
            diagram, shares = (
                figure.add_axes((left / width, low / height, 2.45 / width, high / height))
                for low, high in ((bottom + 0.85, 2.45), (bottom, 0.6))
            )
            if level < 0:
                _say_empty(diagram, "no pixels")
                shares.set_axis_off()
                continue
            title = f"level {level}" if level else "predicted class"
            _reliability_panel(diagram, shares, reliability[level], title)
            if column == 0:
                diagram.set_ylabel("right, %")
                shares.set_ylabel("pixels, %")
    return figure


def backoff_plot(curve: BackoffCurve) -> Figure:
    """Left: correctness against specificity, with thresholds marked. Right: both, and what is decided, by threshold.

    Both begin at the threshold below which nothing changes, as where the map itself backed off.
    """
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        trade, by_tau = figure.subplots(1, 2)
        for axes in (trade, by_tau):
            axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
            axes.tick_params(length=0)
        known = bool(np.isfinite(curve.correct).any())
        if known:
            trade.plot(100 * curve.specificity, 100 * curve.correct, color=BLUE, linewidth=1.6)
            _mark_thresholds(trade, curve)
            lines = (("correct", curve.correct, BLUE, "-"), ("specificity", curve.specificity, ORANGE, "--"))
            for label, values, color, dash in (*lines, ("decided", curve.decided, GREEN, ":")):
                known_from = slice(curve.begin, None)
                by_tau.plot(
                    curve.tau[known_from],
                    100 * values[known_from],
                    dash,
                    color=color,
                    linewidth=1.8,
                    label=label,
                )
            by_tau.legend(loc="lower left", frameon=False)
        else:
            _say_empty(trade, "no pixels")
            _say_empty(by_tau, "no pixels")
        trade.set(xlim=(_tens(curve.specificity) - 6, 102), ylim=(_tens(curve.correct) - 1, 101))
        trade.set(xlabel="specificity, % of the full level", ylabel="correct, %")
        by_tau.set(xlim=(0, 1), ylim=(0, 102), xlabel="threshold τ", ylabel="%")
    return figure


def _one(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _matrix(
    matrix: NDArray[np.int64], rows: list[str], columns: list[str], groups: list[int], notes: list[str]
) -> Figure:
    """``groups``: rows (and columns) before which another top class begins."""
    height, width = matrix.shape
    cell = min(0.42, max(0.16, 9.5 / max(1, width)))  # inches
    size = min(8.0, 58 * cell)  # points
    figure, axes = _one(width * cell + 3.6, height * cell + 2.4)
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals, 1)[:, None]
    _cells(axes, shares, size if max(height, width) <= _TEXT_CLASSES + 2 else 0)
    axes.set(xlim=(0, max(1, width)), ylim=(max(1, height), 0), aspect="equal")
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_xticks(np.arange(width) + 0.5, columns, rotation=90, fontsize=size)
    axes.set_yticks(np.arange(height) + 0.5, rows, fontsize=size)
    axes.tick_params(length=0)
    pixels = axes.secondary_yaxis("right")
    pixels.set_yticks(np.arange(height) + 0.5, [compact(int(n)) for n in totals], fontsize=size)
    pixels.tick_params(length=0)
    pixels.set_ylabel("true pixels")
    for spine in axes.spines.values():
        spine.set_visible(True)
    for place in groups:
        axes.axhline(place, color=QUIET, linewidth=0.8)
        axes.axvline(place, color=QUIET, linewidth=0.8)
    if width > height:
        axes.axvline(height, color=QUIET, linewidth=0.8)
    if not height:
        _say_empty(axes, "no pixels")
    else:
        _matrix_legend(figure)
    if notes:
        _note(figure, "; ".join(notes))
    return figure


def _cells(axes: Axes, shares: NDArray[np.float64], text: float) -> None:
    """Coloured squares, with percents of ``text`` points (0: none); what is below half a percent stays empty."""
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    filled = np.argwhere(shares >= 0.005)
    squares = filled[:, None, ::-1] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    colors = [to_rgba(BLUE, _strength(shares[row, column])) for row, column in filled.tolist()]
    axes.add_collection(PolyCollection([*squares], facecolors=colors, edgecolors="none"))
    for row, column in filled.tolist() if text else ():
        share = shares[row, column]
        color = "white" if _strength(share) > 0.7 else INK
        label = axes.text(
            column + 0.5, row + 0.5, str(math.floor(100 * share + 0.5)), color=color, fontsize=text - 0.5
        )
        label.set(ha="center", va="center", in_layout=False)


def _strength(share: float) -> float:
    """Opacity: small shares are seen, too."""
    return float(share**0.6)


def _matrix_legend(figure: Figure) -> None:
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Patch

    steps = (0.01, 0.1, 0.25, 0.5, 1.0)
    patches = [Patch(color=to_rgba(BLUE, _strength(step)), label=f"{100 * step:.0f}") for step in steps]
    title = "% of the true class"
    figure.legend(
        handles=patches, title=title, loc="outside upper right", ncols=5, frameon=False, title_fontsize=8
    )


def _reliability_panel(diagram: Axes, shares: Axes, counts: Reliability, title: str) -> None:
    mean, right = 100 * counts.mean_confidence, 100 * counts.accuracy
    part = counts.pixels / max(1, counts.total)
    diagram.plot([0, 100], [0, 100], "--", color=QUIET, linewidth=1)
    diagram.vlines(mean, mean, right, color=ORANGE, linewidth=2, alpha=0.7)
    enough = part >= _FEW
    diagram.plot(mean[enough], right[enough], "-o", color=BLUE, markersize=4, linewidth=1.4, clip_on=False)
    few = ~enough & (part > 0)
    diagram.plot(mean[few], right[few], "o", color=BLUE, markersize=4, markerfacecolor="none", clip_on=False)
    diagram.set(xlim=(0, 100), ylim=(0, 101))
    diagram.set_title(f"{title}: ECE {counts.ece:.3f}", loc="left")
    edges = 100 * counts.edges
    shares.bar(edges[:-1], 100 * part, width=np.diff(edges), align="edge", color=BLUE, alpha=0.55)
    shares.set_xlabel("confidence, %")
    shares.set_xlim(0, 100)
    diagram.tick_params(labelbottom=False)
    for axes in (diagram, shares):
        axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
        axes.tick_params(length=0)


def _tens(shares: NDArray[np.float64]) -> int:
    """The least share in percent, down to tens; at most 80, so that a flat curve looks flat."""
    least = float(np.nanmin(shares)) if np.isfinite(shares).any() else 0.0
    return min(80, math.floor(10 * least) * 10)


def _mark_thresholds(axes: Axes, curve: BackoffCurve) -> None:
    """Dots with their threshold, as many as can be read."""
    wanted = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
    last: tuple[float, float] | None = None
    for tau in (float(curve.tau[curve.begin]), *wanted):
        i = int(np.argmin(np.abs(curve.tau - tau)))
        x, y = 100 * float(curve.specificity[i]), 100 * float(curve.correct[i])
        # a label is about ten units wide and, as the axis begins near the curve, two high
        if (
            i < curve.begin
            or not math.isfinite(x + y)
            or (last and max(abs(x - last[0]) / 11, abs(y - last[1]) / 2) < 1)
        ):
            continue
        last = x, y
        axes.plot([x], [y], "o", color=BLUE, markersize=5)
        axes.annotate(f"τ {tau:g}", (x, y), (-5, -11), textcoords="offset points", ha="right", fontsize=8)


def _say_empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=QUIET)
    axes.set(xticks=[], yticks=[])


def _note(figure: Figure, text: str) -> None:
    figure.supxlabel(text, fontsize=8, color=QUIET, x=0.99, ha="right")


def _present(counts: NDArray[np.int64]) -> NDArray[np.intp]:
    """Indices of the classes that are true or predicted somewhere."""
    return np.flatnonzero(counts.any(axis=1) | counts[:, :-1].any(axis=0))


def _names(nodes: Sequence[Node]) -> list[str]:
    """For each class the shortest end of its path that is no other's, without its middle where it is long."""
    times = Counter(tail for node in nodes for tail in _tails(node))
    names = [next((tail for tail in _tails(node) if times[tail] == 1), _tails(node)[-1]) for node in nodes]
    half = _LABEL // 2
    short = [n if len(n) <= _LABEL else f"{n[: half - 1].rstrip()}…{n[-half:].lstrip()}" for n in names]
    times = Counter(short)
    return [n if times[n] == 1 else f"{n} ({node.code})" for n, node in zip(short, nodes, strict=True)]


def _tails(node: Node) -> list[str]:
    return ["/".join(node.path[first:]) for first in range(len(node.path) - 1, -1, -1)]
