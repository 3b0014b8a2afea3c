"""Options of architectures that are misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["check_options"]


def check_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raises ValueError that names options that are not ``known``, and those there are."""
    strange = sorted(set(options) - set(known))
    if not strange:
        return
    near = difflib.get_close_matches(strange[0], known, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"unknown option {', '.join(strange)}; {hint}there are {', '.join(known) or 'none'}")
