"""How pictures are drawn and saved: our settings whatever the user's, one at a time, the same bytes every time."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rssegment.errors import InputError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREEN", "INK", "ORANGE", "QUIET", "as_svg", "drawing", "save_plot"]

INK, QUIET, BLUE, ORANGE, GREEN = "#1b1b1d", "#838387", "#0072b2", "#d55e00", "#009e73"
_SUFFIXES = (".png", ".svg")
# Tried in turn for signs that the first font lacks.
_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
)
_LOCK = threading.RLock()  # matplotlib's settings are global


def save_plot(figure: Figure, path: str | Path) -> None:
    """Writes a figure to a .png (150 dpi) or .svg file; the same figure gives the same bytes.

    Raises
    ------
    InputError
        The suffix is another.
    OutputError
        The file can't be written.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"{target}: can't save a picture as {suffix or 'a file without suffix'}; use .png or .svg"
        )
    data = _rendered(figure, suffix[1:])
    try:
        target.write_bytes(data)
    except OSError as error:
        raise OutputError(f"can't write the picture {target}: {error.strerror or error}") from error


def as_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page: no background, text as text."""
    text = _rendered(figure, "svg", page=True).decode()
    return text[text.index("<svg") :].strip()


def _rendered(figure: Figure, kind: str, page: bool = False) -> bytes:
    buffer = io.BytesIO()
    nothing = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with drawing(text="none" if page else "path"):
        figure.savefig(
            buffer,
            format=kind,
            dpi=150,
            bbox_inches="tight",
            pad_inches=0.06,
            transparent=page,
            metadata=nothing,
        )
    return buffer.getvalue()


@contextmanager
def drawing(text: str = "path") -> Iterator[None]:
    """Settings of our pictures, whatever the user's; names are no formulas, even with dollars in them."""
    with _LOCK:
        from matplotlib import font_manager, style

        installed = set(font_manager.fontManager.get_font_names())
        ours = {
            "font.family": [*(font for font in _FONTS if font in installed), "sans-serif"],
            "font.size": 9,
            "text.color": INK,
            "text.parse_math": False,
            "axes.labelcolor": INK,
            "axes.edgecolor": QUIET,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.spines.bottom": False,
            "axes.unicode_minus": True,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "svg.hashsalt": "rssegment",
            "svg.fonttype": text,
        }
        with warnings.catch_warnings(), style.context(["default", ours]):
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # drawn as a box
            yield
