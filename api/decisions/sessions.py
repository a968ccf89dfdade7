"""User sessions: an LRU cache of recent users' journeys, exposures and in-flight decisions, in the event loop.

A user is read from the ledger on a miss, then kept up to date: by events when they are durable, by decisions at once. A
decision reserves its exposure before anything else runs, so caps hold whoever asks at the same time. A write that is
not known to be durable keeps its reservation.
"""

import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from api.stores.event_log import Contribution, FirstDecision, IngestResult, Person
from api.stores.protocol import Store
from bandit import engine
from bandit.catalogue.model import NONE, Stage
from bandit.guardrails import CapScope, Exposure
from bandit.journey import folding
from bandit.journey.folding import JourneyFold, JourneyState
from bandit.records import Decision

_EVER = 2**62
_REMEMBERED = 100  # exposures of one nudge: no cap is higher
_READ = 2000  # decisions read of one person


class MomentDecision(NamedTuple):
    """Decision that a moment of a visit asked for, with its times in µs since 1970. `decision` is None while it is only
    in the ledger.
    """

    id: uuid.UUID
    arm: str
    at: int
    expires: int
    decision: Decision | None


class UserSession:
    """Session of one user (all ids that were joined): journey state, exposures by (stage, nudge), decisions that
    moments asked for, what they contribute by stage, and `in_flight`: decisions that are not known to be durable yet.
    `unit` is what the user's group is drawn from, empty until it is known. `warned`: stages at whose contribution limit
    the user was logged to be.

    Bounded, however much the user does: a hundred exposures of each nudge, one original of each moment, and of each
    stage with a contribution limit as many decisions as reach it.
    """

    def __init__(self, person: Person, state: JourneyState | None, stages: Mapping[str, Stage]):
        self.root, self.ids, self.state = person.root, person.ids, state
        self.first = person.first
        self.unit = person.first.unit if person.first else b""
        self.exposures: dict[CapScope, dict[uuid.UUID, Exposure]] = {}
        self.originals: dict[CapScope, MomentDecision] = {}
        self.in_flight: dict[uuid.UUID, Decision] = {}
        self.warned = set[str]()
        self._stages = stages
        self._contributed: dict[str, dict[uuid.UUID, Contribution]] = {}
        self._read_from = person.contributed[-1].at if len(person.contributed) == _READ else None
        taken = Counter[str]()
        for one in person.contributed:  # the newest first: once these reach a limit, older ones change nothing
            if taken[one.stage] < self._most(one.stage):
                taken[one.stage] += one.amount
                self.contribute(one)
        for asked in reversed(person.asked):
            waits = asked.activated is None and _deferred(stages, asked.stage, own=asked.deferred)
            until = asked.expires if waits else _EVER
            self.show((asked.stage, asked.arm), asked.id, Exposure(asked.at, until))
            if asked.moment:
                original = MomentDecision(asked.id, asked.arm, asked.at, asked.expires, None)
                self.originals[asked.stage, asked.moment] = original

    def show(self, place: CapScope, decision: uuid.UUID, exposure: Exposure) -> uuid.UUID | None:
        """Remember an exposure of a nudge (no nudge is none), and forget one that no cap can ask for, beyond the newest
        hundred of one nudge. Returns the decision whose exposure is forgotten, if one is.
        """
        if place[1] == NONE:
            return None
        mine = self.exposures.setdefault(place, {})
        mine.setdefault(decision, exposure)
        if len(mine) <= _REMEMBERED:
            return None
        oldest = next(iter(mine))
        del mine[oldest]
        return oldest

    def contribute(self, one: Contribution) -> None:
        """Count what a decision takes of the contribution limit, where its stage declares one."""
        if one.amount and self._most(one.stage):
            self._contributed.setdefault(one.stage, {})[one.id] = one

    def counts(self, decision: Decision) -> bool:
        """Whether the decision is counted: it is in flight, takes of the contribution limit, or is an exposure,
        whichever nudge was drawn.
        """
        return (
            decision.id in self.in_flight
            or decision.id in self._contributed.get(decision.stage, ())
            or any(decision.id in mine for (stage, _), mine in self.exposures.items() if stage == decision.stage)
        )

    def uncount(self, decision: Decision) -> None:
        """Count a decision no more."""
        self._contributed.get(decision.stage, {}).pop(decision.id, None)

    def room(self, stage: str, most: int, since: int) -> int:
        """What is left of a contribution limit of `most` in the time since `since` (µs). Nothing where so many
        decisions were made since then that not all of them were read.
        """
        if self._read_from is not None and self._read_from > since:
            return 0
        mine = self._contributed.get(stage, {})
        for old in [one.id for one in mine.values() if one.at <= since]:
            del mine[old]
        return max(0, most - sum(one.amount for one in mine.values()))

    def _most(self, stage: str) -> int:
        """Contribution limit of a stage, 0 if it declares none."""
        limit = self._stages[stage].contribution if stage in self._stages else None
        return limit.most if limit else 0

    @property
    def shown(self) -> dict[CapScope, list[Exposure]]:
        """Exposures by (stage, nudge), as frequency caps and fatigue read them."""
        return {place: list(mine.values()) for place, mine in self.exposures.items()}


