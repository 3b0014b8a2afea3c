"""What rssegment is measured by, beside others in the same run: each prints tables, none asserts a time."""
