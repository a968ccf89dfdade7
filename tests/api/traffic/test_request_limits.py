"""Limits on requests: what a key or an address may ask for, by a clock that the tests move."""

import asyncio
from typing import NamedTuple

import numpy as np
import pytest

from api.metrics import Metrics
from api.traffic.fair_turns import FairTurns
from api.traffic.refusals import LimitReached
from api.traffic.request_limits import (
    DELAY,
    LONG,
    LONG_PATIENCE,
    LONG_WAITING,
    LONGEST,
    PACE,
    RequestLimits,
    RequestQuota,
    Visit,
)

GOOD = "secret"


class Known(NamedTuple):
    name: str
    quota: RequestQuota


class Limited:
    """Limits with two keys, "a.secret" and "b.secret"."""

    def __init__(self, *, running: int = 32) -> None:
        self.now, self.metrics = 100.0, Metrics()
        self.quotas = {"a": RequestQuota(rate=2.0, burst=4.0, in_flight=3), "b": RequestQuota()}
        self.turns = FairTurns(lambda: self.now, running=running)
        self.limits = RequestLimits(self.identify, lambda: self.now, self.metrics, self.turns)

    def identify(self, presented: str) -> Known | None:
        name, _, secret = presented.partition(".")
        return Known(name, self.quotas[name]) if name in self.quotas and secret == GOOD else None

    def arrive(self, presented: str = "a.secret", address: str = "192.0.2.1") -> Visit:
        return self.limits.arrive(presented, address)

    def refused(self, presented: str = "a.secret", address: str = "192.0.2.1") -> LimitReached:
        with pytest.raises(LimitReached) as found:
            self.arrive(presented, address)
        return found.value

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"journey_bandit_{name}_total", labels) or 0.0


@pytest.fixture
def limited() -> Limited:
    return Limited()


def test_a_key_beyond_its_rate_is_told_the_limit_its_number_and_when_to_come_again(limited: Limited) -> None:
    for _ in range(4):
        limited.arrive().leave()
    error = limited.refused()
    assert error.status_code == 429
    assert "the key 'a' may send 2 requests or items a second (rate), 4 at once (burst)" in error.detail
    assert error.headers == {"Retry-After": "1", "ratelimit-policy": '"key";q=4;w=2', "ratelimit": '"key";r=0;t=2'}
    limited.arrive("b.secret").leave()  # another key is another's
    limited.arrive("").leave()  # and so is an address without one
    limited.now += 0.5
    limited.arrive().leave()
    assert limited.refused().status_code == 429
    assert limited.counted("limited", key="a", limit="rate") == 2.0
    assert limited.counted("key_requests", key="a") == 5.0


def test_what_is_left_is_said_with_each_answer(limited: Limited) -> None:
    visit = limited.arrive()
    assert dict(visit.headers()) == {b"ratelimit-policy": b'"key";q=4;w=2', b"ratelimit": b'"key";r=3;t=1'}


def test_a_key_waits_for_so_many_answers_at_the_same_time(limited: Limited) -> None:
    visits = [limited.arrive() for _ in range(3)]
    error = limited.refused()
    assert "the key 'a' may send 3 requests at the same time (in_flight)" in error.detail
    assert error.headers is not None
    assert error.headers["Retry-After"] == "1"
    visits.pop().leave()
    limited.arrive()
    assert limited.counted("limited", key="a", limit="in_flight") == 1.0


def test_a_batch_costs_a_token_for_each_item(limited: Limited) -> None:
    visit = limited.arrive()
    visit.charge(4)
    with pytest.raises(LimitReached, match="rate"):
        visit.charge(2)
    limited.now += 2.0
    visit.charge(1)  # a batch of one is the request itself
    assert visit.holder.bucket.take(4.0, limited.now) == 0.0


def test_a_quota_that_the_file_says_anew_holds_at_once(limited: Limited) -> None:
    limited.arrive().leave()
    limited.quotas["a"] = RequestQuota(rate=0.5, burst=1.0, in_flight=1)
    limited.arrive()
    assert "may send 1 requests at the same time" in limited.refused().detail


def test_requests_without_a_key_count_against_their_address(limited: Limited) -> None:
    visits = [limited.arrive("", "192.0.2.1") for _ in range(128)]
    assert "an address without a key may send 128 requests at the same time" in limited.refused("").detail
    limited.arrive("", "192.0.2.2")
    assert limited.counted("limited", key="(none)", limit="in_flight") == 1.0
    for visit in visits:
        visit.leave()
    limited.arrive("", "192.0.2.1")


