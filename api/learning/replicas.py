"""What other replicas do to what this one is about to write: which decisions still stand, and who is told of news."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from api.learning.learner import Settled
from api.stores.protocol import Store
from api.stores.replica_log import LedgerNews
from bandit.records import Decision, Settlement

Followed = Callable[[LedgerNews, int], None]
"""Told of news and its number."""

_TOUCHED = 100_000  # users whose last news is remembered


class SharedLimits(Protocol):
    """Limits that decisions of all replicas keep to together, as `api.decisions.replicas.CommittedLimits`."""

    def load(self) -> None:
        """Count anew from the ledger."""
        ...

    def take(self, decision: Decision) -> bool:
        """Whether the limits allow a decision; if so, it is counted."""
        ...

    def give_back(self, decision: Decision) -> None:
        """Count a decision no more: it was not written."""
        ...

    def caught_up(self) -> Callable[[], None]:
        """Work of the event loop after which it decides under limits that are as strict as these at least."""
        ...

    def follow(self, decisions: Iterable[Decision]) -> None:
        """Count decisions of other replicas."""
        ...

    def settled(self, done: Iterable[tuple[Decision, Settlement, Settlement | None]]) -> None:
        """Count what decisions have cost."""
        ...


class ReplicaFollower:
    """Follower of the other replicas of one ledger, owned by the `Worker`. It numbers their news, remembers whom each
    concerned, and tells the event loop (`loop`; the thread itself without one).

    Guarantee: a decision that `stands` rests on all that other replicas have committed about its user, and keeps to the
    limits on everyone, as long as `follow` was called in the same transaction. Threads: `share` before the writer
    thread starts, everything else in it.
    """

    def __init__(self, store: Store, settled: Settled):
        self._store = store
        self._settled = settled
        self._number = 0  # of the last news
        self._touched: dict[bytes, int] = {}  # user → news that concerned them last
        self._forgotten = 0  # news up to this number may have concerned anybody
        self._limits: SharedLimits | None = None
        self._followed: Followed = lambda _, __: None
        self._done: list[tuple[Decision, Settlement, Settlement | None]] = []  # not committed yet
        self._uncertain = False  # what was counted may not be what was committed
        self.loop: asyncio.AbstractEventLoop | None = None

    def share(self, limits: SharedLimits, followed: Followed) -> None:
        """Keep to these limits on everyone, and tell `followed` of news."""
        self._limits, self._followed = limits, followed

    def follow(self) -> LedgerNews | None:
        """Count what other replicas have committed, and return it; in a transaction, before it writes. The event loop
        is told by `tell`, once the news is taken in.
        """
        news = self._store.news()
        self._uncertain = self._uncertain or (news is not None and news.lost)
        if news is not None and self._limits is not None:
            self._limits.follow(record.decision for record in news.decisions)
            self._limits.settled(_settlements(news))
        return news

    def tell(self, news: LedgerNews) -> None:
        """Number the news, and tell the event loop: what is decided from then on knows it."""
        self._number += 1
        if news.rewritten or len(self._touched) > _TOUCHED:
            self._touched, self._forgotten = {}, self._number
        self._touched |= dict.fromkeys(news.users, self._number)
        self._in_loop(partial(self._followed, news, self._number))

    def stands(self, decision: Decision, known: int | None) -> bool:
        """Whether a decision may be written: no later news than number `known`, which it rests on, concerns its user,
        and the limits on everyone allow it. Those that do are counted. With None it stands whatever others do.
        """
        if self._limits is None or known is None:
            return True
        if known < max(self._forgotten, self._touched.get(decision.user, 0)):
            return False
        if not self._limits.take(decision):
            self._in_loop(self._limits.caught_up())
            return False
        return True

    def give_back(self, decision: Decision) -> None:
        """Count a decision no more that stood: the ledger had another one under its id."""
        if self._limits is not None:
            self._limits.give_back(decision)

    def settled(self, done: Iterable[tuple[Decision, Settlement, Settlement | None]]) -> None:
        """Take what decisions have cost; with shared limits, to be counted once it is committed."""
        if self._limits is None:
            self._settled(done)
        else:
            self._done += done

    def committed(self) -> None:
        """Count what the transaction has settled: it is committed."""
        done, self._done = self._done, []
        if self._limits is not None and done:
            self._limits.settled(done)

    def failed(self) -> None:
        """Forget what the transaction has settled: it failed, or may have, so limits have to be counted again."""
        self._done, self._uncertain = [], True

    def load(self) -> None:
        """Count limits anew from the ledger, where what was counted may not be what was committed; in a transaction."""
        if self._limits is not None and self._uncertain:
            self._limits.load()
        self._uncertain = False

    def _in_loop(self, work: Callable[[], object]) -> None:
        if self.loop is None:
            work()
        else:
            self.loop.call_soon_threadsafe(work)


def _settlements(news: LedgerNews) -> Iterator[tuple[Decision, Settlement, Settlement | None]]:
    """Settlements of other replicas, each with the one that it corrects."""
    for number, record in news.settled:
        before, done = record.as_of(number - 1).settlement, record.as_of(number).settlement
        if done is not None:
            yield record.decision, done, before
