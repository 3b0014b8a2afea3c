"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


def data_root() -> Path:
    """The folder of real imagery: ``$RSSEGMENT_DATA``, or ``shared/data`` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("RSSEGMENT_DATA", beside))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real imagery; skips the test where it is absent."""
    root = data_root()
    if not root.is_dir():
        pytest.skip(f"no real imagery at {root}; set RSSEGMENT_DATA to its folder")
    return root
