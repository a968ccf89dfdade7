"""Deadlines of blocking calls: a call runs in a thread of its own, and its caller stops waiting in time."""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

MOST_RUNNING = 1000
"""Calls that run at a time, those that nobody waits for any more included."""


class DeadlineRunner:
    """Runs blocking calls with a deadline, for any number of threads. No timeout of a socket covers looking up a name,
    or an answer that arrives byte by byte; the thread of a call that is given up ends when the call does.
    """

    def __init__(self, most: int = MOST_RUNNING):
        self._most, self._slots = most, threading.Semaphore(most)

    def run(self, call: Callable[[], T], seconds: float) -> T:
        """What `call` returns or raises. Raises TimeoutError if that takes more than `seconds`, or if too many calls
        run already.
        """
        if not self._slots.acquire(blocking=False):
            raise TimeoutError(f"{self._most} earlier requests have not ended")
        future = Future[T]()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                future.set_exception(error)
            finally:
                self._slots.release()

        try:
            threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
        except RuntimeError:  # no thread is to be had, as while the interpreter ends: only the call's own timeouts hold
            work()
        try:
            return future.result(min(seconds, threading.TIMEOUT_MAX))
        except TimeoutError:
            raise TimeoutError(f"no answer within {seconds:.3g} s") from None
