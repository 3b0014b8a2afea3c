"""Losses over a class tree: against their definitions, torch's own, and the laws of labels at any level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rssegment.errors import InputError
from rssegment.model.losses import HierarchicalLoss, lovasz_binary, node_weights, tree_costs
from rssegment.taxonomy import Taxonomy
from tests.model.trees import draw_labels, draw_logits, trees

FLAIR = Taxonomy.load("flair")
SEEDS = st.integers(0, 10_000)
EXACT = {"rtol": 1e-6, "atol": 1e-9}  # weights are kept as float32
KINDS: list[dict[str, Any]] = [
    {},
    {"kind": "margin", "margin": 2.0},
    {"label_smoothing": 0.2},
    {"dice": 0.5},
    {"lovasz": 0.5},
    {"kind": "margin", "dice": 1.0, "lovasz": 1.0},
]
kinds = pytest.mark.parametrize("options", KINDS, ids=str)


def channels(taxonomy: Taxonomy, labels: Tensor) -> Tensor:
    """Leaf codes as channel numbers, 0 as torch's -100."""
    table = torch.full((65536,), -100)
    table[torch.from_numpy(taxonomy.leaf_codes.astype(np.int64))] = torch.arange(len(taxonomy.leaves))
    return table[labels]


def below(taxonomy: Taxonomy, code: int) -> Tensor:
    """(L,) bool: the leaves under a node."""
    row = [node.code for node in taxonomy.nodes].index(code)
    return torch.from_numpy(taxonomy.membership[row].copy())


# The label's term


@given(trees(), SEEDS, st.sampled_from([0.0, 0.1, 0.7]), st.booleans())
def test_for_leaf_labels_it_is_torch_s_cross_entropy(
    taxonomy: Taxonomy, seed: int, smoothing: float, weighted: bool
) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed, leaves=True)
    weights = {leaf.code: 0.25 + (leaf.code % 8) / 4 for leaf in taxonomy.leaves} if weighted else {}
    loss = HierarchicalLoss(taxonomy, class_weights=weights, label_smoothing=smoothing)
    expected = F.cross_entropy(
        logits,
        channels(taxonomy, labels),
        weight=torch.tensor([weights.get(leaf.code, 1.0) for leaf in taxonomy.leaves], dtype=torch.float64),
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(loss(logits, labels), expected, rtol=1e-12, atol=1e-12)


@given(trees(), SEEDS)
def test_it_is_minus_the_logarithm_of_the_label_s_probability(taxonomy: Taxonomy, seed: int) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    shares = logits.softmax(1).movedim(1, -1)
    terms = [
        -math.log(shares[place][below(taxonomy, int(labels[place]))].sum())
        for place in map(tuple, labels.nonzero().tolist())
    ]
    assert HierarchicalLoss(taxonomy)(logits, labels).item() == pytest.approx(
        np.mean(terms), rel=1e-9, abs=1e-12
    )


@given(trees(), SEEDS, st.floats(0, 5))
def test_soft_margin_is_its_definition(taxonomy: Taxonomy, seed: int, margin: float) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    theta, costs = logits.movedim(1, -1), torch.from_numpy(tree_costs(taxonomy)).double()
    codes = [node.code for node in taxonomy.nodes]
    terms = []
    for place in map(tuple, labels.nonzero().tolist()):
        row = codes.index(int(labels[place]))
        right = theta[place][below(taxonomy, codes[row])]
        terms.append((theta[place] + margin * costs[row]).logsumexp(0) - right.logsumexp(0))
    loss = HierarchicalLoss(taxonomy, "margin", margin=margin)(logits, labels)
    torch.testing.assert_close(loss, torch.stack(terms).mean(), **EXACT)


@given(trees(), SEEDS)
def test_without_margin_the_soft_margin_is_the_softmax_and_grows_with_it(
    taxonomy: Taxonomy, seed: int
) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    plain = HierarchicalLoss(taxonomy)(logits, labels)
    losses = [HierarchicalLoss(taxonomy, "margin", margin=m)(logits, labels) for m in (0.0, 0.5, 3.0)]
    torch.testing.assert_close(losses[0], plain, rtol=1e-12, atol=1e-12)
    assert losses[0] <= losses[1] + 1e-12
    assert losses[1] <= losses[2] + 1e-12
    assert losses[2] <= plain + 3 + 1e-9  # the cost is 1 at most


@given(trees())
def test_costs_are_0_below_the_label_1_at_most_and_grow_with_the_distance(taxonomy: Taxonomy) -> None:
    costs, arrays = tree_costs(taxonomy), taxonomy.arrays
    assert costs[arrays.membership].max(initial=0) == 0
    assert costs[~arrays.membership].min(initial=1) > 0
    assert costs.max() == (1 if (~arrays.membership).any() else 0)
    edges = arrays.distances[:-1][:, arrays.leaves]
    order = np.argsort(edges[~arrays.membership], kind="stable")
    assert (np.diff(costs[~arrays.membership][order]) >= 0).all()


@given(trees(), SEEDS)
def test_a_coarser_label_asks_for_less(taxonomy: Taxonomy, seed: int) -> None:
    logits, leaves = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed, leaves=True)
    parents = torch.arange(65536)
    for node in taxonomy.nodes:
        parents[node.code] = node.parent or node.code
    loss = HierarchicalLoss(taxonomy)
    assert loss(logits, parents[leaves]) <= loss(logits, leaves) + 1e-12


