"""From the values of one data set to the classes of a taxonomy: the mapping files that comparisons need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, TaxonomyError
from rssegment.taxonomy.mapping_form import Reader, Value
from rssegment.taxonomy.packaged import MAPPINGS, packaged, read_yaml
from rssegment.taxonomy.taxonomy import Taxonomy
from rssegment.taxonomy.tree import CODE_LIMIT

__all__ = ["ClassMapping", "unknown_values"]

_SHOWN = 5


@dataclass(frozen=True)
class ClassMapping:
    """Which class of ``target`` each source value means; equal and hashable by content.

    ``classes``: pairs of a source value (a code of a raster, or a code or text of an attribute) and the code of a node
    of ``target`` at any level, 0 to leave it out, or ``target.undecided``. ``others``: the code of values that are not
    listed, 0 to leave them out; None refuses them. A raster's 0 is no data unless it is listed; text is looked for
    among the names that a raster gives its values.
    """

    name: str
    target: Taxonomy
    classes: tuple[tuple[Value, int], ...]
    others: int | None = None
    source: str = field(default="", compare=False)

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """The mapping of a YAML file, or the packaged one of that bare name (see :meth:`available`).

        Raises
        ------
        TaxonomyError
            There is no such file or name, or it is no mapping (with the line at fault).
        """
        return cls.loads(*read_yaml(source, MAPPINGS))

    @classmethod
    def loads(cls, text: str, source: str = "<string>") -> Self:
        """The mapping written in ``text`` (YAML); ``source`` names it in messages, and its folder is where a target
        that is a file is looked for.

        Raises
        ------
        TaxonomyError
            The text is no mapping; names the line.
        """
        reader = Reader(source)
        values = reader.document(text)
        target = reader.target(values["target"])
        others = None if "others" not in values else reader.node(values["others"], target)
        name = reader.text(values["name"], "name")
        return cls(name, target, tuple(reader.classes(values["classes"], target)), others, source)

    @staticmethod
    def available() -> tuple[str, ...]:
        """Names of the packaged mappings."""
        return tuple(packaged(MAPPINGS))

    def onto(self, taxonomy: Taxonomy) -> ClassMapping:
        """The same mapping to the nodes of the same paths in ``taxonomy``, which may have other codes, more or less.

        Raises
        ------
        TaxonomyError
            ``taxonomy`` lacks a class that is mapped to.
        """
        if taxonomy == self.target:
            return self
        places = {"/".join(node.path): node.code for node in taxonomy.nodes}

        def moved(code: int) -> int:
            if code == 0 or self._leaves_open(code):
                return code and taxonomy.undecided
            path = "/".join(self.target.node(code).path)
            if path not in places:
                raise TaxonomyError(
                    f"mapping {self.name!r} leads to {path!r} of taxonomy {self.target.name!r}, which taxonomy "
                    f"{taxonomy.name!r} lacks; map both sides to classes of one taxonomy"
                )
            return places[path]

        classes = tuple((value, moved(code)) for value, code in self.classes)
        others = None if self.others is None else moved(self.others)
        return replace(self, target=taxonomy, classes=classes, others=others)

    def named(self, names: Mapping[int, str]) -> ClassMapping:
        """The same mapping for a raster that names its values: what is listed by name is found by value, too."""
        listed = self._numbers
        found = ((value, self._table[name]) for value, name in names.items() if name in self._table)
        more = tuple((value, code) for value, code in found if value not in listed)
        return replace(self, classes=self.classes + more) if more else self

    def of_truth(self) -> ClassMapping:
        """The same mapping for labels that are taken as true: what is undecided there is no label."""

        def known(code: int) -> int:
            return 0 if code and self._leaves_open(code) else code

        classes = tuple((value, known(code)) for value, code in self.classes)
        return replace(self, classes=classes, others=None if self.others is None else known(self.others))

    def lookup(self) -> NDArray[np.uint16]:
        """(65536,): the code of each value of a label raster; 0 for what is left out and what :meth:`unknown` marks."""
        table = np.full(CODE_LIMIT + 1, self.others or 0, np.uint16)
        table[0] = 0
        for value, code in self._numbers.items():
            if 0 <= value <= CODE_LIMIT:
                table[value] = code
        return table

    def unknown(self) -> NDArray[np.bool_]:
        """(65536,): whether a value of a label raster is neither listed nor among the others."""
        table = np.full(CODE_LIMIT + 1, self.others is None)
        table[0] = False
        table[[value for value in self._numbers if 0 <= value <= CODE_LIMIT]] = False
        return table

    def apply(self, values: NDArray[np.integer[Any]], what: str = "the raster") -> NDArray[np.uint16]:
        """Codes of the target for an array of whole numbers of any type.

        Raises
        ------
        InputError
            Values that are not listed, where others are not told what they mean; names them and their counts.
        """
        if values.dtype in (np.uint8, np.uint16):
            codes: NDArray[np.uint16] = self.lookup()[values]
            unknown = self.unknown()[values]
        else:
            codes, unknown = self._apply_wide(values)
        if self.others is None and unknown.any():
            self._refuse(np.unique(values[unknown], return_counts=True), f"{what} has values", "px")
        return codes

    def codes(self, values: NDArray[Any], what: str = "the column") -> NDArray[np.uint16]:
        """Codes (n,) of the target for attribute values (n,) of any type; 0 where a value is missing or left out.

        Whole numbers match text that reads the same, as 3 and "3".

        Raises
        ------
        InputError
            Values that are not listed, where others are not told what they mean; names them and their counts.
        """
        distinct, places = _distinct(values)
        codes: NDArray[np.uint16] = np.zeros(len(distinct), np.uint16)
        unknown: list[int] = []
        for i, value in enumerate(distinct):
            found = None if value is None else self._found(value)
            if value is not None and found is None and self.others is None:
                unknown.append(i)
            codes[i] = 0 if value is None else (self.others or 0) if found is None else found
        if unknown:
            times = np.bincount(places, minlength=len(distinct))[unknown]
            self._refuse((np.array([distinct[i] for i in unknown], object), times), f"{what} has values", "x")
        return codes[places]

    @property
    def named_values(self) -> frozenset[int]:
        """The whole numbers that are listed: in a raster these are never taken for no data."""
        return frozenset(self._numbers)

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {value: code for value, code in self.classes if isinstance(value, int)}

    @cached_property
    def _table(self) -> dict[Value, int]:
        return dict(self.classes)

    def _found(self, value: Value) -> int | None:
        """The code of a value, also where one side has a number as text."""
        if value in self._table:
            return self._table[value]
        if isinstance(value, str):
            number = value.strip()
            return self._table.get(int(number)) if re.fullmatch("-?[0-9]{1,18}", number) else None
        return self._table.get(str(value))

    def _apply_wide(self, values: NDArray[np.integer[Any]]) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """As tables do, for values that may be negative or large."""
        keys = np.array(sorted({0, *self._numbers}), np.int64)
        codes = np.array([self._numbers.get(int(key), 0) for key in keys], np.uint16)
        whole = values.astype(np.int64)
        place = np.minimum(np.searchsorted(keys, whole), len(keys) - 1)
        listed = keys[place] == whole
        return np.where(listed, codes[place], np.uint16(self.others or 0)), ~listed

    def _leaves_open(self, code: int) -> bool:
        return all(node.code != code for node in self.target.nodes)

    def _refuse(self, found: tuple[NDArray[Any], NDArray[Any]], where: str, unit: str) -> NoReturn:
        if not self._numbers and found[0].dtype.kind in "iu":
            names = ", ".join(str(value) for value, _ in self.classes[:_SHOWN])
            raise InputError(
                f"{where} without names: {unknown_values(*found, unit)}; mapping {self.name!r} goes by names "
                f"({names}): give the raster category names, or write a mapping of its codes, as '1: building'"
            )
        raise InputError(
            f"{where} that mapping {self.name!r} doesn't list: {unknown_values(*found, unit)}; add them to its "
            "'classes', or say by 'others' what the rest means (null leaves it out)"
        )


def unknown_values(values: NDArray[Any], times: NDArray[Any], unit: str) -> str:
    """A few values with their counts, commonest first, for a message."""
    order = np.argsort(-np.asarray(times), kind="stable")
    shown = ", ".join(f"{values[i]} ({times[i]} {unit})" for i in order[:_SHOWN])
    return shown + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def _distinct(values: NDArray[Any]) -> tuple[list[Value | None], NDArray[np.intp]]:
    """The distinct values as whole numbers, text, or None where missing, and the place of each value among them."""
    if values.dtype.kind in "iub":
        whole, places = np.unique(values.astype(np.int64), return_inverse=True)
        return list(whole.tolist()), places
    index: dict[Value | None, int] = {}
    places = np.empty(len(values), np.intp)
    for i, value in enumerate(values.tolist()):
        places[i] = index.setdefault(_plain(value), len(index))
    return list(index), places


def _plain(value: Any) -> Value | None:
    if value is None or value == "" or value != value:  # noqa: PLR0124  (NaN)
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else repr(value)
    return int(value) if isinstance(value, (int, np.integer)) else str(value)
