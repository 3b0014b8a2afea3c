"""How kernels are compiled: ahead of the call, once per machine, without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["inlined", "kernel"]

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(*signatures: str) -> Callable[[Function], Function]:
    """Compiles a function for fixed signatures; the machine code is cached on disk."""
    return cast(
        Callable[[Function], Function],
        numba.njit(list(signatures), cache=True, nogil=True, error_model="numpy"),
    )


def inlined(function: Function) -> Function:
    """A helper of kernels in the same file, compiled into them."""
    return cast(Function, numba.njit(function, inline="never", nogil=True, error_model="numpy"))
