"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from rssegment import leftovers as killed
from rssegment.errors import OutputError, StorageError
from rssegment.write import atomic, leftovers
from rssegment.write.atomic import hinted, scratch, staged, storage_errors, write_bytes
from rssegment.write.formats import FORMATS


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
        pytest.raises(StorageError, match=r"no space left while writing .*a\.bin: free some space"),
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


@pytest.mark.parametrize("name", [name for name, each in FORMATS.items() if each.strays])
def test_strays_of_an_earlier_file_go(tmp_path: Path, name: str) -> None:
    own = {
        "shp": {"a.qix", "a.sbn", "a.sbx", "a.fbn", "a.idm", "a.ind", "a.ain", "a.aih", "a.code.atx"}
        | {"a.shp.xml", "a.qpj"},
        "gpkg": {"a.gpkg-wal", "a.gpkg-shm", "a.gpkg-journal"},
    }[name]
    others = {"b.qix", "b.gpkg-wal", "a.tif", "a.qml", "aa.shp.xml"}
    for each in own | others:
        (tmp_path / each).write_bytes(b"old")
    path = tmp_path / f"a.{name}"
    with staged(path, FORMATS[name].companions, strays=FORMATS[name].strays) as temporary:
        temporary.write_bytes(b"new")
    assert {each.name for each in tmp_path.iterdir()} == others | {path.name}


def test_strays_stay_until_the_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "a[1].qix").write_bytes(b"old")
    with (
        pytest.raises(RuntimeError),
        staged(tmp_path / "a[1].shp", strays=FORMATS["shp"].strays),
    ):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a[1].qix"]


def database(path: Path, rows: int, mode: str = "WAL") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [(b"x" * 3000,)] * rows)
    return connection


GPKG = FORMATS["gpkg"].strays


def replace_database(path: Path) -> None:
    with staged(path, strays=GPKG) as temporary:
        database(temporary, 3, "DELETE").close()


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        count: int = connection.execute("SELECT count(*) FROM t").fetchone()[0]
        return count


def test_the_journal_of_a_killed_program_does_not_reach_the_new_database(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    code = f"""
import os, signal
from tests.write.test_atomic import database
from pathlib import Path
kept = database(Path({str(path)!r}), 100)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    wal = tmp_path / "a.gpkg-wal"
    assert wal.stat().st_size > 0
    replace_database(path)
    assert rows(path) == 3
    assert [each.name for each in tmp_path.iterdir()] == ["a.gpkg"]


def test_the_journal_of_a_database_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    held = database(path, 100)
    path.unlink()
    replace_database(path)
    assert rows(path) == 3
    held.close()


@pytest.mark.parametrize("late", [False, True])
def test_a_database_that_another_program_holds_is_not_replaced(
    tmp_path: Path, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_PATIENCE", 0.01)
    path = tmp_path / "a.gpkg"
    held = database(path, 100)
    if late:  # it comes while the body is at work
        held.close()
    begun = []

    def work() -> None:
        with staged(path, strays=GPKG) as temporary:
            begun.append(sqlite3.connect(path))
            begun[0].execute("PRAGMA journal_mode=WAL")
            begun[0].execute("SELECT count(*) FROM t").fetchone()
            database(temporary, 3, "DELETE").close()

    with pytest.raises(OutputError, match=r"can't replace .*/a\.gpkg: another program has it open.*QGIS"):
        work()
    assert bool(begun) is late
    assert rows(path) == 100
    for each in (held, *begun):
        each.close()
    replace_database(path)
    assert rows(path) == 3


def test_what_only_looks_like_a_database_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    replace_database(path)
    assert rows(path) == 3


def stage_both(path: Path) -> list[str]:
    """Two threads that stage files at once; what became of each."""
    barrier, said = threading.Barrier(2), []

    def work(content: bytes) -> None:
        try:
            with staged(path, (".dbf",), replace=False) as temporary:
                temporary.write_bytes(content)
                temporary.with_suffix(".dbf").write_bytes(content)
                barrier.wait()
            said.append("done")
        except OutputError as error:
            said.append(str(error))

    threads = [threading.Thread(target=work, args=(content,)) for content in (b"one", b"two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_of_two_that_write_the_same_one_is_told(tmp_path: Path) -> None:
    for k in range(20):
        path = tmp_path / f"a{k}.shp"
        said = sorted(stage_both(path), key=len)
        assert said[0] == "done"
        assert f"{path.parent}" in said[1]
        assert "appeared meanwhile" in said[1]
        assert path.read_bytes() == path.with_suffix(".dbf").read_bytes()
    assert len(list(tmp_path.iterdir())) == 40


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("there", ["a.shp", "a.dbf"])
def test_nothing_is_replaced_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, there: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", refuse)

    def work() -> None:
        with staged(tmp_path / "a.shp", replace=False) as temporary:
            for suffix in (".shp", ".cpg", ".dbf"):
                temporary.with_suffix(suffix).write_bytes(b"ours")
            (tmp_path / there).write_bytes(b"theirs")

    with pytest.raises(OutputError, match=rf"{there} appeared meanwhile.*--overwrite"):
        work()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {there: b"theirs"}
    (tmp_path / there).unlink()
    with staged(tmp_path / "a.shp", replace=False) as temporary:
        temporary.write_bytes(b"ours")
    assert [path.name for path in tmp_path.iterdir()] == ["a.shp"]


KILLED = """
import os, signal, sys
from pathlib import Path
from rssegment.write.atomic import scratch, staged
with {how}(Path(sys.argv[1])) as temporary:
    (temporary if temporary.suffix == ".bin" and not temporary.is_dir() else temporary / "x").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["staged", "scratch"])
