"""Deadline that many waits share."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api.traffic.shared_deadline import Deadlines, SharedDeadline, Wait

SECONDS = 8.0


class DrivenLoop(asyncio.SelectorEventLoop):
    """Event loop whose time passes when a test says so."""

    now = 1000.0

    def __init__(self) -> None:
        super().__init__()
        self.timers = list[float]()

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        self.timers.append(when)
        return super().call_at(when, callback, *args, context=context)

    def time(self) -> float:
        return self.now

    async def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass, and whatever is due happen."""
        self.now += seconds
        for _ in range(5):
            await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=DrivenLoop) as runner:
        runner.run(test)


def loop() -> DrivenLoop:
    found = asyncio.get_running_loop()
    assert isinstance(found, DrivenLoop)
    return found


async def waiting(deadlines: Deadlines) -> "asyncio.Task[None]":
    """Task that has begun to wait for what never comes."""

    async def wait() -> None:
        with deadlines.wait():
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(wait())
    await loop().pass_time(0.0)
    return task


def test_each_wait_ends_when_its_own_time_is_over() -> None:
    async def test() -> None:
        deadlines = Deadlines(SECONDS)
        first = await waiting(deadlines)
        await loop().pass_time(3.0)
        second = await waiting(deadlines)
        await loop().pass_time(4.9)
        assert not first.done()
        await loop().pass_time(0.2)
        assert isinstance(first.exception(), TimeoutError)
        assert not second.done()
        await loop().pass_time(2.8)
        assert not second.done()
        await loop().pass_time(0.2)
        assert isinstance(second.exception(), TimeoutError)

    run(test())


def test_a_task_that_is_cancelled_by_others_stays_cancelled() -> None:
    async def test() -> None:
        deadlines = Deadlines(SECONDS)
        early, late = [await waiting(deadlines) for _ in range(2)]
        await loop().pass_time(1.0)
        early.cancel()
        await loop().pass_time(1.0)
        assert early.cancelled()
        loop().now += SECONDS
        late.cancel()  # in the turn in which its time ends
        await loop().pass_time(0.0)
        assert late.cancelled()

    run(test())


def test_a_task_goes_on_after_a_deadline_that_it_met_and_after_one_that_it_missed() -> None:
    async def test() -> None:
        deadlines, seen = Deadlines(SECONDS), list[str]()

        async def work() -> None:
            with deadlines.wait():
                await asyncio.sleep(0)
            seen.append("met")
            await asyncio.sleep(2 * SECONDS)
            seen.append("nothing of the first is left")
            with pytest.raises(TimeoutError), deadlines.wait():
                await asyncio.sleep(2 * SECONDS)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            await asyncio.sleep(1.0)
            seen.append("missed")

        task = asyncio.create_task(work())
        for _ in range(40):
            await loop().pass_time(1.0)
        task.result()
        assert seen == ["met", "nothing of the first is left", "missed"]

    run(test())


def test_waits_that_are_over_are_forgotten_and_one_timer_is_set() -> None:
    async def test() -> None:
        shared = SharedDeadline(SECONDS)
        timers = loop().timers
        for _ in range(1000):
            with Wait(shared, loop()):
                await asyncio.sleep(0)
        assert len(shared._waits) == 0
        assert timers == [1000.0 + SECONDS]
        await loop().pass_time(SECONDS)
        with Wait(shared, loop()):
            assert timers == [1000.0 + SECONDS, 1000.0 + 2 * SECONDS]

    run(test())


def test_each_event_loop_has_its_own() -> None:
    deadlines = Deadlines(SECONDS)
    for _ in range(2):

        async def test() -> None:
            task = await waiting(deadlines)
            await loop().pass_time(SECONDS)
            assert isinstance(task.exception(), TimeoutError)

        run(test())
    assert len(deadlines._known) <= 2
