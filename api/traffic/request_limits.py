"""Limits on requests: what a key may ask for in a second and at once, and whose turn it is, before any work is done.

A request is counted against the key that it presents, or without one against its address. `RequestLimits.arrive` is
asked when its headers are there, `Visit.turn` when its body is, so that nobody holds a turn while it is still sending.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple, Protocol

from prometheus_client import Counter

from api.metrics import Metrics
from api.traffic.fair_turns import FairTurns
from api.traffic.refusals import LimitReached
from api.traffic.token_buckets import TokenBucket, TokenBuckets

log = logging.getLogger("journey_bandit.limits")

RATE, BURST, IN_FLIGHT = 10_000.0, 20_000.0, 128
"""Limits of a key whose table in the file says nothing else: tokens a second and at once (a request costs one, a batch
one for each item: more than one process does), and requests that are answered or wait at the same time.
"""
FAILURES, FAILURES_AT_ONCE = 0.5, 60.0
"""Refused keys of one address, a second and at once. Beyond, they are answered 429, and the log says no more."""

REFUSALS, REFUSALS_AT_ONCE, DELAY = 20.0, 50.0, 1.0
"""Refusals of one holder, a second and at once, that are answered at once; beyond, each is answered after about a
second, so that who goes on asking over connections that wait for answers asks less, and refusing costs less.
"""
PACE, LONGEST = 100.0, 40.0
"""Such later answers to one holder, a second: where there are more, each waits for its place, for about so many seconds
at most. So all connections that a service holds cost it a hundred refusals a second. When the service stops, all are
answered. Keys that are none count as one holder.
"""

LONG, LONG_WAITING, LONG_PATIENCE = 2, 32, 2.0
"""Requests whose work takes long (rankings of many actions) that run at once, as many as have threads; that wait for
that; and seconds that one waits at most.
"""

_GOLDEN = (5**0.5 - 1) / 2  # its multiples are spread evenly over the unit interval
_VISIT = "journey_bandit.visit"  # where a visit stands in the scope of its request
_ADDRESSES = 10_000  # addresses that are remembered
_NOBODY = "(none)"  # holder of requests without a key, in metrics


class RequestQuota(NamedTuple):
    """Quota of a key: tokens that come back in a second, tokens at once, and requests at the same time."""

    rate: float = RATE
    burst: float = BURST
    in_flight: int = IN_FLIGHT


DEFAULT = RequestQuota()


class KnownKey(Protocol):
    """Key that was presented and is one."""

    @property
    def name(self) -> str:
        """Name in the file of keys."""

    @property
    def quota(self) -> RequestQuota:
        """What it may ask for."""


class LaterAnswers:
    """Places of refusals that are not answered at once, of one holder."""

    __slots__ = ("_phase", "_place")

    def __init__(self) -> None:
        self._phase, self._place = 0.0, 0.0

    def delay(self, now: float) -> float:
        """Seconds from `now` after which one more is answered: spread evenly, so that those refused together do not
        come again together, and the longer the more wait for one.
        """
        self._phase = (self._phase + _GOLDEN) % 1.0
        self._place = min(max(self._place, now) + 1.0 / PACE, now + LONGEST)
        spread = DELAY * self._phase
        return max(DELAY / 2 + spread, self._place - now - spread)


class RequestHolder:
    """Holder of requests: a key, or an address without one, with what it has taken of its quota."""

    __slots__ = ("admitted", "bucket", "flying", "label", "later", "name", "policy", "quota", "refusals")

    def __init__(self, name: str, label: str, quota: RequestQuota, admitted: Counter, now: float):
        self.name, self.label, self.admitted, self.flying = name, label, admitted, 0
        self.bucket = TokenBucket(quota.rate, quota.burst, now)
        self.refusals, self.later = TokenBucket(REFUSALS, REFUSALS_AT_ONCE, now), LaterAnswers()
        self.declare(quota)

    def declare(self, quota: RequestQuota) -> None:
        """Take another quota, which the file of keys says now."""
        self.quota, self.bucket.rate, self.bucket.burst = quota, quota.rate, quota.burst
        window = max(1, round(quota.burst / quota.rate))
        self.policy = f'"key";q={quota.burst:.0f};w={window}'.encode()


class Visit:
    """One request, from its headers to its answer: what it counts against, and whether it has its turn. `leave` is
    called once, whatever happens.
    """

    __slots__ = ("_limits", "_turns", "holder", "running")

    def __init__(self, limits: "RequestLimits", turns: FairTurns, holder: RequestHolder):
        self._limits, self._turns, self.holder, self.running = limits, turns, holder, False

    async def apart(self) -> None:
        """Give the turn to others, and wait for one among those whose work takes long. Raises LimitReached (503) if too
        many wait for one, or it does not come in time.
        """
        self.rest()
        self._turns = self._limits.long_turns
        if self._turns.crowded(self.holder.flying):
            raise self._limits.busy(self.holder, f"{self._turns.waiting} wait, and no more may", self._turns)
        await self.turn()

    async def turn(self) -> None:
        """Wait until the request may run. Raises LimitReached (503) if its turn does not come in time."""
        if self.running:
            return
        waiting = self._turns.enter(self.holder.name)
        if waiting is None:
            self.running = True
            return
        try:
            self.running = await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.result():
                self._turns.leave()
            raise
        if not self.running:
            patience = self._turns.patience
            raise self._limits.busy(self.holder, f"this one's did not come within {patience:g} s", self._turns)

    def rest(self) -> None:
        """Give the turn to others, for a request that waits for something that takes long."""
        if self.running:
            self.running = False
            self._turns.leave()

    def charge(self, items: int) -> None:
        """Count a batch of so many items as so many requests. Raises LimitReached (429) if the key has not as many
        tokens left; a batch of more than the burst needs all of them.
        """
        if items > 1:
            self._limits.take(self.holder, items - 1)
            self._turns.charge(self.holder.name, items - 1)

    def present(self, presented: str) -> None:
        """Count the request against the key that its body presents, no longer against its address. Raises LimitReached
        (429) as `RequestLimits.arrive` does.
        """
        self.holder = self._limits.moved(self.holder, presented)

    def leave(self) -> None:
        """The request is answered."""
        self.holder.flying -= 1
        self.rest()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the answer that say what is left (draft-ietf-httpapi-ratelimit-headers-10)."""
        return _headers(self.holder)


