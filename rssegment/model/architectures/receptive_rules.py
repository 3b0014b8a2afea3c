"""How one operation's output indices lead to input indices, for each kind of operation that networks are made of.

A convolution of kernel k, stride s, padding p and dilation d takes the span [a, b] to [a s - p, b s - p + d (k - 1)],
and so on (Araujo, Norris & Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks", Distill). Each
dimension of a tensor is labelled by what it is made of, so that rows and columns are known again when dimensions were
exchanged, joined or taken apart. Whatever can't be followed depends on the whole input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["AXES", "Labels", "Operation", "Rule", "Span", "rules_of"]

Floats = NDArray[np.float64]
Span = tuple[Floats, Floats]  # first and last index, for each phase
Rule = Callable[[Span], Span]
Labels = list[tuple["_Factor", ...]]  # for each dimension, what it is a product of
_Factor = tuple[str, int]  # "y" for rows, "x" for columns, "" for anything else, and the size
AXES = ("y", "x")


# ---- rules: spans of an output to spans of an input


def _same(span: Span) -> Span:
    return span


def _whole(span: Span) -> Span:
    return np.full_like(span[0], -np.inf), np.full_like(span[1], np.inf)


def _window(kernel: int, stride: int, padding: int, dilation: int) -> Rule:
    def rule(span: Span) -> Span:
        return span[0] * stride - padding, span[1] * stride - padding + dilation * (kernel - 1)

    return rule


def _transposed_window(kernel: int, stride: int, padding: int, dilation: int) -> Rule:
    def rule(span: Span) -> Span:
        reach = dilation * (kernel - 1)
        return np.ceil((span[0] + padding - reach) / stride), np.floor((span[1] + padding) / stride)

    return rule


def _resized(
    source: int, target: int, below: int, above: int, *, corners: bool = False, nearest: bool = False
) -> Rule:
    """Interpolation over ``below`` pixels before and ``above`` after the place that an output pixel falls on."""
    scale = (source - 1) / max(1, target - 1) if corners else source / target

    def rule(span: Span) -> Span:
        places = [end * scale if corners or nearest else (end + 0.5) * scale - 0.5 for end in span]
        low, high = np.floor(places[0]), np.floor(places[1])
        return low - below, high + np.where(places[1] > high, above, 0)

    return _whole if source == 1 else rule


Found = tuple[Labels, list[dict[str, Rule]]]


@dataclass(frozen=True)
class Operation:
    """One operation: tensors that depend on the image, with their labels, and all arguments as given."""

    inputs: list[Tensor]
    layouts: list[Labels]
    output: Tensor
    args: tuple[Any, ...]


_ALL_WHOLE: dict[str, Rule] = dict.fromkeys(AXES, _whole)
_ALL_SAME: dict[str, Rule] = dict.fromkeys(AXES, _same)


def _axis(layout: Labels, label: str) -> int | None:
    """The dimension that is rows or columns, and nothing else."""
    found = [place for place, factors in enumerate(layout) if [name for name, _ in factors] == [label]]
    return found[0] if found else None


def _plain(output: Tensor) -> Labels:
    return [(("", size),) for size in output.shape]


def _kept(layout: Labels, output: Tensor) -> Labels:
    """The labels of ``layout``, with the sizes of ``output``."""
    return [
        ((factors[0][0], size),) if len(factors) == 1 else factors
        for factors, size in zip(layout, output.shape, strict=True)
    ]


def rules_of(name: str, op: Operation) -> Found:
    """Labels of the output of ATen's operation ``name``, and rules for each input by axis."""
    return _OPERATIONS.get(name, _pointwise)(op)


# ---- operations


def _pointwise(op: Operation) -> Found:
    """Element by element, with broadcasting; what can't be that mixes all pixels, for all that is known."""
    shape = tuple(op.output.shape)
    try:
        fits = all(np.broadcast_shapes(tuple(t.shape), shape) == shape for t in op.inputs)
    except ValueError:
        fits = False
    if not fits:
        return _plain(op.output), [_ALL_WHOLE for _ in op.inputs]
    labels = _plain(op.output)
    for layout in op.layouts:
        for back in range(1, len(layout) + 1):
            if (
                any(name for name, _ in layout[-back])
                and math.prod(n for _, n in layout[-back]) == shape[-back]
            ):
                labels[-back] = layout[-back]
    have = {name for factors in labels for name, _ in factors}
    rules: list[dict[str, Rule]] = []
    for layout in op.layouts:
        own = {name for factors in layout for name, _ in factors}
        rules.append({a: _same if a in own or a not in have else _whole for a in AXES})
    return labels, rules


