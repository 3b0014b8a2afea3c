"""What people see of a training: windows beside their labels and the network's answer, and the curves of its log."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rssegment.errors import InputError
from rssegment.evaluation.drawing import BLUE, GREEN, INK, ORANGE, QUIET, drawing, save_plot
from rssegment.grid import Box
from rssegment.taxonomy import Taxonomy
from rssegment.training.batch import Batch
from rssegment.training.sheet import PAPER, Panel, contact_sheet
from rssegment.write.atomic import staged, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves_picture", "sample_picture", "scored_boxes"]

Picture = NDArray[np.uint8]  # (H, W, 3)
Codes = NDArray[np.int64]

_WRONG, _INVALID = (222, 38, 38), (206, 202, 194)
_ACROSS = 4  # panels, where windows have few
_AROUND = 16  # px that are shown around what is scored
_STRETCH = (1, 99)  # percentiles that become black and white
_COLORS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito 2008


def sample_picture(
    batch: Batch,
    predicted: Tensor | None,
    taxonomy: Taxonomy,
    path: str | Path,
    *,
    most: int = 8,
    boxes: Sequence[Box] | None = None,
) -> None:
    """Draws windows of ``batch`` (stored or prepared), at most ``most``, as a PNG: image, labels, prediction, errors.

    ``predicted``: codes (B, H, W), or leaf probabilities (B, L, H, W), which adds a panel of confidence; None leaves
    image and labels. The first three bands are red, green and blue, stretched alike in all windows; of fewer the first
    is grey. A prediction is right where it is the label, below it or above it in the tree. ``boxes``: what is shown of
    each window; None shows all.

    Raises
    ------
    InputError
        ``predicted`` is of another shape than the windows.
    OutputError, StorageError
        The file can't be written.
    """
    windows = _windows(batch, predicted, taxonomy, most)
    if boxes is not None:
        windows = [window.cut(box) for window, box in zip(windows, boxes, strict=False)]
    table = _color_table(taxonomy)
    rows: list[list[Panel]] = []
    for window in windows:
        row = _panels(window, table, taxonomy)
        if rows and len(rows[-1]) + len(row) <= _ACROSS:
            rows[-1] += row
        else:
            rows.append(row)
    codes = None if predicted is None else [window.codes for window in windows if window.codes is not None]
    write_bytes(Path(path), contact_sheet(rows, taxonomy, [window.labels for window in windows], codes))


def scored_boxes(scored: Tensor) -> list[Box]:
    """What to show of each window: the box around what is ``scored`` (B, H, W) and a little more, or all of it."""
    masks = _array(scored)
    whole = Box.of((masks.shape[1], masks.shape[2]))
    return [_around(mask).pad(_AROUND).clip(whole) if mask.any() else whole for mask in masks]


def _around(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around what is true in ``mask`` (H, W)."""
    rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return Box.between(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)


class _Window(NamedTuple):
    """What there is to show of a window; each (H, W, ...)."""

    image: Picture
    labels: Codes
    valid: NDArray[np.bool_]
    codes: Codes | None
    confidence: NDArray[np.float32] | None

    def cut(self, box: Box) -> _Window:
        return _Window(*(None if each is None else each[box.slices] for each in self))  # type: ignore[arg-type]


def _windows(batch: Batch, predicted: Tensor | None, taxonomy: Taxonomy, most: int) -> list[_Window]:
    """The first ``most`` windows."""
    codes, sure = (None, None) if predicted is None else _predictions(predicted, batch, taxonomy)
    labels, valid = _array(batch.labels), _array(batch.valid)
    return [
        _Window(
            image, labels[i], valid[i], None if codes is None else codes[i], None if sure is None else sure[i]
        )
        for i, image in enumerate(_images(batch, min(most, len(batch.values))))
    ]


def _panels(window: _Window, table: Picture, taxonomy: Taxonomy) -> list[Panel]:
    image, labels, valid, codes, sure = window
    panels = [Panel("image", image), Panel("labels", _painted(labels, table, valid))]
    if codes is not None:
        panels += [
            Panel("prediction", _painted(codes, table, valid)),
            _errors(image, labels, _wrong(labels, codes, taxonomy)),
        ]
    return panels if sure is None else [*panels, _confidence(sure)]


class _Found(NamedTuple):
    codes: Codes  # (B, H, W)
    confidence: NDArray[np.float32] | None


def _predictions(predicted: Tensor, batch: Batch, taxonomy: Taxonomy) -> _Found:
    count, height, width = batch.labels.shape
    probable = (count, len(taxonomy.leaves), height, width)
    if tuple(predicted.shape) == probable:
        values = _array(predicted.float())
        best = values.argmax(axis=1)
        return _Found(taxonomy.leaf_codes[best].astype(np.int64), values.max(axis=1))
    if tuple(predicted.shape) != (count, height, width):
        raise InputError(
            f"predictions of shape {tuple(predicted.shape)} for windows of {(count, height, width)}; expected codes "
            f"of that shape, or probabilities of {probable}"
        )
    return _Found(_array(predicted).astype(np.int64), None)


