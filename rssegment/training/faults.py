"""What is wrong with a recipe, in words: the key at fault, what it says, what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["faults_of"]

_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_MANY = {str: "texts", int: "whole numbers", float: "numbers"}
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_WRONG_TYPES = ("_type", "_parsing", "_from_float", "_unit")
_SHOWN = 60  # characters of a value


def faults_of(error: ValidationError, top: type[BaseModel], values: Mapping[Any, Any]) -> str:
    """All faults that pydantic found in ``values`` of ``top``, each once."""
    told = [_told(fault, top, values) for fault in error.errors()]
    return "; ".join(dict.fromkeys(text for text in told if text))


class _Found(NamedTuple):
    """Where a fault is: the ``place`` as far as keys lead, the ``type`` that is expected there, and its ``section``."""

    place: tuple[int | str, ...]
    type: Any
    section: type[BaseModel]

    def __str__(self) -> str:
        return ".".join(map(str, self.place))


def _told(fault: Any, top: type[BaseModel], values: Mapping[Any, Any]) -> str:
    """One fault; "" for one that only follows from others."""
    found, loc = _located(top, fault["loc"]), fault["loc"]
    if fault["type"] in ("extra_forbidden", "invalid_key") and _is_section(found.type):
        return _unknown(str(loc[-1]), found, top)
    if fault["type"] == "value_error":
        return f"{found}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    if fault["type"] == "missing":
        return f"{found} is missing; expected {_described(found.type)}"
    expected = _expected(fault, found.type)
    if expected is None:
        return f"{found}: {fault['msg']}"
    value = _value_at(values, found.place)
    if fault["type"] == "too_short" and value:  # entries at fault, which are told, don't count
        return ""
    return f"{found}: expected {expected}, got {_shown(value)}{_hint(value, found.type)}"


def _located(top: type[BaseModel], loc: Sequence[int | str]) -> _Found:
    place: list[int | str] = []
    kind: Any = top
    section = top
    for part in loc:
        if _is_section(kind):
            section = kind
            if part not in kind.model_fields:
                break
            kind = kind.model_fields[part].annotation
        elif get_origin(kind) is tuple and isinstance(part, int):
            kind = get_args(kind)[0]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:  # one of several types, told by all of them
            break
        place.append(part)
        kind = _bare(kind)
    return _Found(tuple(place), kind, section)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _bare(kind: Any) -> Any:
    """A type without its limits, and without None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        kinds = [each for each in get_args(kind) if each is not NoneType]
        return _bare(kinds[0]) if len(kinds) == 1 else kind
    return kind


def _value_at(values: Any, place: Sequence[int | str]) -> Any:
    for part in place:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _expected(fault: Any, kind: Any) -> str | None:
    """What a value should be; None where pydantic's own words must do."""
    what = str(fault["type"])
    context = fault.get("ctx", {})
    if what == "finite_number":
        return "a finite number"
    if what in ("string_too_short", "string_pattern_mismatch"):
        return "text that is not empty"
    if what == "too_short":
        return "at least one"
    limits = [f"{words} {context[key]:.12g}" for key, words in _LIMITS.items() if key in context]
    if limits:
        return limits[0]
    wrong = what.endswith(_WRONG_TYPES) or what == "literal_error"
    return _described(kind) if wrong else None


def _described(kind: Any, names: Mapping[Any, str] = _NAMES) -> str:
    """A type in words."""
    kind = _bare(kind)
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"{'' if len(parts) == 1 else 'one of '}{', '.join(map(str, parts))}"
    if origin in (Union, UnionType):
        kinds = [each for each in parts if each is not NoneType]
        return " or ".join(_described(each, names) for each in kinds)
    if origin is tuple:
        inner = _bare(parts[0])
        if _is_section(inner):
            return f"a list, each entry with {_described(inner)}"
        return f"a list of {_described(inner, _MANY)}"
    if origin is dict:
        to = "" if parts[1] is Any else f" to {_described(parts[1], _MANY)}"
        return f"pairs, from {_described(parts[0], _MANY)}{to}"
    if _is_section(kind):
        return f"keys ({', '.join(kind.model_fields)})"
    return names.get(kind, "a value")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple, dict)) and not value:
        return "none"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _hint(value: Any, kind: Any) -> str:
    """What was probably meant."""
    if get_origin(kind) is Literal and isinstance(value, str):
        close = difflib.get_close_matches(value, map(str, get_args(kind)), 1)
        return f"; did you mean {close[0]}?" if close else ""
    if get_origin(kind) is tuple and isinstance(value, str):
        return f"; write [{value}]"
    return "; put it in quotes" if kind is str and isinstance(value, int | float) else ""


def _unknown(key: str, found: _Found, top: type[BaseModel]) -> str:
    """A key that there is not, and where it belongs or which are like it."""
    own, others = list(found.section.model_fields), list(_sections(top))
    where = f"in {found}" if found.place else "at the top of a recipe"
    here = next((name for name, section in others if section is found.section), "")
    homes = [name for name, section in others if key in section.model_fields and section is not found.section]
    told = f"there is no {key!r} {where}"
    if homes:
        at_top = "at the top of the recipe"
        places = [f"under {name}" if name else at_top for name in homes]
        return f"{told}: {key} belongs {' or '.join(places)}"
    if close := difflib.get_close_matches(key, own, 1):
        return f"{told}; did you mean {close[0]}?"
    for name, section in others:
        close = difflib.get_close_matches(key, section.model_fields, 1)
        if close and name != here:
            return (
                f"{told}; did you mean {close[0]} {f'under {name}' if name else 'at the top of the recipe'}?"
            )
    return f"{told}; it has {', '.join(own)}"


def _sections(top: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections of a recipe by the key that they stand under; "" is the top."""
    yield "", top
    for name, field in top.model_fields.items():
        kind = _bare(field.annotation)
        kind = get_args(kind)[0] if get_origin(kind) is tuple else kind
        if _is_section(kind):
            yield name, kind
