"""Files by patterns: ``*`` as in the shell, and parts of an image's path in braces."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rssegment.errors import InputError
from rssegment.scene.handles import is_remote

__all__ = ["expanded", "fill", "images_of", "listed_missing", "name_of", "pairs_of"]

_PARTS = ("stem", "folder", "parent")
_SHOWN = 5


def images_of(patterns: str | tuple[str, ...] | None, root: Path, source: str) -> list[str]:
    """Paths of the images that match, sorted, each once.

    Raises
    ------
    InputError
        There is no pattern, or one that nothing matches.
    """
    if not patterns:
        raise InputError(
            f"source {source!r} doesn't say where its images are; give 'images', as images: scenes/*.tif"
        )
    found: dict[str, None] = {}
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        matches = expanded(pattern, root)
        if not matches:
            raise InputError(
                f"no image of source {source!r} matches {os.path.join(root, pattern)}; {_nearby(pattern, root)}"
            )
        found |= dict.fromkeys(matches)
    return list(found)


def expanded(pattern: str, root: Path) -> list[str]:
    """The files that match ``pattern``, relative to ``root`` or absolute; ``**`` stands for any folders."""
    if is_remote(pattern) or pattern.startswith("/vsi"):
        return [pattern]
    whole = os.path.join(glob.escape(os.fspath(root)), os.path.expanduser(pattern))
    return sorted(path for path in glob.glob(whole, recursive=True) if os.path.isfile(path))


def _nearby(pattern: str, root: Path) -> str:
    """What there is where the files were looked for."""
    folder = root / os.path.dirname(pattern)
    while glob.has_magic(str(folder)):
        folder = folder.parent
    if not folder.is_dir():
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return f"there is no such folder below {folder}"
    names = sorted(os.listdir(folder))
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return f"{folder} holds {shown or 'nothing'}"


def name_of(image: str, root: Path) -> str:
    """An image's path as seen from the data folder, with slashes; one outside of it by its whole path."""
    try:
        return Path(image).relative_to(root).as_posix()
    except ValueError:
        return image


def fill(pattern: str, image: str, root: Path, what: str, *, escape: bool = False) -> str:
    """``pattern`` with the parts of an image's path in it: {stem}, {folder} and {parent}; {stem:5}, its first five
    characters.

    Raises
    ------
    InputError
        It asks for another part.
    """
    folder = Path(name_of(image, root)).parent
    parts = {"stem": Path(image).stem, "folder": folder.as_posix(), "parent": folder.parent.as_posix()}

    def part(found: re.Match[str]) -> str:
        name, _, length = found[1].partition(":")
        if name not in _PARTS or not (length or "0").isdecimal():
            raise InputError(
                f"{what} is {pattern!r}, and there is no {found[0]}; expected {{stem}}, {{folder}} or {{parent}}, "
                "or the first characters of one, as {stem:5}"
            )
        value = parts[name][: int(length)] if length else parts[name]
        return glob.escape(value) if escape else value

    return re.sub(r"\{([^{}]*)\}", part, pattern)


def pairs_of(
    images: str | tuple[str, ...] | None, labels: str | None, root: Path, source: str
) -> list[tuple[str, str]]:
    """Each image that matches with its label file; a file that is another image's labels is no image.

    Raises
    ------
    InputError
        There is no pattern; no image; several label files for one, or none: lists the images.
    """
    paths = images_of(images, root, source)
    if not labels:
        raise InputError(
            f"source {source!r} doesn't say where its labels are; give 'labels', "
            "as labels: '{folder}/{stem}_labels.tif'"
        )
    wanted = {
        image: fill(labels, image, root, f"labels of source {source!r}", escape=True) for image in paths
    }
    matches = {image: expanded(pattern, root) for image, pattern in wanted.items()}
    chosen = _no_labels(paths, matches)
    for image in chosen:
        if len(matches[image]) > 1:
            raise InputError(
                f"{len(matches[image])} files match the labels of {image}: "
                f"{', '.join(matches[image][:_SHOWN])}; expected one"
            )
    if missing := [image for image in chosen if not matches[image]]:
        listing = "".join(
            f"\n  {image}: no {os.path.join(root, glob_free(wanted[image]))}" for image in missing[:_SHOWN]
        )
        more = f"\n  and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{len(missing)} of {len(chosen)} images of source {source!r} have no labels:{listing}{more}\n"
            "give their labels, or leave these images out of 'images'"
        )
    return [(image, matches[image][0]) for image in chosen]


def _no_labels(images: Sequence[str], matches: Mapping[str, Sequence[str]]) -> list[str]:
    """The images without those that are the labels of another; all of them if that would leave none."""
    labels = {
        os.path.normpath(found[0])
        for image, found in matches.items()
        if len(found) == 1 and os.path.normpath(found[0]) != os.path.normpath(image)
    }
    return [image for image in images if os.path.normpath(image) not in labels] or list(images)


def glob_free(pattern: str) -> str:
    """A pattern as a path to show, without what escapes characters."""
    return re.sub(r"\[([*?\[])\]", r"\1", pattern)


def listed_missing(missing: Sequence[object], of: Sequence[object], what: str, source: str) -> None:
    """Refuses a source of which something is missing; raises InputError that lists a few."""
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN]))
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{len(missing)} of {len(of)} images of source {source!r} have no {what}: {shown}{more}; add them, or "
            "leave these images out"
        )
