"""Mappings between classes: packaged files, what each value becomes, and every kind of file that must be refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssegment.errors import InputError, TaxonomyError
from rssegment.taxonomy import ClassMapping, Taxonomy

FLAIR = Taxonomy.load("flair")
HEAD = "name: m\ntarget: flair\nclasses:\n"


def mapping(lines: str, others: str = "") -> ClassMapping:
    return ClassMapping.loads(HEAD + "".join(f"  {line}\n" for line in lines.split("; ")) + others)


@pytest.mark.parametrize(
    "name", ["building_only", "dubai_to_flair", "dubai_to_landcover", "flair_to_landcover", "osm_buildings"]
)
def test_packaged_mappings(name: str) -> None:
    assert name in ClassMapping.available()
    found = ClassMapping.load(name)
    assert found.name == name
    assert pickle.loads(pickle.dumps(found)) == found


def test_dubai_means_nodes_of_the_tree_at_any_level() -> None:
    codes = ClassMapping.load("dubai_to_flair").codes(
        np.array(["building", "land", "road", "vegetation", "water", "unlabelled", None], object)
    )
    names = ["" if code == 0 else "/".join(FLAIR.node(int(code)).path) for code in codes]
    assert names == ["built/building", "bare", "built/paved", "vegetation", "water", "", ""]


def test_building_only_covers_every_flair_code_and_leaves_what_is_coarser_undecided() -> None:
    found = ClassMapping.load("building_only")
    codes = np.array([node.code for node in FLAIR.with_undecided().nodes], np.uint16)
    mapped = found.apply(codes)
    assert set(mapped.tolist()) == {1, 2, found.target.undecided}
    undecided = codes[mapped == found.target.undecided].tolist()
    assert undecided == [100, 255]


@given(
    st.dictionaries(
        st.integers(0, 65535), st.sampled_from([n.code for n in FLAIR.nodes]), min_size=1, max_size=20
    ),
    st.sampled_from([None, 0, 1, 160]),
    st.lists(st.integers(0, 65535), max_size=30),
    st.sampled_from([np.uint16, np.int32, np.int64]),
)
def test_tables_and_arrays_of_any_type_agree_with_the_dictionary(  # type: ignore[no-untyped-def]
    pairs, others, drawn, dtype
) -> None:
    found = ClassMapping("m", FLAIR, tuple(pairs.items()), others)
    values = np.array([*pairs, *drawn], dtype)
    expected = [pairs.get(v, 0 if v == 0 else others) for v in values.tolist()]
    if None in expected:
        with pytest.raises(InputError, match="'others'"):
            found.apply(values)
    else:
        assert found.apply(values).tolist() == expected
        listed = values[
            values != 0
        ]  # in a raster 0 is no data where it isn't listed, in a column it is a value
        expected_codes = [pairs.get(v, others or 0) for v in listed.tolist()]
        assert found.codes(listed.astype(str).astype(object)).tolist() == expected_codes
    unknown = found.unknown()
    assert [bool(unknown[v]) for v in values.tolist()] == [e is None for e in expected]
    known = [i for i, e in enumerate(expected) if e is not None]
    assert found.lookup()[values[known]].tolist() == [expected[i] for i in known]


def test_values_that_are_not_listed_are_named_with_their_counts() -> None:
    found = mapping("1: building; road: paved")
    with pytest.raises(
        InputError, match=r"column 'x' has values .* 'm' doesn't list: b \(2 x\), 7 \(1 x\); add them"
    ):
        found.codes(np.array(["b", "road", 7, "b", None, 1.0, float("nan")], object), "column 'x'")
    with pytest.raises(InputError, match=r"-3 \(2 px\)"):
        found.apply(np.array([[-3, 1, -3]], np.int16))


def test_numbers_match_text_that_reads_the_same() -> None:
    found = mapping('1: building; "2": bare; 03x: water')
    assert found.codes(np.array(["1", 2, " 1 ", "03x", 1.0], object)).tolist() == [1, 4, 1, 160, 1]


def test_zero_is_no_data_unless_it_is_listed() -> None:
    zero = np.zeros(1, np.uint8)
    assert mapping("1: building", "others: bare\n").apply(zero)[0] == 0
    assert mapping("0: bare; 1: building").apply(zero)[0] == 4


def test_onto_another_tree_goes_by_path() -> None:
    other = Taxonomy.flat("other", {7: ("bare", (1, 2, 3)), 9: ("building", (3, 2, 1))})
    found = mapping("1: bare; 2: null", "others: undecided\n").onto(other)
    assert found.apply(np.array([1, 2, 3], np.uint8)).tolist() == [7, 0, 255]
    assert found.target == other
    with pytest.raises(
        TaxonomyError, match=r"leads to 'built/building' of taxonomy 'flair', which .*'other' lacks"
    ):
        mapping("1: building").onto(other)


def test_a_target_beside_the_file(tmp_path: Path) -> None:
    Taxonomy.flat("mine", {7: ("bare", (1, 2, 3))}).save(tmp_path / "mine.yaml")
    (tmp_path / "m.yaml").write_text("name: m\ntarget: mine.yaml\nclasses: {1: 7}\n")
    assert ClassMapping.load(tmp_path / "m.yaml").apply(np.ones(1, np.uint8))[0] == 7
    with pytest.raises(TaxonomyError, match="did you mean 'osm_buildings'"):
        ClassMapping.load("osm_building")
    with pytest.raises(TaxonomyError, match="can't read the mapping"):
        ClassMapping.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "  1: castle\n", r"<string>:4: taxonomy 'flair' has no class 'castle'"),
        (HEAD + "  1: 77\n", r":4: taxonomy 'flair' has no code 77"),
        (HEAD + "  1: bare\n  2: bare\n  1: water\n", r":6: 1 is mapped twice, first on line 4"),
        (HEAD + "  no: bare\n", r":4: a source value is a whole number .*in quotes"),
        (HEAD + "  1.5: bare\n", r":4: a source value is a whole number"),
        (HEAD + "  1: [bare]\n", r":4: expected one class"),
        (HEAD + "  1: yes\n", r":4: YAML reads yes as something else"),
        (HEAD + "  1: bare\nother: bare\n", r":5: unknown key 'other' in a mapping; did you mean 'others'"),
        (
            "name: m\ntarget: nowhere\nclasses: {1: bare}\n",
            r":2: the target can't be loaded: no taxonomy is called",
        ),
        ("name: m\ntarget: flair\n", r"the file has no 'classes:'"),
        ("name: m\ntarget: flair\nclasses: []\n", r":3: 'classes' must be pairs"),
        ("name: m\ntarget: flair\ntarget: flair\nclasses: {1: bare}\n", r":3: key 'target' is given twice"),
        ("name: 7\ntarget: flair\nclasses: {1: bare}\n", r":1: 'name' must be text"),
        ("just text", "expected keys and values"),
        ("name: {", "not valid YAML"),
        ("[" * 5000, "nested too deeply"),
        ("name: !!python/object:x m\n", "must be text|not valid YAML|has no"),
    ],
)
def test_files_that_are_no_mapping(text: str, words: str) -> None:
    with pytest.raises(TaxonomyError, match=words):
        ClassMapping.loads(text)


def test_as_truth_what_is_undecided_is_no_label() -> None:
    found = mapping("1: building; 2: undecided", "others: undecided\n").of_truth()
    assert found.apply(np.array([1, 2, 3], np.uint8)).tolist() == [1, 0, 0]
