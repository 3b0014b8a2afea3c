"""Outlines squared on the way through ``vectorize``: the same whatever the blocks, and a coverage still."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import shape

import rssegment as rs
from rssegment.config import Length
from rssegment.errors import SettingsError
from rssegment.grid import ground_resolution
from rssegment.scene import LabelRaster
from rssegment.taxonomy import Taxonomy
from tests.run.conftest import smooth_noise, write_scene
from tests.run.test_polygons import write_labels

SIZE = (260, 310)
GRASS, YARD, BUILDING, ROAD, WATER = 1, 2, 3, 4, 5
TREE = Taxonomy.loads(
    """
name: town
classes:
  - {code: 10, name: ground, color: "#007800", classes: [
      {code: 1, name: grass, color: "#00C800"}, {code: 2, name: yard, color: "#C8C800"},
      {code: 5, name: water, color: "#0000FA"}]}
  - {code: 11, name: built, color: "#780000", classes: [
      {code: 3, name: building, color: "#FA0000"}, {code: 4, name: road, color: "#5A5A5A"}]}
"""
)


def town(seed: int) -> tuple[NDArray[np.uint8], int]:
    """A class map with rough buildings on grass and yards, apart from each other or close, and two roads."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[: SIZE[0], : SIZE[1]]
    labels = np.full(SIZE, GRASS, np.uint8)
    labels[smooth_noise(SIZE, seed + 1, 8) > 2.2] = WATER
    rough = 0.5 * smooth_noise(SIZE, seed + 2, 2)
    count = 0
    for row in range(30, SIZE[0] - 20, 52):
        for col in range(30, SIZE[1] - 20, 56):
            turn, (down, across) = rng.uniform(0, np.pi), rng.uniform(8, 19, 2)
            i, j = rows - row - rng.uniform(-6, 6), cols - col - rng.uniform(-6, 6)
            u, v = i * np.cos(turn) + j * np.sin(turn), j * np.cos(turn) - i * np.sin(turn)
            if rng.random() < 0.4:
                labels[np.maximum(np.abs(u), np.abs(v)) < 25] = YARD
            labels[(np.abs(u) + rough < down) & (np.abs(v) + rough < across)] = BUILDING
            count += 1
    labels[np.abs(rows - 0.4 * cols - 60 + rough) < 4] = ROAD
    labels[np.abs(cols - 150 + 8 * np.sin(rows / 30)) < 3] = ROAD
    return labels, count


def run(path: Path, labels: NDArray[Any], **choices: Any) -> list[dict[str, Any]]:
    out = path / "r.geojsonl"
    rs.vectorize(write_labels(path / "l.tif", labels, crs=None), out, overwrite=True, **choices)
    return [json.loads(line.strip("\x1e\n")) for line in out.read_text().splitlines() if line.strip("\x1e\n")]


def polygons(features: list[dict[str, Any]], code: int | None = None) -> NDArray[Any]:
    chosen = (each for each in features if code is None or each["properties"]["code"] == code)
    return np.array([shape(each["geometry"]) for each in chosen])


def turns(polygon: Any) -> NDArray[np.float64]:
    """Degrees by which each corner of an exterior is off a right angle."""
    ring = np.array(polygon.exterior.coords)[:-1]
    way = np.roll(ring, -1, axis=0) - ring
    angle = np.degrees(np.arctan2(way[:, 1], way[:, 0]))
    off: NDArray[np.float64] = np.abs(np.abs((np.roll(angle, -1) - angle + 180) % 360 - 180) - 90)
    return off


def is_squared(polygon: Any) -> bool:
    """Right angles all round, within what 1/16 px lets walls of 4 px have."""
    off = turns(polygon) if polygon.geom_type == "Polygon" else np.empty(0)
    return bool(off.size >= 4 and off.max() < 2)


