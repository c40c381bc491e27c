"""What float32 cannot tell from nothing."""

NOISE = 4e-6
"""Spread over magnitude that rounding alone leaves of equal numbers: some thirty units in the last place."""
