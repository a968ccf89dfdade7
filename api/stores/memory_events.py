"""Events, links, journeys and credits of the ledger in memory."""

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from api.stores.intake import Link, family, root_of
from api.stores.protocol import Asked, Found, Person
from bandit.attribution import Candidate, Credited
from bandit.catalogue import NONE
from bandit.journey import State
from bandit.records import NOT_NOW, Event


class MemoryRows:
    """`Rows` in dicts. `decided(users)`: the decisions of these users, in order. Records are frozen, so shared."""

    def __init__(self, decided: Callable[[Collection[bytes]], Iterable[Found]]) -> None:
        self._decided = decided
        self._events: dict[str, tuple[Event, bool]] = {}
        self._by_user: dict[bytes, list[str]] = {}
        self._links: dict[bytes, dict[bytes, Link]] = {}
        self._owners: dict[bytes, bytes] = {}
        self._aliases: dict[bytes, list[bytes]] = {}
        self._states: dict[bytes, State] = {}
        self._credits: dict[tuple[str, str], uuid.UUID] = {}

    def known(self, ids: Sequence[str]) -> dict[str, Event]:
        return {i: self._events[i][0] for i in ids if i in self._events}

    def append(self, events: Sequence[tuple[Event, bool]]) -> None:
        for event, reports in events:
            self._events[event.id] = (event, reports)
            self._by_user.setdefault(event.user, []).append(event.id)

    def events(self, users: Collection[bytes], *, reporting: bool = False) -> list[Event]:
        rows = [self._events[i] for user in users for i in self._by_user.get(user, ())]
        return [event for event, reports in rows if reports or not reporting]

    def links(self, alias: bytes) -> list[Link]:
        return list(self._links.get(alias, {}).values())

    def link(self, alias: bytes, link: Link) -> None:
        self._links.setdefault(alias, {})[link[2]] = link

    def owners(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        return {i: self._owners[i] for i in ids if i in self._owners}

    def own(self, alias: bytes, owner: bytes) -> None:
        if alias in self._owners:
            self._aliases[self._owners[alias]].remove(alias)
        self._owners[alias] = owner
        self._aliases.setdefault(owner, []).append(alias)

    def aliases(self, owner: bytes) -> list[bytes]:
        return list(self._aliases.get(owner, ()))

    def states(self, roots: Collection[bytes]) -> dict[bytes, State]:
        return {root: self._states[root] for root in roots if root in self._states}

    def keep(self, states: Mapping[bytes, State | None]) -> None:
        for root, state in states.items():
            if state:
                self._states[root] = state
            else:
                self._states.pop(root, None)

    def candidates(self, users: Collection[bytes], since: int) -> list[Candidate]:
        found = [f for f in self._decided(users) if f.decision.expires > since and f.decision.moment != NOT_NOW]
        return [
            Candidate(d.id, d.stage, d.arm, d.at, d.expires, _activated(f), d.deferred)
            for f in found
            for d in (f.decision,)
        ]

    def credited(self, events: Sequence[str]) -> dict[tuple[str, str], uuid.UUID]:
        wanted = set(events)
        return {key: decision for key, decision in self._credits.items() if key[0] in wanted}

    def credit(self, rows: Sequence[Credited]) -> None:
        self._credits |= {(row.event, row.stage): row.decision for row in rows}

    def person(self, user: bytes, most: int) -> Person:
        """As the SQLite ledger's."""
        root = root_of(self, user)
        ids = family(self, root)
        found = [
            Asked(d.id, d.stage, d.arm, d.at, d.expires, d.moment, d.deferred, _activated(f))
            for f in self._decided(ids)
            for d in (f.decision,)
            if d.arm != NONE or d.moment not in ("", NOT_NOW)
        ]
        return Person(root, ids, self._states.get(root), tuple(found[::-1][:most]))


def _activated(found: Found) -> int | None:
    return min((o.occurred for o in found.outcomes if o.kind == "activation"), default=None)
