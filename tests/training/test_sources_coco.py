"""Sources of COCO's two kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rssegment.errors import InputError, MismatchError
from rssegment.taxonomy import Taxonomy
from rssegment.training.sources.rle import decoded, run_lengths
from tests.training.folders import noise, opened, picture, whole

COCO = Taxonomy.load("coco_panoptic")
SHAPE = (20, 30)

# COCO


CATEGORIES = [{"id": 1, "name": "building"}, {"id": 7, "name": "water"}, {"id": 9, "name": "rubbish"}]
MEANT = {"building": "building", "water": "water", "rubbish": None}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A folder as of COCO with one picture, its segments in ids.npy, and objects."""
    picture(tmp_path / "val" / "one.jpg", noise((*SHAPE, 3)))
    ids = (noise(SHAPE, 1) % 5).astype(int) * 70_001  # in all three bytes; 0 is none
    np.save(tmp_path / "ids.npy", ids)
    mask = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2)
    picture(tmp_path / "annotations" / "panoptic_val" / "one.png", mask)
    segments = [
        {"id": 70_001, "category_id": 1},
        {"id": 140_002, "category_id": 7, "iscrowd": 0},
        {"id": 210_003, "category_id": 9},
        {"id": 280_004, "category_id": 1, "iscrowd": 1},
    ]
    shared = {
        "images": [{"id": 5, "file_name": "one.jpg", "height": 20, "width": 30}],
        "categories": CATEGORIES,
    }
    panoptic = {"annotations": [{"image_id": 5, "file_name": "one.png", "segments_info": segments}]}
    (tmp_path / "annotations" / "panoptic_val.json").write_text(json.dumps(shared | panoptic))
    rings = [[0, 0, 20, 0, 20, 15, 0, 15], [25, 1, 27, 1, 27, 3, 25, 3]]
    crowd = {"size": [20, 30], "counts": [560, 40]}
    objects = [
        {"id": 1, "image_id": 5, "category_id": 7, "iscrowd": 0, "segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]]},
        {"id": 2, "image_id": 5, "category_id": 1, "segmentation": rings},
        {"id": 3, "image_id": 5, "category_id": 1, "iscrowd": 1, "segmentation": crowd},
    ]
    instances = {"annotations": objects}
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(shared | instances))
    return tmp_path


PANOPTIC = {"kind": "coco_panoptic", "folder": ".", "subset": "val", "mapping": MEANT}
INSTANCES = PANOPTIC | {"kind": "coco_instances"}


