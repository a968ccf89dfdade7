"""PostgreSQL store: a ledger in a database, by the same statements as the SQLite store."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack

import psycopg

from api.stores.postgres.connections import LedgerConnections
from api.stores.sqlite.erasure_log import SqliteErasureLog
from api.stores.sqlite.event_log import SqliteEventLog
from api.stores.sqlite.learning_state import SqliteLearningState
from api.stores.sqlite.release_log import SqliteReleaseLog
from api.stores.sqlite.rows import commits
from api.stores.sqlite.webhook_queue import SqliteWebhookQueue
from bandit.errors import LedgerError


class PostgresStore(SqliteEventLog, SqliteLearningState, SqliteErasureLog, SqliteWebhookQueue, SqliteReleaseLog):
    """`Store` in one schema of a PostgreSQL database, opened by `postgresql://…`."""

    def __init__(self, url: str, *, read_only: bool = False):
        with ExitStack() as opening:
            try:
                super().__init__(LedgerConnections(url, opening, read_only=read_only))  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise LedgerError(f"the database cannot be used as a ledger: {error}") from error
            self._opened = opening.pop_all()

    def meta(self) -> dict[str, str]:
        """As `Store.meta`."""
        return dict(self._ledger.rows("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """As `Store.set_meta`, in one transaction."""
        with self._ledger.transaction() as conn:
            conn.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def atomic(self) -> AbstractContextManager[object]:
        """As `Store.atomic`."""
        return self._ledger.transaction()

    def describe(self) -> dict[str, str]:
        """As `Store.describe`."""
        version = self._ledger.rows("SHOW server_version")[0][0]
        return {"engine": "postgresql", "version": version, "synchronous": self._ledger.synchronous}

    def damages(self) -> Iterator[str]:
        """As `Store.damages`: the digests of all commits."""
        with self._ledger.beside() as conn:
            yield from commits.unlike(conn)

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:
        """As `Store.quick_damages`: nothing; the database checks its pages as it reads them."""
        del over
        return []

    def log_bytes(self) -> int:
        """As `Store.log_bytes`."""
        return self._ledger.log_bytes()

    def close(self) -> None:
        """Close all connections, and let go of the ledger."""
        self._opened.close()