def test_keys_that_are_none_are_logged_without_their_text_and_limited_by_address(
    limited: Limited, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(60):
        limited.arrive("a.guess").leave()
    error = limited.refused("a.guess")
    assert "an address may present 30 keys that are none a minute (key_failures)" in error.detail
    assert DELAY / 2 <= error.delay <= 1.5 * DELAY
    limited.arrive("a.secret").leave()  # who has a key is let in from there
    limited.arrive("a.guess", "192.0.2.2").leave()
    limited.now += 2.0
    limited.arrive("a.guess").leave()
    assert len(caplog.records) == 62
    assert "192.0.2.1 presented a key that is none" in caplog.text
    assert "guess" not in caplog.text
    assert limited.counted("key_failures") == 63.0


def test_who_goes_on_asking_is_answered_later(limited: Limited) -> None:
    for _ in range(4):
        limited.arrive().leave()
    assert [limited.refused().delay for _ in range(50)] == [0.0] * 50
    delays = [limited.refused().delay for _ in range(100)]
    assert DELAY / 2 <= min(delays) < 0.6 * DELAY
    assert 1.4 * DELAY < max(delays) <= 1.5 * DELAY
    for _ in range(4):
        limited.arrive("b.secret").leave()


def test_the_more_wait_for_a_refusal_the_later_it_is_answered(limited: Limited) -> None:
    def later(presented: str, many: int) -> list[float]:
        """Delays of a holder's refusals after those that are answered at once."""
        assert [limited.refused(presented).delay for _ in range(50)] == [0.0] * 50
        return [limited.refused(presented).delay for _ in range(many)]

    for _ in range(4):
        limited.arrive().leave()
    few, full = 600, int(LONGEST * PACE)
    delays, places = np.array(later("a.secret", 2 * full)), np.arange(1, 2 * full + 1) / PACE
    late, most = delays[few:full], delays[full:]
    assert np.all(late <= places[few:full])
    assert np.mean(places[few:full] - late) == pytest.approx(DELAY / 2, abs=0.01)
    assert LONGEST - DELAY <= most.min() < most.max() <= LONGEST
    assert len(set(most.round(3))) > 900, "not together"
    for _ in range(128):
        limited.arrive("b.secret")
    assert max(later("b.secret", 100)) <= 1.5 * DELAY, "nobody else waits for them"
    limited.now += LONGEST - 3.0  # the last of them has 3 s to wait
    for _ in range(4):
        limited.arrive().leave()
    (delay,) = later("a.secret", 1)
    assert 2.0 <= delay <= 3.0 + 1.0 / PACE
    limited.now += 100.0
    for _ in range(4):
        limited.arrive().leave()
    assert max(later("a.secret", 100)) <= 1.5 * DELAY


def test_a_key_in_the_body_takes_the_place_of_the_address(limited: Limited) -> None:
    visit = limited.arrive("", "192.0.2.1")
    visit.present("a.secret")
    assert (visit.holder.name, visit.holder.flying) == ("a", 1)
    visit.present("b.secret")  # it has one
    assert visit.holder.name == "a"
    visit.leave()
    assert visit.holder.flying == 0
    limited.arrive("", "192.0.2.1").present("no.key")
    assert limited.counted("key_failures") == 1.0


def test_a_request_whose_turn_does_not_come_is_told_so_and_one_that_is_given_up_keeps_no_turn() -> None:
    async def run() -> None:
        limited = Limited(running=1)
        first, second, third = limited.arrive("b.secret"), limited.arrive("b.secret"), limited.arrive()
        await first.turn()
        late = asyncio.create_task(second.turn())
        given_up = asyncio.create_task(third.turn())
        await asyncio.sleep(0)
        first.rest()  # second has its turn
        await late
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        fourth = limited.arrive("b.secret")
        waiting = asyncio.create_task(fourth.turn())
        await asyncio.sleep(0)
        limited.now += 1.0
        limited.turns.expire()
        with pytest.raises(LimitReached, match=r"1 requests run at once \(turn\), .* within 0.5 s") as found:
            await waiting
        assert found.value.status_code == 503
        for visit in (first, second, third, fourth):
            visit.leave()
        assert limited.turns.enter("b") is None

    asyncio.run(run())


def test_long_work_waits_apart_and_keeps_no_turn_of_other_requests() -> None:
    async def run() -> None:
        limited = Limited(running=1)
        long = [limited.arrive("b.secret") for _ in range(LONG + 1)]
        for visit in long[:-1]:
            await visit.turn()
            await visit.apart()
        last = asyncio.create_task(long[-1].apart())
        await asyncio.sleep(0)
        other = limited.arrive()
        await other.turn()  # at once: whoever works long has none of these
        other.leave()
        limited.now += LONG_PATIENCE
        limited.limits.long_turns.expire()
        with pytest.raises(LimitReached, match=r"2 long rankings run at once \(long_turn\), .* within 2 s") as found:
            await last
        assert found.value.status_code == 503
        few = range(LONG_WAITING - 1)  # `last` has kept its place
        waiting = [asyncio.create_task(limited.arrive("b.secret").apart()) for _ in few]
        await asyncio.sleep(0)
        with pytest.raises(LimitReached, match="32 wait, and no more may"):
            await limited.arrive("b.secret").apart()
        for visit in long:
            visit.leave()
        await asyncio.sleep(0)
        assert sum(one.done() for one in waiting) == LONG
        for one in waiting:
            one.cancel()

    asyncio.run(run())


def test_a_turn_that_comes_as_the_request_is_given_up_goes_to_the_next() -> None:
    async def run() -> None:
        limited = Limited(running=1)
        first, second = limited.arrive("b.secret"), limited.arrive("b.secret")
        await first.turn()
        waiting = asyncio.create_task(second.turn())
        await asyncio.sleep(0)
        first.leave()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        second.leave()
        assert limited.turns.enter("b") is None

    asyncio.run(run())