class RequestLimits:
    """Limits of one service. `identify` gives the key that a text presents; `clock` gives seconds. Belongs to one event
    loop; what was taken is of this process, and begins anew with it.
    """

    def __init__(
        self,
        identify: Callable[[str], KnownKey | None],
        clock: Callable[[], float],
        metrics: Metrics,
        turns: FairTurns,
    ):
        self._identify, self._clock, self._metrics, self.turns = identify, clock, metrics, turns
        self.long_turns = turns.beside(running=LONG, waiting=LONG_WAITING, patience=LONG_PATIENCE)
        self._keys: dict[str, RequestHolder] = {}
        self._addresses: OrderedDict[str, RequestHolder] = OrderedDict()
        self._failures = TokenBuckets()
        self._counters: dict[tuple[str, str], Counter] = {}
        self._later = LaterAnswers()  # of keys that are none

    def arrive(self, presented: str, address: str) -> Visit:
        """Visit of a request that presents a key ("": none) from an address. Raises LimitReached (429) if its key, or
        without one its address, has asked for too much, or if too many texts that are no key came from the address.
        """
        known = self._identify(presented) if presented else None
        if known is None:
            if presented:
                self._failed(address)
            holder = self._of_address(address)
        else:
            holder = self._of_key(known)
        self._enter(holder)
        return Visit(self, self.turns, holder)

    def moved(self, holder: RequestHolder, presented: str) -> RequestHolder:
        """Holder of a request that came as `holder`'s, and presents a key in its body. Raises LimitReached (429)."""
        if holder.label != _NOBODY or not presented:
            return holder
        known = self._identify(presented)
        if known is None:
            self._failed(holder.name)
            return holder
        moved = self._of_key(known)
        self._enter(moved)
        holder.flying -= 1
        return moved

    def _enter(self, holder: RequestHolder) -> None:
        quota = holder.quota
        if holder.flying >= quota.in_flight:
            raise self._refused(holder, "in_flight", quota.in_flight, "requests at the same time (in_flight)", 1.0)
        if self.turns.crowded(holder.flying):
            raise self.busy(holder, f"{self.turns.waiting} wait, and no more may", self.turns)
        self.take(holder, 1.0)
        holder.flying += 1
        holder.admitted.inc()

    def take(self, holder: RequestHolder, cost: float) -> None:
        """Take tokens of a holder. Raises LimitReached (429) if there are not as many."""
        wait = holder.bucket.take(cost, self._clock())
        if wait:
            quota = holder.quota
            words = f"requests or items a second (rate), {quota.burst:g} at once (burst)"
            raise self._refused(holder, "rate", quota.rate, words, wait)

    def busy(self, holder: RequestHolder, why: str, turns: FairTurns) -> LimitReached:
        """Refusal (503) of a request that has no turn, counted."""
        limit, what = ("turn", "requests") if turns is self.turns else ("long_turn", "long rankings")
        self._count(holder, limit)
        detail = f"{turns.running} {what} run at once ({limit}), and {why}; nothing was recorded"
        return LimitReached(503, detail, "send the same again later", 1.0, delay=self._delay(holder))

    def _refused(self, holder: RequestHolder, limit: str, number: float, words: str, wait: float) -> LimitReached:
        self._count(holder, limit)
        whose = "an address without a key" if holder.label == _NOBODY else f"the key {holder.name!r}"
        more = {name.decode(): value.decode() for name, value in _headers(holder)}
        fix = "wait as long as Retry-After says"
        return LimitReached(
            429, f"{whose} may send {number:g} {words}; nothing was recorded", fix, wait, more, self._delay(holder)
        )

    def _delay(self, holder: RequestHolder) -> float:
        """Seconds after which a refusal of a holder is answered."""
        now = self._clock()
        return holder.later.delay(now) if holder.refusals.take(1.0, now) else 0.0

    def _count(self, holder: RequestHolder, limit: str) -> None:
        counter = self._counters.get((holder.label, limit))
        if counter is None:  # finding a metric by its labels costs more than counting
            counter = self._counters[holder.label, limit] = self._metrics.limited.labels(holder.label, limit)
        counter.inc()

    def _failed(self, address: str) -> None:
        """A text that is no key came from an address."""
        self._metrics.key_failures.inc()
        wait = self._failures.take(address, FAILURES, FAILURES_AT_ONCE, self._clock()).wait
        if wait:
            detail = f"an address may present {60 * FAILURES:g} keys that are none a minute (key_failures)"
            raise LimitReached(429, detail, "send a key of this service", wait, delay=self._later.delay(self._clock()))
        log.warning("%s presented a key that is none, or not any more", address)

    def _of_key(self, known: KnownKey) -> RequestHolder:
        holder = self._keys.get(known.name)
        if holder is None:
            admitted = self._metrics.key_requests.labels(known.name)
            holder = self._keys[known.name] = RequestHolder(
                known.name, known.name, known.quota, admitted, self._clock()
            )
        elif holder.quota != known.quota:
            holder.declare(known.quota)
        return holder

    def _of_address(self, address: str) -> RequestHolder:
        holder = self._addresses.get(address)
        if holder is None:
            name, admitted = f"{_NOBODY} {address}", self._metrics.key_requests.labels(_NOBODY)
            holder = self._addresses[address] = RequestHolder(name, _NOBODY, DEFAULT, admitted, self._clock())
            if len(self._addresses) > _ADDRESSES:
                self._addresses.popitem(last=False)
        else:
            self._addresses.move_to_end(address)
        return holder


