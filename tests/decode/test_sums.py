"""Law 4: children's probabilities sum to the parent's, whatever the tree and wherever the probabilities come from."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rssegment.decode import Backoff, Cost, Leaf, Level, _layout, decide, marginals
from rssegment.errors import ModelError
from rssegment.taxonomy import Taxonomy
from tests.decode.trees import Floats, flat, grown, large_taxonomies, scored, softmax

Scored = tuple[Taxonomy, Floats]


def assert_coherent(tree: Taxonomy, nodes: Floats) -> None:
    """Children sum to their parent, and each level to 1, to 1e-6; a parent's is that sum, rounded once."""
    by_code = dict(zip((n.code for n in tree.nodes), nodes.astype(np.float64), strict=True))
    for node in tree.nodes:
        if children := tree.children(node):
            total = np.sum([by_code[child.code] for child in children], axis=0)
            np.testing.assert_allclose(by_code[node.code], total, rtol=0, atol=1e-6)
            added = np.zeros(nodes.shape[1:])
            for child in children:
                added += by_code[child.code]
            np.testing.assert_array_equal(by_code[node.code], added.astype(np.float32))
    for level in range(1, tree.depth + 1):
        total = np.sum([by_code[node.code] for node in tree.level(level)], axis=0)
        np.testing.assert_allclose(total, 1, rtol=0, atol=2e-6)


@st.composite
def probabilities_of(draw: st.DrawFn, tree: Taxonomy) -> Floats:
    """Leaf probabilities (L, 3, 7): from float32 or bfloat16 logits, or blended from several patches."""
    shape = (len(tree.leaves), 3, 7)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 0.1, 2.0, 20.0, 1000.0]))

    def one(kind: torch.dtype) -> Floats:
        logits = torch.from_numpy(rng.normal(size=shape) * scale).to(kind)
        return logits.float().softmax(0).numpy()

    if draw(st.booleans()):
        return one(draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])))
    weights = rng.dirichlet(np.ones(draw(st.integers(2, 4))), (3, 7)).astype(np.float32)
    blended = np.zeros(shape, np.float32)
    for k in range(weights.shape[2]):
        blended += one(torch.bfloat16) * weights[..., k]
    return blended


@given(large_taxonomies(), st.data())
def test_coherence(tree: Taxonomy, data: st.DataObject) -> None:
    probabilities = data.draw(probabilities_of(tree))
    nodes = marginals(probabilities, tree)
    assert nodes.dtype == np.float32
    assert_coherent(tree, nodes)
    for leaf, values in zip(tree.leaves, probabilities, strict=True):
        np.testing.assert_array_equal(nodes[tree.nodes.index(leaf)], values)


@settings(max_examples=50)
@given(large_taxonomies(), st.data())
def test_decided_paths_are_valid_and_level_maps_are_their_ancestors(
    tree: Taxonomy, data: st.DataObject
) -> None:
    probabilities = data.draw(probabilities_of(tree))
    row = {node.code: k for k, node in enumerate(tree.nodes)}
    nodes = marginals(probabilities, tree)
    levels = tuple(range(1, tree.depth + 1))
    legend = tree.with_undecided()
    for rule in (
        Leaf(),
        Level(data.draw(st.sampled_from(levels))),
        Backoff(data.draw(st.floats(0, 1))),
        Cost(),
    ):
        decision = decide(probabilities, tree, rule, levels=levels)
        assert np.isin(decision.codes, [node.code for node in legend.nodes]).all()
        maps = [legend.ancestor_lookup(level)[decision.codes] for level in levels]
        for pixel in np.ndindex(decision.codes.shape):
            path = [int(each[pixel]) for each in maps]
            along = [found[pixel] for found in decision.levels]
            assert path[-1] == decision.codes[pixel]
            if path[-1] == tree.undecided:
                assert set(path) == {tree.undecided}
                assert set(along) == {1}
                continue
            assert along == [nodes[row[code], *pixel] for code in path]
            for above, below in pairwise(path):
                assert above == below or tree.node(below).parent == above
            assert all(above >= below for above, below in pairwise(along))


@pytest.mark.parametrize("leaves", [2, 100, 299, 300])
def test_many_equal_children_sum_as_few_do(leaves: int) -> None:
    """Where float32 sums drift: 300 times 1/300, added one by one, is off by more than 1e-6."""
    values = np.full((leaves, 1, 1), 1 / leaves, np.float32)
    tree = Taxonomy.loads(
        "name: wide\nclasses:\n  - {code: 1, name: top, color: '#000000', classes: ["
        + ", ".join(f"{{code: {k}, name: n{k}, color: '#000000'}}" for k in range(2, leaves + 2))
        + "]}"
    )
    nodes = marginals(values, tree)
    assert nodes[0].item() == np.float32(math.fsum(values.ravel().tolist()))


