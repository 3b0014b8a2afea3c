from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rssegment.errors import BundleError, ModelError
from rssegment.model import Model, ModelSpec, create_model, load_model, save_bundle
from rssegment.model.hierarchy import head_codes
from rssegment.model.stac_mlm import spec_from_item, spec_to_item
from rssegment.taxonomy import Taxonomy
from tests.model.conftest import BANDS, CODES, PATCH, Tiny, make_spec
from tests.model.test_stac_mlm import FILES

TREE = Taxonomy.loads(
    """
name: land
classes:
  - {code: 1, name: built, color: "#E4572E", classes: [
      {code: 11, name: house, color: "#E4572E"}, {code: 12, name: road, color: "#6B6570"}]}
  - {code: 2, name: plants, color: "#1B5E20", classes: [
      {code: 21, name: forest, color: "#1B5E20"}, {code: 22, name: crop, color: "#9CCC3C"}]}
  - {code: 3, name: water, color: "#3FA7D6"}
"""
)
LEAVES = tuple(TREE.leaf_codes.tolist())
NODES = tuple(TREE.arrays.codes.tolist())


def fixed(output: Tensor, changes: object = None, tree: Taxonomy = TREE, temperature: float = 1.0) -> Model:
    """A model whose network always gives ``output``."""
    return Model(lambda _: output, make_spec(**dict(changes or {})), tree, temperature=temperature)  # type: ignore[call-overload]


@given(
    st.lists(st.sampled_from(LEAVES) | st.none(), max_size=6).flatmap(
        lambda more: st.permutations([*LEAVES, *more])
    ),
    st.integers(0, 1000),
    st.sampled_from(["logits", "probabilities"]),
)
def test_probabilities_of_channels_that_share_a_leaf_add_up(
    channels: list[int | None], seed: int, output: str
) -> None:
    logits = 5 * torch.randn(1, len(channels), 3, 3, generator=torch.Generator().manual_seed(seed))
    kept = [i for i, code in enumerate(channels) if code is not None]
    shares = logits[:, kept].double().softmax(1)  # what stands for nothing is dropped before the softmax
    wanted = torch.zeros(1, len(LEAVES), 3, 3, dtype=torch.float64)
    for i, channel in enumerate(kept):
        wanted[:, LEAVES.index(channels[channel])] += shares[:, i]  # type: ignore[arg-type]
    model = fixed(
        logits if output == "logits" else logits.softmax(1), {"channels": channels, "output": output}
    )
    values = torch.zeros(1, BANDS, 3, 3)
    found = model(values)
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(model.leaf_logits(values).softmax(1), found, atol=1e-6, rtol=1e-4)


@given(st.permutations([*NODES, None]), st.integers(0, 1000))
def test_scores_are_summed_along_paths(channels: list[int | None], seed: int) -> None:
    scores = torch.randn(2, len(channels), 2, 3, generator=torch.Generator().manual_seed(seed))
    found = fixed(scores, {"channels": channels, "output": "scores"}).leaf_logits(torch.zeros(2, BANDS, 2, 3))
    for row, leaf in enumerate(TREE.leaves):
        path = [channels.index(node.code) for node in (*TREE.ancestors(leaf), leaf)]
        torch.testing.assert_close(found[:, row], scores[:, path].sum(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("output", "codes"), [("logits", (*LEAVES, 3)), ("scores", NODES)])
def test_sums_are_in_float32_whatever_the_network_gives(
    output: str, codes: tuple[int, ...], dtype: torch.dtype
) -> None:
    given_ = (3 * torch.randn(1, len(codes), 4, 4)).to(dtype)
    values = torch.zeros(1, BANDS, 4, 4)
    changes = {"output": output, "channels": codes}
    assert fixed(given_, changes)(values).dtype == torch.float32
    assert torch.equal(fixed(given_, changes)(values), fixed(given_.float(), changes)(values))


def test_one_channel_for_each_leaf_is_a_plain_softmax() -> None:
    logits = torch.randn(2, 5, 4, 4)
    values = torch.zeros(2, BANDS, 4, 4)
    model = fixed(logits, {"channels": LEAVES})
    assert torch.equal(model(values), logits.softmax(1))
    assert torch.equal(model.leaf_logits(values), logits)
    turned = fixed(logits, {"channels": LEAVES[::-1]})
    assert torch.equal(turned(values), logits.flip(1).softmax(1))


@pytest.mark.parametrize("output", ["logits", "probabilities", "scores"])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_divides_leaf_logits(output: str, temperature: float) -> None:
    codes = NODES if output == "scores" else LEAVES
    given_ = torch.randn(1, len(codes), 4, 4)
    given_ = given_.softmax(1) if output == "probabilities" else given_
    values = torch.zeros(1, BANDS, 4, 4)
    model = fixed(given_, {"channels": codes, "output": output}, temperature=temperature)
    plain = fixed(given_, {"channels": codes, "output": output})
    torch.testing.assert_close(model(values), (plain.leaf_logits(values) / temperature).softmax(1))
    assert torch.equal(model.leaf_logits(values), plain.leaf_logits(values))


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e6])
def test_extreme_temperatures_give_no_nan(temperature: float) -> None:
    logits = torch.tensor([3e38, -3e38, 1.0, 0.0, -torch.inf]).view(1, -1, 1, 1)
    found = fixed(logits, {"channels": LEAVES}, temperature=temperature)(torch.zeros(1, BANDS, 1, 1))
    assert found[0, 0] == 1


