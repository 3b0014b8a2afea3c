"""Heads on a class tree: sums over paths, probabilities of all nodes, and their numerics."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rssegment.errors import InputError, ModelError
from rssegment.model import BandSpec, ModelSpec, load_model, save_bundle
from rssegment.model.architectures.enet import ENet
from rssegment.model.hierarchy import Hierarchical, PathSums, head_codes, node_log_probabilities, node_sums
from rssegment.taxonomy import Taxonomy
from tests.model.trees import draw_logits, trees

FLAIR = Taxonomy.load("flair")
SEEDS = st.integers(0, 10_000)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def draw_scores(taxonomy: Taxonomy, seed: int, *size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    batch, height, width = size or (2, 3, 4)
    return torch.randn((batch, len(taxonomy.nodes), height, width), generator=generator, dtype=dtype)


def members(taxonomy: Taxonomy) -> Tensor:
    return torch.from_numpy(taxonomy.membership.astype(np.float64))  # (N, L)


@given(trees(), SEEDS)
def test_a_leaf_s_logit_is_the_sum_of_its_path(taxonomy: Taxonomy, seed: int) -> None:
    scores = draw_scores(taxonomy, seed, dtype=torch.float64)
    expected = torch.einsum("nl,bnhw->blhw", members(taxonomy), scores)
    torch.testing.assert_close(PathSums.of(taxonomy)(scores), expected, **EXACT)


@given(trees(), SEEDS)
def test_sums_go_from_the_top_down(taxonomy: Taxonomy, seed: int) -> None:
    """Bit for bit the float32 sum of the path in its order."""
    scores = draw_scores(taxonomy, seed, 1, 2, 3)
    found = PathSums.of(taxonomy)(scores)
    row = {node.code: k for k, node in enumerate(taxonomy.nodes)}
    for channel, leaf in enumerate(taxonomy.leaves):
        path = [*taxonomy.ancestors(leaf), leaf]
        total = scores[:, row[path[0].code]]
        for node in path[1:]:
            total = total + scores[:, row[node.code]]
        assert torch.equal(found[:, channel], total)


@given(trees(), SEEDS)
@settings(max_examples=30)
def test_a_pixel_does_not_depend_on_shape_or_memory_format(taxonomy: Taxonomy, seed: int) -> None:
    paths, scores = PathSums.of(taxonomy), draw_scores(taxonomy, seed, 3, 17, 33)
    whole = paths(scores)
    assert torch.equal(paths(scores.contiguous(memory_format=torch.channels_last)), whole)
    assert torch.equal(paths(scores[1:2, :, 5:6, 7:30]), whole[1:2, :, 5:6, 7:30])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_scores_are_added_in_float32(half: torch.dtype) -> None:
    scores = draw_scores(FLAIR, 0).to(half)
    found = PathSums.of(FLAIR)(scores)
    assert found.dtype == torch.float32
    assert torch.equal(found, PathSums.of(FLAIR)(scores.float()))


def test_autocast_does_not_reach_the_sums() -> None:
    scores = draw_scores(FLAIR, 0)
    logits = PathSums.of(FLAIR)(scores)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(PathSums.of(FLAIR)(scores), logits)
        assert torch.equal(node_log_probabilities(logits, FLAIR), node_log_probabilities(logits, FLAIR))
        inside = node_log_probabilities(logits, FLAIR)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, node_log_probabilities(logits, FLAIR))


def test_scores_of_another_number_of_nodes_are_refused() -> None:
    with pytest.raises(ModelError, match=r"\(1, 3, 2, 2\).*26"):
        PathSums.of(FLAIR)(torch.zeros(1, 3, 2, 2))


def test_path_sums_can_be_copied_pickled_and_exported() -> None:
    scores = draw_scores(FLAIR, 0)
    paths = PathSums.of(FLAIR)
    assert paths.state_dict() == {}
    for other in (copy.deepcopy(paths), pickle.loads(pickle.dumps(paths))):
        assert torch.equal(other(scores), paths(scores))
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    program = torch.export.export(paths, (scores,), dynamic_shapes=(sizes,))
    larger = draw_scores(FLAIR, 1, 3, 5, 6)
    assert torch.equal(program.module()(larger), paths(larger))


@given(trees(), SEEDS)
def test_log_probabilities_of_nodes_are_those_of_their_leaves(taxonomy: Taxonomy, seed: int) -> None:
    logits = draw_logits(taxonomy, seed)
    shares = torch.einsum("nl,blhw->bnhw", members(taxonomy), logits.softmax(1))
    torch.testing.assert_close(node_log_probabilities(logits, taxonomy).exp(), shares, **EXACT)


@given(trees(), SEEDS)
def test_node_sums_are_coherent(taxonomy: Taxonomy, seed: int) -> None:
    leaves = draw_logits(taxonomy, seed).softmax(1)
    sums = torch.stack(node_sums(leaves.unbind(1), taxonomy), 1)
    torch.testing.assert_close(
        sums, torch.einsum("nl,blhw->bnhw", members(taxonomy), leaves), rtol=1e-12, atol=1e-12
    )
    parents = taxonomy.arrays.parents
    tops = np.flatnonzero(parents == len(parents))
    torch.testing.assert_close(sums[:, tops].sum(1), torch.ones_like(sums[:, 0]), **EXACT)


@given(trees(), SEEDS, st.floats(1, 1e6))
def test_log_probabilities_are_finite_and_coherent_for_any_logits(
    taxonomy: Taxonomy, seed: int, size: float
) -> None:
    logs = node_log_probabilities((draw_logits(taxonomy, seed) * size).float(), taxonomy)
    assert torch.isfinite(logs).all()
    assert (logs <= 1e-5).all()
    parents = taxonomy.arrays.parents
    for row in range(len(parents)):
        children = np.flatnonzero(parents == row)
        if len(children):
            torch.testing.assert_close(logs[:, row], logs[:, children].logsumexp(1), rtol=1e-5, atol=1e-5)


def test_a_parent_s_log_probability_is_exact_where_its_probability_is_0() -> None:
    """Woody leaves 200 below the rest: float32 probabilities vanish, their logarithms don't."""
    logits = torch.zeros(1, len(FLAIR.leaves), 1, 1)
    row = [node.name for node in FLAIR.nodes].index("woody")
    below = torch.from_numpy(FLAIR.membership[row].copy())
    logits[:, below] = -200
    expected = -200 + np.log(int(below.sum()) / int((~below).sum()))
    logs = node_log_probabilities(logits, FLAIR)
    assert logs[0, row, 0, 0].item() == pytest.approx(expected, rel=1e-6)
    assert logits.softmax(1)[0, below].sum() == 0


