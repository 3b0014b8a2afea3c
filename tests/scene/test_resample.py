"""Pixels of another size: right values, and independent of the window (law 1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rssegment.errors import SceneError
from rssegment.grid import Box
from rssegment.scene import Scene
from rssegment.scene import scene as scene_module
from rssegment.scene.resample import best_level, taps

from .conftest import UTM, MakeRaster, write_raster

FACTORS = (0.31, 0.5, 0.83, 1.27, 2.0, 3.0, 4.5, 9.7, 33.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files with every way to be invalid, with and without overviews, and odd placements."""
    folder = tmp_path_factory.mktemp("zoo")
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (3, 157, 211)).astype(np.uint8)
    image[:, 20:60, 30:70] = 0
    mask = rng.random((157, 211)) > 0.2
    floats = np.where(rng.random((2, 157, 211)) > 0.1, rng.normal(0, 1000, (2, 157, 211)), np.nan).astype(
        "f4"
    )
    alpha = np.concatenate([image, (mask * 255).astype(np.uint8)[None]])
    rotated = UTM * Affine.rotation(30)
    write_raster(folder / "nodata.tif", image, nodata=0)
    write_raster(
        folder / "overviews.tif",
        image,
        nodata=0,
        overviews=[2, 4, 8],
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    write_raster(folder / "nearest.tif", image, nodata=0, overviews=[2, 4], method="nearest")
    write_raster(folder / "mask.tif", image, mask=mask, overviews=[2, 4])
    write_raster(folder / "alpha.tif", alpha, colors=["red", "green", "blue", "alpha"], transform=rotated)
    write_raster(
        folder / "nan.tif", floats, nodata=np.nan, transform=Affine(1e-4, 0, 15, 0, 1e-4, 48), crs="EPSG:4326"
    )
    write_raster(folder / "line.tif", image[:, :1])
    return folder


ZOO = ("nodata", "overviews", "nearest", "mask", "alpha", "nan", "line")


def scaled(scene: Scene, factor: float) -> Scene:
    return scene.on_grid(max(scene.ground_resolution) * factor)


def assert_part_of_whole(scene: Scene, box: Box, whole: tuple[np.ndarray, np.ndarray]) -> None:
    pixels = scene.read(box)
    assert pixels.values.tobytes() == whole[0][(slice(None), *box.slices)].tobytes()
    np.testing.assert_array_equal(pixels.valid, whole[1][box.slices])
    np.testing.assert_array_equal(scene.read_valid(box), pixels.valid)
    assert scene.any_valid(box) == pixels.valid.any()


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, int]) -> Box:
    height, width = (draw(st.integers(1, n)) for n in shape)
    return Box(draw(st.integers(0, shape[0] - height)), draw(st.integers(0, shape[1] - width)), height, width)


@pytest.mark.parametrize("name", ZOO)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_a_part_is_what_the_whole_has_there(folder: Path, name: str, draw: st.DataObject) -> None:
    """Law 1: reading a box is byte for byte slicing the whole."""
    scene = scaled(Scene.open(folder / f"{name}.tif"), draw.draw(st.sampled_from(FACTORS)))
    pixels = scene.read(Box.of(scene.shape))
    for _ in range(3):
        assert_part_of_whole(scene, draw.draw(boxes(scene.shape)), (pixels.values, pixels.valid))


@pytest.mark.parametrize(
    "path",
    [
        "fixtures/rasterio/RGB.byte.tif",
        "fixtures/rasterio/goes.tif",
        "fixtures/rio-tiler/cog_int16.tif",
        "fixtures/rio-tiler/mosaic_cog1.tif",
        "fixtures/rio-tiler/cog_rgb_mask.tif",
        "flair_d034/Z3_NF_val.tif",
    ],
)
@pytest.mark.parametrize("factor", [0.71, 2.6, 8.3])
def test_real_files_too(data: Path, path: str, factor: float) -> None:
    scene = scaled(Scene.open(data / path), factor)
    pixels = scene.read(Box.of(scene.shape))
    rng = np.random.default_rng(5)
    for _ in range(4):
        height, width = (int(rng.integers(1, min(n, 300) + 1)) for n in scene.shape)
        row, col = (
            int(rng.integers(0, n - m + 1)) for n, m in zip(scene.shape, (height, width), strict=True)
        )
        assert_part_of_whole(scene, Box(row, col, height, width), (pixels.values, pixels.valid))