def test_the_gradient_of_a_coarse_label_leaves_the_choice_below_open() -> None:
    """Leaves under the label keep their ratio: each one's gradient is as its share."""
    logits = draw_logits(FLAIR, 0, (1, 1, 1)).requires_grad_()
    HierarchicalLoss(FLAIR)(logits, torch.tensor([[[130]]])).backward()
    woody = below(FLAIR, 130)
    shares, slope = logits.detach().softmax(1)[0, :, 0, 0], logits.grad[0, :, 0, 0]
    inside = shares[woody] / shares[woody].sum()
    torch.testing.assert_close(slope[woody], shares[woody] - inside, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slope[~woody], shares[~woody], rtol=1e-9, atol=1e-12)


# Weights


def test_weights_are_inherited_downwards_and_averaged_upwards() -> None:
    weights = dict(
        zip(
            [n.name for n in FLAIR.nodes],
            node_weights(FLAIR, {"vegetation": 3, "low": 2, 9: 5, "bare": 0}),
            strict=True,
        )
    )
    assert weights["woody"] == weights["deciduous"] == weights["vegetation"] == 3
    assert weights["low"] == weights["crop"] == weights["plowed"] == 2
    assert weights["vineyard"] == 5
    assert weights["bare"] == 0
    assert weights["built"] == weights["impervious"] == 1
    up = node_weights(FLAIR, {"water/water": 2, "pool": 4})
    assert up[[n.path for n in FLAIR.nodes].index(("water",))] == 3


