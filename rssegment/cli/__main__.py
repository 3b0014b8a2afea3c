"""``python -m rssegment.cli``."""

from rssegment.cli.main import main

main()
