"""COCO's run lengths: how many pixels, column by column, are off, on, off and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError

__all__ = ["decoded", "run_lengths"]

_BITS = 60  # of a length in text: no image has so many pixels


def run_lengths(outline: Mapping[str, Any], shape: tuple[int, int], where: str) -> NDArray[np.int64]:
    """(n,) lengths of runs, off first, of ``{"size": [rows, cols], "counts": ...}``; counts are a list, or text.

    Raises
    ------
    InputError
        They are no run lengths, or not of an image of ``shape``; ``where`` names the place.
    """
    counts, most = outline.get("counts"), shape[0] * shape[1]
    try:
        size = tuple(_whole(side) for side in outline.get("size", ()))
        runs = counts if size == shape else ()
        lengths = (
            _from_text(runs, most)
            if isinstance(runs, str)
            else [_length(_whole(count), most) for count in runs or ()]
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} has run lengths that can't be read: {error}") from error
    if size != shape or sum(lengths) != most:
        told = f"of {sum(lengths)} px for" if size == shape else "for"
        raise InputError(
            f"{where} has run lengths {told} {' x '.join(map(str, size))[:40] or 'no size'}; expected "
            f"{shape[0]} x {shape[1]} (rows x cols)"
        )
    return np.array(lengths, np.int64)


def _whole(value: Any) -> int:
    """A whole number, which may be written as 3.0."""
    if isinstance(value, bool) or not (
        isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    ):
        raise ValueError(f"{value!r:.40} is no whole number")
    return int(value)


def _length(value: int, most: int) -> int:
    if not 0 <= value <= most:
        raise ValueError(
            f"a run is {'below 0' if value < 0 else 'longer than the image'}; expected 0 to {most} px"
        )
    return value


def _from_text(text: str, most: int) -> list[int]:
    """Numbers in digits of five bits, least first, whose sixth says that more follow; from the fourth on, each is the
    difference to the one two before it. Stops at a run of more than ``most`` px."""
    lengths: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            digit = ord(text[place]) - 48
            if not 0 <= digit < 64:
                raise ValueError(f"{text[place]!r} is no digit")
            if shift > _BITS:
                raise ValueError(f"a run is longer than the image; expected 0 to {most} px")
            value |= (digit & 31) << shift
            more, shift, place = digit > 31, shift + 5, place + 1
            if more and place == len(text):
                raise ValueError("it ends within a number")
        if digit & 16:
            value -= 1 << shift
        lengths.append(_length(value + (lengths[-2] if len(lengths) > 2 else 0), most))
    return lengths


def decoded(lengths: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): which pixels are on."""
    on = np.arange(len(lengths)) % 2 == 1
    return np.repeat(on, lengths).reshape(shape, order="F")