def test_logits_of_certain_probabilities_are_finite() -> None:
    certain = torch.tensor([1.0, 0, 0, 0, 0]).view(1, -1, 1, 1)
    model = fixed(certain, {"channels": LEAVES, "output": "probabilities"})
    logits = model.leaf_logits(torch.zeros(1, BANDS, 1, 1))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(1), certain, atol=1e-30, rtol=0)


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(fault: float) -> None:
    logits = torch.zeros(1, 5, 2, 2)
    logits[0, 2, 1, 1] = fault
    model = fixed(logits, {"channels": LEAVES})
    for ask in (model, model.leaf_logits):
        with pytest.raises(ModelError, match="NaN"):
            ask(torch.zeros(1, BANDS, 2, 2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": LEAVES[1:]}, "stand for 4 leaves .* has 5 leaves; no channel stands for leaf 11"),
        ({"channels": (*LEAVES, 99)}, "channel code 99 is no leaf of the taxonomy"),
        (
            {"channels": (11, 12, 2, 3)},
            "code 2 is no leaf.*; 2 has classes below it, which a specialist can tell",
        ),
        ({"channels": LEAVES, "output": "scores"}, "stand for 5 nodes .* 7 nodes; no channel .* node 1, 2"),
        ({"channels": (*NODES, 8), "output": "scores"}, "channel code 8 is no node"),
    ],
)
def test_channels_that_do_not_fit_the_tree(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        fixed(torch.zeros(1), changes)


@pytest.mark.parametrize(
    ("output", "channels"),
    [("logits", (30, 10, 10, None, 20)), ("probabilities", (10, 20, 30, 30)), ("scores", (20, 10, 30))],
)
def test_descriptions_survive_the_file_and_name_each_class_once(
    output: str, channels: tuple[int | None, ...], taxonomy: Taxonomy
) -> None:
    import pystac
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    spec = make_spec(output=output, channels=channels)
    item = spec_to_item(spec, taxonomy, FILES, None)
    assert spec_from_item(copy.deepcopy(item)) == spec
    told = item["properties"]["mlm:output"][0]
    assert [c["value"] for c in told["classification:classes"]] == list(spec.codes)
    assert sorted(spec.codes) == list(CODES)
    assert told["result"]["shape"][1] == len(channels)
    JsonSchemaSTACValidator().validate_core(
        item | {"stac_extensions": []}, pystac.STACObjectType.ITEM, "1.1.0"
    )


@pytest.mark.parametrize(("head", "output"), [("flat", "logits"), ("hierarchical", "scores")])
def test_a_model_made_for_a_tree_becomes_its_bundle(tmp_path: Path, head: str, output: str) -> None:
    options = make_spec().architecture_options
    network = create_model("smp:Unet", BANDS, TREE, head, **options).eval()  # type: ignore[arg-type]
    spec = make_spec(channels=head_codes(TREE, head), output=output)  # type: ignore[arg-type]
    assert save_bundle(tmp_path / "b", network, spec, TREE).describe()["output"] == output
    model = load_model(tmp_path / "b")
    assert model.leaves == LEAVES
    values = torch.randint(0, 256, (1, BANDS, PATCH, PATCH)).float()
    assert model(values).shape == (1, 5, PATCH, PATCH)


def test_a_flat_model_of_others_gets_a_tree(tmp_path: Path) -> None:
    """Seven outputs of a foreign model, one of them void, mapped to the leaves of a tree."""
    torch.manual_seed(0)
    network = torch.jit.script(Tiny(BANDS, 7).eval())
    spec = make_spec(
        artifact="torchscript",
        channels=(None, 11, 12, 12, 21, 22, 3),
        architecture="tiny",
        architecture_options={},
    )
    model = save_bundle(tmp_path / "b", network, spec, TREE).load()
    values = torch.randint(0, 256, (1, BANDS, PATCH, PATCH)).float()
    assert isinstance(model, Model)
    x = (values - torch.tensor(spec.means).view(1, -1, 1, 1)) / torch.tensor(
        [b.std for b in spec.bands]
    ).view(1, -1, 1, 1)
    shares = network(x)[:, 1:].softmax(1)
    wanted = torch.stack([shares[:, 0], shares[:, 1] + shares[:, 2], *shares[:, 3:].unbind(1)], 1)
    torch.testing.assert_close(model(values), wanted, atol=1e-6, rtol=1e-4)


def test_spec_knows_the_codes_of_its_channels() -> None:
    spec: ModelSpec = make_spec(channels=(30, None, 10, 30))
    assert spec.codes == (30, 10)
