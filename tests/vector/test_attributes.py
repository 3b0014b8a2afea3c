"""The columns that every feature has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from rssegment.errors import InputError
from rssegment.taxonomy import Taxonomy
from rssegment.vector import Regions
from rssegment.vector.attributes import attributes, ground_size
from rssegment.write.features import REGION_SCHEMA
from tests.vector.tables import regions_of, traced

PLACE = Affine(10, 0, 700_000, 0, -10, 5_500_000)
UTM = "EPSG:32633"
TAXONOMY = Taxonomy.flat("t", {1: ("built", (255, 0, 0)), 7: ("water", (0, 0, 255))})
SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])


def some(**columns: Any) -> Regions:
    """Two regions, of 1 and 2 x 2 px, with what is given."""
    regions = regions_of([[SQUARE], [SQUARE * 2 + 3]])
    return replace(regions, **{name: np.asarray(values) for name, values in columns.items()})


def test_columns() -> None:
    regions = some(
        id=[4, 9], parent=[0, 3], code=np.array([7, 1], np.uint16), least=np.array([127, 255], np.uint8),
        sums=[[1, 127, 1, 63, 1], [4, 0, 0, 0, 0]], touches=np.array([1, 2], np.uint8),
    )  # fmt: skip
    columns = attributes(regions, TAXONOMY, PLACE, UTM)
    assert columns["id"].tolist() == [4, 9]
    assert columns["parent_id"].tolist() == [None, 3]
    assert columns["code"].tolist() == [7, 1]
    assert columns["name"].tolist() == ["water", "built"]
    assert columns["level"].tolist() == [1, 1]
    assert columns["path"].tolist() == ["water", "built"]
    assert columns["pixels"].tolist() == [1, 4]
    assert columns["area_m2"] == pytest.approx([100, 400], rel=2e-3)
    assert columns["perimeter_m"] == pytest.approx([40, 80], rel=1e-3)
    assert columns["confidence"][0] == 0.5
    assert columns["confidence_min"][0] == 0.5
    assert columns["margin"][0] == 0.248
    for name in ("confidence", "confidence_min", "margin"):
        assert np.isnan(columns[name][1])
    assert columns["touches_nodata"].tolist() == [True, False]
    assert columns["touches_edge"].tolist() == [False, True]


@pytest.mark.parametrize("crs", [UTM, None])
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_the_schema_is_the_same_whatever_the_regions(crs: str | None, rows: int) -> None:
    columns = attributes(some()[:rows], TAXONOMY, PLACE, crs)
    assert list(columns) == list(REGION_SCHEMA)
    kinds = {"i": ("int32", "int64"), "f": ("float64",), "b": ("bool",), "O": ("text",)}
    assert all(REGION_SCHEMA[name] in kinds[values.dtype.kind] for name, values in columns.items())
    assert {len(values) for values in columns.values()} == {rows}
    assert isinstance(columns["parent_id"], np.ma.MaskedArray)


@given(st.lists(st.integers(0, 254), min_size=1, max_size=9))
def test_least_and_mean_of_what_is_known(values: list[int]) -> None:
    regions = some(
        least=np.array([min(values), 255], np.uint8),
        sums=[[9, sum(values), len(values), 0, 0], [4, 0, 0, 0, 0]],
    )
    columns = attributes(regions, TAXONOMY, PLACE, None)
    assert columns["confidence"][0] == pytest.approx(np.mean(values) / 254, abs=5e-5)
    assert columns["confidence_min"][0] <= columns["confidence"][0]
    assert columns["confidence_min"][0] == round(min(values) / 254, 4)


def test_path_names_the_ancestors() -> None:
    taxonomy = Taxonomy.load("flair")
    node = max(taxonomy.nodes, key=lambda node: node.level)
    regions = some(code=np.full(2, node.code, np.uint16))
    columns = attributes(regions, taxonomy, PLACE, None)
    assert columns["path"][0] == "/".join(node.path)
    assert columns["level"][0] == node.level > 1


def test_a_layer_of_one_level_says_so() -> None:
    """A class that ends above the level is drawn in its layer too."""
    columns = attributes(some(), TAXONOMY, PLACE, UTM, level=3)
    assert columns["level"].tolist() == [3, 3]
    assert columns["path"].tolist() == ["built", "built"]


SITE = 'LOCAL_CS["site",UNIT["metre",1]]'
MARS = 'GEOGCS["Mars",DATUM["Mars",SPHEROID["Mars",3396190,169.89]],PRIMEM["0",0],UNIT["degree",0.0174532925199433]]'


@pytest.mark.parametrize("crs", [None, SITE, MARS, "EPSG:4978"], ids=["none", "site", "Mars", "geocentric"])
def test_off_the_map_of_the_earth_sizes_are_unknown(crs: str | None) -> None:
    columns = attributes(some(), TAXONOMY, Affine.identity(), crs)
    assert np.isnan(columns["area_m2"]).all()
    assert np.isnan(columns["perimeter_m"]).all()
    assert columns["pixels"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "crs", ["EPSG:32633+5773", "+proj=utm +zone=33 +ellps=intl +towgs84=-87,-98,-121 +type=crs"]
)
def test_heights_and_datum_shifts_are_no_hindrance(crs: str) -> None:
    areas = attributes(some(), TAXONOMY, PLACE, crs)["area_m2"]
    assert areas == pytest.approx([100, 400], rel=3e-3)


@pytest.mark.parametrize("side", [0.05, 0.2, 10, 30, 1000])
def test_rounding_does_not_show_in_a_sum(side: float) -> None:
    regions = traced(np.random.default_rng(1).integers(1, 4, (60, 60)))
    place = Affine(side, 0, 500_000, 0, -side, 5_500_000)
    columns = attributes(replace(regions, code=np.ones(len(regions), np.uint16)), TAXONOMY, place, UTM)
    areas, lengths = ground_size(regions, place, UTM)
    assert columns["area_m2"].sum() == pytest.approx(areas.sum(), rel=1e-9)
    assert columns["area_m2"] == pytest.approx(areas, rel=1e-8)
    assert columns["perimeter_m"] == pytest.approx(lengths, rel=1e-6)
    assert max(len(repr(value)) for value in columns["area_m2"].tolist()) <= 15


def test_codes_the_taxonomy_lacks_are_listed() -> None:
    regions = some(code=np.array([300, 5]))
    with pytest.raises(InputError, match="2 codes that the taxonomy lacks: 5, 300"):
        attributes(regions, TAXONOMY, PLACE, None)


def test_negative_codes_are_codes() -> None:
    class Tree:
        nodes = tuple(Taxonomy.flat("t", {1: ("ice", (0, 0, 1))}).nodes)

        def node(self, key: int) -> Any:
            return self.nodes[0]

    tree = Tree()
    tree.nodes = (type("N", (), {"code": -7, "name": "ice", "level": 1, "path": ("ice",)})(),)
    columns = attributes(some(code=np.array([-7, -7])), tree, PLACE, UTM)
    assert columns["code"].tolist() == [-7, -7]
    assert columns["name"].tolist() == ["ice", "ice"]
