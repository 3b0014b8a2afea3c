"""Every rule against a slow one, and what must never change a pixel's decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.decode import (
    Backoff,
    Cost,
    Decision,
    Leaf,
    Level,
    Rule,
    _layout,
    decide,
    marginals,
)
from rssegment.errors import InputError, ModelError, SettingsError, TaxonomyError
from rssegment.taxonomy import Node, Taxonomy
from tests.decode.trees import Floats, flat, grown, large_taxonomies, scored, softmax, tree_of, walked

Scored = tuple[Taxonomy, Floats]

RULES: tuple[Rule, ...] = (Leaf(), Level(1), Backoff(0.0), Backoff(0.4), Backoff(0.9), Cost())


@st.composite
def rules(draw: st.DrawFn, tree: Taxonomy) -> Rule:
    """Any rule that fits ``tree``."""
    size = len(tree.leaves)
    matrix = draw(hnp.arrays(np.float64, (size, size), elements=st.integers(0, 3).map(float)))
    return draw(
        st.sampled_from([Leaf(), Cost(), Cost(matrix)])
        | st.builds(Level, st.integers(1, tree.depth))
        | st.builds(Backoff, st.floats(0, 1))
    )


def all_parts(decision: Decision) -> list[NDArray[np.generic]]:
    return [decision.codes, decision.confidence, decision.margin, *decision.levels]


def read_only(values: Floats) -> Floats:
    copy = values.copy()
    copy.flags.writeable = False
    return copy


# The same numbers, lying in memory in other ways
LAYOUTS: tuple[Callable[[Floats], Floats], ...] = (
    np.copy,
    np.asfortranarray,
    read_only,
    lambda values: np.moveaxis(np.ascontiguousarray(np.moveaxis(values, 0, 2)), 2, 0),
    lambda values: np.pad(values, ((0, 0), (2, 3), (0, 0)))[:, 2:-3],
    lambda values: np.pad(values, ((0, 0), (1, 0), (1, 4)))[:, 1:, 1:-4],
    lambda values: np.ascontiguousarray(values[:, ::-1])[:, ::-1],
    lambda values: np.ascontiguousarray(values[::-1])[::-1],
    lambda values: np.repeat(values, 2, axis=2)[:, :, ::2],
    lambda values: values.astype(">f4"),
    lambda values: values.astype(np.float64),
    lambda values: np.broadcast_to(values, (2, *values.shape))[1],
)


def assert_same(one: Decision, other: Decision) -> None:
    for a, b in zip(all_parts(one), all_parts(other), strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def pixels(tree: Taxonomy, probabilities: Floats) -> Iterator[tuple[tuple[int, ...], dict[int, np.float32]]]:
    """For each pixel the probabilities of nodes by code."""
    nodes = marginals(probabilities, tree)
    for pixel in np.ndindex(probabilities.shape[1:]):
        yield pixel, {node.code: nodes[k, *pixel] for k, node in enumerate(tree.nodes)}


def lead(best: np.float32, others: list[np.float32]) -> np.float32:
    return best - max(others, default=np.float32(0))


# Against slow ones


@given(scored(), st.data())
def test_leaf_and_level_are_the_first_most_probable_of_their_cut(drawn: Scored, data: st.DataObject) -> None:
    tree, probabilities = drawn
    level = data.draw(st.integers(1, tree.depth))
    for rule, cut in ((Leaf(), tree.leaves), (Level(level), tree.level(level))):
        decision = decide(probabilities, tree, rule)
        for pixel, values in pixels(tree, probabilities):
            best = max(cut, key=lambda node: values[node.code]).code
            others = [values[node.code] for node in cut if node.code != best]
            assert decision.codes[pixel] == best
            assert decision.confidence[pixel] == values[best]
            assert decision.margin[pixel] == lead(values[best], others)


def test_the_deepest_level_is_leaf() -> None:
    tree = grown(40, 4)
    probabilities = softmax(tree, (9, 31))
    assert_same(decide(probabilities, tree, Level(tree.depth)), decide(probabilities, tree, Leaf()))


@given(scored(), st.floats(0, 1))
def test_backoff_walks_down_while_the_best_child_is_probable_enough(drawn: Scored, tau: float) -> None:
    tree, probabilities = drawn
    decision = decide(probabilities, tree, Backoff(tau))
    nodes = marginals(probabilities, tree)
    for pixel, values in pixels(tree, probabilities):
        path = walked(tree, nodes[:, *pixel], tau)
        if not path:
            assert decision.codes[pixel] == tree.undecided
            assert decision.confidence[pixel] == decision.margin[pixel] == 1
            continue
        best = path[-1]
        siblings = [n for n in tree.nodes if n.parent == best.parent and n != best]
        assert decision.codes[pixel] == best.code
        assert decision.confidence[pixel] == values[best.code] >= np.float32(tau)
        assert decision.margin[pixel] == lead(values[best.code], [values[n.code] for n in siblings])


@given(scored(), st.floats(0.5, 1, exclude_min=True))
def test_above_one_half_backoff_is_the_deepest_node_with_that_probability(drawn: Scored, tau: float) -> None:
    tree, probabilities = drawn
    decision = decide(probabilities, tree, Backoff(tau))
    for pixel, values in pixels(tree, probabilities):
        sure = [node for node in tree.nodes if values[node.code] >= np.float32(tau)]
        deepest = max(sure, key=lambda node: node.level, default=None)
        assert decision.codes[pixel] == (tree.undecided if deepest is None else deepest.code)


@given(scored(), st.floats(0, 1), st.floats(0, 1))
def test_decisions_are_nested_as_tau_falls(drawn: Scored, one: float, other: float) -> None:
    tree, probabilities = drawn
    sure, bold = (
        decide(probabilities, tree, Backoff(tau)).codes for tau in sorted((one, other), reverse=True)
    )
    for pixel in np.ndindex(sure.shape):
        if sure[pixel] != tree.undecided:
            path = {node.code for node in (*tree.ancestors(int(bold[pixel])), tree.node(int(bold[pixel])))}
            assert sure[pixel] in path


@given(scored())
def test_cost_decides_the_leaf_of_least_expected_distance(drawn: Scored) -> None:
    tree, probabilities = drawn
    among = tree.arrays.distances[np.ix_(tree.arrays.leaves, tree.arrays.leaves)]
    expected = np.einsum("kl,lhw->khw", among, probabilities.astype(np.float64))
    decision = decide(probabilities, tree, Cost())
    for pixel, values in pixels(tree, probabilities):
        chosen = tree.leaf_codes.tolist().index(decision.codes[pixel])
        assert expected[:, *pixel].min() == pytest.approx(expected[chosen, *pixel], abs=1e-5)
        others = [values[leaf.code] for leaf in tree.leaves if leaf.code != decision.codes[pixel]]
        own = values[int(decision.codes[pixel])]
        assert decision.confidence[pixel] == own
        assert decision.margin[pixel] == max(np.float32(0), lead(own, others))


@pytest.mark.parametrize("seed", range(4))
def test_path_sums_decide_as_the_matrix_of_distances(seed: int) -> None:
    """Random probabilities have no ties but by accident, and then either is right."""
    tree = grown(60, 5, seed)
    probabilities = softmax(tree, (40, 40), seed)
    among = tree.arrays.distances[np.ix_(tree.arrays.leaves, tree.arrays.leaves)]
    assert_same(decide(probabilities, tree, Cost()), decide(probabilities, tree, Cost(among)))


@given(scored())
def test_on_a_flat_tree_distances_decide_the_most_probable_leaf(drawn: Scored) -> None:
    probabilities = drawn[1]
    tree = flat(len(probabilities))
    assert_same(decide(probabilities, tree, Cost()), decide(probabilities, tree, Leaf()))


@pytest.mark.parametrize("seed", range(4))
def test_equal_costs_of_all_mistakes_decide_the_most_probable_leaf(seed: int) -> None:
    tree = grown(50, 3, seed)
    probabilities = softmax(tree, (30, 50), seed)
    rule = Cost(1 - np.eye(50))
    assert_same(decide(probabilities, tree, rule), decide(probabilities, tree, Leaf()))


@pytest.mark.parametrize("seed", range(4))
def test_of_all_nodes_least_expected_distance_is_backoff_at_one_half(seed: int) -> None:
    """A tree's weighted median: from any node, going to a child pays as long as its P is above one half."""
    tree = grown(60, 6, seed)
    probabilities = softmax(tree, (40, 40), seed, spread=4.0)
    arrays = tree.arrays
    rule = Cost(arrays.distances[:, arrays.leaves], (*arrays.codes.tolist(), tree.undecided))
    costs, backoff = decide(probabilities, tree, rule), decide(probabilities, tree, Backoff(0.5))
    np.testing.assert_array_equal(costs.codes, backoff.codes)
    np.testing.assert_array_equal(costs.confidence, backoff.confidence)
    assert len(np.unique(costs.codes)) > 10
    assert tree.undecided in costs.codes


