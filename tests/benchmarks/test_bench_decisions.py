"""The benchmark of decisions runs, on trees and probabilities as it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.benchmarks import bench_decisions
from tests.benchmarks.bench_decisions import Sizes, balanced, rough, smooth

TINY = Sizes(64, 3, (3, 10), 1)


def test_a_table_for_each_number_of_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    bench_decisions.measure(TINY)
    out = capsys.readouterr().out
    assert "3 leaves" in out
    assert "10 leaves" in out
    for name in (*bench_decisions.PROMISED, "cost, own matrix"):
        assert out.count(f"  {name} ") == 2
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("leaves", "depth"), [(1, 1), (10, 4), (100, 4)])
def test_trees(leaves: int, depth: int) -> None:
    tree = balanced(leaves)
    assert (len(tree.leaves), tree.depth) == (leaves, depth)


def test_probabilities() -> None:
    for make in (smooth, rough):
        np.testing.assert_allclose(make(7, 32).sum(axis=0), 1, rtol=1e-5)


def test_arguments_choose_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Sizes] = []
    monkeypatch.setattr(bench_decisions, "measure", done.append)
    bench_decisions.main(["--quick", "--repeats", "2"])
    assert done == [Sizes(128, repeats=2)]
