"""The scene as a value: copies, threads, fingerprint, description, files over a network."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from rasterio.windows import Window

from rssegment.config import SceneOptions
from rssegment.errors import ReadError, SceneError
from rssegment.grid import Box
from rssegment.scene import Scene, handles

from .conftest import UTM, MakeRaster


def test_a_scene_is_a_value(raster: MakeRaster, bytes_3: np.ndarray) -> None:
    path = raster(bytes_3)
    scene = Scene.open(path).on_grid(25)
    scene.read(Box(0, 0, 3, 3))
    copy = pickle.loads(pickle.dumps(scene))
    assert copy == scene == Scene.open(path).on_grid(25)
    assert hash(copy) == hash(scene)
    assert len(pickle.dumps(scene)) < 10_000
    assert copy.read(Box(0, 0, 3, 3)).values.tobytes() == scene.read(Box(0, 0, 3, 3)).values.tobytes()
    with pytest.raises(AttributeError):
        scene.name = "other"  # type: ignore[misc]


def test_plain_reads_are_gdals(data: Path) -> None:
    path = data / "flair_d034/Z4_UU_val.tif"
    scene = Scene.open(path)
    assert [band.name for band in scene.bands] == ["red", "green", "blue", "nir"]
    with rasterio.open(path) as file:
        expected = file.read(window=Window(700, 300, 400, 200))
    pixels = scene.read(Box(300, 700, 200, 400))
    np.testing.assert_array_equal(pixels.values, expected)
    assert pixels.valid.all()


def test_threads_read_alike(data: Path) -> None:
    scene = Scene.open(data / "fixtures/rio-tiler/mosaic_cog1.tif").on_grid(700)
    boxes = [Box(row, col, 60, 60) for row in range(0, 270, 30) for col in range(0, 270, 30)]
    expected = [scene.read(box).values.tobytes() for box in boxes]
    with ThreadPoolExecutor(4) as pool:
        assert [p.values.tobytes() for p in pool.map(scene.read, boxes)] == expected


def test_few_files_stay_open(raster: MakeRaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "OPEN_PER_THREAD", 3)
    scene = Scene.open([raster(np.full((5, 5), i, np.uint8)) for i in range(8)])
    for _ in range(2):
        assert scene.read(Box(0, 0, 5, 5)).values[:, 0, 0].tolist() == list(range(8))
    assert len(handles._handles.open) <= 3


def test_a_replaced_file_is_read_anew(raster: MakeRaster) -> None:
    path = raster(np.full((5, 5), 1, np.uint8), "same.tif")
    assert Scene.open(path).read(Box(0, 0, 5, 5)).values.max() == 1
    os.remove(path)
    raster(np.full((5, 5), 2, np.uint8), "same.tif")
    os.utime(path, (1, 1))
    assert Scene.open(path).read(Box(0, 0, 5, 5)).values.max() == 2


def test_the_users_environment_outranks_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "9")
    with handles.gdal("https://example.com/x.tif"):
        options = rasterio.env.getenv()
        assert "GDAL_HTTP_MAX_RETRY" not in options
        assert options["GDAL_DISABLE_READDIR_ON_OPEN"] == "TRUE"
    with handles.gdal("/data/x.tif"):
        assert "GDAL_DISABLE_READDIR_ON_OPEN" not in rasterio.env.getenv()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of ``tmp_path``."""
    script = str(Path(__file__).with_name("range_server.py"))
    with subprocess.Popen(
        [sys.executable, script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


def test_a_url_reads_like_the_file_with_its_sidecar(
    raster: MakeRaster, bytes_3: np.ndarray, server: str
) -> None:
    mask = np.ones((40, 50), bool)
    mask[3:9, 4:30] = False
    path = raster(bytes_3, "remote.tif", mask=mask, internal_mask=False)
    local, remote = Scene.open(path), Scene.open(f"{server}/remote.tif")
    assert remote.name == "remote"
    box = Box.of(local.shape)
    assert remote.read(box).values.tobytes() == local.read(box).values.tobytes()
    np.testing.assert_array_equal(remote.read(box).valid, mask)
    assert remote.fingerprint() == Scene.open(f"{server}/remote.tif").fingerprint()
    with pytest.raises(SceneError, match="can't open"):
        Scene.open(f"{server}/other.tif")


def test_the_fingerprint_is_of_content_and_not_of_places(raster: MakeRaster, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 300, 300)).astype(np.uint8)
    path = raster(values)
    scene = Scene.open(path)
    first = scene.fingerprint()
    moved = str(tmp_path / "moved.tif")
    shutil.copyfile(path, moved)
    os.utime(moved, (5, 5))
    assert Scene.open(moved).fingerprint() == first
    values[:, 150:, :] = 0
    others = {
        "content": Scene.open(raster(values)),
        "nodata": Scene.open(path, SceneOptions(nodata=0)),
        "crs": Scene.open(path, SceneOptions(crs="EPSG:32632")),
        "order": scene.select([3, 2, 1]),
        "fewer": scene.select([1]),
        "grid": scene.on_grid(20),
        "place": Scene.open(raster(values, transform=UTM * Affine.translation(1, 0))),
    }
    found = {name: other.fingerprint() for name, other in others.items()}
    assert len({first, *found.values()}) == len(found) + 1


def test_the_fingerprint_sees_through_a_vrt(raster: MakeRaster, tmp_path: Path) -> None:
    from rasterio.shutil import copy

    path = raster(np.ones((50, 50), np.uint8), "part.tif")
    vrt = str(tmp_path / "all.vrt")
    copy(path, vrt, driver="VRT")
    first = Scene.open(vrt).fingerprint()
    os.remove(path)
    raster(np.full((50, 50), 2, np.uint8), "part.tif")
    handles.discard(vrt, None, os.stat(vrt).st_mtime_ns)
    assert Scene.open(vrt).fingerprint() != first


REAL = (
    "rasterio/RGB.byte",
    "rasterio/goes",
    "rasterio/world.rgb",
    "rio-tiler/cog_cmap",
    "rio-tiler/cog_int16",
    "ftw/inference-img",
    "sen12ms/ROIs1970_fall_s2_4_p30",
    "naip_north_dakota/m_4709963_se_14_1_20200831",
)


@pytest.mark.parametrize("name", REAL)
def test_real_files_describe_themselves(data: Path, name: str) -> None:
    scene = Scene.open(data / f"fixtures/{name}.tif")
    facts = json.loads(json.dumps(scene.describe(), allow_nan=False))
    assert facts["shape"] == list(scene.shape)
    assert len(facts["bands"]) == scene.count
    west, south, east, north = facts["bounds_lonlat"]
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90


def test_bounds_agree_with_rasterio(data: Path) -> None:
    path = data / "fixtures/rasterio/RGB.byte.tif"
    with rasterio.open(path) as file:
        expected = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds, densify_pts=50)
    assert Scene.open(path).describe()["bounds_lonlat"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32760", Affine(10_000, 0, 700_000, 0, -10_000, 8e6)),
        ("EPSG:4326", Affine(0.1, 0, 178, 0, -0.1, -10)),
    ],
)
def test_bounds_across_the_antimeridian_run_from_west_to_east(
    raster: MakeRaster, crs: str, transform: Affine
) -> None:
    scene = Scene.open(raster(np.ones((40, 50), np.uint8), crs=crs, transform=transform))
    west, _, east, _ = scene.describe()["bounds_lonlat"]
    assert 170 < west <= 180
    assert -180 <= east < -170


