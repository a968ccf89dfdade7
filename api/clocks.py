"""Clocks of a service: the wall's, and for trials one that its client drives.

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
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class DrivenClock:
    """Simulated time, in µs since 1970; it only goes forward."""

    def __init__(self) -> None:
        self._now = START
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """The time it is."""
        return self._now

    def advance(self, by: int) -> int:
        """The time after `by` more µs."""
        with self._lock:
            self._now += by
            return self._now