def _convolved(op: Operation) -> Found:
    _image, weight, _bias, stride, padding, dilation, transposed = op.args[:7]
    if len(op.inputs) > 1 or op.output.ndim != 4:
        return _plain(op.output), [_ALL_WHOLE for _ in op.inputs]
    make = _transposed_window if transposed else _window
    kernel = weight.shape[2:]
    pairs = zip(AXES, *(_pair(v) for v in (kernel, stride, padding, dilation)), strict=True)
    return _kept(op.layouts[0], op.output), [{axis: make(*numbers) for axis, *numbers in pairs}]


def _pooled(op: Operation) -> Found:
    kernel = _pair(op.args[1])
    stride = _pair(op.args[2]) if len(op.args) > 2 and op.args[2] else kernel
    padding = _pair(op.args[3]) if len(op.args) > 3 else (0, 0)
    # an average's fifth argument is no dilation
    dilation = _pair(op.args[4]) if len(op.args) > 4 and not isinstance(op.args[4], bool) else (1, 1)
    pairs = zip(AXES, kernel, stride, padding, dilation, strict=True)
    return _kept(op.layouts[0], op.output), [{axis: _window(*numbers) for axis, *numbers in pairs}]


def _binned(op: Operation) -> Found:
    """Bins of a fixed number grow with the image, so they are the whole of it."""
    same = op.inputs[0].shape == op.output.shape
    return _kept(op.layouts[0], op.output), [_ALL_SAME if same else _ALL_WHOLE]


def _interpolated(below: int, above: int, *, nearest: bool = False) -> Callable[[Operation], Found]:
    def find(op: Operation) -> Found:
        corners = not nearest and len(op.args) > 2 and op.args[2] is True
        sizes = zip(AXES, op.inputs[0].shape[-2:], op.output.shape[-2:], strict=True)
        rules = {a: _resized(n, m, below, above, corners=corners, nearest=nearest) for a, n, m in sizes}
        return _kept(op.layouts[0], op.output), [rules]

    return find


