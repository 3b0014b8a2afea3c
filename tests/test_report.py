"""How long work shows itself."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rssegment import report


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with report.reporter(quiet=True) as silent:
        silent.progress("segment", 1, 2, 10)
    assert capsys.readouterr() == ("", "")


def test_lines_come_at_the_end_and_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 101.0, 110.0, 120.0])
    monkeypatch.setattr(report.time, "monotonic", lambda: next(now))
    with report.reporter(quiet=False) as lines:
        for done in (0, 2, 3, 4):
            lines.progress("segment", done, 4, done * 12_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "segment: 0 of 4",
        "segment: 3 of 4, 3.60 Mpx/s, 3 s left",
        "segment: 4 of 4, 2.40 Mpx/s",
    ]


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        report, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100)
    )
    with report.reporter(quiet=False) as bars:
        bars.progress("segment", 1, 2, 5_000_000)
        bars.progress("segment", 2, 2, 9_000_000)
    assert "segment" in screen.getvalue()
    assert "2/2" in screen.getvalue()
