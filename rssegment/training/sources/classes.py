"""What a source's values, names and colours mean: nodes of the recipe's taxonomy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import InputError, TaxonomyError
from rssegment.taxonomy import ClassMapping, Taxonomy
from rssegment.training.recipe import SourceOptions

__all__ = ["by_name", "colors_of", "known_codes", "mapping_of", "named_alike"]

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def mapping_of(options: SourceOptions, taxonomy: Taxonomy, root: Path) -> ClassMapping | None:
    """The source's mapping, to nodes of ``taxonomy``; None if it has none.

    Raises
    ------
    InputError
        There is no such file or packaged mapping, or it leads to a class that the taxonomy lacks.
    """
    given = options.mapping
    if given is None:
        return None
    try:
        if isinstance(given, str):
            beside = root / given
            mapping = ClassMapping.load(beside if beside.is_file() else given)
            return mapping.onto(taxonomy).of_truth()
        return ClassMapping(f"of source {options.name}", taxonomy, tuple(_pairs(given, taxonomy)))
    except TaxonomyError as error:
        raise InputError(f"the mapping of source {options.name!r}: {error}") from error


def _pairs(given: Mapping[int | str, int | str | None], taxonomy: Taxonomy) -> list[tuple[int | str, int]]:
    if not given:
        raise TaxonomyError("it is empty; expected pairs of a value and a class, as '3: building'")
    pairs = []
    for value, meant in given.items():
        try:
            pairs.append((value, 0 if meant is None else taxonomy.node(meant).code))
        except TaxonomyError as error:
            raise TaxonomyError(f"{value!r} means {meant!r}, and {error}") from error
    return pairs


def colors_of(mapping: ClassMapping | None) -> dict[int, int]:
    """Codes by colour (red * 65536 + green * 256 + blue) of a mapping's keys such as "#3C1098"; empty if it has none.

    Raises
    ------
    InputError
        One colour means two classes.
    """
    found: dict[int, int] = {}
    for value, code in () if mapping is None else mapping.classes:
        if isinstance(value, str) and _COLOR.fullmatch(value):
            color = int(value[1:], 16)
            if found.setdefault(color, code) != code:
                raise InputError(f"a mapping gives two classes to the colour {value}")
    return found


def by_name(
    names: Mapping[int, str], mapping: ClassMapping | None, taxonomy: Taxonomy, what: str
) -> ClassMapping:
    """The mapping of ``names``'s values: through ``mapping``, which may list names or values, or else to the nodes of
    the same names, whatever their case, spaces and punctuation.

    Raises
    ------
    InputError
        Names that are no class of the taxonomy, or that the mapping doesn't list.
    """
    if mapping is None:
        nodes = _plain_names(taxonomy)
        if strange := [name for name in names.values() if _plain(name) not in nodes]:
            raise InputError(
                f"{what} has classes that taxonomy {taxonomy.name!r} lacks by name, or has twice: {_listed(strange)}; "
                "give the source a 'mapping' from its names or values to classes of the taxonomy, null to leave one out"
            )
        return ClassMapping(
            what, taxonomy, tuple((value, nodes[_plain(name)]) for value, name in names.items())
        )
    listed = {_plain(value): code for value, code in mapping.classes if isinstance(value, str)}
    numbers = {value: code for value, code in mapping.classes if isinstance(value, int)}
    pairs, strange = [], []
    for value, name in names.items():
        code = listed.get(_plain(name), numbers.get(value, mapping.others))
        if code is None:
            strange.append(name)
        pairs.append((value, code or 0))
    if strange:
        raise InputError(
            f"{what} has classes that its mapping doesn't list: {_listed(strange)}; add them, with null for those to "
            "leave out"
        )
    known = {_plain(name) for name in names.values()}
    if idle := [
        value for value, _ in mapping.classes if _plain(str(value)) not in known and value not in names
    ]:
        raise InputError(
            f"the mapping of {what} lists {_listed([str(value) for value in idle])}, which {what} lacks; it has "
            f"{_listed(list(names.values()))}"
        )
    return ClassMapping(what, taxonomy, tuple(pairs))


def named_alike(names: Mapping[int, str], taxonomy: Taxonomy) -> ClassMapping | None:
    """The mapping of a raster that names its values as the taxonomy names its classes; None if it doesn't.

    What 0 is called may be anything: by custom it is no data.
    """
    nodes = _plain_names(taxonomy)
    known = {value: nodes.get(_plain(name)) for value, name in names.items() if name.strip()}
    if known.get(0, 0) is None:
        del known[0]
    if not known or None in known.values():
        return None
    return ClassMapping(
        "of its own names", taxonomy, tuple((value, code or 0) for value, code in known.items())
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _plain_names(taxonomy: Taxonomy) -> dict[str, int]:
    """Codes by plain name; names of several branches are left out.

    Of a node and one below it that share a name it is the higher: "water" is all water, and not the class "water"
    beside "pool" below it. Where both have the same leaves, so that they mean the same, it is the lower.
    """
    rows: dict[str, list[int]] = {}
    for row, node in enumerate(taxonomy.nodes):  # pre-order: those above come first
        rows.setdefault(_plain(node.name), []).append(row)
    found, membership = {}, taxonomy.membership
    for name, (highest, *others) in rows.items():
        if (membership[others] <= membership[highest]).all():
            alike = [row for row in others if (membership[row] == membership[highest]).all()]
            found[name] = taxonomy.nodes[[highest, *alike][-1]].code
    return found


def _listed(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@lru_cache(maxsize=8)
def known_codes(taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """(65536,): whether a value is 0 or a code of the taxonomy. Read-only."""
    known = np.zeros(65536, np.bool_)
    known[[0, *taxonomy.arrays.codes.tolist()]] = True
    known.flags.writeable = False
    return known
