"""Fair turns: who runs next where more ask than may run, by a clock that the tests move."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from api.traffic.fair_turns import FairTurns


class Ticking:
    """Clock in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def order(turns: FairTurns, waiting: list[tuple[str, Any]], many: int) -> str:
    """Holders whose turn begins as so many turns end one after another."""
    found = ""
    for _ in range(many):
        before = {id(turn) for _, turn in waiting if turn.done()}
        turns.leave()
        found += "".join(name for name, turn in waiting if turn.done() and id(turn) not in before)
    return found


@in_a_loop
async def test_turns_begin_at_once_until_as_many_run_as_may() -> None:
    turns = FairTurns(Ticking(), running=2)
    assert turns.enter("a") is None
    assert turns.enter("a") is None
    waiting = turns.enter("a")
    assert waiting is not None
    assert not waiting.done()
    turns.leave()
    assert waiting.result() is True
    turns.leave()
    turns.leave()
    assert turns.enter("b") is None


@in_a_loop
async def test_a_holder_with_few_requests_comes_before_the_crowd_of_another() -> None:
    turns = FairTurns(Ticking(), running=1)
    turns.enter("a")
    waiting = [("a", turns.enter("a")) for _ in range(20)]
    waiting += [("b", turns.enter("b")) for _ in range(3)]
    assert order(turns, waiting, 8) == "ababab" + "aa"
    waiting.append(("c", turns.enter("c")))  # it comes now, and has had nothing
    assert order(turns, waiting, 2) in ("ca", "ac")


@in_a_loop
async def test_a_batch_costs_its_holder_as_many_turns_as_it_has_items() -> None:
    turns = FairTurns(Ticking(), running=1)
    turns.enter("x")
    waiting = [("a", turns.enter("a")), ("b", turns.enter("b"))]
    turns.charge("a", 3.0)
    waiting += [("a", turns.enter("a")) for _ in range(2)] + [("b", turns.enter("b")) for _ in range(5)]
    assert order(turns, waiting, 8) == "abbbbaba"[:8]


@in_a_loop
async def test_who_has_waited_too_long_has_no_turn_and_costs_none() -> None:
    clock = Ticking()
    turns = FairTurns(clock, running=1, patience=0.5)
    turns.enter("a")
    first = turns.enter("a")
    clock.now += 0.3
    second = turns.enter("b")
    assert first is not None
    assert second is not None
    clock.now += 0.2
    turns.expire()
    assert first.result() is False
    assert not second.done()
    turns.leave()
    assert second.result() is True
    turns.leave()
    assert turns.enter("c") is None


@in_a_loop
async def test_nobodys_patience_ends_while_the_service_holds_everybody_up() -> None:
    clock, held = Ticking(), [True]
    turns = FairTurns(clock, running=1, patience=0.5, held_up=lambda: held[0])
    turns.enter("a")
    waiting = turns.enter("a")
    assert waiting is not None
    clock.now += 60.0
    turns.expire()
    assert not waiting.done()
    held[0] = False
    clock.now += 0.4
    turns.expire()
    assert not waiting.done()
    clock.now += 0.2
    turns.expire()
    assert waiting.result() is False


@in_a_loop
async def test_one_who_left_while_waiting_is_passed_over() -> None:
    turns = FairTurns(Ticking(), running=1)
    turns.enter("a")
    gone, stays = turns.enter("b"), turns.enter("c")
    assert gone is not None
    assert stays is not None
    gone.cancel()
    turns.leave()
    assert stays.result() is True


@in_a_loop
async def test_where_too_many_wait_those_with_more_than_their_share_are_turned_away() -> None:
    turns = FairTurns(Ticking(), running=1, waiting=10)
    turns.enter("a")
    for _ in range(8):
        turns.enter("a")
    assert not turns.crowded(9)
    turns.enter("b")
    turns.enter("c")
    assert turns.crowded(8)
    assert not turns.crowded(1)


@in_a_loop
async def test_holders_without_end_take_no_memory_without_end_while_somebody_always_waits() -> None:
    """Many addresses that ask once each, as fast as turns end; who keeps asking is not forgotten."""
    turns = FairTurns(Ticking(), running=1)
    turns.enter("x")
    turns.enter("always")
    for i in range(25_000):
        turns.enter(f"address {i}")
        turns.leave()
        if i % 5_000 == 0:
            turns.enter("always")
    assert len(turns._heap) > 0
    assert "always" in turns._had
    assert len(turns._had) == 10_000
