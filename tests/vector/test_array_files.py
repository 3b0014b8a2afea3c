"""Numpy's files, read while other threads read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rssegment.errors import ReadError
from rssegment.vector import array_files
from rssegment.vector.array_files import read_array, read_arrays

DISTURBED = SystemError("AST constructor recursion depth mismatch (before=63, after=61)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.savez(tmp_path / "arrays.npz", a=np.arange(5), b=np.eye(2))
    np.save(tmp_path / "array.npy", np.arange(7))
    return tmp_path / "arrays.npz"


def test_a_reader_that_another_thread_disturbed_reads_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = np.load, []

    def load(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) % 3:
            raise DISTURBED
        return original(*arguments, **options)

    monkeypatch.setattr(array_files.np, "load", load)
    assert read_arrays(path, lambda file: int(file["a"].sum())) == 10
    assert read_array(path.with_name("array.npy")).sum() == 21
    assert len(calls) == 6


@pytest.mark.parametrize("error", [SystemError("something else"), DISTURBED])
def test_what_stays_wrong_is_raised(path: Path, monkeypatch: pytest.MonkeyPatch, error: SystemError) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(array_files.np, "load", load)
    with pytest.raises(SystemError):
        read_array(path)


def test_many_threads(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: read_arrays(path, lambda file: file["b"].sum()), range(400)))
    assert found == [2] * 400


def test_what_can_not_be_read(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for content in (b"", whole[:40], whole[:-20]):
        path.write_bytes(content)
        with pytest.raises(ReadError, match="is not a readable part of a trace"):
            read_arrays(path, lambda file: file["a"])
    with pytest.raises(ReadError, match=r"nowhere\.npy is not a readable part"):
        read_array(tmp_path / "nowhere.npy")
    path.write_bytes(whole)
    with pytest.raises(ReadError, match="c is not a file in the archive"):
        read_arrays(path, lambda file: file["c"])
