"""Rules check what they are made of; tables of costs are read or refused with the place."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rssegment.decode import Backoff, Cost, Leaf, Level
from rssegment.errors import SettingsError
from rssegment.taxonomy import Taxonomy
from rssegment.taxonomy.tree import arrange
from rssegment.taxonomy.yaml_form import Entry

TREE = Taxonomy.loads("""
name: land
classes:
  - code: 1
    name: built
    color: "#ff0000"
    classes:
      - {code: 11, name: roof, color: "#ff0000"}
      - {code: 12, name: road, color: "#aaaaaa"}
  - code: 2
    name: green
    color: "#00ff00"
    classes:
      - {code: 21, name: tree, color: "#00ff00"}
      - {code: 22, name: "0.5", color: "#00ff00"}
""")
NAMED = "decided,tree,roof,0.5,road\nroof,3,0,3,1\ngreen,0.5,4,0.5,4\nbuilt/road,3,1,3,0\n"


@pytest.fixture
def csv(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "costs.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("k", [0, -1, 1.5, "2", True, None])
def test_levels_out_of_range(k: Any) -> None:
    with pytest.raises(SettingsError, match="expected a whole number, 1 for the top"):
        Level(k)


@pytest.mark.parametrize("tau", [-0.001, 1.001, float("nan"), float("inf"), "0.5", True, None])
def test_thresholds_out_of_range(tau: Any) -> None:
    with pytest.raises(SettingsError, match="expected a probability from 0"):
        Backoff(tau)


def test_rules_take_numbers_of_numpy_and_are_values() -> None:
    assert Level(np.int64(2)) == Level(2)
    assert Backoff(np.float32(0.5)) == Backoff(0.5)
    assert Cost([[0, 1], [1, 0]]) == Cost(1 - np.eye(2))
    assert Cost([[0, 1], [1, 0]]) != Cost([[0, 1], [1, 0]], (3, 4))
    assert Cost() != Leaf()
    rules = {Leaf(), Level(1), Backoff(1), Cost(), Cost(1 - np.eye(2)), Cost(1 - np.eye(2))}
    assert len(rules) == 5
    for rule in rules:
        assert pickle.loads(pickle.dumps(rule)) == copy.deepcopy(rule) == rule


def test_costs_can_not_be_changed_from_outside() -> None:
    mine = np.ones((2, 2))
    rule = Cost(mine)
    mine[0, 0] = 5
    assert rule.matrix is not None
    assert rule.matrix[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        rule.matrix[0, 0] = 5


@pytest.mark.parametrize(
    ("matrix", "candidates", "fault"),
    [
        ([[0, 1, 2], [1, 0, 2]], None, "2 rows and 3 columns; expected a square"),
        ([[0, 1], [-1, 0]], None, "row 2, column 1 is -1"),
        ([[0, np.nan], [1, 0]], None, "row 1, column 2 is nan"),
        ([[0, np.inf], [1, 0]], None, "row 1, column 2 is inf"),
        ([0, 1], None, r"shape \(2,\)"),
        (np.zeros((0, 0)), None, r"shape \(0, 0\)"),
        ([[0, 1], [1]], None, "no table of numbers"),
        ([["a", "b"], ["c", "d"]], None, "no table of numbers"),
        ([[0, 1], [1, 0]], (1,), "1 candidates for 2 rows"),
        ([[0, 1], [1, 0]], (7, 7), "code 7 stands twice"),
        (None, (1, 2), "candidates without costs"),
    ],
)
def test_costs_that_are_none(matrix: Any, candidates: Any, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        Cost(matrix, candidates)


def test_a_table_with_names_in_any_order(csv: Any) -> None:
    rule = Cost.read(csv(NAMED), TREE)
    assert rule.candidates == (11, 2, 12)
    assert rule.matrix is not None
    assert rule.matrix.tolist() == [[0, 1, 3, 3], [4, 4, 0.5, 0.5], [1, 0, 3, 3]]
    assert not rule.may_stay_open(TREE)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + NAMED,
        NAMED.replace("\n", "\r\n"),
        NAMED.replace(",", " , "),
        NAMED.replace(",", "\t"),
        NAMED.replace(",", ";").replace("0.5;4", "0,5;4"),
        "\n" + NAMED + "\n,,,,\n",
        NAMED.replace("decided", ""),
        '"decided","tree","roof","0.5","road"\n' + NAMED.split("\n", 1)[1],
        ",21,11,22,12\n11,3,0,3,1\n2,.5,4,5e-1,4\n12,3,1,3,0\n",
    ],
)
def test_the_same_table_in_other_hands(csv: Any, text: str) -> None:
    assert Cost.read(csv(text), TREE) == Cost.read(csv(NAMED), TREE)


def test_a_name_across_is_that_of_a_leaf(csv: Any) -> None:
    """FLAIR's water is a class and a leaf below it."""
    tree = Taxonomy.load("flair")
    names, size = [leaf.name for leaf in tree.leaves], len(tree.leaves)
    costs = [",".join(str(abs(row - col)) for col in range(size)) for row in range(size)]
    paths = ["/".join(leaf.path) for leaf in tree.leaves]
    lines = [f"{path},{cells}" for path, cells in zip(paths, costs, strict=True)]
    rule = Cost.read(csv("\n".join(["," + ",".join(names), *lines])), tree)
    assert rule == Cost.read(csv("\n".join(["," + ",".join(paths), *lines])), tree)
    assert rule == Cost.read(csv("\n".join(costs)), tree)
    lines[names.index("water")] = "water," + costs[names.index("water")]
    with pytest.raises(
        SettingsError,
        match=r"costs.csv:\d+: several classes .*'water'; write a code: 160 for water, 5 for water/water",
    ):
        Cost.read(csv("\n".join(["," + ",".join(names), *lines])), tree)
    lines[names.index("water")] = "160," + costs[names.index("water")]
    assert 160 in Cost.read(csv("\n".join(["," + ",".join(names), *lines])), tree).candidates


