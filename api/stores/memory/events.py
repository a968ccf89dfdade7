"""Rows of events, links, journeys and credits of the memory store."""

import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from api.stores.decision_log import DecisionRecord
from api.stores.event_log import Contribution, FirstDecision, MissedReport, PastDecision, Person
from api.stores.ingest import DecisionPlace, Link, family, root_of
from bandit.catalogue.model import NONE
from bandit.journey import folding
from bandit.journey.attribution import CreditableDecision, CreditedOutcome, CreditState, UncreditedReport
from bandit.journey.folding import JourneyState
from bandit.records import NOT_NOW, Event


class MemoryEventRows:
    """`EventRows` in dicts. `decided(users)`: the decisions of these users, in order; `found(id)`: one decision.
    Records are frozen, so they are shared and not copied. Not thread-safe.
    """

    def __init__(
        self,
        decided: Callable[[Collection[bytes]], Iterable[DecisionRecord]],
        found: Callable[[uuid.UUID], DecisionRecord],
    ) -> None:
        self._decided = decided
        self._found = found
        self._events: dict[str, tuple[Event, bool]] = {}
        self._numbers: dict[str, int] = {}  # of events, in order of arrival
        self._arrived = 0
        self._by_user: dict[bytes, list[str]] = {}
        self._links: dict[bytes, dict[bytes, Link]] = {}
        self._owners: dict[bytes, bytes] = {}
        self._aliases: dict[bytes, list[bytes]] = {}
        self._states: dict[bytes, JourneyState] = {}
        self._credits: dict[tuple[str, str], CreditState] = {}
        self._missed: dict[tuple[str, str], MissedReport] = {}

    def known(self, ids: Sequence[str]) -> dict[str, Event]:
        """As `EventRows.known`."""
        return {i: self._events[i][0] for i in ids if i in self._events}

    def append(self, events: Sequence[tuple[Event, bool]]) -> None:
        """As `EventRows.append`."""
        for event, reports in events:
            self._events[event.id] = (event, reports)
            self._arrived += 1
            self._numbers[event.id] = self._arrived
            self._by_user.setdefault(event.user, []).append(event.id)

    def events(
        self, users: Collection[bytes], *, reporting: bool = False, since: int | None = None, newest: int | None = None
    ) -> list[Event]:
        """As `EventRows.events`; all events of a user in order of arrival."""
        rows = [self._events[i] for user in users for i in self._by_user.get(user, ())]
        found = [event for event, reports in rows if reports or not reporting]
        found = found if since is None else [event for event in found if event.at >= since]
        return found if newest is None else sorted(found, key=folding.order, reverse=True)[:newest]

    def numbered(self) -> Iterator[tuple[int, Event]]:
        """All events with their numbers, in order."""
        return ((seq, self._events[i][0]) for i, seq in self._numbers.items())

    @property
    def arrived(self) -> int:
        """Number of the newest event, 0 before any."""
        return self._arrived

    def newest_time(self, users: Collection[bytes], number: int) -> int | None:
        """As `EventRows.newest_time`."""
        times = sorted((event.at for event in self.events(users)), reverse=True)
        return times[number] if len(times) > number else None

    def links(self, alias: bytes) -> list[Link]:
        """As `EventRows.links`."""
        return list(self._links.get(alias, {}).values())

    def link(self, alias: bytes, link: Link) -> None:
        """As `EventRows.link`."""
        self._links.setdefault(alias, {})[link[2]] = link

    def owners(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """As `EventRows.owners`."""
        return {i: self._owners[i] for i in ids if i in self._owners}

    def own(self, alias: bytes, owner: bytes) -> None:
        """As `EventRows.own`."""
        if alias in self._owners:
            self._aliases[self._owners[alias]].remove(alias)
        self._owners[alias] = owner
        self._aliases.setdefault(owner, []).append(alias)

    def aliases(self, owner: bytes) -> list[bytes]:
        """As `EventRows.aliases`."""
        return list(self._aliases.get(owner, ()))

    def states(self, roots: Collection[bytes]) -> dict[bytes, JourneyState]:
        """As `EventRows.states`."""
        return {root: self._states[root] for root in roots if root in self._states}

    def keep(self, states: Mapping[bytes, JourneyState | None]) -> None:
        """As `EventRows.keep`."""
        for root, state in states.items():
            if state:
                self._states[root] = state
            else:
                self._states.pop(root, None)

    def newest_decision(self, users: Collection[bytes], number: int) -> DecisionPlace | None:
        """As `EventRows.newest_decision`."""
        made = [list(self._decided([user]))[::-1][number : number + 1] for user in users]
        return max((DecisionPlace(f.seq, f.decision.at) for found in made for f in found), default=None)

    def candidates(self, users: Collection[bytes], since: int, first: int = 0) -> list[CreditableDecision]:
        """As `EventRows.candidates`, in the order in which the decisions were made."""
        decided = (f for f in self._decided(users) if f.seq >= first)
        found = [f for f in decided if f.decision.expires > since and f.decision.moment != NOT_NOW]
        return [
            CreditableDecision(d.id, d.stage, d.arm, d.at, d.expires, _activated(f), d.deferred)
            for f in found
            for d in (f.decision,)
        ]

    def credits(self, events: Sequence[str], now: int) -> dict[tuple[str, str], CreditState]:
        """As `EventRows.credits`; looks through all credits, which is enough for tests and trials."""
        wanted = set(events)
        return {
            key: state._replace(final=_final(found, state.outcome, now))
            for key, state in self._credits.items()
            if key[0] in wanted
            for found in (self._found(state.decision),)
        }

    def credit(self, rows: Sequence[CreditedOutcome]) -> None:
        """As `EventRows.credit`."""
        for c in rows:
            outcome = "" if c.voids else c.outcome
            self._credits[c.event, c.stage] = CreditState(c.decision, outcome, c.fact, c.changes)

    def missed(self, events: Sequence[str]) -> dict[tuple[str, str], UncreditedReport]:
        """As `EventRows.missed`; looks through all reports, which is enough for tests and trials."""
        wanted = set(events)
        return {key: miss.report for key, miss in self._missed.items() if key[0] in wanted}

    def miss(self, rows: Sequence[MissedReport], gone: Sequence[tuple[str, str]]) -> None:
        """As `EventRows.miss`."""
        for key in gone:
            del self._missed[key]
        self._missed |= {(miss.report.event, miss.report.stage): miss for miss in rows}

    def uncredit(self, decisions: Collection[uuid.UUID]) -> None:
        """Forget what is credited to these decisions."""
        self._credits = {key: state for key, state in self._credits.items() if state.decision not in decisions}

    def erase(self, users: Collection[bytes], most: int) -> int:
        """Forget events of these users, at most so many, with their credits; returns how many."""
        gone = [event for user in users for event in self._by_user.get(user, ())][:most]
        for event in gone:
            del self._numbers[event]
            self._by_user[self._events.pop(event)[0].user].remove(event)
        self._credits = {key: state for key, state in self._credits.items() if key[0] not in gone}
        self._missed = {key: miss for key, miss in self._missed.items() if key[0] not in gone}
        return len(gone)

    def unlink(self, users: Collection[bytes]) -> None:
        """Forget links and journeys of these users; other users' events that name one of them lose it."""
        for key, (event, reports) in list(self._events.items()):
            if event.alias in users:
                self._events[key] = msgspec.structs.replace(event, alias=None), reports
        self._links = {
            alias: {owner: link for owner, link in named.items() if owner not in users}
            for alias, named in self._links.items()
            if alias not in users
        }
        self._owners = {a: o for a, o in self._owners.items() if a not in users and o not in users}
        self._aliases = {}
        for alias, owner in self._owners.items():
            self._aliases.setdefault(owner, []).append(alias)
        for user in users:
            self._states.pop(user, None)

    def newest_missed(self, most: int, reason: str | None) -> list[MissedReport]:
        """Reports that are credited to nothing, the newest `most` of one reason or of any, newest first."""
        found = [miss for miss in self._missed.values() if reason in (None, miss.report.reason)]
        return sorted(found, key=lambda miss: (-miss.at, miss.report.event, miss.report.stage))[:most]

    def person(self, user: bytes, most: int) -> Person:
        """Person behind an id, with the newest `most` decisions that showed something, or that a moment asked for."""
        root = root_of(self, user)
        ids = family(self, root)
        decided = list(self._decided(ids))
        found = [
            PastDecision(d.id, d.stage, d.arm, d.at, d.expires, d.moment, d.deferred, _activated(f))
            for f in decided
            for d in (f.decision,)
            if d.arm != NONE or d.moment not in ("", NOT_NOW)
        ]
        first = min((f.decision for f in decided), key=lambda d: not d.unit, default=None)
        known = FirstDecision(first.user, first.unit, first.holdout, first.stage_digest) if first else None
        mine = [f.decision for f in decided[::-1] if f.decision.is_actionable]
        contributed = tuple(Contribution(d.id, d.stage, d.at, d.contribution) for d in mine[:most])
        return Person(root, ids, self._states.get(root), tuple(found[::-1][:most]), known, contributed)


def _activated(found: DecisionRecord) -> int | None:
    return min((o.occurred for o in found.outcomes if o.kind == "activation"), default=None)


def _final(found: DecisionRecord, outcome: str, now: int) -> bool:
    withdrawn = any(one.withdrawal and one.voids == outcome for one in found.outcomes)
    return found.settlement is not None or found.decision.expires <= now or withdrawn