def _wrong(labels: Codes, codes: Codes, taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Pixels with a label where neither of the two codes is the other or above it."""
    wrong: NDArray[np.bool_] = (labels > 0) & (labels != codes)
    for level in range(1, taxonomy.depth + 1):
        above = taxonomy.ancestor_lookup(level)
        wrong &= (above[codes] != labels) & (above[labels] != codes)
    return wrong


def _errors(image: Picture, labels: Codes, wrong: NDArray[np.bool_]) -> Panel:
    """The image in pale grey with what is wrong in red; paper where there is no label to tell."""
    labelled = labels > 0
    pale = np.broadcast_to(150 + image.mean(axis=2, keepdims=True) * 0.4, image.shape)
    picture = np.where(wrong[..., None], _WRONG, np.where(labelled[..., None], pale, PAPER))
    title = f"errors: {wrong.sum() / labelled.sum():.1%} of labels" if labelled.any() else "errors: no labels"
    return Panel(title, picture.astype(np.uint8))


def _confidence(sure: NDArray[np.float32]) -> Panel:
    """Black where the network has no idea, white where it is sure."""
    grey = np.rint(255 * sure.clip(0, 1)).astype(np.uint8)
    return Panel(f"confidence: mean {sure.mean():.2f}", np.repeat(grey[..., None], 3, axis=2))


def _images(batch: Batch, count: int) -> list[Picture]:
    """Each window in colours; what is invalid in one grey, bands that are absent at half brightness."""
    bands = 3 if batch.values.shape[1] >= 3 else 1
    values = _array(batch.values[:count, :bands].float())
    valid, present = _array(batch.valid)[:count], _array(batch.present)[:count, :bands]
    shares = np.full_like(values, 0.5)
    for band in range(bands):
        has = present[:, band]
        known = values[has, band][valid[has]]
        known = known[np.isfinite(known)]
        if known.size:
            low, high = np.percentile(known, _STRETCH)
            span = high - low if high > low else 1.0
            shares[has, band] = np.nan_to_num((values[has, band] - low) / span).clip(0, 1)
    pictures = np.rint(255 * np.moveaxis(shares, 1, -1)).astype(np.uint8)
    pictures = np.broadcast_to(pictures, (*pictures.shape[:3], 3)).copy()
    pictures[~valid] = _INVALID
    return list(pictures)


def _painted(codes: Codes, table: Picture, valid: NDArray[np.bool_]) -> Picture:
    picture: Picture = table[codes]
    picture[~valid] = _INVALID
    return picture


def _color_table(taxonomy: Taxonomy) -> Picture:
    """(65536, 3): colours of codes; paper for 0 and codes of no class."""
    table = np.full((65536, 3), PAPER, np.uint8)
    for node in taxonomy.nodes:
        table[node.code] = node.color
    return table


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


def curves_picture(log: str | Path, path: str | Path) -> None:
    """Draws a training's log (CSV) as a .png or .svg: loss and learning rate, and mean IoU by level, over steps.

    Columns that the log lacks are left out, and so are values that are no numbers.

    Raises
    ------
    InputError
        There is no such log, it has no column ``step``, or ``path`` has another suffix.
    OutputError, StorageError
        The file can't be written.
    """
    columns = _columns(Path(log))
    scores = {name: values for name, values in columns.items() if name.startswith("mean_iou")}
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.grid(color=QUIET, alpha=0.25, linewidth=0.6)
            axes.tick_params(length=0)
            axes.set_xlabel("step")
        _draw_loss(left, columns)
        _draw_scores(right, columns["step"], scores)
        if not scores:
            right.set_title("no scores yet", loc="left")
    with staged(Path(path)) as place:
        save_plot(figure, place)


def _columns(log: Path) -> dict[str, NDArray[np.float64]]:
    """The log's columns of numbers; NaN for what is none."""
    try:
        lines = list(csv.DictReader(io.StringIO(log.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the training's log {log}: {error}") from error
    names = [name for name in (lines[0] if lines else {}) if name]
    if "step" not in names:
        raise InputError(
            f"{log} is no log of a training: expected a table (CSV) with a column 'step' and a line"
        )
    return {name: np.array([_number(line[name]) for line in lines]) for name in names}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _draw_loss(axes: Axes, columns: dict[str, NDArray[np.float64]]) -> None:
    steps, loss = columns["step"], columns.get("loss")
    if loss is not None and np.isfinite(loss).any():
        known = np.isfinite(loss)
        axes.plot(steps[known], loss[known], "-o", color=BLUE, markersize=3, linewidth=1.6, label="loss")
        axes.set_ylabel("loss")
        if loss[known].min() > 0 and loss[known].max() > 20 * loss[known].min():
            axes.set_yscale("log")
    rate = columns.get("rate")
    if rate is not None and np.isfinite(rate).any():
        beside = axes.twinx()
        beside.plot(steps, rate, ":", color=QUIET, linewidth=1.4)
        beside.set(ylim=(0, None), ylabel="learning rate (dotted)")
        beside.yaxis.label.set_color(QUIET)
        beside.tick_params(length=0, labelcolor=QUIET)
        beside.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _draw_scores(axes: Axes, steps: NDArray[np.float64], scores: dict[str, NDArray[np.float64]]) -> None:
    """A line for each level, a thick one for their mean with a mark at its best."""
    levels = sorted(name for name in scores if name != "mean_iou")
    for place, name in enumerate(levels):
        known = np.isfinite(scores[name])
        label = name.removeprefix("mean_iou_").replace("_", " ")
        color = _COLORS[place % len(_COLORS)]
        axes.plot(
            steps[known], scores[name][known], "-o", color=color, markersize=2.5, linewidth=1.2, label=label
        )
    mean = scores.get("mean_iou")
    if mean is not None and np.isfinite(mean).any():
        known = np.isfinite(mean)
        axes.plot(steps[known], mean[known], color=INK, linewidth=2.2, label="mean of levels")
        best = int(np.nanargmax(mean))
        axes.plot(steps[best], mean[best], "*", color=INK, markersize=11)
        axes.set_title(f"best: {mean[best]:.3f} at step {steps[best]:.0f}", loc="left")
    axes.set(ylim=(0, 1), ylabel="mean IoU on validation ground")
    if scores:
        axes.legend(loc="lower right", frameon=False)
