"""Decoded pixels on disk, at the recipe's resolution: what is read again and again is decoded and resampled once.

One file for each scene: a header that says what it is of, a mark for each block, and the blocks, filled when they are
first needed. A mark holds the block's checksum and is written after it, and whoever meets a block for the first time
compares the two. So several processes may fill the same file, be killed, or find the disk as a power cut left it, and
none takes a half-written block for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
import warnings
import zlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.grid import Box
from rssegment.training.ground import LabelledScene, Sample
from rssegment.write.atomic import storage_errors

__all__ = ["BLOCK", "PixelCache"]

BLOCK = 512
"""Side of a block (px)."""

_Key = tuple[str, str]  # source and name

_PAGE = 4096
_MAGIC = b"rssegment pixels 1\n"
_SUFFIX = ".pixels"
_FILLED = 1 << 32  # in a mark, beside the checksum
_OPEN_FILES = 128


@dataclass(frozen=True)
class _Layout:
    """Where things are in the file of a scene: header, marks, then a record for each block, from a page's start.

    A record is values (C, h, w), labels (h, w) uint16, valid (h, w) of the block's pixels.
    """

    title: bytes
    shape: tuple[int, int]
    bands: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, scene: LabelledScene) -> _Layout:
        """Scenes that differ in pixels or grid differ in ``title``."""
        bands, dtype = len(scene.present), np.dtype(scene.dtype)
        about = [scene.fingerprint, scene.shape, scene.resolution, scene.present, dtype.str, BLOCK]
        return cls(_MAGIC + json.dumps(about).encode(), scene.shape, bands, dtype)

    @property
    def name(self) -> str:
        return hashlib.sha256(self.title).hexdigest()[:32] + _SUFFIX

    @property
    def header(self) -> bytes:
        return hashlib.sha256(self.title).digest() + self.title[: _PAGE - 32].ljust(_PAGE - 32, b"\n")

    @property
    def grid(self) -> tuple[int, int]:
        """Number of blocks down and across."""
        return -(-self.shape[0] // BLOCK), -(-self.shape[1] // BLOCK)

    @property
    def blocks(self) -> int:
        return self.grid[0] * self.grid[1]

    @cached_property
    def offsets(self) -> list[int]:
        """Where each record begins, and last where the file ends."""
        pixel = self.bands * self.dtype.itemsize + 3
        sizes = [_up(self.box(number).size * pixel, _PAGE) for number in range(self.blocks)]
        return list(accumulate(sizes, initial=_PAGE + _up(8 * self.blocks, _PAGE)))

    @property
    def file_bytes(self) -> int:
        return self.offsets[-1]

    def box(self, number: int) -> Box:
        """Pixels of the block."""
        row, col = divmod(number, self.grid[1])
        return Box(row * BLOCK, col * BLOCK, BLOCK, BLOCK).clip(Box.of(self.shape))

    def touched(self, box: Box) -> Iterator[int]:
        """Numbers of the blocks that share a pixel with ``box``."""
        for row in range(box.row // BLOCK, (box.stop_row - 1) // BLOCK + 1):
            for col in range(box.col // BLOCK, (box.stop_col - 1) // BLOCK + 1):
                yield row * self.grid[1] + col

    def views(self, buffer: Any, offset: int, shape: tuple[int, int]) -> tuple[NDArray[Any], ...]:
        """Values (C, h, w), labels and valid (h, w) of the record of a block of ``shape`` that begins at ``offset``."""
        values = np.ndarray((self.bands, *shape), self.dtype, buffer, offset)
        labels = np.ndarray(shape, np.uint16, buffer, offset + values.nbytes)
        return values, labels, np.ndarray(shape, np.bool_, buffer, offset + values.nbytes + labels.nbytes)


class _File:
    """The open file of a scene; ``checked`` blocks are known to be whole in this very file."""

    def __init__(self, path: Path, layout: _Layout) -> None:
        self.layout, self.lock = layout, threading.Lock()
        self.descriptor = _opened(path, layout)
        self.map = mmap.mmap(self.descriptor, layout.file_bytes, access=mmap.ACCESS_READ)
        self.marks = np.frombuffer(self.map, np.uint64, layout.blocks, _PAGE)
        self.checked = bytearray(layout.blocks)

    def __del__(self) -> None:
        # the map goes with the last array on it: another thread may still be reading
        with suppress(OSError, AttributeError):
            os.close(self.descriptor)

    def ensure(self, number: int, scene: LabelledScene) -> None:
        """Fills the block unless it is there, whole."""
        if self.checked[number]:
            return
        start, stop = self.layout.offsets[number : number + 2]
        mark = int(self.marks[number])
        if not mark or mark != _mark(memoryview(self.map)[start:stop]):
            record = self._record(number, scene, stop - start)
            self._write(start, record)
            self._write(_PAGE + 8 * number, np.uint64(_mark(record)).tobytes())
        self.checked[number] = 1

    def _record(self, number: int, scene: LabelledScene, size: int) -> bytearray:
        box, record = self.layout.box(number), bytearray(size)
        sample = scene.read(box)
        values, labels, valid = self.layout.views(record, 0, box.shape)
        values[:], labels[:], valid[:] = sample.values, sample.labels, sample.valid
        return record

    def _write(self, at: int, content: bytes | bytearray) -> None:
        rest = memoryview(content)
        while rest:
            if hasattr(os, "pwrite"):
                done = os.pwrite(self.descriptor, rest, at)
            else:
                with self.lock:
                    os.lseek(self.descriptor, at, os.SEEK_SET)
                    done = os.write(self.descriptor, rest)
            rest, at = rest[done:], at + done

    def read(self, box: Box) -> Sample:
        """The pixels of ``box``, whose blocks are filled."""
        layout = self.layout
        values = np.empty((layout.bands, *box.shape), layout.dtype)
        labels, valid = np.empty(box.shape, np.uint16), np.empty(box.shape, np.bool_)
        for number in layout.touched(box):
            block = layout.box(number)
            part = block.clip(box)
            (down, across), (rows, cols) = part.relative_to(box).slices, part.relative_to(block).slices
            kept = layout.views(self.map, layout.offsets[number], block.shape)
            values[:, down, across] = kept[0][:, rows, cols]
            labels[down, across] = kept[1][rows, cols]
            valid[down, across] = kept[2][rows, cols]
        return Sample(values, valid, labels)


class PixelCache:
    """Pixels of ``scenes``, kept in ``folder`` as far as ``limit`` (bytes) allows; others are read from the scene.

    Scenes get room in the order given. Files of earlier scenes go, those unused for longest first, where they and these
    need more than the limit; other programs' files stay. Without a folder, or with a limit of 0, all is read directly.
    A value to travel to other processes: each opens the files for itself, and threads may share it.

    Raises
    ------
    OutputError, StorageError
        The folder can't be made.
    """

    def __init__(self, folder: Path | None, scenes: Sequence[LabelledScene], limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._kept: dict[_Key, _Layout] = {}
        self._prepare()
        if folder is not None and limit > 0:
            with storage_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
            self._kept = _within(scenes, limit)
            _evict(folder, {layout.name for layout in self._kept.values()}, limit - self.bytes)

    def _prepare(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[_Key, _File] = OrderedDict()
        self._given_up: set[_Key] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "limit": self.limit, "_kept": self._kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @property
    def bytes(self) -> int:
        """Size of the files once they are filled."""
        return sum(layout.file_bytes for layout in self._kept.values())

    def keeps(self, scene: LabelledScene) -> bool:
        """Whether the scene's pixels are kept on disk."""
        return _key(scene) in self._kept

    def read(self, scene: LabelledScene, box: Box) -> Sample:
        """The same as ``scene.read(box)``; what is not on disk yet is read in whole blocks and put there.

        Raises
        ------
        ReadError
            The scene's files can't be read there.
        """
        key = _key(scene)
        layout = self._kept.get(key)
        if layout is None or key in self._given_up:
            return scene.read(box)
        try:
            file = self._file(key, layout)
            for number in layout.touched(box):
                file.ensure(number, scene)
        except OSError as error:  # of the cache: a scene's own failures are ReadErrors
            self._give_up(key, scene, error)
            return scene.read(box)
        return file.read(box)

    def clear(self) -> None:
        """Removes what is kept on disk, that of earlier scenes too, when no more is to be read."""
        with self._lock:
            self._files.clear()
        if self.folder is None or not self.folder.is_dir():
            return
        _evict(self.folder, set(), 0)
        with suppress(OSError):  # not empty, or somebody's who trains here at the same time
            self.folder.rmdir()

    def _file(self, key: _Key, layout: _Layout) -> _File:
        with self._lock:
            file = self._files.pop(key, None)
            if file is None:
                assert self.folder is not None
                file = _File(self.folder / layout.name, layout)
            self._files[key] = file
            while len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        return file

    def _give_up(self, key: _Key, scene: LabelledScene, error: OSError) -> None:
        if not self._given_up:
            text = (
                f"decoded pixels of {scene.name} can't be kept in {self.folder} ({error.strerror or error})"
            )
            warnings.warn(f"{text}; they are decoded again each time, which is slower", stacklevel=3)
        self._given_up.add(key)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _mark(record: bytearray | memoryview) -> int:
    return _FILLED | zlib.crc32(record)


