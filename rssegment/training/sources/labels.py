"""Labels on the pixels of an image, whatever they come from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import SceneError
from rssegment.grid import Box
from rssegment.scene.handles import gdal, open_dataset
from rssegment.scene.label_header import unplaced_allowed

__all__ = ["Labels", "content_of"]

_WHOLE_BYTES = 64 << 20  # files up to this size count by all their bytes
_SAMPLE_BYTES = 1 << 16
_SAMPLES = 64


class Labels(Protocol):
    """Codes of nodes at any level on one grid of pixels: a value without open files."""

    @property
    def files(self) -> tuple[str, ...]:
        """What the labels are made of: paths, and whatever else decides them, as text."""

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Codes (H, W); 0 where there is no label."""


def content_of(files: Iterable[str]) -> str:
    """SHA-256 (hex) of files' content, their sidecars and a VRT's parts included; of other text, of the text."""
    digest = hashlib.sha256()
    for path in files:
        if not os.path.isfile(path):
            digest.update(path.encode())
            continue
        for part in _parts(path):
            digest.update(_digest(part, os.stat(part).st_mtime_ns))
    return digest.hexdigest()


def _parts(path: str) -> list[str]:
    """The file itself and those that GDAL reads with it."""
    try:
        with gdal(path), unplaced_allowed(), open_dataset(path) as dataset:
            return [part for part in dataset.files if os.path.isfile(part)] or [path]
    except SceneError:  # no raster
        return [path]


@lru_cache(maxsize=1024)  # one file may label many images
def _digest(path: str, stamp: int) -> bytes:  # noqa: ARG001 - a file that was replaced is another
    size = os.path.getsize(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= _WHOLE_BYTES:
            return digest.digest() + hashlib.file_digest(file, "sha256").digest()
        for number in range(_SAMPLES):
            file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()
