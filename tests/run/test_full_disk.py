"""What is said when the disk is full: the file that was asked for, and --resume where there is such a thing."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import rssegment as rs
from rssegment.errors import StorageError
from rssegment.grid import Block, Box
from rssegment.run.store import BlockResult, Store
from rssegment.run.traces import Traces
from tests.run.test_polygons import write_labels


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be moved to its name any more."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.usefixtures("full_disk")
def test_segment_goes_on_by_resume(tmp_path: Path) -> None:
    (tmp_path / "done").mkdir()
    store = Store(tmp_path, cast("Traces", None), {})
    block = Block((0, 0), Box.of((5, 5)))
    with pytest.raises(StorageError, match=rf"while writing {store.marker(block)}: .*go on with --resume$"):
        store.finish(block, BlockResult(block.name, "empty"))


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("options", [{}, {"simplify": "1px"}])
def test_vectorize_knows_no_resume(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_labels(tmp_path / "labels.tif", np.arange(400, dtype=np.uint8).reshape(20, 20) % 3 + 1)
    out = tmp_path / "o.geojson"
    with pytest.raises(StorageError, match=rf"^no space left while writing {out}: [^-]*$"):
        rs.vectorize(path, out, **options)
    assert [each.name for each in tmp_path.iterdir()] == ["labels.tif"]
