"""Receptive fields: how far the input pixels reach that one output pixel depends on, exactly and without computing.

A network runs once on tensors that have shapes and no values, while each operation is written down. From one output
pixel, intervals of rows and columns are then followed back through them, by ``receptive_rules``. What mixes all pixels,
as global pooling or attention does, makes them infinite. Borders are left out of account.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rssegment.model.architectures.receptive_rules import AXES, Labels, Operation, Rule, Span, rules_of

__all__ = ["receptive_field"]

SIDE = 512  # px; large enough for every network's deepest layer to have several cells
_NORMALISATIONS = ("_native_batch_norm_legit_no_training", "_batch_norm_no_update")
PHASES = 128  # output pixels looked at: the field of a pixel depends on where in the deepest cell it lies


def receptive_field(network: nn.Module, bands: int, side: int = SIDE) -> float:
    """Side in px of the square of input pixels that an output pixel depends on at most; inf for the whole input.

    ``network`` is in evaluation mode and on the meta device; it takes (1, bands, side, side).

    Raises
    ------
    RuntimeError
        It looks at values on its way, which there are none of.
    """
    image = torch.empty(1, bands, side, side, device="meta")
    with torch.no_grad(), _Recorder(image) as recorder:
        logits = network(image)
    first = np.arange(side // 2 - PHASES // 2, side // 2 + PHASES // 2, dtype=np.float64)
    spans = recorder.followed(logits, dict.fromkeys(AXES, (first, first)))
    return max(float((high - low).max()) + 1 for low, high in spans.values())


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down which tensors each operation depends on, and how output indices lead to input indices."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.image = image
        self.labels: dict[int, Labels] = {id(image): [(("", 1),), (("", image.shape[1]),), *_square(image)]}
        self.steps: list[tuple[list[Tensor], Tensor, dict[str, Rule]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        result = _normalised(args) if name in _NORMALISATIONS else func(*args, **(kwargs or {}))
        outputs = [
            t for t in (result if isinstance(result, tuple | list) else [result]) if isinstance(t, Tensor)
        ]
        inputs = [t for t in _flat([*args, *(kwargs or {}).values()]) if id(t) in self.labels]
        if inputs and outputs:
            self.note(name, inputs, outputs, args)
        return result

    def note(self, name: str, inputs: list[Tensor], outputs: list[Tensor], args: tuple[Any, ...]) -> None:
        layouts = [self.labels[id(t)] for t in inputs]
        for output in outputs:
            layout, rules = rules_of(name, Operation(inputs, layouts, output, args))
            if all(output is not t for t in inputs):
                self.labels[id(output)] = layout
            for tensor, rule in zip(inputs, rules, strict=True):
                if tensor is not output:
                    self.steps.append(([output], tensor, rule))

    def followed(self, output: Tensor, spans: dict[str, Span]) -> dict[str, Span]:
        """Spans of the image that ``spans`` of ``output`` depend on."""
        reached: dict[int, dict[str, Span]] = {id(output): spans}
        for (out,), tensor, rules in reversed(self.steps):
            if id(out) not in reached:
                continue
            found = {axis: rules[axis](reached[id(out)][axis]) for axis in AXES}
            before = reached.get(id(tensor))
            reached[id(tensor)] = found if before is None else {a: _union(before[a], found[a]) for a in AXES}
        return reached[id(self.image)]


def _normalised(args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What batch normalisation gives in evaluation mode; torch itself takes half of all time to find its shape."""
    return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)


def _square(image: Tensor) -> Labels:
    return [(("y", image.shape[-2]),), (("x", image.shape[-1]),)]


def _flat(values: Sequence[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, tuple | list) else [value])]


def _union(a: Span, b: Span) -> Span:
    return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])
