"""Rows of a SQL ledger in which persons at rest are looked for."""

from collections.abc import Collection, Iterable

from api.stores.ingest import family, root_of
from api.stores.rest import RestRow
from api.stores.sql.connection import SqlConnection
from api.stores.sql.rows.decisions import marks
from api.stores.sql.rows.events import SqlEventRows

_DECIDED = """SELECT seq, CASE WHEN request = x'' THEN x'' ELSE user END, at FROM decisions
    WHERE seq > ? ORDER BY seq LIMIT ?"""
_RECEIVED = "SELECT seq, user, received FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
_CAME = (  # the newest first: who comes again and again is known by one row
    "SELECT 1 FROM decisions WHERE user = ? AND at >= ? ORDER BY seq DESC LIMIT 1",
    "SELECT 1 FROM events WHERE user = ? AND received >= ? ORDER BY at DESC LIMIT 1",
)


class SqlRestRows:
    """`RestRows` of one connection; whoever calls holds its transaction."""

    def __init__(self, conn: SqlConnection):
        self._conn = conn

    def decided(self, after: int, most: int) -> Iterable[RestRow]:
        """As `RestRows.decided`."""
        return map(RestRow._make, self._conn.execute(_DECIDED, (after, most)).fetchall())

    def received(self, after: int, most: int) -> Iterable[RestRow]:
        """As `RestRows.received`."""
        return map(RestRow._make, self._conn.execute(_RECEIVED, (after, most)).fetchall())

    def ids(self, user: bytes) -> frozenset[bytes]:
        """As `RestRows.ids`."""
        rows = SqlEventRows(self._conn)
        return family(rows, root_of(rows, user)) | {user}

    def came(self, ids: Collection[bytes], since: int) -> bool:
        """As `RestRows.came`."""
        return any(self._conn.execute(query, (user, since)).fetchone() for query in _CAME for user in ids)

    def waits(self, ids: Collection[bytes], stages: Collection[str]) -> bool:
        """As `RestRows.waits`."""
        query = f"""SELECT 1 FROM decisions d WHERE d.user IN ({marks(ids)}) AND d.stage IN ({marks(stages)}) AND (
                        EXISTS (SELECT 1 FROM pending p WHERE p.decision_seq = d.seq)
                        OR EXISTS (SELECT 1 FROM uncorrected u WHERE u.decision_seq = d.seq)) LIMIT 1"""  # noqa: S608
        return self._conn.execute(query, (*ids, *stages)).fetchone() is not None
