"""Rasters of codes and of colours as scenes with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rssegment.errors import InputError
from rssegment.grid import Box
from rssegment.taxonomy import ClassMapping, Taxonomy
from tests.scene.conftest import UTM
from tests.training.folders import (
    BLUE,
    COLORS,
    FILES,
    GREEN,
    PICTURES,
    RED,
    TREE,
    noise,
    opened,
    painted,
    palette,
    picture,
    raster,
    whole,
)


def test_the_land_cover_tree_has_flairs_codes_at_its_leaves() -> None:
    assert sorted(TREE.leaf_codes.tolist()) == list(range(1, 12))
    assert min(set(TREE.arrays.codes.tolist()) - set(TREE.leaf_codes.tolist())) >= 100
    flair = Taxonomy.load("flair")
    assert all(TREE.node(code).name == flair.node(code).name for code in range(1, 12))
    assert [node.name for node in TREE.level(1)] == ["built", "vegetation", "water", "bare"]
    assert len({node.color for node in TREE.nodes}) == len(TREE.nodes)
    assert Taxonomy.loads(TREE.dump()) == TREE
    assert "/".join(TREE.node("coniferous").path) == "vegetation/woody/tree/coniferous"
    assert "/".join(TREE.node("vineyard").path) == "vegetation/low/crop/vineyard"


def test_flair_and_dubai_lead_to_the_land_cover_tree() -> None:
    flair = ClassMapping.load("flair_to_landcover").apply(np.arange(20, dtype=np.uint8))
    assert flair.tolist() == [0, *range(1, 12), 11, 5, 0, 0, 0, 0, 1, 0]
    dubai = dict(ClassMapping.load("dubai_to_landcover").classes)
    names = ("building", "land", "road", "vegetation", "water", "unlabelled")
    assert [dubai[name] for name in names] == [1, 4, 101, 102, 5, 0]
    colors = ("#3C1098", "#8429F6", "#6EC1E4", "#FEDD3A", "#E2A929", "#9B9B9B")
    assert [dubai[color] for color in colors] == [dubai[name] for name in names]


def test_a_scene_is_the_image_and_its_codes(pair: Path) -> None:
    (scene,) = opened(pair, FILES | {"name": "first", "credit": "nobody", "role": "train"})
    assert (scene.name, scene.source, scene.region) == ("a_image.tif", "first", "first")
    assert (scene.shape, scene.dtype, scene.resolution, scene.role) == ((40, 60), "uint8", 10.0, "train")
    assert (scene.present, scene.credit) == ((True, True, True), "nobody")
    found = scene.read(Box(5, 7, 20, 30))
    assert np.array_equal(found.values, noise((3, 40, 60))[:, 5:25, 7:37])
    assert np.array_equal(found.labels, (noise((40, 60), 1) % 11 + 1)[5:25, 7:37])
    assert (found.values.dtype, found.labels.dtype, found.valid.all()) == (np.uint8, np.uint16, True)


def test_codes_are_mapped_and_left_out(pair: Path) -> None:
    mapping = {code: "built" if code < 6 else None for code in range(1, 12)}
    (scene,) = opened(pair, FILES | {"mapping": mapping})
    expected = np.where(noise((40, 60), 1) % 11 + 1 < 6, 100, 0)
    assert np.array_equal(whole(scene).labels, expected)


def test_rasters_that_name_their_values(pair: Path) -> None:
    inner = pair / "a_image_labels.tif"
    raster(inner, noise((40, 60), 1) % 3)
    transform = ", ".join(map(str, UTM.to_gdal()))

    def labels(*names: str) -> Any:
        told = "".join(f"<Category>{name}</Category>" for name in names)
        (pair / "named.vrt").write_text(
            f'<VRTDataset rasterXSize="60" rasterYSize="40"><SRS>EPSG:32633</SRS><GeoTransform>{transform}'
            f'</GeoTransform><VRTRasterBand dataType="Byte" band="1"><CategoryNames>{told}</CategoryNames>'
            f"<SimpleSource><SourceFilename>{inner}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
            "</VRTRasterBand></VRTDataset>"
        )
        mapping = {"houses": "building", "rest": None} if "houses" in names else None
        return whole(opened(pair, FILES | {"labels": "named.vrt", "mapping": mapping})[0]).labels

    values = noise((40, 60), 1) % 3
    assert np.array_equal(labels("no data", "water", "Building"), np.array([0, 5, 1])[values])
    assert np.array_equal(labels("Bare", "water", "Building"), np.array([4, 5, 1])[values])
    assert np.array_equal(labels("no data", "who", "knows"), values)  # codes of the taxonomy, then
    assert np.array_equal(labels("", "houses", "rest"), np.array([0, 1, 0])[values])


def test_finer_images_give_means_and_finer_labels_their_majority(tmp_path: Path) -> None:
    fine = Affine(5, 0, 500_000, 0, -5, 5_000_000)
    values, codes = noise((3, 40, 60)), noise((40, 60), 1) % 3 + 1
    raster(tmp_path / "a_image.tif", values, transform=fine)
    raster(tmp_path / "a_image_labels.tif", codes, transform=fine)
    (scene,) = opened(tmp_path, FILES, resolution=10.0)
    found = whole(scene)
    assert scene.shape == (21, 31)  # two pixels of 5 m are a little more than 10 m, in UTM
    assert found.values.dtype == np.uint8
    cells = codes.reshape(20, 2, 30, 2).transpose(0, 2, 1, 3).reshape(20, 30, 4)
    votes = (cells[..., None] == np.arange(4)).sum(axis=2)
    sure = votes.max(axis=2) > 2
    assert (found.labels[:20, :30] == votes.argmax(axis=2))[sure].all()
    means = values.reshape(3, 20, 2, 30, 2).mean(axis=(2, 4))
    assert np.abs(found.values[:, :20, :30] - means).max() <= 8


@given(st.integers(0, 39), st.integers(0, 29), st.integers(1, 20), st.integers(1, 20))
def test_a_window_is_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, row: int, col: int, height: int, width: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "windows"
    if not folder.exists():
        third = Affine(10 / 3, 0, 500_000, 0, -10 / 3, 5_000_000)
        raster(folder / "a_image.tif", noise((3, 120, 90)), transform=third)
        raster(folder / "a_image_labels.tif", noise((120, 90), 1) % 5 + 1, transform=third)
    (scene,) = opened(folder, FILES)
    box = Box(row, col, height, width).clip(Box.of(scene.shape))
    found, all_ = scene.read(box), whole(scene)
    assert np.array_equal(found.values, all_.values[(slice(None), *box.slices)])
    assert np.array_equal(found.labels, all_.labels[box.slices])


def test_coarser_labels_are_those_of_the_pixel_that_a_centre_lies_in(pair: Path) -> None:
    coarse = noise((20, 30), 2) % 11 + 1
    raster(pair / "a_image_labels.tif", coarse, transform=Affine(20, 0, 500_000, 0, -20, 5_000_000))
    (scene,) = opened(pair, FILES)
    assert np.array_equal(whole(scene).labels, coarse.repeat(2, axis=0).repeat(2, axis=1))


def test_labels_of_another_extent_are_where_they_are(pair: Path) -> None:
    codes = noise((30, 30), 2) % 11 + 1
    raster(pair / "a_image_labels.tif", codes, transform=UTM @ Affine.translation(-5, 20))
    (scene,) = opened(pair, FILES)
    labels = whole(scene).labels
    assert np.array_equal(labels[20:, :25], codes[:20, 5:])
    assert not labels[:20].any()
    assert not labels[:, 25:].any()


def test_finer_labels_of_another_extent_vote(pair: Path) -> None:
    codes = noise((12, 12), 2) % 3 + 1
    raster(pair / "a_image_labels.tif", codes, transform=Affine(5, 0, 500_105, 0, -5, 4_999_950))
    (scene,) = opened(pair, FILES)
    labels = whole(scene).labels
    assert (labels[5:11, 10:17] > 0).all()
    assert labels.any(axis=1).nonzero()[0].tolist() == list(range(5, 11))
    cells = codes[:, 1:11].reshape(6, 2, 5, 2).transpose(0, 2, 1, 3).reshape(6, 5, 4)
    assert np.array_equal(labels[5:11, 11:16], (cells[..., None] == np.arange(4)).sum(axis=2).argmax(axis=2))


def test_labels_in_another_crs_lie_on_the_same_ground(tmp_path: Path) -> None:
    from pyproj import Transformer

    raster(tmp_path / "a_image.tif", noise((3, 100, 100)))
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(500_500, 4_999_500)
    step = 1e-5  # about a metre
    codes = np.ones((400, 400), np.uint8)
    codes[:, 200:] = 5
    at = Affine(step, 0, lon - 200 * step, 0, -step, lat + 200 * step)
    raster(tmp_path / "a_image_labels.tif", codes, crs="EPSG:4326", transform=at)
    (scene,) = opened(tmp_path, FILES)
    labels = whole(scene).labels
    assert (labels[35:65, 36:50] == 1).all()
    assert (labels[35:65, 50:64] == 5).all()
    assert not labels[:, :33].any()
    assert not labels[:25].any()


def test_labels_without_georeference_are_taken_pixel_by_pixel(pair: Path) -> None:
    codes = noise((40, 60), 1) % 11 + 1
    picture(pair / "a_image.png", codes)
    (scene,) = opened(pair, FILES | {"labels": "{stem}.png"})
    assert np.array_equal(whole(scene).labels, codes)


def test_pixels_without_data_have_no_label(tmp_path: Path) -> None:
    values = noise((3, 10, 10))
    values[:, :4] = 255
    raster(tmp_path / "a_image.tif", values, nodata=255)
    raster(tmp_path / "a_image_labels.tif", np.ones((10, 10), np.uint8))
    found = whole(opened(tmp_path, FILES)[0])
    assert not found.valid[:4].any()
    assert not found.labels[:4].any()
    assert not found.values[:, :4].any()
    assert (found.labels[4:] == 1).all()


def test_nan_is_no_data_and_never_a_value(tmp_path: Path) -> None:
    values = noise((3, 10, 10)).astype(np.float32) / 7
    values[1, 2, 3] = np.nan
    raster(tmp_path / "a_image.tif", values)
    raster(tmp_path / "a_image_labels.tif", np.ones((10, 10), np.uint8))
    (scene,) = opened(tmp_path, FILES)
    found = whole(scene)
    assert scene.dtype == "float32"
    assert np.isfinite(found.values).all()
    assert np.argwhere(~found.valid).tolist() == [[2, 3]]
    assert found.labels[2, 3] == 0


def test_colors_stand_for_classes(pictures: Path) -> None:
    scenes = opened(pictures, PICTURES | {"region": "{parent}"})
    assert [(scene.name, scene.region, scene.shape) for scene in scenes] == [
        ("a/images/part.png", "a", (30, 20)),
        ("b/images/part.png", "b", (17, 23)),
    ]
    for scene in scenes:
        codes = np.load(pictures / scene.region / "codes.npy")
        assert np.array_equal(whole(scene).labels, np.array([0, 1, 102, 0])[codes])
        values = np.asarray(Image.open(pictures / scene.name)).transpose(2, 0, 1)
        assert np.array_equal(whole(scene).values, values)


@pytest.mark.parametrize("form", ["palette", "grey", "alpha"])
def test_masks_of_colors_in_other_forms(tmp_path: Path, form: str) -> None:
    codes = noise((12, 14), 1) % 2 + 1
    picture(tmp_path / "part.png", noise((12, 14, 3)))
    mapping, mask = {"#FF0000": "building", "#0000FF": "water"}, tmp_path / "masks" / "part.png"
    expected = np.where(codes == 1, 1, 5)
    if form == "palette":
        palette(mask, codes, {1: RED, 2: BLUE})
    elif form == "grey":
        picture(mask, np.where(codes == 1, 255, 0))
        mapping = {"#FFFFFF": "building", "#000000": "water"}
    else:
        opaque = np.full((12, 14, 1), 255, np.uint8)
        opaque[:3] = 0
        picture(mask, np.concatenate([painted(codes, {1: RED, 2: BLUE}), opaque], axis=2))
        expected[:3] = 0
    (scene,) = opened(tmp_path, {"images": "*.png", "labels": "masks/{stem}.png", "mapping": mapping})
    assert np.array_equal(whole(scene).labels, expected)


def test_the_size_of_a_pixel_is_what_it_is_said_to_be(pictures: Path) -> None:
    coarse, *_ = opened(pictures, PICTURES | {"resolution": 0.5}, resolution=1.0)
    assert (coarse.shape, coarse.resolution) == ((15, 10), 1.0)
    values = np.asarray(Image.open(pictures / coarse.name)).astype(float)
    means = values.reshape(15, 2, 10, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(whole(coarse).values - means).max() <= 0.5
    cells = (
        np.load(pictures / "a" / "codes.npy").reshape(15, 2, 10, 2).transpose(0, 2, 1, 3).reshape(15, 10, 4)
    )
    winners = np.array([0, 1, 102, 0])[cells]
    for row in range(15):
        for col in range(10):
            found, times = np.unique(winners[row, col], return_counts=True)
            assert whole(coarse).labels[row, col] == found[times.argmax()]
    own, *_ = opened(pictures, PICTURES | {"resolution": 0.5, "resample": False}, resolution=1.0)
    assert (own.shape, own.resolution) == ((30, 20), 0.5)
    fine, *_ = opened(pictures, PICTURES | {"resolution": 2.0}, resolution=1.0)
    assert fine.shape == (60, 40)


def test_unlisted_colors_are_counted(pictures: Path) -> None:
    mask = pictures / "b" / "masks" / "part.png"
    values = np.asarray(Image.open(mask)).copy()
    values[3, 4:7] = (1, 2, 3)
    picture(mask, values)
    with pytest.raises(
        InputError, match=r"part.png have 3 of 391 px in 1 colours .*#010203 \(3 px\)"
    ) as caught:
        [whole(scene) for scene in opened(pictures, PICTURES)]
    assert "JPEG" not in str(caught.value)


def test_masks_in_jpeg_are_refused_with_the_number_of_blurred_pixels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", noise((64, 64, 3)))
    mask = (
        painted(noise((16, 16), 1) % 3 + 1, {1: RED, 2: GREEN, 3: BLUE}).repeat(4, axis=0).repeat(4, axis=1)
    )
    picture(tmp_path / "masks" / "a.jpg", mask, quality=70)
    source = {"images": "*.png", "labels": "masks/{stem}.jpg", "mapping": COLORS}
    with pytest.raises(InputError, match=r"a.jpg have \d+ of 4096 px in \d+ colours .*lossy compression"):
        opened(tmp_path, source)
