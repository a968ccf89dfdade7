"""Marks of a service's clock in the ledger, from which the next start goes on; and what operators are told of a wall
clock that was set.
"""

import msgspec

from api.clocks import Clock, ClockMark, SteadyClock
from api.metrics import Metrics
from api.stores.protocol import Store
from api.times import time_of

_KEY = "clock"
_EVERY = 60_000_000  # µs between two marks: after a crash and another start of the machine, so much more is held


def kept_mark(store: Store) -> ClockMark | None:
    """Mark that was kept last, or None. One that cannot be read counts as none: the wall clock is believed then."""
    try:
        return msgspec.json.decode(store.meta().get(_KEY, "null"), type=ClockMark | None)
    except msgspec.MsgspecError:
        return None


class ClockMarks:
    """Keeper of a clock's marks, for the thread that may write. Clocks of tests and trials have none."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics):
        self._store, self._clock, self._metrics = store, clock, metrics
        self._next = 0

    def keep(self, *, at_once: bool = False) -> None:
        """Keep a mark if the last one is a minute old, or `at_once`; and show the doubt in the metrics. Raises
        LedgerError and Unavailable.
        """
        if not isinstance(self._clock, SteadyClock):
            return
        doubt, mark = self._clock.doubt, self._clock.mark()
        self._metrics.clock_doubt.set(doubt.by / 1e6 if doubt else 0.0)
        if at_once or mark.elapsed >= self._next:
            self._store.set_meta({_KEY: msgspec.json.encode(mark).decode()})
            self._next = mark.elapsed + _EVERY


def clock_doubts(clock: Clock) -> dict[str, str]:
    """What health says of a wall clock that was set, by "clock"; empty if there is nothing to say."""
    doubt = clock.doubt if isinstance(clock, SteadyClock) else None
    if doubt is None:
        return {}
    away = f"{abs(doubt.by) / 1e6:,.0f} s {'ahead of' if doubt.by > 0 else 'behind'} the time that has elapsed"
    believed = f"believes the wall clock at {time_of(doubt.believed):%Y-%m-%dT%H:%M:%SZ} if it still differs"
    fix = "set the machine's clock right"
    return {"clock": f"the wall clock is {away}; the service goes on by elapsed time, and {believed} → {fix}"}
