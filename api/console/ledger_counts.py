"""Counts of a ledger for the console, kept in memory: pages read them, and never the whole ledger.

They are sums of ranges of rows (`DecisionLog.tally_decisions`), so a look costs what was added since the last one. Rows
that an erasure overwrites are counted again from the beginning, beside the counts that are shown meanwhile.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from api.learning import holdout
from api.stores.decision_log import LedgerPosition
from api.stores.protocol import Store
from bandit.catalogue.model import NONE, Catalogue
from bandit.errors import JourneyBanditError
from bandit.learning.holdout_audit import HoldoutAudit

log = logging.getLogger("journey_bandit.console")

SLICE = 2_000
"""Rows of one look: others who read the ledger wait for it."""

ACTION = "(action)"
"""Name under which all actions that came with requests are counted."""

_EVERY = 2.0  # seconds between two looks at a ledger that is counted
_SHARE = 3.0  # as long as a look took, others have the ledger
_AGAIN = 100.0  # times as long as counting anew took, before that is done once more
_FRESH = 60.0  # seconds for which an audit of the holdout is shown
_SMALL = 2_000  # settlements whose audit is no work
_SEEN = 600.0  # seconds for which audits are kept fresh after somebody looked
_PENDING = 50_000  # users that are gathered before they are sorted in


@dataclass
class ArmCounts:
    """Counts of one arm of a stage: decisions `shown` with it, those of them that wait or waited for a reward, those
    that `settled`, those that were `learned` and the sum of their rewards; and how often it was excluded, by kind of
    reason.
    """

    shown: int = 0
    asked: int = 0
    settled: int = 0
    learned: int = 0
    reward: float = 0.0
    excluded: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> int:
        """Decisions that are not settled."""
        return self.asked - self.settled

    @property
    def mean_reward(self) -> float | None:
        """Mean reward of learned decisions, in the reward's own units; None before any."""
        return self.reward / self.learned if self.learned else None


@dataclass
class StageCounts:
    """Counts of one stage by arm, `days` (days since 1970, UTC → arm → decisions), and of all: `people`, decisions of
    the control group, and decisions for which no moment held.
    """

    arms: dict[str, ArmCounts] = field(default_factory=dict)
    days: dict[int, Counter[str]] = field(default_factory=dict)
    people: int = 0
    held: int = 0
    not_now: int = 0

    @property
    def whole(self) -> ArmCounts:
        """Counts of all arms together."""
        found = ArmCounts()
        for one in self.arms.values():
            found.shown, found.asked = found.shown + one.shown, found.asked + one.asked
            found.settled, found.learned = found.settled + one.settled, found.learned + one.learned
            found.reward += one.reward
        return found

    @property
    def nudged(self) -> int:
        """Decisions with which a nudge was shown."""
        return sum(one.shown for arm, one in self.arms.items() if arm != NONE)


class CountProgress(NamedTuple):
    """How far a ledger is counted: rows up to `counted`, of those up to `newest`."""

    counted: LedgerPosition
    newest: LedgerPosition

    @property
    def share(self) -> float:
        """Share of the rows that is counted, in [0, 1]."""
        rows = self.newest.decision + self.newest.settlement
        return (self.counted.decision + self.counted.settlement) / rows if rows else 1.0

    @property
    def complete(self) -> bool:
        """Whether all that was there at the last look is counted."""
        return self.share >= 1.0


class _UserSet:
    """Set of users by 8 bytes of their keyed hashes: 8 bytes a user, and what is gathered to be sorted in."""

    def __init__(self) -> None:
        self._sorted: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._new = set[int]()

    def add(self, users: set[bytes]) -> None:
        self._new.update(int.from_bytes(user[:8], "big") for user in users)
        if len(self._new) > _PENDING:
            self._sort()

    def __len__(self) -> int:
        fresh = np.fromiter(self._new, np.uint64, len(self._new))
        places = np.searchsorted(self._sorted, fresh)
        known = np.zeros(len(fresh), np.bool_)
        inside = places < len(self._sorted)
        known[inside] = self._sorted[places[inside]] == fresh[inside]
        return len(self._sorted) + len(fresh) - int(known.sum())

    def _sort(self) -> None:
        if self._new:
            fresh = np.fromiter(self._new, np.uint64, len(self._new))
            self._sorted, self._new = np.union1d(self._sorted, fresh), set()


