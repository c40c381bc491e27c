"""Numbers as a person writes them: the digits that matter, units, no exponents where there are words."""

from __future__ import annotations

import math

from ppo_cli.report.statistics import Estimate

NO_INTERVAL = "n=1: no interval"


def decimals(value: float) -> int:
    """Digits behind the point so that about three matter."""
    if value == 0 or not math.isfinite(value):
        return 0
    return min(6, max(0, 2 - math.floor(math.log10(abs(value)))))


def number(value: float, places: int | None = None) -> str:
    """``1,234``, ``487``, ``23.4``, ``0.0123``; a dash where there is none."""
    value = float(value)
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 1e7 or 0 < abs(value) < 1e-4:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if places is not None:
        return f"{value:,.{places}f}"
    text = f"{value:,.{decimals(value)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def estimate_text(found: Estimate) -> str:
    """``487 (470 to 499)``, ``487 (n=1: no interval)``, or a dash; as many decimals for the bounds as for the value."""
    if found.n == 0:
        return "-"
    return f"{number(found.value, places_of(found))} ({interval_text(found)})"


def interval_text(found: Estimate) -> str:
    """``470 to 499``, or that there is none."""
    if not found.has_interval:
        return NO_INTERVAL if found.n == 1 else "no interval"
    places = places_of(found)
    return f"{number(found.low, places)} to {number(found.high, places)}"


def places_of(found: Estimate) -> int:
    """Decimals of a value and its bounds: as the largest of them needs."""
    return decimals(max(abs(bound) for bound in found[:3] if math.isfinite(bound)))


def percent(share: float) -> str:
    """``42 %``, ``0.3 %``, ``less than 0.1 %``."""
    if not math.isfinite(share):
        return "-"
    value = 100 * share
    if 0 < value < 0.1:
        return "less than 0.1 %"
    return f"{value:.1f} %" if 0 < value < 1 else f"{value:.0f} %"


def steps_text(steps: float) -> str:
    """``512``, ``40.4k``, ``1.5M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= 0.9995 * size:
            return f"{float(f'{steps / size:.3g}'):g}{letter}"
    return f"{steps:g}"


def time_text(seconds: float) -> str:
    """``0.6 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``; a dash where it is not known."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plural(count: int, noun: str) -> str:
    """``1 run``, ``60 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
