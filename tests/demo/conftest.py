"""Landscapes that several tests look at."""

from __future__ import annotations

import pytest

from rssegment.demo.landscape import Landscape, make_landscape


@pytest.fixture(scope="session")
def landscape() -> Landscape:
    return make_landscape((640, 768), seed=3)
