"""Deadlines of blocking calls: a call runs in a thread of its own, and its caller stops waiting in time."""

import contextvars
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MOST_RUNNING = 1000
"""Calls that run at a time, those that nobody waits for any more included."""


class DeadlineRunner:
    """Runs blocking calls with a deadline, for any number of threads. No timeout of a socket covers looking up a name,
    or an answer that arrives byte by byte; the thread of a call that is given up ends when the call does.
    """

    def __init__(self, most: int = MOST_RUNNING):
        self._most = most
        self._slots = os.getpid(), threading.Semaphore(most)

    def run(self, call: Callable[[], T], seconds: float) -> T:
        """What `call` returns or raises. Raises TimeoutError if that takes more than `seconds`, if too many calls run
        already, or if the system gives no thread. While the interpreter ends no thread can start: `call` then runs in
        the caller's own, with the call's own timeouts only.
        """
        if sys.is_finalizing():
            return call()
        slots = self._slots_of_process()
        if not slots.acquire(blocking=False):
            raise TimeoutError(f"{self._most} earlier requests have not ended")
        outcomes: queue.SimpleQueue[T | _Failure] = queue.SimpleQueue()
        work = contextvars.copy_context().run
        try:
            threading.Thread(target=work, args=(_work, call, slots, outcomes), daemon=True).start()
        except RuntimeError as error:
            slots.release()
            raise TimeoutError(f"no thread for the request: {error}") from None
        try:
            outcome = outcomes.get(timeout=min(seconds, threading.TIMEOUT_MAX))
        except queue.Empty:
            raise TimeoutError(f"no answer within {seconds:.3g} s") from None
        if not isinstance(outcome, _Failure):
            return outcome
        try:
            raise outcome.error
        finally:
            del outcome  # the traceback holds this frame, which must not hold the error

    def _slots_of_process(self) -> threading.Semaphore:
        """Slots for calls. A process that was forked has none of the threads that hold slots of its parent, so that it
        gets slots of its own.
        """
        pid, slots = self._slots
        if pid != os.getpid():
            slots = threading.Semaphore(self._most)
            self._slots = os.getpid(), slots
        return slots


@dataclass(frozen=True)
class _Failure:
    """What a call raised."""

    error: BaseException


def _work(call: Callable[[], T], slots: threading.Semaphore, outcomes: "queue.SimpleQueue[T | _Failure]") -> None:
    """Run `call` and put its outcome. An error's traceback holds this frame, which must not hold the error or the
    queue that has it: such a cycle would keep the request in memory until the garbage collector finds it.
    """
    outcome: T | _Failure
    try:
        outcome = call()
    except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
        outcome = _Failure(error)
    slots.release()
    outcomes.put(outcome)
    del outcome, outcomes
