"""COCO's run lengths: how many pixels, column by column, are off, on, off and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError

__all__ = ["decoded", "run_lengths"]


def run_lengths(outline: Mapping[str, Any], shape: tuple[int, int], where: str) -> NDArray[np.int64]:
    """(n,) lengths of runs, off first, of ``{"size": [rows, cols], "counts": ...}``; counts are a list, or text.

    Raises
    ------
    InputError
        They are no run lengths, or not of an image of ``shape``; ``where`` names the place.
    """
    counts = outline.get("counts")
    try:
        lengths = _from_text(counts) if isinstance(counts, str) else [int(count) for count in counts or ()]
        size = tuple(int(side) for side in outline.get("size", ()))
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"{where} has run lengths that can't be read: {error}") from error
    total = sum(lengths)
    if size != shape or total != shape[0] * shape[1] or min(lengths) < 0:
        raise InputError(
            f"{where} has run lengths of {total} px for {' x '.join(map(str, size)) or 'no size'}; expected "
            f"{shape[0]} x {shape[1]} (rows x cols)"
        )
    return np.array(lengths, np.int64)


def _from_text(text: str) -> list[int]:
    """Numbers in digits of five bits, least first, whose sixth says that more follow; from the fourth on, each is the
    difference to the one two before it."""
    lengths: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            digit = ord(text[place]) - 48
            if not 0 <= digit < 64:
                raise ValueError(f"{text[place]!r} is no digit")
            value |= (digit & 31) << shift
            more, shift, place = digit > 31, shift + 5, place + 1
        if digit & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths


def decoded(lengths: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): which pixels are on."""
    on = np.arange(len(lengths)) % 2 == 1
    return np.repeat(on, lengths).reshape(shape, order="F")
