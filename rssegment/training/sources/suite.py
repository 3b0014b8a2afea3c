"""Sources of kind ``suite``: a folder as of Semantic-Segmentation-Suite.

``train/``, ``train_labels/``, ``val/``, ``val_labels/`` and so on, masks of the images' names (or with ``_L`` after
them), and ``class_dict.csv`` with columns name, r, g, b. ``subset`` is the folder that is opened, "train" without.
"""

from __future__ import annotations

import csv
from pathlib import Path

from rssegment.errors import InputError
from rssegment.training.sources.classes import by_name
from rssegment.training.sources.colors import ColorFile
from rssegment.training.sources.fit import on_image
from rssegment.training.sources.patterns import listed_missing
from rssegment.training.sources.scenes import SourceScene, Task

__all__ = ["open_suite"]

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def open_suite(task: Task) -> list[SourceScene]:
    """The images of one subset with their masks.

    Raises
    ------
    InputError
        Folders or masks are missing, ``class_dict.csv`` can't be understood, or classes are unknown.
    """
    folder = task.folder()
    subset = task.options.subset or "train"
    images, masks = folder / subset, folder / f"{subset}_labels"
    for part in (images, masks):
        if not part.is_dir():
            names = ", ".join(sorted(each.name for each in folder.iterdir() if each.is_dir())) or "none"
            raise InputError(
                f"source {task.name!r} is of kind suite, and {folder} has no folder {part.name}; it has {names}"
            )
    classes = _classes(folder / "class_dict.csv")
    mapping = by_name(classes, task.mapping, task.taxonomy, f"source {task.name!r}")
    colors = {color: code for color, code in mapping.classes if isinstance(color, int)}
    paths, found = _pictures(images), {path.stem: path for path in _pictures(masks)}
    if not paths:
        raise InputError(f"source {task.name!r} has no images in {images}; expected {', '.join(_PICTURES)}")
    by_image = {path: found.get(path.stem) or found.get(f"{path.stem}_L") for path in paths}
    missing = [path.name for path, mask in by_image.items() if mask is None]
    listed_missing(missing, paths, f"masks in {masks}", task.name)
    scenes = []
    for path, mask in by_image.items():
        image = task.image(str(path))
        scenes.append(task.scene(image, on_image(ColorFile.of(str(mask), colors, None), None, image)))
    return scenes


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def _classes(path: Path) -> dict[int, str]:
    """Names by colour, red * 65536 + green * 256 + blue."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"can't read {path}: {error}; expected columns name, r, g, b") from error
    found: dict[int, str] = {}
    for number, row in enumerate(rows, start=2):
        try:
            red, green, blue = (int(row[part]) for part in ("r", "g", "b"))
            name = row["name"].strip()
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{path}:{number}: expected columns name, r, g, b, with colours from 0 to 255"
            ) from None
        if not all(0 <= part <= 255 for part in (red, green, blue)) or not name:
            raise InputError(f"{path}:{number}: expected a name and colours from 0 to 255")
        color = red << 16 | green << 8 | blue
        if color in found:
            raise InputError(f"{path}:{number}: {name} has the colour of {found[color]}")
        found[color] = name
    if not found:
        raise InputError(f"{path} lists no classes; expected columns name, r, g, b")
    return found
