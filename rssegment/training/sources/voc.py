"""Sources of kind ``voc``: a folder as of PASCAL VOC.

``JPEGImages/*.jpg``, ``SegmentationClass/*.png`` (indices with a colour table, or the same as colours; 255 is void),
and lists of names in ``ImageSets/Segmentation/<subset>.txt``; without ``subset``, every image that has a mask. Indices
are named by ``class_names.txt``, one name a line, or as in VOC 2012.
"""

from __future__ import annotations

from pathlib import Path

from rssegment.errors import InputError, SceneError
from rssegment.reference.label_files import LabelFile
from rssegment.scene.label_header import data_bands, opened
from rssegment.taxonomy import ClassMapping
from rssegment.training.sources.classes import by_name
from rssegment.training.sources.codes import CodeFile
from rssegment.training.sources.colors import ColorFile
from rssegment.training.sources.fit import on_image
from rssegment.training.sources.patterns import listed_missing
from rssegment.training.sources.scenes import SourceScene, Task

__all__ = ["NAMES", "VOID", "index_color", "open_voc"]

VOID = 255
NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


def open_voc(task: Task) -> list[SourceScene]:
    """The images of the folder, or of one subset, with their masks.

    Raises
    ------
    InputError
        Folders, lists, images or masks are missing, a list can't be read, or classes are unknown.
    """
    folder = task.folder()
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    for part in (images, masks):
        if not part.is_dir():
            raise InputError(f"source {task.name!r} is of kind voc, and {folder} has no folder {part.name}")
    stems = _stems(task, folder, masks)
    paths = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in _IMAGES}
    listed_missing([stem for stem in stems if stem not in paths], stems, f"images in {images}", task.name)
    missing = [stem for stem in stems if not (masks / f"{stem}.png").is_file()]
    listed_missing(missing, stems, f"masks in {masks}", task.name)
    named = by_name(dict(enumerate(_names(folder))), task.mapping, task.taxonomy, f"source {task.name!r}")
    mapping = ClassMapping(named.name, task.taxonomy, (*named.classes, (VOID, 0)))
    scenes = []
    for stem in stems:
        image = task.image(str(paths[stem]))
        file = _mask(str(masks / f"{stem}.png"), mapping)
        scenes.append(task.scene(image, on_image(file, mapping, image)))
    return scenes


def _stems(task: Task, folder: Path, masks: Path) -> list[str]:
    if task.options.subset is None:
        found = sorted(path.stem for path in masks.glob("*.png"))
    else:
        lists = folder / "ImageSets" / "Segmentation"
        path = lists / f"{task.options.subset}.txt"
        if not path.is_file():
            names = ", ".join(sorted(each.stem for each in lists.glob("*.txt"))) or "none"
            raise InputError(
                f"source {task.name!r} has no subset {task.options.subset!r} in {lists}; there are {names}"
            )
        found = _text(path).split()
    if not found:
        raise InputError(f"source {task.name!r} has no images: none is listed, or no mask is in {masks}")
    return found


def _names(folder: Path) -> tuple[str, ...]:
    path = folder / "class_names.txt"
    if not path.is_file():
        return NAMES
    lines = [line.strip() for line in _text(path).rstrip().splitlines()]
    known: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            raise InputError(
                f"{path} has no name in line {number}; expected one name a line, that of index 0 first: give the index "
                "a name, or remove the line"
            )
        first = known.setdefault(line.casefold(), number)
        if first != number:
            raise InputError(
                f"{path} lists {line!r} twice, in lines {first} and {number}; expected a name for each index"
            )
    return tuple(lines)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read {path} as text: {error}; expected UTF-8, save it as that") from error


def _mask(path: str, mapping: ClassMapping) -> LabelFile:
    """A mask of indices, or of the colours that stand for them."""
    try:
        with opened(path) as file:
            colored = data_bands(file) == 3
    except SceneError as error:
        raise SceneError(f"can't open the labels: {error}") from error
    if not colored:
        return CodeFile.open(path, "labels")
    colors = {index_color(index): code for index, code in mapping.classes if isinstance(index, int)}
    return ColorFile.of(path, colors, None)


def index_color(index: int) -> int:
    """VOC's colour of an index, as red * 65536 + green * 256 + blue: its bits dealt out in turn, highest first."""
    parts = [0, 0, 0]
    for bit in range(8):
        parts[bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return parts[0] << 16 | parts[1] << 8 | parts[2]
