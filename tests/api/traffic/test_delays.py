"""Delays that end together."""

import asyncio

from api.traffic.delays import CommonDelays


def test_delays_end_at_a_common_tick_not_before_their_time_and_each_by_itself_if_given_up() -> None:
    async def run() -> None:
        delays, loop = CommonDelays(), asyncio.get_running_loop()
        start, ended = loop.time(), list[str]()

        async def waiting(name: str) -> None:
            await delays.wait(0.02)
            ended.append(name)

        tasks = [asyncio.create_task(waiting(name)) for name in "abc"]
        await asyncio.sleep(0)
        assert len(delays._due) <= 2
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert ended == ["a", "c"]
        assert loop.time() - start >= 0.02
        assert delays._due == {}

    asyncio.run(run())


def test_all_delays_end_when_the_service_stops_and_none_begins_then() -> None:
    """In a minute of the loop's clock, which nobody waits for."""

    async def run() -> None:
        delays, loop = CommonDelays(), asyncio.get_running_loop()
        start = loop.time()
        waiting = [asyncio.create_task(delays.wait(seconds)) for seconds in (30.0, 60.0, 60.0)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        delays.end()
        await asyncio.gather(*waiting, delays.wait(60.0))
        assert loop.time() - start < 30.0

    asyncio.run(run())
