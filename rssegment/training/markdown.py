"""Tables, numbers and words of the pages that a training writes, as Markdown."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from rssegment.taxonomy import Node

__all__ = [
    "area",
    "duration",
    "line",
    "nested",
    "option",
    "paragraph",
    "score_text",
    "sentence",
    "shared",
    "slug",
    "some",
    "table",
]

_DIRECTIONS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; columns but the first are right-aligned where all they hold are numbers."""
    cells = [[_cell(value) for value in row] for row in rows]
    columns = list(zip(*cells, strict=True)) or [() for _ in heads]
    numbers = [all(re.match(r"[\d–]", text) for text in column) and bool(column) for column in columns]
    marks = ["---:" if number and i else "---" for i, number in enumerate(numbers)]
    lines = [list(map(_cell, heads)), marks, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return line(str(value)).replace("|", "\\|")


def line(text: str) -> str:
    """One line, without what Markdown would take for HTML or what turns its direction; links between < and > stay."""
    return re.sub(r"<(?!https?://)", "&lt;", " ".join(_DIRECTIONS.sub("", text).split()))


def paragraph(text: str) -> str:
    """One line that begins no heading, list, rule or block of code."""
    return re.sub(r"^(?=[#>+*=|_`~-])|^(\d+)(?=[.)])", r"\1\\", line(text))


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    whole = line(text)
    return f"{whole[:1].upper()}{whole[1:].rstrip('.')}."


def nested(node: Node) -> str:
    """A class with room before it for each level above."""
    return "&emsp;" * (node.level - 1) + node.label


def score_text(value: float | None) -> str:
    """Three decimals, a dash for what is not defined."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def area(square_metres: float) -> str:
    """Square kilometres, a dash for none."""
    if not square_metres:
        return "–"
    kilometres = square_metres / 1e6
    return f"{kilometres:.3g} km²" if kilometres < 99.5 else f"{kilometres:,.0f} km²"


def shared(part: float, whole: float) -> str:
    """An area, and its share of the ``whole``."""
    return f"{area(part)} ({part / whole:.1%})" if part else "–"


def duration(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def option(value: object) -> str:
    """A setting's value in words."""
    return "on" if value is True else f"{value:g}" if isinstance(value, float) else str(value)


def some(names: Sequence[str], most: int = 20) -> str:
    """A list in words, cut after ``most``."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(line, names[:most])) + rest


def slug(text: str) -> str:
    """A name of small letters without accents, digits, dots and dashes."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.sub(r"[^0-9a-z.-]+", "-", plain).strip("-.")
