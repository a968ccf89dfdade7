"""Wording of intervals: the one place where an estimate and its bounds become text, for reports and commands."""

from math import isfinite

from experiments.inference.intervals import Interval


def bounds(low: float, high: float, digits: str = "+.3f", *, scale: float = 1.0) -> str:
    """Bounds as text, "[low, high]", each times `scale` and written with the format `digits`."""
    return f"[{scale * low:{digits}}, {scale * high:{digits}}]"


def in_words(found: Interval, digits: str = "+.3f", *, scale: float = 1.0, unit: str = "") -> str:
    """Estimate with its bounds as text, "+0.120 [+0.080, +0.160]", both times `scale` and written with the format
    `digits`; `unit` stands after the estimate. Without bounds where one observation gives none.
    """
    value = f"{scale * found.value:{digits}}{f' {unit}' if unit else ''}"
    return f"{value} {bounds(found.low, found.high, digits, scale=scale)}" if isfinite(found.low) else value


def compared(over: Interval) -> str:
    """Comparison that an interval of a difference allows, as it stands before the name of the other: "Better than",
    "Worse than" or "Not distinguishable from".
    """
    return "Better than" if over.low > 0 else "Worse than" if over.high < 0 else "Not distinguishable from"