def test_costs_by_hand() -> None:
    """Missing water is dear, so it is decided though unlikely; the next leaf's lead over it is no lead."""
    tree = flat(3)
    probabilities = np.array([0.5, 0.3, 0.2], np.float32).reshape(3, 1, 1)
    rule = Cost([[0, 1, 9], [1, 0, 9], [1, 1, 0]])  # expected: 2.1, 2.3, 0.8
    codes, confidence, margin, _ = decide(probabilities, tree, rule)
    assert (codes.item(), confidence.item(), margin.item()) == (30, np.float32(0.2), 0)


def test_a_parent_leads_over_leaves_that_are_not_under_it() -> None:
    tree = tree_of([1, 2, 3, 4], [None, 1, 1, None])  # 1 over leaves 2 and 3; leaf 4
    probabilities = np.array([0.35, 0.25, 0.4], np.float32).reshape(3, 1, 1)
    codes, confidence, margin, levels = decide(
        probabilities, tree, Cost([[0, 0, 1], [1, 1, 0]], (1, 4)), levels=(1, 2)
    )
    assert codes.item() == 1
    assert confidence.item() == pytest.approx(0.6)
    assert margin.item() == pytest.approx(0.2)
    assert [level.item() for level in levels] == [confidence.item()] * 2


# Levels


