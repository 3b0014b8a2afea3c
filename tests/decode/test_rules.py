"""Decisions: leaf argmax against brute force, the coherence law on drawn trees, confidence as bytes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.decode import decide_leaf, dequantize_confidence, marginals, quantize_confidence, rules
from rssegment.errors import ModelError
from rssegment.taxonomy import Taxonomy
from rssegment.taxonomy.tree import arrange
from rssegment.taxonomy.yaml_form import Entry


@st.composite
def taxonomies(draw: st.DrawFn) -> Taxonomy:
    codes = draw(st.lists(st.integers(1, 65535), min_size=1, max_size=12, unique=True))
    parents = [draw(st.none() | st.sampled_from(codes[:i])) if i else None for i in range(len(codes))]
    entries = [Entry(c, f"c{c}", (0, 0, 0), parent=p) for c, p in zip(codes, parents, strict=True)]
    return Taxonomy("drawn", arrange(entries, "drawn"))


def flat(leaves: int) -> Taxonomy:
    return Taxonomy.flat("flat", {10 * i: (f"c{i}", (i, 0, 0)) for i in range(1, leaves + 1)})


@st.composite
def scored(draw: st.DrawFn) -> tuple[Taxonomy, NDArray[np.float32]]:
    """A tree and leaf probabilities (L, H, W) that sum to 1; few distinct values, so that ties are common."""
    tree = draw(taxonomies())
    shape = (len(tree.leaves), draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    weights = draw(hnp.arrays(np.float32, shape, elements=st.integers(1, 4).map(float)))
    return tree, weights / weights.sum(axis=0)


@given(scored(), st.sampled_from([1, 3, 1 << 15]), st.data())
def test_decide_leaf_equals_brute_force(
    drawn: tuple[Taxonomy, NDArray[np.float32]], chunk: int, data: st.DataObject
) -> None:
    tree, probabilities = drawn
    shape = probabilities.shape[1:]
    valid = data.draw(st.none() | hnp.arrays(bool, shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_CHUNK", chunk)
        decision = decide_leaf(probabilities, tree, valid)
    for pixel in np.ndindex(shape):
        values = probabilities[:, *pixel].tolist()
        ranked = sorted(range(len(values)), key=lambda channel: (-values[channel], channel))
        runner_up = values[ranked[1]] if len(values) > 1 else 0.0
        expected = (
            tree.leaves[ranked[0]].code,
            values[ranked[0]],
            np.float32(values[ranked[0]]) - np.float32(runner_up),
        )
        if valid is not None and not valid[pixel]:
            expected = (0, 0.0, 0.0)
        assert tuple(part[pixel] for part in decision) == expected


def test_types_and_shapes() -> None:
    decision = decide_leaf(np.full((3, 4, 5), 1 / 3, np.float32), flat(3))
    assert [part.dtype for part in decision] == [np.uint16, np.float32, np.float32]
    assert {part.shape for part in decision} == {(4, 5)}


def test_ties_go_to_the_lowest_channel() -> None:
    probabilities = np.array([0.2, 0.4, 0.4, 0.0], np.float32).reshape(4, 1, 1)
    codes, confidence, margin = decide_leaf(probabilities, flat(4))
    assert codes.item() == 20
    assert confidence.item() == np.float32(0.4)
    assert margin.item() == 0


def test_one_leaf() -> None:
    codes, confidence, margin = decide_leaf(np.ones((1, 2, 2), np.float32), flat(1))
    assert (codes == 10).all()
    assert (confidence == 1).all()
    assert (margin == 1).all()


def test_no_pixels() -> None:
    for shape in ((0, 5), (5, 0)):
        assert decide_leaf(np.ones((2, *shape), np.float32), flat(2)).codes.shape == shape


@given(st.integers(0, 2), st.integers(0, 3))
def test_nan_is_an_error_where_valid_and_no_data_elsewhere(channel: int, col: int) -> None:
    probabilities = np.full((3, 2, 4), 1 / 3, np.float32)
    probabilities[channel, 1, col] = np.nan
    with pytest.raises(ModelError, match="NaN for 1 of 8 pixels"):
        decide_leaf(probabilities, flat(3))
    valid = np.ones((2, 4), bool)
    valid[1, col] = False
    decision = decide_leaf(probabilities, flat(3), valid)
    assert (decision.codes == np.where(valid, 10, 0)).all()
    assert decision.confidence[1, col] == decision.margin[1, col] == 0


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4, 4), (3, 4), (1, 3, 4, 4)])
def test_wrong_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(3, rows, columns\)"):
        decide_leaf(np.ones(shape, np.float32), flat(3))
    if len(shape) == 3:
        with pytest.raises(ModelError, match="each of 3 leaves"):
            marginals(np.ones(shape, np.float32), flat(3).membership)


def test_inputs_are_left_alone_and_layout_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    pixels_last = rng.random((6, 9, 4), np.float32)
    before = pixels_last.copy()
    strided = np.moveaxis(pixels_last, 2, 0)
    for one, other in zip(
        decide_leaf(strided, flat(4)), decide_leaf(np.ascontiguousarray(strided), flat(4)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(pixels_last, before)


@given(scored())
def test_coherence(drawn: tuple[Taxonomy, NDArray[np.float32]]) -> None:
    """Law 4: children's probabilities sum to the parent's, each level sums to 1, leaves are unchanged."""
    tree, probabilities = drawn
    nodes = dict(zip((n.code for n in tree.nodes), marginals(probabilities, tree.membership), strict=True))
    for node in tree.nodes:
        if children := tree.children(node):
            total = np.sum([nodes[child.code] for child in children], axis=0)
            np.testing.assert_allclose(nodes[node.code], total, rtol=1e-5)
    for level in range(1, tree.depth + 1):
        np.testing.assert_allclose(sum(nodes[n.code] for n in tree.level(level)), 1, rtol=1e-5)
    for leaf, values in zip(tree.leaves, probabilities, strict=True):
        np.testing.assert_array_equal(nodes[leaf.code], values)


@given(scored())
def test_the_decided_leafs_ancestors_are_at_least_as_probable(
    drawn: tuple[Taxonomy, NDArray[np.float32]],
) -> None:
    tree, probabilities = drawn
    nodes = dict(zip((n.code for n in tree.nodes), marginals(probabilities, tree.membership), strict=True))
    decision = decide_leaf(probabilities, tree)
    for pixel in np.ndindex(decision.codes.shape):
        path = [*tree.ancestors(int(decision.codes[pixel])), tree.node(int(decision.codes[pixel]))]
        along = [nodes[node.code][pixel] for node in path]
        assert all(above >= below for above, below in pairwise(along))
        assert along[-1] == decision.confidence[pixel]


@given(scored(), st.data())
def test_marginals_of_a_part_are_the_part_of_the_marginals(
    drawn: tuple[Taxonomy, NDArray[np.float32]], data: st.DataObject
) -> None:
    tree, probabilities = drawn
    rows = slice(data.draw(st.integers(0, probabilities.shape[1] - 1)), None)
    whole = marginals(probabilities, tree.membership)
    np.testing.assert_array_equal(marginals(probabilities[:, rows], tree.membership), whole[:, rows])


@given(scored())
def test_torch_gives_the_same_bits_as_numpy(drawn: tuple[Taxonomy, NDArray[np.float32]]) -> None:
    tree, probabilities = drawn
    tensor = torch.from_numpy(probabilities)
    result = marginals(tensor, tree.membership)
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result.numpy(), marginals(probabilities, tree.membership))


def test_gradients_pass_through_marginals() -> None:
    tree = Taxonomy.load("demo")
    leaves = torch.rand(8, 3, 3, requires_grad=True)
    nodes = marginals(leaves, tree.membership)
    nodes.sum().backward()
    assert leaves.grad is not None
    np.testing.assert_array_equal(leaves.grad[:, 0, 0].numpy(), tree.membership.sum(axis=0))


@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(0, 1 + 2**-19, width=32, allow_subnormal=False)),
    hnp.arrays(bool, (3, 4)),
)
def test_confidence_as_bytes(confidence: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
    quantized = quantize_confidence(confidence, valid)
    assert quantized.dtype == np.uint8
    np.testing.assert_array_equal(quantized == 255, ~valid)
    back = dequantize_confidence(quantized)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(back), ~valid)
    assert (np.abs(back - confidence)[valid] <= 1 / 508 + 1e-5).all()
    np.testing.assert_array_equal(quantize_confidence(np.nan_to_num(back), valid), quantized)


def test_confidence_keeps_its_ends() -> None:
    values = np.array([[0.0, 1.0, 0.5, 1.0000002, np.nan]], np.float32)
    valid = np.array([[True, True, True, True, False]])
    assert quantize_confidence(values, valid).tolist() == [[0, 254, 127, 254, 255]]
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    restored = dequantize_confidence(every)
    np.testing.assert_array_equal(quantize_confidence(restored, every != 255), every)


def test_confidence_nan_at_a_valid_pixel() -> None:
    with pytest.raises(ModelError, match="NaN"):
        quantize_confidence(np.array([[np.nan]], np.float32), np.array([[True]]))
