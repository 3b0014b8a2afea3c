"""Law 3: simplified and smoothed regions are a valid coverage in which none is lost, whatever the blocks."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from rssegment.vector import Regions, Simplification, trace_raster
from tests.vector.engine import Cut, traced
from tests.vector.reference import check_table, expected, same
from tests.vector.test_law2 import cuts
from tests.vector.traps import raster


def noise(side: int, sigma: float, classes: int = 4, seed: int = 0) -> NDArray[np.uint16]:
    """The greatest of ``classes`` smoothed noise fields, counted from 1."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((side, side)), sigma) for _ in range(classes)]
    return np.argmax(fields, axis=0).astype(np.uint16) + 1


def _some(seed: int, shape: tuple[int, int], classes: int, sigma: float, gaps: bool) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(classes + 1)]
    return np.argmax(fields, axis=0).astype(np.uint16) + (not gaps)


scenes = st.builds(
    _some,
    st.integers(0, 2**32),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 5),
    st.sampled_from([0, 0.4, 0.8, 1.5, 3]),
    st.booleans(),
)
hows = st.builds(
    Simplification,
    st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0]),
    st.sampled_from(["vw", "dp"]),
    st.integers(0, 3),
) | st.builds(Simplification, st.just(0.0), st.just("vw"), st.integers(1, 3))


def check_coverage(made: Regions, exact: Regions, labels: NDArray[np.uint16]) -> None:
    """``made`` is ``exact`` but for its corners: valid, of the same rings, without gaps, overlaps or lost regions."""
    for name in ("id", "parent", "code", "sums", "least", "touches", "first", "part_offsets"):
        assert np.array_equal(getattr(made, name), getattr(exact, name)), name
    assert np.array_equal(made.ring_offsets, exact.ring_offsets)
    shapes = made.to_shapely()
    parts = shapely.get_parts(shapes)
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(parts)
    assert (shapely.area(parts) > 0).all()
    if labels.all():
        assert np.isclose(shapely.area(shapes).sum(), labels.size, rtol=1e-9, atol=0)
        assert tuple(shapely.total_bounds(shapes)) == (0, 0, labels.shape[1], labels.shape[0])


@settings(max_examples=120)
@given(scenes, cuts, cuts, st.sampled_from([4, 8]), hows)
def test_simplified_regions_are_a_coverage(
    labels: NDArray[np.uint16], cut: Cut, other: Cut, connectivity: int, how: Simplification
) -> None:
    (made,) = traced(labels, cut, connectivity, how)
    check_coverage(made, trace_raster(labels, 64, connectivity), labels)
    assert same(made, traced(labels, other, connectivity, how)[0])


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("method", ["vw", "dp"])
def test_every_tolerance_and_rounding(method: str, connectivity: int) -> None:
    """On one scene with regions of all sizes; corners do become fewer."""
    labels = noise(120, 1.2)
    exact = trace_raster(labels, 200, connectivity)
    known = expected(labels, connectivity)
    counts = []
    for tolerance in (0.5, 1.0, 2.0, 8.0):
        for smooth in (0, 1, 2):
            how = Simplification(tolerance, method, smooth)  # type: ignore[arg-type]
            made = trace_raster(labels, 50, connectivity, how=how)
            check_coverage(made, exact, labels)
            check_table(made, known)
            assert made.scale == Simplification(tolerance, method, smooth).scale
            if smooth == 0:
                counts.append(len(made.corners))
            elif smooth == 1:
                assert len(made.corners) > counts[-1]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 0.7 * counts[0] < 0.8 * len(exact.corners)


@pytest.mark.parametrize("method", ["vw", "dp"])
def test_simplifying_before_the_join_would_leave_cracks(method: str) -> None:
    """A diagonal staircase over many seams: one straight line in the end, and no corner where a seam was."""
    labels = np.tri(60, 60, dtype=np.uint16) + 1
    for block in (7, 16, 100):
        made = trace_raster(labels, block, how=Simplification(2.0, method))  # type: ignore[arg-type]
        assert len(made) == 2
        assert np.diff(made.corner_offsets).max() <= 7
        assert shapely.coverage_is_valid(made.to_shapely())