@given(trees(6), SEEDS)
@settings(max_examples=10)
def test_gradients(taxonomy: Taxonomy, seed: int) -> None:
    scores = draw_scores(taxonomy, seed, 1, 2, 2, dtype=torch.float64).requires_grad_()
    paths = PathSums.of(taxonomy)
    assert torch.autograd.gradcheck(paths, scores)
    assert torch.autograd.gradcheck(lambda x: node_log_probabilities(paths(x), taxonomy), scores)


def test_channels_of_heads() -> None:
    assert head_codes(FLAIR, "flat") == tuple(leaf.code for leaf in FLAIR.leaves)
    assert head_codes(FLAIR, "hierarchical") == tuple(node.code for node in FLAIR.nodes)
    with pytest.raises(InputError, match=r"'deep'.*flat, hierarchical"):
        head_codes(FLAIR, "deep")  # type: ignore[arg-type]


@given(trees(), SEEDS)
def test_heads_agree_where_inner_nodes_score_0(taxonomy: Taxonomy, seed: int) -> None:
    scores = draw_scores(taxonomy, seed)
    inner = np.setdiff1d(np.arange(len(taxonomy.nodes)), taxonomy.arrays.leaves)
    scores[:, inner] = 0
    logits = Hierarchical(nn.Identity(), taxonomy, "flat")(scores[:, taxonomy.arrays.leaves.tolist()])
    assert torch.equal(Hierarchical(nn.Identity(), taxonomy, "hierarchical")(scores), logits)


@given(trees(), SEEDS, st.floats(-50, 50))
def test_what_a_parent_scores_moves_its_leaves_alike(taxonomy: Taxonomy, seed: int, shift: float) -> None:
    """Within a parent nothing changes: the ratio of two leaves' probabilities is as before."""
    scores = draw_scores(taxonomy, seed, dtype=torch.float64)
    row = seed % len(taxonomy.nodes)
    moved = scores.clone()
    moved[:, row] += shift
    paths, below = PathSums.of(taxonomy), torch.from_numpy(taxonomy.membership[row].copy())
    gap = paths(moved) - paths(scores)
    torch.testing.assert_close(gap[:, below], torch.full_like(gap[:, below], shift), rtol=1e-9, atol=1e-9)
    assert torch.equal(gap[:, ~below], torch.zeros_like(gap[:, ~below]))


class Network(nn.Module):
    def __init__(self, channels: int, wrap: object = None) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, channels, 1)
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        y = self.layer(x)
        return {"dict": {"aux": y * 2, "out": y}, "list": [y, y * 2]}.get(str(self.wrap), y)


@pytest.mark.parametrize("wrap", ["", "dict", "list"])
def test_wraps_networks_that_give_several_outputs(wrap: str) -> None:
    network = Network(len(FLAIR.nodes), wrap)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(Hierarchical(network, FLAIR)(x), PathSums.of(FLAIR)(network.layer(x)))


def test_the_wrapper_has_the_network_s_weights_only() -> None:
    model = Hierarchical(Network(len(FLAIR.nodes)), FLAIR)
    assert set(model.state_dict()) == {"network.layer.weight", "network.layer.bias"}
    model(torch.randn(2, 3, 4, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_leaf_logits_are_float32_under_autocast() -> None:
    for head in ("flat", "hierarchical"):
        model = Hierarchical(Network(len(head_codes(FLAIR, head))), FLAIR, head)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(torch.randn(2, 3, 4, 5))
        assert logits.dtype == torch.float32
        assert logits.shape == (2, len(FLAIR.leaves), 4, 5)


def test_a_network_with_the_other_head_s_channels_is_refused() -> None:
    model = Hierarchical(Network(len(FLAIR.leaves)), FLAIR, "hierarchical")
    with pytest.raises(ModelError, match=r"\(1, 19, 2, 2\); a hierarchical head on this taxonomy has 26"):
        model(torch.randn(1, 3, 2, 2))
    with pytest.raises(ModelError, match="gave a str"):
        Hierarchical(Words(), FLAIR)(torch.randn(1, 3, 2, 2))


def test_a_bundle_of_node_scores_gives_what_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ENet(3, len(FLAIR.nodes)).eval()
    spec = ModelSpec(
        name="tree",
        bands=tuple(BandSpec(name=name) for name in ("red", "green", "blue")),
        channels=head_codes(FLAIR, "hierarchical"),
        output="scores",
        architecture="enet",
        ground_resolution=0.4,
        patch=32,
        overlap=8,
    )
    save_bundle(tmp_path / "bundle", network, spec, FLAIR)
    values = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected = Hierarchical(network, FLAIR)(values.contiguous(memory_format=torch.channels_last)).softmax(
            1
        )
    torch.testing.assert_close(load_model(tmp_path / "bundle")(values), expected, rtol=1e-5, atol=1e-6)


class Words(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "logits"
