"""Which pixels have data."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rssegment.config import SceneOptions
from rssegment.errors import SceneError
from rssegment.grid import Box
from rssegment.scene import Band, Scene, validity

from .conftest import MakeRaster

NAN = float("nan")


def whole(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Values and validity of the whole scene, after checking what must hold of any."""
    box = Box.of(scene.shape)
    pixels = scene.read(box)
    assert pixels.values.dtype == np.float32
    assert np.isfinite(pixels.values).all()
    assert (pixels.values[:, ~pixels.valid] == 0).all()
    np.testing.assert_array_equal(scene.read_valid(box), pixels.valid)
    assert scene.any_valid(box) == pixels.valid.any()
    return pixels.values, pixels.valid


def test_a_pixel_saturated_in_one_band_stays_and_the_collar_goes(
    raster: MakeRaster, bytes_3: np.ndarray
) -> None:
    bytes_3[:, :5] = 255
    bytes_3[0, 20, 20] = bytes_3[2, 20, 20] = 255
    for options, nodata in ((SceneOptions(), 255), (SceneOptions(nodata=255), None)):
        values, valid = whole(Scene.open(raster(bytes_3, nodata=nodata), options))
        assert not valid[:5].any()
        assert valid[5:].all()
        assert values[0, 20, 20] == 255


def test_one_chosen_band_is_judged_alone(raster: MakeRaster, bytes_3: np.ndarray) -> None:
    bytes_3[0, 3, 4] = 0
    scene = Scene.open(raster(bytes_3, nodata=0))
    assert whole(scene)[1].all()
    _, valid = whole(scene.select([1]))
    assert np.argwhere(~valid).tolist() == [[3, 4]]


def test_a_value_that_is_no_measurement_counts_in_any_band(raster: MakeRaster) -> None:
    values = np.full((2, 4, 4), 7, np.int16)
    values[0, 1, 1] = -9999
    values[:, 2, 2] = -9999
    _, valid = whole(Scene.open(raster(values, nodata=-9999)))
    assert np.argwhere(~valid).tolist() == [[1, 1], [2, 2]]


@pytest.mark.parametrize("nodata", [None, NAN, -9999.0, 0.0])
def test_nan_and_infinity_are_never_data(raster: MakeRaster, nodata: float | None) -> None:
    values = np.ones((2, 4, 4), np.float32)
    values[1, 0, 0], values[0, 1, 1], values[0, 2, 2] = NAN, np.inf, -np.inf
    _, valid = whole(Scene.open(raster(values, nodata=nodata)))
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("dtype", "nodata", "stored"),
    [
        ("float32", -9999.1, np.float32(-9999.1)),
        ("float32", float(np.finfo("f4").min), np.finfo("f4").min),
        ("float32", 3.40282e38, np.finfo("f4").max),
        ("float64", -1.7e308, -1.7e308),
        ("float64", -9999.1, -9999.1),
        ("int32", -2147483648, -2147483648),
        ("uint32", 4294967295, 4294967295),
        ("int32", 16777217, 16777217),
        ("int8", -128, -128),
        ("uint16", 65535, 65535),
    ],
)
def test_nodata_is_found_as_it_is_stored(
    raster: MakeRaster, dtype: str, nodata: float, stored: float
) -> None:
    values = np.full((5, 5), 16777216 if dtype in ("int32", "uint32") else 3, dtype)
    values[2, 3] = stored
    for path, options in (
        (raster(values, nodata=nodata), SceneOptions()),
        (raster(values), SceneOptions(nodata=nodata)),
    ):
        _, valid = whole(Scene.open(path, options))
        assert np.argwhere(~valid).tolist() == [[2, 3]]


def test_float64_beyond_float32_is_invalid(raster: MakeRaster) -> None:
    values = np.array([[1.0, 1e39, -1e300, NAN, 3e38]])
    _, valid = whole(Scene.open(raster(values)))
    assert valid.tolist() == [[True, False, False, False, True]]


def vrt_with_nodata(path: str, text: str) -> str:
    """A VRT over ``path`` whose nodata value is written as ``text``."""
    from rasterio.shutil import copy

    vrt = path.replace(".tif", ".vrt")
    copy(path, vrt, driver="VRT")
    xml = Path(vrt).read_text()
    cut = xml.index(">", xml.index("<VRTRasterBand")) + 1
    Path(vrt).write_text(f"{xml[:cut]}<NoDataValue>{text}</NoDataValue>{xml[cut:]}")
    return vrt


