"""Random class trees, and labels of any level on them."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from rssegment.taxonomy import Taxonomy
from rssegment.taxonomy.tree import arrange
from rssegment.taxonomy.yaml_form import Entry


@st.composite
def trees(draw: st.DrawFn, most: int = 12, *, flat: bool = False) -> Taxonomy:
    """Up to ``most`` nodes with codes in no order; chains of only children and uneven depths occur."""
    count = draw(st.integers(1, most))
    codes = draw(st.lists(st.integers(1, 65534), min_size=count, max_size=count, unique=True))
    parents = [None if flat or k == 0 else draw(st.sampled_from([None, *codes[:k]])) for k in range(count)]
    entries = [Entry(c, f"n{c}", (c % 256, 0, 0), parent=p) for c, p in zip(codes, parents, strict=True)]
    return Taxonomy("random", arrange(entries, "random"))


def draw_logits(taxonomy: Taxonomy, seed: int, size: tuple[int, int, int] = (2, 3, 4)) -> Tensor:
    """(B, L, H, W) float64."""
    batch, height, width = size
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, len(taxonomy.leaves), height, width)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64)


def draw_labels(
    taxonomy: Taxonomy,
    seed: int,
    size: tuple[int, int, int] = (2, 3, 4),
    *,
    leaves: bool = False,
    ignore: bool = True,
) -> Tensor:
    """(B, H, W) int64 of codes of all nodes or of leaves only, and of 0 if ``ignore``; the first pixel has a label."""
    codes = [node.code for node in (taxonomy.leaves if leaves else taxonomy.nodes)]
    codes = torch.tensor(([0] if ignore else []) + codes)
    generator = torch.Generator().manual_seed(seed + 1)
    labels = codes[torch.randint(0, len(codes), size, generator=generator)]
    labels[0, 0, 0] = codes[-1]
    return labels
