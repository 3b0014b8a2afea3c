"""The class tree in a network: its head, and the probabilities of every node.

A *flat* head has one channel per leaf, its logit. A *hierarchical* head has one channel per node, a score; a leaf's
logit is the sum of the scores on its path from the top, so that classes under one parent share what makes them that
parent ("parameter-sharing softmax": Valmadre 2022, "Hierarchical classification at multiple operating points").
Either way softmax over the leaves gives their probabilities, and an inner node's is the sum of its leaves'.

All sums are taken node by node in the tree's order, elementwise: a pixel's value does not depend on the shape of the
batch, on the memory format, or on the device's way to multiply matrices.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from rssegment.errors import InputError, ModelError
from rssegment.taxonomy import Taxonomy

__all__ = ["Head", "Hierarchical", "PathSums", "head_codes", "node_log_probabilities", "node_sums"]

Head = Literal["flat", "hierarchical"]


def head_codes(taxonomy: Taxonomy, head: Head) -> tuple[int, ...]:
    """The code that each channel of a head stands for: the leaves', or all nodes' in pre-order.

    It is the ``channels`` of a bundle's spec, whose ``output`` is "logits" for a flat head and "scores" for a
    hierarchical one.

    Raises
    ------
    InputError
        There is no such head.
    """
    if head not in get_args(Head):
        raise InputError(f"there is no head {head!r}; expected one of {', '.join(get_args(Head))}")
    codes = taxonomy.leaf_codes if head == "flat" else taxonomy.arrays.codes
    return tuple(codes.tolist())


class PathSums(nn.Module):
    """Node scores (B, N, H, W), nodes in pre-order -> leaf logits (B, L, H, W): sums over each leaf's path.

    Sums go from the top down, in float32 at least, whatever the type of the scores. There is nothing to learn or to
    save in it. ``parents`` (N) are rows, a parent's before its children's, N or -1 at the top; ``leaves`` (L) are rows.
    """

    def __init__(self, parents: Sequence[int], leaves: Sequence[int]) -> None:
        super().__init__()
        self.parents = tuple(int(row) if row < len(parents) else -1 for row in parents)
        self.leaves = tuple(int(row) for row in leaves)

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Self:
        """The path sums of a taxonomy's leaves, in its order."""
        arrays = taxonomy.arrays
        return cls(arrays.parents.tolist(), arrays.leaves.tolist())

    def forward(self, scores: Tensor) -> Tensor:
        if scores.ndim < 2 or scores.shape[1] != len(self.parents):
            raise ModelError(
                f"scores have the shape {tuple(scores.shape)}; expected (B, {len(self.parents)}, H, W), "
                "one channel for each node of the taxonomy"
            )
        # channels one after the other: each is read as a whole
        sums = list(at_least_float32(scores).contiguous().unbind(1))  # N of (B, H, W)
        for row, parent in enumerate(self.parents):
            if parent >= 0:
                sums[row] = sums[parent] + sums[row]
        return torch.stack([sums[row] for row in self.leaves], 1)


class Hierarchical(nn.Module):
    """A network with a head, for training: (B, C, H, W) -> leaf logits (B, L, H, W), float32 at least.

    ``network`` gives the channels of :func:`head_codes`; of several outputs the one called "out" or "logits" is taken,
    or the first. Its weights alone go into a bundle: ``save_bundle(folder, model.network, spec, taxonomy)``.

    Raises
    ------
    InputError
        There is no such head.
    ModelError
        On a call: the network's output is no tensor, or has another number of channels.
    """

    def __init__(self, network: nn.Module, taxonomy: Taxonomy, head: Head = "hierarchical") -> None:
        super().__init__()
        self.network = network
        self.head: Head = head
        self.channels = len(head_codes(taxonomy, head))
        self.paths = PathSums.of(taxonomy) if head == "hierarchical" else None

    def forward(self, values: Tensor) -> Tensor:
        return self.leaf_logits(main_output(self.network(values), "the network"))

    def leaf_logits(self, output: Tensor) -> Tensor:
        """Leaf logits (B, L, H, W), float32 at least, of what the network gave (B, K, H, W)."""
        if output.ndim < 2 or output.shape[1] != self.channels:
            raise ModelError(
                f"the network gave an output of shape {tuple(output.shape)}; "
                f"a {self.head} head on this taxonomy has {self.channels} channels"
            )
        logits: Tensor = at_least_float32(output) if self.paths is None else self.paths(output)
        return logits


def node_sums(leaves: Sequence[Tensor], taxonomy: Taxonomy) -> list[Tensor]:
    """For every node in pre-order the sum over the leaves under it, of L tensors of one shape."""
    return taxonomy.arrays.fold(leaves, lambda parts: reduce(operator.add, parts[::-1]))


def node_log_probabilities(leaf_logits: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Log-probabilities of all nodes in pre-order (B, N, H, W) of leaf logits (B, L, H, W), float32 at least.

    A parent's is the logsumexp of its children's: exact where probabilities themselves would be 0 or 1.
    """

    def united(parts: list[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else torch.stack(parts).logsumexp(0)

    leaves = at_least_float32(leaf_logits).log_softmax(1).unbind(1)
    return torch.stack(taxonomy.arrays.fold(leaves, united), 1)


def at_least_float32(values: Tensor) -> Tensor:
    """Half and integer types as float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def main_output(output: Any, who: str) -> Tensor:
    """The tensor of a network's output: of several, the one called "out" or "logits", or the first.

    Raises
    ------
    ModelError
        There is none; ``who`` gave it.
    """
    if isinstance(output, dict):
        output = output.get("out", output.get("logits", output))
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ModelError(f"{who} gave a {type(output).__name__}; expected a tensor (B, channels, H, W)")
    return output