@pytest.mark.parametrize("text", ["256", "-9999", "0.5", "nan"])
def test_a_nodata_value_outside_the_type_is_ignored_aloud(raster: MakeRaster, text: str) -> None:
    scene = Scene.open(vrt_with_nodata(raster(np.array([[0, 1, 255]], np.uint8)), text))
    assert whole(scene)[1].all()
    (kept,), (warning,) = validity.with_nodata([Band("b", "f", 1, "uint8", float(text))], None, "s")
    assert kept.nodata is None
    assert "integers from 0 to 255" in warning
    with pytest.raises(SceneError, match="integers from 0 to 255"):
        Scene.open(raster(np.zeros((2, 2), np.uint8)), SceneOptions(nodata=float(text)))


def test_integer_nodata_in_float_text(raster: MakeRaster) -> None:
    scene = Scene.open(vrt_with_nodata(raster(np.array([[0, 1, 255]], np.uint8)), "2.550000000000000e+02"))
    assert whole(scene)[1].tolist() == [[True, True, False]]


@pytest.mark.parametrize("internal", [True, False])
def test_a_mask_inside_or_beside_the_file(raster: MakeRaster, bytes_3: np.ndarray, internal: bool) -> None:
    mask = np.ones((40, 50), bool)
    mask[10:20, 5:9] = False
    path = raster(bytes_3, mask=mask, internal_mask=internal)
    assert os.path.exists(path + ".msk") != internal
    scene = Scene.open(path)
    values, valid = whole(scene)
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(values, np.where(mask, bytes_3, 0))
    assert not scene.any_valid(Box(10, 5, 10, 4))
    assert scene.any_valid(Box(10, 5, 10, 5))


def test_alpha_is_a_mask_and_no_band(raster: MakeRaster, bytes_3: np.ndarray) -> None:
    alpha = np.full((1, 40, 50), 255, np.uint8)
    alpha[0, :7] = 0
    alpha[0, 7, 7] = 1
    path = raster(np.concatenate([bytes_3, alpha]), colors=["red", "green", "blue", "alpha"])
    scene = Scene.open(path)
    assert [band.name for band in scene.bands] == ["red", "green", "blue"]
    np.testing.assert_array_equal(whole(scene)[1], alpha[0] > 0)
    np.testing.assert_array_equal(whole(scene.select(["blue"]))[1], alpha[0] > 0)
    as_data = Scene.open(path, SceneOptions(bands=(1, 4)))
    assert [band.name for band in as_data.bands] == ["red", "alpha"]
    assert whole(as_data)[1].all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_of_small_values_is_opaque_enough(raster: MakeRaster, dtype: str) -> None:
    bands = np.ones((4, 2, 3), dtype)
    bands[3] = [[0, 1, 2], [100, 200, 0]]
    _, valid = whole(Scene.open(raster(bands, colors=["red", "green", "blue", "alpha"])))
    np.testing.assert_array_equal(valid, bands[3] > 0)


def test_near_infrared_is_not_taken_for_alpha(raster: MakeRaster, bytes_3: np.ndarray) -> None:
    four = np.concatenate([bytes_3, np.zeros((1, 40, 50), np.uint8)])
    undefined = Scene.open(raster(four, colors=["red", "green", "blue", "undefined"]))
    named = Scene.open(raster(four, colors=["red", "green", "blue", "alpha"], names=["r", "g", "b", "NIR"]))
    for scene in (undefined, named):
        assert scene.count == 4
        assert whole(scene)[1].all()
    assert named.bands[3].name == "nir"


def test_an_alpha_band_that_looks_like_image_data_is_remarked(
    raster: MakeRaster, bytes_3: np.ndarray
) -> None:
    four = np.concatenate([bytes_3, bytes_3[:1]])
    (warning,) = Scene.open(raster(four, colors=["red", "green", "blue", "alpha"])).warnings
    assert "--bands 1,2,3,4" in warning


def test_masks_of_all_files_count(raster: MakeRaster) -> None:
    masks = np.ones((2, 6, 6), bool)
    masks[0, 0], masks[1, :, 0] = False, False
    paths = [raster(np.ones((6, 6), np.uint8), mask=mask) for mask in masks]
    np.testing.assert_array_equal(whole(Scene.open(paths))[1], masks.all(axis=0))


