"""Drawn trees, probabilities of their leaves, and slow decisions to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.taxonomy import Node, Taxonomy
from rssegment.taxonomy.tree import arrange
from rssegment.taxonomy.yaml_form import Entry

__all__ = ["flat", "grown", "large_taxonomies", "scored", "softmax", "taxonomies", "walked"]

Floats = NDArray[np.float32]


def flat(leaves: int) -> Taxonomy:
    return Taxonomy.flat("flat", {10 * i: (f"c{i}", (i, 0, 0)) for i in range(1, leaves + 1)})


def tree_of(codes: Sequence[int], parents: Sequence[int | None]) -> Taxonomy:
    entries = [Entry(c, f"c{c}", (0, 0, 0), parent=p) for c, p in zip(codes, parents, strict=True)]
    return Taxonomy("drawn", arrange(entries, "drawn"))


@st.composite
def taxonomies(draw: st.DrawFn) -> Taxonomy:
    """Small trees of any shape and any codes."""
    codes = draw(st.lists(st.integers(1, 65534), min_size=1, max_size=12, unique=True))
    codes = [code for code in codes if code != 255] or [1]
    parents = [draw(st.none() | st.sampled_from(codes[:i])) if i else None for i in range(len(codes))]
    return tree_of(codes, parents)


@st.composite
def large_taxonomies(draw: st.DrawFn) -> Taxonomy:
    """Trees of at most 6 levels and 300 leaves."""
    seed, leaves = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 300))
    return grown(leaves, draw(st.integers(1, 6)), seed)


def grown(leaves: int, depth: int, seed: int = 0) -> Taxonomy:
    """A random tree with so many leaves and at most ``depth`` levels; some parents have an only child."""
    rng = np.random.default_rng(seed)
    parents: list[int | None] = []

    def grow(parent: int | None, count: int, level: int) -> None:
        if level == depth:
            parents.extend([parent] * count)
            return
        groups = rng.integers(1, count, endpoint=True)
        sizes = np.bincount(rng.integers(0, groups, count), minlength=groups)
        for size in sizes[sizes > 0].tolist():
            parents.append(parent)
            if size > 1 or rng.random() < 0.2:
                grow(len(parents), size, level + 1)

    grow(None, leaves, 1)
    return tree_of(range(1, len(parents) + 1), parents)


@st.composite
def scored(draw: st.DrawFn, trees: st.SearchStrategy[Taxonomy] | None = None) -> tuple[Taxonomy, Floats]:
    """A tree and leaf probabilities (L, H, W) that sum to 1; few distinct values, so that ties are common."""
    tree = draw(taxonomies() if trees is None else trees)
    shape = (len(tree.leaves), draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    weights = draw(hnp.arrays(np.float32, shape, elements=st.integers(1, 4).map(float)))
    return tree, weights / weights.sum(axis=0)


def softmax(tree: Taxonomy, shape: tuple[int, ...], seed: int = 0, spread: float = 2.0) -> Floats:
    """Probabilities (L, *shape) of random logits."""
    logits = np.random.default_rng(seed).normal(0, spread, (len(tree.leaves), *shape)).astype(np.float32)
    weights = np.exp(logits - logits.max(axis=0))
    return weights / weights.sum(axis=0, dtype=np.float32)


def walked(tree: Taxonomy, nodes: Floats, tau: float) -> list[Node]:
    """The nodes (N,) that back-off at ``tau`` goes through for one pixel, top first: in plain Python."""
    row = {node.code: k for k, node in enumerate(tree.nodes)}
    path: list[Node] = []
    children = [node for node in tree.nodes if node.parent is None]
    while children:
        best = max(children, key=lambda node: nodes[row[node.code]])  # the first of equals
        if not nodes[row[best.code]] >= np.float32(tau):
            break
        path.append(best)
        children = list(tree.children(best))
    return path
