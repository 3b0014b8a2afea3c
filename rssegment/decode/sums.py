"""Probabilities of all nodes of a tree from those of its leaves."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from rssegment.decode._layout import Tree, pixels_of
from rssegment.errors import ModelError
from rssegment.taxonomy import Taxonomy

if TYPE_CHECKING:
    import torch

__all__ = ["marginals"]

Probabilities = TypeVar("Probabilities", NDArray[np.floating], "torch.Tensor")


def marginals(
    probabilities: Probabilities, taxonomy: Taxonomy, out: NDArray[np.float32] | None = None
) -> Probabilities:
    """Probabilities of all nodes (N, ...) in pre-order from those of the leaves (L, ...) in channel order.

    Law: a parent's probability is the sum of its children's, added in order in float64 and rounded once. So it doesn't
    depend on shapes, and it is never less than a child's. Tensors keep their device and their gradients.

    ``out`` (N, ...), C-contiguous, is filled and returned; for arrays of float32. Where this is done again and again,
    that saves the system the work of finding memory, which may be more than that of the sums.

    Raises
    ------
    ModelError
        The channels are not the taxonomy's leaves, or ``out`` doesn't fit.
    """
    leaves = len(taxonomy.leaf_codes)
    if len(probabilities) != leaves:
        raise ModelError(
            f"probabilities have {len(probabilities)} channels; expected one for each of {leaves} leaves"
        )
    floats = isinstance(probabilities, np.ndarray) and probabilities.dtype == np.float32
    if out is not None and not (floats and _fits(out, (len(taxonomy.nodes), *probabilities.shape[1:]))):
        raise ModelError(
            f"out is {out.dtype} {out.shape}; expected float32 ({len(taxonomy.nodes)}, ...) of the shape of the "
            "probabilities, C-contiguous and writable, and probabilities of float32"
        )
    if not isinstance(probabilities, np.ndarray):
        return _of_tensor(probabilities, taxonomy)
    if floats:
        return _of_floats(probabilities, taxonomy, out)
    kind = probabilities.dtype
    rows = taxonomy.arrays.fold([*probabilities], lambda parts: _sum(parts).astype(kind))
    return np.stack(rows)


def _sum(parts: list[NDArray[np.floating]]) -> NDArray[np.float64]:
    return reduce(operator.add, [part.astype(np.float64) for part in parts])


def _fits(out: NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    return out.shape == shape and out.dtype == np.float32 and out.flags.c_contiguous and out.flags.writeable


def _of_floats(
    probabilities: NDArray[np.float32], taxonomy: Taxonomy, out: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    from rssegment.decode import _kernels  # compiled when first imported

    tree, shape = Tree.of(taxonomy), probabilities.shape[1:]
    as_image = probabilities if len(shape) == 2 else probabilities.reshape(len(probabilities), 1, -1)
    nodes = np.empty((len(taxonomy.nodes), as_image[0].size), np.float32)
    if out is not None:
        nodes = out.reshape(nodes.shape)
    for source, layout in pixels_of(as_image, len(nodes) + 1):
        _kernels.sums(source, layout, tree.leaves, tree.first, tree.children, nodes)
    return nodes.reshape(len(nodes), *shape)


def _of_tensor(probabilities: torch.Tensor, taxonomy: Taxonomy) -> torch.Tensor:
    import torch

    kind = probabilities.dtype
    wide = torch.float32 if probabilities.device.type == "mps" else torch.float64  # Metal has no float64
    return torch.stack(
        taxonomy.arrays.fold(
            [*probabilities],
            lambda parts: reduce(operator.add, [part.to(wide) for part in parts]).to(kind),
        )
    )
