"""What a finished run says of itself in ``run.json``: which of the files beside it are its own."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rssegment.errors import InputError
from rssegment.write.atomic import storage_errors
from rssegment.write.leftovers import remove_strays
from rssegment.write.vectors import FORMATS

__all__ = ["RunRecord", "remove_replaced", "replaced"]

RECORD = "run.json"
_RASTER = re.compile(r"labels|confidence|margin|(labels|confidence)_level[1-9][0-9]*")
_BESIDE_RASTERS = ("{name}.aux.xml", "{name}.ovr", "{name}.msk")


@dataclass(frozen=True)
class RunRecord:
    """The files of a run by what they hold: ``rasters`` by name, ``regions`` by format; ``missing``: blocks that it
    has not; ``fingerprint`` of its plan.
    """

    rasters: Mapping[str, Path]
    regions: Mapping[str, Path]
    missing: int = 0
    fingerprint: object = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The record in ``folder``; None where there is none.

        Raises
        ------
        InputError
            It can't be read, or is not as runs write it.
        """
        path = folder / RECORD
        try:
            facts = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"can't read {path}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"it is no JSON ({error})") from error
        if not isinstance(facts, dict):
            raise _damaged(path, "it holds no facts by name")
        missing, plan = facts.get("missing", []), facts.get("plan")
        if not isinstance(missing, list):
            raise _damaged(path, f"'missing' is {str(missing)[:40]}, and no list of blocks")
        return cls(
            {name: folder / file for name, file in _files(facts, "rasters", path) if _is_raster(name, file)},
            {name: folder / file for name, file in _files(facts, "regions", path) if _is_region(name, file)},
            len(missing) if facts.get("status") == "partial" else 0,
            plan.get("fingerprint") if isinstance(plan, dict) else None,
        )

    def files(self) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Each file, with patterns of the names of what belongs to it, as ``remove_strays`` takes them."""
        for path in self.rasters.values():
            yield path, _BESIDE_RASTERS
        for name, path in self.regions.items():
            yield path, (*(f"{{stem}}{end}" for end in FORMATS[name].companions), *FORMATS[name].strays)


def replaced(folder: Path, kept: Collection[Path]) -> dict[Path, tuple[str, ...]]:
    """Files of the run in ``folder`` that are not among ``kept``, and what belongs to each; none of a damaged record.

    Only what that run says it wrote, under the names that runs give: a file of somebody's own is never among them.
    """
    try:
        record = RunRecord.read(folder)
    except InputError:
        return {}
    files = {} if record is None else dict(record.files())
    return {path: beside for path, beside in files.items() if path not in kept and path.is_file()}


def remove_replaced(folder: Path, kept: Collection[Path]) -> None:
    """Removes what :func:`replaced` names.

    Raises
    ------
    OutputError
        A file can't be removed, or another program holds it.
    """
    for path, beside in replaced(folder, kept).items():
        with storage_errors(path):
            remove_strays(path, beside)
            path.unlink(missing_ok=True)


def _files(facts: dict[str, Any], key: str, path: Path) -> Iterator[tuple[str, str]]:
    found = facts.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise _damaged(path, f"{key!r} is {str(found)[:40]}, and no files by name")
    yield from found.items()


def _is_raster(name: str, file: str) -> bool:
    return _RASTER.fullmatch(name) is not None and file == f"{name}.tif"


def _is_region(name: str, file: str) -> bool:
    return name in FORMATS and file == f"regions{FORMATS[name].suffixes[0]}"


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged or wasn't written by rssegment: {why}; run again with --overwrite")
