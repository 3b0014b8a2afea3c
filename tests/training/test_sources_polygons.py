"""Polygons as labels of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from rssegment.errors import InputError, TaxonomyError
from tests.scene.conftest import UTM
from tests.training.folders import (
    EAST,
    FILES,
    POLYGONS,
    WEST,
    geojson,
    noise,
    opened,
    raster,
    square,
    whole,
)


def test_polygons_are_drawn(pair: Path) -> None:
    geojson(pair / "land.geojson", [(WEST, {"use": "house"}), (EAST, {"use": "lake"})])
    mapping = {"house": "building", "lake": "water"}
    (scene,) = opened(pair, POLYGONS | {"column": "use", "mapping": mapping})
    labels = whole(scene).labels
    assert (labels[:20, :20] == 1).all()
    assert (labels[:20, 20:40] == 5).all()
    assert not labels[20:].any()
    assert not labels[:, 40:].any()
    (scene,) = opened(pair, POLYGONS | {"label": "built", "outside": "vegetation"})
    assert (whole(scene).labels[:20, :40] == 100).all()
    assert (whole(scene).labels[20:] == 102).all()


def test_labels_count_within_polygons_only(pair: Path) -> None:
    geojson(pair / "land.geojson", [(WEST, {})])
    geojson(pair / "area.geojson", [(square(500_000, 5_000_000, 300), {})])
    (scene,) = opened(pair, POLYGONS | {"label": "built", "outside": "vegetation", "within": "area.geojson"})
    labels = whole(scene).labels
    assert np.unique(labels[:30, :30]).tolist() == [100, 102]
    assert not labels[30:].any()
    (scene,) = opened(pair, FILES | {"within": "area.geojson"})
    assert np.array_equal(whole(scene).labels > 0, np.pad(np.ones((30, 30), bool), ((0, 10), (0, 30))))


def test_one_file_of_polygons_may_be_for_all_images(pair: Path) -> None:
    raster(pair / "b_image.tif", noise((3, 10, 10)), transform=UTM @ Affine.translation(25, 25))
    far = square(501_000, 5_000_000, 100)
    geojson(pair / "land.geojson", [(WEST, {}), (square(500_000, 4_999_000, 10), {}), (far, {})])
    first, second = opened(pair, POLYGONS | {"label": "built"})
    assert whole(first).labels.any()
    assert not whole(second).labels.any()
    _, second = opened(pair, POLYGONS | {"label": "built", "outside": "bare"})
    assert (whole(second).labels == 4).all()
    geojson(pair / "land.geojson", [(WEST, {})])
    with pytest.raises(InputError, match=r"b_image.tif.*beyond all of them.*can't be 'bare' \(outside\)"):
        opened(pair, POLYGONS | {"label": "built", "outside": "bare"})


def test_polygons_that_lie_elsewhere_are_refused(pair: Path) -> None:
    geojson(pair / "land.geojson", [(WEST, {})], epsg=32634)
    with pytest.raises(
        InputError, match=r"none of the 1 features of the labels .*land.geojson lies on the image .*CRS"
    ):
        opened(pair, POLYGONS | {"label": "built"})


def test_polygons_need_a_place(pictures: Path) -> None:
    geojson(pictures / "land.geojson", [(WEST, {})])
    with pytest.raises(InputError, match="isn't georeferenced, so the polygons"):
        opened(
            pictures,
            {"kind": "polygons", "images": "a/images/*.png", "labels": "land.geojson", "label": "built"},
        )


def test_polygons_tell_their_class_somewhere(pair: Path) -> None:
    geojson(pair / "land.geojson", [(WEST, {"use": "house"})])
    with pytest.raises(InputError, match=r"which class are the features of the labels .*column: use"):
        opened(pair, POLYGONS)
    with pytest.raises(InputError, match=r"doesn't list: house \(1 x\)"):
        opened(pair, POLYGONS | {"column": "use", "mapping": {"lake": "water"}})
    with pytest.raises(TaxonomyError, match="has no class 'bild'"):
        opened(pair, POLYGONS | {"label": "bild"})
