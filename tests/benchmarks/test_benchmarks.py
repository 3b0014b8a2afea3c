"""The benchmarks run, and what they time is the same work."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks import bench_vectors
from tests.benchmarks.bench_vectors import Sizes, polygons
from tests.benchmarks.rasters import noise_labels
from tests.benchmarks.rivals import rivals

TINY = Sizes(96, (4.0,), 200, (2_000,), 2_000, (100, 200), 1)


@pytest.mark.parametrize("section", ["speed", "processes", "simplification"])
def test_a_section_prints_its_table(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench_vectors.SECTIONS[section](TINY)
    out = capsys.readouterr().out
    assert ("vertices" if section == "simplification" else "noise, sigma 4") in out
    assert "nan" not in out


def test_memory_prints_its_table(data, capsys: pytest.CaptureFixture[str]) -> None:
    bench_vectors.memory(TINY)
    assert "200²" in capsys.readouterr().out


def test_all_rivals_do_the_same_work() -> None:
    labels = noise_labels(64, 2.0)
    ours = polygons(labels)
    for name, work in rivals().items():
        theirs = work(labels)
        assert len(theirs) == len(ours), name
        assert np.isclose(sum(each.area for each in theirs), labels.size), name


def test_arguments_choose_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    sections = {
        name: lambda sizes, name=name: done.append((name, sizes.repeats)) for name in ("speed", "memory")
    }
    monkeypatch.setattr(bench_vectors, "SECTIONS", sections)
    bench_vectors.main(["--quick", "--only", "memory", "--repeats", "2"])
    assert done == [("memory", 2)]
