"""What is refused, and what is not: every message tells the cure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from rssegment.config import SceneOptions
from rssegment.errors import ReadError, SceneError
from rssegment.grid import Box
from rssegment.scene import Scene

from .conftest import UTM, MakeRaster

ONES = np.ones((20, 30), np.uint8)
LOCAL = 'LOCAL_CS["shop floor",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(SceneError) as caught:
        Scene.open(source, SceneOptions(**options))
    message = str(caught.value)
    assert "Traceback" not in message
    assert "See previous exception" not in message
    return message


def test_missing_and_empty(tmp_path: Path) -> None:
    assert "doesn't exist" in refusal(tmp_path / "no.tif")
    assert "empty" in refusal("")
    assert "no file was given" in refusal([])
    (tmp_path / "zero.tif").touch()
    assert "0 bytes" in refusal(tmp_path / "zero.tif")


def test_folder_and_text(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "notes.tif").write_text("no pixels here")
    assert "notes.tif" in refusal(tmp_path / "notes.tif")
    assert "can't open" in refusal("https://localhost:1/none.tif")
    assert "can't open" in refusal("/vsizip/none.zip/none.tif")


@pytest.mark.parametrize("tiled", [True, False])
def test_truncated(raster: MakeRaster, tiled: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 300, 300)).astype(np.uint8)
    path = raster(noise, tiled=tiled, blockxsize=64, blockysize=64 if tiled else 1, compress="deflate")
    size = os.path.getsize(path)
    for part in (0.999, 0.5, 0.001):
        os.truncate(path, int(size * part))
        message = refusal(path)
        assert "truncated" in message or "can't open" in message


def test_a_lost_overview_is_truncation_too(raster: MakeRaster) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 300, 300)).astype(np.uint8)
    path = raster(noise, overviews=[2])
    os.truncate(path, os.path.getsize(path) - 5000)
    assert "truncated" in refusal(path)


def test_a_sparse_file_is_not_truncated(tmp_path: Path) -> None:
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": 600,
        "width": 600,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": UTM,
    }
    with rasterio.open(tmp_path / "sparse.tif", "w", sparse_ok=True, tiled=True, **profile, nodata=0) as file:
        file.write(np.ones((1, 16, 16), np.uint8), window=rasterio.windows.Window(0, 0, 16, 16))
    assert Scene.open(tmp_path / "sparse.tif").any_valid(Box(0, 0, 600, 600))


def test_corrupt_pixels_tell_their_place(raster: MakeRaster) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 256, 256)).astype(np.uint8)
    path = raster(noise, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = b"\x55" * 3000
    Path(path).write_bytes(content)
    scene = Scene.open(path)
    for attempt in (scene.read, scene.on_grid(25).read):
        with pytest.raises(ReadError, match=r"can't read rows .* columns .* of raster_0.tif"):
            attempt(Box(0, 0, 100, 100) if attempt != scene.read else Box(0, 0, 256, 256))


def test_a_file_that_vanished_is_a_read_error(raster: MakeRaster) -> None:
    path = raster(ONES)
    scene = Scene.open(path)
    os.remove(path)
    with pytest.raises(ReadError, match="can't read rows 0 to 4"):
        scene.read(Box(0, 0, 5, 5))


def test_a_vrt_whose_file_is_missing(raster: MakeRaster, tmp_path: Path) -> None:
    from rasterio.shutil import copy

    path = raster(ONES)
    copy(path, str(tmp_path / "part.vrt"), driver="VRT")
    os.remove(path)
    with pytest.raises((SceneError, ReadError), match=r"raster_0\.tif"):
        Scene.open(tmp_path / "part.vrt").read(Box(0, 0, 5, 5))


def test_no_crs(raster: MakeRaster) -> None:
    path = raster(ONES, crs=None)
    assert "--crs" in refusal(path)
    scene = Scene.open(path, SceneOptions(crs="EPSG:32633"))
    assert str(scene.geobox.crs) == "EPSG:32633"
    assert not scene.warnings
    assert "no coordinate reference system" in refusal(path, crs="EPSG:99999")


def test_another_crs_outranks_the_files_with_a_warning(raster: MakeRaster) -> None:
    path = raster(ONES)
    scene = Scene.open(path, SceneOptions(crs="EPSG:32632"))
    assert str(scene.geobox.crs) == "EPSG:32632"
    assert "EPSG:32633" in scene.warnings[0]
    assert not Scene.open(path, SceneOptions(crs="EPSG:32633")).warnings


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.filterwarnings("ignore:The given matrix is equal to Affine.identity")
def test_not_georeferenced(raster: MakeRaster) -> None:
    path = raster(ONES, transform=Affine.identity())
    assert "gdal_translate" in refusal(path)
    assert "not georeferenced" in refusal(path, crs="EPSG:32633")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_placed_by_points_or_rpcs_only(tmp_path: Path, data: Path) -> None:
    profile = {"driver": "GTiff", "count": 1, "height": 20, "width": 30, "dtype": "uint8"}
    points = [
        GroundControlPoint(r, c, 15 + c / 99, 48 - r / 99) for r, c in ((0, 0), (0, 30), (20, 0), (20, 30))
    ]
    with rasterio.open(tmp_path / "points.tif", "w", gcps=points, crs="EPSG:4326", **profile) as file:
        file.write(ONES, 1)
    with rasterio.open(tmp_path / "rpc.tif", "w", **profile) as file:
        file.write(ONES, 1)
        ten = [0.0] * 19 + [1.0]
        file.rpcs = RPC(0, 1, 48, 1, ten, ten, 10, 10, 15, 1, ten, ten, 15, 15, None, None)
    for path in (tmp_path / "points.tif", data / "fixtures/rio-tiler/cog_gcps.tif"):
        assert "gdalwarp -t_srs" in refusal(path)
    assert "gdalwarp -rpc" in refusal(tmp_path / "rpc.tif")


@pytest.mark.parametrize("crs", [LOCAL, "EPSG:4978"])
def test_a_crs_without_place_on_earth(raster: MakeRaster, crs: str) -> None:
    assert "--crs" in refusal(raster(ONES, crs=crs))


def test_coordinates_that_do_not_fit_the_crs(raster: MakeRaster) -> None:
    assert "latitudes" in refusal(raster(ONES, crs="EPSG:4326"))
    assert "--crs" in refusal(raster(ONES, crs="EPSG:32633", transform=Affine(10, 0, 9e8, 0, -10, 9e9)))


@pytest.mark.parametrize(
    "transform", [Affine(10, 0, 5e5, 0, 0, 5e6), Affine(float("nan"), 0, 5e5, 0, -1, 5e6)]
)
def test_pixels_without_size(raster: MakeRaster, transform: Affine) -> None:
    assert "no size" in refusal(raster(ONES, transform=transform)) or transform.a != transform.a


@pytest.mark.parametrize(
    "transform", [UTM * Affine.rotation(37), UTM * Affine.shear(10, 20), Affine(10, 0, 5e5, 0, 10, 5e6), UTM]
)
def test_any_affine_placement_is_read_in_its_own_pixels(raster: MakeRaster, transform: Affine) -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30)
    scene = Scene.open(raster(values, transform=transform))
    assert scene.geobox.affine.almost_equals(transform)
    np.testing.assert_array_equal(scene.read(Box(2, 3, 5, 7)).values[0], values[2:7, 3:10])


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 1)])
def test_lines_and_single_pixels(raster: MakeRaster, shape: tuple[int, int]) -> None:
    scene = Scene.open(raster(np.full(shape, 5, np.uint8)))
    assert scene.shape == shape
    assert (scene.read(Box.of(shape)).values == 5).all()
    for metres in (3, 70):
        coarse = scene.on_grid(metres)
        np.testing.assert_allclose(coarse.read(Box.of(coarse.shape)).values, 5, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_values(raster: MakeRaster, dtype: str) -> None:
    assert "complex" in refusal(raster(ONES.astype(dtype)))


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64"]
)
def test_every_real_type(raster: MakeRaster, dtype: str) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    scene = Scene.open(raster(values))
    assert scene.dtype == dtype
    np.testing.assert_array_equal(scene.read(Box(0, 0, 2, 3)).values[0], values)
    wide = dtype in ("uint32", "int32", "int64", "uint64", "float64")
    assert any("float32" in warning for warning in scene.describe()["warnings"]) == wide


def test_a_container_lists_what_is_inside(tmp_path: Path) -> None:
    path = str(tmp_path / "two.gpkg")
    for table in ("summer", "winter"):
        with rasterio.open(
            path, "w", driver="GPKG", count=3, height=20, width=30, dtype="uint8", crs="EPSG:32633", transform=UTM,
            RASTER_TABLE=table, APPEND_SUBDATASET="YES",
        ) as file:  # fmt: skip
            file.write(np.stack([ONES] * 3))
    message = refusal(path)
    assert "summer" in message
    assert "winter" in message
    assert Scene.open(f"GPKG:{path}:winter").count >= 3


def test_files_of_one_scene_must_share_the_grid(raster: MakeRaster) -> None:
    first = raster(ONES, "first.tif")
    assert "20 x 29" in refusal([first, raster(ONES[:, 1:], "narrow.tif")])
    message = refusal([first, raster(ONES, "moved.tif", transform=UTM * Affine.translation(0.5, 0))])
    assert "moved.tif" in message
    assert "0.5 px" in message
    assert "EPSG:32632" in refusal([first, raster(ONES, crs="EPSG:32632")])
    assert "gdalwarp" in refusal([first, raster(ONES, transform=UTM * Affine.scale(1.01))])
    assert "given twice" in refusal([first, first])
    Scene.open([first, raster(ONES, transform=UTM * Affine.translation(1e-5, 0))])


def test_mixed_types(raster: MakeRaster) -> None:
    paths = [raster(ONES, "a.tif"), raster(ONES.astype("f4"), "b.tif")]
    message = refusal(paths)
    assert "uint8: a" in message
    assert "float32: b" in message
    assert Scene.open(paths, SceneOptions(bands=("b",))).dtype == "float32"


def test_a_box_must_lie_inside(raster: MakeRaster) -> None:
    scene = Scene.open(raster(ONES))
    for box in (Box(-1, 0, 5, 5), Box(16, 0, 5, 5), Box(0, 26, 5, 5), Box(0, 0, 0, 5)):
        for method in (scene.read, scene.read_valid, scene.any_valid):
            with pytest.raises(SceneError, match="20 rows and 30 columns"):
                method(box)


def test_a_home_or_relative_path_becomes_absolute(
    raster: MakeRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(raster(ONES, "here.tif"))
    monkeypatch.chdir(path.parent)
    assert Scene.open("here.tif").sources[0].path == str(path)
