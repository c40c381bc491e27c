"""Watching a policy: episodes moment by moment, in a terminal and in pictures."""
