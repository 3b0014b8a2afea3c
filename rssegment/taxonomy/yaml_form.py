"""The YAML form of a class tree: text to entries that know their lines, and back.

Nothing but plain text, whole numbers, lists and keys gets in: tags, aliases, merge keys, duplicate keys and
words that YAML turns into something else (``no``, ``0x10``, ``1:30``) are refused with their line.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from rssegment.errors import TaxonomyError

__all__ = ["DEPTH_LIMIT", "PROSE", "Document", "Entry", "decode", "parse", "render"]

DEPTH_LIMIT = 64  # levels; the YAML composer recurses, so a deeper file could exhaust the stack
PROSE = ("title", "description", "source", "credit")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
    "merge": "a merge key",
    "value": "a default key",
}
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One class as written down: ``parent`` is a code or a name, ``line`` 0 where there is no file."""

    code: int
    name: str
    color: tuple[int, int, int]
    title: str = ""
    parent: int | str | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A taxonomy file: its heading and its classes; ``line`` is where its name stands, 0 if there is no file."""

    name: str
    entries: tuple[Entry, ...]
    title: str = ""
    description: str = ""
    source: str = ""
    credit: str = ""
    line: int = 0


def decode(data: bytes, source: str) -> str:
    """The text of a file's bytes: UTF-8, with or without a byte order mark.

    Raises
    ------
    TaxonomyError
        The bytes are not UTF-8; names the line.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise TaxonomyError(f"{source}:1: the file is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaxonomyError(
            f"{source}:{line}: byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8"
        ) from error


def parse(text: str, source: str) -> Document:
    """The document that ``text`` writes down; ``source`` names it in messages.

    Classes are nested under ``classes``, or a plain list whose members name their ``parent`` by code or name.

    Raises
    ------
    TaxonomyError
        The text is no taxonomy; names the line. Whether the classes form a tree is left to the caller.
    """
    reader = _Reader(source)
    reader.check_characters(text)
    try:
        reader.check_events(text)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        reader.fail(_line(error.problem_mark or error.context_mark), _yaml_fault(error))
    assert root is not None  # an empty stream was refused with the events
    return reader.document(root)


def _line(mark: Any) -> int:
    return 0 if mark is None else int(mark.line) + 1


def _yaml_fault(error: yaml.MarkedYAMLError) -> str:
    problem = " ".join(part for part in (error.context, error.problem) if part)
    if "cannot start any token" in problem or "tab" in problem:
        problem += " (YAML is indented with spaces, never tabs; text that begins with %, @ or ` needs quotes)"
    elif "flow" in problem:
        problem += " (is a bracket or comma missing, or the # of a colour not in quotes?)"
    return f"not valid YAML: {problem}"


