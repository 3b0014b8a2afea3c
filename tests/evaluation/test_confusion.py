"""Counts: against brute force, additive over any cut, folded to levels, nothing dropped."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.evaluation import Confusion, lookup
from rssegment.taxonomy import Taxonomy

DEMO = Taxonomy.load("demo")
CODES = [node.code for node in DEMO.nodes]
labels = st.sampled_from([0, *CODES])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Prediction and reference of one shape, with nodes of every level and no data."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))
    predicted = hnp.arrays(np.uint8, shape, elements=labels | st.just(DEMO.undecided))
    return draw(predicted), draw(hnp.arrays(np.uint8, shape, elements=labels))


Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@given(pairs(), st.sets(st.sampled_from(CODES), max_size=3), st.sampled_from([1, 5, 1 << 20]))
def test_counts_equal_brute_force(pair: Pair, ignore: set[int], chunk: int) -> None:
    prediction, reference = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_CHUNK", chunk)
        counted = Confusion.of(prediction, reference, DEMO, ignore)
    expected = Counter(
        (t, p) for t, p in zip(reference.flat, prediction.flat, strict=True) if t != 0 and t not in ignore
    )
    found = {
        (true, predicted): int(counted.counts[i, j])
        for i, true in enumerate(CODES)
        for j, predicted in enumerate([*CODES, DEMO.undecided, 0])
        if counted.counts[i, j]
    }
    assert found == dict(expected)
    assert counted.pixels == sum(expected.values())
    assert counted.counts.dtype == np.int64


@given(pairs(), st.data())
def test_blocks_add_up_to_the_whole(pair: Pair, data: st.DataObject) -> None:
    prediction, reference = pair
    row = data.draw(st.integers(0, reference.shape[0]))
    col = data.draw(st.integers(0, reference.shape[1]))
    parts = [
        Confusion.of(prediction[rows, cols], reference[rows, cols], DEMO)
        for rows in (slice(row), slice(row, None))
        for cols in (slice(col), slice(col, None))
    ]
    whole = Confusion.of(prediction, reference, DEMO)
    assert sum(parts, Confusion.empty(DEMO)) == whole
    assert sum(parts[::-1], Confusion.empty(DEMO)) == whole


@given(pairs(), st.integers(1, 3))
def test_folding_counts_equals_folding_labels(pair: Pair, level: int) -> None:
    """Law: counting at a level gives the counts of the rasters mapped to that level."""
    prediction, reference = pair
    classes = DEMO.level(level)
    lookup = DEMO.ancestor_lookup(level)
    codes = [node.code for node in classes]
    true, predicted = lookup[reference], lookup[prediction]
    at_level = Confusion.of(prediction, reference, DEMO).at_level(level)
    assert at_level.classes == classes
    for i, code in enumerate(codes):
        for j, other in enumerate(codes):
            assert at_level.counts[i, j] == np.count_nonzero((true == code) & (predicted == other))
        assert at_level.counts[i, -1] == np.count_nonzero((true == code) & ~np.isin(predicted, codes))
    assert at_level.coarser == np.count_nonzero((true != 0) & ~np.isin(true, codes))
    assert at_level.counts.sum() + at_level.coarser == np.count_nonzero(reference)


def test_by_hand() -> None:
    # forest 3, green crop 4, ripe crop 5, crop 21, vegetation 20, river 7
    reference = np.array([[3, 4, 5, 5, 21, 20, 0, 7]], np.uint8)
    prediction = np.array([[3, 5, 5, 0, 4, 3, 7, 21]], np.uint8)
    counted = Confusion.of(prediction, reference, DEMO)
    assert counted.pixels == 7
    top = counted.at_level(1)
    assert [node.name for node in top.classes] == ["built", "vegetation", "water", "bare"]
    assert top.counts.tolist() == [[0] * 5, [0, 5, 0, 0, 1], [0, 1, 0, 0, 0], [0] * 5]
    assert top.coarser == 0
    leaf = counted.at_level(3)
    crops = leaf.counts[3:5].tolist()  # green, ripe
    assert crops == [[0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0, 1]]
    assert leaf.counts[6].tolist() == [0] * 8 + [1]  # river, answered with a class above the leaves: a miss
    assert leaf.coarser == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.int64])
def test_every_integer_type(dtype: type[np.integer]) -> None:
    reference = np.array([[1, 2], [0, 8]])
    expected = Confusion.of(reference.astype(np.uint8), reference.astype(np.uint8), DEMO)
    assert Confusion.of(reference.astype(dtype), reference.astype(np.uint16), DEMO) == expected
    assert Confusion.of(reference.astype(np.uint16), reference.astype(dtype)[:, :], DEMO) == expected


def test_views_in_any_layout() -> None:
    rng = np.random.default_rng(0)
    big = rng.choice(CODES, (20, 30)).astype(np.uint8)
    expected = Confusion.of(big[::2, ::3].copy(), big[1::2, 1::3].copy(), DEMO)
    assert Confusion.of(big[::2, ::3], big[1::2, 1::3], DEMO) == expected
    assert Confusion.of(big[::2, ::3].T, big[1::2, 1::3].T, DEMO) == expected


def test_the_largest_code() -> None:
    tree = Taxonomy.flat("ends", {1: ("a", (0, 0, 0)), 65535: ("b", (1, 1, 1))})
    values = np.array([[1, 65535]], np.uint16)
    assert Confusion.of(values, values[:, ::-1], tree).counts.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_unknown_values_are_refused_not_dropped() -> None:
    good = np.ones((2, 3), np.uint8)
    bad = good.copy()
    bad[0, :2], bad[1, 0] = 254, 99
    with pytest.raises(InputError, match=r"reference has values.*'demo': 99 \(1 px\), 254 \(2 px\).*ignore="):
        Confusion.of(good, bad, DEMO)
    with pytest.raises(InputError, match=r"prediction has values.*99 \(1 px\), 254 \(2 px\)"):
        Confusion.of(bad, good, DEMO)
    assert Confusion.of(good, bad, DEMO, ignore=(254, 99)).pixels == 3
    unlabelled = np.where(bad == 1, good, 0)
    assert (
        Confusion.of(bad, unlabelled, DEMO).pixels == 3
    )  # what was predicted off the reference is nobody's concern


def test_refusals() -> None:
    good = np.ones((2, 3), np.uint8)
    with pytest.raises(InputError, match=r"\(3, 2\), the reference \(2, 3\)"):
        Confusion.of(good.T, good, DEMO)
    with pytest.raises(InputError, match="prediction has values of type float32"):
        Confusion.of(good.astype(np.float32), good, DEMO)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="type bool"):
        Confusion.of(good, good.astype(bool), DEMO)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="values from -9999 to -9999"):
        Confusion.of(good, np.full((2, 3), -9999, np.int16), DEMO)
    with pytest.raises(InputError, match="to 65536"):
        Confusion.of(good, np.full((2, 3), 65536, np.int32), DEMO)
    with pytest.raises(InputError, match="to ignore is -1"):
        Confusion.of(good, good, DEMO, ignore=(-1,))
    with pytest.raises(InputError, match="'demo' and 'flair' can't be added"):
        Confusion.empty(DEMO) + Confusion.empty(Taxonomy.load("flair"))
    with pytest.raises(InputError, match="5000 classes"):
        Confusion.empty(Taxonomy.flat("huge", {i: (f"c{i}", (0, 0, 0)) for i in range(1, 5001)}))


def test_undecided_may_be_predicted_but_not_be_true() -> None:
    good, open_ = np.array([[1, 8]], np.uint8), np.array([[255, 8]], np.uint8)
    counted = Confusion.of(open_, good, DEMO)
    assert counted.counts[:, -2].sum() == 1
    assert counted.at_level(3).counts[0].tolist() == [0] * 8 + [1]
    with pytest.raises(InputError, match=r"reference has values.*255 \(1 px\)"):
        Confusion.of(good, open_, DEMO)
    wide = Taxonomy.flat("wide", {1: ("a", (0, 0, 0)), 300: ("b", (1, 1, 1))})
    assert wide.undecided == 65535
    found = Confusion.of(np.array([[65535, 300]], np.uint16), np.array([[1, 1]], np.uint8), wide)
    assert found.counts.tolist() == [[0, 1, 1, 0], [0, 0, 0, 0]]
    full = Taxonomy.flat("full", {255: ("a", (0, 0, 0)), 65535: ("b", (1, 1, 1))})  # no code is left for it
    assert Confusion.of(np.array([[255, 65535]]), np.array([[255, 255]]), full).counts.tolist() == [
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]


cuts = st.lists(st.sampled_from(CODES), max_size=5, unique=True)


@given(pairs(), cuts)
def test_counts_of_a_cut_equal_brute_force(pair: Pair, codes: list[int]) -> None:
    prediction, reference = pair
    family = {code: {code, *(n.code for n in DEMO.ancestors(code))} for code in CODES}
    counted = Confusion.of(prediction, reference, DEMO)
    if any(a != b and a in family[b] for a in codes for b in codes):
        with pytest.raises(InputError, match="side by side"):
            counted.at_cut(codes)
        return
    cut = counted.at_cut(codes)

    def place(code: int) -> int:
        return next((i for i, c in enumerate(codes) if c in family.get(code, ())), len(codes))

    expected = np.zeros((len(codes) + 1, len(codes) + 1), int)
    for true, predicted in zip(reference.flat, prediction.flat, strict=True):
        expected[place(int(true)), place(int(predicted))] += bool(true)
    np.testing.assert_array_equal(cut.counts, expected[:-1])
    assert cut.coarser == expected[-1].sum()
    assert [node.code for node in cut.classes] == codes


@given(pairs())
def test_common_cut(pair: Pair) -> None:
    """Laws: it parts the tree; no truth lies above it; each class of it is a leaf, or true somewhere."""
    prediction, reference = pair
    counted = Confusion.of(prediction, reference, DEMO)
    cut = counted.common_cut()
    assert counted.at_cut(cut).coarser == 0
    paths = {node.path for node in cut}
    for leaf in DEMO.leaves:
        assert sum(leaf.path[: k + 1] in paths for k in range(leaf.level)) == 1
    occurring = {DEMO.node(int(code)).path for code in np.unique(reference) if code}
    leaves = {leaf.path for leaf in DEMO.leaves}
    assert paths <= occurring | leaves


def test_common_cut_by_hand() -> None:
    def cut(*true: int) -> list[str]:
        codes = np.array([true], np.uint8)
        return [node.name for node in Confusion.of(codes, codes, DEMO).common_cut()]

    leaves = [leaf.name for leaf in DEMO.leaves]
    others = [leaf.name for leaf in DEMO.leaves if leaf.path[0] not in ("built", "vegetation")]
    assert cut() == cut(4) == leaves
    assert cut(10, 20, 30) == ["built", "vegetation", "water", "bare"]
    assert cut(1, 20, 4) == ["building", "road", "vegetation", *others]
    counted = Confusion.of(np.array([[21, 20, 3]]), np.array([[4, 3, 3]]), DEMO)
    at_cut = counted.at_cut(counted.common_cut())  # crop, coarser than green_crop, counts as none there
    place = {node.name: k for k, node in enumerate(at_cut.classes)}
    assert at_cut.counts[place["forest"], [place["forest"], -1]].tolist() == [1, 1]
    assert at_cut.counts[place["green_crop"], -1] == 1


def test_refused_cuts() -> None:
    counted = Confusion.empty(DEMO)
    with pytest.raises(InputError, match=r"vegetation and vegetation/crop can't be classes side by side"):
        counted.at_cut(["vegetation", "crop"])
    with pytest.raises(InputError, match="side by side"):
        counted.at_cut(["crop", "crop"])
    with pytest.raises(InputError, match="no class 'sea'"):
        counted.at_cut(["sea"])


@given(pairs())
def test_plain_values_and_back(pair: Pair) -> None:
    counted = Confusion.of(*pair, DEMO)
    assert Confusion.from_dict(json.loads(json.dumps(counted.as_dict())), DEMO) == counted


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "not a list of lists of 3"),
        ([[1, 2]], "not a list of lists of 3"),
        ([[1, [2], 3]], "lists within lists"),
        ([[99, 1, 1]], "true 99, predicted 1: no codes of taxonomy 'demo'"),
        ([["none", 1, 1]], "true 'none'"),
        ([[1, 1, -1]], "'pixels' is -1"),
        ([[1, 1, 1.5]], "'pixels' is 1.5"),
        ([[1, 1, True]], "'pixels' is True"),
        ([[1, 1, 2**63]], "expected a whole number"),
    ],
)
def test_other_values_are_refused(rows: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Confusion.from_dict({"counts": rows}, DEMO)
    with pytest.raises(InputError, match="no 'counts'"):
        Confusion.from_dict({}, DEMO)


def test_what_tells_taxonomies_apart_is_said() -> None:
    other = Taxonomy.loads(DEMO.dump().replace("road", "street"))
    with pytest.raises(
        InputError, match=r"two taxonomies 'demo' \(one has 2 built/road .*, the other 2 built/street "
    ):
        Confusion.empty(DEMO) + Confusion.empty(other)
    shorter = Taxonomy("demo", DEMO.nodes[:-1], *(getattr(DEMO, key) for key in ("title", "description")))
    with pytest.raises(InputError, match=r"one has 12 classes, the other 11"):
        Confusion.empty(DEMO) + Confusion.empty(shorter)
    renamed = dataclasses.replace(DEMO, title="another")
    with pytest.raises(InputError, match="titles or descriptions differ"):
        Confusion.empty(DEMO) + Confusion.empty(renamed)


def test_counts_travel_between_processes() -> None:
    counted = Confusion.of(np.array([[1, 2]]), np.array([[1, 8]]), DEMO)
    assert pickle.loads(pickle.dumps(counted)) == counted


def test_no_pixels() -> None:
    nothing = np.empty((0, 4), np.int32)
    assert Confusion.of(nothing, nothing, DEMO) == Confusion.empty(DEMO)
    assert Confusion.empty(DEMO) != "no pixels"
