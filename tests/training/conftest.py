"""Folders of training data that several tests read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rssegment.training import Trained
from tests.training.folders import BLUE, GREEN, RED, noise, painted, picture, raster
from tests.training.trainings import a_land, a_training


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with an image of 40 x 60 px of 10 m and its labels 1 to 11."""
    raster(tmp_path / "a_image.tif", noise((3, 40, 60)))
    raster(tmp_path / "a_image_labels.tif", noise((40, 60), 1) % 11 + 1)
    return tmp_path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures of different sizes, their masks of colours, and codes 1, 2, 3 in codes.npy."""
    for name, shape in (("a", (30, 20)), ("b", (17, 23))):
        picture(tmp_path / name / "images" / "part.png", noise((*shape, 3)))
        codes = noise(shape, 1) % 3 + 1
        np.save(tmp_path / name / "codes.npy", codes)
        picture(tmp_path / name / "masks" / "part.png", painted(codes, {1: RED, 2: GREEN, 3: BLUE}))
    return tmp_path


@pytest.fixture(scope="session")
def country(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ground to train and to validate on; not to be written to."""
    return a_land(tmp_path_factory.mktemp("country"))


@pytest.fixture(scope="session")
def trained(country: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training by the usual recipe that nothing disturbed; not to be written to."""
    return a_training(country, tmp_path_factory.mktemp("trained") / "out")