@pytest.mark.parametrize(
    "choices",
    [
        {"simplify": "1.5px"},
        {},
        {"simplify": "1px", "smooth": 1, "connectivity": 8},
        {"simplify": "1.5px", "min_area": "25px", "fill_holes": "30px", "taxonomy": TREE, "levels": "all"},
    ],
    ids=["simplified", "alone", "smooth, connectivity 8", "cleaned, levels"],
)
def test_blocks_change_nothing(tmp_path: Path, choices: dict[str, Any]) -> None:
    labels, _ = town(3)
    contents = []
    for block in (37, 64, 500):
        features = run(tmp_path, labels, square=BUILDING, block=block, **choices)
        contents.append((tmp_path / "r.geojsonl").read_bytes())
    assert contents[0] == contents[1] == contents[2]
    plain = run(tmp_path, labels, **choices)
    assert [each["properties"]["id"] for each in features] == [each["properties"]["id"] for each in plain]
    levels = {each["properties"].get("level") for each in features}
    for level in levels:
        there = polygons([each for each in features if each["properties"].get("level") == level])
        assert shapely.is_valid(there).all()
        assert shapely.coverage_is_valid(there)
    assert sum(map(is_squared, polygons(features, BUILDING))) >= 5


def test_buildings_have_right_angles_and_keep_their_area(tmp_path: Path) -> None:
    labels, count = town(8)
    before = polygons(run(tmp_path, labels), BUILDING)
    simple = polygons(run(tmp_path, labels, simplify="1.5px"), BUILDING)
    after = polygons(run(tmp_path, labels, simplify="1.5px", square=[BUILDING], block=100), BUILDING)
    right = np.array([is_squared(each) for each in after])
    assert right.sum() >= count // 3
    assert not any(map(is_squared, simple))
    areas = shapely.area(after[right]) / shapely.area(before[right])
    np.testing.assert_allclose(areas, 1, atol=0.005)
    far = shapely.hausdorff_distance(before[right], after[right], densify=0.05)
    assert far.max() < 4.1
    closer = run(tmp_path, labels, simplify="1.5px", square=[BUILDING], square_limit="1.5px")
    near = polygons(closer, BUILDING)
    assert shapely.hausdorff_distance(before, near, densify=0.05).max() < 1.5 * 2 + 0.1


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), block=st.integers(16, 120), smooth=st.integers(0, 1))
def test_towns(tmp_path_factory: pytest.TempPathFactory, seed: int, block: int, smooth: int) -> None:
    path = tmp_path_factory.mktemp("town")
    labels, _ = town(seed)
    choices = {"simplify": "2px", "smooth": smooth, "square": (BUILDING, WATER, YARD), "square_limit": "5px"}
    whole = run(path, labels, block=400, **choices)
    assert run(path, labels, block=block, **choices) == whole
    there = polygons(whole)
    assert shapely.coverage_is_valid(there)
    exact = polygons(run(path, labels))
    assert len(there) == len(exact)
    assert shapely.area(there).sum() == pytest.approx(shapely.area(exact).sum())
    assert shapely.covers(shapely.box(0, 0, SIZE[1], SIZE[0]), there).all()