def _key(scene: LabelledScene) -> _Key:
    # not the fingerprint: every process would look at all files to know it
    return scene.source, scene.name


def _within(scenes: Sequence[LabelledScene], limit: int) -> dict[_Key, _Layout]:
    """Layouts of the scenes that get room."""
    kept: dict[_Key, _Layout] = {}
    twice = {key for key, times in Counter(map(_key, scenes)).items() if times > 1}
    for scene in scenes:
        layout = _Layout.of(scene)
        if _key(scene) not in twice and layout.file_bytes <= limit:
            kept[_key(scene)] = layout
            limit -= layout.file_bytes
    return kept


def _evict(folder: Path, needed: set[str], room: int) -> None:
    """Removes files of earlier scenes until those that stay fit in ``room`` bytes."""
    with suppress(OSError):  # gone meanwhile, or somebody else's: no reason not to train
        others = [path for path in folder.glob(f"*{_SUFFIX}") if path.name not in needed and _is_ours(path)]
        for path in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True):
            room -= path.stat().st_size
            if room < 0:
                path.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(32 + len(_MAGIC))[32:] == _MAGIC


def _opened(path: Path, layout: _Layout) -> int:
    """A descriptor of the scene's file, which is made, whole but empty, unless it is there and fits."""
    flags = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    for _ in range(3):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, flags)
            if os.fstat(descriptor).st_size == layout.file_bytes and _header(descriptor) == layout.header:
                os.utime(path)  # used lately
                return descriptor
            os.close(descriptor)
        _make(path, layout)
    raise OSError(f"{path} changes all the time")


def _header(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, _PAGE)


def _make(path: Path, layout: _Layout) -> None:
    """Puts an empty file at ``path``; never changes one that others may have open."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("xb") as file:
            file.write(layout.header)
            # marks are no hole of the file: to read one on a full disk in memory would kill the process
            file.write(bytes(layout.offsets[0] - len(layout.header)))
            file.truncate(layout.file_bytes)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
