"""Plain values of JSON to counts: what is not as it was written is refused in words, never by a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError
from rssegment.taxonomy import Taxonomy

__all__ = ["difference", "entries", "field", "number", "texts", "undefined", "whole", "wholes"]

_LIMIT = 2**62  # sums of two stay within 64 bits


def field(values: Mapping[str, Any], key: str) -> Any:
    """``values[key]``; InputError where it is not there."""
    if not isinstance(values, Mapping) or key not in values:
        raise InputError(f"the counts have no {key!r}; the file is no evidence of rssegment, or was changed")
    return values[key]


def whole(value: object, what: str, limit: int | None = _LIMIT) -> int:
    """``value`` if it is a whole number from 0, below ``limit``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (limit and value >= limit):
        raise InputError(f"{what!r} is {value!r}; expected a whole number from 0")
    return value


def number(values: Mapping[str, Any], key: str, what: str) -> float:
    """``values[key]`` if it is a number; ``what`` it is, for the message."""
    found = field(values, key)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(f"{key!r} is {found!r}; expected {what}")
    return found


def wholes(values: Mapping[str, Any], key: str, length: int | None = None) -> NDArray[np.int64]:
    """``values[key]`` as (n,) int64: a list of whole numbers, of ``length`` if given."""
    found = field(values, key)
    if not isinstance(found, list) or (length is not None and len(found) != length):
        expected = "a list" if length is None else f"a list of {length}"
        got = f"{len(found)} values" if isinstance(found, list) else repr(found)
        raise InputError(f"{key!r} is {got[:80]}; expected {expected} of whole numbers")
    return np.array([whole(value, key) for value in found], np.int64)


def entries(values: Mapping[str, Any], key: str, width: int) -> list[list[Any]]:
    """``values[key]`` if it is a list of lists of ``width`` values."""
    found = field(values, key)
    if not isinstance(found, list) or any(not isinstance(row, list) or len(row) != width for row in found):
        raise InputError(f"{key!r} is not a list of lists of {width} values")
    if any(isinstance(value, list | dict) for row in found for value in row):
        raise InputError(f"{key!r} holds lists within lists; expected plain values")
    return found


def texts(values: Mapping[str, Any], key: str, what: str) -> tuple[str, ...]:
    """``values[key]`` if it is a list of texts that can be written to a file; ``what`` they are."""
    found = field(values, key)
    if not isinstance(found, list) or not all(isinstance(text, str) and _is_text(text) for text in found):
        raise InputError(f"{key!r} is {ascii(found)[:80]}; expected a list of {what}")
    return tuple(found)


def _is_text(value: str) -> bool:
    """JSON and the names of files may hold halves of characters, which no file of text can."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def undefined(value: float) -> float | None:
    """For JSON: None for NaN."""
    return None if np.isnan(value) else float(value)


def difference(one: Taxonomy, other: Taxonomy) -> str:
    """What tells two taxonomies apart, for messages: their names, or their first class that differs."""
    if one.name != other.name:
        return f"taxonomies {one.name!r} and {other.name!r}"
    pairs = zip(one.nodes, other.nodes, strict=False)
    for mine, theirs in pairs:
        if mine != theirs:
            return f"two taxonomies {one.name!r} (one has {_class(mine)}, the other {_class(theirs)})"
    if len(one.nodes) != len(other.nodes):
        return f"two taxonomies {one.name!r} (one has {len(one.nodes)} classes, the other {len(other.nodes)})"
    return f"two taxonomies {one.name!r} (their titles or descriptions differ)"


def _class(node: Any) -> str:
    red, green, blue = node.color
    return f"{node.code} {'/'.join(node.path)} #{red:02X}{green:02X}{blue:02X}"