class _Reader:
    """Takes composed YAML apart, and puts file and line to every fault."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, line: int, message: str) -> NoReturn:
        raise TaxonomyError(f"{self.source}:{line}: {message}" if line else f"{self.source}: {message}")

    def check_characters(self, text: str) -> None:
        if found := _UNREADABLE.search(text):
            line = text.count("\n", 0, found.start()) + 1
            self.fail(line, f"character U+{ord(found[0]):04X} can't stand in a text file; remove it")

    def check_events(self, text: str) -> None:
        """Refuses what must not reach the composer: aliases, tags, a second document, endless nesting."""
        open_anchors: list[str | None] = []
        documents = 0
        for event in yaml.parse(text, Loader=_Loader):
            line = _line(event.start_mark)
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self.fail(
                        line,
                        "a second document starts here; a taxonomy file holds one, without '---' between",
                    )
            elif isinstance(event, yaml.AliasEvent):
                self._refuse_alias(str(event.anchor), open_anchors, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                open_anchors.append(event.anchor)
                if len(open_anchors) > 2 * DEPTH_LIMIT + 1:
                    self.fail(line, f"classes are nested more than {DEPTH_LIMIT} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                open_anchors.pop()
            if (tag := getattr(event, "tag", None)) not in (None, "!"):
                self.fail(line, f"tag {tag!r} is not allowed; a taxonomy holds plain text and numbers only")
        if documents == 0:
            self.fail(1, "the file is empty; expected 'name:' and 'classes:'")

    def _refuse_alias(self, anchor: str, open_anchors: list[str | None], line: int) -> NoReturn:
        if anchor in open_anchors:
            self.fail(line, f"cycle: *{anchor} puts a class inside itself")
        self.fail(line, f"alias *{anchor} is not allowed; each class has a code of its own, so write it out")

    def mapping(self, node: yaml.Node, known: Collection[str], what: str) -> dict[str, yaml.Node]:
        """The keys and values of a mapping whose keys are all ``known`` and all different."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(
                _line(node.start_mark), f"{what} is {_kind(node)}; expected keys and values, as 'name: water'"
            )
        values: dict[str, yaml.Node] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = _line(key.start_mark)
            name = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
            if name == "<<":
                self.fail(line, "merge key '<<' is not allowed; write the class out")
            if name not in known:
                self.fail(line, f"unknown key '{name}' in {what}; {_suggest(name, known)}")
            if name in values:
                self.fail(line, f"key '{name}' is given twice in {what}, first on line {lines[name]}")
            values[name], lines[name] = value, line
        return values

    def text(self, node: yaml.Node, key: str) -> str:
        """A scalar that YAML itself reads as text."""
        line = _line(node.start_mark)
        if not isinstance(node, yaml.ScalarNode):
            self.fail(line, f"'{key}' is {_kind(node)}; expected text")
        if node.tag != _TAG + "str":
            if not node.value:
                self.fail(line, f"'{key}' is empty")
            self.fail(
                line, f'YAML reads {key} {node.value} as {_kind(node)}; quote it: {key}: "{node.value}"'
            )
        return str(node.value)

    def code(self, node: yaml.Node, key: str) -> int:
        """A scalar written as a plain decimal number."""
        line = _line(node.start_mark)
        expected = "expected a whole number from 1 to 65535"
        if not isinstance(node, yaml.ScalarNode):
            self.fail(line, f"'{key}' is {_kind(node)}; {expected}")
        if node.style:
            self.fail(line, f"'{key}' is the text {node.value!r}; {expected}, without quotes")
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", node.value):
            self.fail(line, f"'{key}' is {node.value[:40] or 'empty'}; {expected}, in plain decimal digits")
        return int(node.value)

    def color(self, node: yaml.Node) -> tuple[int, int, int]:
        line = _line(node.start_mark)
        expected = 'expected six hexadecimal digits in quotes, as color: "#3C1098"'
        if not isinstance(node, yaml.ScalarNode):
            self.fail(line, f"'color' is {_kind(node)}; {expected}")
        if not node.value:
            self.fail(line, f"'color' is empty, since an unquoted # starts a comment in YAML; {expected}")
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", node.value):
            self.fail(line, f"'color' is {node.value!r}; {expected}")
        red, green, blue = bytes.fromhex(node.value[1:])
        return red, green, blue

    def document(self, root: yaml.Node) -> Document:
        values = self.mapping(root, ("name", *PROSE, "classes"), "the file")
        for key in ("name", "classes"):
            if key not in values:
                self.fail(_line(root.start_mark), f"the file has no '{key}:'")
        prose = {key: self.text(values[key], key) for key in PROSE if key in values}
        entries = tuple(self.entries(values["classes"], None))
        name = values["name"]
        return Document(self.text(name, "name"), entries, **prose, line=_line(name.start_mark))

    def entries(self, node: yaml.Node, parent: int | None) -> Iterator[Entry]:
        """The classes of a list and, after each, those nested in it."""
        if not isinstance(node, yaml.SequenceNode):
            self.fail(
                _line(node.start_mark), f"'classes' is {_kind(node)}; expected a list, each begun with '- '"
            )
        if not node.value:
            self.fail(_line(node.start_mark), "'classes' is an empty list; a taxonomy has at least one class")
        for item in node.value:
            entry, nested = self.entry(item, parent)
            yield entry
            if nested is not None:
                yield from self.entries(nested, entry.code)

    def entry(self, node: yaml.Node, parent: int | None) -> tuple[Entry, yaml.Node | None]:
        line = _line(node.start_mark)
        values = self.mapping(node, ("code", "name", "color", "title", "parent", "classes"), "a class")
        for key in ("code", "name", "color"):
            if key not in values:
                self.fail(line, f"a class has no '{key}'")
        named: int | str | None = parent
        if (reference := values.get("parent")) is not None:
            if parent is not None:
                self.fail(_line(reference.start_mark), "a class nested in another can't also name a 'parent'")
            is_code = reference.tag == _TAG + "int"
            named = self.code(reference, "parent") if is_code else self.text(reference, "parent")
        title = self.text(values["title"], "title") if "title" in values else ""
        name, color = self.text(values["name"], "name"), self.color(values["color"])
        return Entry(self.code(values["code"], "code"), name, color, title, named, line), values.get(
            "classes"
        )


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a set of keys and values"
    return _KINDS.get(node.tag.removeprefix(_TAG), "text")


def _suggest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(known)}"


def render(document: Document) -> str:
    """The YAML text of a document whose entries' parents are codes; :func:`parse` gives the document back."""
    lines = [f"name: {_scalar(document.name)}"]
    for key in PROSE:
        if value := getattr(document, key):
            lines.append(f"{key}: {_block(value)}")
    children: dict[int | str | None, list[Entry]] = {}
    for entry in document.entries:
        children.setdefault(entry.parent, []).append(entry)
    return "\n".join([*lines, *_list(None, children, "")]) + "\n"


def _list(parent: int | None, children: dict[int | str | None, list[Entry]], indent: str) -> Iterator[str]:
    yield f"{indent}classes:"
    for entry in children[parent]:
        color = '"#{:02X}{:02X}{:02X}"'.format(*entry.color)
        fields = {"code": str(entry.code), "name": _scalar(entry.name), "color": color}
        if entry.title:
            fields["title"] = _scalar(entry.title)
        pairs = [f"{key}: {value}" for key, value in fields.items()]
        if entry.code not in children:
            yield f"{indent}  - {{{', '.join(pairs)}}}"
        else:
            yield f"{indent}  - {pairs[0]}"
            yield from (f"{indent}    {pair}" for pair in pairs[1:])
            yield from _list(entry.code, children, indent + "    ")


def _scalar(text: str) -> str:
    """Plain where YAML reads it back as the same text, else in double quotes (JSON's are a part of YAML's)."""
    words = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*( [A-Za-z0-9_]+)*", text)
    resolver: Any = yaml.SafeLoader("")
    plain = words and resolver.resolve(yaml.ScalarNode, text, (True, False)) == _TAG + "str"
    return text if plain else json.dumps(text, ensure_ascii=False)


def _block(text: str) -> str:
    if "\n" not in text:
        return _scalar(text)
    return "|-\n" + "\n".join(f"  {line}" if line else "" for line in text.split("\n"))