@given(scored(), st.data())
def test_levels_are_the_probabilities_of_the_decided_nodes_ancestors(
    drawn: Scored, data: st.DataObject
) -> None:
    tree, probabilities = drawn
    wanted = tuple(data.draw(st.permutations(range(1, tree.depth + 1))))
    decision = decide(probabilities, tree, data.draw(rules(tree)), levels=wanted)
    for pixel, values in pixels(tree, probabilities):
        code = int(decision.codes[pixel])
        path: list[Node] = []
        if code in values:
            path = [*tree.ancestors(code), tree.node(code)]
        for level, found in zip(wanted, decision.levels, strict=True):
            assert found[pixel] == (values[path[:level][-1].code] if path else 1)
        along = [
            found[pixel] for _, found in sorted(zip(wanted, decision.levels, strict=True), key=lambda x: x[0])
        ]
        assert all(above >= below for above, below in pairwise(along))


@pytest.mark.parametrize("level", [0, 3, -1])
def test_levels_that_are_not_there(level: int) -> None:
    tree = grown(9, 2)
    with pytest.raises(SettingsError, match=rf"level {level} was asked for; .* levels 1 to 2"):
        decide(softmax(tree, (2, 2)), tree, Leaf(), levels=(1, level))


# Nothing but a pixel's own probabilities matters


@settings(max_examples=40)
@given(large_taxonomies(), st.data())
def test_chunks_cuts_and_layout_change_no_bit(tree: Taxonomy, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 40)))
    probabilities = softmax(tree, shape, data.draw(st.integers(0, 99)))
    size = len(tree.leaves)
    rule = data.draw(
        st.sampled_from([*RULES, Level(tree.depth), Cost(np.random.default_rng(0).random((size, size)))])
    )
    levels = tuple(range(1, tree.depth + 1))
    whole = decide(probabilities, tree, rule, None, levels)
    row, col = data.draw(st.integers(0, shape[0] - 1)), data.draw(st.integers(0, shape[1] - 1))
    part = decide(probabilities[:, row:, col:], tree, rule, None, levels)
    for a, b in zip(all_parts(whole), all_parts(part), strict=True):
        np.testing.assert_array_equal(a[row:, col:], b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_layout, "chunk_of", lambda nodes: data.draw(st.integers(1, 50)))
        patch.setattr(_layout, "SLAB", data.draw(st.integers(1, 10**5)))
        patch.setattr(_layout, "NARROW", data.draw(st.integers(1, 50)))
        other = data.draw(st.sampled_from(LAYOUTS))(probabilities)
        np.testing.assert_array_equal(other, probabilities)
        assert_same(decide(other, tree, rule, None, levels), whole)


def test_inputs_are_left_alone() -> None:
    tree = grown(20, 3)
    probabilities, valid = softmax(tree, (5, 7)), np.zeros((5, 7), bool)
    before = probabilities.copy()
    valid.flags.writeable = False
    for rule in RULES:
        decide(probabilities, tree, rule, valid)
    np.testing.assert_array_equal(probabilities, before)


