"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rssegment.errors import OutputError, StorageError
from rssegment.write.atomic import staged, write_bytes


def test_appears_only_when_the_body_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with staged(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with staged(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_sidecars_come_along(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with staged(path) as temporary:
        temporary.write_bytes(b"pixels")
        temporary.with_name("a.tif.aux.xml").write_bytes(b"names")
    assert (tmp_path / "a.tif.aux.xml").read_bytes() == b"names"


def test_companions_of_an_earlier_file_go(tmp_path: Path) -> None:
    for name in ("a.shp", "a.prj", "a.dbf", "b.prj"):
        (tmp_path / name).write_bytes(b"old")
    with staged(tmp_path / "a.shp", (".dbf", ".prj", ".cpg")) as temporary:
        temporary.write_bytes(b"new")
        temporary.with_suffix(".dbf").write_bytes(b"new")
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"a.shp": b"new", "a.dbf": b"new", "b.prj": b"old"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, code: int) -> None:
    with (
        pytest.raises(StorageError, match=r"no space left while writing .*a\.bin.*--resume"),
        staged(tmp_path / "a.bin"),
    ):
        raise OSError(code, os.strerror(code))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="can't write"):
        write_bytes(tmp_path / "file" / "a.bin", b"")


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't write"):
        write_bytes(tmp_path / "missing" / "a.bin", b"")


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode
