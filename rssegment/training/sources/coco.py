"""What sources of COCO's two kinds share: the JSON file, its categories and its images.

The file is ``labels``, or ``folder``/annotations/<kind>_<subset>.json; images are those that ``images`` matches or that
lie in the folder that it names, or ``folder``/<subset>, ``folder``/images/<subset> or ``folder``/images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rssegment.errors import InputError
from rssegment.taxonomy import ClassMapping
from rssegment.training.sources.classes import by_name
from rssegment.training.sources.patterns import images_of, listed_missing
from rssegment.training.sources.scenes import Task

__all__ = ["Annotations", "Json", "field"]

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
            There is no such file, it isn't COCO's, or categories are unknown.
        """
        path = _file(task, prefix)
        values = _read(path)
        names = {
            field(each, "id", int, path): field(each, "name", str, path) for each in values["categories"]
        }
        mapping: ClassMapping = by_name(names, task.mapping, task.taxonomy, f"source {task.name!r}")
        images = {field(each, "id", int, path): each for each in values["images"]}
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
        """Where each image lies, by its id.

        Raises
        ------
        InputError
            Images that aren't there: lists them.
        """
        names = {
            key: os.path.basename(field(each, "file_name", str, self.path))
            for key, each in self.images.items()
        }
        if not names:
            raise InputError(f"{self.path} lists no images")
        found = {os.path.basename(path): path for path in _candidates(task)}
        missing = [name for name in names.values() if name not in found]
        listed_missing(missing, list(names), "file where 'images' says", task.name)
        return {key: found[name] for key, name in names.items()}


def field(values: Json, key: str, kind: type, path: Path) -> Any:
    """A value of an entry, of a type; raises InputError if it isn't there."""
    value = values.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(
            f"{path}: {str(values)[:80]} has no {key!r} that is {kind.__name__}; it isn't as COCO's files are"
        )
    return value


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
