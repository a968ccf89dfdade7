"""Deadline that many waits share, with one timer of the event loop for all: `asyncio.timeout` makes a timer for each,
which costs more than reading the small body that it is about.
"""

import asyncio
from collections import deque
from types import TracebackType
from weakref import WeakKeyDictionary


class SharedDeadline:
    """Deadline of waits in one event loop, each so many `seconds` after its beginning. All are as long, so the one that
    began first ends first, and the timer is always for that one.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._waits = deque[Wait]()
        self._timed = False  # the timer itself is the loop's: kept here, it would keep a loop that has ended

    def begin(self, wait: "Wait") -> None:
        """Count a wait, whose end is set already."""
        self._waits.append(wait)
        if not self._timed:
            self._time(wait)

    def end(self) -> None:
        """Forget waits that are over. Those behind one that lasts are forgotten with it."""
        while self._waits and self._waits[0].over:
            self._waits.popleft()

    def _sweep(self) -> None:
        """End waits that have lasted too long, and set the timer for the next."""
        self._timed = False
        self.end()
        while self._waits and (first := self._waits[0]).ends <= first.loop.time():
            self._waits.popleft()
            first.expire()
            self.end()
        if self._waits:
            self._time(self._waits[0])

    def _time(self, first: "Wait") -> None:
        first.loop.call_at(first.ends, self._sweep)
        self._timed = True


class Wait:
    """Context in which a task waits no longer than a shared deadline allows: then the task is cancelled, and leaves the
    context with TimeoutError, as it does with `asyncio.timeout`. Entered once, by the task that waits.
    """

    __slots__ = ("_cancelling", "_expired", "_shared", "_task", "ends", "loop", "over")

    def __init__(self, shared: SharedDeadline, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self.ends, self.over = loop.time() + shared.seconds, False
        self._shared, self._expired, self._cancelling = shared, False, 0
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a shared deadline is for tasks")
        self._cancelling = self._task.cancelling()
        self._shared.begin(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._task, self.over = self._task, None, True
        self._shared.end()
        if self._expired and task and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """End the wait: its time is over."""
        if self._task is not None:
            self._expired = True
            self._task.cancel()


class Deadlines:
    """Shared deadlines of so many seconds, one for each event loop that asks."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._known = WeakKeyDictionary[asyncio.AbstractEventLoop, SharedDeadline]()

    def wait(self) -> Wait:
        """Context of one wait in the running event loop. Raises RuntimeError outside of one."""
        loop = asyncio.get_running_loop()
        shared = self._known.get(loop)
        if shared is None:
            shared = self._known[loop] = SharedDeadline(self._seconds)
        return Wait(shared, loop)
