"""Machine code for this machine: made when rssegment first makes polygons on it, and kept."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from rssegment.run.progress import Progress

__all__ = ["compile_first"]

STAGE = "compile (first run)"
_KERNELS = (
    "vector._trace_kernels",
    "vector._join_kernels",
    "vector._ring_kernels",
    "vector._clean_kernels",
    "vector._simplify_kernels",
    "vector._simplify_lines",
    "vector._ground_kernels",
    "write._format",
    "write._geometry",
)


def compile_first(progress: Progress | None) -> None:
    """Compiles all kernels, telling of it, if this machine has none yet: it takes about a minute, once."""
    if progress is None or _is_compiled(f"rssegment.{_KERNELS[0]}"):
        return
    progress(STAGE, 0, len(_KERNELS), 0)
    for count, name in enumerate(_KERNELS, 1):
        import_module(f"rssegment.{name}")
        progress(STAGE, count, len(_KERNELS), 0)


def _is_compiled(module: str) -> bool:
    """Whether numba has an index of machine code for ``module``."""
    spec = find_spec(module)
    source = Path(spec.origin) if spec and spec.origin else Path()
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    folders = Path(chosen).glob("*") if chosen else [source.parent / "__pycache__"]
    return any(any(folder.glob(f"{source.stem}.*.nbi")) for folder in folders)