def test_nothing_leaves_the_raster(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    labels = np.full((40, 60), BUILDING, np.uint8)  # alone on no data: nothing but the edge is near
    for side, along in ((labels[:3], 60), (labels[-3:], 60), (labels.T[:3], 40), (labels.T[-3:], 40)):
        side[np.arange(3)[:, None] < rng.integers(0, 3, along)] = 0
    there = polygons(run(tmp_path, labels, simplify="1px", square=BUILDING))
    assert shapely.covers(shapely.box(0, 0, 60, 40), there).all()
    whole = polygons(run(tmp_path, np.full((40, 60), BUILDING, np.uint8), square=BUILDING))
    assert shapely.equals(whole[0], shapely.box(0, 0, 60, 40))


def test_classes_by_name_path_and_what_is_above(tmp_path: Path) -> None:
    labels, _ = town(8)
    plain = run(tmp_path, labels, simplify="1.5px", taxonomy=TREE)
    squared = run(tmp_path, labels, simplify="1.5px", taxonomy=TREE, square="building")
    assert squared != plain
    for same in ("built/building", BUILDING, [BUILDING, "water"], "built", (11,)):
        found = run(tmp_path, labels, simplify="1.5px", taxonomy=TREE, square=same)
        buildings = [each for each in found if each["properties"]["code"] == BUILDING]
        assert buildings == [each for each in squared if each["properties"]["code"] == BUILDING]
    with pytest.raises(SettingsError, match=r"square names 'tower': taxonomy 'town' has no class 'tower'"):
        run(tmp_path, labels, taxonomy=TREE, square=["building", "tower"])


def test_codes_of_rasters_without_taxonomy(tmp_path: Path) -> None:
    labels, _ = town(8)
    codes = np.array([0, 7, -4, 70000, 12, 5], np.int32)[labels]
    buildings = polygons(run(tmp_path, codes, simplify="1.5px", square=70000), 70000)
    assert sum(map(is_squared, buildings)) >= 8
    plain = run(tmp_path, codes, simplify="1.5px")
    assert polygons(run(tmp_path, codes, simplify="1.5px", square=99)).tolist() == polygons(plain).tolist()
    with pytest.raises(SettingsError, match="'building', which is no class of the raster"):
        run(tmp_path, codes, square="building")


def test_without_classes_nothing_changes(tmp_path: Path) -> None:
    labels, _ = town(3)
    run(tmp_path, labels, simplify="1.5px", smooth=1)
    before = (tmp_path / "r.geojsonl").read_bytes()
    run(tmp_path, labels, simplify="1.5px", smooth=1, square_limit="2px")
    assert (tmp_path / "r.geojsonl").read_bytes() == before


@pytest.mark.parametrize(
    "choices",
    [{"square": True}, {"square": ()}, {"square": [""]}, {"square": [1.5]}, {"square": 3, "square_limit": "0px"},
     {"square": 3, "square_limit": "2000px"}, {"square": 3, "square_limit": -1}, {"square": 3, "square_limit": 2}],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_had_is_refused(tmp_path: Path, choices: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        run(tmp_path, town(3)[0][:40, :40], **choices)


def test_a_limit_in_metres_is_one_in_pixels(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "m.tif", town(8)[0])  # 2 m, on a UTM grid
    out = [tmp_path / name for name in ("m.geojson", "px.geojson", "more.geojson")]
    resolution = np.sqrt(np.prod(ground_resolution(LabelRaster.open(path).geobox)))
    for each, limit in zip(out, (float(3 * resolution), "3px", "4px"), strict=True):
        rs.vectorize(path, each, square=BUILDING, square_limit=limit)
    assert out[0].read_bytes() == out[1].read_bytes() != out[2].read_bytes()


def test_segment_squares_too(bundle: Path, tree: Taxonomy, tmp_path: Path) -> None:
    values = np.full((3, 400, 400), 60, np.uint8)
    rows, cols = np.mgrid[:400, :400]
    for row, col in ((90, 100), (190, 195), (280, 90), (100, 300)):  # the second lies over blocks
        u, v = (rows - row) * 0.8 + (cols - col) * 0.6, (cols - col) * 0.8 - (rows - row) * 0.6
        values[0, (np.abs(u) < 20) & (np.abs(v) < 30)] = 250
    scene = write_scene(tmp_path / "scene.tif", values)
    contents, codes = {}, tuple(node.code for node in tree.level(1))
    for block, square in ((192, codes), (700, tuple(tree.node(code).name for code in codes)), (256, None)):
        out = tmp_path / str(block)
        options: dict[str, Any] = {"workers": 0, "block": block, "square": square, "min_area": "400px"}
        rs.segment(scene, bundle, out, settings=rs.Settings(**options))
        contents[block] = (out / "regions.geojson").read_bytes()
    assert contents[192] == contents[700] != contents[256]


def test_the_limit_is_part_of_the_plan(scene: Path, bundle: Path, tree: Taxonomy, tmp_path: Path) -> None:
    code, near, far = tree.nodes[0].code, Length(2, "px"), Length(3, "px")
    plans = [
        rs.plan(scene, bundle, tmp_path / "p", rs.Settings(square=(code,), square_limit=limit))
        for limit in (near, far)
    ]
    assert plans[0].fingerprint != plans[1].fingerprint
    assert f"square {code}, square_limit 2 px" in str(plans[0])
