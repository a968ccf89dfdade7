"""Rows of events, links, journeys and credits in a SQL ledger. Journeys are kept as msgpack, properties of events
as JSON.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from api.stores.event_log import Contribution, FirstDecision, MissedReport, PastDecision, Person
from api.stores.ingest import DecisionPlace, Link, family, root_of
from api.stores.sql.connection import SqlConnection
from api.stores.sql.known_users import COLUMNS, KnownUsers
from bandit.catalogue.model import NONE
from bandit.journey.attribution import CreditableDecision, CreditedOutcome, CreditState, UncreditedReport
from bandit.journey.folding import JourneyState
from bandit.records import NOT_NOW, Event, Value

_COLUMNS = "id, user, alias, at, received, name, properties, reporter"
_ACTIVATED = "(SELECT min(occurred) FROM outcomes o WHERE o.decision = d.id AND o.kind = 'activation')"
_AT_ONCE = 10_000  # ids that one query is about
_properties = msgspec.json.Decoder(dict[str, Value | None])
_state = msgspec.msgpack.Decoder(JourneyState)
_encode = msgspec.msgpack.Encoder().encode


class SqlEventRows:
    """`EventRows` of one SQLite connection: the writing one for ingestion, a reading one for look-ups. Whoever calls
    holds its transaction, and a lock where other threads use the connection; and gives the filter of `known` users,
    where it writes. Times are µs since 1970.
    """

    def __init__(self, conn: SqlConnection, known: KnownUsers | None = None):
        self._conn = conn
        self._known = known

    def known(self, ids: Sequence[str]) -> dict[str, Event]:
        """As `EventRows.known`, in one query."""
        query = f"SELECT {_COLUMNS} FROM events WHERE id IN ({_marks(ids)})"  # noqa: S608
        return {event.id: event for event in map(_event, self._conn.execute(query, ids).fetchall())}

    def recorded(self, ids: Collection[str]) -> set[str]:
        """As `EventLog.recorded_events`, in a query for every 10,000 of them."""
        found, every = set[str](), tuple(ids)
        for start in range(0, len(every), _AT_ONCE):
            some = every[start : start + _AT_ONCE]
            found |= {row[0] for row in self._conn.execute(f"SELECT id FROM events WHERE id IN ({_marks(some)})", some)}  # noqa: S608
        return found

    def append(self, events: Sequence[tuple[Event, bool]]) -> None:
        """As `EventRows.append`."""
        rows = [(*_row(event), int(reports)) for event, reports in events]
        self._conn.executemany(f"INSERT INTO events ({_COLUMNS}, reports) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608

    def events(
        self, users: Collection[bytes], *, reporting: bool = False, since: int | None = None, newest: int | None = None
    ) -> list[Event]:
        """As `EventRows.events`, in one query."""
        only = ("AND reports = 1" if reporting else "") + ("" if since is None else " AND at >= ?")
        last = "" if newest is None else "ORDER BY at DESC, id DESC LIMIT ?"
        query = f"SELECT {_COLUMNS} FROM events WHERE user IN ({_marks(users)}) {only} {last}"  # noqa: S608
        values = (*users, *(one for one in (since, newest) if one is not None))
        return list(map(_event, self._conn.execute(query, values)))

    def after(self, after: int, most: int) -> list[tuple[int, Event]]:
        """As `EventLog.events_after`, in one query."""
        query = f"SELECT seq, {_COLUMNS} FROM events WHERE seq > ? AND user <> x'' ORDER BY seq LIMIT ?"  # noqa: S608
        return [(seq, _event(row)) for seq, *row in self._conn.execute(query, (after, most)).fetchall()]

    def newest_time(self, users: Collection[bytes], number: int) -> int | None:
        """As `EventRows.newest_time`, in one query."""
        query = f"SELECT at FROM events WHERE user IN ({_marks(users)}) ORDER BY at DESC LIMIT 1 OFFSET ?"  # noqa: S608
        row = self._conn.execute(query, (*users, number)).fetchone()
        return None if row is None else int(row[0])

    def links(self, alias: bytes) -> list[Link]:
        """As `EventRows.links`."""
        return self._conn.execute("SELECT at, event, owner FROM links WHERE alias = ?", (alias,)).fetchall()

    def link(self, alias: bytes, link: Link) -> None:
        """As `EventRows.link`."""
        at, event, owner = link
        self._conn.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?)", (alias, owner, at, event))

    def owners(self, ids: Collection[bytes]) -> dict[bytes, bytes]:
        """As `EventRows.owners`, in a query for every 10,000 of them."""
        found, every = dict[bytes, bytes](), tuple(ids)
        for start in range(0, len(every), _AT_ONCE):
            some = every[start : start + _AT_ONCE]
            query = f"SELECT alias, owner FROM owners WHERE alias IN ({_marks(some)})"  # noqa: S608
            found |= dict(self._conn.execute(query, some).fetchall())
        return found

    def owning(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of these ids to which aliases belong."""
        found, every = set[bytes](), tuple(set(ids))
        for start in range(0, len(every), _AT_ONCE):
            some = every[start : start + _AT_ONCE]
            query = f"SELECT DISTINCT owner FROM owners WHERE owner IN ({_marks(some)})"  # noqa: S608
            found |= {owner for (owner,) in self._conn.execute(query, some)}
        return found

    def own(self, alias: bytes, owner: bytes) -> None:
        """As `EventRows.own`."""
        if self._known is not None:
            self._known.add((alias, owner))
        self._conn.execute("INSERT OR REPLACE INTO owners VALUES (?, ?)", (alias, owner))

    def aliases(self, owner: bytes) -> list[bytes]:
        """As `EventRows.aliases`."""
        return [row[0] for row in self._conn.execute("SELECT alias FROM owners WHERE owner = ?", (owner,))]

    def states(self, roots: Collection[bytes]) -> dict[bytes, JourneyState]:
        """As `EventRows.states`, in one query."""
        query = f"SELECT user, state FROM journeys WHERE user IN ({_marks(roots)})"  # noqa: S608
        return {root: _state.decode(state) for root, state in self._conn.execute(query, tuple(roots)).fetchall()}

    def keep(self, states: Mapping[bytes, JourneyState | None]) -> None:
        """As `EventRows.keep`."""
        if self._known is not None:
            self._known.add(states)
        rows = [(root, _encode(state)) for root, state in states.items() if state]
        self._conn.executemany("INSERT OR REPLACE INTO journeys VALUES (?, ?)", rows)
        gone = [(root,) for root, state in states.items() if state is None]
        self._conn.executemany("DELETE FROM journeys WHERE user = ?", gone)

    def newest_decision(self, users: Collection[bytes], number: int) -> DecisionPlace | None:
        """As `EventRows.newest_decision`, in one query of each id: an index has an id's decisions in order."""
        query = "SELECT seq, at FROM decisions WHERE user = ? ORDER BY seq DESC LIMIT 1 OFFSET ?"
        found = [self._conn.execute(query, (user, number)).fetchone() for user in users]
        return max((DecisionPlace(*row) for row in found if row is not None), default=None)

    def candidates(self, users: Collection[bytes], since: int, first: int = 0) -> list[CreditableDecision]:
        """As `EventRows.candidates`; when a nudge was really shown is looked up among the outcomes."""
        query = f"""SELECT d.id, d.stage, d.arm, d.at, d.expires, {_ACTIVATED}, d.deferred FROM decisions d
                    WHERE d.user IN ({_marks(users)}) AND d.seq >= ? AND d.expires > ? AND d.moment <> ?"""  # noqa: S608
        rows = self._conn.execute(query, (*users, first, since, NOT_NOW))
        return [
            CreditableDecision(uuid.UUID(bytes=row[0]), row[1], row[2], row[3], row[4], row[5], bool(row[6]))
            for row in rows
        ]

    def credits(self, events: Sequence[str], now: int) -> dict[tuple[str, str], CreditState]:
        """As `EventRows.credits`; whether a credit is final is computed from settlements, windows and
        withdrawals, in one query.
        """
        query = f"""SELECT c.event, c.stage, c.decision, c.outcome, c.fact, c.changes,
                           s.seq IS NOT NULL OR d.expires <= ? OR EXISTS (SELECT 1 FROM outcomes w
                               WHERE w.decision = c.decision AND w.voids = c.outcome AND w.withdrawal > 0)
                    FROM credits c JOIN decisions d ON d.id = c.decision
                    LEFT JOIN settlements s ON s.decision_seq = d.seq AND s.corrects = 0
                    WHERE c.event IN ({_marks(events)})"""  # noqa: S608
        return {
            (row[0], row[1]): CreditState(uuid.UUID(bytes=row[2]), row[3], row[4], row[5], bool(row[6]))
            for row in self._conn.execute(query, (now, *events))
        }

    def credit(self, rows: Sequence[CreditedOutcome]) -> None:
        """As `EventRows.credit`."""
        values = [(c.event, c.stage, c.decision.bytes, "" if c.voids else c.outcome, c.fact, c.changes) for c in rows]
        columns = "event, stage, decision, outcome, fact, changes"
        self._conn.executemany(f"INSERT OR REPLACE INTO credits ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)  # noqa: S608

    def missed(self, events: Sequence[str]) -> dict[tuple[str, str], UncreditedReport]:
        """As `EventRows.missed`, in one query."""
        query = f"SELECT event, stage, kind, reason, why FROM uncredited WHERE event IN ({_marks(events)})"  # noqa: S608
        return {(row[0], row[1]): UncreditedReport(*row) for row in self._conn.execute(query, tuple(events))}

    def miss(self, rows: Sequence[MissedReport], gone: Sequence[tuple[str, str]]) -> None:
        """As `EventRows.miss`."""
        self._conn.executemany("DELETE FROM uncredited WHERE event = ? AND stage = ?", gone)
        values = [(*report, at) for report, at in rows]
        self._conn.executemany("INSERT OR REPLACE INTO uncredited VALUES (?, ?, ?, ?, ?, ?)", values)

    def newest_missed(self, most: int, reason: str | None) -> list[MissedReport]:
        """Reports that are credited to nothing, the newest `most` of one reason or of any, newest first."""
        query = """SELECT event, stage, kind, reason, why, at FROM uncredited
                   WHERE ? IS NULL OR reason = ? ORDER BY at DESC, event, stage LIMIT ?"""
        return [
            MissedReport(UncreditedReport(*row[:5]), row[5])
            for row in self._conn.execute(query, (reason, reason, most))
        ]

    def unknown(self, user: bytes) -> bool:
        """Whether nothing is known of an id: no decision, no journey, no link. One query, because most ids that ask for
        the first time are new.
        """
        query = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {column} = ?1)" for table, column in COLUMNS)  # noqa: S608
        return not self._conn.execute(f"SELECT {query}", (user,)).fetchone()[0]

    def person(self, user: bytes, most: int) -> Person:
        """Person behind an id, with the newest `most` decisions that showed something, or that a moment asked for."""
        root = root_of(self, user)
        ids = family(self, root)
        query = f"""SELECT d.id, d.stage, d.arm, d.at, d.expires, d.moment, d.deferred, {_ACTIVATED} FROM decisions d
                    WHERE d.user IN ({_marks(ids)}) AND (d.arm <> ? OR d.moment NOT IN ('', ?))
                    ORDER BY d.seq DESC LIMIT ?"""  # noqa: S608
        rows = self._conn.execute(query, (*ids, NONE, NOT_NOW, most))
        asked = tuple(PastDecision(uuid.UUID(bytes=row[0]), *row[1:]) for row in rows)
        return Person(root, ids, self.states([root]).get(root), asked, self._first(ids), self._contributed(ids, most))

    def _contributed(self, ids: Collection[bytes], most: int) -> tuple[Contribution, ...]:
        query = f"""SELECT id, stage, at, contribution FROM decisions
                    WHERE user IN ({_marks(ids)}) AND moment <> ? ORDER BY seq DESC LIMIT ?"""  # noqa: S608
        rows = self._conn.execute(query, (*ids, NOT_NOW, most))
        return tuple(Contribution(uuid.UUID(bytes=row[0]), *row[1:]) for row in rows)

    def _first(self, ids: Collection[bytes]) -> FirstDecision | None:
        query = f"""SELECT d.user, d.unit, d.holdout, s.digest FROM decisions d JOIN specs s ON s.key = d.spec
                    WHERE d.user IN ({_marks(ids)}) ORDER BY length(d.unit) = 0, d.seq LIMIT 1"""  # noqa: S608
        row = self._conn.execute(query, tuple(ids)).fetchone()
        return FirstDecision(row[0], row[1], bool(row[2]), row[3]) if row else None


def _row(e: Event) -> tuple[Any, ...]:
    """Row of an event: values in the order of _COLUMNS."""
    properties = msgspec.json.encode(e.properties).decode()
    return (e.id, e.user, e.alias, e.at, e.received, e.name, properties, e.reporter)


def _event(row: Sequence[Any]) -> Event:
    return Event(
        id=row[0],
        user=row[1],
        alias=row[2],
        at=row[3],
        received=row[4],
        name=row[5],
        properties=_properties.decode(row[6]),
        reporter=row[7],
    )


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values)) or "NULL"
