"""Values in a JSON document that know where they stand, so that every fault names its place."""

from __future__ import annotations

from typing import Any

from rssegment.errors import BundleError

__all__ = ["Field", "single"]

_MISSING = object()


class Field:
    """A place in a JSON document and its ``path``, as ``$.assets.weights.href``; faults are BundleErrors."""

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def __getitem__(self, key: str) -> Field:
        if not isinstance(self.value, dict):
            raise self._wrong("an object")
        path = f"{self.path}[{key!r}]" if ":" in key else f"{self.path}.{key}"
        return Field(self.value.get(key, _MISSING), path)

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def items(self, kind: type | None = None) -> list[Field]:
        if not isinstance(self.value, list) or not all(
            kind is None or isinstance(v, kind) for v in self.value
        ):
            raise self._wrong("a list" if kind is None else "a list of texts")
        return [Field(item, f"{self.path}[{i}]") for i, item in enumerate(self.value)]

    def as_text(self, default: str | None = None) -> Any:
        return self._typed("a text", str, default=default)

    def as_flag(self) -> bool:
        return bool(self._typed("true or false", bool))

    def as_number(self, default: float | None = None) -> float:
        if isinstance(self.value, bool):
            raise self._wrong("a number")
        try:
            return float(self._typed("a number", int, float, default=default))
        except OverflowError:
            raise self._wrong("a number of usual size") from None

    def as_int(self, default: int | None = None) -> int:
        if isinstance(self.value, bool):
            raise self._wrong("a whole number")
        return int(self._typed("a whole number", int, default=default))

    def as_mapping(self, default: dict[str, Any] | None = None) -> dict[str, Any]:
        return dict(self._typed("an object", dict, default=default))

    def _typed(self, wanted: str, *kinds: type, default: Any = None) -> Any:
        if self.value is _MISSING and default is not None:
            return default
        if not isinstance(self.value, kinds):
            raise self._wrong(wanted)
        return self.value

    def _wrong(self, wanted: str) -> BundleError:
        found = "is missing" if self.value is _MISSING else f"is {str(self.value)[:60]!r}"
        return BundleError(f"{self.path} {found}; expected {wanted}")


def single(field: Field) -> Field:
    """The only entry of a list."""
    items = field.items()
    if len(items) != 1:
        raise BundleError(f"{field.path} has {len(items)} entries; expected one")
    return items[0]
