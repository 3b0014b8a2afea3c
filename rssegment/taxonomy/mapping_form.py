"""The YAML form of a mapping between classes, with file and line of every fault."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from rssegment.errors import TaxonomyError
from rssegment.taxonomy.taxonomy import Taxonomy

__all__ = ["Reader", "Value"]

Value = int | str

_UNDECIDED = "undecided"
_KEYS = ("name", "title", "target", "classes", "others")
_NESTING = 8  # levels of lists and keys; a mapping has three, and the YAML composer recurses
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Reader:
    """Takes composed YAML apart, and puts file and line to every fault."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, node: yaml.Node | None, message: str) -> NoReturn:
        line = f":{node.start_mark.line + 1}" if node is not None and node.start_mark else ""
        raise TaxonomyError(f"{self.source}{line}: {message}")

    def document(self, text: str) -> dict[str, yaml.Node]:
        """The parts of the file by their keys."""
        root = self._composed(text)
        if not isinstance(root, yaml.MappingNode):
            self.fail(root, "expected keys and values: name, target and classes")
        values: dict[str, yaml.Node] = {}
        for key, value in root.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name not in _KEYS:
                close = difflib.get_close_matches(name, _KEYS, 1)
                hint = f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(_KEYS)}"
                self.fail(key, f"unknown key '{name}' in a mapping; {hint}")
            if name in values:
                self.fail(key, f"key '{name}' is given twice")
            values[name] = value
        for name in ("name", "target", "classes"):
            if name not in values:
                self.fail(root, f"the file has no '{name}:'")
        return values

    def _composed(self, text: str) -> yaml.Node | None:
        try:
            depth = 0
            for event in yaml.parse(text, Loader=_Loader):
                depth += isinstance(event, yaml.CollectionStartEvent)
                depth -= isinstance(event, yaml.CollectionEndEvent)
                if depth > _NESTING:
                    raise TaxonomyError(f"{self.source}: nested too deeply for a mapping of classes")
            return yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            fault = getattr(error, "problem", None) or error
            raise TaxonomyError(f"{self.source}{line}: not valid YAML: {fault}") from error

    def text(self, node: yaml.Node, key: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value or not node.tag.endswith(":str"):
            self.fail(node, f"'{key}' must be text (in quotes, if YAML reads it as something else)")
        return str(node.value)

    def target(self, node: yaml.Node) -> Taxonomy:
        """A packaged taxonomy by name, or a file beside this one."""
        named = self.text(node, "target")
        beside = Path(self.source).parent / named
        try:
            return Taxonomy.load(beside if beside.is_file() else named)
        except TaxonomyError as error:
            self.fail(node, f"the target can't be loaded: {error}")

    def classes(self, node: yaml.Node, target: Taxonomy) -> Iterator[tuple[Value, int]]:
        """Pairs of a source value and a code of the target."""
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self.fail(node, "'classes' must be pairs of a source value and a class, as '3: road'")
        lines: dict[Value, int] = {}
        for key, value in node.value:
            source = self._value(key)
            if source in lines:
                self.fail(key, f"{source!r} is mapped twice, first on line {lines[source]}")
            lines[source] = key.start_mark.line + 1 if key.start_mark else 0
            yield source, self.node(value, target)

    def _value(self, node: yaml.Node) -> Value:
        text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if text and node.tag.endswith(":str"):
            return text
        if re.fullmatch("0|-?[1-9][0-9]{0,17}", text):
            return int(text)
        return self.fail(
            node, "a source value is a whole number in plain decimal digits, or text (in quotes if need be)"
        )

    def node(self, node: yaml.Node, target: Taxonomy) -> int:
        """The code of the class that ``node`` names; 0 for null."""
        if not isinstance(node, yaml.ScalarNode):
            self.fail(node, "expected one class, by code, name or path, or null to leave the value out")
        if node.tag.endswith(":null"):
            return 0
        plain = node.tag.endswith(":int") and node.value.isdecimal()
        if not plain and not node.tag.endswith(":str"):
            self.fail(node, f"YAML reads {node.value} as something else; write the class's name in quotes")
        key: Value = int(node.value) if plain else str(node.value)
        try:
            return target.node(key).code
        except TaxonomyError as error:
            if key == _UNDECIDED:
                return target.undecided
            self.fail(node, str(error))
