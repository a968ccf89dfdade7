"""Durations as people write them in a catalogue: "30s", "10m", "72h", "14d"."""

import functools
import re
from collections.abc import Iterator

from bandit.errors import Problem

_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)")
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 3650 * 86400.0


@functools.cache
def seconds(text: str) -> float:
    """Seconds of a duration that was checked."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration")
    return float(match[1]) * UNITS[match[2]]


def micro(text: str, scale: float = 1.0) -> int:
    """Microseconds of a duration that was checked, on a clock compressed by `scale`."""
    return max(1, round(seconds(text) * scale * 1e6))


def check(path: str, text: str) -> Iterator[Problem]:
    """What is wrong with a duration as written."""
    if not _FORM.fullmatch(text) or not 0.0 < seconds(text) <= _LONGEST:
        yield Problem(path, f"{text!r} is not a duration", 'a number and a unit, e.g. "30m", "72h", "14d", up to 3650d')