def test_what_a_killed_process_left_is_swept(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.bin"
    ended = subprocess.run([sys.executable, "-c", KILLED.format(how=how), path], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".a.bin.*"))) == 1  # where a run looks for what an earlier one left
    for again in (staged, scratch):
        with again(path) as temporary:
            if again is staged:
                temporary.write_bytes(b"whole")
            assert len(list(tmp_path.glob(".a.bin.*"))) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_what_others_are_at_work_on_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(platform, "node", lambda: "another")
        killed._machine.cache_clear()
        foreign = tmp_path / killed.temporary_prefix(path).replace(f"{os.getpid()}-", f"{gone.pid}-x")
    killed._machine.cache_clear()
    foreign.mkdir()
    other = tmp_path / f"{killed.temporary_prefix(tmp_path / 'b.bin')}x".replace(
        str(os.getpid()), str(gone.pid)
    )
    other.mkdir()
    with staged(path) as temporary, scratch(path) as folder:
        with staged(path) as second, scratch(path):
            second.write_bytes(b"x")
        assert temporary.parent.is_dir()
        assert folder.is_dir()
        temporary.write_bytes(b"y")
    assert {each.name for each in tmp_path.iterdir()} == {"a.bin", foreign.name, other.name}


def test_what_need_not_last_costs_no_folder_and_no_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    path = tmp_path / "a.npy"
    with staged(path, durable=False) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npy"
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert not synced
    with pytest.raises(ZeroDivisionError), staged(path, durable=False) as temporary:
        temporary.write_bytes(b"half" * (1 // 0))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    write_bytes(path, b"newer")
    assert len(synced) == 1


def test_a_part_on_its_way_is_not_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []
    monkeypatch.setattr(atomic, "_flush", lambda _: seen.extend(tmp_path.glob("*.json")))
    write_bytes(tmp_path / "a.json", b"{}")
    assert not seen


@pytest.mark.parametrize("durable", [True, False])
def test_errors_name_the_file_that_was_asked_for(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.bin"
    with (
        pytest.raises(StorageError) as caught,
        staged(path, durable=durable) as temporary,
        storage_errors(temporary),
    ):
        raise OSError(errno.ENOSPC, "No space left")
    assert f"while writing {path}:" in str(caught.value)
    if durable:
        with pytest.raises(OutputError) as refused, staged(path) as temporary:
            raise OutputError(f"{temporary.with_suffix('.dbf')} is too large for {temporary.parent}")
        assert str(refused.value) == f"{path.with_suffix('.dbf')} is too large for {tmp_path}"


def test_errors_on_the_way_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with (
        pytest.raises(StorageError) as caught,
        scratch(path) as folder,
        staged(folder / "trace" / "b.npz", durable=False),
    ):
        raise OSError(errno.ENOSPC, "No space left")
    assert f"while writing {path}: free" in str(caught.value)
    assert "resume" not in str(caught.value)


def test_a_hint_is_given_once(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"then run again; or not$") as caught,
        hinted("; or not"),
        hinted("; or not"),
        storage_errors(tmp_path),
    ):
        raise OSError(errno.ENOSPC, "No space left")
    assert str(caught.value).count("or not") == 1