def test_the_edge_of_the_scene_stays() -> None:
    """Its corners are nobody's to cut, though one region alone has them."""
    labels = np.ones((9, 12), np.uint16)
    labels[3:6, 4:9] = 2
    for how in (Simplification(8.0), Simplification(8.0, "dp"), Simplification(2.0, "vw", 2)):
        for block in (4, 100):
            made = trace_raster(labels, block, how=how)
            corners = made.corners[: made.corner_offsets[1]] / made.scale
            for corner in ([0, 0], [0, 12], [9, 0], [9, 12]):
                assert corner in corners.tolist()
            assert shapely.area(made.to_shapely()).sum() == labels.size


def test_islands_close_together_stay_apart() -> None:
    """Rings that would cross each other where each is simplified alone; a ring of one pixel round another."""
    labels = raster("1111111111 1222222221 1233333321 1234444321 1234554321 1233333321 1222222221 1111111111")
    for scale, tolerance in ((1, 8.0), (3, 20.0)):
        large = np.kron(labels, np.ones((scale, scale), np.uint16))
        for method in ("vw", "dp"):
            for smooth in (0, 2):
                how = Simplification(tolerance, method, smooth)  # type: ignore[arg-type]
                made = trace_raster(large, 4, how=how)
                check_coverage(made, trace_raster(large), large)


def test_holes_that_begin_at_one_corner() -> None:
    """Simplified, two holes that touch may both have that corner as their topmost one: which comes first?"""
    labels = raster("111111 112211 121221 111211 111111")
    tied = 0
    for tolerance in (3.0, 9.0):
        how = Simplification(tolerance)
        (whole,) = traced(labels, Cut(64), 4, how)
        firsts = whole.corners[whole.corner_offsets[whole.ring_offsets[0] : whole.ring_offsets[1]]]
        tied += len(np.unique(firsts, axis=0)) < len(firsts)
        for block in (1, 2, 3, 4, 5):
            for fan in (2, 4):
                assert same(traced(labels, Cut(block, fan), 4, how)[0], whole), (block, fan)
    assert tied


def _check_scene(labels: NDArray[np.uint16], connectivity: int, how: Simplification) -> None:
    exact = trace_raster(labels, 2048, connectivity)
    made = trace_raster(labels, 333, connectivity, how=how)
    check_coverage(made, exact, labels)
    assert same(made, trace_raster(labels, 512, connectivity, how=how))


REAL = [Simplification(1.5), Simplification(3.0, "dp"), Simplification(1.0, "vw", 2)]
_ID = {"ids": lambda how: f"{how.method} {how.tolerance} {how.smooth}"}


@pytest.mark.data
@pytest.mark.parametrize("how", REAL, **_ID)
@pytest.mark.parametrize(
    ("name", "connectivity"),
    [
        ("fixtures/label_rasters/CDL_2016_19_train.tif", 4),
        ("fixtures/label_rasters/CDL_2016_19_train.tif", 8),
        ("flair_d034/Z4_UU_val_labels.tif", 4),
    ],
)
def test_real_labels(data: Path, name: str, connectivity: int, how: Simplification) -> None:
    with rasterio.open(data / name) as file:
        labels = file.read(1, window=Window(400, 100, 512, 600)).astype(np.uint16)
    _check_scene(labels, connectivity, how)


@pytest.mark.data
@pytest.mark.slow
def test_whole_flair_files(data: Path) -> None:
    paths = sorted((data / "flair_d034").glob("*_labels.tif"))
    assert paths
    for path, how, connectivity in zip(paths, cycle(REAL), cycle([4, 4, 4, 8, 8, 8]), strict=False):
        with rasterio.open(path) as file:
            _check_scene(file.read(1).astype(np.uint16), connectivity, how)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "connectivity"), list(zip(REAL, [4, 8, 8], strict=True)), ids=str)
def test_a_million_vertices(how: Simplification, connectivity: int) -> None:
    labels = noise(1000, 0.7)
    assert len(trace_raster(labels).corners) > 1_000_000
    _check_scene(labels, connectivity, how)
