"""Cascades in memory: what their probabilities are, against a recursion in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rssegment.errors import BundleError, MismatchError, ModelError
from rssegment.model import BandSpec, Cascade, LeafModel, Model, ModelSpec, subtree
from rssegment.model.cascade import Member, check_specialist, main_tree
from rssegment.taxonomy import Taxonomy

BANDS = ("red", "green", "blue", "nir")
SIDE = 8  # torch's softmax of 4 x 4 px has other last bits in other batches
COLOR = '"#112233"'


def tree_of(nested: Mapping[int, Any], name: str = "land") -> Taxonomy:
    """A taxonomy of ``{code: {code: {...}}}``."""

    def lines(classes: Mapping[int, Any], indent: str) -> list[str]:
        found = []
        for code, below in classes.items():
            found.append(f"{indent}- {{code: {code}, name: c{code}, color: {COLOR}}}")
            if below:
                found[-1] = (
                    f"{indent}- code: {code}\n{indent}  name: c{code}\n{indent}  color: {COLOR}\n{indent}  classes:"
                )
                found += lines(below, indent + "    ")
        return found

    return Taxonomy.loads("\n".join([f"name: {name}", "classes:", *lines(nested, "  ")]))


NESTED = {1: {11: {}, 12: {121: {}, 122: {}}}, 2: {21: {}, 22: {221: {2211: {}, 2212: {}}, 222: {}}}, 3: {}}
TREE = tree_of(NESTED)


def spec_of(channels: Sequence[int], bands: Sequence[str] = BANDS, **changes: Any) -> ModelSpec:
    facts: dict[str, Any] = {
        "name": "net",
        "bands": tuple(BandSpec(name=b, mean=100 + i, std=50 + i) for i, b in enumerate(bands)),
        "channels": tuple(channels),
        "ground_resolution": 0.5,
        "patch": SIDE,
        "overlap": 0,
    }
    return ModelSpec(**(facts | changes))


class Counted:
    """Random sums of bands, sharp enough for shares near 0 and 1, pixel by pixel; counts its passes."""

    def __init__(self, channels: int, bands: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = 3 * torch.randn(bands, 1, channels, 1, 1, generator=generator)
        self.passes: list[int] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        # operators whose result does not depend on the batch's size, which a convolution's kernel may
        scores = x[:, 0, None] * self.weight[0]
        for i, weight in enumerate(self.weight[1:], 1):
            scores = scores + x[:, i, None] * weight
        return scores


@dataclass
class Part:
    """A model of a cascade: its channels, and its specialists by node."""

    channels: Sequence[int]
    below: dict[int, Part] = field(default_factory=dict)
    bands: Sequence[str] = BANDS
    threshold: float = 0.0
    temperature: float = 1.0
    output: str = "logits"
    batch: int | None = None


def build(part: Part, tree: Taxonomy = TREE, seed: int = 0, names: Sequence[str] = BANDS) -> LeafModel:
    """The model of ``part``, made as a bundle makes it."""
    spec = spec_of(part.channels, part.bands, output=part.output, batch=part.batch)
    network = Counted(len(part.channels), len(part.bands), seed)
    if not part.below:
        return Model(network, spec, tree, temperature=part.temperature)
    members = []
    for i, (node, inner) in enumerate(part.below.items()):
        under = subtree(tree, tree.node(node), f"t{node}")
        check_specialist(spec, tree, node, spec_of(inner.channels, inner.bands), under)
        model = build(inner, under, seed + 7 * i + 1, part.bands)
        members.append(Member(node, model, inner.threshold, part.bands))
    main = Model(network, spec, main_tree(spec, tree, list(part.below)))
    return Cascade(main, members, tree, part.temperature)


def test_a_member_sees_its_own_fill_where_there_is_no_data() -> None:
    """Else its picture of what is beside would depend on what the main model was trained on."""
    tree = tree_of({1: {11: {}, 12: {121: {}, 122: {}}}, 2: {}})
    means = (90.0, 40.0, 7.0, 60.0)[: len(BANDS)]

    def model(channels: Sequence[int], shift: float, bands: Sequence[str], below: Taxonomy) -> Model:
        spec = spec_of(channels, bands)
        told = tuple(b.model_copy(update={"mean": means[BANDS.index(b.name)] + shift}) for b in spec.bands)
        net = torch.nn.Conv2d(len(bands), len(channels), 3, padding=1)
        return Model(net, spec.model_copy(update={"bands": told}), below)

    torch.manual_seed(3)
    other = tuple(reversed(BANDS))
    deep = model((121, 122), 33.0, other[:1], subtree(tree, tree.node(12), "deep"))
    built = model(
        (11, 12), 20.0, other[:2], main_tree(spec_of((11, 12)), subtree(tree, tree.node(1), "b"), [12])
    )
    inner = Cascade(built, [Member(12, deep, 0.0, other[:2])], subtree(tree, tree.node(1), "b"))
    main = model((1, 2), 0.0, BANDS, main_tree(spec_of((1, 2)), tree, [1]))
    cascade = Cascade(main, [Member(1, inner, 0.0, BANDS)], tree)
    holes = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)
    holes[:, :, SIDE // 4 : SIDE // 2, 1:] = True

    def seen(network: LeafModel) -> Tensor:
        places = [BANDS.index(name) for name in network.spec.band_names]
        return torch.where(holes, torch.from_numpy(network.fill).view(1, -1, 1, 1), values_of(4)[:, places])

    top, second, third = main(seen(main)), built(seen(built)), deep(seen(deep))
    wanted = torch.cat([second[:, :1], second[:, 1:] * third], 1) * top[:, :1]
    torch.testing.assert_close(cascade(seen(main))[:, :3], wanted, atol=1e-6, rtol=1e-5)


def values_of(seed: int, batch: int = 2, bands: int = len(BANDS)) -> Tensor:
    return 255 * torch.rand(batch, bands, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def expected(model: LeafModel, values: Tensor) -> dict[int, np.ndarray[Any, Any]]:
    """Probabilities by leaf code, float64, one patch at a time, members taken at their word."""
    if isinstance(model, Model):
        found = model(values).double().numpy()
        return {code: found[:, i] for i, code in enumerate(model.leaves)}
    assert isinstance(model, Cascade)
    result: dict[int, list[Any]] = {code: [] for code in model.leaves}
    for patch in values.unbind(0):
        single = expected_patch(model, patch[None])
        for code, parts in result.items():
            parts.append(single[code])
    return {code: np.concatenate(parts) for code, parts in result.items()}


def expected_patch(model: Cascade, patch: Tensor) -> dict[int, np.ndarray[Any, Any]]:
    shares: dict[int, Any] = {}
    for code, values in expected(model.main, patch).items():
        leaves = [
            leaf for leaf in model.leaves if TREE.node(code) in (*TREE.ancestors(leaf), TREE.node(leaf))
        ]
        shares |= {leaf: values / len(leaves) for leaf in leaves}
    for member in sorted(model.members, key=lambda m: TREE.nodes.index(TREE.node(m.node))):
        mass = sum(shares[leaf] for leaf in member.model.leaves)
        if mass.max() > member.threshold:
            inner = expected(member.model, patch[:, member.bands])
            shares |= {leaf: mass * inner[leaf] for leaf in member.model.leaves}
    total = sum(s ** (1 / model.temperature) for s in shares.values())
    return {code: s ** (1 / model.temperature) / total for code, s in shares.items()}


def assert_composed(model: LeafModel, values: Tensor) -> None:
    """Law: the recursion's probabilities; they sum to 1; logits are theirs at the temperature."""
    found = model(values)
    wanted = expected(model, values)
    assert found.dtype == torch.float32
    assert found.shape == (len(values), len(model.leaves), SIDE, SIDE)
    np.testing.assert_allclose(found.double().sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(
        found.double().numpy(), np.stack([wanted[code] for code in model.leaves], 1), atol=1e-6, rtol=1e-5
    )
    again = (model.leaf_logits(values) / model.temperature).softmax(1)
    torch.testing.assert_close(again, found, atol=1e-6, rtol=1e-5)


CROP = Part((2211, 2212, 222), bands=("nir", "red"))
PLANTS = Part((21, 22), {22: CROP})
CASCADES = {
    "nodes as channels": Part((11, 121, 122, 2, 3), {2: Part((21, 2211, 2212, 222))}),
    "leaves replaced": Part((11, 121, 122, 21, 2211, 2212, 222, 3), {22: CROP, 12: Part((122, 121))}),
    "both": Part((3, 1, 21, 2211, 2212, 222), {1: Part((11, 121, 122)), 22: CROP}),
    "depth three": Part((1, 2, 3), {1: Part((11, 12), {12: Part((121, 122))}), 2: PLANTS}),
    "node scores": Part((1, 2, 3, 11, 12), {2: PLANTS, 12: Part((121, 122))}, output="scores"),
    "several channels": Part((1, 2, 3, 2, 1, 3), {1: Part((11, 121, 122)), 2: PLANTS}),
    "one below another": Part((1, 2, 3), {22: CROP, 2: Part((21, 2211, 2212, 222)), 1: Part((11, 121, 122))}),
    "temperatures": Part(
        (1, 2, 3),
        {1: Part((11, 12), {12: Part((121, 122), temperature=0.7)}, temperature=3.0), 2: PLANTS},
        temperature=1.6,
    ),
}


@pytest.mark.parametrize("name", CASCADES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_shares_are_multiplied_down_the_path(name: str, seed: int) -> None:
    assert_composed(build(CASCADES[name], seed=seed), values_of(seed))


@st.composite
def cascades(draw: st.DrawFn) -> tuple[Taxonomy, Part]:
    """A random tree, and a random cascade on it with random thresholds, at random depths."""
    codes = iter(draw(st.permutations(range(1, 60))))

    def grow(depth: int) -> dict[int, Any]:
        width = draw(st.integers(1 if depth else 2, 3))
        return {
            next(codes): grow(depth + 1) if depth < 3 and draw(st.booleans()) else {} for _ in range(width)
        }

    def part_of(nested: Mapping[int, Any]) -> Part:
        channels: list[int] = []
        below: dict[int, Part] = {}

        def visit(classes: Mapping[int, Any]) -> None:
            for code, inner in classes.items():
                if inner and draw(st.booleans()):
                    below[code] = part_of(inner)
                if not inner or (code in below and draw(st.booleans())):
                    channels.append(code)
                else:
                    visit(inner)

        visit(nested)
        bands = draw(st.permutations(BANDS))
        thresholds = st.sampled_from([0.0, 0.3, 0.9, 1.0])
        # siblings in any order: channels say what they are
        return Part(draw(st.permutations(channels)), below, bands, draw(thresholds))

    nested = grow(0)
    return tree_of(nested), part_of(nested)


@given(cascades(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_any_cascade_gives_coherent_probabilities(drawn: tuple[Taxonomy, Part], seed: int) -> None:
    tree, part = drawn
    model = build(part, tree, seed)
    values = values_of(seed, bands=len(part.bands))
    found = model(values).double()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found >= 0).all()
    nodes = torch.einsum("nl,blhw->bnhw", torch.tensor(tree.membership, dtype=torch.float64), found)
    rows = {node.code: row for row, node in enumerate(tree.nodes)}
    for node in tree.nodes:
        if below := [rows[child.code] for child in tree.children(node)]:
            np.testing.assert_allclose(nodes[:, below].sum(1), nodes[:, rows[node.code]], atol=1e-9)
    # what lies above all refined nodes is the main model's word
    if isinstance(model, Cascade):
        main = model.main(values).double()
        for i, code in enumerate(model.main.leaves):
            if not any(
                code in {n.code for n in tree.ancestors(leaf)} | {leaf} for leaf in _moved(tree, model)
            ):
                np.testing.assert_allclose(nodes[:, rows[code]], main[:, i], atol=1e-6)
    for one in range(len(values)):  # a patch's result does not depend on the others in its batch
        assert torch.equal(model(values[one : one + 1])[0], model(values)[one])


def _moved(tree: Taxonomy, model: Cascade) -> set[int]:
    """Leaves whose probability is not the main model's: those below a node that it refines further than itself."""
    cut = set(model.main.leaves)
    inside = {m.node for m in model.members if m.node not in cut}
    return {leaf.code for leaf in tree.leaves if inside & {node.code for node in tree.ancestors(leaf)}}


# Where a specialist runs


def passes(model: LeafModel) -> list[int]:
    assert isinstance(model, Cascade)
    (member,) = model.members
    network = member.model._network  # type: ignore[attr-defined]
    assert isinstance(network, Counted)
    return network.passes


def test_threshold_one_never_runs_and_zero_always() -> None:
    values = values_of(3)
    never = build(Part((11, 121, 122, 2, 3), {2: Part((21, 2211, 2212, 222), threshold=1.0)}))
    found = never(values)
    assert passes(never) == []
    main = never.main(values)  # type: ignore[attr-defined]
    torch.testing.assert_close(
        found[:, 3:7], main[:, 3:4].expand(-1, 4, -1, -1) / 4
    )  # equal shares of plants
    always = build(Part((11, 121, 122, 2, 3), {2: Part((21, 2211, 2212, 222))}))
    assert_composed(always, values)
    assert passes(always)


def test_certainty_does_not_pass_threshold_one() -> None:
    """Sums of shares may exceed 1 in their last bits."""
    leaves = (2211, 2212, 222)
    spec = spec_of((11, 121, 122, 21, *leaves, 3), output="probabilities")
    sure = torch.zeros(1, 8, 1, 1)
    sure[0, 4:7, 0, 0] = torch.tensor([0.1, 0.7, 0.2 + 1e-3])
    refused = Model(lambda _: pytest.fail("must not run"), spec_of(leaves), tree_of({c: {} for c in leaves}))
    under = Member(22, refused, 1.0, BANDS)
    for scale in (1.0, 1 + 1e-3, 1 - 1e-3):
        main = Model(lambda _, s=scale: s * sure, spec, TREE)
        Cascade(main, [under], TREE)(torch.zeros(1, 4, 1, 1))


def test_the_main_models_own_shares_stand_where_no_specialist_runs() -> None:
    part = Part((11, 121, 122, 21, 2211, 2212, 222, 3), {22: Part((2211, 2212, 222), threshold=1.0)})
    model = build(part)
    values = values_of(5)
    assert torch.equal(model(values), model.main(values))  # type: ignore[attr-defined]


def test_each_patch_of_a_batch_is_as_if_alone() -> None:
    part = Part(
        (1, 2, 3), {2: Part((21, 2211, 2212, 222), threshold=0.9), 1: Part((11, 121, 122), threshold=0.5)}
    )
    model = build(part, seed=11)
    values = torch.cat([values_of(i, 1) * (0.2 + 0.3 * i) for i in range(4)])
    together = model(values)
    alone = torch.cat([model(patch[None]) for patch in values])
    assert torch.equal(together, alone)
    peaks = model.main(values)[:, 1].amax((1, 2))  # type: ignore[attr-defined]
    assert 0 < int((peaks > 0.9).sum()) < 4  # the case meant: some patches need it and some don't


def test_a_specialist_runs_on_the_whole_batch_or_not_at_all() -> None:
    model = build(Part((11, 121, 122, 2, 3), {2: Part((21, 2211, 2212, 222), threshold=0.9)}), seed=11)
    for values in (values_of(0, 1), values_of(2, 3)):
        model(values)
    assert set(passes(model)) <= {1, 3}


def test_a_specialist_with_a_batch_of_its_own_is_filled_up() -> None:
    plain = build(Part((1, 2, 3), {2: PLANTS, 1: Part((11, 121, 122))}))
    fixed = build(Part((1, 2, 3), {2: PLANTS, 1: Part((11, 121, 122), batch=2)}))
    for batch in (1, 2, 3, 5):
        assert torch.equal(plain(values_of(1, batch)), fixed(values_of(1, batch)))
    assert isinstance(fixed, Cascade)
    network: Any = fixed.members[0].model
    assert set(network._network.passes) == {2}


def test_bands_are_picked_by_name_and_normalised_by_their_own_constants() -> None:
    seen: list[Tensor] = []
    spec = ModelSpec(
        **spec_of((11, 121, 122)).model_dump()
        | {"bands": (BandSpec(name="NIR", mean=10, std=2), BandSpec(name="green", mean=20, std=4))}
    )

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros(len(x), 3, *x.shape[2:])

    below = Member(1, Model(network, spec, tree_of({11: {}, 12: {121: {}, 122: {}}})), 0.0, BANDS)
    whole = tree_of({1: {11: {}, 12: {121: {}, 122: {}}}, 3: {}})
    main = Model(Counted(2, 4, 0), spec_of((1, 3)), main_tree(spec_of((1, 3)), whole, [1]))
    values = values_of(0)
    Cascade(main, [below], whole)(values)
    torch.testing.assert_close(seen[0], torch.stack([(values[:, 3] - 10) / 2, (values[:, 1] - 20) / 4], 1))


def test_it_has_the_face_of_a_model() -> None:
    model = build(CASCADES["depth three"])
    assert model.leaves == tuple(TREE.leaf_codes.tolist())
    assert model.spec.channels == (1, 2, 3)
    assert model.fill.tolist() == [100, 101, 102, 103]
    assert model.device == torch.device("cpu")
    assert torch.equal(model(values_of(1).numpy()), model(values_of(1)))
    with pytest.raises(MismatchError, match=r"\(B, 4, H, W\)"):
        model(values_of(1)[:, :3])


def test_a_faulty_specialist_is_named() -> None:
    spec = spec_of((11, 121, 122), name="broken")
    tree = tree_of({11: {}, 12: {121: {}, 122: {}}})
    broken = Model(lambda x: torch.full((len(x), 3, SIDE, SIDE), torch.nan), spec, tree)
    main = Model(Counted(3, 4, 0), spec_of((1, 2, 3)), tree_of({1: {}, 2: {}, 3: {}}))
    whole = tree_of({1: {11: {}, 12: {121: {}, 122: {}}}, 2: {}, 3: {}})
    with pytest.raises(ModelError, match="model broken gave NaN"):
        Cascade(main, [Member(1, broken, 0.0, BANDS)], whole)(values_of(0))


# What a specialist must be


@pytest.mark.parametrize("node", [n.code for n in TREE.nodes if n.parent is not None or n.level == 1])
def test_subtree_is_what_lies_below(node: int) -> None:
    place = TREE.node(node)
    if not TREE.children(place):
        return
    under = subtree(TREE, place, "below")
    assert [n.code for n in under.nodes] == [n.code for n in TREE.nodes if place in TREE.ancestors(n)]
    for n in under.nodes:
        assert (*place.path, *n.path) == TREE.node(n.code).path


FAULTS: list[tuple[int, Callable[[], tuple[ModelSpec, Taxonomy]], str]] = [
    (
        99,
        lambda: (spec_of((11,)), tree_of({11: {}})),
        r"node 99, which is not in the taxonomy land \(codes 1, ",
    ),
    (3, lambda: (spec_of((11,)), tree_of({11: {}})), r"c3 \(code 3\): that class has none below it"),
    (2, lambda: (spec_of((21,)), tree_of({21: {}})), "it lacks code 22, 221, 222, 2211, 2212"),
    (
        22,
        lambda: (spec_of((221,)), tree_of({221: {2211: {}, 2212: {}}, 222: {}, 9: {}})),
        "it has besides code 9;",
    ),
    (
        22,
        lambda: (spec_of((221,)), tree_of({221: {2211: {}}, 2212: {}, 222: {}})),
        "code 2212 is 'c2212' at the top and not 'c2212' below 221",
    ),
    (
        12,
        lambda: (
            spec_of((121, 122)),
            Taxonomy.flat("x", {121: ("c121", (0, 0, 0)), 122: ("dirt", (0, 0, 0))}),
        ),
        "code 122 is 'dirt' at the top and not 'c122' at the top",
    ),
    (
        12,
        lambda: (spec_of((121, 122), ("red", "swir")), tree_of({121: {}, 122: {}})),
        "wants the band swir, and the main model net reads only red, green, blue, nir",
    ),
    (
        12,
        lambda: (spec_of((121, 122), ground_resolution=1.0), tree_of({121: {}, 122: {}})),
        "pixels of 1 m and the main model net on pixels of 0.5 m",
    ),
    (
        12,
        lambda: (spec_of((121, 122), dtype="uint16"), tree_of({121: {}, 122: {}})),
        "trained on stored uint16 values and .* on stored uint8",
    ),
    (12, lambda: (spec_of((121, 122), scaled=True), tree_of({121: {}, 122: {}})), "scaled uint8 values"),
]


@pytest.mark.parametrize(("node", "specialist", "said"), FAULTS)
def test_a_specialist_that_does_not_fit(
    node: int, specialist: Callable[[], tuple[ModelSpec, Taxonomy]], said: str
) -> None:
    spec, tree = specialist()
    with pytest.raises(BundleError, match=said):
        check_specialist(spec_of((1, 2, 3)), TREE, node, spec, tree)


@pytest.mark.parametrize(
    ("channels", "refined", "leaves"),
    [
        ((1, 2, 3), [1, 2], [1, 2, 3]),
        ((1, 2, 3), [1], [1, 21, 2211, 2212, 222, 3]),  # which the channels then don't fit
        ((11, 12, 2, 3), [2, 12], [11, 12, 2, 3]),
        ((11, 121, 122, 2, 3), [2, 12], [11, 121, 122, 2, 3]),
        ((1, 11, 12, 2, 3), [2, 12], [11, 12, 2, 3]),  # of scores
    ],
)
def test_the_main_models_tree_ends_at_its_channels(
    channels: tuple[int, ...], refined: list[int], leaves: list[int]
) -> None:
    assert main_tree(spec_of(channels), TREE, refined).leaf_codes.tolist() == leaves
