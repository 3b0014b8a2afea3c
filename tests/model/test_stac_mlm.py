from __future__ import annotations

import copy
import json
from typing import Any

import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pystac.extensions.mlm import MLMExtension

from rssegment.errors import BundleError
from rssegment.model import BandSpec, ModelSpec
from rssegment.model.files import Asset, assets_from_item
from rssegment.model.stac_mlm import spec_from_item, spec_to_item
from rssegment.taxonomy import Taxonomy
from tests.model.conftest import make_spec

FILES = {
    "weights": Asset("weights.safetensors", 10, "ab" * 32),
    "taxonomy": Asset("taxonomy.yaml", 5, "cd" * 32),
}


@pytest.fixture
def item(taxonomy: Taxonomy) -> dict[str, Any]:
    return spec_to_item(make_spec(), taxonomy, FILES, 1234)


numbers = st.floats(-1e6, 1e6, allow_nan=False)
names = st.text(min_size=1, max_size=8)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    bands = draw(st.lists(names, min_size=1, max_size=5, unique_by=str.casefold))
    patch = draw(st.integers(1, 2048))
    return make_spec(
        bands=tuple(
            BandSpec(
                name=b,
                mean=draw(numbers),
                std=draw(st.floats(1e-6, 1e6)),
                optional=k > 0 and draw(st.booleans()),
            )
            for k, b in enumerate(bands)
        ),
        channels=tuple(draw(st.permutations([10, 20, 30, None, None]))),
        ground_resolution=draw(st.floats(1e-3, 1e5)),
        dtype=draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])),
        scaled=draw(st.booleans()),
        value_range=(draw(st.floats(-1e6, 0)), draw(st.floats(1, 1e6))),
        patch=patch,
        overlap=draw(st.integers(0, patch // 2)),
        batch=draw(st.none() | st.integers(1, 64)),
        output=draw(st.sampled_from(["logits", "probabilities"])),
        title=draw(st.text(max_size=10)),
        credit=draw(st.text(max_size=10)),
        training={"epochs": 3, "scores": [0.5]},
    )


TREE = Taxonomy.flat("t", {code: (f"c{code}", (code, 0, 0)) for code in (10, 20, 30)})


@given(specs())
def test_a_description_survives_the_file(spec: ModelSpec) -> None:
    item = json.loads(json.dumps(spec_to_item(spec, TREE, FILES, None)))
    again = spec_from_item(item)
    assert again == spec
    assert assets_from_item(item) == FILES


def test_pystac_reads_it(item: dict[str, Any]) -> None:
    read = pystac.Item.from_dict(copy.deepcopy(item))
    mlm = MLMExtension.ext(read)
    assert mlm.mlm_name == "tiny"
    assert [band if isinstance(band, str) else band.name for band in mlm.input[0].bands] == [
        "red",
        "green",
        "nir",
    ]
    scaling = mlm.input[0].properties["value_scaling"]  # the specification wants a list, pystac one object
    assert [scale["mean"] for scale in scaling] == [90, 100, 120]
    assert [c.value for c in mlm.output[0].classes] == [10, 20, 30]
    assert mlm.total_parameters == 1234
    again = read.to_dict(include_self_link=False)
    assert again["properties"] == item["properties"]


def test_it_is_a_valid_stac_item(item: dict[str, Any]) -> None:
    """Against the schemas of STAC 1.1 that pystac carries; those of extensions would have to be downloaded."""
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    core = item | {"stac_extensions": []}
    JsonSchemaSTACValidator().validate_core(core, pystac.STACObjectType.ITEM, "1.1.0")


PATHS: list[tuple[tuple[Any, ...], str]] = [
    (("properties",), "$.properties"),
    (("stac_extensions",), "$.stac_extensions"),
    (("properties", "gsd"), "$.properties.gsd"),
    (("properties", "mlm:name"), "$.properties['mlm:name']"),
    (("properties", "mlm:input"), "$.properties['mlm:input']"),
    (("properties", "mlm:input", 0, "bands"), "$.properties['mlm:input'][0]"),
    (("properties", "mlm:input", 0, "input", "shape"), "$.properties['mlm:input'][0].input.shape"),
    (("properties", "mlm:input", 0, "input", "dim_order"), "$.properties['mlm:input'][0].input.dim_order"),
    (("properties", "mlm:input", 0, "value_scaling"), "$.properties['mlm:input'][0].value_scaling"),
    (("properties", "mlm:input", 0, "value_scaling", 1, "mean"), "[0].value_scaling[1].mean"),
    (("properties", "mlm:output", 0, "result", "shape"), "$.properties['mlm:output'][0].result.shape"),
    (("assets", "weights", "bands", 2, "data_type"), "$.assets.weights.bands[2].data_type"),
    (("properties", "rssegment:channels"), "$.properties['rssegment:channels']"),
    (("properties", "rssegment:scaled"), "$.properties['rssegment:scaled']"),
    (("properties", "rssegment:value_range"), "$.properties['rssegment:value_range']"),
    (("properties", "rssegment:overlap"), "$.properties['rssegment:overlap']"),
    (("assets",), "$.assets"),
    (("assets", "weights", "href"), "$.assets.weights.href"),
    (("assets", "taxonomy", "file:checksum"), "$.assets.taxonomy['file:checksum']"),
]


@pytest.mark.parametrize(("keys", "path"), PATHS, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("wrong", ["gone", None, {"a": 1}, 1.5, "text", [True]])
def test_faults_name_the_json_path(
    item: dict[str, Any], keys: tuple[Any, ...], path: str, wrong: Any
) -> None:
    place: Any = item
    for key in keys[:-1]:
        place = place[key]
    if wrong == "gone":
        del place[keys[-1]]
    elif isinstance(place[keys[-1]], int | float) and wrong == 1.5 and keys[-1] != "rssegment:overlap":
        pytest.skip("a number is right here")
    elif isinstance(place[keys[-1]], str) and wrong == "text" and "checksum" not in keys[-1]:
        pytest.skip("a text is right here")
    else:
        place[keys[-1]] = wrong
    with pytest.raises(BundleError) as caught:
        spec_from_item(item), assets_from_item(item)
    assert path in str(caught.value)


def test_one_scaling_serves_all_bands(item: dict[str, Any]) -> None:
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "min-max", "minimum": 10, "maximum": 110}]
    assert {(b.mean, b.std) for b in spec_from_item(item).bands} == {(10, 100)}


