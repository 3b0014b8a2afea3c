"""The class tree: laws on drawn trees, packaged files, and every kind of file that must be refused."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rssegment.errors import InputError, OutputError, TaxonomyError
from rssegment.taxonomy import Node, Taxonomy
from rssegment.taxonomy.tree import arrange
from rssegment.taxonomy.yaml_form import DEPTH_LIMIT, Document, Entry, parse, render

TREE = """\
name: small
title: A small tree
classes:
  - code: 10
    name: built
    color: "#112233"
    classes:
      - {code: 1, name: building, color: "#ff0000", title: "Building, any"}
      - {code: 2, name: other, color: "#00FF00"}
  - code: 20
    name: vegetation
    color: "#445566"
    classes:
      - code: 21
        name: crop
        color: "#778899"
        classes:
          - {code: 5, name: wheat, color: "#AABBCC"}
          - {code: 4, name: other, color: "#AABBCD"}
      - {code: 3, name: forest, color: "#003300"}
  - code: 30
    name: water
    color: "#0000FF"
    classes:
      - {code: 7, name: water, color: "#0000FE"}
  - {code: 8, name: bare, color: "#F0E68C"}
"""


@pytest.fixture(scope="module")
def small() -> Taxonomy:
    return Taxonomy.loads(TREE)


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(
    lambda s: s == s.strip() and "/" not in s and s.isprintable()
)
awkward = st.sampled_from(
    ["no", "on", "null", "~", "0x10", "1:30", "2001-01-01", "<<", "=", "- a", "a: b", "#x", "'", '"', "\\"]
)
colors = st.tuples(*[st.integers(0, 255)] * 3)
prose = st.text(st.characters(codec="utf-8"), max_size=30)


@st.composite
def taxonomies(draw: st.DrawFn, max_nodes: int = 14) -> Taxonomy:
    """Trees of any shape: each class hangs on an earlier one or stands at the top."""
    codes = draw(st.lists(st.integers(1, 65535), min_size=1, max_size=max_nodes, unique=True))
    labels = draw(st.lists(names | awkward, min_size=len(codes), max_size=len(codes), unique=True))
    entries = []
    for i, (code, label) in enumerate(zip(codes, labels, strict=True)):
        parent = draw(st.none() | st.sampled_from(codes[:i])) if i else None
        entries.append(Entry(code, label, draw(colors), " ".join(draw(prose).split()), parent))
    return Taxonomy(
        draw(names | awkward), arrange(entries, "drawn"), description=draw(prose), title=draw(prose)
    )


@given(taxonomies())
def test_text_gives_back_the_same_tree(tree: Taxonomy) -> None:
    text = tree.dump()
    again = Taxonomy.loads(text)
    assert again == tree
    assert again.dump() == text
    assert hash(again) == hash(tree)
    assert again.fingerprint == tree.fingerprint
    assert yaml.safe_load(text)["name"] == tree.name  # any YAML reader sees the same


@given(taxonomies())
def test_preorder_paths_and_levels(tree: Taxonomy) -> None:
    seen: set[int] = set()
    for node in tree.nodes:
        assert node.parent is None or node.parent in seen
        seen.add(node.code)
        above = tree.ancestors(node)
        assert node.path == (*(a.name for a in above), node.name)
        assert node.level == len(node.path)
        assert all(child.parent == node.code for child in tree.children(node))
        assert tree.node(node.code) is node
        assert tree.node("/".join(node.path)) is node
    assert tree.depth == max(leaf.level for leaf in tree.leaves)


@given(taxonomies())
def test_each_level_is_a_partition_of_the_leaves(tree: Taxonomy) -> None:
    rows = {node.code: row for row, node in enumerate(tree.nodes)}
    for level in range(1, tree.depth + 1):
        members = tree.membership[[rows[node.code] for node in tree.level(level)]]
        assert (members.sum(axis=0) == 1).all()
        assert members.any(axis=1).all()
    assert tree.level(tree.depth) == tree.leaves


@given(taxonomies())
def test_membership_is_the_union_of_the_childrens(tree: Taxonomy) -> None:
    row = {node.code: tree.membership[i] for i, node in enumerate(tree.nodes)}
    for node in tree.nodes:
        children = tree.children(node)
        own = sum((row[child.code].astype(int) for child in children), np.zeros(len(tree.leaves), int))
        expected = own if children else np.array([leaf is node for leaf in tree.leaves])
        np.testing.assert_array_equal(row[node.code], expected)


@given(taxonomies())
def test_ancestor_lookup(tree: Taxonomy) -> None:
    for level in range(1, tree.depth + 1):
        lookup = tree.ancestor_lookup(level)
        assert lookup.shape == (65536,)
        assert lookup.dtype == np.uint16
        expected = {n.code: (*tree.ancestors(n), n)[min(level, n.level) - 1].code for n in tree.nodes}
        assert {int(c): int(lookup[c]) for c in np.flatnonzero(lookup)} == expected


@given(taxonomies())
def test_pickle_keeps_content_and_drops_caches(tree: Taxonomy) -> None:
    before = len(pickle.dumps(tree))
    tree.membership, tree.leaves, tree.fingerprint  # noqa: B018
    assert len(pickle.dumps(tree)) == before
    again = pickle.loads(pickle.dumps(tree))
    assert again == tree
    np.testing.assert_array_equal(again.membership, tree.membership)


def test_small_tree_by_hand(small: Taxonomy) -> None:
    assert [n.code for n in small.nodes] == [10, 1, 2, 20, 21, 5, 4, 3, 30, 7, 8]
    assert small.leaf_codes.tolist() == [1, 2, 5, 4, 3, 7, 8]
    assert [n.code for n in small.level(1)] == [10, 20, 30, 8]
    assert [n.code for n in small.level(2)] == [1, 2, 21, 3, 7, 8]
    assert small.depth == 3
    assert small.node("building") == Node(
        1, "building", (255, 0, 0), 2, 10, ("built", "building"), "Building, any"
    )
    assert small.node(1).hex == "#FF0000"
    assert small.ancestor_lookup(1)[[5, 4, 21, 20, 8, 99, 0]].tolist() == [20, 20, 20, 20, 8, 0, 0]
    assert small.ancestor_lookup(2)[[5, 20]].tolist() == [21, 20]
    assert small.colormap()[0] == (0, 0, 0, 0)
    assert small.colormap()[3] == (0, 51, 0, 255)


def test_names_are_found_by_path(small: Taxonomy) -> None:
    assert small.node("built/other").code == 2
    assert small.node("crop/other").code == 4  # a tail of the path is enough
    assert small.node("water").code == 30  # a whole path wins
    assert small.node("water/water").code == 7
    with pytest.raises(TaxonomyError, match=r"several classes.*built/other, vegetation/crop/other"):
        small.node("other")
    with pytest.raises(TaxonomyError, match="no class 'forrest'; it has forest"):
        small.node("forrest")
    with pytest.raises(TaxonomyError, match="no code 99; its codes are 1, 2"):
        small.node(99)
    with pytest.raises(TaxonomyError, match="levels 1 to 3; got 4"):
        small.level(4)
    with pytest.raises(TaxonomyError, match="levels 1 to 3; got 0"):
        small.ancestor_lookup(0)


def test_category_names_are_unique(small: Taxonomy) -> None:
    labels = small.category_names()
    assert labels[0] == "no data"
    assert labels[1] == "Building, any"
    assert labels[2] == "built/other"
    assert set(labels) == {0, *(n.code for n in small.nodes)}
    assert len(set(labels.values())) == len(labels)


def test_values_cannot_be_changed(small: Taxonomy) -> None:
    with pytest.raises(FrozenInstanceError):
        small.name = "x"  # type: ignore[misc]
    for array in (small.membership, small.leaf_codes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_nodes_that_contradict_their_tree_are_refused(small: Taxonomy) -> None:
    with pytest.raises(TaxonomyError, match="pre-order"):
        Taxonomy("x", small.nodes[::-1])
    with pytest.raises(TaxonomyError, match="pre-order"):
        Taxonomy("x", (replace(small.nodes[0], level=2), *small.nodes[1:]))
    with pytest.raises(TaxonomyError, match="no classes"):
        Taxonomy("x", ())


def test_equality_and_fingerprint_follow_content(small: Taxonomy) -> None:
    for changed in (
        TREE.replace("wheat", "rye"),
        TREE.replace("AABBCC", "AABBCE"),
        TREE.replace("A small", "Another"),
    ):
        other = Taxonomy.loads(changed)
        assert other != small
        assert other.fingerprint != small.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", small.fingerprint)


def test_flat_form_gives_the_same_tree(small: Taxonomy) -> None:
    lines = ["name: small", "title: A small tree", "classes:"]
    for n in small.nodes:
        parent = "" if n.parent is None else f", parent: {n.parent}"
        title = f', title: "{n.title}"' if n.title else ""
        lines.append(f'  - {{code: {n.code}, name: {n.name}, color: "{n.hex}"{title}{parent}}}')
    assert Taxonomy.loads("\n".join(lines)) == small
    children_first = [*lines[:3], *lines[:2:-1]]
    assert {n.code: n.path for n in Taxonomy.loads("\n".join(children_first)).nodes} == {
        n.code: n.path for n in small.nodes
    }


def test_flat_from_numpy_and_python() -> None:
    rgb = np.array([1, 2, 3], np.uint8)
    tree = Taxonomy.flat("cdl", {np.uint8(5): ("soy", rgb), 1: ("corn", (9, 9, 9))})
    assert tree.leaf_codes.tolist() == [5, 1]
    assert tree.depth == 1
    assert tree.node("soy").color == (1, 2, 3)
    assert Taxonomy.loads(tree.dump()) == tree
    for bad in (
        {0: ("a", (0, 0, 0))},
        {True: ("a", (0, 0, 0))},
        {1.0: ("a", (0, 0, 0))},
        {1: ("a", (0, 0, 256))},
        {1: ("a", (0, 0))},
        {1: ("a", "red")},
        {1: ("", (0, 0, 0))},
        {},
    ):
        with pytest.raises(TaxonomyError):
            Taxonomy.flat("x", bad)


def test_a_tree_of_all_codes_is_no_trouble() -> None:
    tree = Taxonomy.flat("all", {code: (f"c{code}", (0, 0, 0)) for code in range(1, 65536)})
    assert tree.ancestor_lookup(1).tolist() == list(range(65536))


# Files


def test_save_load_and_byte_order_mark(small: Taxonomy, tmp_path: Path) -> None:
    path = tmp_path / "café.yaml"
    small.save(path)
    assert Taxonomy.load(path) == small
    assert Taxonomy.load(str(path)) == small
    path.write_bytes(b"\xef\xbb\xbf" + TREE.replace("\n", "\r\n").encode())
    assert Taxonomy.load(path) == small
    with pytest.raises(OutputError, match="can't write"):
        small.save(tmp_path / "absent" / "tree.yaml")


def test_bare_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        TaxonomyError, match=r"'flare' \(did you mean 'flair'\?\); packaged are .*corine.*voc2012"
    ):
        Taxonomy.load("flare")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text(TREE)
    (tmp_path / "flair").write_text(TREE)
    assert Taxonomy.load("mine").name == "small"
    assert Taxonomy.load("flair").name == "flair"
    assert Taxonomy.load("./flair").name == "small"
    with pytest.raises(TaxonomyError, match=r"can't read the taxonomy absent\.yaml: No such file"):
        Taxonomy.load("absent.yaml")
    with pytest.raises(TaxonomyError, match="can't read"):
        Taxonomy.load(tmp_path)


def test_a_raster_given_as_taxonomy_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    with path.open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(TaxonomyError, match="17 MiB is too large"):
        Taxonomy.load(path)


@pytest.mark.parametrize("name", ["flair", "landcover", "voc2012", "coco_panoptic", "corine", "demo"])
def test_packaged_files(name: str) -> None:
    tree = Taxonomy.load(name)
    assert name in Taxonomy.available()
    assert tree.name == name
    assert Taxonomy.loads(tree.dump()) == tree
    assert len({leaf.color for leaf in tree.leaves}) == len(tree.leaves)
    labels = tree.category_names()
    assert len(set(labels.values())) == len(labels)
    if name != "corine":
        assert max(labels) < 256  # so that label rasters take one byte a pixel and can have a colour table


def test_flair_tree() -> None:
    tree = Taxonomy.load("flair")
    assert sorted(tree.leaf_codes) == list(range(1, 20))
    assert tree.depth == 4
    assert tree.node("vegetation/low/crop/vineyard").code == 9
    assert [tree.node(n).level for n in ("building", "paved", "vegetation", "water", "bare")] == [
        2,
        2,
        1,
        1,
        1,
    ]
    assert tree.node("water").parent is None


def test_voc_tree() -> None:
    tree = Taxonomy.load("voc2012")
    assert tree.leaves[0].name == "background"
    assert tree.node(1).color == (128, 0, 0)
    assert tree.node(20).color == (0, 64, 128)
    assert sorted(tree.leaf_codes) == list(range(1, 22))


def test_corine_tree() -> None:
    tree = Taxonomy.load("corine")
    assert [len(tree.level(k)) for k in (1, 2, 3)] == [5, 15, 44]
    assert all(str(n.code).startswith(str(n.parent)) for n in tree.nodes if n.parent)
    assert tree.node(312).color == (0, 166, 0)


def test_coco_tree_has_the_official_categories(data: Path) -> None:
    tree = Taxonomy.load("coco_panoptic")
    official = json.loads((data / "coco_sample" / "panoptic_coco_categories.json").read_text())
    found = {leaf.code: (leaf.path, leaf.color) for leaf in tree.leaves}
    expected = {
        c["id"]: (("thing" if c["isthing"] else "stuff", c["supercategory"], c["name"]), tuple(c["color"]))
        for c in official
    }
    assert found == expected


def test_demo_tree() -> None:
    tree = Taxonomy.load("demo")
    assert tree.leaf_codes.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {n.code: n.parent for n in tree.nodes} == {
        10: None, 1: 10, 2: 10, 20: None, 3: 20, 21: 20, 4: 21, 5: 21, 6: 20, 30: None, 7: 30, 8: None
    }  # fmt: skip


# Refusals. Each file is wrong on the line that ends in "!" (taken off before parsing).

HEAD = "name: x\nclasses:\n"
A = '- {code: 1, name: a, color: "#000000"}'


def item(code: str = "1", name: str = "a", color: str = '"#000000"', more: str = "") -> str:
    return f"- {{code: {code}, name: {name}, color: {color}{more}}}"


REFUSED = {
    "empty file": ("!", "empty"),
    "only a comment": ("# nothing!", "empty"),
    "a list": ("- a!", "the file is a list"),
    "no name": ("classes:!\n" + A, "no 'name:'"),
    "no classes": ("name: x!", "no 'classes:'"),
    "empty classes": ("name: x\nclasses: []!", "empty list"),
    "classes left blank": ("name: x\nclasses:!", "'classes' is nothing"),
    "classes as keys": ("name: x\nclasses:\n  a: 1!", "expected a list"),
    "class is text": (HEAD + "- a!", "a class is text"),
    "unknown top key": ("name: x\ncolour: y!\nclasses:\n" + A, "unknown key 'colour' in the file"),
    "typo of a key": (HEAD + item(more=", tittle: b") + "!", "unknown key 'tittle'.*did you mean 'title'"),
    "british key": (HEAD + '- {code: 1, name: a, colour: "#000000"}!', "did you mean 'color'"),
    "no code": (HEAD + '- {name: a, color: "#000000"}!', "no 'code'"),
    "class without name": (HEAD + A + "\n" + '- {code: 2, color: "#000000"}!', "no 'name'"),
    "no colour": (HEAD + "- {code: 1, name: a}!", "no 'color'"),
    "duplicate code": (HEAD + A + "\n" + item(name="b") + "!", "code 1 of class 'b' belongs to class 'a' on line 3"),
    "duplicate sibling": (HEAD + A + "\n" + item("2") + "!", "name 'a' belongs to a sibling on line 3"),
    "duplicate key": (HEAD + item(more=", code: 2") + "!", "key 'code' is given twice"),
    "duplicate top key": ("name: x\nname: y!\nclasses:\n" + A, "given twice in the file, first on line 1"),
    "code 0": (HEAD + item("0") + "!", "0 stands for no data"),
    "code too large": (HEAD + item("65536") + "!", "out of range"),
    "code huge": (HEAD + item("9" * 5000) + "!", "plain decimal"),
    "code negative": (HEAD + item("-1") + "!", "plain decimal"),
    "code a float": (HEAD + item("1.0") + "!", "plain decimal"),
    "code a bool": (HEAD + item("true") + "!", "plain decimal"),
    "code quoted": (HEAD + item('"1"') + "!", "without quotes"),
    "code a word": (HEAD + item("one") + "!", "plain decimal"),
    "code blank": (HEAD + "- code:!\n  name: a\n  color: '#000000'", "empty"),
    "code a list": (HEAD + item("[1]") + "!", "'code' is a list"),
    "code octal": (HEAD + item("010") + "!", "'code' is 010.*plain decimal"),
    "code hexadecimal": (HEAD + item("0x10") + "!", "plain decimal"),
    "code sexagesimal": (HEAD + item("1:30") + "!", "plain decimal"),
    "code with underscore": (HEAD + item("1_000") + "!", "plain decimal"),
    "code in arabic digits": (HEAD + item("\u0661") + "!", "plain decimal"),
    "colour unquoted": (HEAD + "- code: 1\n  name: a\n  color: #112233!", "starts a comment"),
    "colour unquoted in braces": (HEAD + "- {code: 1, name: a, color: #112233}\n!", "# of a colour"),
    "colour a word": (HEAD + item(color="red") + "!", "'color' is 'red'"),
    "colour of three": (HEAD + item(color='"#abc"') + "!", "six hexadecimal"),
    "colour with alpha": (HEAD + item(color='"#aabbccdd"') + "!", "six hexadecimal"),
    "colour not hexadecimal": (HEAD + item(color='"#gggggg"') + "!", "six hexadecimal"),
    "colour a list": (HEAD + item(color="[1, 2, 3]") + "!", "'color' is a list"),
    "name is a norwegian": (HEAD + item(name="no") + "!", 'reads name no as true or false; quote it: name: "no"'),
    "name on": (HEAD + item(name="on") + "!", "quote it"),
    "name null": (HEAD + item(name="null") + "!", "quote it"),
    "name a number": (HEAD + item(name="12") + "!", "as a number"),
    "name a date": (HEAD + item(name="2001-01-01") + "!", "as a date"),
    "name blank": (HEAD + item(name='""') + "!", "expected text"),
    "name missing value": (HEAD + item(name="") + "!", "'name' is empty"),
    "name with slash": (HEAD + item(name="a/b") + "!", "holds '/'"),
    "name with line break": (HEAD + item(name='"a\\nb"') + "!", "line break"),
    "name with end space": (HEAD + item(name='" a"') + "!", "space"),
    "name a list": (HEAD + item(name="[a]") + "!", "'name' is a list"),
    "name endless": (HEAD + item(name="a" * 1000) + "!", "1000 characters"),
    "taxonomy name with slash": ("name: a/b!\nclasses:\n" + A, "holds '/'"),
    "taxonomy name a bool": ("name: yes!\nclasses:\n" + A, "quote it"),
    "orphan by name": (HEAD + A + "\n" + item("2", "b", more=", parent: aa") + "!", "orphan.*did you mean 'a'"),
    "orphan by code": (HEAD + item(more=", parent: 7") + "!", "orphan: class 'a' has the parent 7"),
    "own parent": (HEAD + A + "\n" + item("2", "b", more=", parent: b") + "!", "cycle: 'b' under 'b'"),
    "cycle of three": (
        HEAD + A + "\n" + item("2", "b", more=", parent: d") + "!\n" + item("3", "c", more=", parent: 2")
        + "\n" + item("4", "d", more=", parent: c") + "\n" + item("5", "e", more=", parent: d"),
        "cycle: .*'b' under 'd'",
    ),
    "parent ambiguous": (
        HEAD + item(more=", classes: [" + item("2", "b")[2:] + "]") + "\n" + item("3", "b")
        + "\n" + item("4", "c", more=", parent: b") + "!",
        "several classes are called 'b'.*one of 2, 3",
    ),
    "parent in a nested class": (
        HEAD + "- code: 1\n  name: a\n  color: '#000000'\n  classes:\n  - code: 2\n    name: b\n"
        "    color: '#000000'\n    parent: a!",
        "nested in another",
    ),
    "parent blank": (HEAD + "- code: 1\n  name: a\n  color: '#000000'\n  parent:!", "'parent' is empty"),
    "cycle by alias": (HEAD + "- &a\n  code: 1\n  name: a\n  color: '#000000'\n  classes: [*a]!", "cycle: \\*a"),
    "alias": (HEAD + "- &a {code: 1, name: a, color: '#000000'}\n- *a!", "alias \\*a is not allowed"),
    "alias bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]!\n" + "\n".join(f"{n}: &{n} [*{m}, *{m}]" for m, n in pairwise("bcdefghijkl")),
        "alias",
    ),
    "merge key": (HEAD + "- <<: {name: a}!\n  code: 1\n  color: '#000000'", "merge key"),
    "python tag": (HEAD + "- !!python/object/apply:os.system ['true']!", "tag.*not allowed"),
    "local tag": (HEAD + item(name="!secret a") + "!", "tag '!secret' is not allowed"),
    "standard tag": (HEAD + item(code='!!int "1"') + "!", "tag.*not allowed"),
    "two documents": (HEAD + A + "\n---!\n" + HEAD + A, "second document"),
    "tab": (HEAD + "\t- a!", "never tabs"),
    "unclosed quote": ('name: "x\nclasses: []\n!', "not valid YAML"),
    "unclosed brace": (HEAD + "- {code: 1, name: a\n!", "not valid YAML"),
    "control character": (HEAD + A + "\n# \x01!", "U\\+0001"),
    "lone surrogate": (HEAD + A + "\n# \ud800!", "U\\+D800"),
    "key that is a list": (HEAD + "- {[a]: b}!", "unknown key"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("library", ["fast", "pure"])
def test_refused_with_the_line(case: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "pure":
        monkeypatch.setattr("rssegment.taxonomy.yaml_form._Loader", yaml.SafeLoader)
    marked, reason = REFUSED[case]
    lines = [n for n, line in enumerate(marked.split("\n"), 1) if line.endswith("!")]
    assert len(lines) == 1
    with pytest.raises(TaxonomyError, match=rf"^tree.yaml:{lines[0]}: (?s:.*){reason}") as caught:
        Taxonomy.loads(marked.replace("!\n", "\n").removesuffix("!"), "tree.yaml")
    assert isinstance(caught.value, InputError)
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (TREE.encode("utf-16"), ":1: the file is UTF-16"),
        (TREE.replace("forest", "forêt").encode("latin-1"), ":20: byte 0xea is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00", ":1: byte 0x89"),
        (b"II*\x00\x08\x00\x00\x00", r":1: character U\+0000"),
    ],
)
def test_bytes_that_are_no_text(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "tree.yaml"
    path.write_bytes(content)
    with pytest.raises(TaxonomyError, match=re.escape(str(path)) + reason):
        Taxonomy.load(path)


def nested(depth: int) -> str:
    return "name: x\n" + "".join(
        f'{"  " * i}classes:\n{"  " * i}- code: {i + 1}\n{"  " * i}  name: a\n{"  " * i}  color: "#000000"\n'
        for i in range(depth)
    )


def test_depth_is_bounded() -> None:
    assert Taxonomy.loads(nested(DEPTH_LIMIT)).depth == DEPTH_LIMIT
    assert Taxonomy.loads(Taxonomy.loads(nested(DEPTH_LIMIT)).dump()).depth == DEPTH_LIMIT
    with pytest.raises(TaxonomyError, match=r"^<string>:\d+: .*more than 64 levels"):
        Taxonomy.loads(nested(DEPTH_LIMIT + 1))
    with pytest.raises(TaxonomyError, match="more than 64 levels"):
        Taxonomy.loads("[" * 100_000)
    chain = [Entry(i, "a", (0, 0, 0), parent=i - 1 or None) for i in range(1, DEPTH_LIMIT + 2)]
    with pytest.raises(TaxonomyError, match="more than 64 levels"):
        arrange(chain, "chain")


@given(
    st.text(max_size=60)
    | st.builds(lambda a, b: TREE[:a] + b + TREE[a:], st.integers(0, len(TREE)), st.text(max_size=3))
)
def test_any_text_is_a_tree_or_a_clear_refusal(text: str) -> None:
    try:
        tree = Taxonomy.loads(text)
    except TaxonomyError:
        with pytest.raises(TaxonomyError, match=r"^<string>:\d+: "):
            Taxonomy.loads(text)
    else:
        assert Taxonomy.loads(tree.dump()) == tree


def test_render_is_for_people(small: Taxonomy) -> None:
    assert small.dump() == TREE.replace("#ff0000", "#FF0000")
    text = Taxonomy(small.name, small.nodes, description="One line.\n\n  And another.").dump()
    assert "description: |-\n  One line.\n\n    And another.\n" in text
    document = Document("x", (Entry(1, "a", (0, 0, 0), line=2),))
    assert parse(render(document), "x").entries[0].line == 3


# Arrays


@given(taxonomies())
def test_values_folded_from_the_leaves_up(tree: Taxonomy) -> None:
    """Each node once, from its children in order: their paths joined are what lies under it."""
    arrays = tree.arrays
    folded = arrays.fold([(leaf.code,) for leaf in tree.leaves], lambda parts: sum(parts, ()))
    for row, below in enumerate(folded):
        assert below == tuple(tree.leaf_codes[arrays.membership[row]])
        assert [arrays.codes[child] for child in arrays.children[row]] == [
            node.code for node in tree.children(tree.nodes[row])
        ]
    assert [arrays.codes[row] for row in arrays.children[-1]] == [
        node.code for node in tree.nodes if node.parent is None
    ]
    with pytest.raises(ValueError, match="zip"):
        arrays.fold([], len)


@given(taxonomies(), st.data())
def test_ancestors_at_a_level(tree: Taxonomy, data: st.DataObject) -> None:
    arrays, size = tree.arrays, len(tree.nodes)
    rows = np.array(data.draw(st.lists(st.integers(0, size), min_size=1, max_size=9)))
    levels = np.array(data.draw(st.lists(st.integers(0, tree.depth + 1), min_size=1, max_size=4)))
    found = arrays.ancestors_at(rows, levels[:, None])
    assert found.shape == (len(levels), len(rows))
    depths = np.append(arrays.levels, 0)
    assert np.array_equal(depths[found], np.minimum(depths[rows], levels[:, None]))
    assert arrays.ancestry[np.broadcast_to(rows, found.shape), found].all()
    assert np.array_equal(arrays.ancestors_at(rows, int(levels[0])), found[0])
