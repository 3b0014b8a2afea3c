"""From a list of classes that name their parents to nodes in pre-order: what makes it a tree."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rssegment.errors import TaxonomyError
from rssegment.taxonomy.yaml_form import DEPTH_LIMIT, Entry

__all__ = ["CODE_LIMIT", "Color", "Node", "arrange", "check_name", "tidy"]

CODE_LIMIT = 65535  # label rasters are uint16 at most
NAME_LIMIT = 200  # characters

Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Node:
    """One class: ``level`` is 1 at the top, ``parent`` a code, ``path`` the names from the top to itself."""

    code: int
    name: str
    color: Color
    level: int
    parent: int | None
    path: tuple[str, ...]
    title: str = ""

    @property
    def label(self) -> str:
        """What to show people: the title, or the name where there is none."""
        return self.title or self.name

    @property
    def hex(self) -> str:
        """The colour as ``#RRGGBB``."""
        return "#{:02X}{:02X}{:02X}".format(*self.color)


def arrange(entries: Sequence[Entry], source: str) -> tuple[Node, ...]:
    """The nodes of a tree in pre-order, siblings in the order of ``entries``.

    Raises
    ------
    TaxonomyError
        A code, name or colour is invalid or taken, a parent is missing, or classes are each other's parents;
        begins with ``source`` and the entry's line.
    """
    if not entries:
        raise TaxonomyError(f"{source}: there are no classes; a taxonomy has at least one")
    for entry in entries:
        _check_entry(entry, source)
    _check_codes(entries, source)
    parents = _parents(entries, source)
    children: dict[int | None, list[Entry]] = {}
    for entry in entries:
        children.setdefault(parents[entry.code], []).append(entry)
    for siblings in children.values():
        _check_siblings(siblings, source)
    nodes = tuple(_preorder(children, source))
    if len(nodes) < len(entries):
        _refuse_cycle(entries, parents, {node.code for node in nodes}, source)
    return nodes


def _preorder(children: dict[int | None, list[Entry]], source: str) -> Iterator[Node]:
    pending: list[tuple[Entry, Node | None]] = [(entry, None) for entry in reversed(children.get(None, []))]
    while pending:
        entry, above = pending.pop()
        path = (*above.path, entry.name) if above else (entry.name,)
        if len(path) > DEPTH_LIMIT:
            raise TaxonomyError(
                f"{place(entry, source)}: classes are nested more than {DEPTH_LIMIT} levels deep"
            )
        parent = above.code if above else None
        node = Node(entry.code, entry.name, entry.color, len(path), parent, path, tidy(entry.title))
        yield node
        pending.extend((child, node) for child in reversed(children.get(entry.code, [])))


def place(entry: Entry, source: str) -> str:
    return f"{source}:{entry.line}" if entry.line else source


def check_name(name: object, where: str) -> None:
    """Refuses a name that would break a path, a file name or a table."""
    if not isinstance(name, str) or not name.strip():
        raise TaxonomyError(f"{where}: the name is {name!r}; expected text")
    if name != name.strip():
        raise TaxonomyError(f"{where}: name {name!r} begins or ends with a space; remove it")
    if "/" in name:
        raise TaxonomyError(
            f"{where}: name {name!r} holds '/', which parts the names of a path; use another sign"
        )
    if not name.isprintable():
        raise TaxonomyError(f"{where}: name {name!r} holds a line break or an invisible character; remove it")
    if len(name) > NAME_LIMIT:
        raise TaxonomyError(f"{where}: name {name[:40]!r}… has {len(name)} characters; at most {NAME_LIMIT}")


def tidy(text: str) -> str:
    """Prose without blank ends, tabs, odd spaces and odd line breaks, so that YAML gives back the same text."""
    lines = re.sub(r"\r\n?|[\x85\u2028\u2029]", "\n", text).split("\n")
    spaced = (re.sub(r"\s", " ", line) for line in lines)
    return "\n".join("".join(c for c in line if c.isprintable()).rstrip() for line in spaced).strip()


