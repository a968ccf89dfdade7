"""Durations as people write them in a catalogue: a number and a unit, "30s", "10m", "72h", "14d", at most 3650 days."""

import functools
import re
from collections.abc import Iterator

from bandit.errors import Problem

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 3650 * 86400.0


@functools.cache
def seconds(text: str) -> float:
    """Seconds of a duration text that was checked. Cached. ValueError for any other text, which `check` would have
    refused.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration")
    return float(match[1]) * UNITS[match[2]]


def micro(text: str, scale: float = 1.0) -> int:
    """Microseconds of a duration text that was checked, on a clock compressed by `scale` (1: real time). At least 1
    unless the duration is zero. ValueError as `seconds`.
    """
    return max(1, round(seconds(text) * scale * 1e6)) if seconds(text) else 0


def text(length: float) -> str:
    """Duration text of so many seconds, in the longest unit of which it is a whole number: "90m", "3d"."""
    unit = next((u for u in reversed(UNITS) if length % UNITS[u] == 0.0), "s")
    return f"{length / UNITS[unit]:g}{unit}"


def check(path: str, text: str, *, zero: bool = False, words: str = "") -> Iterator[Problem]:
    """Problems of a duration as written, none or one; `path` is where it stands. `zero`: "0s" may be meant, as "at
    once" or "none". `words`: what else may stand there, for the fix.
    """
    if _FORM.fullmatch(text) and (0.0 < seconds(text) <= _LONGEST or (zero and seconds(text) == 0.0)):
        return
    least = ' ("0s" is at once)' if zero else ", longer than 0s"
    fix = f'a number and a unit, e.g. "30m", "72h", "14d", up to 3650d{least}{words}'
    yield Problem(path, f"{text!r} is not a duration", fix)
