"""Ingestion of events, the same in every store: what is new, who a user is, the journey, and what was reported.

A store supplies rows inside one transaction; everything here runs within it, so events, journeys and the outcomes that
events report become durable together.

Ids of one person are joined by links alias → owner, said by events that carry both. An alias belongs to the owner of
its earliest link, whatever order links came in; following owners leads to the root, under which the journey is kept.

After each change, a person's reports are attributed as if all had come in the order in which they happened; what
differs from the credits in force is recorded.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from api.stores.decision_log import OutcomeReceipt
from api.stores.event_log import EventCredits, IngestResult, MissedReport, Status
from bandit.journey import attribution, folding
from bandit.journey.attribution import CreditableDecision, CreditedOutcome, Credits, CreditState, UncreditedReport
from bandit.journey.folding import JourneyFold, JourneyState
from bandit.records import Event, Outcome

Link = tuple[int, str, bytes]  # when it was said, in which event, the owner


class DecisionPlace(NamedTuple):
    """Place of a decision in the ledger: its number, and when it was made (µs)."""

    seq: int
    at: int


class EventRows(Protocol):
    """Rows of events, links, journeys and credits of one store, inside one transaction. Each store implements it;
    `ingest` and `person` read and write through it, so that both stores take events in by the same rules.

    User ids are keyed hashes; times are µs since 1970. Whoever calls holds the transaction, and uses the object only
    within it.
    """

    def known(self, ids: Sequence[str]) -> dict[str, Event]:
        """Events of these ids that are recorded, by id; ids that are not recorded are left out."""
        ...

    def append(self, events: Sequence[tuple[Event, bool]]) -> None:
        """Append new events; True marks those that report something, which `events(reporting=True)` finds again. Ids
        are new.
        """
        ...

    def events(
        self, users: Collection[bytes], *, reporting: bool = False, since: int | None = None, newest: int | None = None
    ) -> list[Event]:
        """Events under these users' ids, in no particular order: all of them, or those that report something, those
        that happened at `since` (µs) or later, and the `newest` of them by time and id.
        """
        ...

    def newest_time(self, users: Collection[bytes], number: int) -> int | None:
        """When (µs) the newest event but `number` of these users' ids happened; None if there are fewer."""
        ...

    def links(self, alias: bytes) -> list[Link]:
        """Every link of an alias (time, event, owner), one for each owner that an event named."""
        ...

    def link(self, alias: bytes, link: Link) -> None:
        """Record a link of an alias, in place of a later one to the same owner: the earliest counts."""
        ...

    def owners(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """Owners of those of the ids that are aliases, by alias: one step towards the root."""
        ...

    def own(self, alias: bytes, owner: bytes) -> None:
        """Keep to whom an alias belongs now, in place of an earlier owner."""
        ...

    def aliases(self, owner: bytes) -> list[bytes]:
        """Ids that belong to this owner directly: one step away from the root."""
        ...

    def states(self, roots: Collection[bytes]) -> dict[bytes, JourneyState]:
        """Folded journeys that are kept under these roots, by root; roots without one are left out."""
        ...

    def keep(self, states: Mapping[bytes, JourneyState | None]) -> None:
        """Keep folded journeys by root, in place of those kept before; forget those that are None, because their root
        belongs to another now.
        """
        ...

    def newest_decision(self, users: Collection[bytes], number: int) -> DecisionPlace | None:
        """Place of the newest decision but `number` of one of these users' ids, of the id where it is newest; None if
        none has so many.
        """
        ...

    def candidates(self, users: Collection[bytes], since: int, first: int = 0) -> list[CreditableDecision]:
        """Decisions of these users with the number `first` or a later one whose window was open at `since` (µs) or
        later, without those that were "not now": what events may be credited to.
        """
        ...

    def credits(self, events: Sequence[str], now: int) -> dict[tuple[str, str], CreditState]:
        """State of each credit of these events, by (event, stage); final if the decision is settled, its window is over
        at `now` (µs), or what it reported was withdrawn.
        """
        ...

    def credit(self, rows: Sequence[CreditedOutcome]) -> None:
        """Keep credits, and those that were voided (without an outcome); the last one of an event and a
        stage counts.
        """
        ...

    def missed(self, events: Sequence[str]) -> dict[tuple[str, str], UncreditedReport]:
        """Reports of these events that are credited to nothing, by (event, stage), with the reason."""
        ...

    def miss(self, rows: Sequence[MissedReport], gone: Sequence[tuple[str, str]]) -> None:
        """Keep reports that are credited to nothing, in place of earlier reasons, and forget those of `gone` (event,
        stage).
        """
        ...


LATE = 2000
"""Events of one person that may have happened after one that comes late: beyond, it is refused."""
REPORTS = 1000
"""Newest events that report something, of one person, which are attributed together."""
DECISIONS = 2000
"""Newest decisions of each id of a person that reports are credited to. What happened before them keeps its credit."""
_PEOPLE = 1000  # whose earlier journeys are remembered


class EarlierJourneys:
    """Journeys of people of whom there are many events as they were some thousand events ago, from which a late event
    is folded again. One for each writing store, in memory: after a restart the first late event of such a person is
    folded from the beginning. Belongs to the thread that writes.
    """

    def __init__(self) -> None:
        self._states: OrderedDict[bytes, JourneyState] = OrderedDict()

    def fold(
        self, rows: EventRows, rules: JourneyFold, root: bytes, before: JourneyState | None, new: Sequence[Event]
    ) -> JourneyState | None:
        """Journey of all events of a person, `new` included, which are recorded already; `before`: the journey without
        them, None if that is not known.
        """
        users = family(rows, root)
        start = self._states.get(root) if before and before.rules == rules.digest else None
        if start is not None and before is not None:
            order = (start.at, start.id)
            events = [event for event in rows.events(users, since=start.at) if folding.order(event) > order]
            whole = start.rules == rules.digest and start.count + len(events) == before.count + len(new)
            if whole and all(folding.order(event) > order for event in new):
                return self._fold(rules, root, sorted(events, key=folding.order), start)
        return self._fold(rules, root, sorted(rows.events(users), key=folding.order), None)

    def forget(self, roots: Iterable[bytes]) -> None:
        """Forget what people did: it is erased."""
        for root in roots:
            self._states.pop(root, None)

    def _fold(
        self, rules: JourneyFold, root: bytes, events: Sequence[Event], start: JourneyState | None
    ) -> JourneyState | None:
        """Fold events in their order, and remember where to begin the next time."""
        if len(events) > 2 * LATE:
            start = self._states[root] = folding.fold(rules, events[:-LATE], start)
            self._states.move_to_end(root)
            events = events[-LATE:]
            if len(self._states) > _PEOPLE:
                self._states.popitem(last=False)
        return folding.fold(rules, events, start) if events else None


Record = Callable[[Sequence[Outcome]], list[OutcomeReceipt]]


def roots_of(rows: EventRows, users: Iterable[bytes]) -> dict[bytes, bytes]:
    """Root of each user: where following owners ends; the smallest id where owners go round in a circle. One query for
    each step of the longest chain, whatever the number of users.
    """
    owners: dict[bytes, bytes | None] = {}
    look = set(users)
    starts = tuple(look)
    while look:  # a query for each step of the longest chain, whatever the number of users
        found = rows.owners(look)
        owners |= {one: found.get(one) for one in look}
        look = set(found.values()) - owners.keys()
    return {user: _end(owners, user) for user in starts}


def _end(owners: Mapping[bytes, bytes | None], user: bytes) -> bytes:
    path = [user]
    while (owner := owners[path[-1]]) is not None:
        if owner in path:
            return min(path[path.index(owner) :])
        path.append(owner)
    return path[-1]


def root_of(rows: EventRows, user: bytes) -> bytes:
    """Root of one user: the id under which the journey of the user is kept."""
    return roots_of(rows, [user])[user]


def family(rows: EventRows, root: bytes) -> frozenset[bytes]:
    """Ids that lead to the root, the root itself included: all that is known to be one person."""
    found, look = {root}, [root]
    while look:
        new = set(rows.aliases(look.pop())) - found
        found |= new
        look += new
    return frozenset(found)


def ingest(
    rows: EventRows,
    rules: JourneyFold,
    events: Sequence[Event],
    now: int,
    record: Record,
    users: Collection[bytes] = (),
    earlier: EarlierJourneys | None = None,
) -> IngestResult:
    """Ingest events inside a transaction: record what is new, move journeys on, and record what the events report by
    `record`. Called by `ingest` of a store. `now` in µs since 1970.

    `users` are people whose decisions have changed, so that what they reported is attributed anew. `earlier` spares
    work where a person has many events, and changes nothing else. Returns what became of each event, and all that
    followed from them.
    """
    earlier = earlier or EarlierJourneys()
    roots = roots_of(rows, {event.user for event in events})
    known = rows.states(set(roots.values()))
    taken, fresh = _admit(rows, events, _too_late(rows, events, roots, known))
    rows.append([(event, event.name in rules.outcomes) for event in fresh])
    moved = _join(rows, [event for event in fresh if event.alias not in (None, event.user)])
    if moved or users:
        roots = roots_of(rows, {*moved, *users, *(event.user for event in fresh)})
    by_root: dict[bytes, list[Event]] = {roots[one]: [] for one in moved}
    for event in fresh:
        by_root.setdefault(roots[event.user], []).append(event)
    unread = by_root.keys() - moved - known.keys()
    before = {root: state for root, state in known.items() if root not in moved} | rows.states(unread)
    states = {root: _moved_on(rows, rules, root, new, before.get(root), earlier) for root, new in by_root.items()}
    rows.keep({**dict.fromkeys(moved - states.keys()), **states})
    telling = {root for root, new in by_root.items() if any(event.name in rules.outcomes for event in new)}
    asked = telling | (moved & set(roots.values())) | {roots[user] for user in users}
    reported = [_report(rows, rules, family(rows, root), by_root.get(root, ()), now, record) for root in sorted(asked)]
    told = [event.id for event in events if event.name in rules.outcomes]
    return IngestResult(
        taken,
        {root: state for root, state in states.items() if state},
        moved,
        [pair for noted, _ in reported for pair in noted],
        _credits(rows, told, now),
        [miss for _, missed in reported for miss in missed],
    )


def _admit(rows: EventRows, events: Sequence[Event], too_late: Collection[str]) -> tuple[list[Status], list[Event]]:
    """What becomes of each event, and those that are new. An id that came with other content is a conflict; what comes
    too late and is new is refused.
    """
    known = rows.known([event.id for event in events])
    taken, fresh = list[Status](), []
    for event in events:
        first = known.get(event.id)
        if first is None and event.id in too_late:
            taken.append("refused")
        elif first is None:
            known[event.id] = event
            fresh.append(event)
            taken.append("recorded")
        else:
            same = _content(first) == _content(event)
            taken.append("duplicate" if same else "conflict")
    return taken, fresh


def _too_late(
    rows: EventRows, events: Sequence[Event], roots: Mapping[bytes, bytes], states: Mapping[bytes, JourneyState]
) -> set[str]:
    """Ids of events that happened before so many of the same person that they are not folded any more."""
    late = dict[bytes, list[Event]]()
    for event in events:
        state = states.get(roots[event.user])
        if state is not None and state.count > LATE and event.at < state.at:
            late.setdefault(roots[event.user], []).append(event)
    firsts = {root: rows.newest_time(family(rows, root), LATE) for root in late}
    return {event.id for root, some in late.items() for event in some if event.at < (firsts[root] or event.at)}


def _content(event: Event) -> tuple[object, ...]:
    """Without times: an event sent without one takes that of its arrival."""
    return event.user, event.alias, event.name, event.properties


def _join(rows: EventRows, events: Iterable[Event]) -> set[bytes]:
    """Record the links that events carry. The roots, before and after, of everybody concerned."""
    moved: set[bytes] = set()
    for event in events:
        alias, link = event.alias or b"", (event.at, event.id, event.user)
        links = {owner: (at, message, owner) for at, message, owner in rows.links(alias)}
        if event.user in links and links[event.user] <= link:
            continue
        rows.link(alias, link)
        winner = min([link, *links.values()])[2]
        if winner != rows.owners([alias]).get(alias):
            before = {root_of(rows, alias), root_of(rows, event.user)}
            rows.own(alias, winner)
            moved |= before | {root_of(rows, alias), root_of(rows, event.user)}
    return moved


def _moved_on(
    rows: EventRows,
    rules: JourneyFold,
    root: bytes,
    new: Sequence[Event],
    before: JourneyState | None,
    earlier: EarlierJourneys,
) -> JourneyState | None:
    """The journey with the new events: folded on if they came in order, else from an earlier one or from scratch."""
    if new and folding.follows(rules, before, new):
        return folding.fold(rules, new, before)
    return earlier.fold(rows, rules, root, before, new)


def _report(
    rows: EventRows, rules: JourneyFold, users: Collection[bytes], new: Sequence[Event], now: int, record: Record
) -> tuple[list[tuple[CreditedOutcome, OutcomeReceipt]], list[UncreditedReport]]:
    """Attribute a person's newest reports anew, and the `new` ones: what was recorded of them, and what is newly
    credited to nothing.
    """
    told = {event.id: event for event in rows.events(users, reporting=True, newest=REPORTS)}
    events = list((told | {event.id: event for event in new if event.name in rules.outcomes}).values())
    if not events:
        return [], []
    by_id = {event.id: event for event in events}
    ids, credited = list(by_id), rows.credits(list(by_id), now)
    bound = rows.newest_decision(users, DECISIONS)
    candidates = rows.candidates(users, min(event.at for event in events), bound.seq if bound else 0)
    early = {event.id for event in events if bound and event.at < bound.at}
    if bound:
        credited = _kept(credited, candidates)
    found = attribution.attribute(rules, events, candidates, credited)
    noted = record([_outcome(c, by_id[c.event]) for c in found.credited]) if found.credited else []
    pairs = list(zip(found.credited, noted, strict=True))
    rows.credit([c for c, note in pairs if note.status in ("recorded", "duplicate")])
    refused = [
        UncreditedReport(c.event, c.stage, c.kind, "refused", str(note.problem or note.status))
        for c, note in pairs
        if note.status not in ("recorded", "duplicate")
    ]
    received = {event.id: event.received for event in events}
    settled = early - {event.id for event in new}
    return pairs, _missed(rows, ids, [*found.uncredited, *refused], received, settled)


def _kept(credits_: Credits, candidates: Sequence[CreditableDecision]) -> dict[tuple[str, str], CreditState]:
    """Credits where the candidates are not all decisions: final where the decision is none of them."""
    looked = {one.id for one in candidates}
    return {key: state._replace(final=state.final or state.decision not in looked) for key, state in credits_.items()}


def _outcome(credited: CreditedOutcome, event: Event) -> Outcome:
    return Outcome(
        decision=credited.decision,
        id=credited.outcome,
        kind=credited.kind,
        value=credited.value,
        occurred=credited.occurred,
        received=event.received,
        fact=credited.fact,
        voids=credited.voids,
        reporter=event.reporter,
    )


def _missed(
    rows: EventRows,
    ids: Sequence[str],
    now: Sequence[UncreditedReport],
    received: Mapping[str, int],
    settled: Collection[str],
) -> list[UncreditedReport]:
    """Keep what is credited to nothing now. What was not before, or for another reason; events that are `settled` keep
    the reason that they have.
    """
    before = rows.missed(ids)
    after = {(one.event, one.stage): one for one in now}
    after |= {key: old for key, old in before.items() if key in after and key[0] in settled}
    fresh = [one for key, one in after.items() if before.get(key) != one]
    rows.miss([MissedReport(one, received[one.event]) for one in fresh], list(before.keys() - after.keys()))
    return [one for one in fresh if (old := before.get((one.event, one.stage))) is None or old.reason != one.reason]


def _credits(rows: EventRows, events: Sequence[str], now: int) -> dict[str, EventCredits]:
    """What each of these events is credited to, as things stand."""
    if not events:
        return {}
    found = {event: EventCredits({}, {}) for event in events}
    for (event, stage), state in rows.credits(events, now).items():
        if state.outcome:
            found[event] = EventCredits({**found[event].credited, stage: state.decision}, {})
    for (event, stage), miss in rows.missed(events).items():
        found[event] = found[event]._replace(missed={**found[event].missed, stage: miss})
    return found
