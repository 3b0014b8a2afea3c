"""Tables of costs in CSV files."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rssegment.errors import SettingsError, TaxonomyError
from rssegment.taxonomy import Taxonomy

__all__ = ["read_costs"]

_FILE_LIMIT = 64 * 2**20  # bytes
_UNDECIDED = "undecided"

Line = tuple[int, list[str]]


def read_costs(path: Path, taxonomy: Taxonomy) -> tuple[list[list[float]], tuple[int, ...]]:
    """Costs (K, L), columns in channel order, and the codes of the K nodes that may be decided.

    A table whose first cell is a number has no names. Names across are those of leaves, so of two classes called
    ``water`` the leaf is meant; down the side any class can stand, and such a name is refused. Cells are parted by
    commas, semicolons or tabs; with the latter two a decimal comma is understood.

    Raises
    ------
    SettingsError
        The file is no such table, misses a class, or has an invalid cost; names the line.
    """
    return _Table(path, taxonomy).read()


class _Table:
    def __init__(self, path: Path, taxonomy: Taxonomy) -> None:
        self.path, self.taxonomy = path, taxonomy
        self.leaves = [leaf.code for leaf in taxonomy.leaves]
        self.comma = False

    def fail(self, message: str, line: int = 0) -> NoReturn:
        raise SettingsError(f"{self.path}:{line}: {message}" if line else f"{self.path}: {message}")

    def read(self) -> tuple[list[list[float]], tuple[int, ...]]:
        lines = self._lines()
        if self._is_number(lines[0][1][0]):
            return self._plain(lines), tuple(self.leaves)
        return self._named(lines[0], lines[1:])

    def _lines(self) -> list[Line]:
        """Line numbers and cells of lines that aren't blank."""
        try:
            if self.path.stat().st_size > _FILE_LIMIT:
                self.fail(f"{self.path.stat().st_size >> 20} MiB is too large for a table of costs (CSV)")
            text = self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise SettingsError(f"can't read the costs in {self.path}: {error.strerror or error}") from error
        except UnicodeDecodeError:
            self.fail("the file is not UTF-8 text; save the table as CSV (UTF-8)")
        first = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t", key=first.count)  # of equals, the comma
        self.comma = delimiter != ","
        reader = csv.reader(text.splitlines(), delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error as error:
            self.fail(f"not valid CSV: {error}", reader.line_num)
        lines = [(number, cells) for number, cells in lines if any(cells)]
        if not lines:
            self.fail("the file is empty; expected a table of costs")
        return lines

    def _plain(self, lines: Sequence[Line]) -> list[list[float]]:
        size = len(self.leaves)
        for number, cells in lines:
            if len(cells) != size:
                self.fail(f"{len(cells)} costs; expected {size}, one for each leaf of {self._whose}", number)
        if len(lines) != size:
            self.fail(f"{len(lines)} lines of costs; expected {size}, one for each leaf of {self._whose}")
        return [[self._cost(cell, number) for cell in cells] for number, cells in lines]

    def _named(self, head: Line, lines: Sequence[Line]) -> tuple[list[list[float]], tuple[int, ...]]:
        columns = self._columns(head)
        if not lines:
            self.fail("there are no costs below the names of the leaves")
        decided: dict[int, int] = {}
        costs = []
        for number, cells in lines:
            if len(cells) != len(head[1]):
                self.fail(
                    f"{len(cells)} cells; the first line has {len(head[1])}: a corner, and {len(columns)} leaves",
                    number,
                )
            code = self._decided(cells[0], number)
            if (other := decided.setdefault(code, number)) != number:
                self.fail(f"class {cells[0]!r} stands on line {other} already; expected each once", number)
            values = dict(zip(columns, (self._cost(cell, number) for cell in cells[1:]), strict=True))
            costs.append([values[leaf] for leaf in self.leaves])
        return costs, tuple(decided)

    def _columns(self, head: Line) -> list[int]:
        """The codes of the leaves across."""
        number, (_, *names) = head
        columns = [self._leaf(name, number) for name in names]
        for name, code in zip(names, columns, strict=True):
            if code not in self.leaves:
                self.fail(f"{name!r} across has classes below it; expected leaves of {self._whose}", number)
            if columns.count(code) > 1:
                self.fail(f"leaf {name!r} stands twice across; expected each once", number)
        missing = [leaf.name for leaf in self.taxonomy.leaves if leaf.code not in columns]
        if missing:
            self.fail(
                f"no column for {', '.join(missing[:10])}; expected one for each of {len(self.leaves)} leaves",
                number,
            )
        return columns

    def _decided(self, name: str, line: int) -> int:
        if name == _UNDECIDED and all(node.name != _UNDECIDED for node in self.taxonomy.nodes):
            try:
                return self.taxonomy.undecided
            except TaxonomyError as error:
                self.fail(str(error), line)
        found = [node for node in self.taxonomy.nodes if node.name == name]
        if len(found) > 1:
            told = ", ".join(f"{node.code} for {'/'.join(node.path)}" for node in found)
            self.fail(f"several classes of {self._whose} are called {name!r}; write a code: {told}", line)
        return self._code(name, line)

    def _leaf(self, name: str, line: int) -> int:
        """The code of a leaf: of one with this path, else of the only one with this name, or these last names."""
        parts = tuple(name.split("/"))
        tails = [leaf for leaf in self.taxonomy.leaves if leaf.path[-len(parts) :] == parts]
        found = [leaf for leaf in tails if leaf.path == parts] or tails
        if len(found) > 1:
            paths = ", ".join("/".join(leaf.path) for leaf in found)
            self.fail(f"several leaves of {self._whose} are called {name!r}; write a path: {paths}", line)
        return found[0].code if found else self._code(name, line)

    def _code(self, name: str, line: int) -> int:
        """The code of a class by path, by name, or by code."""
        try:
            return self.taxonomy.node(name).code
        except TaxonomyError as error:
            if name.isascii() and name.isdecimal() and len(name) <= 5:
                try:
                    return self.taxonomy.node(int(name)).code
                except TaxonomyError as unknown:
                    self.fail(str(unknown), line)
            self.fail(str(error), line)

    def _number(self, cell: str) -> float:
        return float(cell.replace(",", ".") if self.comma else cell)

    def _is_number(self, cell: str) -> bool:
        try:
            self._number(cell)
        except ValueError:
            return False
        return True

    def _cost(self, cell: str, line: int) -> float:
        try:
            cost = self._number(cell)
        except ValueError:
            cost = math.nan
        if not 0 <= cost < math.inf:
            self.fail(f"cost {cell or 'empty'!r}; expected a number of 0 or more", line)
        return cost

    @property
    def _whose(self) -> str:
        return f"taxonomy {self.taxonomy.name!r}"
