"""What other replicas have committed to a ledger in PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from api.stores.decision_log import DecisionRecord, LedgerPosition
from api.stores.ingest import EarlierJourneys, family, roots_of
from api.stores.postgres.connections import PostgresConnections
from api.stores.replica_log import LedgerNews
from api.stores.sql.connection import SqlConnection
from api.stores.sql.decision_log import PAGE
from api.stores.sql.rows.commits import Others
from api.stores.sql.rows.decisions import columns_of
from api.stores.sql.rows.events import SqlEventRows
from api.stores.sql.store import SqlStore

_TIMED = ("erasures", "withdrawals", "acknowledgements")
_REWRITING = (*_TIMED, "seals")
"""Tables whose rows change what others say."""


class PostgresReplicaLog(SqlStore):
    """`ReplicaLog` of a ledger in PostgreSQL."""

    _ledger: PostgresConnections

    @property
    def shared(self) -> bool:
        """As `ReplicaLog.shared`."""
        return self._ledger.shared

    def news(self) -> LedgerNews | None:
        """As `ReplicaLog.news`."""
        with self._ledger.transaction() as conn:
            found = self._ledger.others
            news = None if found is None else self._told(conn, found)
        self._ledger.told()  # a connection that was lost before the end of this transaction has raised
        return news

    def has_news(self) -> bool:
        """As `ReplicaLog.has_news`."""
        return self._ledger.has_others()

    def leads(self) -> bool:
        """As `ReplicaLog.leads`."""
        return not self._ledger.shared or self._ledger.leads()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """As `ReplicaLog.starting`; what others have declared since the store was opened is known then."""
        with self._ledger.starting() if self._ledger.shared else nullcontext():
            self.register({})
            yield

    def _told(self, conn: SqlConnection, found: Others) -> LedgerNews:
        if not found.same:
            self._ledger.earlier = EarlierJourneys()
            told = {"rewritten": True, "released": True, "operated": True, "lost": True}
            return LedgerNews(_position(found), (), (), (), frozenset(), **told)
        made = self._records(conn, "d.seq > ? AND d.seq <= ?", found.of("decisions"))
        about = "d.id IN (SELECT decision FROM outcomes WHERE seq > ? AND seq <= ?)"
        reported = self._records(conn, about, found.of("outcomes"))
        settled = self._settled_within(conn, found.of("settlements"))
        users = {one.decision.user for one in (*made, *reported)}
        for row in conn.execute("SELECT user, alias FROM events WHERE seq > ? AND seq <= ?", found.of("events")):
            users.update(one for one in row if one)
        rows = SqlEventRows(conn)
        roots = roots_of(rows, users)
        joined = rows.owning(roots.values())
        everybody = users.union(roots.values(), *(family(rows, root) for root in joined))
        self._ledger.earlier.forget(everybody)
        return LedgerNews(
            through=_position(found),
            decisions=tuple(made),
            reported=tuple(reported),
            settled=tuple(settled),
            users=frozenset(everybody),
            rewritten=any(len(set(found.of(table))) > 1 for table in _REWRITING),
            released=len(set(found.of("releases"))) > 1,
            operated=len(set(found.of("operator_actions"))) > 1,
            at=max(_newest(conn, table, found.of(table)) for table in _TIMED),
        )

    def _records(self, conn: SqlConnection, which: str, values: tuple[int, int]) -> list[DecisionRecord]:
        if values[0] == values[1]:
            return []
        query = f"SELECT {columns_of('d')} FROM decisions d WHERE {which} AND d.user <> x'' ORDER BY d.seq"  # noqa: S608
        found = conn.execute(query, values).fetchall()
        return [
            one for start in range(0, len(found), PAGE) for one in self._complete(conn, found[start : start + PAGE])
        ]

    def _settled_within(self, conn: SqlConnection, within: tuple[int, int]) -> list[tuple[int, DecisionRecord]]:
        about = "d.seq IN (SELECT decision_seq FROM settlements WHERE seq > ? AND seq <= ?)"
        first, last = within
        found = self._records(conn, about, within)
        numbers = [(done.seq, one) for one in found for done in one.settlements if first < done.seq <= last]
        return sorted(numbers, key=lambda pair: pair[0])


def _newest(conn: SqlConnection, table: str, within: tuple[int, int]) -> int:
    """Newest time (µs) of the rows of a table within these numbers, 0 where there are none."""
    query = f"SELECT coalesce(max(at), 0) FROM {table} WHERE seq > ? AND seq <= ?"  # noqa: S608
    return int(conn.execute(query, within).fetchone()[0]) if within[0] < within[1] else 0


def _position(found: Others) -> LedgerPosition:
    return LedgerPosition(*(found.of(table)[1] for table in ("decisions", "outcomes", "settlements", "releases")))