def test_a_name_across_that_several_leaves_have(csv: Any) -> None:
    named = {1: ("c1", None), 2: ("c2", None), 3: ("x", 1), 4: ("c4", 1), 5: ("x", 2)}
    entries = [Entry(code, name, (0, 0, 0), parent=parent) for code, (name, parent) in named.items()]
    tree = Taxonomy("twice", arrange(entries, "twice"))
    with pytest.raises(SettingsError, match=r"costs.csv:1: several leaves .*'x'; write a path: c1/x, c2/x"):
        Cost.read(csv(",x,c4,c2/x\nc1,1,2,3\n"), tree)
    assert Cost.read(csv(",c1/x,c4,c2/x\nc1,1,2,3\n"), tree).candidates == (1,)
    with pytest.raises(SettingsError, match=r"costs.csv:1: 'c1' across has classes below it"):
        Cost.read(csv(",c1/x,c1,c2/x\nc1,1,2,3\n"), tree)


def test_a_table_of_numbers(csv: Any) -> None:
    rule = Cost.read(str(csv("0,1,2,3\n1,0,2,3\n1,2,0,3\n1,2,3,0\n")), TREE)
    assert rule == Cost([[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 3, 0]], (11, 12, 21, 22))


def test_a_pixel_may_be_left_open_at_a_cost(csv: Any) -> None:
    rule = Cost.read(csv(NAMED + "undecided,1,1,1,1\n"), TREE)
    assert rule.candidates == (11, 2, 12, TREE.undecided)
    assert rule.may_stay_open(TREE)
    own = Taxonomy.flat("own", {7: ("undecided", (0, 0, 0)), 8: ("b", (0, 0, 0))})
    rule = Cost.read(csv(",undecided,b\nundecided,0,1\nb,1,0\n"), own)
    assert rule.candidates == (7, 8)
    assert not rule.may_stay_open(own)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty"),
        ("\n , \n", "the file is empty"),
        ("0,1\n1,0\n", r"costs.csv:1: 2 costs; expected 4, one for each leaf of taxonomy 'land'"),
        ("0,1,2,3\n" * 3, "3 lines of costs; expected 4"),
        ("0,1,2,3\n0,1,2\n", "costs.csv:2: 3 costs; expected 4"),
        ("0,1,2,3\n0,1,x,3\n0,1,2,3\n0,1,2,3\n", "costs.csv:2: cost 'x'; expected a number of 0 or more"),
        ("0,1,2,3\n0,1,,3\n0,1,2,3\n0,1,2,3\n", "costs.csv:2: cost 'empty'"),
        ("0,1,2,-3\n" * 4, "costs.csv:1: cost '-3'"),
        ("0,1,2,nan\n" * 4, "costs.csv:1: cost 'nan'"),
        ("0,1,2,inf\n" * 4, "costs.csv:1: cost 'inf'"),
        (NAMED.replace(",road", ""), "costs.csv:1: no column for road"),
        (NAMED.replace(",road", ",built"), "'built' across has classes below it"),
        (NAMED.replace(",road", ",roof"), "'roof' stands twice across"),
        (NAMED.replace(",road", ",raod"), "costs.csv:1: .* no class 'raod'; it has road"),
        (NAMED.replace(",road", ",99"), "costs.csv:1: .* no code 99"),
        (NAMED.replace("green", "gren"), "costs.csv:3: .* no class 'gren'"),
        (NAMED.replace("green", "roof"), "costs.csv:3: class 'roof' stands on line 2 already"),
        (NAMED + "tree,1,2,3\n", "costs.csv:5: 4 cells; the first line has 5"),
        (NAMED + "tree,1,2,3,-1\n", "costs.csv:5: cost '-1'"),
        (NAMED.split("\n", maxsplit=1)[0], "there are no costs below"),
        (b"\xff\xfe0\x00", "not UTF-8"),
        ('a,"b\n', "not valid CSV"),
        ("decided", "no column for roof, road, tree, 0.5"),
    ],
)
def test_tables_that_are_none(csv: Any, text: str | bytes, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        Cost.read(csv(text), TREE)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"can't read the costs in .*none.csv: No such file"):
        Cost.read(tmp_path / "none.csv", TREE)
    with pytest.raises(SettingsError, match="can't read the costs"):
        Cost.read(tmp_path, TREE)
