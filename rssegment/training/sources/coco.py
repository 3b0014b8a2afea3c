"""What sources of COCO's two kinds share: the JSON file, its categories and its images.

The file is ``labels``, or ``folder``/annotations/<kind>_<subset>.json; images are those that ``images`` matches or that
lie in the folder that it names, or ``folder``/<subset>, ``folder``/images/<subset> or ``folder``/images.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rssegment.errors import InputError, MismatchError
from rssegment.taxonomy import ClassMapping
from rssegment.training.sources.classes import by_name
from rssegment.training.sources.patterns import images_of, listed_missing
from rssegment.training.sources.scenes import Task

__all__ = ["Annotations", "Json", "field", "is_crowd", "once"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Annotations:
    """A COCO file: ``codes`` of categories by id, its ``images`` by id, and annotations by the image's id."""

    path: Path
    codes: Mapping[int, int]
    images: Mapping[int, Json]
    of_image: Mapping[int, Sequence[Json]]

    @classmethod
    def load(cls, task: Task, prefix: str) -> Annotations:
        """The file of a source, whose usual name begins with ``prefix``.

        Raises
        ------
        InputError
            There is no such file, it isn't COCO's, lists an id twice, or categories are unknown.
        """
        path = _file(task, prefix)
        values = _read(path)
        categories = once(values["categories"], "categories", str(path), path)
        names = {key: field(each, "name", str, path) for key, each in categories.items()}
        mapping: ClassMapping = by_name(names, task.mapping, task.taxonomy, f"source {task.name!r}")
        images = once(values["images"], "images", str(path), path)
        of_image: dict[int, list[Json]] = {key: [] for key in images}
        for each in values["annotations"]:
            key = field(each, "image_id", int, path)
            if key not in of_image:
                raise InputError(f"{path} has an annotation of image {key}, which it doesn't list")
            of_image[key].append(each)
        codes = {value: code for value, code in mapping.classes if isinstance(value, int)}
        return cls(path, codes, images, of_image)

    def code(self, category: int) -> int:
        """The class of a category; raises InputError if the file doesn't list it."""
        if category not in self.codes:
            raise InputError(f"{self.path} has annotations of category {category}, which it doesn't list")
        return self.codes[category]

    def paths(self, task: Task) -> dict[int, str]:
        """Where each image lies, by its id: the file whose path ends most as the image's name does.

        Raises
        ------
        InputError
            Images that aren't there: lists them; or an image that may be either of two files, or two that are one.
        """
        names = {key: field(each, "file_name", str, self.path) for key, each in self.images.items()}
        if not names:
            raise InputError(f"{self.path} lists no images")
        files: dict[str, list[str]] = {}
        for path in {os.path.normpath(each): each for each in _candidates(task)}.values():
            files.setdefault(os.path.basename(path), []).append(path)
        missing = [name for name in names.values() if _tail(name)[0] not in files]
        listed_missing(missing, list(names), "file where 'images' says", task.name)
        found = {key: self._nearest(name, files[_tail(name)[0]]) for key, name in names.items()}
        self._check_apart(names, found)
        return found

    def _nearest(self, name: str, files: Sequence[str]) -> str:
        """Of files of an image's own name the one that shares most folders with it, counted from the end."""
        if len(files) == 1:
            return files[0]
        shared = [_shared(_tail(name), _tail(file)) for file in files]
        most = max(shared)
        best = [file for file, count in zip(files, shared, strict=True) if count == most]
        if len(best) > 1:
            raise InputError(
                f"{self.path} lists the image {name}, and {len(best)} files may be it: {', '.join(best[:5])}; say more "
                "narrowly by 'images' where the images are, or give the folder in 'file_name'"
            )
        return best[0]

    def _check_apart(self, names: Mapping[int, str], found: Mapping[int, str]) -> None:
        """Refuses two images that are one file."""
        first: dict[str, int] = {}
        for key, file in found.items():
            other = first.setdefault(file, key)
            if other != key:
                raise InputError(
                    f"{self.path} lists images {other} ({names[other]}) and {key} ({names[key]}), and both are {file}; "
                    "expected a file for each: add the one that is missing, or list the image once"
                )

    def check_size(self, key: int, path: str, shape: tuple[int, int]) -> None:
        """Compares the (rows, cols) of an image's file with what is said of it; raises MismatchError if they differ."""
        told = tuple(field(self.images[key], side, int, self.path) for side in ("height", "width"))
        if told != shape:
            raise MismatchError(
                f"{path} has {shape[0]} x {shape[1]} px (rows x cols), and {self.path} says {told[0]} x {told[1]}; "
                "give the images that were annotated"
            )


def field(values: Json, key: str, kind: type, path: Path) -> Any:
    """A value of an entry, of a type; raises InputError if it isn't there."""
    value = values.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(
            f"{path}: {str(values)[:80]} has no {key!r} that is {kind.__name__}; it isn't as COCO's files are"
        )
    return value


def once(entries: Sequence[Json], what: str, where: str, path: Path) -> dict[int, Json]:
    """Entries by their ids; raises InputError if two have the same."""
    found = {field(each, "id", int, path): each for each in entries}
    if len(found) < len(entries):
        key, times = Counter(each["id"] for each in entries).most_common(1)[0]
        raise InputError(
            f"{where} lists {times} {what} of id {key}; expected each id once: renumber or remove them"
        )
    return found


def is_crowd(entry: Json, path: Path) -> bool:
    """Whether an entry is of a crowd; raises InputError if what it says of that is neither 0 nor 1."""
    value = entry.get("iscrowd", 0)
    if not isinstance(value, int | float) or value not in (0, 1):
        raise InputError(
            f"{path}: {str(entry)[:80]} has 'iscrowd' {value!r:.40}; expected 0 or 1, as numbers"
        )
    return bool(value)


def _tail(path: str) -> list[str]:
    """The parts of a path from its end on; [""] if it has none."""
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")][::-1] or [""]


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common before the first that differs."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return (*same, False).index(False)


def _file(task: Task, prefix: str) -> Path:
    if task.options.labels is not None:
        path = task.root / task.options.labels
    else:
        folder, subset = task.folder(), task.options.subset
        names = (
            [f"{prefix}_{subset}.json"]
            if subset
            else [each.name for each in folder.glob(f"annotations/{prefix}_*.json")]
        )
        if len(names) != 1:
            raise InputError(
                f"source {task.name!r}: {folder / 'annotations'} has {len(names)} files {prefix}_*.json; say which one "
                f"by 'subset', or give it by 'labels'"
            )
        path = folder / "annotations" / names[0]
    if not path.is_file():
        raise InputError(f"source {task.name!r}: there is no file {path}; give COCO's JSON file by 'labels'")
    return path


def _read(path: Path) -> Json:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"can't read {path} as JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        listed = values.get(key) if isinstance(values, dict) else None
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise InputError(
                f"{path} has no list of {key!r}; expected a file as COCO's, with images, annotations, categories"
            )
    found: Json = values
    return found


def _candidates(task: Task) -> Sequence[str]:
    """Files among which the images are."""
    given = task.options.images
    if given is not None:
        patterns = (given,) if isinstance(given, str) else given
        return images_of(
            tuple(f"{p}/*" if (task.root / p).is_dir() else p for p in patterns), task.root, task.name
        )
    folder, subset = task.folder(), task.options.subset or ""
    for each in (folder / subset, folder / "images" / subset, folder / "images"):
        if each != folder and each.is_dir():
            return [str(path) for path in sorted(each.iterdir()) if path.is_file()]
    raise InputError(
        f"source {task.name!r}: {folder} has no folder of images; say by 'images' where they are"
    )