class _Tally:
    """Counting from the first row on: what was counted, and up to where."""

    def __init__(self, erasures: int):
        self.erasures = erasures  # entries that had been made when it began
        self.at, self.newest = LedgerPosition(0, 0, 0), LedgerPosition(0, 0, 0)
        self.stages: dict[str, StageCounts] = {}
        self.users: dict[str, _UserSet] = {}

    @property
    def progress(self) -> CountProgress:
        return CountProgress(self.at, self.newest)

    def step(self, store: Store, actions: set[str]) -> bool:
        """Count the next slice; whether there is more. `actions`: stages whose actions come with requests."""
        if self.at.decision >= self.newest.decision and self.at.settlement >= self.newest.settlement:
            self.newest = store.last()
        made = min(self.at.decision + SLICE, self.newest.decision)
        done = min(self.at.settlement + SLICE, self.newest.settlement)
        if made > self.at.decision:
            self._decisions(store, made, actions)
        elif done > self.at.settlement:
            self._settlements(store, done, actions)
        return self.at.decision < self.newest.decision or self.at.settlement < self.newest.settlement

    def _decisions(self, store: Store, through: int, actions: set[str]) -> None:
        found = store.tally_decisions(self.at.decision, through)
        for one in found.alike:
            stage = self.stages.setdefault(one.stage, StageCounts())
            name, n = _named(one.stage, one.arm, actions), one.decisions
            arm = stage.arms.setdefault(name, ArmCounts())
            arm.shown += n
            arm.asked += n if one.actionable else 0
            stage.held += n if one.holdout else 0
            stage.not_now += 0 if one.actionable else n
            stage.days.setdefault(one.day, Counter())[name] += n
            for nudge, reason in one.excluded.items():
                other = stage.arms.setdefault(_named(one.stage, nudge, actions), ArmCounts())
                other.excluded[kind_of(reason)] += n
        for name, users in found.users.items():
            if name not in actions:  # who they are about is not known
                self.users.setdefault(name, _UserSet()).add(users)
        self.at = self.at._replace(decision=through)

    def _settlements(self, store: Store, through: int, actions: set[str]) -> None:
        for one in store.tally_settlements(self.at.settlement, through):
            stage = self.stages.setdefault(one.stage, StageCounts())
            arm = stage.arms.setdefault(_named(one.stage, one.arm, actions), ArmCounts())
            arm.settled, arm.learned = arm.settled + one.settled, arm.learned + one.learned
            arm.reward += one.reward
        self.at = self.at._replace(settlement=through)

    def stage(self, name: str) -> StageCounts:
        found = deepcopy(self.stages.get(name, StageCounts()))
        found.people = len(self.users.get(name, ()))
        return found


_KINDS = ("paused by", "retired by", "taken by slot")
"""How reasons begin that go on with what people or requests named."""


def kind_of(reason: str) -> str:
    """Kind of a reason for which a nudge was excluded: its words before the names and numbers of the case."""
    return next((kind for kind in _KINDS if reason.startswith(kind)), reason.partition(":")[0])


def _named(stage: str, arm: str, actions: set[str]) -> str:
    return ACTION if stage in actions else arm


