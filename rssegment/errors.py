"""Every error that rssegment raises on purpose.

Each message says what was wrong, what was found, what was expected, and how to mend it.

::

    RssegmentError                  base of all; exit code 1
    ├── InputError                  the user's input can't be used; nothing was run; exit code 2
    │   ├── SceneError              a raster that can't be opened, placed or read as asked
    │   ├── TaxonomyError           a class tree that is not a tree, with the line at fault
    │   ├── BundleError             a model folder that is incomplete, unsafe or inconsistent
    │   ├── MismatchError           scene and model don't fit: bands, value range, ground resolution
    │   ├── SettingsError           a setting outside its range, or two that exclude each other
    │   ├── PlanError               the plan needs more memory or disk than there is
    │   └── OutputError             the output exists already, is unwritable, or belongs to another run
    └── RunError                    something failed while running; exit code 1
        ├── ReadError               pixels that could not be read, with the place
        ├── ModelError              the model raised, or returned NaN or a wrong shape
        ├── StorageError            the disk is full or went away; nothing half-written is left at a final name
        └── BlocksFailedError       the run ended with blocks missing; lists them
"""

from __future__ import annotations

from collections.abc import Sequence


class RssegmentError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code: int = 1


class InputError(RssegmentError, ValueError):
    """The user's input can't be used."""

    exit_code = 2


class SceneError(InputError):
    """A raster that can't be opened, placed or read as asked."""


class TaxonomyError(InputError):
    """A class tree that is not a tree."""


class BundleError(InputError):
    """A model folder that is incomplete, unsafe or inconsistent."""


class MismatchError(InputError):
    """Scene and model don't fit."""


class SettingsError(InputError):
    """A setting outside its range, or two that exclude each other."""


class PlanError(InputError):
    """The plan needs more memory or disk than there is."""


class OutputError(InputError):
    """The output exists already, is unwritable, or belongs to another run."""


class RunError(RssegmentError, RuntimeError):
    """Something failed while running."""


class ReadError(RunError):
    """Pixels that could not be read."""


class ModelError(RunError):
    """The model raised, or returned NaN or a wrong shape."""


class StorageError(RunError):
    """The disk is full or went away."""


class BlocksFailedError(RunError):
    """The run ended with blocks missing.

    ``failures`` holds ``(block name, reason)`` pairs.
    """

    def __init__(self, message: str, failures: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.failures = tuple(failures)
