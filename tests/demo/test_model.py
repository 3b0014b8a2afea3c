"""The model that comes with the package: small, sound, and good on landscapes that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import rssegment
from rssegment.demo.landscape import BANDS, make_landscape
from rssegment.model import Bundle, load_model

FOLDER = Path(rssegment.__file__).parent / "bundles" / "demo"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_bundle_is_below_three_megabytes() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [
        "model.json",
        "taxonomy.yaml",
        "weights.safetensors",
    ]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


def test_bundle_fits_the_landscape() -> None:
    spec = Bundle.open("demo").spec
    assert spec.band_names == BANDS
    assert spec.ground_resolution == 0.5
    assert spec.dtype == "uint8"


@pytest.mark.parametrize("seed", [0, 11])
def test_unseen_landscapes_are_told_apart(seed: int) -> None:
    """One forward pass without overlap: above nine pixels in ten, and every frequent class found."""
    landscape = make_landscape((768, 768), seed)
    model = load_model("demo")
    values = np.where(landscape.valid, landscape.bands, model.fill[:, None, None]).astype(np.float32)
    probabilities = model(torch.from_numpy(values)[None])[0]  # (L, H, W)
    predicted = np.array(model.leaves)[probabilities.argmax(0).numpy()]
    right = (predicted == landscape.truth)[landscape.valid]
    assert right.mean() > ACCURACY
    for code in model.leaves:
        there = (landscape.truth == code) & landscape.valid
        if there.mean() > 0.02:
            assert (predicted[there] == code).mean() > RECALL, code


ACCURACY, RECALL = 0.90, 0.75