class LedgerCounts:
    """Counts of one ledger by stage and arm, as of the last look. `catalogue` gives the stages that are served, whose
    holdout is audited.

    Any thread may call. From the first `look_on` on, `running` looks from its event loop, in other threads and in
    slices with pauses, so that decisions do not wait; `catch_up` looks at once, for a page that is about to be drawn.
    `audit_large`: the holdout of a large ledger is audited here too, which decisions feel; another process does it
    where it can read the ledger (`api.console.lift_reports`).
    """

    def __init__(
        self,
        store: Store,
        catalogue: Callable[[], Catalogue],
        pace: Callable[[], float] = time.monotonic,
        *,
        audit_large: bool = True,
    ):
        self._store, self._catalogue, self._pace, self._audit_large = store, catalogue, pace, audit_large
        self._working, self._lock = threading.Lock(), threading.Lock()
        self._shown = self._counting = _Tally(-1)
        self._began, self._again_at = pace(), 0.0
        self._audits: Mapping[str, HoldoutAudit] = {}
        self._audited_shares: Mapping[str, float] = {}
        self._audited_at, self._audit_took, self._looked_at = float("-inf"), 0.0, float("-inf")
        self._over, self._wanted = asyncio.Event(), asyncio.Event()

    @property
    def progress(self) -> CountProgress:
        """How far the counts are that `stage` gives."""
        return self._shown.progress

    def stage(self, name: str) -> StageCounts:
        """Counts of a stage: a copy."""
        with self._lock:
            return self._shown.stage(name)

    def audits(self) -> tuple[Mapping[str, HoldoutAudit], float | None]:
        """Audits of the holdout by stage, and how old they are in seconds; None if they are not made here, or not yet.
        Those of a small ledger are made now.
        """
        self._looked_at = self._pace()
        if self._small:
            self._audit()
        elif not self._audit_large:
            return {}, None
        age = self._pace() - self._audited_at
        return self._audits, None if age == float("inf") else age

    def catch_up(self, seconds: float = 0.05) -> CountProgress:
        """Count what the ledger has now, for so many seconds at most; how far it came."""
        end = self._pace() + seconds
        if self._working.acquire(timeout=seconds):
            try:
                while self._step() and self._pace() < end:
                    pass
            finally:
                self._working.release()
        return self.progress

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context of the service's life."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._over.set()
            await task

    def look_on(self) -> None:
        """Begin to count, if nobody looked before: on a large ledger that takes minutes, and not all have a console.
        Called in the event loop.
        """
        self._wanted.set()

    async def _run(self) -> None:
        wanted, over = asyncio.ensure_future(self._wanted.wait()), asyncio.ensure_future(self._over.wait())
        await asyncio.wait((wanted, over), return_when=asyncio.FIRST_COMPLETED)
        wanted.cancel()
        over.cancel()
        while not self._over.is_set():
            began = self._pace()
            try:
                more = await asyncio.to_thread(self._look)
            except Exception as error:
                known = isinstance(error, JourneyBanditError)  # health says what is wrong with the ledger
                log.warning("the console could not count the ledger: %s", error, exc_info=None if known else error)
                more = False
            took = self._pace() - began
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _SHARE * took if more else max(_EVERY, _SHARE * took))

    def _look(self) -> bool:
        with self._working:
            more = self._step()
        if not more and self._audit_large and self._pace() - self._looked_at < _SEEN:
            self._audit()
        return more

    def _step(self) -> bool:
        """One slice, by who works; whether there is more."""
        if self._counting.erasures < 0:
            self._counting.erasures = max((entry.seq for entry in self._store.erasures()), default=0)
        elif self._counting is self._shown and self._counting.progress.complete and self._pace() >= self._again_at:
            entries = self._store.erasures(self._shown.erasures)
            if entries:
                self._counting, self._began = _Tally(entries[-1].seq), self._pace()
        actions = {name for name, stage in self._catalogue().stages.items() if stage.has_request_actions}
        with self._lock:
            more = self._counting.step(self._store, actions)
        if not more and self._counting is not self._shown:
            self._again_at = self._pace() + _AGAIN * (self._pace() - self._began)
            self._shown = self._counting
        return more

    @property
    def _small(self) -> bool:
        """Whether an audit of the whole ledger, not of what is counted so far, is no work."""
        return self._counting.newest.settlement <= _SMALL

    def _audit(self) -> None:
        began, stages = self._pace(), self._catalogue().stages.items()
        shares = {name: stage.holdout for name, stage in stages}
        fresh = 0.0 if self._small or shares != self._audited_shares else max(_FRESH, _AGAIN * self._audit_took)
        if began - self._audited_at < fresh:
            return
        self._audited_shares = shares
        found = {name: holdout.audit_of(self._store, name, stage) for name, stage in stages}
        self._audits = {name: one for name, one in found.items() if one is not None}
        self._audited_at = self._pace()
        self._audit_took = self._audited_at - began
