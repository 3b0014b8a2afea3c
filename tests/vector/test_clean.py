"""The sieve and the filling of holes, held against the same law on pixels and against what it promises."""

from __future__ import annotations

from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import rasterio
import rasterio.features
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rssegment.errors import InputError, SettingsError
from rssegment.vector import trace_raster
from rssegment.vector.clean import RegionGraph, clean

# ------------------------------------------------------------------------------ from pixels to a graph


def _across(values: NDArray, connectivity: int) -> list[tuple[NDArray, NDArray]]:
    """Pixels side by side, with connectivity 8 also corner to corner."""
    ways = [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]
    if connectivity == 8:
        ways += [(values[:-1, :-1], values[1:, 1:]), (values[:-1, 1:], values[1:, :-1])]
    return [(a.ravel(), b.ravel()) for a, b in ways]


def graph_of(labels: NDArray, connectivity: int = 4) -> tuple[RegionGraph, NDArray[np.int64]]:
    """The graph of ``labels`` (H, W) and the region of each pixel, -1 for no data."""
    places = np.arange(labels.size).reshape(labels.shape)
    flat = labels.ravel()
    same = [
        np.stack([a, b])[:, (flat[a] == flat[b]) & (flat[a] != 0)] for a, b in _across(places, connectivity)
    ]
    a, b = np.concatenate(same, axis=1)
    _, part = connected_components(
        coo_array((np.ones(a.size, bool), (a, b)), (labels.size, labels.size)), directed=False
    )
    part = np.where(flat == 0, -1, part)
    _, key, member = np.unique(part[part >= 0], return_index=True, return_inverse=True)
    order = np.argsort(key)
    key = np.flatnonzero(part >= 0)[key[order]]
    region = np.full(labels.size, -1)
    region[part >= 0] = np.argsort(order)[member]
    region = region.reshape(labels.shape)
    pairs, lengths = _pairs(region, connectivity)
    ring = np.pad(region, 1, constant_values=-1)
    touched = np.concatenate([np.stack(way)[::sign] for way in _across(ring, 4) for sign in (1, -1)], axis=1)
    is_open = np.zeros(key.size, np.uint8)
    is_open[touched[0][(touched[0] >= 0) & (touched[1] < 0)]] = 1
    pixels = np.bincount(region[region >= 0], minlength=key.size).astype(np.int64)
    return RegionGraph(
        flat[key].astype(np.uint16), pixels, key.astype(np.int64), is_open, pairs, lengths
    ), region


def _pairs(region: NDArray, connectivity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ways = [np.sort(np.stack(way, axis=1), axis=1) for way in _across(region, connectivity)]
    by_edge = np.repeat([True] * 2 + [False] * (len(ways) - 2), [len(way) for way in ways])
    both = np.concatenate(ways)
    differ = (both[:, 0] != both[:, 1]) & (both[:, 0] >= 0)
    pairs, member = np.unique(both[differ], axis=0, return_inverse=True)
    lengths = np.bincount(member.ravel(), by_edge[differ], len(pairs))
    return pairs.reshape(-1, 2).astype(np.int64), lengths.astype(np.int64)


def cleaned(labels: NDArray, smallest, hole=None, connectivity: int = 4, **options) -> NDArray[np.uint16]:
    graph, region = graph_of(labels, connectivity)
    return np.append(clean(graph, smallest, hole, **options), np.uint16(0))[region]


def raster(text: str) -> NDArray[np.uint16]:
    return np.array([[int(c) for c in row] for row in text.split()], np.uint16)


# ----------------------------------------------------------------------------- the same law, on pixels


def masks_of(labels: NDArray, connectivity: int) -> list[NDArray[np.bool_]]:
    """One mask per region, in the order of first pixels."""
    structure = np.ones((3, 3)) if connectivity == 8 else None
    masks = []
    for code in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == code, structure)
        masks += [parts == k + 1 for k in range(count)]
    return sorted(masks, key=lambda mask: int(np.flatnonzero(mask)[0]))