@given(scored(), st.data())
def test_invalid_pixels_are_0_and_others_as_without(drawn: Scored, data: st.DataObject) -> None:
    tree, probabilities = drawn
    valid = data.draw(hnp.arrays(bool, probabilities.shape[1:]))
    rule = data.draw(rules(tree))
    every = decide(probabilities, tree, rule, None, (1,))
    broken = np.where(valid, probabilities, np.float32(np.nan))
    for a, b in zip(all_parts(every), all_parts(decide(broken, tree, rule, valid, (1,))), strict=True):
        np.testing.assert_array_equal(np.where(valid, a, 0), b)


# What comes out, and what is refused


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_types_and_shapes(rule: Rule) -> None:
    decision = decide(np.full((3, 4, 5), 1 / 3, np.float32), flat(3), rule, levels=(1,))
    assert [part.dtype for part in all_parts(decision)] == [np.uint16, np.float32, np.float32, np.float32]
    assert {part.shape for part in all_parts(decision)} == {(4, 5)}
    assert decide(np.ones((1, 2, 2), np.float32), flat(1), rule).codes.tolist() == [[10, 10], [10, 10]]
    for shape in ((0, 5), (5, 0)):
        assert decide(np.ones((2, *shape), np.float32), flat(2), rule, levels=(1,)).codes.shape == shape


def test_ties_go_to_the_lowest_channel() -> None:
    probabilities = np.array([0.2, 0.4, 0.4, 0.0], np.float32).reshape(4, 1, 1)
    for rule in (Leaf(), Level(1), Backoff(0.0), Cost(), Cost(1 - np.eye(4))):
        codes, confidence, margin, _ = decide(probabilities, flat(4), rule)
        assert (codes.item(), confidence.item(), margin.item()) == (20, np.float32(0.4), 0)


def test_one_leaf_leads_by_its_probability() -> None:
    for rule in RULES:
        codes, confidence, margin, _ = decide(np.ones((1, 2, 2), np.float32), flat(1), rule)
        assert (codes == 10).all()
        assert (confidence == 1).all()
        assert (margin == 1).all()


def test_a_threshold_is_reached_by_the_float32_it_is_written_as() -> None:
    probabilities = np.array([0.7, 0.3], np.float32).reshape(2, 1, 1)  # float32 of 0.7 is below 0.7
    assert decide(probabilities, flat(2), Backoff(0.7)).codes.item() == 10
    assert decide(probabilities, flat(2), Backoff(0.7000001)).codes.item() == flat(2).undecided


@given(st.integers(0, 2), st.integers(0, 3), st.sampled_from(RULES))
def test_nan_is_an_error_where_valid_and_no_data_elsewhere(channel: int, col: int, rule: Rule) -> None:
    probabilities = np.full((3, 2, 4), 1 / 3, np.float32)
    probabilities[channel, 1, col] = np.nan
    with pytest.raises(ModelError, match="NaN for 1 of 8 pixels"):
        decide(probabilities, flat(3), rule)
    valid = np.ones((2, 4), bool)
    valid[1, col] = False
    decision = decide(probabilities, flat(3), rule, valid)
    assert ((decision.codes != 0) == valid).all()
    assert decision.confidence[1, col] == decision.margin[1, col] == 0


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4, 4), (3, 4), (1, 3, 4, 4)])
def test_wrong_channels(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(3, rows, columns\)"):
        decide(np.ones(shape, np.float32), flat(3), Leaf())


def test_a_mask_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"valid has shape \(4, 3\); expected \(3, 4\)"):
        decide(np.ones((2, 3, 4), np.float32), flat(2), Leaf(), np.ones((4, 3), bool))


def test_only_what_may_stay_open_needs_a_code_for_it() -> None:
    tree = Taxonomy.flat("full", {255: ("a", (0, 0, 0)), 65535: ("b", (0, 0, 0))})
    probabilities = softmax(tree, (2, 3))
    for rule in RULES:
        if rule.may_stay_open(tree):
            with pytest.raises(TaxonomyError, match="needs for 'undecided'"):
                decide(probabilities, tree, rule)
        else:
            assert np.isin(decide(probabilities, tree, rule).codes, (255, 65535)).all()


def test_rules_that_do_not_fit_the_taxonomy() -> None:
    tree = grown(9, 2)
    probabilities = softmax(tree, (2, 2))
    with pytest.raises(SettingsError, match=r"level 3 can't be decided: .* levels 1 to 2"):
        decide(probabilities, tree, Level(3))
    with pytest.raises(SettingsError, match="for 3 true classes; taxonomy 'drawn' has 9 leaves"):
        decide(probabilities, tree, Cost(np.ones((3, 3))))
    with pytest.raises(SettingsError, match="deciding code 999; taxonomy 'drawn' has no such class"):
        decide(probabilities, tree, Cost(np.ones((2, 9)), (1, 999)))
