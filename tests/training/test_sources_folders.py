"""Folders as of PASCAL VOC and of Semantic-Segmentation-Suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rssegment.errors import InputError
from rssegment.taxonomy import Taxonomy
from rssegment.training.sources.classes import by_name
from rssegment.training.sources.voc import NAMES, index_color
from tests.training.folders import BLUE, GREEN, RED, noise, opened, painted, palette, picture, whole

VOC = Taxonomy.load("voc2012")
COCO = Taxonomy.load("coco_panoptic")
SHAPE = (20, 30)

# VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two pictures with masks of VOC's indices, void among them; lists of one and of both."""
    indices = noise(SHAPE, 1) % 22
    indices[indices == 21] = 255
    np.save(tmp_path / "indices.npy", indices)
    for name in ("2011_1", "2011_2"):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg", noise((*SHAPE, 3)))
        palette(tmp_path / "SegmentationClass" / f"{name}.png", indices, {})
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2011_2\n")
    return tmp_path


def test_voc_by_names(voc: Path) -> None:
    scenes = opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)
    assert [scene.name for scene in scenes] == ["JPEGImages/2011_1.jpg", "JPEGImages/2011_2.jpg"]
    indices = np.load(voc / "indices.npy")
    expected = np.where(indices == 255, 0, np.where(indices == 0, 21, indices))
    assert np.array_equal(whole(scenes[0]).labels, expected)
    (scene,) = opened(voc, {"kind": "voc", "folder": ".", "subset": "val"}, tree=VOC)
    assert scene.name == "JPEGImages/2011_2.jpg"


def test_voc_through_a_mapping_of_names_and_indices(voc: Path) -> None:
    mapping: dict[Any, Any] = dict.fromkeys(NAMES) | {"potted plant": "vegetation", "Person": "built"}
    del mapping["pottedplant"], mapping["person"], mapping["boat"]
    mapping[4] = "water"
    scenes = opened(voc, {"kind": "voc", "folder": ".", "mapping": mapping})
    indices = np.load(voc / "indices.npy")
    expected = np.select([indices == 16, indices == 15, indices == 4], [102, 100, 5], 0)
    assert np.array_equal(whole(scenes[0]).labels, expected)


def test_voc_masks_of_colors(voc: Path) -> None:
    indices = np.load(voc / "indices.npy")
    colors = {
        k: (color >> 16, color >> 8 & 255, color & 255) for k in range(256) for color in [index_color(k)]
    }
    assert [colors[k] for k in (0, 1, 15, 20, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
        (224, 224, 192),
    ]
    before = whole(opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)[0]).labels
    picture(voc / "SegmentationClass" / "2011_1.png", painted(indices, colors))
    after = whole(opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)[0]).labels
    assert np.array_equal(before, after)


def test_voc_at_another_resolution_keeps_codes(voc: Path) -> None:
    scene, *_ = opened(voc, {"kind": "voc", "folder": ".", "resolution": 0.5}, tree=VOC, resolution=1.0)
    assert scene.shape == (10, 15)
    assert set(np.unique(whole(scene).labels).tolist()) <= {0, *VOC.leaf_codes.tolist()}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, r"say by 'folder' where it is"),
        ({"folder": "nowhere"}, r"there is no folder .*nowhere"),
        ({"folder": "JPEGImages"}, r"has no folder JPEGImages"),
        ({"folder": ".", "subset": "test"}, r"no subset 'test' .* there are val"),
        ({"folder": ".", "mapping": {"person": "built"}}, r"doesn't list: background, aeroplane"),
        ({"folder": ".", "images": "*.jpg"}, r"kind voc, which has no use for 'images'"),
    ],
)
def test_voc_folders_that_are_incomplete(voc: Path, source: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        opened(voc, {"kind": "voc"} | source)


def test_voc_names_that_the_taxonomy_lacks(voc: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"taxonomy 'landcover' lacks by name, or has twice: background, aeroplane.*'mapping'",
    ):
        opened(voc, {"kind": "voc", "folder": "."})
    mapping = dict.fromkeys(NAMES) | {"person": "built", "vicuna": "built"}
    with pytest.raises(InputError, match=r"lists vicuna, which source 'source0' lacks; it has background"):
        opened(voc, {"kind": "voc", "folder": ".", "mapping": mapping})


def test_voc_names_one_a_line(voc: Path) -> None:
    path = voc / "class_names.txt"
    before = whole(opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)[0]).labels
    path.write_text("\n".join(NAMES) + "\n\n \n")
    after = whole(opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)[0]).labels
    assert np.array_equal(before, after)
    path.write_text("background\n\naeroplane\n")
    with pytest.raises(InputError, match=r"class_names.txt has no name in line 2; expected one name a line"):
        opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)
    path.write_text("background\ncar\nbus\nCar\n")
    with pytest.raises(InputError, match=r"class_names.txt lists 'Car' twice, in lines 2 and 4"):
        opened(voc, {"kind": "voc", "folder": "."}, tree=VOC)


