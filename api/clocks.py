"""Clocks of a service: one that no step of the wall clock misleads, and for trials one that a client drives.

With a driven clock nothing happens between two requests: time stands until the client advances it, and the service
learns when the client waits for it (`GET /v1/policies?wait=true`). So the same requests give the same ledger on a fast
machine and on a slow one.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

log = logging.getLogger("journey_bandit.clocks")

Clock = Callable[[], int]
"""A clock: µs since 1970."""

START = 1_767_225_600_000_000
"""When a driven clock begins: 2026-01-01 00:00 UTC, in µs since 1970."""

STEP = 10_000_000
"""µs by which the wall clock may be set without being doubted."""

LASTING = 3_600_000_000
"""µs of elapsed time after which a step of the wall clock is believed."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # with the time in which the machine slept, if it can


def wall() -> int:
    """Wall clock: microseconds since 1970."""
    return time.time_ns() // 1000


def elapsed() -> int:
    """Microseconds since the machine was started, which nobody can set."""
    return time.clock_gettime_ns(_ELAPSED) // 1000


def boot() -> str:
    """Name of this start of the machine, or "" where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class HeldStep(NamedTuple):
    """Step ahead that settlements do not follow yet: by how much (µs), and until which elapsed time (µs)."""

    by: int
    until: int


class ClockMark(msgspec.Struct, frozen=True):
    """Mark of a clock in the ledger, from which the next start goes on: at which elapsed time (µs) of which start of
    the machine it said `at` (µs since 1970), and which steps were held.
    """

    boot: str
    elapsed: int
    at: int
    held: tuple[HeldStep, ...] = ()


class ClockDoubt(NamedTuple):
    """Doubt in the wall clock: it differs from the time that has elapsed by `by` (µs, negative if it is behind), and is
    believed at `believed` (µs since 1970, as this service counts) if it still does.
    """

    by: int
    believed: int


class SteadyClock:
    """Time of a service in µs since 1970: the wall clock, unless it was set by more than `STEP`. Then the service goes
    on by elapsed time, `doubt` says so, and the new time is taken once it has lasted for `LASTING`.

    `settling` is the time by which decisions mature. It never follows a step ahead while a decision from before may
    be open, so that no window is shorter than it was declared, whoever sets the clock. A start goes on from `mark`, the
    last one that was kept: with the same start of the machine by elapsed time; after another one by the wall
    clock, of which `settling` believes the time since the mark once the service has run for `LASTING`.

    `wall`, `elapsed` and `boot` are those of the machine, or a test's. Any thread may read it.
    """

    def __init__(
        self,
        mark: ClockMark | None = None,
        *,
        wall: Clock = wall,
        elapsed: Callable[[], int] = elapsed,
        boot: str | None = None,
    ):
        self.longest = 0  # µs of the longest attribution window: `build` sets it for the catalogue that is served
        self._wall, self._elapsed = wall, elapsed
        self._boot = globals()["boot"]() if boot is None else boot
        self._lock = threading.Lock()
        self._at, self._at_elapsed = wall(), elapsed()
        self._held = list[HeldStep]()
        self._doubt: HeldStep | None = None  # until when it is not believed
        if mark is not None:
            self._go_on(mark)

    def __call__(self) -> int:
        """Present time, in µs since 1970."""
        with self._lock:
            return self._read()

    def settling(self) -> int:
        """Time (µs since 1970) by which decisions mature."""
        with self._lock:
            now = self._read()
            self._held = [step for step in self._held if self._at_elapsed < step.until]
            return now - sum(step.by for step in self._held)

    @property
    def doubt(self) -> ClockDoubt | None:
        """Doubt in the wall clock, if there is one now."""
        with self._lock:
            now = self._read()
            step = self._doubt
            return None if step is None else ClockDoubt(step.by, now + step.until - self._at_elapsed)

    def mark(self) -> ClockMark:
        """Mark for the ledger."""
        with self._lock:
            now = self._read()
            return ClockMark(self._boot, self._at_elapsed, now, tuple(self._held))

    def _read(self) -> int:
        passed, shown = self._elapsed(), self._wall()
        steady = self._at + passed - self._at_elapsed
        away = shown - steady
        if abs(away) <= STEP:
            if self._doubt is not None:
                log.warning("the wall clock agrees again with the time that has elapsed")
            self._doubt = None
            now = max(shown, self._at)
        elif self._doubt is None or abs(away - self._doubt.by) > STEP:
            log.error("the wall clock was set by %+.0f s; time goes on by what elapses", away / 1e6)
            self._doubt, now = HeldStep(away, passed + LASTING), steady
        elif passed < self._doubt.until:
            now = steady
        else:
            log.warning("the wall clock was set by %+.0f s, and it has lasted: taken", away / 1e6)
            if away > 0:
                self._held.append(HeldStep(away, passed + self.longest))
            self._doubt, now = None, shown
        self._at, self._at_elapsed = now, passed
        return now

    def _go_on(self, mark: ClockMark) -> None:
        if mark.boot and mark.boot == self._boot and mark.elapsed <= self._at_elapsed:
            self._at = mark.at + self._at_elapsed - mark.elapsed
            self._held = list(mark.held)
            return
        left = [step._replace(until=self._at_elapsed + step.until - mark.elapsed) for step in mark.held]
        since = self._at - mark.at
        if since > STEP:  # the machine was off, or its clock is wrong
            left.append(HeldStep(since, self._at_elapsed + LASTING))
        elif since < 0:
            self._at = mark.at
        self._held = left


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


def settling(clock: Clock) -> int:
    """Time (µs since 1970) by which decisions mature."""
    return clock.settling() if isinstance(clock, SteadyClock) else clock()


def told(clock: Clock, at: int, now: int) -> int:
    """Time `at` that a client tells (µs since 1970), or `now` while the clock is in doubt by more than what lies
    between the two: then nobody knows whether the client is wrong.
    """
    doubt = clock.doubt if isinstance(clock, SteadyClock) else None
    return now if doubt is not None and abs(at - now) <= abs(doubt.by) + STEP else at
