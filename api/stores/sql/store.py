"""SQL store: one ledger behind connections that an engine supplies."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack

from api.stores.sql.connections import SqlConnections
from api.stores.sql.erasure_log import SqlErasureLog
from api.stores.sql.event_log import SqlEventLog
from api.stores.sql.learning_state import SqlLearningState
from api.stores.sql.release_log import SqlReleaseLog
from api.stores.sql.webhook_queue import SqlWebhookQueue


class SqlStore(SqlEventLog, SqlLearningState, SqlErasureLog, SqlWebhookQueue, SqlReleaseLog):
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

    def log_bytes(self) -> int:
        """As `Store.log_bytes`."""
        return self._ledger.log_bytes()

    def close(self) -> None:
        """Close all connections, and let go of the ledger. Call it once, when nothing uses the store any more."""
        self._opened.close()
