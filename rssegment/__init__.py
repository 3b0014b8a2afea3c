"""rssegment."""
