"""The class tree: codes, names, colours, and which leaves lie under which node.

Label rasters hold node codes (1 to 65535); 0 is no data.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rssegment.errors import OutputError, TaxonomyError
from rssegment.taxonomy.arrays import TreeArrays
from rssegment.taxonomy.packaged import TAXONOMIES, packaged, read_yaml
from rssegment.taxonomy.tree import CODE_LIMIT, Color, Node, arrange, check_name, tidy
from rssegment.taxonomy.yaml_form import PROSE, Document, Entry, parse, render

__all__ = ["Node", "Taxonomy"]

_UNDECIDED_COLOR = (190, 190, 190)


@dataclass(frozen=True)
class Taxonomy:
    """A tree of classes, or several trees side by side; equal and hashable by content.

    ``nodes`` are in pre-order (each before its children). The order of :attr:`leaves` is the order of a
    model's channels, unless its bundle says otherwise.
    """

    name: str
    nodes: tuple[Node, ...]
    title: str = ""
    description: str = ""
    source: str = ""
    credit: str = ""

    def __post_init__(self) -> None:
        for key in PROSE:
            object.__setattr__(self, key, tidy(getattr(self, key)))
        where = f"taxonomy {self.name!r}"
        check_name(self.name, where)
        if self.nodes != arrange(self._document.entries, where):
            raise TaxonomyError(
                f"{where}: nodes must be in pre-order with their levels and paths; use Taxonomy.loads"
            )

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone; what was derived from them is cheap to derive again."""
        return {key: self.__dict__[key] for key in self.__dataclass_fields__}

    # Files

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """The taxonomy of a YAML file, or the packaged one of that bare name (see :meth:`available`).

        Raises
        ------
        TaxonomyError
            There is no such file or name, or the file is no class tree (with the line at fault).
        """
        return cls.loads(*read_yaml(source, TAXONOMIES))

    @classmethod
    def loads(cls, text: str, source: str = "<string>") -> Self:
        """The taxonomy written in ``text`` (YAML); ``source`` names it in messages.

        Raises
        ------
        TaxonomyError
            The text is no class tree; names the line.
        """
        document = parse(text.removeprefix("\ufeff"), source)
        check_name(document.name, f"{source}:{document.line}")
        nodes = arrange(document.entries, source)
        return cls(document.name, nodes, **{key: getattr(document, key) for key in PROSE})

    @classmethod
    def flat(cls, name: str, classes: Mapping[int, tuple[str, Color]]) -> Self:
        """A tree of one level from ``{code: (name, (r, g, b))}``, codes and colours from NumPy or not."""
        entries = [Entry(_plain(code), label, _plain(color)) for code, (label, color) in classes.items()]
        return cls(name, arrange(entries, f"taxonomy {name!r}"))

    @staticmethod
    def available() -> tuple[str, ...]:
        """Names of the packaged taxonomies."""
        return tuple(packaged(TAXONOMIES))

    def dump(self) -> str:
        """The YAML text; ``Taxonomy.loads(t.dump()) == t``."""
        return render(self._document)

    def save(self, path: str | Path) -> None:
        """Writes the YAML text to a file."""
        try:
            Path(path).write_text(self.dump(), encoding="utf-8", newline="\n")
        except OSError as error:
            raise OutputError(f"can't write the taxonomy to {path}: {error.strerror or error}") from error

    # The tree

    @cached_property
    def leaves(self) -> tuple[Node, ...]:
        """Nodes without children, in pre-order."""
        return tuple(node for node in self.nodes if not self._children[node.code])

    @cached_property
    def depth(self) -> int:
        """The deepest node's level."""
        return max(node.level for node in self.nodes)

    def node(self, key: int | str | Node) -> Node:
        """The node of a code, a unique name, or a path ``"a/b/c"`` (whole, or a unique tail of one).

        A whole path wins over a name: with a top node ``water`` that has a child ``water``, ``"water"`` is the
        top node and ``"water/water"`` its child.

        Raises
        ------
        TaxonomyError
            There is no such node, or several.
        """
        if isinstance(key, Node):
            key = key.code
        if not isinstance(key, str):
            found = self._by_code.get(key)
            if found is None:
                raise TaxonomyError(
                    f"taxonomy {self.name!r} has no code {key}; its codes are {self._codes_text}"
                )
            return found
        return self._node_by_path(key)

    def _node_by_path(self, key: str) -> Node:
        parts = tuple(key.split("/"))
        tails = [node for node in self.nodes if node.path[-len(parts) :] == parts]
        whole = [node for node in tails if node.path == parts]
        if len(found := whole or tails) == 1:
            return found[0]
        if found:
            paths = ", ".join("/".join(node.path) for node in found)
            raise TaxonomyError(
                f"{key!r} names several classes of taxonomy {self.name!r}; say which: {paths}"
            )
        close = difflib.get_close_matches(parts[-1], [node.name for node in self.nodes], 3) or [
            node.name for node in self.nodes[:20]
        ]
        raise TaxonomyError(f"taxonomy {self.name!r} has no class {key!r}; it has {', '.join(close)}")

    def children(self, node: int | str | Node) -> tuple[Node, ...]:
        """The nodes one level below, in order."""
        return self._children[self.node(node).code]

    def ancestors(self, node: int | str | Node) -> tuple[Node, ...]:
        """The nodes above, from the top down to the parent."""
        found: list[Node] = []
        parent = self.node(node).parent
        while parent is not None:
            found.append(self._by_code[parent])
            parent = found[-1].parent
        return tuple(reversed(found))

    def level(self, k: int) -> tuple[Node, ...]:
        """Nodes of level ``k`` and shallower leaves, in pre-order: each leaf lies under exactly one of them.

        Raises
        ------
        TaxonomyError
            There is no such level.
        """
        self._check_level(k)
        return tuple(n for n in self.nodes if n.level == k or (n.level < k and not self._children[n.code]))

    # What a map may leave open

    @property
    def undecided(self) -> int:
        """The code, which is no class's, of pixels where not even a top class is sure: 255 or 65535, whichever is free.

        Raises
        ------
        TaxonomyError
            A class has that code.
        """
        code = 255 if max(self._by_code) < 255 else CODE_LIMIT
        if code in self._by_code:
            raise TaxonomyError(
                f"taxonomy {self.name!r} uses code {code} for {self._by_code[code].name!r}, which a decision that may "
                "stay open needs for 'undecided'; give that class another code"
            )
        return code

    def with_undecided(self) -> Taxonomy:
        """The same classes and, as one more at the top, "undecided": what a map of such decisions holds."""
        name = (
            "undecided"
            if all(n.name != "undecided" for n in self.nodes if n.parent is None)
            else "undecided pixels"
        )
        open_ = Node(self.undecided, name, _UNDECIDED_COLOR, 1, None, (name,), "Undecided")
        return replace(self, nodes=(*self.nodes, open_))

    # Arrays

    @cached_property
    def arrays(self) -> TreeArrays:
        """Parents, levels, leaves and membership as arrays over :attr:`nodes`."""
        return TreeArrays.of(self.nodes, self.leaves)

    @property
    def membership(self) -> NDArray[np.bool_]:
        """(N nodes, L leaves): whether a leaf is the node or lies under it. Read-only."""
        return self.arrays.membership

    @cached_property
    def leaf_codes(self) -> NDArray[np.uint16]:
        """(L,): the leaves' codes in channel order. Read-only."""
        codes = np.array([leaf.code for leaf in self.leaves], np.uint16)
        codes.flags.writeable = False
        return codes

    def ancestor_lookup(self, level: int) -> NDArray[np.uint16]:
        """(65536,): for every code that of its ancestor at ``level``.

        Nodes at that level or above map to themselves, 0 and codes that are not in the tree to 0.
        """
        self._check_level(level)
        lookup, codes = np.zeros(CODE_LIMIT + 1, np.uint16), self.arrays.codes
        lookup[codes] = codes[self.arrays.ancestors_at(np.arange(len(codes)), level)]
        return lookup

    def colormap(self) -> dict[int, tuple[int, int, int, int]]:
        """``{code: (r, g, b, 255)}`` for a raster's colour table, with 0 transparent."""
        return {0: (0, 0, 0, 0)} | {node.code: (*node.color, 255) for node in self.nodes}

    def category_names(self) -> dict[int, str]:
        """``{code: label}`` for a raster's category names, with 0; a label that several share becomes the path."""
        times = Counter(node.label for node in self.nodes)
        labels = {n.code: n.label if times[n.label] == 1 else "/".join(n.path) for n in self.nodes}
        return {0: "no data"} | labels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the whole content: equal taxonomies, and only they, have equal fingerprints."""
        content = [
            self.name,
            *(getattr(self, key) for key in PROSE),
            [asdict(e) for e in self._document.entries],
        ]
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    # Derived once

    @cached_property
    def _by_code(self) -> dict[int, Node]:
        return {node.code: node for node in self.nodes}

    @cached_property
    def _children(self) -> dict[int, tuple[Node, ...]]:
        lists: dict[int, list[Node]] = {node.code: [] for node in self.nodes}
        for node in self.nodes:
            if node.parent is not None:
                lists[node.parent].append(node)
        return {code: tuple(nodes) for code, nodes in lists.items()}

    @property
    def _document(self) -> Document:
        entries = tuple(Entry(n.code, n.name, n.color, n.title, n.parent) for n in self.nodes)
        return Document(self.name, entries, **{key: getattr(self, key) for key in PROSE})

    @property
    def _codes_text(self) -> str:
        codes = sorted(self._by_code)
        return ", ".join(map(str, codes[:40])) + (f", … {codes[-1]}" if len(codes) > 40 else "")

    def _check_level(self, level: int) -> None:
        if not 1 <= level <= self.depth:
            raise TaxonomyError(f"taxonomy {self.name!r} has levels 1 to {self.depth}; got {level}")


def _plain(value: Any) -> Any:
    """NumPy numbers as Python's own, inside a sequence too."""
    if isinstance(value, np.integer):
        return int(value)
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list, np.ndarray)) else value
