"""Packages whose names are imported when first used."""

from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("package", ["rssegment", "rssegment.model", "rssegment.run", "rssegment.training"])
def test_all_names_are_there_and_no_others(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name).__name__ == name
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'sgement'"):
        _ = module.sgement