@pytest.mark.parametrize("factor", [0.7, 6.0])
def test_small_steps_change_nothing(folder: Path, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scaled(Scene.open(folder / "overviews.tif"), factor)
    whole = scene.read(Box.of(scene.shape))
    monkeypatch.setattr(scene_module, "STEP_BYTES", 5000)
    again = scene.read(Box.of(scene.shape))
    assert again.values.tobytes() == whole.values.tobytes()
    np.testing.assert_array_equal(again.valid, whole.valid)


def test_larger_pixels_are_means(raster: MakeRaster) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    scene = Scene.open(raster(values)).on_grid(20 * Scene.open(raster(values)).ground_resolution[0] / 10)
    assert scene.shape == (2, 3)
    expected = values.reshape(2, 2, 3, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(scene.read(Box(0, 0, 2, 3)).values[0], expected, rtol=1e-3)


def test_invalid_pixels_take_no_part(raster: MakeRaster) -> None:
    values = np.array([[9, 0, 0, 0], [9, 9, 0, 9]], np.uint8)
    scene = scaled(Scene.open(raster(values, nodata=0)), 2.0)
    pixels = scene.read(Box(0, 0, 1, 2))
    np.testing.assert_allclose(pixels.values, [[[9, 0]]], rtol=1e-3)
    assert pixels.valid.tolist() == [[True, False]]


def test_smaller_pixels_interpolate_a_ramp_exactly(raster: MakeRaster) -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (30, 40))
    scene = scaled(Scene.open(raster(ramp)), 0.25)
    row = scene.read(Box.of(scene.shape)).values[0, 17]
    _, across = scene.factor
    centres = (np.arange(len(row)) + 0.5) * across - 0.5
    np.testing.assert_allclose(row, np.clip(centres, 0, 39), atol=1e-4)


def test_a_valid_edge_pixel_beside_no_data_stays(raster: MakeRaster) -> None:
    values = np.full((8, 8), 100, np.uint8)
    values[:, 4:] = 0
    pixels = scaled(Scene.open(raster(values, nodata=0)), 0.5).read(Box(0, 0, 16, 16))
    assert pixels.valid[:, :8].all()
    assert not pixels.valid[:, 8:].any()
    np.testing.assert_allclose(pixels.values[:, pixels.valid], 100, rtol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_taps_cover_the_axis(factor: float, length: int) -> None:
    """Each row of weights sums to 1; larger pixels share out the whole axis, each input pixel alike."""
    count = max(1, int(np.ceil(length / factor - 1e-6)))
    axis = taps(0, count, factor, length)
    np.testing.assert_allclose(axis.weights.sum(axis=1), 1, rtol=1e-6)
    assert axis.indices.min() >= 0
    assert axis.indices.max() < length
    if factor > 1:
        share = np.zeros(length)
        covered = np.minimum((np.arange(count) + 1) * factor, length) - np.arange(count) * factor
        np.add.at(share, axis.indices, axis.weights * covered[:, None])
        np.testing.assert_allclose(share, 1, atol=1e-4)


@pytest.mark.parametrize("factor", FACTORS)
def test_taps_of_a_part_are_those_of_the_whole(factor: float) -> None:
    whole, part = taps(0, 50, factor, 1700), taps(13, 29, factor, 1700)
    assert part.indices.tobytes() == whole.indices[13:29].tobytes()
    assert part.weights.tobytes() == whole.weights[13:29].tobytes()


def test_overviews_are_used_only_where_fine_enough() -> None:
    overviews = ((500, 500), (250, 250), (125, 125))
    wanted = {1.5: None, 3.9: None, 4.0: 0, 7.9: 0, 8.0: 1, 16.0: 2, 100.0: 2}
    for factor, level in wanted.items():
        assert best_level((1000, 1000), overviews, (factor, factor)) == level
    assert best_level((1000, 1000), overviews, (16.0, 3.0)) is None
    assert best_level((1000, 1000), (), (16.0, 16.0)) is None


def test_an_overview_lies_where_the_full_grid_lies(folder: Path) -> None:
    """On a ramp of 1 per pixel a shift shows as a difference: none on average, and never a whole pixel."""
    ramp = np.add(*np.mgrid[:515, :509]).astype(np.float32)
    with_them = scaled(Scene.open(write_raster(folder / "ramp_o.tif", ramp, overviews=[2, 4])), 9.1)
    without = scaled(Scene.open(write_raster(folder / "ramp.tif", ramp)), 9.1)
    assert with_them.sources[0].overviews
    box = Box(0, 0, 50, 50)
    shift = with_them.read(box).values - without.read(box).values
    assert abs(shift.mean()) < 0.1
    assert np.abs(shift).max() < 1


def test_geometry_is_shared(folder: Path) -> None:
    scene = Scene.open(folder / "alpha.tif")
    coarse = scene.on_grid(25)
    assert coarse.geobox.affine * (0, 0) == pytest.approx(scene.geobox.affine * (0, 0))
    assert coarse.ground_resolution == pytest.approx((25, 25), rel=1e-3)
    assert coarse.on_grid(scene.ground_resolution[0]) == scene
    assert scene.on_grid(scene.ground_resolution[0] * 1.005) is scene
    assert coarse.on_grid(25) is coarse
    assert coarse.on_grid(50).native == scene.geobox


def test_non_square_pixels_become_square(folder: Path) -> None:
    scene = Scene.open(folder / "nan.tif")
    down, across = scene.ground_resolution
    assert down / across == pytest.approx(1.5, rel=0.02)
    assert scene.on_grid(5).ground_resolution == pytest.approx((5, 5), rel=0.01)


@pytest.mark.parametrize("resolution", [0, -1, float("nan")])
def test_a_resolution_that_is_none_is_refused(folder: Path, resolution: float) -> None:
    with pytest.raises(SceneError, match="more than 0"):
        Scene.open(folder / "line.tif").on_grid(resolution)
