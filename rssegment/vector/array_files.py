"""Numpy's files, read by several threads at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import ReadError

__all__ = ["read_array", "read_arrays"]

_T = TypeVar("_T")
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile)
_ATTEMPTS = 100
_DISTURBED = "recursion depth mismatch"


def read_arrays(path: str | Path, read: Callable[[Mapping[str, NDArray[Any]]], _T]) -> _T:
    """What ``read`` makes of the arrays of the ``.npz`` file at ``path``, which are read when they are asked for.

    Raises
    ------
    ReadError
        The file is missing, cut short, or lacks something.
    """

    def whole() -> _T:
        with np.load(path, allow_pickle=False) as file:
            return read(file)

    return _read(path, whole)


def read_array(path: str | Path) -> NDArray[Any]:
    """The array in the ``.npy`` file at ``path``; raises as :func:`read_arrays`."""
    return _read(path, lambda: np.asarray(np.load(path, allow_pickle=False)))


def _read(path: str | Path, read: Callable[[], _T]) -> _T:
    """Numpy parses headers as Python, and before CPython 3.11.8 and 3.12.2 threads that parse at the same time disturb
    each other now and then (cpython issue 106905): then it is read again."""
    for attempt in range(_ATTEMPTS):
        try:
            return read()
        except SystemError as error:
            if _DISTURBED not in str(error) or attempt == _ATTEMPTS - 1:
                raise
        except _UNREADABLE as error:
            raise ReadError(
                f"{path} is not a readable part of a trace ({error}); delete it and run again"
            ) from error
    raise AssertionError
