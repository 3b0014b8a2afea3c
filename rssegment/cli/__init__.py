"""The command line: one verb per command, no logic."""

from rssegment.cli.app import app
from rssegment.cli.main import main

__all__ = ["app", "main"]
