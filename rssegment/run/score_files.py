"""An evaluation's files: scores to read and to process, evidence to merge, a page, and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssegment.errors import InputError, OutputError
from rssegment.evaluation import Evidence, Scores
from rssegment.write.atomic import storage_errors, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rssegment.run.scoring import Evaluation

__all__ = ["EVIDENCE", "check_out", "merged", "write_scores"]

EVIDENCE, SCORES, PAGE = "evidence.json", "scores.json", "scores.html"
_KINDS = (".png", ".svg")


def check_out(out: str | Path, overwrite: bool) -> Path:
    """The folder to write to, before any work is done.

    Raises
    ------
    OutputError
        It is a file, or holds an evaluation that may not be replaced.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"can't write to {folder}: it is a file; choose a folder")
    for name in (SCORES, EVIDENCE, PAGE):
        if (folder / name).exists() and not overwrite:
            raise OutputError(
                f"{folder} holds {name} already; use --overwrite to replace it, or choose another folder"
            )
    return folder


def write_scores(evaluation: Evaluation, out: str | Path, *, overwrite: bool = False) -> dict[str, Path]:
    """Writes scores.json, evidence.json (exact counts, to be merged with others), scores.html and pictures; by name.

    Each file appears whole or not at all.

    Raises
    ------
    OutputError
        The folder holds an earlier evaluation, or can't be written to.
    StorageError
        The disk is full.
    """
    from rssegment.evaluation.html import html
    from rssegment.evaluation.plots import save_plot

    folder = check_out(out, overwrite)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    scores = evaluation.scores
    facts = {name: _in_row(value) for name, value in evaluation.facts.items() if value}
    if remarks := [*evaluation.remarks, *scores.remarks]:
        facts["Remarks"] = remarks
    paths = {name: folder / name for name in (SCORES, EVIDENCE, PAGE)}
    write_bytes(paths[SCORES], _encoded(json.dumps(evaluation.as_dict(), indent=2, ensure_ascii=False)))
    scores.evidence.save(paths[EVIDENCE])
    write_bytes(paths[PAGE], _encoded(html(scores, evaluation.title, facts)))
    for name, figure in _pictures(scores):
        for kind in _KINDS:
            paths[name + kind] = folder / (name + kind)
            save_plot(figure, paths[name + kind])
    return paths


def merged(sources: Sequence[str | Path]) -> Scores:
    """Scores of several evaluations as of one, from their evidence files or the folders that hold them.

    Raises
    ------
    InputError
        A file is no evidence, one is there twice, or they don't belong together.
    """
    files = [Path(each) / EVIDENCE if Path(each).is_dir() else Path(each) for each in sources]
    if not files:
        raise InputError("there is nothing to merge; name evidence.json files, or folders that hold one")
    places = [each.resolve() for each in files]
    for path, place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{path} is named twice; its pixels would count twice")
        if path.name == SCORES:
            raise InputError(f"{path} holds scores, which can't be merged; name {EVIDENCE} beside it")
    found = [Evidence.load(path) for path in files]
    _refuse_copies(files, found)
    return Scores.merge(map(Scores, found))


def _refuse_copies(files: Sequence[Path], found: Sequence[Evidence]) -> None:
    """The same counts of scenes of the same names are the same pixels."""
    seen: dict[str, Path] = {}
    for path, evidence in zip(files, found, strict=True):
        if not evidence.confusion.pixels:
            continue
        if (first := seen.setdefault(json.dumps(evidence.as_dict()), path)) is not path:
            raise InputError(f"{path} holds the same evidence as {first}; its pixels would count twice")


def _encoded(text: str) -> bytes:
    """UTF-8; names of files may have bytes that are no text, which become "?"."""
    return text.encode("utf-8", "replace")


def _in_row(value: Any) -> Any:
    """Numbers in one line; text of its own stays a list."""
    numbers = isinstance(value, list) and all(isinstance(each, int) for each in value)
    return ", ".join(map(str, value)) if numbers else value


def _pictures(scores: Scores) -> Iterator[tuple[str, Figure]]:
    from rssegment.evaluation.plots import backoff_plot, class_plot, confusion_plot, reliability_plot

    yield "confusion", confusion_plot(scores.common.counts)
    yield "classes", class_plot(scores.leaf.counts, scores.boundaries.get(scores.leaf.level))
    if any(each.total for each in scores.reliability.values()):
        yield "reliability", reliability_plot(scores.reliability)
    if scores.curve is not None:
        yield "backoff", backoff_plot(scores.curve)
