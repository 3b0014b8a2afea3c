"""A program that is stopped or killed at each step of changing a bundle: ``interrupted.py calibrate kill bundle/``.

The steps are what Python reports of itself before it touches files. After each, the bundle must be the old or the new
one. Prints: steps, times it was the old one, the new one, and was named as moved aside.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rssegment.errors import BundleError
from rssegment.model import Bundle, Calibration, save_calibration
from rssegment.model.folder import written_aside

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.copyfile", "shutil.rmtree"}


class Stopped(BaseException):
    """As Ctrl-C."""


def at_step(number: int, folder: Path, act: Callable[[], None]) -> None:
    """Calls ``act`` before the change of that number to something in or beside ``folder``."""
    count = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and str(folder) in str(args[0]) + str(args[1]):
            count += 1
            if count == number:
                act()

    sys.addaudithook(hook)


def stop() -> None:
    raise Stopped


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def calibrate(bundle: Path, number: int) -> None:
    save_calibration(bundle, Calibration(temperature=number))


def overwrite(bundle: Path, number: int) -> None:
    """What save_bundle does, less the networks."""
    with written_aside(bundle, overwrite=True) as folder:
        made = save_calibration(
            bundle, Calibration(temperature=number), bundle.parent / f"other{number}"
        ).path
        for path in made.iterdir():
            shutil.copyfile(path, folder / path.name)


def attempt(work: Callable[[Path, int], None], bundle: Path, number: int, act: Callable[[], None]) -> int:
    """Runs ``work`` in a program of its own: 0 if all went well."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        watched = bundle.parent / f".{bundle.name}" if work is overwrite else bundle
        at_step(number, watched, act)
        work(bundle, number + 1)
        code = 0
    finally:
        os._exit(code)
    raise AssertionError


def opened(bundle: Path) -> Bundle | None:
    """The bundle; None if what is said of where it is had to be followed."""
    try:
        return Bundle.open(bundle)
    except BundleError as error:
        found = re.search(r"What was there is in (.*); rename", str(error))
        if not found:
            raise
        Path(found[1]).rename(bundle)
        return None


def main(what: str, how: str, bundle: Path) -> None:
    work, act = {"calibrate": calibrate, "overwrite": overwrite}[what], {"kill": kill, "raise": stop}[how]
    save_calibration(bundle, Calibration(temperature=1))
    names, number, seen = {path.name for path in bundle.iterdir()}, 0, {"old": 0, "new": 0, "named": 0}
    while True:
        number += 1
        before = Bundle.open(bundle).calibration
        ended = attempt(work, bundle, number, act)
        found = opened(bundle)
        after = before if found is None else found.calibration
        assert after in (before, Calibration(temperature=number + 1)), after
        seen["named" if found is None else "old" if after == before else "new"] += 1
        if not ended:
            break
        if work is overwrite:  # what was left is removed by the next that is begun
            with suppress(Stopped), written_aside(bundle):
                raise Stopped
            assert not list(bundle.parent.glob(f".{bundle.name}.*"))
        if work is calibrate:  # what was left is removed with the next that goes well
            assert how == "kill" or len(list(bundle.iterdir())) <= len(names) + 1
            save_calibration(bundle, Calibration(temperature=1))
            assert len(list(bundle.iterdir())) == len(names), sorted(bundle.iterdir())
    print(number, *seen.values())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