def remember(scope: MutableMapping[str, Any], visit: Visit) -> None:
    """Keep the visit of a request in its ASGI scope, for `visit_of`."""
    scope[_VISIT] = visit


def visit_of(scope: Any) -> Visit | None:
    """Visit of a request by its ASGI scope; None where nothing is limited, as in trials."""
    found: Visit | None = scope.get(_VISIT)
    return found


def present(scope: Any, presented: str) -> None:
    """Count a request against the key that its body presents. Raises LimitReached as `Visit.present` does."""
    visit = visit_of(scope)
    if visit is not None:
        visit.present(presented)


async def apart(scope: Any) -> None:
    """Wait for a turn among the requests whose work takes long, by the ASGI scope of one. Raises LimitReached as
    `Visit.apart` does.
    """
    visit = visit_of(scope)
    if visit is not None:
        await visit.apart()


def charge(scope: Any, items: int) -> None:
    """Count the items of a batch, by the ASGI scope of its request. Raises LimitReached as `Visit.charge` does."""
    visit = visit_of(scope)
    if visit is not None:
        visit.charge(items)


def _headers(holder: RequestHolder) -> list[tuple[bytes, bytes]]:
    bucket = holder.bucket
    left, again = max(0, int(bucket.left())), max(0.0, bucket.full_in())
    return [
        (b"ratelimit-policy", holder.policy),
        (b"ratelimit", b'"key";r=%d;t=%d' % (left, int(again + 0.999))),
    ]
