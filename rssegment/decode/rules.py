"""Decisions on blended probabilities, taken once a pixel's patches have all been averaged.

Every function works pixel by pixel in a fixed order of channels, so its result never depends on how a
scene was cut, down to the last bit.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from rssegment.errors import ModelError
from rssegment.taxonomy import Taxonomy

__all__ = [
    "CONFIDENCE_NODATA",
    "Decision",
    "decide_leaf",
    "dequantize_confidence",
    "marginals",
    "quantize_confidence",
]

CONFIDENCE_NODATA = 255
_STEPS = 254
_CHUNK = 1 << 15  # pixels decided at a time: the working set stays in the processor's second-level cache

Probabilities = TypeVar("Probabilities", NDArray[np.floating], torch.Tensor)


class Decision(NamedTuple):
    """Decided classes (H, W) uint16, 0 no data; their probability; its lead over the next leaf's. Both float32."""

    codes: NDArray[np.uint16]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]


def decide_leaf(
    probabilities: NDArray[np.float32], taxonomy: Taxonomy, valid: NDArray[np.bool_] | None = None
) -> Decision:
    """The most probable leaf of each pixel; of equals, the one with the lowest channel.

    ``probabilities`` is (L, H, W) with channels in the order of ``taxonomy.leaves``. Where ``valid`` (H, W) is
    false, the code, the confidence and the margin are 0. With one leaf the margin is its probability.

    Raises
    ------
    ModelError
        The channels are not the taxonomy's leaves, or a valid pixel has NaN.
    """
    leaves = taxonomy.leaf_codes
    if probabilities.ndim != 3 or len(probabilities) != len(leaves):
        raise ModelError(
            f"probabilities have shape {probabilities.shape}; expected ({len(leaves)}, rows, columns), "
            f"one channel for each leaf of taxonomy {taxonomy.name!r}"
        )
    shape = probabilities.shape[1:]
    codes = np.full(shape, leaves[0], np.uint16)
    confidence, margin = np.empty(shape, np.float32), np.empty(shape, np.float32)
    rows = max(1, _CHUNK // max(1, shape[1]))
    for row in range(0, shape[0], rows):
        part = slice(row, row + rows)
        _top_two(probabilities[:, part], leaves, codes[part], confidence[part], margin[part])
    if valid is not None:
        for values in (codes, confidence, margin):
            np.copyto(values, 0, where=~valid)
    if missing := int(np.count_nonzero(np.isnan(confidence))):
        raise ModelError(
            f"the model gave NaN for {missing} of {confidence.size} pixels; no class can be decided there"
        )
    return Decision(codes, confidence, margin)


def _top_two(
    probabilities: NDArray[np.float32],
    leaves: NDArray[np.uint16],
    codes: NDArray[np.uint16],
    first: NDArray[np.float32],
    margin: NDArray[np.float32],
) -> None:
    """Fills codes, largest value and its lead, (h, w) each, in one pass over the channels; NaN spreads to both."""
    first[...] = probabilities[0]
    second = np.zeros_like(first)
    lower, better = np.empty_like(first), np.empty(first.shape, bool)
    for channel, code in zip(probabilities[1:], leaves[1:], strict=True):
        np.greater(channel, first, out=better)
        np.copyto(codes, code, where=better)
        np.minimum(first, channel, out=lower)
        np.maximum(second, lower, out=second)
        np.maximum(first, channel, out=first)
    np.subtract(first, second, out=margin)


def marginals(probabilities: Probabilities, membership: NDArray[np.bool_]) -> Probabilities:
    """Probabilities of all nodes (N, ...) from those of the leaves (L, ...): each node's is its leaves' sum.

    ``membership`` (N, L) is the taxonomy's. Law: a parent's probability is the sum of its children's. Leaves are
    added one by one in channel order and not by a matrix product, whose order changes with the shape.
    """
    if probabilities.shape[0] != membership.shape[1]:
        raise ModelError(
            f"probabilities have {probabilities.shape[0]} channels; "
            f"expected one for each of {membership.shape[1]} leaves"
        )
    shape = (len(membership), *probabilities.shape[1:])
    nodes: Probabilities
    if isinstance(probabilities, torch.Tensor):
        nodes = probabilities.new_empty(shape)
    else:
        nodes = np.empty(shape, probabilities.dtype)
    for node, leaves in enumerate(membership):
        first, *others = np.flatnonzero(leaves).tolist()
        nodes[node] = probabilities[first]
        for leaf in others:
            nodes[node] += probabilities[leaf]
    return nodes


def quantize_confidence(confidence: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Probabilities (H, W) as bytes: 0 to 254 in steps of 1/254, 255 where not ``valid``.

    Raises
    ------
    ModelError
        A valid pixel has NaN.
    """
    scaled = np.where(valid, confidence, np.float32(0))
    if np.isnan(scaled).any():
        raise ModelError("confidence is NaN at valid pixels")
    np.multiply(scaled, _STEPS, out=scaled)
    np.clip(np.rint(scaled, out=scaled), 0, _STEPS, out=scaled)  # sums of float32 may pass 1 by a few units
    quantized = scaled.astype(np.uint8)
    quantized[~valid] = CONFIDENCE_NODATA
    return quantized


def dequantize_confidence(quantized: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (H, W) from bytes, within 1/508 of what was stored; NaN where there is no data."""
    table = np.append(np.arange(CONFIDENCE_NODATA, dtype=np.float32) / _STEPS, np.nan).astype(np.float32)
    return table[quantized]
