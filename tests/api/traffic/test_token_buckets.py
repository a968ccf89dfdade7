"""Token buckets, by a clock that the tests move."""

import pytest

from api.traffic.token_buckets import TokenBucket, TokenBuckets


def test_so_many_at_once_and_then_as_many_as_come_back() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now=100.0)
    assert [bucket.take(1.0, 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(1.0, 100.4) == pytest.approx(0.1)
    assert bucket.take(1.0, 100.5) == 0.0
    assert bucket.take(3.0, 1000.0) == 0.0  # never more than the burst
    assert bucket.take(1.0, 1000.0) == 0.5


def test_no_more_than_rate_and_burst_allow_however_they_are_asked_for() -> None:
    bucket, taken = TokenBucket(rate=5.0, burst=10.0, now=0.0), 0
    for tick in range(1, 2001):
        taken += bucket.take(1.0, tick / 100) == 0.0
    assert 109 <= taken <= 10 + 5 * 20


def test_what_costs_more_than_the_burst_takes_all_of_it_and_is_paid_by_waiting() -> None:
    bucket = TokenBucket(rate=1.0, burst=10.0, now=0.0)
    assert bucket.take(25.0, 0.0) == 0.0
    assert bucket.left() == -15.0
    assert bucket.take(1.0, 15.0) == 1.0
    assert bucket.take(1.0, 16.0) == 0.0
    assert bucket.take(25.0, 20.0) == pytest.approx(6.0)


def test_a_clock_that_is_set_back_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(rate=1.0, burst=2.0, now=1000.0)
    assert bucket.take(2.0, 1000.0) == 0.0
    assert bucket.take(1.0, 500.0) == 1.0
    assert bucket.take(1.0, 501.0) == 0.0


def test_the_least_recent_holders_are_forgotten() -> None:
    buckets = TokenBuckets(remembered=2)
    assert buckets.take("a", 1.0, 1.0, 0.0).wait == 0.0
    assert buckets.take("b", 1.0, 1.0, 0.0).wait == 0.0
    assert buckets.take("a", 1.0, 1.0, 0.0).wait == 1.0
    assert buckets.take("c", 1.0, 1.0, 0.0).wait == 0.0  # b is forgotten
    assert buckets.take("a", 1.0, 1.0, 0.0).wait == 1.0
    assert buckets.take("b", 1.0, 1.0, 0.0).wait == 0.0
