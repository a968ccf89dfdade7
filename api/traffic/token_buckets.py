"""Token buckets: so many requests a second of somebody, and so many at once."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

_REMEMBERED = 100_000


class TokenBucket:
    """Tokens of one holder: `rate` come back in a second, up to `burst`. Times are seconds of any clock; one that was
    set back gives nothing and takes nothing.

    What costs more than the whole burst is let through when the bucket is full, and leaves a debt: it is paid by
    waiting, so that the rate holds and nothing is refused for ever.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float):
        self.rate, self.burst = rate, burst
        self._level, self._at = burst, now

    def take(self, cost: float, now: float) -> float:
        """Take `cost` tokens and return 0.0; or take none, and return the seconds after which there will be enough."""
        level = self._level
        if now > self._at:
            level += self.rate * (now - self._at)
            level = min(level, self.burst)
        self._at = now
        needed = cost if cost < self.burst else self.burst
        if level >= needed:
            self._level = level - cost
            return 0.0
        self._level = level
        return (needed - level) / self.rate

    def left(self) -> float:
        """Tokens that were left after the last `take`; below 0 is a debt."""
        return self._level

    def full_in(self) -> float:
        """Seconds from the last `take` after which the bucket is full again."""
        return (self.burst - self._level) / self.rate


class BucketTaken(NamedTuple):
    """What `TokenBuckets.take` found: seconds to wait (0.0: taken), and the bucket."""

    wait: float
    bucket: TokenBucket


class TokenBuckets:
    """Token buckets of many holders, of whom the least recent are forgotten beyond 100,000. One thread."""

    def __init__(self, remembered: int = _REMEMBERED):
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()
        self._remembered = remembered

    def take(self, who: Hashable, rate: float, burst: float, now: float, cost: float = 1.0) -> BucketTaken:
        """Take tokens of `who`, whose rate and burst these are now."""
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = TokenBucket(rate, burst, now)
            if len(self._buckets) > self._remembered:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(who)
            bucket.rate, bucket.burst = rate, burst
        return BucketTaken(bucket.take(cost, now), bucket)
