"""Clocks of a service: the wall clock, and for trials a clock that a client drives.

With a driven clock nothing happens between two requests: time stands until the client advances it, and the service
learns when the client waits for it (`GET /v1/policies?wait=true`). So the same requests give the same ledger on a fast
machine and on a slow one.
"""

import threading
import time
from collections.abc import Callable

Clock = Callable[[], int]
"""A clock: µs since 1970."""

START = 1_767_225_600_000_000
"""When a driven clock begins: 2026-01-01 00:00 UTC, in µs since 1970."""


def wall() -> int:
    """Wall clock: microseconds since 1970."""
    return time.time_ns() // 1000


class DrivenClock:
    """Simulated clock in µs since 1970 that starts at `START` and only goes forward, for trials with `serve --dev
    --clock driven`. Any thread may read or advance it.
    """

    def __init__(self) -> None:
        self._now = START
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """Present simulated time, in µs since 1970."""
        return self._now

    def advance(self, by: int) -> int:
        """Simulated time (µs since 1970) after `by` more µs, which are not negative; called by `POST /v1/clock`."""
        with self._lock:
            self._now += by
            return self._now