def _padded(op: Operation) -> Found:
    amounts = [*op.args[1], 0, 0, 0, 0]
    rules = dict(_ALL_SAME)
    for place in range(len(op.args[1]) // 2):
        for axis in AXES:
            if _axis(op.layouts[0], axis) == op.inputs[0].ndim - 1 - place:
                rules[axis] = _window(1, 1, amounts[2 * place], 1)
    return _kept(op.layouts[0], op.output), [rules]


def _sliced(op: Operation) -> Found:
    dim, start, _, step = list(op.args[1:]) + [0, None, None, 1][len(op.args) - 1 :]
    size = op.inputs[0].shape[dim]
    start = max(0, size + (start or 0)) if (start or 0) < 0 else (start or 0)
    rules = dict(_ALL_SAME)
    for axis in AXES:
        if _axis(op.layouts[0], axis) == dim % op.inputs[0].ndim:
            rules[axis] = _window(1, step, -start, 1)
    return _kept(op.layouts[0], op.output), [rules]


def _joined(op: Operation) -> Found:
    dim = (op.args[1] if len(op.args) > 1 else 0) % op.output.ndim
    layout = max(op.layouts, key=lambda labels: sum(bool(f[0][0]) for f in labels if f))
    along = any(name for name, _ in layout[dim])
    return _kept(layout, op.output), [_ALL_WHOLE if along else _ALL_SAME for _ in op.inputs]


def _shuffled(op: Operation) -> Found:
    def rule(span: Span) -> Span:
        return np.floor(span[0] / op.args[1]), np.floor(span[1] / op.args[1])

    return _kept(op.layouts[0], op.output), [dict.fromkeys(AXES, rule)]


def _unshuffled(op: Operation) -> Found:
    return _kept(op.layouts[0], op.output), [dict.fromkeys(AXES, _window(op.args[1], op.args[1], 0, 1))]


def _reduced(op: Operation) -> Found:
    """Sums and the like over some dimensions, which stay with a size of 1 or go."""
    layout, ndim = op.layouts[0], op.inputs[0].ndim
    chosen = op.args[1] if len(op.args) > 1 else None
    dims = {d % ndim for d in ([chosen] if isinstance(chosen, int) else chosen or range(ndim))}
    gone = {name for d in dims for name, _ in layout[d]}
    if op.output.ndim == ndim:
        labels = [(("", 1),) if d in dims and op.output.shape[d] == 1 else f for d, f in enumerate(layout)]
    else:
        labels = [f for d, f in enumerate(layout) if d not in dims]
    return labels, [{axis: _whole if axis in gone else _same for axis in AXES}]


def _permuted(op: Operation) -> Found:
    order = list(op.args[1]) if len(op.args) == 2 else list(range(op.output.ndim))
    if len(op.args) == 3:  # a transposition
        a, b = op.args[1] % op.output.ndim, op.args[2] % op.output.ndim
        order[a], order[b] = b, a
    elif len(op.args) == 1:
        order.reverse()
    return [op.layouts[0][place] for place in order], [_ALL_SAME]


def _reshaped(op: Operation) -> Found:
    """Dimensions joined and taken apart in their order; rows or columns that are split can't be followed."""
    queue = [factor for factors in op.layouts[0] for factor in factors if factor[1] != 1]
    labels: Labels = []
    for size in op.output.shape:
        group: list[_Factor] = []
        while (left := size // math.prod(n for _, n in group)) > 1:
            name, number = queue.pop(0)
            if number > left and number % left == 0:
                queue.insert(0, ("", number // left))
                name, number = "", left
            if left % number:
                return _plain(op.output), [_ALL_WHOLE]
            group.append((name, number))
        labels.append(tuple(group) or (("", 1),))
    before = {name for factors in op.layouts[0] for name, _ in factors}
    after = {name for factors in labels for name, _ in factors}
    return labels, [{a: _same if a in after or a not in before else _whole for a in AXES}]


def _multiplied(op: Operation) -> Found:
    """Products of matrices: pixels in the rows of the first stay apart, all others are mixed."""
    first = next((n for n, t in enumerate(op.args) if isinstance(t, Tensor) and t is op.inputs[0]), 0)
    spatial = any(name for name, _ in op.layouts[0][-1])
    rest = len(op.inputs) > 1 or first != len([t for t in op.args if isinstance(t, Tensor)]) - 2
    if spatial or rest:
        return _plain(op.output), [_ALL_WHOLE for _ in op.inputs]
    return [*op.layouts[0][:-1], (("", op.output.shape[-1]),)], [_ALL_SAME]


def _normalised(op: Operation) -> Found:
    """Layer normalisation: over the last dimensions."""
    if op.output.shape != op.inputs[0].shape:  # means and deviations, which nobody uses
        return _plain(op.output), [_ALL_WHOLE for _ in op.inputs]
    over = {name for factors in op.layouts[0][-len(op.args[1]) :] for name, _ in factors}
    return op.layouts[0], [{axis: _whole if axis in over else _same for axis in AXES}]


def _mixed(op: Operation) -> Found:
    return op.layouts[0] if op.output.shape == op.inputs[0].shape else _plain(op.output), [
        _ALL_WHOLE for _ in op.inputs
    ]


def _soft(op: Operation) -> Found:
    """Softmax over a dimension."""
    over = {name for name, _ in op.layouts[0][op.args[1]]}
    return op.layouts[0], [{axis: _whole if axis in over else _same for axis in AXES}]


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, tuple | list | torch.Size) else [value]
    return (int(values[0]), int(values[-1]))


_Find = Callable[[Operation], Found]
_OPERATIONS: dict[str, _Find] = {
    **dict.fromkeys(("convolution", "convolution_overrideable"), _convolved),
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "max_pool2d"), _pooled),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d"), _binned),
    **dict.fromkeys(("upsample_nearest2d", "_upsample_nearest_exact2d"), _interpolated(0, 0, nearest=True)),
    "upsample_bilinear2d": _interpolated(0, 1),
    "upsample_bicubic2d": _interpolated(1, 2),
    **dict.fromkeys(("constant_pad_nd", "replication_pad2d", "reflection_pad2d"), _padded),
    "slice": _sliced,
    "cat": _joined,
    "pixel_shuffle": _shuffled,
    "pixel_unshuffle": _unshuffled,
    **dict.fromkeys(
        ("mean", "sum", "amax", "amin", "max", "min", "prod", "var", "var_mean", "std"), _reduced
    ),
    **dict.fromkeys(("permute", "transpose", "t"), _permuted),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"), _reshaped),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), _multiplied),
    "native_layer_norm": _normalised,
    **dict.fromkeys(("_softmax", "_log_softmax"), _soft),
    **dict.fromkeys(("native_group_norm", "cumsum", "roll", "sort", "topk", "flip"), _mixed),
}