def test_panoptic_segments(coco: Path) -> None:
    expected = np.array([0, 1, 5, 0, 0])[np.load(coco / "ids.npy") // 70_001]
    (scene,) = opened(coco, PANOPTIC)
    assert scene.name == "val/one.jpg"
    assert np.array_equal(whole(scene).labels, expected)
    elsewhere = {"labels": "annotations/panoptic_val.json", "images": "val", "folder": None, "subset": None}
    (scene,) = opened(coco, PANOPTIC | elsewhere)
    assert np.array_equal(whole(scene).labels, expected)
    (scene,) = opened(coco, PANOPTIC | {"mapping": {1: "building", 7: "water", 9: None}})
    assert np.array_equal(whole(scene).labels, expected)


def test_objects_lie_on_what_is_larger(coco: Path) -> None:
    (scene,) = opened(coco, INSTANCES | {"outside": "bare"})
    labels = whole(scene).labels
    expected = np.full(SHAPE, 4)
    expected[:, 28:] = 0  # a crowd, 40 px from the 29th column on
    expected[:15, :20] = 1
    expected[1:3, 25:27] = 1
    expected[3:8, 2:6] = 5
    assert np.array_equal(labels, expected)
    (scene,) = opened(coco, INSTANCES)
    assert np.array_equal(whole(scene).labels, np.where(expected == 4, 0, expected))
    (scene,) = opened(coco, INSTANCES | {"resolution": 0.5}, resolution=1.0)
    assert scene.shape == (10, 15)
    assert whole(scene).labels[2, 1] == 5


def test_another_segment_is_another_fingerprint(coco: Path) -> None:
    def prints() -> tuple[str, ...]:
        return tuple(opened(coco, source)[0].fingerprint for source in (PANOPTIC, INSTANCES))

    before = prints()
    for name in ("panoptic", "instances"):
        path = coco / "annotations" / f"{name}_val.json"
        path.write_text(path.read_text().replace('"category_id": 7', '"category_id": 9'))
    assert not set(before) & set(prints())


@pytest.mark.parametrize(
    ("source", "old", "new", "words"),
    [
        (PANOPTIC, '"id": 140002', '"id": 140003', r"segments that their JSON file doesn't list: 140002 \(\d+ px\)"),
        (PANOPTIC, '"category_id": 7', '"category_id": 8', "annotations of category 8, which it doesn't list"),
        (PANOPTIC, '"image_id": 5', '"image_id": 6', "an annotation of image 6, which it doesn't list"),
        (PANOPTIC, '"one.png"', '"two.png"', r"have no masks in .*panoptic_val: two.png"),
        (PANOPTIC, '"one.jpg"', '"two.jpg"', r"have no file where 'images' says: two.jpg"),
        (PANOPTIC, '"name": "water"', '"name": "sea"', "doesn't list: sea"),
        (PANOPTIC, '"annotations"', '"notes"', "no list of 'annotations'; expected a file as COCO's"),
        (PANOPTIC, '"categories"', "categories", "as JSON"),
        (PANOPTIC, '"segments_info"', '"segments"', "has no 'segments_info' that is list"),
        (INSTANCES, '"height": 20', '"height": 21', "has 20 x 30 px .* says 21 x 30"),
        (INSTANCES, "[560, 40]", "[560, 41]", r"annotation 3 has run lengths of 601 px for 20 x 30; expected 20 x 30"),
        (INSTANCES, "[560, 40]", '"~~"', "annotation 3 has run lengths that can't be read: '~' is no digit"),
        (INSTANCES, "[2, 3, 6, 3, 6, 8, 2, 8]", "[2, 3, 6]", "annotation 1 has a polygon that is none"),
        (INSTANCES, "[[2, 3, 6, 3, 6, 8, 2, 8]]", "null", "annotation 1 has no 'segmentation'"),
        (PANOPTIC, '"height": 20', '"height": 21', "has 20 x 30 px .* says 21 x 30"),
        (PANOPTIC, '"id": 140002', '"id": 70001', "'segments_info' of one.png lists 2 segments of id 70001"),
        (PANOPTIC, '"id": 140002', '"id": 2147483648', "a segment of id 2147483648; expected 0 to 16777215"),
        (PANOPTIC, '"id": 140002', '"id": -1', "a segment of id -1; expected 0 to 16777215"),
        (PANOPTIC, '"segments_info": [', '"segments_info": [null, ', "of one.png has None in it; expected segments"),
        (PANOPTIC, '"segments_info": [', '"segments_info": [[1], ', r"of one.png has \[1\] in it; expected segments"),
        (PANOPTIC, '"iscrowd": 0', '"iscrowd": "0"', "has 'iscrowd' '0'; expected 0 or 1, as numbers"),
        (PANOPTIC, '"id": 9, "name"', '"id": 7, "name"', "lists 2 categories of id 7; expected each id once"),
        (INSTANCES, '"images": [', '"images": [{"id": 5}, ', "lists 2 images of id 5; expected each id once"),
        (INSTANCES, '"iscrowd": 0', '"iscrowd": 2', "has 'iscrowd' 2; expected 0 or 1"),
        (INSTANCES, "[560, 40]", "[560.5, 39.5]", "annotation 3 has run .* 560.5 is no whole number"),
        (INSTANCES, "[560, 40]", '["560", 40]', "annotation 3 has run .* '560' is no whole number"),
        (INSTANCES, "[560, 40]", "[640, -40]", "annotation 3 has run .* longer than the image; expected 0 to 600 px"),
        (INSTANCES, '"size": [20, 30]', '"size": [20.7, 30]', "annotation 3 has run .* 20.7 is no whole number"),
        (INSTANCES, '"size": [20, 30]', '"size": [30, 20]', "3 has run lengths for 30 x 20; expected 20 x 30"),
        (INSTANCES, "[560, 40]", f'"{"o" * 9999}"', "annotation 3 has run .* longer than the image"),
        (INSTANCES, "[560, 40]", '"o"', "annotation 3 has run .* it ends within a number"),
    ],
)  # fmt: skip
def test_coco_files_that_are_wrong(
    coco: Path, source: dict[str, Any], old: str, new: str, words: str
) -> None:
    path = coco / "annotations" / ("panoptic_val.json" if source is PANOPTIC else "instances_val.json")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises((InputError, MismatchError), match=words):
        opened(coco, source)


def test_coco_folders_that_are_incomplete(coco: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*panoptic_test.json"):
        opened(coco, PANOPTIC | {"subset": "test"})
    with pytest.raises(InputError, match=r"has no folder of images; say by 'images'"):
        opened(coco, PANOPTIC | {"subset": None})


def rewritten(coco: Path, old: str, new: str) -> None:
    for path in (coco / "annotations").glob("*.json"):
        path.write_text(path.read_text().replace(old, new))


def test_crowds_and_run_lengths_in_other_forms_of_the_same_numbers(coco: Path) -> None:
    before = [whole(opened(coco, source)[0]).labels for source in (PANOPTIC, INSTANCES)]
    for old, new in (('"iscrowd": 0', '"iscrowd": false'), ('"iscrowd": 1', '"iscrowd": true')):
        rewritten(coco, old, new)
    rewritten(coco, "[560, 40]", "[560.0, 40]")
    after = [whole(opened(coco, source)[0]).labels for source in (PANOPTIC, INSTANCES)]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def two_of_a_name(coco: Path, *names: str) -> dict[str, Any]:
    """Two images of the given names in the JSON file, and x.jpg in the folders two/a and two/b."""
    images, objects = [], []
    for key, name in enumerate(names):
        images.append({"id": key, "file_name": name, "height": 20, "width": 30})
        ring = [0, 0, 10 * key + 5, 0, 10 * key + 5, 20, 0, 20]
        objects.append({"id": key, "image_id": key, "category_id": 1, "segmentation": [ring]})
    for k, folder in enumerate("ab"):
        picture(coco / "two" / folder / "x.jpg", noise((*SHAPE, 3), k))
    values = {"images": images, "annotations": objects, "categories": CATEGORIES}
    (coco / "two.json").write_text(json.dumps(values))
    return {"kind": "coco_instances", "labels": "two.json", "images": "two/**", "mapping": MEANT}


@pytest.mark.parametrize(
    "names", [("a/x.jpg", "b/x.jpg"), ("b/x.jpg", "./a/x.jpg"), ("here\\a\\x.jpg", "there/b/x.jpg")]
)
def test_images_of_one_name_are_told_apart_by_their_folders(coco: Path, names: tuple[str, ...]) -> None:
    scenes = opened(coco, two_of_a_name(coco, *names))
    assert [scene.name[4] for scene in scenes] == [name[-7] for name in names]
    assert [int((whole(scene).labels[0] == 1).sum()) for scene in scenes] == [5, 15]


def test_images_that_may_be_two_files_or_are_one(coco: Path) -> None:
    with pytest.raises(
        InputError, match=r"lists the image x.jpg, and 2 files may be it: .*a/x.jpg, .*b/x.jpg; say"
    ):
        opened(coco, two_of_a_name(coco, "x.jpg", "b/x.jpg"))
    source = two_of_a_name(coco, "a/x.jpg", "b/x.jpg")
    (coco / "two" / "b" / "x.jpg").unlink()
    with pytest.raises(
        InputError, match=r"images 0 \(a/x.jpg\) and 1 \(b/x.jpg\), and both are .*a/x.jpg; expected"
    ):
        opened(coco, source)


def test_names_of_categories_are_classes_without_a_mapping(data: Path) -> None:
    files = {"images": "coco_sample/input_images", "labels": "coco_sample/panoptic_examples.json"}
    scenes = opened(data, files | {"kind": "coco_panoptic"}, tree=COCO)
    found = json.loads((data / "coco_sample" / "panoptic_examples.json").read_text())
    for scene, annotation in zip(scenes, found["annotations"], strict=True):
        mask = np.asarray(
            Image.open(data / "coco_sample" / "panoptic_examples" / annotation["file_name"])
        ).astype(int)
        ids = mask @ (1, 256, 65536)
        expected = np.zeros(ids.shape, int)
        for segment in annotation["segments_info"]:
            if not segment["iscrowd"]:
                expected[ids == segment["id"]] = segment["category_id"]
        assert np.array_equal(whole(scene).labels, expected)
    objects = {"kind": "coco_instances", "labels": "coco_sample/panoptic_coco_detection_format.json"}
    for one, other in zip(scenes, opened(data, files | objects, tree=COCO), strict=True):
        assert (whole(one).labels == whole(other).labels).mean() > 0.999  # the same segments, as run lengths


# Run lengths


def as_text(lengths: list[int]) -> str:
    """COCO's text of run lengths, as its description has it."""
    text = ""
    for k, length in enumerate(lengths):
        value = length - lengths[k - 2] if k > 2 else length
        more = True
        while more:
            digit, value = value & 31, value >> 5
            more = value != (-1 if digit & 16 else 0)
            text += chr(digit + (32 if more else 0) + 48)
    return text


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
def test_run_lengths_of_either_form(seed: int, rows: int, cols: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((rows, cols)) < share
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
    lengths = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    for counts in (lengths, as_text(lengths)):
        found = run_lengths({"size": [rows, cols], "counts": counts}, (rows, cols), "here")
        assert found.tolist() == lengths
        assert np.array_equal(decoded(found, (rows, cols)), mask)
