"""Waiting for other threads and processes: as long as it takes, on a machine of any speed."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds after which a test says that something hangs. Never how long something may take."""

COMMAND_PATIENCE = 1_800.0
"""The same for a command that works for a minute or more on a quiet machine, as a demonstration does."""


def eventually(true: Callable[[], T], pause: float = 0.01) -> T:
    """What `true` gives once that is true, or at last false."""
    end = time.monotonic() + PATIENCE
    while not (found := true()) and time.monotonic() < end:
        time.sleep(pause)
    return found