@pytest.mark.parametrize("name", ["class_names.txt", "ImageSets/Segmentation/val.txt"])
def test_voc_lists_that_are_no_utf8(voc: Path, name: str) -> None:
    (voc / name).write_bytes("forêt\n".encode("latin-1"))
    with pytest.raises(InputError, match=rf"can't read .*{name} as text: .*; expected UTF-8"):
        opened(voc, {"kind": "voc", "folder": ".", "subset": "val"}, tree=VOC)


def test_voc_masks_that_are_missing(voc: Path) -> None:
    (voc / "SegmentationClass" / "2011_2.png").unlink()
    with pytest.raises(InputError, match=r"1 of 1 images of source 'source0' have no masks in .*: 2011_2"):
        opened(voc, {"kind": "voc", "folder": ".", "subset": "val"}, tree=VOC)


def test_the_voc_sample(data: Path) -> None:
    scenes = opened(data, {"kind": "voc", "folder": "voc_sample"}, tree=VOC)
    assert len(scenes) == 3
    for scene in scenes:
        mask = np.asarray(
            Image.open(data / scene.name.replace("JPEGImages", "SegmentationClass").replace("jpg", "png"))
        )
        assert np.array_equal(whole(scene).labels, np.where(mask == 255, 0, np.where(mask == 0, 21, mask)))


def test_of_nodes_that_share_a_name_the_highest_is_meant_unless_they_mean_the_same() -> None:
    flair = Taxonomy.load("flair")
    names = {1: "Water", 2: "swimming pool", 3: "Bare"}
    with pytest.raises(InputError, match="swimming pool;"):
        by_name(names, None, flair, "it")
    del names[2]
    assert by_name(names, None, flair, "it").classes == ((1, flair.node("water").code), (3, 4))
    assert by_name({1: "person"}, None, COCO, "it").classes == ((1, COCO.node("person/person").code),)
    branches = (
        f'{{code: {k}, name: {name}, color: "#00000{k}", classes: [{{code: 1{k}, name: other, color: "#00001{k}"}}]}}'
        for k, name in ((1, "wood"), (2, "grass"))
    )
    twice = Taxonomy.loads(f"name: twice\nclasses: [{', '.join(branches)}]")
    with pytest.raises(InputError, match="or has twice: other;"):
        by_name({1: "other"}, None, twice, "it")


# Suites


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    codes = noise(SHAPE, 1) % 3 + 1
    np.save(tmp_path / "codes.npy", codes)
    for subset, name in (("train", "a.png"), ("val", "b.png")):
        picture(tmp_path / subset / name, noise((*SHAPE, 3)))
    mask = painted(codes, {1: RED, 2: GREEN, 3: BLUE})
    picture(tmp_path / "train_labels" / "a_L.png", mask)
    picture(tmp_path / "val_labels" / "b.png", mask)
    (tmp_path / "class_dict.csv").write_text(
        "name, r, g, b\nBuilding, 255, 0, 0\nWater, 0, 255, 0\nVoid, 0, 0, 255\n"
    )
    return tmp_path


SUITE = {"kind": "suite", "folder": ".", "mapping": {"building": "building", "water": "water", "void": None}}


def test_suites(suite: Path) -> None:
    expected = np.array([0, 1, 5, 0])[np.load(suite / "codes.npy")]
    for subset, name in ((None, "train/a.png"), ("val", "val/b.png")):
        (scene,) = opened(suite, SUITE | {"subset": subset})
        assert scene.name == name
        assert np.array_equal(whole(scene).labels, expected)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("name,r,g,b\nBuilding,255,0\n", r"class_dict.csv:2: expected columns name, r, g, b"),
        ("name,r,g,b\nBuilding,256,0,0\n", r"class_dict.csv:2: expected a name and colours from 0 to 255"),
        (
            "name,r,g,b\nBuilding,255,0,0\nRoof,255,0,0\n",
            r"class_dict.csv:3: Roof has the colour of Building",
        ),
        ("class,red\n", "lists no classes"),
        ("name,r,g,b\nBuilding,255,0,0\nShed,1,1,1\n", r"doesn't list: Shed"),
    ],
)
def test_tables_of_classes_that_are_wrong(suite: Path, table: str, words: str) -> None:
    (suite / "class_dict.csv").write_text(table)
    with pytest.raises(InputError, match=words):
        opened(suite, SUITE)


def test_suites_that_are_incomplete(suite: Path) -> None:
    with pytest.raises(InputError, match=r"has no folder test; it has train, train_labels, val, val_labels"):
        opened(suite, SUITE | {"subset": "test"})
    (suite / "val_labels" / "b.png").unlink()
    with pytest.raises(InputError, match=r"have no masks in .*val_labels: b.png"):
        opened(suite, SUITE | {"subset": "val"})
    (suite / "class_dict.csv").unlink()
    with pytest.raises(InputError, match=r"can't read .*class_dict.csv.*expected columns name, r, g, b"):
        opened(suite, SUITE)