def test_a_nan_nodata_value_is_text_in_json(raster: MakeRaster) -> None:
    facts = Scene.open(raster(np.ones((4, 4), np.float32), nodata=float("nan"))).describe()
    assert facts["bands"][0]["nodata"] == "nan"
    json.dumps(facts, allow_nan=False)


def test_what_would_go_wrong_is_told(raster: MakeRaster) -> None:
    path = raster(np.ones((4, 4), np.int32), crs="EPSG:4326", transform=Affine(1e-3, 0, 10, 0, -1e-3, 60))
    told = " ".join(Scene.open(path).describe()["warnings"])
    assert "aren't square" in told
    assert "int32" in told


def two_pixel_sizes(raster: MakeRaster, tmp_path: Path) -> str:
    """A VRT that shows a file at another pixel size, interpolated as it is read."""
    values = np.random.default_rng(0).integers(0, 255, (700, 700)).astype(np.uint8)
    source = raster(values, "fine.tif")
    vrt = tmp_path / "resized.vrt"
    with rasterio.open(source) as file:
        wkt = file.crs.to_wkt().replace('"', "&quot;")
    vrt.write_text(
        f"""<VRTDataset rasterXSize="1234" rasterYSize="1234"><SRS>{wkt}</SRS>
        <GeoTransform>500000, 5.67, 0, 5000000, 0, -5.67</GeoTransform>
        <VRTRasterBand dataType="Byte" band="1"><ComplexSource resampling="bilinear">
        <SourceFilename relativeToVRT="1">fine.tif</SourceFilename><SourceBand>1</SourceBand>
        <SrcRect xOff="0" yOff="0" xSize="700" ySize="700"/><DstRect xOff="0" yOff="0" xSize="1234" ySize="1234"/>
        </ComplexSource></VRTRasterBand></VRTDataset>"""
    )
    return str(vrt)


def test_a_vrt_that_resamples_gives_parts_of_the_whole(raster: MakeRaster, tmp_path: Path) -> None:
    scene = Scene.open(two_pixel_sizes(raster, tmp_path))
    assert scene.sources[0].tile is not None
    whole = scene.read(Box.of(scene.shape)).values
    for box in (Box(3, 5, 100, 77), Box(500, 490, 301, 44), Box(1100, 1100, 134, 134), Box(511, 0, 2, 1234)):
        assert scene.read(box).values.tobytes() == whole[(slice(None), *box.slices)].tobytes()


def test_a_mosaic_with_a_nodata_border(data: Path) -> None:
    scene = Scene.open(data / "banepa_oam/banepa_z19_512.vrt", SceneOptions(nodata=255))
    assert scene.sources[0].tile is None
    pixels = scene.read(Box(0, 0, 512, 512))
    white = (pixels.values == 255).all(axis=0)
    assert not (white & pixels.valid).any()
    half = scene.on_grid(0.5)
    assert half.ground_resolution == pytest.approx((0.5, 0.5), rel=0.01)


def test_a_failed_read_can_be_tried_again(
    raster: MakeRaster, bytes_3: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene.open(raster(bytes_3))
    path = Path(scene.sources[0].path)
    hidden = path.rename(path.with_suffix(".hidden"))
    with pytest.raises(ReadError):
        scene.read(Box(0, 0, 9, 9))
    hidden.rename(path)
    np.testing.assert_array_equal(scene.read(Box(0, 0, 40, 50)).values, bytes_3)


def test_the_interpreter_ends_in_silence_after_a_read(data: Path) -> None:
    """An open dataset must not outlive what it needs at the interpreter's end."""
    code = (
        "import sys; from rssegment.scene import Scene; from rssegment.grid import Box;"
        "scene = Scene.open(sys.argv[1]); scene.read(Box(0, 0, 9, 9))"
    )
    path = data / "flair_d034" / "Z4_UU_val.tif"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
