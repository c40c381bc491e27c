"""Algorithms that measure while, or instead of, learning. `algo=claims/...` in an experiment names them."""
