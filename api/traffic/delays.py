"""Delays of answers that many wait for: they end together at the ticks of one clock, so that a thousand of them wake
the event loop twenty times a second and not a thousand times.
"""

import asyncio
import math

TICK = 0.05
"""Seconds between two ticks."""


class CommonDelays:
    """Delays of one event loop, which end at its ticks."""

    def __init__(self) -> None:
        self._due: dict[int, asyncio.Event] = {}

    async def wait(self, seconds: float) -> None:
        """Return at the first tick that is so many seconds away or more."""
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + seconds) / TICK)
        event = self._due.get(tick)
        if event is None:
            event = self._due[tick] = asyncio.Event()
            loop.call_at(tick * TICK, self._ring, tick)
        await event.wait()

    def _ring(self, tick: int) -> None:
        self._due.pop(tick).set()