def test_nodata_of_several_files_is_judged_over_all(raster: MakeRaster) -> None:
    red, nir = np.ones((3, 3), np.uint16), np.ones((3, 3), np.uint16)
    red[0, :2] = 0
    nir[0, 0] = 0
    _, valid = whole(Scene.open([raster(red, nodata=0), raster(nir, nodata=0)]))
    assert np.argwhere(~valid).tolist() == [[0, 0]]


def test_a_band_without_nodata_value_always_has_data(raster: MakeRaster) -> None:
    zeros = np.zeros((3, 3), np.uint8)
    assert whole(Scene.open([raster(zeros, nodata=0), raster(zeros)]))[1].all()


def test_all_nodata_opens(data: Path) -> None:
    scene = Scene.open(data / "fixtures/rasterio/all-nodata.tif")
    assert not scene.any_valid(Box.of(scene.shape))
    assert not scene.on_grid(10).any_valid(Box.of(scene.on_grid(10).shape))


def test_any_valid_finds_the_last_pixel(raster: MakeRaster) -> None:
    values = np.zeros((3, 700, 300), np.uint8)
    values[2, -1, -1] = 1
    scene = Scene.open(raster(values, nodata=0))
    assert scene.any_valid(Box(0, 0, 700, 300))
    assert not scene.any_valid(Box(0, 0, 700, 299))


@pytest.mark.parametrize("name", ["RGB.byte", "goes", "RGBA.uint16", "alpha", "shade"])
def test_real_files_agree_with_gdal(data: Path, name: str) -> None:
    path = data / f"fixtures/rasterio/{name}.tif"
    values, valid = whole(Scene.open(path))
    with rasterio.open(path) as file:
        expected = file.read(4) != 0 if name == "RGBA.uint16" else file.dataset_mask() != 0
        np.testing.assert_array_equal(valid, expected)
        np.testing.assert_array_equal(values, np.where(valid, file.read()[: len(values)], 0))


@given(
    stored=arrays(np.float32, (3, 2, 3), elements=st.sampled_from([0.0, 1.0, -9999.0, NAN, np.inf, 255.0])),
    nodata=st.lists(st.sampled_from([None, 0.0, -9999.0, NAN, 255.0]), min_size=3, max_size=3),
    whole_numbers=st.booleans(),
)
def test_the_rule(stored: np.ndarray, nodata: list[float | None], whole_numbers: bool) -> None:
    """Law: the vectorised rule is the docstring's, pixel by pixel, on the tested bands as on all."""
    if whole_numbers:
        stored = np.nan_to_num(stored, nan=3, posinf=4)
        nodata = [None if value is not None and np.isnan(value) else value for value in nodata]
    bands = [Band(str(i), "f", i, "int16" if whole_numbers else "float32", v) for i, v in enumerate(nodata)]

    def shared(value: float | None) -> bool:
        return value in (0.0, 255.0)

    def pixel(values: list[float]) -> bool:
        if not all(map(np.isfinite, values)):
            return False
        hits = [n is not None and v == n for v, n in zip(values, nodata, strict=True)]
        if any(hit and not shared(n) for hit, n in zip(hits, nodata, strict=True)):
            return False
        return not (all(map(shared, nodata)) and all(hits))

    expected = np.array([[pixel(stored[:, i, j].tolist()) for j in range(3)] for i in range(2)])
    told = validity.tested_bands(bands)
    for chosen in (bands, told):
        found = validity.has_data([stored[band.index] for band in chosen], chosen, bands)
        np.testing.assert_array_equal(np.ones((2, 3), bool) if found is None else found, expected)


def test_copies_of_a_masked_file_keep_the_sidecar(raster: MakeRaster, tmp_path: Path) -> None:
    mask = np.zeros((4, 4), bool)
    path = raster(np.ones((4, 4), np.uint8), mask=mask, internal_mask=False)
    assert not Scene.open(path).any_valid(Box(0, 0, 4, 4))
    shutil.copy(path, tmp_path / "bare.tif")
    assert Scene.open(tmp_path / "bare.tif").any_valid(Box(0, 0, 4, 4))
