"""Event log of a SQL ledger: events, journeys, and the outcomes that they report."""

from collections.abc import Collection, Mapping, Sequence

from api.stores import ingest
from api.stores.decision_log import OutcomeReceipt
from api.stores.event_log import IngestResult, MissedReport, Person
from api.stores.sql.decision_log import SqlDecisionLog
from api.stores.sql.rows.events import SqlEventRows
from bandit.catalogue.model import Stage
from bandit.journey import folding
from bandit.journey.folding import JourneyFold
from bandit.records import Event, Outcome


class SqlEventLog(SqlDecisionLog):
    """`EventLog` of one SQL ledger, over its decision log: what events report is recorded there, in the same
    transaction.
    """

    def ingest(
        self,
        events: Sequence[Event],
        now: int,
        specs: Mapping[str, Stage],
        rules: JourneyFold,
        users: Collection[bytes] = (),
    ) -> IngestResult:
        """As `EventLog.ingest`: events, journeys and outcomes in one transaction; `now` in µs."""

        def record(outcomes: Sequence[Outcome]) -> list[OutcomeReceipt]:
            return self.record([], outcomes, now, specs)[1]

        with self._ledger.transaction() as conn:
            rows = SqlEventRows(conn, self._ledger.known)
            return ingest.ingest(rows, rules, events, now, record, users, self._ledger.earlier)

    def missed(self, most: int, reason: str | None = None) -> list[MissedReport]:
        """As `EventLog.missed`, on the connection for look-ups."""
        with self._ledger.looking() as conn:
            return SqlEventRows(conn).newest_missed(most, reason)

    def roots(self, users: Collection[bytes]) -> dict[bytes, bytes]:
        """As `EventLog.roots`, in one reading transaction of the connection for look-ups."""
        with self._ledger.looking() as conn, self._ledger.one_state(conn):
            return ingest.roots_of(SqlEventRows(conn), users)

    def person(self, user: bytes, most: int) -> Person:
        """As `EventLog.person`, on the connection for look-ups. Somebody new costs no query once the filter of known
        users is complete, and one until then.
        """
        known = self._ledger.known
        if known is not None and known.is_stranger(user):
            return Person(user, frozenset((user,)), None, ())
        with self._ledger.looking() as conn:
            if known is not None:
                known.read(conn)
            if SqlEventRows(conn).unknown(user):
                return Person(user, frozenset((user,)), None, ())
            with self._ledger.one_state(conn):
                return SqlEventRows(conn).person(user, most)

    def events_after(self, after: int, most: int) -> list[tuple[int, Event]]:
        """As `EventLog.events_after`, in one reading transaction."""
        with self._ledger.reading() as conn:
            return SqlEventRows(conn).after(after, most)

    def recorded_events(self, ids: Collection[str]) -> set[str]:
        """As `EventLog.recorded_events`, on the connection for look-ups."""
        with self._ledger.looking() as conn:
            return SqlEventRows(conn).recorded(ids)

    def last_event(self) -> int:
        """As `EventLog.last_event`."""
        return self._ledger.number("SELECT coalesce(max(seq), 0) FROM events")

    def events(self, users: Collection[bytes]) -> list[Event]:
        """As `EventLog.events`, on the connection for look-ups."""
        with self._ledger.looking() as conn:
            return sorted(SqlEventRows(conn).events(users), key=folding.order)