def test_an_optional_band_is_marked_where_bands_may_have_more_properties(item: dict[str, Any]) -> None:
    bands = item["assets"]["weights"]["bands"]
    assert not any("rssegment:optional" in band for band in bands)
    bands[2]["rssegment:optional"] = True
    assert [band.optional for band in spec_from_item(item).bands] == [False, False, True]
    bands.reverse()
    assert [band.optional for band in spec_from_item(item).bands] == [False, False, True]  # by name
    bands[0]["rssegment:optional"] = "yes"
    with pytest.raises(BundleError, match=r"bands\[0\]\['rssegment:optional'\] is 'yes'"):
        spec_from_item(item)
    bands[0] |= {"rssegment:optional": True, "name": "near"}
    with pytest.raises(
        BundleError, match=r"bands\[0\]\.name is 'near'; the model's bands are red, green, nir"
    ):
        spec_from_item(item)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "has space"}, "name = 'has space'"),
        ({"bands": ()}, "bands"),
        ({"bands": (BandSpec(name="a"), BandSpec(name="A"))}, "same name"),
        ({"channels": (None,)}, "at least one output channel"),
        ({"channels": (10, 10), "output": "scores"}, "same code; a node has one score"),
        ({"output": "votes"}, "output = 'votes'"),
        ({"overlap": 17}, "more than half the patch"),
        ({"value_range": (1, 1)}, "low"),
        ({"ground_resolution": 0}, "ground_resolution = 0"),
        ({"ground_resolution": float("nan")}, "ground_resolution"),
        ({"dtype": "complex64"}, "use one of uint8"),
        ({"artifact": "pickle"}, "artifact = 'pickle'"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_wrong_description_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        make_spec(**changes)