def shared(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> int:
    """Number of pixel edges between two masks; 0 if they are one."""
    return (
        0
        if a is b
        else int(
            (a[:, 1:] & b[:, :-1]).sum()
            + (a[:, :-1] & b[:, 1:]).sum()
            + (a[1:] & b[:-1]).sum()
            + (a[:-1] & b[1:]).sum()
        )
    )


def sieve_by_pixels(labels: NDArray, smallest: NDArray, hole: NDArray, connectivity: int) -> None:
    """Absorbs region by region, labelling the raster anew each time; limits are rasters too."""
    while True:
        masks = masks_of(labels, connectivity)
        few = [mask for mask in masks if mask.sum() < smallest[mask].min()]
        few = [mask for mask in few if any(shared(mask, other) for other in masks)]
        if not few:
            return
        absorbed = min(few, key=lambda mask: mask.sum())  # the first of equals has the least key
        absorber = max(masks, key=lambda mask: (shared(absorbed, mask), mask.sum()))
        for values, value in (
            (labels, labels[absorber][0]),
            *((v, v[absorber].min()) for v in (smallest, hole)),
        ):
            values[absorbed] = value


def fill_by_pixels(labels: NDArray, smallest: NDArray, hole: NDArray, connectivity: int) -> None:
    """For each region, walks over all others from outside, and fills what was not reached."""
    masks = masks_of(labels, connectivity)
    near = [{k for k, other in enumerate(masks) if shared(mask, other)} for mask in masks]
    ring = np.pad(labels == 0, 1, constant_values=True)
    outside = {k for k, mask in enumerate(masks) if (ndimage.binary_dilation(np.pad(mask, 1)) & ring).any()}
    holes = []
    for owner in range(len(masks)):
        left = set(range(len(masks))) - {owner} - _walk(outside - {owner}, near, owner)
        while left:
            part = _walk({left.pop()}, near, owner)
            left -= part
            mask = np.any([masks[k] for k in part], axis=0)
            if mask.sum() < hole[masks[owner]].min():
                holes.append((owner, mask))
    filled = np.zeros(labels.shape, bool)
    for owner, mask in sorted(holes, key=lambda each: -each[1].sum()):  # outermost first
        inside = masks[owner]
        if not filled[inside].any():
            filled |= mask
            labels[mask] = labels[inside][0]
            smallest[mask], hole[mask] = smallest[inside].min(), hole[inside].min()


def _walk(start: set[int], near: list[set[int]], wall: int) -> set[int]:
    reached, todo = set(start), list(start)
    while todo:
        for k in near[todo.pop()] - reached - {wall}:
            reached.add(k)
            todo.append(k)
    return reached


def cleaned_by_pixels(labels: NDArray, smallest: NDArray, hole: NDArray, connectivity: int) -> NDArray:
    """``smallest`` and ``hole`` (R,), regions in the order of first pixels."""
    labels = labels.copy()
    limits = np.zeros(labels.shape), np.zeros(labels.shape)
    for k, mask in enumerate(masks_of(labels, connectivity)):
        limits[0][mask], limits[1][mask] = smallest[k], hole[k]
    for step in (fill_by_pixels, sieve_by_pixels, fill_by_pixels):
        step(labels, *limits, connectivity)
    return labels


def sieved_by_dicts(graph: RegionGraph, smallest: float) -> NDArray[np.uint16]:
    """The sieve once more, on the graph, for rasters that are too large for the sieve on pixels."""
    near: list[dict[int, int]] = [{} for _ in range(len(graph))]
    for (a, b), length in zip(graph.pairs.tolist(), graph.lengths.tolist(), strict=True):
        near[a][b] = near[b][a] = length
    code, pixels, key = graph.code.tolist(), graph.pixels.tolist(), graph.key.tolist()
    members = {k: [k] for k in range(len(graph))}
    few = {k for k in members if pixels[k] < smallest}
    while few:
        s = min(few, key=lambda k: (pixels[k], key[k]))
        few.discard(s)
        if not any(near[s].values()):
            continue
        t = max(
            (k for k, length in near[s].items() if length), key=lambda k: (near[s][k], pixels[k], -key[k])
        )
        for k in [s, *(k for k in near[s] if k != t and code[k] == code[t])]:
            for other, length in near[k].items():
                del near[other][k]
                if other != t:
                    near[t][other] = near[other][t] = near[t].get(other, 0) + length
            pixels[t] += pixels[k]
            key[t] = min(key[t], key[k])
            members[t] += members.pop(k)
            few.discard(k)
        few.discard(t)
        if pixels[t] < smallest:
            few.add(t)
    result = graph.code.copy()
    for k, union in members.items():
        result[union] = code[k]
    return result


# -------------------------------------------------------------------------------------------- the laws

SIDE = st.integers(1, 9)
RASTERS = st.tuples(SIDE, SIDE, st.integers(2, 4)).flatmap(
    lambda each: hnp.arrays(np.uint16, each[:2], elements=st.integers(0, each[2]), fill=st.nothing())
)
FULL = RASTERS.map(lambda labels: np.maximum(labels, 1))  # no data is rare in what people clean
RASTERS = RASTERS | FULL | FULL.map(lambda labels: np.kron(labels[:5, :5], np.ones((2, 2), np.uint16)))
LIMIT = st.integers(0, 12) | st.just(1000)
CONNECTIVITY = st.sampled_from([4, 8])


@given(RASTERS, CONNECTIVITY)
def test_the_graph_of_these_tests_is_that_of_traced_regions(labels, connectivity):
    graph, _ = graph_of(labels, connectivity)
    regions = trace_raster(labels, 4, connectivity, valid=False)
    assert np.array_equal(graph.code, regions.code)
    assert np.array_equal(graph.pixels, regions.pixels)
    assert np.array_equal(graph.key, regions.first @ [labels.shape[1], 1])
    assert np.array_equal(graph.open != 0, regions.touches != 0)


@settings(max_examples=300)
@given(RASTERS, LIMIT, LIMIT, CONNECTIVITY)
def test_graph_and_pixels_follow_one_law(labels, smallest, hole, connectivity):
    regions = len(graph_of(labels, connectivity)[0])
    truth = cleaned_by_pixels(labels, np.full(regions, smallest), np.full(regions, hole), connectivity)
    assert np.array_equal(cleaned(labels, smallest, hole, connectivity), truth)


@given(RASTERS, st.data(), CONNECTIVITY)
def test_limits_that_differ_from_place_to_place(labels, data, connectivity):
    regions = len(graph_of(labels, connectivity)[0])
    limits = hnp.arrays(float, regions, elements=st.floats(0, 12), fill=st.nothing())
    smallest, hole = data.draw(limits), data.draw(limits)
    truth = cleaned_by_pixels(labels, smallest, hole, connectivity)
    assert np.array_equal(cleaned(labels, smallest, hole, connectivity), truth)


@pytest.mark.parametrize("smallest", [2, 3, 7, 30, 200, 1e9])
@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("roughness", [0, 1])
def test_many_regions(smallest, connectivity, roughness):
    fields = np.random.default_rng(5).standard_normal((5, 60, 61))
    labels = ndimage.gaussian_filter(fields, (0, roughness, roughness)).argmax(axis=0).astype(np.uint16)
    graph, _ = graph_of(labels + (roughness == 0), connectivity)
    assert np.array_equal(clean(graph, smallest), sieved_by_dicts(graph, smallest))


@given(RASTERS, LIMIT, LIMIT, CONNECTIVITY)
def test_nothing_small_is_left_but_what_has_no_neighbour(labels, smallest, hole, connectivity):
    result = cleaned(labels, smallest, hole, connectivity)
    assert np.array_equal(result == 0, labels == 0)
    graph, _ = graph_of(result, connectivity)
    alone = np.isin(np.arange(len(graph)), graph.pairs[graph.lengths > 0], invert=True)
    assert (alone | (graph.pixels >= smallest)).all()
    assert np.array_equal(cleaned(result, smallest, hole, connectivity), result)


@given(RASTERS, LIMIT, LIMIT, CONNECTIVITY, st.randoms(use_true_random=False))
def test_numbering_and_order_do_not_matter(labels, smallest, hole, connectivity, random):
    graph, _ = graph_of(labels, connectivity)
    regions = list(range(len(graph)))
    random.shuffle(regions)
    number = np.argsort(regions)
    rows = list(range(len(graph.pairs))) * 2  # each pair in two rows, of half the length
    random.shuffle(rows)
    shuffled = RegionGraph(
        graph.code[regions], graph.pixels[regions], graph.key[regions], graph.open[regions] > 0,
        number[graph.pairs[rows]][:, ::random.choice([1, -1])].astype(np.int32), graph.lengths[rows],
    )  # fmt: skip
    whole = RegionGraph(graph.code, graph.pixels, graph.key, graph.open, graph.pairs, 2 * graph.lengths)
    assert np.array_equal(clean(shuffled, smallest, hole), clean(whole, smallest, hole)[regions])


@given(RASTERS, LIMIT, LIMIT, CONNECTIVITY)
def test_pairs_of_large_regions_are_not_needed(labels, smallest, hole, connectivity):
    graph, _ = graph_of(labels, connectivity)
    large = graph.pixels >= max(smallest, hole)
    kept = ~large[graph.pairs].all(axis=1)
    named = np.union1d(np.flatnonzero(~large), graph.pairs[kept])
    number = np.zeros(len(graph), int)
    number[named] = np.arange(named.size)
    less = RegionGraph(
        graph.code[named], graph.pixels[named], graph.key[named], (graph.open != 0)[named] | large[named],
        number[graph.pairs[kept]], graph.lengths[kept],
    )  # fmt: skip
    codes = clean(graph, smallest, hole)
    assert np.array_equal(codes[named], clean(less, smallest, hole))
    others = np.setdiff1d(np.arange(len(graph)), named)
    assert np.array_equal(codes[others], graph.code[others])


# ----------------------------------------------------------------------------------------------- cases

NOISE = np.random.default_rng(3)


def test_nothing_asked_nothing_done():
    labels = NOISE.integers(0, 4, (40, 40)).astype(np.uint16)
    assert np.array_equal(cleaned(labels, 0), labels)
    assert np.array_equal(cleaned(labels, 1, 1), labels)
    assert cleaned(np.zeros((5, 5), np.uint16), 9, 9).max() == 0
    nothing = np.empty(0, np.int64)
    graph = RegionGraph(
        nothing.astype(np.uint16), nothing, nothing, nothing > 0, np.empty((0, 2), np.int64), nothing
    )
    assert clean(graph, 5, 5).shape == (0,)


def test_a_region_of_the_minimum_itself_stays():
    labels = raster("11111 12211 12211 11111")
    assert np.array_equal(cleaned(labels, 4), labels)
    assert (cleaned(labels, 4.5) == 1).all()


def test_what_was_absorbed_counts():
    labels = raster("1111111 1222221 1233321 1222221 1111111")
    assert np.array_equal(cleaned(labels, 14), np.where(labels == 3, 2, labels))  # 12 pixels became 15
    assert (cleaned(labels, 16) == 1).all()


def test_small_neighbours_without_a_large_one_merge():
    assert np.array_equal(cleaned(raster("00000 02230 00000"), 9), raster("00000 02220 00000"))
    assert np.array_equal(cleaned(raster("00000 02230 00040"), 9), raster("00000 02220 00020"))


def test_longest_boundary_not_largest_neighbour():
    labels = raster("1111111 1111111 3333222 3333222 3333333 3333333")
    assert shared(labels == 2, labels == 3) == 5
    assert np.array_equal(cleaned(labels, 7), np.where(labels == 2, 3, labels))


def test_ties_go_to_the_larger_then_to_the_first():
    assert cleaned(raster("11233"), 2)[0].tolist() == [1, 1, 1, 3, 3]
    assert cleaned(raster("112333"), 2)[0].tolist() == [1, 1, 3, 3, 3, 3]
    assert cleaned(raster("332111"), 2)[0].tolist() == [3, 3, 1, 1, 1, 1]


def test_a_small_region_between_two_of_one_class_unites_them():
    labels = raster("2222222 2222222 1113111 1113111 1113111 2222222 2222222")
    assert np.array_equal(
        cleaned(labels, 10), np.where(labels == 3, 1, labels)
    )  # alone, 9 pixels on the right are too few


def test_no_data_is_no_neighbour():
    labels = raster("00000 02100 00000 11111")
    assert np.array_equal(cleaned(labels, 3), raster("00000 01100 00000 11111"))
    lone = raster("00000 02000 00000 11111")
    assert np.array_equal(cleaned(lone, 3), lone)


def test_a_minimum_beyond_the_scene_leaves_one_class_per_part():
    labels = NOISE.integers(1, 6, (60, 60)).astype(np.uint16)
    labels[:, 30] = 0
    result = cleaned(labels, np.inf)
    assert np.unique(result[:, :30]).size == np.unique(result[:, 31:]).size == 1
    assert (result[:, 30] == 0).all()


def test_single_pixels_over_two_halves_vanish():
    truth = np.repeat(np.array([1, 2], np.uint16), 40)[None].repeat(80, axis=0)
    labels = truth.copy()
    spots = NOISE.permutation([(r, c) for r in range(1, 79, 3) for c in range(1, 79, 3)])[:300]
    labels[tuple(spots.T)] = 3
    assert np.array_equal(cleaned(labels, 2), truth)


@pytest.mark.parametrize("smallest", [2, 3, 50, 5000])
def test_a_checkerboard_becomes_one(smallest):
    labels = (np.indices((33, 33)).sum(axis=0) % 2 + 1).astype(np.uint16)
    result = cleaned(labels, smallest)
    graph, _ = graph_of(result)
    assert graph.pixels.min() >= min(smallest, labels.size)


NEST = raster("111111111 122222221 123333321 123444321 123454321 123444321 123333321 122222221 111111111")


@pytest.mark.parametrize(
    ("hole", "filled"),
    [
        (1, {}),
        (2, {5: 4}),
        (9, {5: 4}),
        (10, {4: 3, 5: 3}),
        (26, {3: 2, 4: 2, 5: 2}),
        (50, {2: 1, 3: 1, 4: 1, 5: 1}),
    ],
)
def test_of_nested_rings_the_outermost_filled_wins(hole, filled):
    truth = NEST.copy()
    for inner, outer in filled.items():
        truth[inner == NEST] = outer
    assert np.array_equal(cleaned(NEST, 0, hole), truth)


@pytest.mark.parametrize(
    "text",
    [
        "11111 12021 11111",
        "1111 1221 1221",
        "11111 10001 10201 10001 11111",
        "11110 12221 11111 11111",
        "11211 11111",
    ],
)
def test_a_hole_with_no_data_or_at_the_edge_stays(text):
    labels = raster(text)
    kept = labels == 2
    assert (cleaned(labels, 0, 1000)[kept] == (1 if text.startswith("11110") else 2)).all()


def test_a_hole_of_several_regions_is_filled_whole():
    labels = raster("1111111 1223441 1223441 1111111")
    assert np.array_equal(cleaned(labels, 0, 10), labels)
    assert (cleaned(labels, 0, 11) == 1).all()


def test_holes_come_before_the_sieve_and_after_it():
    thin = raster("33333 31113 31213 31113 33333")
    assert np.array_equal(
        cleaned(thin, 9, 2), raster("33333 31113 31113 31113 33333")
    )  # 8 + 1 pixels are enough


def test_a_ring_closed_by_the_sieve_is_filled():
    labels = raster("3333333 3111113 3122213 3122213 3114113 3333333")
    assert np.array_equal(cleaned(labels, 0, 9), labels)
    assert np.array_equal(cleaned(labels, 2, 9), np.where(labels == 3, 3, 1))


def test_a_union_that_came_to_the_edge_is_no_hole():
    labels = raster("11311 12321 12221 11111")
    assert np.array_equal(cleaned(labels, 3, 20), np.where(labels == 3, 2, labels))


def test_all_that_filled_holes_hold_counts():
    labels = np.pad(NEST, 3, constant_values=6)
    assert np.array_equal(cleaned(labels, 81, 50), np.where(labels == 6, 6, 1))
    assert (cleaned(labels, 82, 50) == 6).all()


def test_a_union_has_the_first_pixel_of_what_it_absorbed_and_the_least_limits():
    one = np.ones(4, np.uint8)
    # 0 goes to 2, which then has as many pixels as 1; 3 may go to either
    graph = RegionGraph(
        np.array([1, 2, 3, 4], np.uint16), np.array([1, 3, 2, 2]), np.arange(4), one,
        np.array([[0, 2], [1, 3], [2, 3]]), np.array([5, 1, 1]),
    )  # fmt: skip
    assert clean(graph, 3).tolist() == [3, 2, 3, 3]
    # 0 goes to 1 and unites it with 2; only 2 says that 3 is too large for a hole
    ring = RegionGraph(
        np.array([1, 2, 2, 3], np.uint16), np.array([1, 8, 7, 4]), np.arange(4), np.array([1, 1, 1, 0]),
        np.array([[0, 1], [0, 2], [1, 3], [2, 3]]), np.array([3, 2, 5, 3]),
    )  # fmt: skip
    assert clean(ring, 2, 5).tolist() == [2, 2, 2, 2]
    assert clean(ring, 2, [5, 5, 4, 5]).tolist() == [2, 2, 2, 3]


def test_what_touches_the_outside_by_a_corner_is_a_hole():
    for connectivity in (4, 8):
        assert cleaned(raster("3111 1211 1111"), 0, 2, connectivity)[1, 1] == 1


def test_with_connectivity_8_regions_unite_by_a_corner():
    labels = raster("11444 12444 55111 55111 55111")
    assert np.array_equal(cleaned(labels, 5, connectivity=8), np.where(labels == 2, 1, labels))
    assert np.array_equal(cleaned(labels, 5, connectivity=4), raster("44444 44444 55111 55111 55111"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": np.array([0, 2], np.uint16)}, "class 0"),
        ({"pixels": np.array([0, 2])}, "no pixels"),
        ({"code": np.array([2, 2], np.uint16)}, "one class"),
        ({"key": np.array([4, 4])}, "same key"),
        ({"pairs": np.array([[0, 2]])}, "pairs must name"),
        ({"pairs": np.array([[-1, 0]])}, "pairs must name"),
        ({"lengths": np.array([-1])}, "0 or more"),
        ({"lengths": np.array([1, 1])}, "lengths"),
        ({"open": np.array([1, 1, 1])}, "open"),
        ({"open": np.array([0, 0])}, "no way"),
    ],
)
def test_what_is_no_graph_of_regions_is_refused(change, message):
    values = {
        "code": np.array([1, 2], np.uint16), "pixels": np.array([1, 2]), "key": np.array([0, 1]),
        "open": np.array([1, 1]), "pairs": np.array([[0, 1]]), "lengths": np.array([1]),
    }  # fmt: skip
    clean(RegionGraph(**values), 1, 1)
    with pytest.raises(InputError, match=message):
        clean(RegionGraph(**(values | change)), 1, 1)


def test_limits_are_looked_at():
    graph, _ = graph_of(raster("12"))
    for wrong in (-1, np.nan, [1.0, -2.0]):
        with pytest.raises(SettingsError, match="smallest has negative or undefined"):
            clean(graph, wrong)
    with pytest.raises(InputError, match="hole has shape"):
        clean(graph, 1, [1.0, 1.0, 1.0])


def test_arguments_are_not_changed():
    graph, _ = graph_of(NOISE.integers(0, 4, (30, 30)).astype(np.uint16))
    smallest, hole = np.full(len(graph), 9.0), np.full(len(graph), 9.0)
    arrays = [*vars(graph).values(), smallest, hole]
    before = [values.copy() for values in arrays]
    clean(graph, smallest, hole)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


def test_beside_gdal_on_a_real_label_raster(data: Path):
    """GDAL takes the largest neighbour, we the one with the longest boundary: elsewhere both leave all as it is."""
    with rasterio.open(data / "fixtures/label_rasters/CDL_2016_19_train.tif") as file:
        labels = file.read(1, window=Window(1000, 1000, 800, 800))
    graph, region = graph_of(labels)
    large = (graph.pixels >= 300)[region]
    assert 0.01 < 1 - large.mean() < 0.1
    ours, gdal = cleaned(labels, 300), rasterio.features.sieve(labels, 300, connectivity=4)
    assert np.array_equal(ours[large], labels[large])
    assert np.array_equal(gdal[large], labels[large])
    assert 0 < (ours != gdal).mean() < 0.03
    assert graph_of(ours)[0].pixels.min() >= 300
    ways = [_boundary(values) for values in (labels, gdal, ours)]
    assert ways[2] < ways[1] < ways[0]  # the longest boundary goes, so less is left than with GDAL


def _boundary(labels: NDArray) -> int:
    """Pixel edges between classes."""
    return sum(int((a != b).sum()) for a, b in _across(labels, 4))