class UserSessions:
    """Cache of the sessions of the last `bound` users that were asked about, rebuilt from the ledger on a miss.

    Life cycle of a decision: `reserve`, then `commit` (durable, or not known) or `cancel` (not written). Guarantee: a
    user with decisions in flight is not evicted, because the ledger does not show those decisions yet. Belongs to one
    event loop; a miss reads the ledger there.
    """

    def __init__(self, store: Store, rules: JourneyFold, bound: int = 50_000):
        self._store = store
        self._rules = rules
        self._stages = rules.catalogue.stages
        self._bound = bound
        self._live: OrderedDict[bytes, UserSession] = OrderedDict()
        self._roots: dict[bytes, bytes] = {}
        self._waiting: dict[uuid.UUID, bytes] = {}  # deferred exposures of those sessions → user, until activated

    def session(self, user: bytes) -> UserSession:
        """Session of the user behind an id (keyed hash), read from the ledger if it is not in memory."""
        root = self._roots.get(user)
        if root is None or root not in self._live:
            return self._load(user)
        self._live.move_to_end(root)
        return self._live[root]

    def unit(self, live: UserSession, user_id: str, salt: bytes) -> bytes:
        """Randomization unit of a user, from which the holdout and draws are derived: that of the user's first
        decision, whichever of their ids asks, so that joining ids changes no group.
        """
        if not live.unit:
            live.unit = self._unit(live.first, user_id, salt)
        return live.unit

    def _unit(self, first: FirstDecision | None, user_id: str, salt: bytes) -> bytes:
        if first is None or first.user == engine.user_hash(salt, user_id):
            return engine.randomization_unit(salt, user_id)
        share = self._store.specs()[first.spec].holdout
        return engine.unit_from_group(first.user, held=first.holdout, share=share)

    def reserve(self, decision: Decision) -> None:
        """Count the decision's exposure, and make it the original of its moment. Called by `DecisionMaker.prepare`; a
        retry of a decision that is counted changes nothing.
        """
        live = self.session(decision.user)
        if live.counts(decision):
            return  # a retry
        deferred = decision.arm != NONE and _deferred(self._stages, decision.stage, own=decision.deferred)
        live.in_flight[decision.id] = decision
        live.unit = live.unit or decision.unit
        if decision.is_actionable:
            live.contribute(Contribution(decision.id, decision.stage, decision.at, decision.contribution))
        exposure = Exposure(decision.at, decision.expires if deferred else _EVER)
        if deferred:
            self._waiting[decision.id] = decision.user
        if forgotten := live.show((decision.stage, decision.arm), decision.id, exposure):
            self._waiting.pop(forgotten, None)
        if decision.moment and decision.is_actionable:
            original = MomentDecision(decision.id, decision.arm, decision.at, decision.expires, decision)
            live.originals[decision.stage, decision.moment] = original

    def cancel(self, decision: Decision) -> None:
        """Take a reservation back: nothing was written, or the ledger has an older decision under this id."""
        live = self.session(decision.user)
        if live.in_flight.get(decision.id) is not decision:
            return  # a retry: the exposure is that of the first
        del live.in_flight[decision.id]
        live.uncount(decision)
        live.exposures.get((decision.stage, decision.arm), {}).pop(decision.id, None)
        self._waiting.pop(decision.id, None)
        original = live.originals.get((decision.stage, decision.moment))
        if original and original.decision is decision:
            del live.originals[decision.stage, decision.moment]

    def commit(self, decisions: Iterable[Decision]) -> None:
        """End the flight of decisions that are durable, or of which that is not known: their users may be read from the
        ledger again, and their exposures stay.
        """
        for decision in decisions:
            flying = self.session(decision.user).in_flight
            if flying.get(decision.id) is decision:
                del flying[decision.id]

    def activated(self, decision: uuid.UUID) -> None:
        """Count the exposure of a deferred decision for good: it was reported that its nudge was really shown. Unknown
        ids are ignored.
        """
        user = self._waiting.pop(decision, None)
        for mine in self.session(user).exposures.values() if user else ():
            if decision in mine:
                mine[decision] = mine[decision]._replace(until=_EVER)

    def original(self, live: UserSession, stage: str, moment: str, now: int) -> MomentDecision | None:
        """Decision that this moment asked for in the present visit, while its window is open at `now` (µs since 1970);
        None if there is none, so that a new one is due.
        """
        found = live.originals.get((stage, moment))
        began = live.state.began if live.state else now
        return found if found and began <= found.at and now < found.expires else None

    def apply(self, change: IngestResult) -> None:
        """Move sessions on with what events have changed in the ledger: journeys, users who were joined or parted,
        activations. Decisions in flight of a dropped session are reserved again in the new one.
        """
        flying = []
        for user in change.moved:
            gone = self._live.pop(self._roots.get(user, user), None)
            if gone:
                flying += list(gone.in_flight.values())
                self._forget(gone)
        for root, state in change.states.items():
            if root in self._live:
                self._live[root].state = state
        for decision in flying:
            self.reserve(decision)
        for credited, noted in change.noted:
            if credited.kind == "activation" and noted.status == "recorded":
                self.activated(credited.decision)

    @property
    def everybody(self) -> frozenset[bytes]:
        """Roots of all users whose sessions are in memory."""
        return frozenset(self._live)

    def _load(self, user: bytes) -> UserSession:
        person = self._store.person(user, _READ)
        state = person.state
        if state is not None and state.rules != self._rules.digest:  # the declarations have changed since
            state = folding.fold(self._rules, self._store.events(person.ids))
        live = self._live[person.root] = UserSession(person, state, self._stages)
        for asked in person.asked:
            deferred = _deferred(self._stages, asked.stage, own=asked.deferred)
            if asked.activated is None and deferred and asked.id in live.exposures.get((asked.stage, asked.arm), {}):
                self._waiting[asked.id] = person.root
        self._roots |= dict.fromkeys((user, *person.ids), person.root)
        while len(self._live) > self._bound and not (oldest := next(iter(self._live.values()))).in_flight:
            del self._live[oldest.root]
            self._forget(oldest)
        return live

    def _forget(self, live: UserSession) -> None:
        for one in live.ids:
            self._roots.pop(one, None)
        for mine in live.exposures.values():
            for decision in mine:
                self._waiting.pop(decision, None)


def _deferred(stages: Mapping[str, Stage], stage: str, *, own: bool) -> bool:
    """Whether a nudge counts as shown only once that was reported: by the decision's `own` rule, or the stage's."""
    return own or (stage in stages and stages[stage].activation == "required")
