"""The demo: a synthetic landscape, segmented and scored."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rssegment as rs
from rssegment.demo.files import write_landscape
from rssegment.demo.landscape import make_landscape
from rssegment.demo.picture import render_overview
from rssegment.errors import OutputError
from rssegment.run.progress import Progress

__all__ = ["DEMO_SEED", "DemoOutcome", "run_demo"]

DEMO_SEED = 0
MARKER = ".rssegment-demo"
NOTICE = (
    "The landscape is synthetic: it was drawn by a program, and the bundled model was\n"
    "trained on others of its kind. The scores show that the pipeline works; they say\n"
    "nothing about real imagery."
)


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo made: the run's result, the scores against the truth, and where the picture is."""

    result: rs.Result
    scores: rs.Scores
    truth: Path
    picture: Path
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return {
            "notice": NOTICE.replace("\n", " "),
            "seconds": self.seconds,
            "truth": str(self.truth),
            "picture": str(self.picture),
            "scores": self.scores.as_dict(),
            "run": self.result.as_dict(),
        }

    def __str__(self) -> str:
        parts = (self.result, self.scores.table(), f"{self.picture}\n{self.seconds:.0f} s in all", NOTICE)
        return "\n\n".join(map(str, parts))


def run_demo(
    out: str | Path,
    *,
    size: int = 4096,
    seed: int = DEMO_SEED,
    workers: int | Literal["auto"] = "auto",
    progress: Progress | None = None,
) -> DemoOutcome:
    """Draws a landscape of ``size`` x ``size`` px, segments it with the bundled model and scores it against its truth.

    Raises
    ------
    OutputError
        ``out`` holds something that is not an earlier demo.
    """
    start = time.perf_counter()
    out = Path(out)
    _claim(out)
    if progress:
        progress("landscape", 0, 1, 0)
    scene, truth = write_landscape(make_landscape((size, size), seed=seed), out)
    if progress:
        progress("landscape", 1, 1, size * size)
    settings = rs.Settings(workers=workers)
    result = rs.segment(scene, "demo", out, settings=settings, overwrite=True, progress=progress)
    scores = rs.evaluate(result.labels, truth, taxonomy="demo")
    picture = render_overview(scene, result.labels, truth, out / "overview.png")
    return DemoOutcome(result, scores, truth, picture, round(time.perf_counter() - start, 1))


def _claim(out: Path) -> None:
    """Makes the folder, or takes one that an earlier demo made: nobody's own files are ever replaced."""
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is no earlier demo; choose a new folder by --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARKER).touch()
    except OSError as error:
        raise OutputError(
            f"can't write to {out}: {error.strerror}; choose another folder by --out"
        ) from error