@settings(max_examples=50)
@given(large_taxonomies(), st.data())
def test_marginals_of_a_part_are_the_part_of_the_marginals(tree: Taxonomy, data: st.DataObject) -> None:
    probabilities = softmax(tree, (4, 7), data.draw(st.integers(0, 99)))
    rows = slice(data.draw(st.integers(0, probabilities.shape[1] - 1)), None)
    whole = marginals(probabilities, tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_layout, "chunk_of", lambda nodes: data.draw(st.integers(1, 9)))
        patch.setattr(_layout, "NARROW", data.draw(st.integers(1, 9)))
        np.testing.assert_array_equal(marginals(probabilities[:, rows], tree), whole[:, rows])
    flat_pixels = probabilities.reshape(len(probabilities), -1)
    np.testing.assert_array_equal(marginals(flat_pixels, tree), whole.reshape(len(whole), -1))
    one = probabilities[:, 0, 0]
    np.testing.assert_array_equal(marginals(one, tree), whole[:, 0, 0])


@settings(max_examples=50)
@given(large_taxonomies(), st.integers(0, 99))
def test_torch_gives_the_same_bits_as_numpy(tree: Taxonomy, seed: int) -> None:
    probabilities = softmax(tree, (3, 5), seed)
    result = marginals(torch.from_numpy(probabilities), tree)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result.numpy(), marginals(probabilities, tree))


def test_sums_go_where_they_are_told() -> None:
    tree = grown(9, 3)
    probabilities = softmax(tree, (4, 5))
    out = np.full((len(tree.nodes), 4, 5), np.nan, np.float32)
    assert np.shares_memory(marginals(probabilities, tree, out), out)
    np.testing.assert_array_equal(out, marginals(probabilities, tree))
    for wrong in (out[1:], out[:, :2], out.astype(np.float64), np.asfortranarray(out), out.reshape(-1, 20)):
        with pytest.raises(ModelError, match=r"out is float.*; expected float32"):
            marginals(probabilities, tree, wrong)
    with pytest.raises(ModelError, match="and probabilities of float32"):
        marginals(torch.from_numpy(probabilities), tree, out)


@given(scored())
def test_other_floats_keep_their_kind(drawn: Scored) -> None:
    tree, probabilities = drawn
    wide = marginals(probabilities.astype(np.float64), tree)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, marginals(probabilities, tree), rtol=1e-6)
    half = marginals(torch.from_numpy(probabilities).bfloat16(), tree)
    assert half.dtype == torch.bfloat16


def test_gradients_pass_through_marginals() -> None:
    tree = Taxonomy.load("demo")
    leaves = torch.rand(8, 3, 3, requires_grad=True)
    marginals(leaves, tree).sum().backward()
    assert leaves.grad is not None
    np.testing.assert_array_equal(leaves.grad[:, 0, 0].numpy(), tree.membership.sum(axis=0))


def test_gradients_in_float64() -> None:
    tree = grown(7, 3)
    leaves = torch.rand(7, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: marginals(values, tree), leaves)


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4, 4), (0, 4, 4)])
def test_wrong_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="each of 3 leaves"):
        marginals(np.ones(shape, np.float32), flat(3))


@given(hnp.arrays(np.float32, (4, 2, 3), elements=st.floats(0, 1, width=32)))
def test_nan_of_a_leaf_reaches_all_above_it_and_no_other(values: Floats) -> None:
    tree = Taxonomy.loads(
        "name: two\nclasses:\n"
        "  - {code: 1, name: a, color: '#000000', classes: [{code: 2, name: b, color: '#000000'},"
        " {code: 3, name: c, color: '#000000'}]}\n"
        "  - {code: 4, name: d, color: '#000000', classes: [{code: 5, name: e, color: '#000000'},"
        " {code: 6, name: f, color: '#000000'}]}\n"
    )
    values[1, 0, 0] = np.nan
    assert np.isnan(marginals(values, tree)[:, 0, 0]).tolist() == [True, False, True, False, False, False]


def test_softmax_of_the_tests_sums_to_one() -> None:
    np.testing.assert_allclose(softmax(grown(50, 4), (8, 9)).sum(axis=0), 1, rtol=1e-6)
