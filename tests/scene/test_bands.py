"""Names, choice and order of bands, several files, colour tables, scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from rssegment.config import SceneOptions
from rssegment.errors import SceneError
from rssegment.grid import Box
from rssegment.scene import Scene
from rssegment.scene.bands import own_name

from .conftest import MakeRaster

BOX = Box(0, 0, 4, 5)


def stack(count: int, dtype: str = "uint8") -> np.ndarray:
    """Band k holds the value k everywhere."""
    return np.broadcast_to(np.arange(1, count + 1)[:, None, None], (count, 4, 5)).astype(dtype)


def names(scene: Scene) -> list[str]:
    return [band.name for band in scene.bands]


def first_pixel(scene: Scene) -> list[float]:
    return scene.read(BOX).values[:, 0, 0].tolist()


def test_names_come_from_descriptions_then_colours_then_places(raster: MakeRaster) -> None:
    path = raster(stack(4), colors=["red", "green", "blue", "undefined"], names=["", " Green edge ", "", ""])
    assert names(Scene.open(path)) == ["red", "green edge", "blue", "band_4"]
    assert own_name(None, "nir", 4) == "nir"
    assert names(Scene.open(raster(stack(2), names=["B2", "b2"]))) == ["b2", "b2_2"]


def test_choice_by_name_place_and_text(raster: MakeRaster) -> None:
    path = raster(stack(4), names=["Red", "Green", "Blue", "NIR"])
    for wanted in ((4, 1), ("nir", "RED"), ("4", " red ")):
        scene = Scene.open(path, SceneOptions(bands=wanted))
        assert names(scene) == ["nir", "red"]
        assert first_pixel(scene) == [4, 1]
        assert first_pixel(scene.select([2, 1, 1])) == [1, 4, 4]
    assert first_pixel(Scene.open(path).select(["blue"])) == [3]


@pytest.mark.parametrize("wanted", [(5,), (0,), (-1,), ("swir",), ("5",), ()])
def test_a_band_that_is_not_there(raster: MakeRaster, wanted: tuple[int | str, ...]) -> None:
    path = raster(stack(4), names=["red", "green", "blue", "nir"])
    with pytest.raises(SceneError, match="1 red, 2 green, 3 blue, 4 nir"):
        Scene.open(path, SceneOptions(bands=wanted))
    with pytest.raises(SceneError, match="4 nir"):
        Scene.open(path).select(wanted)


def test_several_files_are_one_scene(raster: MakeRaster, data: Path) -> None:
    rgb = raster(stack(3), "rgb.tif", colors=["red", "green", "blue"])
    nir = raster(stack(1) * 9, "S2_B08.tif")
    scene = Scene.open([rgb, Path(nir)])
    assert names(scene) == ["red", "green", "blue", "s2_b08"]
    assert first_pixel(scene) == [1, 2, 3, 9]
    assert first_pixel(scene.select(["s2_b08", "red"])) == [9, 1]
    assert first_pixel(Scene.open([rgb, nir], SceneOptions(bands=(4, 2)))) == [9, 2]
    again = raster(stack(3), "again.tif", colors=["red", "green", "blue"])
    assert names(Scene.open([rgb, again]))[2:4] == ["rgb_blue", "again_red"]

    pair = Scene.open([data / f"fixtures/rio-tiler/scene_band{i}.tif" for i in (1, 2)])
    assert names(pair) == ["scene_band1", "scene_band2"]
    whole = pair.read(Box.of(pair.shape))
    with rasterio.open(data / "fixtures/rio-tiler/scene_band2.tif") as file:
        np.testing.assert_array_equal(whole.values[1], np.where(whole.valid, file.read(1), 0))
    coarse = pair.on_grid(900)
    assert coarse.sources[0].overviews
    whole, box = coarse.read(Box.of(coarse.shape)), Box(10, 20, 70, 50)
    assert coarse.read(box).values.tobytes() == whole.values[(slice(None), *box.slices)].tobytes()


def test_alphas_of_several_files(raster: MakeRaster) -> None:
    paths = [raster(stack(4), colors=["red", "green", "blue", "alpha"]) for _ in range(2)]
    scene = Scene.open(paths)
    assert scene.count == 6
    assert names(Scene.open(paths, SceneOptions(bands=(5, 7)))) == ["raster_1_red", "raster_1_blue"]


def test_scale_and_offset_give_values(raster: MakeRaster) -> None:
    stored = np.array([[[0, 1, 2000, 65535]], [[0, 10, 20, 30]]], np.uint16)
    scene = Scene.open(raster(stored, nodata=0, scales=[1e-4, 2.0], offsets=[-0.1, 0.0]))
    assert scene.scaled
    pixels = scene.read(Box(0, 0, 1, 4))
    np.testing.assert_allclose(pixels.values[0, 0], [0, -0.0999, 0.1, 6.4535], rtol=1e-6)
    np.testing.assert_array_equal(pixels.values[1, 0], [0, 20, 40, 60])
    assert pixels.valid.tolist() == [[False, True, True, True]]
    assert not Scene.open(raster(stored)).scaled


@pytest.mark.parametrize("dtype", ["int32", "float64"])
def test_scaling_is_done_before_rounding_to_float32(raster: MakeRaster, dtype: str) -> None:
    stored = np.array([[16_777_217, 16_777_219]], dtype)
    scene = Scene.open(raster(stored, offsets=[-16_777_216.0]))
    assert scene.read(Box(0, 0, 1, 2)).values.tolist() == [[[1, 3]]]


def test_a_colour_table_becomes_its_colours(raster: MakeRaster) -> None:
    index = np.array([[0, 1, 2, 3]], np.uint8)
    colormap = {0: (0, 0, 0, 255), 1: (10, 20, 30, 255), 2: (200, 0, 7, 0), 3: (1, 2, 3, 9)}
    scene = Scene.open(raster(index, colormap=colormap, nodata=0))
    assert names(scene) == ["red", "green", "blue"]
    assert scene.dtype == "uint8"
    box = Box(0, 0, 1, 4)
    pixels = scene.read(box)
    # GeoTIFF keeps no opacity in its colour table: entry 2 is as opaque as 1.
    assert pixels.values[:, 0, 1].tolist() == [10, 20, 30]
    assert pixels.values[:, 0, 3].tolist() == [1, 2, 3]
    assert pixels.valid[0].tolist() == [False, True, True, True]
    np.testing.assert_array_equal(scene.read_valid(box), pixels.valid)
    assert scene.select(["blue"]).read(box).values[0, 0].tolist() == [0, 30, 7, 3]


def test_transparent_entries_are_no_data(raster: MakeRaster) -> None:
    colormap = {0: (9, 9, 9, 255), 1: (10, 20, 30, 0), 2: (200, 0, 7, 255)}
    path = raster(np.array([[0, 1, 2]], np.uint8), "map.png", driver="PNG", colormap=colormap, worldfile=True)
    scene = Scene.open(path)
    pixels = scene.read(Box(0, 0, 1, 3))
    assert pixels.valid.tolist() == [[True, False, True]]
    assert pixels.values[:, 0].T.tolist() == [[9, 9, 9], [0, 0, 0], [200, 0, 7]]


def test_a_colour_table_without_colours_is_ignored_aloud(raster: MakeRaster) -> None:
    colormap = dict.fromkeys(range(256), (0, 0, 0, 255))
    scene = Scene.open(raster(np.array([[0, 1, 2]], np.uint8), colormap=colormap))
    assert names(scene) == ["band_1"]
    assert scene.read(Box(0, 0, 1, 3)).values.tolist() == [[[0, 1, 2]]]
    assert "colour table" in scene.warnings[0]


def test_colours_are_averaged_and_never_indices(raster: MakeRaster, data: Path) -> None:
    index = np.tile(np.array([[0, 200]], np.uint8), (64, 32))
    colormap = {0: (0, 0, 0, 255), 100: (255, 0, 0, 255), 200: (100, 100, 100, 255)}
    scene = Scene.open(raster(index, colormap=colormap, overviews=[2, 4]))
    coarse = scene.on_grid(scene.ground_resolution[0] * 8)
    np.testing.assert_allclose(coarse.read(Box.of(coarse.shape)).values, 50, atol=1)

    real = Scene.open(data / "fixtures/rio-tiler/cog_cmap.tif")
    part = Box(4096, 3072, 512, 512)
    with rasterio.open(data / "fixtures/rio-tiler/cog_cmap.tif") as file:
        stored = file.read(1, window=rasterio.windows.Window(3072, 4096, 512, 512))
        table = np.array([file.colormap(1)[value][:3] for value in range(256)])
    pixels = real.read(part)
    assert pixels.valid.any()
    np.testing.assert_array_equal(pixels.values, np.where(pixels.valid, table[stored].transpose(2, 0, 1), 0))