@given(trees(), SEEDS)
def test_weights_of_coarse_labels_count_as_those_of_leaves_do(taxonomy: Taxonomy, seed: int) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    weights = {node.code: 0.5 + node.code % 4 for node in taxonomy.nodes}
    loss = HierarchicalLoss(taxonomy, class_weights=weights)(logits, labels)
    single = [
        HierarchicalLoss(taxonomy)(
            logits[b : b + 1, :, r : r + 1, c : c + 1], labels[b : b + 1, r : r + 1, c : c + 1]
        )
        for b, r, c in labels.nonzero().tolist()
    ]
    counts = torch.tensor([weights[int(labels[b, r, c])] for b, r, c in labels.nonzero().tolist()])
    expected = (counts * torch.stack(single)).sum() / counts.sum()
    torch.testing.assert_close(loss, expected, **EXACT)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({1: -1.0}, "weight -1"),
        ({1: math.nan}, "nan"),
        ({1: 1, "building": 2}, "two weights"),
        ({77: 1}, "77"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[int | str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HierarchicalLoss(FLAIR, class_weights=weights)


# Dice and Lovász


def decided_nodes(taxonomy: Taxonomy, logits: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Probability and truth of each node that occurs, on the pixels whose label decides it; by the definition."""
    shares = logits.softmax(1).movedim(1, -1)[labels > 0]  # (M, L)
    lines = [
        {taxonomy.node(int(c)).code, *(a.code for a in taxonomy.ancestors(int(c)))}
        for c in labels[labels > 0]
    ]
    found = []
    for node in taxonomy.nodes:
        above = {a.code for a in taxonomy.ancestors(node)}
        last = [int(c) for c in labels[labels > 0]]
        kept = torch.tensor([code not in above for code in last])
        truth = torch.tensor([node.code in line for line in lines])[kept]
        if truth.any():
            found.append((shares[kept][:, below(taxonomy, node.code)].sum(1), truth))
    return found


@given(trees(), SEEDS)
def test_dice_is_its_definition(taxonomy: Taxonomy, seed: int) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    terms = [
        1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        for p, t in decided_nodes(taxonomy, logits, labels)
    ]
    found = HierarchicalLoss(taxonomy, dice=1).parts(logits, labels)["dice"]
    torch.testing.assert_close(found, torch.stack(terms).mean(), rtol=1e-9, atol=1e-12)


@given(trees(), SEEDS)
def test_lovasz_is_its_definition(taxonomy: Taxonomy, seed: int) -> None:
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    terms = [lovasz_by_iou(p, t)[0] for p, t in decided_nodes(taxonomy, logits, labels)]
    found = HierarchicalLoss(taxonomy, lovasz=1).parts(logits, labels)["lovasz"]
    torch.testing.assert_close(found, torch.stack(terms).mean(), rtol=1e-9, atol=1e-12)


def lovasz_by_iou(shares: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and its slope in each error, from the definition: what 1 - IoU gains as pixels become wrong in turn."""
    errors = torch.where(truth, 1 - shares, shares)
    order = errors.argsort(descending=True, stable=True)
    slope = torch.zeros_like(errors)
    before, wrong = 0.0, torch.zeros_like(truth)
    for pixel in order:
        wrong[pixel] = True
        predicted = truth ^ wrong
        now = 1 - (predicted & truth).sum().item() / (predicted | truth).sum().item()
        slope[pixel], before = now - before, now
    return (errors * slope).sum(), slope


@given(st.integers(1, 30), SEEDS)
def test_lovasz_and_its_gradient_by_sorting(pixels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(pixels, generator=generator, dtype=torch.float64).requires_grad_()
    truth = torch.rand(pixels, generator=generator) < 0.4
    assume(truth.any())
    loss = lovasz_binary(shares, truth)
    expected, slope = lovasz_by_iou(shares.detach(), truth)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=1e-12)
    (found,) = torch.autograd.grad(loss, shares)
    torch.testing.assert_close(found, torch.where(truth, -slope, slope), rtol=1e-9, atol=1e-12)


@given(st.integers(1, 40), SEEDS)
def test_at_sure_decisions_lovasz_is_1_minus_iou(pixels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, truth = torch.rand(2, pixels, generator=generator) < 0.5
    assume(truth.any())
    iou = (predicted & truth).sum() / (predicted | truth).sum()
    assert lovasz_binary(predicted.double(), truth).item() == pytest.approx(1 - iou.item(), abs=1e-6)


def test_lovasz_keeps_its_digits_over_many_pixels() -> None:
    """A million errors of about 1e-6 each in 1 - IoU, in float32."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(1_000_000, generator=generator)
    truth = torch.rand(1_000_000, generator=generator) < 0.01
    single, double = lovasz_binary(shares, truth), lovasz_binary(shares.double(), truth)
    assert single.item() == pytest.approx(double.item(), rel=1e-6)


def test_what_a_label_leaves_open_is_not_scored() -> None:
    """Under "vegetation", how much is forest and how much is grass changes no Dice or Lovász of other labels."""
    labels = torch.tensor([[[120, 6, 3, 10]]])
    logits = draw_logits(FLAIR, 3, (1, 1, 4))
    other = logits.clone()
    inside = below(FLAIR, 120)
    turned = torch.arange(len(FLAIR.leaves))[inside].flip(0)
    other[0, inside, 0, 0] = logits[0, turned, 0, 0]
    loss = HierarchicalLoss(FLAIR, dice=1, lovasz=1)
    for name, value in loss.parts(logits, labels).items():
        torch.testing.assert_close(loss.parts(other, labels)[name], value, rtol=1e-12, atol=1e-12)


# Laws of all


@kinds
def test_gradients(options: dict[str, Any]) -> None:
    loss = HierarchicalLoss(FLAIR, class_weights={"built": 2.0, "deciduous": 0.5}, **options)
    labels = draw_labels(FLAIR, 5)
    logits = draw_logits(FLAIR, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits)


@kinds
@given(trees(), SEEDS)
@settings(max_examples=15)
def test_the_order_of_pixels_does_not_matter(options: dict[str, Any], taxonomy: Taxonomy, seed: int) -> None:
    loss = HierarchicalLoss(taxonomy, **options)
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    pixels = logits.movedim(1, -1).reshape(24, -1)[order]
    shuffled = pixels.reshape(1, 4, 6, -1).movedim(-1, 1)
    torch.testing.assert_close(
        loss(shuffled, labels.flatten()[order].reshape(1, 4, 6)), loss(logits, labels), rtol=1e-9, atol=1e-12
    )


@kinds
@given(trees(), SEEDS)
@settings(max_examples=15)
def test_pixels_without_label_might_as_well_not_be_there(
    options: dict[str, Any], taxonomy: Taxonomy, seed: int
) -> None:
    loss = HierarchicalLoss(taxonomy, **options)
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed, ignore=False)
    more = torch.cat([logits, 1e3 * draw_logits(taxonomy, seed + 9)], 2).requires_grad_()
    found = loss(more, torch.cat([labels, torch.zeros_like(labels)], 1))
    torch.testing.assert_close(found, loss(logits, labels), rtol=1e-9, atol=1e-12)
    found.backward()
    assert more.grad[:, :, 3:].abs().max() == 0


@kinds
@given(trees(), SEEDS, st.floats(-100, 100))
@settings(max_examples=10)
def test_a_shift_of_all_logits_changes_nothing(
    options: dict[str, Any], taxonomy: Taxonomy, seed: int, shift: float
) -> None:
    loss = HierarchicalLoss(taxonomy, **options)
    logits, labels = draw_logits(taxonomy, seed), draw_labels(taxonomy, seed)
    torch.testing.assert_close(loss(logits + shift, labels), loss(logits, labels), rtol=1e-9, atol=1e-9)


@kinds
def test_a_batch_without_labels_has_loss_0_and_gradients_of_0(options: dict[str, Any]) -> None:
    logits = draw_logits(FLAIR, 0).float().requires_grad_()
    loss = HierarchicalLoss(FLAIR, **options)(logits, torch.zeros(2, 3, 4, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_labels_that_all_have_weight_0_give_no_nan() -> None:
    logits = draw_logits(FLAIR, 0).requires_grad_()
    loss = HierarchicalLoss(FLAIR, class_weights={1: 0}, label_smoothing=0.1)
    loss(logits, torch.ones(2, 3, 4, dtype=torch.long)).backward()
    assert torch.isfinite(logits.grad).all()


def test_terms_count_by_their_factors() -> None:
    logits, labels = draw_logits(FLAIR, 7), draw_labels(FLAIR, 7)
    parts = HierarchicalLoss(FLAIR, dice=1, lovasz=1).parts(logits, labels)
    total = HierarchicalLoss(FLAIR, dice=0.25, lovasz=3)(logits, labels)
    assert total.item() == pytest.approx((parts["label"] + 0.25 * parts["dice"] + 3 * parts["lovasz"]).item())
    assert list(HierarchicalLoss(FLAIR).parts(logits, labels)) == ["label"]


@kinds
def test_logits_of_any_size_give_finite_loss_and_gradients(options: dict[str, Any]) -> None:
    for size in (0.0, 1e2, 1e6):
        logits = (size * draw_logits(FLAIR, 1)).float().requires_grad_()
        loss = HierarchicalLoss(FLAIR, **options)(logits, draw_labels(FLAIR, 1))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()


@kinds
def test_half_logits_are_taken_as_float32_and_memory_format_changes_no_bit(options: dict[str, Any]) -> None:
    loss, labels = HierarchicalLoss(FLAIR, **options), draw_labels(FLAIR, 2, (2, 16, 16))
    half = draw_logits(FLAIR, 2, (2, 16, 16)).bfloat16()
    expected = loss(half.float(), labels)
    assert loss(half, labels).dtype == torch.float32
    assert torch.equal(loss(half, labels), expected)
    assert torch.equal(loss(half.float().contiguous(memory_format=torch.channels_last), labels), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(half, labels), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.uint16])
def test_labels_may_have_any_whole_type(dtype: torch.dtype) -> None:
    labels = draw_labels(FLAIR, 4)
    logits = draw_logits(FLAIR, 4)
    loss = HierarchicalLoss(FLAIR)
    assert torch.equal(loss(logits, labels.to(dtype)), loss(logits, labels))


def test_a_few_steps_learn_leaves_from_leaves_and_parents_from_parents() -> None:
    """Left half labelled with leaves, right half with parents: both fit, and probabilities stay coherent."""
    labels = torch.tensor([[[6, 7, 130, 120, 100, 4, 0, 160]]])
    logits = torch.zeros(1, len(FLAIR.leaves), 1, 8, requires_grad=True)
    loss = HierarchicalLoss(FLAIR, dice=0.5)
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, labels).backward()
        optimizer.step()
    shares = logits.detach().softmax(1)[0, :, 0]
    for column, code in enumerate(labels[0, 0].tolist()):
        if code:
            assert shares[below(FLAIR, code), column].sum() > 0.9
    assert logits[..., 6].abs().max() == 0  # no label, no change


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@kinds
def test_cuda_gives_what_the_cpu_gives(options: dict[str, Any]) -> None:
    logits, labels = draw_logits(FLAIR, 6), draw_labels(FLAIR, 6)
    there = HierarchicalLoss(FLAIR, **options).cuda()(logits.cuda(), labels.cuda())
    torch.testing.assert_close(there.cpu(), HierarchicalLoss(FLAIR, **options)(logits, labels))


# What is refused


@pytest.mark.parametrize("code", [77, 255, -1, -100, 65535, 70000])
def test_unknown_codes_are_named(code: int) -> None:
    labels = draw_labels(FLAIR, 0)
    labels[0, 1, :2] = code
    with pytest.raises(
        InputError, match=rf"no codes of taxonomy 'flair': {code} \(2 px\); give the pixels to ignore"
    ):
        HierarchicalLoss(FLAIR)(draw_logits(FLAIR, 0), labels)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ((2, 26, 3, 4), torch.zeros(2, 3, 4, dtype=torch.long), r"expected \(B, 19, H, W\)"),
        ((2, 19, 3, 4), torch.zeros(2, 4, 3, dtype=torch.long), r"\(2, 4, 3\); expected \(2, 3, 4\)"),
        ((2, 19, 3, 4), torch.zeros(2, 1, 3, 4, dtype=torch.long), r"expected \(2, 3, 4\)"),
        ((2, 19, 3, 4), torch.zeros(2, 3, 4), "float32; expected whole numbers"),
        ((2, 19, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bool), "bool; expected whole numbers"),
    ],
)
def test_shapes_and_types_are_checked(logits: tuple[int, ...], labels: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        HierarchicalLoss(FLAIR)(torch.zeros(logits), labels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "hinge"}, "'hinge'; expected one of softmax, margin"),
        ({"margin": 1.0}, "no meaning"),
        ({"kind": "margin", "margin": -1.0}, "margin = -1"),
        ({"kind": "margin", "label_smoothing": 0.1}, "exclude each other"),
        ({"label_smoothing": 1.0}, "label_smoothing = 1"),
        ({"dice": -1.0}, "dice = -1"),
        ({"lovasz": math.inf}, "lovasz = inf"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        HierarchicalLoss(FLAIR, **options)
