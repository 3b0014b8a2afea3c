"""Open rasters: the one place that sets GDAL up and holds its handles.

A GDAL dataset may be used by one thread only, so every thread keeps its own, in a small cache that
closes the one used longest ago. A scene itself holds none and can be pickled.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rasterio
import rasterio.env
from rasterio.errors import RasterioError, RasterioIOError

from rssegment.errors import SceneError

__all__ = [
    "CACHE_BYTES",
    "Dataset",
    "complaints",
    "discard",
    "gdal",
    "handle",
    "is_remote",
    "open_dataset",
    "reason",
]

Dataset = Any  # rasterio.DatasetReader: rasterio ships no types

CACHE_BYTES = 256 << 20
"""Size of GDAL's block cache, which all threads of a process share (bytes)."""

OPEN_PER_THREAD = 64

_GDAL_OPTIONS = {
    "GDAL_CACHEMAX": CACHE_BYTES,
    "GDAL_NUM_THREADS": str(min(4, os.cpu_count() or 1)),
    # A corrupt JPEG is otherwise filled with grey after a mere warning: a silent hole. For JPEG inside TIFF
    # it has no effect, see complaints().
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "TRUE",
    # Its reader of whole PNGs leaves what a file that was cut short lacks as memory happened to be.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Without limits a server that doesn't answer stops the process for ever. No limit on a whole request,
    # which may be long: only on silence (less than 1 byte/s for so many seconds).
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": str(8 << 20),  # per open file
    "CPL_VSIL_CURL_CACHE_SIZE": str(64 << 20),
}

_REMOTE_PREFIXES = (
    "/vsicurl",
    "/vsis3",
    "/vsigs",
    "/vsiaz",
    "/vsiadls",
    "/vsioss",
    "/vsiswift",
    "/vsiwebhdfs",
)
_REMOTE_SCHEMES = ("http://", "https://", "ftp://", "s3://", "gs://", "az://", "oss://")


def is_remote(path: str) -> bool:
    """Whether ``path`` is read over a network, as far as its name tells."""
    return path.startswith(_REMOTE_SCHEMES) or any(prefix in path for prefix in _REMOTE_PREFIXES)


@contextmanager
def gdal(path: str) -> Iterator[None]:
    """GDAL set up for reading ``path``; a variable set in the process's environment is left as it is."""
    options: dict[str, Any] = {key: value for key, value in _GDAL_OPTIONS.items() if key not in os.environ}
    if is_remote(path) and "GDAL_DISABLE_READDIR_ON_OPEN" not in os.environ:
        # TRUE: ask for each sidecar by name. EMPTY_DIR would save those requests and lose .msk and .ovr.
        options["GDAL_DISABLE_READDIR_ON_OPEN"] = "TRUE"
    with rasterio.Env(**options):
        yield


class _Complaints(logging.Handler):
    """Keeps what GDAL says of corrupt pixels in the current thread, which it does not count as an error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "JPEGLib:" in text:
            self.heard.text = text


_complaints = _Complaints()
logging.getLogger("rasterio._err").addHandler(_complaints)


@contextmanager
def complaints() -> Iterator[None]:
    """Makes an error of GDAL's warnings that pixels just read are corrupt.

    Raises
    ------
    RasterioIOError
        There was such a warning.
    """
    _complaints.heard.text = None
    yield
    if _complaints.heard.text:
        raise RasterioIOError(_complaints.heard.text)


def open_dataset(path: str, **options: Any) -> Dataset:
    """A new dataset, to be closed by the caller; ``options`` go to the driver.

    Raises
    ------
    SceneError
        GDAL can't open ``path``.
    """
    try:
        with gdal(path):
            return rasterio.open(path, **options)
    except (RasterioError, ValueError, TypeError, OSError) as error:
        raise SceneError(f"can't open {path} as a raster: {reason(error)}") from error


class _Handles(threading.local):
    """The datasets that the current thread holds open."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: OrderedDict[tuple[str, int | None, int], Dataset] = OrderedDict()


_handles = _Handles()


def handle(path: str, level: int | None = None, stamp: int = 0) -> Dataset:
    """This thread's dataset of ``path``, at overview ``level`` (0 is the largest; None the full grid).

    ``stamp`` changes when the file was replaced, so that no old handle is used for the new one.
    """
    if _handles.process != os.getpid():  # forked: the parent's handles share its file positions
        _handles.__init__()  # type: ignore[misc]
    key = (path, level, stamp)
    dataset = _handles.open.pop(key, None)
    if dataset is None:
        dataset = open_dataset(path) if level is None else open_dataset(path, overview_level=level)
    _handles.open[key] = dataset
    while len(_handles.open) > OPEN_PER_THREAD:
        _handles.open.popitem(last=False)[1].close()
    return dataset


def discard(path: str, level: int | None = None, stamp: int = 0) -> None:
    """Closes this thread's dataset after a failed read, so that a retry starts afresh."""
    dataset = _handles.open.pop((path, level, stamp), None)
    if dataset is not None:
        dataset.close()


@atexit.register
def _close_all() -> None:
    """Closes the main thread's datasets while there is still an interpreter to do it."""
    while _handles.process == os.getpid() and _handles.open:
        _handles.open.popitem()[1].close()


def reason(error: BaseException) -> str:
    """GDAL's own words for a failure, which rasterio keeps in the chain of causes."""
    while isinstance(error, RasterioIOError) and error.__cause__ is not None:
        error = error.__cause__
    return str(getattr(error, "errmsg", error)).strip() or type(error).__name__
