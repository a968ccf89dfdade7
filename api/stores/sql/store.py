"""SQL store: one ledger behind connections that an engine supplies."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import islice

from api.stores.sql.connection import SqlConnection
from api.stores.sql.connections import SqlConnections
from api.stores.sql.erasure_log import SqlErasureLog
from api.stores.sql.event_log import SqlEventLog
from api.stores.sql.learning_state import SqlLearningState
from api.stores.sql.operator_log import SqlOperatorLog
from api.stores.sql.release_log import SqlReleaseLog
from api.stores.sql.rows import commits
from api.stores.sql.schema import table_names
from api.stores.sql.webhook_queue import SqlWebhookQueue
from bandit.errors import LedgerError

_OWN = ("ledger_owner", "row_sums")  # of one place, and made anew in another
_AT_ONCE = 500  # rows that are copied by one call
_MODULUS = 2**128


class _TakenBack(Exception):
    """End of a transaction that is to change nothing."""


class SqlStore(SqlEventLog, SqlLearningState, SqlErasureLog, SqlWebhookQueue, SqlReleaseLog, SqlOperatorLog):
    """What stores have in common whose statements are SQL: all that `Store` asks for, but what depends on the engine.

    Guarantees: what a writing method wrote is durable when it returns (or when the outermost `atomic` ends); readers
    see whole transactions. `opened` is what `close` closes.
    """

    def __init__(self, ledger: SqlConnections, opened: ExitStack):
        super().__init__(ledger)
        self._opened = opened

    def meta(self) -> dict[str, str]:
        """As `Store.meta`."""
        return dict(self._ledger.rows("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """As `Store.set_meta`, in one transaction."""
        with self._ledger.transaction() as conn:
            conn.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def atomic(self) -> AbstractContextManager[object]:
        """As `Store.atomic`: one transaction of the writing connection; inner ones become savepoints. Raises
        Unavailable when it is not known to be committed, LedgerError for a row that the tables refuse.
        """
        return self._ledger.transaction()

    def try_writing(self, work: Callable[[], object]) -> None:
        """As `Store.try_writing`: `work` reads and changes the same pages as if it were committed."""
        with suppress(_TakenBack), self.atomic():
            work()
            raise _TakenBack

    def copy_from(self, source: "SqlStore") -> Mapping[str, int]:
        """Copy a ledger into this one, which is empty: every row of the state between two commits of its service, in
        one transaction. Returns the number of rows by table. Raises LedgerError if this one is not empty, or if
        what is read from it afterwards is not what was written.
        """
        if any(self.counts()) or self.meta() or self.specs():
            raise LedgerError("the target is not empty: give a new file, or a new database or schema")
        copied = dict[str, tuple[int, int]]()
        with source._ledger.beside() as conn, self._ledger.transaction() as into:
            for table in table_names():
                if table not in _OWN:
                    copied[table] = _copy(conn, into, table)
        self._specs = self._load_specs()
        with self._ledger.beside() as conn:
            wrong = [table for table, known in copied.items() if _summed(_rows(conn, table)) != known]
        wrong += list(self.damages())
        if wrong:
            raise LedgerError(f"the copy is not what was read: {', '.join(wrong)}")
        return {table: count for table, (count, _) in copied.items()}

    def damages(self) -> Iterator[str]:
        """As `Store.damages`: the digests of all commits."""
        with self._ledger.beside() as conn:
            yield from commits.unlike(conn)

    def log_bytes(self) -> int:
        """As `Store.log_bytes`."""
        return self._ledger.log_bytes()

    def close(self) -> None:
        """Close all connections, and let go of the ledger. Call it once, when nothing uses the store any more."""
        self._opened.close()


def _rows(conn: SqlConnection, table: str) -> Iterator[tuple[object, ...]]:
    """All rows of a table, in no order."""
    return iter(conn.execute(f"SELECT * FROM {table}"))  # noqa: S608


def _copy(source: SqlConnection, target: SqlConnection, table: str) -> tuple[int, int]:
    """Copy a table in pieces: how many rows, and their sum."""
    insert = f"INSERT INTO {table} VALUES ({{}})"  # noqa: S608
    count = total = 0
    rows = _rows(source, table)
    while piece := list(islice(rows, _AT_ONCE)):
        target.executemany(insert.format(", ".join("?" * len(piece[0]))), piece)
        more, added = _summed(piece)
        count, total = count + more, (total + added) % _MODULUS
    return count, total


def _summed(rows: Iterable[tuple[object, ...]]) -> tuple[int, int]:
    """How many rows, and the sum of their digests, whatever their order."""
    count = total = 0
    for row in rows:
        count += 1
        total += int.from_bytes(hashlib.blake2b(commits.encode(row), digest_size=16).digest(), "big")
    return count, total % _MODULUS
