"""The benchmark of formats runs."""

from __future__ import annotations

import pytest

from rssegment.write.formats import FORMATS
from tests.benchmarks.bench_formats import main


def test_it_prints_a_row_for_each_format(capsys: pytest.CaptureFixture[str]) -> None:
    rows = main(["--features", "300", "--tiled", "30"])
    printed = capsys.readouterr().out
    assert {row.name for row in rows} == {*FORMATS, "6 at once"}
    for row in rows:
        assert f"\n{row.name}" in printed
        assert row.size > 50 * row.features
