"""Delays of answers that many wait for: they end together at the ticks of one clock, so that a thousand of them wake
the event loop twenty times a second and not a thousand times.
"""

import asyncio
import math

TICK = 0.05
"""Seconds between two ticks."""


class CommonDelays:
    """Delays of one event loop, which end at its ticks, and all of them when the service stops."""

    def __init__(self) -> None:
        self._due: dict[int, asyncio.Event] = {}
        self._ended = False

    def end(self) -> None:
        """End all delays now, and those to come as they begin."""
        self._ended = True
        for event in self._due.values():
            event.set()

    async def wait(self, seconds: float) -> None:
        """Return at the first tick that is so many seconds away or more, or when all delays end."""
        if self._ended:
            return
        loop = asyncio.get_running_loop()
        tick = math.ceil((loop.time() + seconds) / TICK)
        event = self._due.get(tick)
        if event is None:
            event = self._due[tick] = asyncio.Event()
            loop.call_at(tick * TICK, self._ring, tick)
        await event.wait()

    def _ring(self, tick: int) -> None:
        self._due.pop(tick).set()
