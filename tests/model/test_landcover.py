"""The land cover model that comes with the package: whole, small, credited, calibrated, as good as its card says."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
from rasterio.windows import Window

import rssegment as rs
from rssegment.model import Bundle
from rssegment.taxonomy import Taxonomy

FOLDER = Path(rs.__file__).parent / "bundles" / "landcover"
LIMIT = 16_000_000  # bytes
TREE = Taxonomy.load("landcover")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open("landcover")


def test_the_bundle_is_whole_and_small(bundle: Bundle) -> None:
    names = sorted(path.name for path in FOLDER.iterdir())
    assert [name for name in names if not name.startswith("calibration-")] == [
        "README.md", "model.json", "taxonomy.yaml", "weights.safetensors",
    ]  # fmt: skip
    assert len(names) == 5
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LIMIT
    assert bundle.taxonomy == TREE
    assert bundle.spec.ground_resolution == 0.4
    assert [(band.name, band.optional) for band in bundle.spec.bands] == [
        ("red", False), ("green", False), ("blue", False), ("nir", True),
    ]  # fmt: skip


def test_it_is_calibrated(bundle: Bundle) -> None:
    assert bundle.calibration is not None
    assert 0.5 < bundle.calibration.temperature < 2


@pytest.mark.parametrize(
    "credit", ["IGN", "Licence Ouverte 2.0", "modified", "Humans in the Loop", "EfficientNet"]
)
def test_credits_are_given(bundle: Bundle, credit: str) -> None:
    assert credit in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert credit in bundle.spec.credit


def test_the_card_tells_scores_elsewhere_and_limits(bundle: Bundle) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "In regions it had not seen" in card
    assert "Mediterranean France" in card
    facts = bundle.spec.training
    zones = {"Z1_NN", "Z2_AA", "Z3_NF", "Z4_UU", "Z5_UA"}
    assert set(facts["scores_in_regions_left_out"]) == zones
    assert set(facts["scores"]) == {"", *zones}


@pytest.mark.data
@pytest.mark.parametrize(("bands", "accuracy"), [((1, 2, 3, 4), 0.8), ((1, 2, 3), 0.75)], ids=["RGBN", "RGB"])
def test_a_town_is_told_apart(data: Path, tmp_path: Path, bands: tuple[int, ...], accuracy: float) -> None:
    """A part of a validation scene that is half built, with and without near infrared, at the leaves."""
    part = Window(0, 0, 768, 768)
    with rasterio.open(data / "flair_d034" / "Z5_UA_val.tif") as file:
        place = file.profile | {"width": 768, "height": 768, "transform": file.window_transform(part)}
        with rasterio.open(tmp_path / "scene.tif", "w", **place) as scene:
            scene.write(file.read(window=part))
            scene.descriptions = file.descriptions
    settings = rs.Settings(scene=rs.SceneOptions(bands=bands))
    rs.segment(tmp_path / "scene.tif", "landcover", tmp_path / "out", settings=settings)
    labels = data / "flair_d034" / "Z5_UA_val_labels.tif"
    options = rs.EvaluationOptions(mapping="flair_to_landcover")
    scores = rs.evaluate(tmp_path / "out", labels, options=options)
    assert scores.leaf.pixel_accuracy > accuracy
