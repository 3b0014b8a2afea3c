"""How the command line begins and ends."""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import threading
from typing import Any

import typer

from rssegment.cli import (  # noqa: F401  (their verbs join the application)
    calibrate,
    demo,
    evaluate,
    inspect,
    segment,
    train,
    vectorize,
)
from rssegment.cli.app import app
from rssegment.errors import BlocksFailedError, RssegmentError

__all__ = ["main"]

_AGAIN = 0.05  # seconds
_KEPT = {"segment": "; what is done is kept: run the command again with --resume"}


class _Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not KeyboardInterrupt, which the command-line library would swallow."""


def main() -> None:
    """Runs the command line; exits with 0 done, 1 done in part or failed, 2 bad input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        app()
    except RssegmentError as error:
        _fail(error)
    except _Stopped as stop:
        told = f"stopped{_KEPT.get(''.join(sys.argv[1:2]), '')}"
        print(f"rssegment: {getattr(stop, '__notes__', [told])[0]}", file=sys.stderr)
        sys.stderr.flush()
        # blocks may still be at work on threads; all they write is whole or not at all
        os._exit(1)
    finally:
        sys.unraisablehook = hook


def _stop(_number: int, _frame: object) -> None:
    raise _Stopped


def _unraisable(lost: Any) -> None:
    """Stops again where the first time was in a callback or a finalizer, from which no exception gets out."""
    if lost.exc_type is not _Stopped:
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(_AGAIN, _signal_main)
    again.daemon = True
    again.start()


def _signal_main() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:  # Windows
        _thread.interrupt_main(signal.SIGTERM)


def _fail(error: RssegmentError) -> None:
    if "--json" in sys.argv:
        facts: dict[str, Any] = {"status": "failed", "error": type(error).__name__, "message": str(error)}
        if isinstance(error, BlocksFailedError):
            facts |= {
                "status": "partial",
                "missing": [dict(zip(("block", "reason"), f, strict=True)) for f in error.failures],
            }
        typer.echo(json.dumps(facts))
    typer.echo(f"rssegment: {error}", err=True)
    sys.exit(error.exit_code)