def _check_entry(entry: Entry, source: str) -> None:
    where = place(entry, source)
    if isinstance(entry.code, bool) or not isinstance(entry.code, int):
        raise TaxonomyError(f"{where}: code {entry.code!r} of class {entry.name!r} is not a whole number")
    if not 1 <= entry.code <= CODE_LIMIT:
        why = "0 stands for no data; " if entry.code == 0 else ""
        raise TaxonomyError(
            f"{where}: code {entry.code} of class {entry.name!r} is out of range; {why}expected 1 to {CODE_LIMIT}"
        )
    check_name(entry.name, where)
    if "\n" in tidy(entry.title):
        raise TaxonomyError(f"{where}: the title of class {entry.name!r} has several lines; expected one")
    color = entry.color
    whole = isinstance(color, tuple) and all(isinstance(c, int) and not isinstance(c, bool) for c in color)
    if not whole or len(color) != 3 or not all(0 <= c <= 255 for c in color):
        raise TaxonomyError(
            f"{where}: colour {color!r} of class {entry.name!r}; expected (red, green, blue), each from 0 to 255"
        )


def _earlier(entry: Entry) -> str:
    return f" on line {entry.line}" if entry.line else ""


def _check_codes(entries: Sequence[Entry], source: str) -> None:
    taken: dict[int, Entry] = {}
    for entry in entries:
        if (other := taken.setdefault(entry.code, entry)) is not entry:
            raise TaxonomyError(
                f"{place(entry, source)}: code {entry.code} of class {entry.name!r} belongs to class {other.name!r}"
                f"{_earlier(other)} already; every class has a code of its own"
            )


def _check_siblings(siblings: Sequence[Entry], source: str) -> None:
    taken: dict[str, Entry] = {}
    for entry in siblings:
        if (other := taken.setdefault(entry.name, entry)) is not entry:
            raise TaxonomyError(
                f"{place(entry, source)}: name {entry.name!r} belongs to a sibling{_earlier(other)} already; "
                "two classes under one parent have different names"
            )


def _parents(entries: Sequence[Entry], source: str) -> dict[int, int | None]:
    """Each code's parent code, with the parents given by name looked up."""
    codes = {entry.code for entry in entries}
    named: dict[str, list[int]] = {}
    for entry in entries:
        named.setdefault(entry.name, []).append(entry.code)
    found: dict[int, int | None] = {}
    for entry in entries:
        parent = entry.parent
        if isinstance(parent, str):
            matches = named.get(parent, [])
            if len(matches) > 1:
                raise TaxonomyError(
                    f"{place(entry, source)}: several classes are called {parent!r}; "
                    f"name the parent of {entry.name!r} by its code, one of {', '.join(map(str, matches))}"
                )
            if not matches:
                close = difflib.get_close_matches(parent, named, 1)
                hint = f"did you mean {close[0]!r}?" if close else "add it, or drop the 'parent'"
                raise TaxonomyError(
                    f"{place(entry, source)}: orphan: class {entry.name!r} has the parent {parent!r}, "
                    f"which is not in the list; {hint}"
                )
            parent = matches[0]
        elif parent is not None and parent not in codes:
            raise TaxonomyError(
                f"{place(entry, source)}: orphan: class {entry.name!r} has the parent {parent}, "
                "and no class has that code"
            )
        found[entry.code] = parent
    return found


def _refuse_cycle(
    entries: Sequence[Entry], parents: dict[int, int | None], reached: set[int], source: str
) -> None:
    """Names the classes of a cycle: what the walk from the top did not reach hangs on one."""
    by_code = {entry.code: entry for entry in entries}
    code: int | None = next(entry.code for entry in entries if entry.code not in reached)
    walk: list[int] = []
    while code is not None and code not in walk:
        walk.append(code)
        code = parents[code]
    assert code is not None  # an entry with a way up to the top would have been reached
    cycle = [by_code[c] for c in walk[walk.index(code) :]]
    first = min(cycle, key=entries.index)
    loop = " under ".join(repr(entry.name) for entry in (*cycle, cycle[0]))
    raise TaxonomyError(
        f"{place(first, source)}: cycle: {loop}; give one of them a parent nearer the top, or none"
    )
