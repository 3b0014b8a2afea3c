"""A bundle's weights in networks of other bands and classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rssegment.model import BandSpec, ModelSpec, create_model, head_codes, save_bundle
from rssegment.taxonomy import Taxonomy
from rssegment.training.building import begin
from rssegment.training.starting import Start, over_bands
from tests.training.trainings import a_recipe

BANDS = ("red", "green", "blue", "nir")
UNET = {"encoder": "tf_mobilenetv3_small_minimal_100", "encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def tree(*names: str) -> Taxonomy:
    """Flat classes; their codes are their places from 1."""
    nodes = "".join(
        f'  - {{name: {name}, code: {code}, color: "#0000{code:02x}"}}\n'
        for code, name in enumerate(names, 1)
    )
    return Taxonomy.loads(f"name: {'-'.join(names)}\nclasses:\n{nodes}")


OLD = tree("field", "water", "wood")


def spec_of(architecture: str, bands: Sequence[str] = BANDS, head: Any = "flat", **options: Any) -> ModelSpec:
    return ModelSpec(
        name="old",
        architecture=architecture,
        architecture_options=options,
        bands=tuple(BandSpec(name=name) for name in bands),
        channels=head_codes(OLD, head),
        output="logits" if head == "flat" else "scores",
        ground_resolution=1.0,
        patch=64,
        overlap=16,
    )


def networks(
    spec: ModelSpec, bands: Sequence[str], taxonomy: Taxonomy, head: Any = "flat"
) -> tuple[nn.Module, nn.Module, Start]:
    """The old network, the new one begun from it, and how it was."""
    torch.manual_seed(3)
    options = spec.architecture_options
    old = create_model(spec.architecture, len(spec.bands), OLD, "flat", **options).eval()
    new = create_model(spec.architecture, len(bands), taxonomy, head, **options).eval()
    start = Start.of(spec, OLD, bands, taxonomy, head)
    own = new.state_dict()
    new.load_state_dict(own | start.filled(own, old.state_dict()))
    return old, new, start


@pytest.mark.parametrize(
    ("name", "options"), [("smp:Unet", UNET), ("bisenet", {}), ("icnet", {}), ("gcn", {}), ("duc_hdc", {})]
)
def test_bands_and_classes_in_another_order_change_nothing(name: str, options: dict[str, Any]) -> None:
    order, classes = [2, 3, 0, 1], [2, 0, 1]
    bands = [BANDS[i] for i in order]
    taxonomy = tree(*(OLD.leaves[i].name for i in classes))
    old, new, start = networks(spec_of(name, **options), bands, taxonomy)
    x = torch.randn(1, 4, 64, 64)
    with torch.no_grad():
        expected, found = old(x)[:, classes], new(x[:, order])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, old(x))
    assert not start.inner(new.state_dict())
    assert start.told() == "bands: 4 of 4 from it, 0 new; head: 3 of 3 classes from it, 0 new"


def test_other_classes_of_equal_number_take_no_rows(tmp_path: Path) -> None:
    torch.manual_seed(1)
    old = create_model("smp:Unet", 4, OLD, "flat", **UNET).eval()
    save_bundle(tmp_path / "old", old, spec_of("smp:Unet", **UNET), OLD)
    recipe = a_recipe(model={"start": str(tmp_path / "old")}, bands=BANDS)
    begun = begin(recipe, tree("road", "water", "roof"), ())
    own, given = begun.network.state_dict(), old.state_dict()
    (head,) = (name for name in own if name.startswith("segmentation_head") and name.endswith("weight"))
    assert torch.equal(own[head][1], given[head][1])
    assert not any((own[head][i] == given[head][j]).any() for i in (0, 2) for j in range(3))
    assert all(
        torch.equal(own[name], given[name]) for name in own if not name.startswith("segmentation_head")
    )
    assert begun.origin.startswith("bundle old, ")
    assert begun.origin.endswith("; bands: 4 of 4 from it, 0 new; head: 1 of 3 classes from it, 2 new")
    begun = begin(recipe, tree("road", "river", "roof"), ())
    assert not any((begun.network.state_dict()[head] == row).any() for row in given[head])


def test_rows_of_another_head_mean_something_else() -> None:
    old, new, start = networks(spec_of("smp:Unet", **UNET), BANDS, OLD, "hierarchical")
    assert start.classes == (None,) * 3
    own, given = new.state_dict(), old.state_dict()
    assert not torch.equal(own["segmentation_head.0.weight"], given["segmentation_head.0.weight"])


def test_a_new_band_begins_as_the_mean_of_the_others() -> None:
    bands = ("blue", "SWIR", "Red", "green", "nir")
    old, new, start = networks(spec_of("smp:Unet", **UNET), bands, OLD)
    assert start.bands == (2, None, 0, 1, 3)
    x = torch.randn(1, 4, 64, 64)
    filters = next(v for v in old.state_dict().values() if v.shape[1:2] == (4,))
    found = next(v for v in new.state_dict().values() if v.shape[1:2] == (5,))
    torch.testing.assert_close(found[:, [2, 3, 0, 4]], filters * 4 / 5)
    torch.testing.assert_close(found[:, 1], filters.mean(1) * 4 / 5)
    with torch.no_grad():
        assert new(x[:, [2, 0, 0, 1, 3]]).shape == old(x).shape


def test_without_a_band_it_is_as_if_that_were_at_its_mean() -> None:
    old, new, _ = networks(spec_of("smp:Unet", **UNET), ("nir", "red"), OLD)
    x = torch.randn(1, 4, 64, 64)
    x[:, 1:3] = 0
    with torch.no_grad():
        torch.testing.assert_close(new(x[:, [3, 0]]), old(x), rtol=1e-4, atol=1e-5)


def test_bands_that_are_all_new_take_no_filters() -> None:
    old, new, start = networks(spec_of("smp:Unet", **UNET), ("a", "b", "c", "d"), OLD)
    own, given = new.state_dict(), old.state_dict()
    name = next(key for key, value in given.items() if value.shape[1:2] == (4,))
    assert not torch.equal(own[name], given[name])
    assert [key for key in given if not torch.equal(own[key], given[key])] == [name]
    assert start.told().startswith("bands: 0 of 4 from it, 4 new")


@pytest.mark.parametrize("name", ["enet", "erfnet"])
def test_networks_that_carry_bands_further_in_say_so(name: str) -> None:
    spec = spec_of(name)
    _, new, start = networks(spec, BANDS[::-1], OLD)
    assert start.inner(new.state_dict())
    assert start.told(True).endswith(
        f"; {name} hands the bands themselves on to its second layer, which learns anew where they are"
    )
    old, new, start = networks(spec, BANDS, OLD)
    assert not start.inner(new.state_dict())
    _, fewer, start = networks(spec, BANDS[:3], OLD)
    assert start.inner(fewer.state_dict())  # which are others there: filters take the place of the fourth
    assert all(torch.equal(value, old.state_dict()[key]) for key, value in new.state_dict().items())


def test_filters_over_bands() -> None:
    filters = torch.arange(24.0).view(2, 3, 2, 2)
    assert torch.equal(over_bands(filters, 1, (2, 0, 1)), filters[:, [2, 0, 1]])
    assert torch.equal(over_bands(filters, 1, (1,)), filters[:, [1]])
    like_mean = over_bands(filters, 1, (0, None, 1, 2))
    torch.testing.assert_close(like_mean.sum(1), filters.sum(1))
