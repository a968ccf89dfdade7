"""SQLite store: a ledger in one file, in WAL mode with synchronous=FULL, one writing connection and read-only readers.

sqlite-utils opens the file, migrates it and supplies the transactions; hot writes are `executemany` inside `atomic()`.
One process owns the file (an advisory lock beside it, and a row that each commit looks at), which also keeps SQLite's
WAL-reset bug (3.7.0–3.51.2) from forming: it needs two connections that commit or checkpoint.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from api.stores.sqlite.erasure_log import SqliteErasureLog
from api.stores.sqlite.event_log import SqliteEventLog
from api.stores.sqlite.file import LedgerConnections
from api.stores.sqlite.learning_state import SqliteLearningState
from api.stores.sqlite.release_log import SqliteReleaseLog
from api.stores.sqlite.rows import commits, row_sums
from api.stores.sqlite.webhook_queue import SqliteWebhookQueue
from bandit.errors import LedgerError

_STEPS = 10_000  # of SQLite's machine between two looks whether a check is to end


class _TakenBack(Exception):
    """End of a transaction that is to change nothing."""


class SqliteStore(SqliteEventLog, SqliteLearningState, SqliteErasureLog, SqliteWebhookQueue, SqliteReleaseLog):
    """`Store` in one SQLite file, opened by `sqlite:///FILE`. `read_only` opens a file that a running service may own,
    for evaluation and verification; writing methods raise LedgerError then.

    Guarantees: what a writing method wrote is synced to disk when it returns (or when the outermost `atomic` ends);
    readers see whole transactions. Threads: one thread writes; two reading connections, each behind a lock, serve any
    thread: one for reads of the ledger, which long reads hold only for a page of 2,000 rows, and one for look-ups of
    persons and events, which never waits for a long read. Times are µs since 1970.

    Raises LedgerError if another process owns the file, it is missing (`read_only`), it is no ledger, or a later
    version wrote it.
    """

    def __init__(self, path: Path, *, read_only: bool = False, busy_seconds: float = 2.0):
        if read_only and not path.exists():
            raise LedgerError(f"{path} does not exist: give the file of a service's --store")
        with ExitStack() as opening:  # closes what was opened if the rest fails
            try:
                super().__init__(LedgerConnections(path, opening, read_only=read_only, busy_seconds=busy_seconds))
            except sqlite3.Error as error:
                raise LedgerError(f"{path} cannot be used as a ledger: {error}") from error
            self._opened = opening.pop_all()

    def meta(self) -> dict[str, str]:
        """As `Store.meta`."""
        return dict(self._ledger.rows("SELECT key, value FROM meta"))

    def set_meta(self, values: Mapping[str, str]) -> None:
        """As `Store.set_meta`, in one transaction."""
        with self._ledger.transaction() as conn:
            conn.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def atomic(self) -> AbstractContextManager[object]:
        """As `Store.atomic`: one transaction of the writing connection; inner ones become savepoints. Raises
        Unavailable when SQLite cannot say that it was committed, LedgerError for a row that the tables refuse.
        """
        return self._ledger.transaction()

    def try_writing(self, work: Callable[[], object]) -> None:
        """As `Store.try_writing`: `work` reads and changes the same pages as if it were committed."""
        with suppress(_TakenBack), self.atomic():
            work()
            raise _TakenBack

    def describe(self) -> dict[str, str]:
        """As `Store.describe`: SQLite's version, its real `synchronous`, and whether it has the WAL-reset bug."""
        return {
            "engine": "sqlite",
            "sqlite_version": sqlite3.sqlite_version,
            "synchronous": self._ledger.synchronous,
            "wal_reset_bug": "fixed"
            if sqlite3.sqlite_version_info >= (3, 51, 3)
            else "avoided: one writing connection",
        }

    def damages(self) -> Iterator[str]:
        """As `Store.damages`: SQLite's own check of all pages, indexes and references, then the digests of all
        commits, and the sums of the tables that change.
        """
        with self._ledger.beside() as conn:
            yield from _checked(conn, "PRAGMA integrity_check(20)")
            yield from _checked(conn, "PRAGMA foreign_key_check", lambda row: f"{row[0]} refers to a missing {row[2]}")
            try:
                yield from commits.unlike(conn)
                yield from row_sums.unlike(conn)
            except sqlite3.Error as error:
                yield f"it cannot be read to its end: {error}"

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:
        """As `Store.quick_damages`: SQLite's check of all pages without that of indexes against their tables."""
        with self._ledger.beside() as conn:
            conn.set_progress_handler(over, _STEPS)
            found = list(_checked(conn, "PRAGMA quick_check(5)"))
            return [] if over() else found

    def log_bytes(self) -> int:
        """As `Store.log_bytes`."""
        return self._ledger.log_bytes()

    def close(self) -> None:
        """Close all connections, and let go of the file. Call it once, when nothing uses the store any more."""
        self._opened.close()


def _checked(
    conn: sqlite3.Connection, pragma: str, words: Callable[[tuple[Any, ...]], str] = lambda row: str(row[0])
) -> Iterator[str]:
    """What one of SQLite's checks finds."""
    try:
        yield from (said for row in conn.execute(pragma) if (said := words(row)) != "ok")
    except sqlite3.Error as error:
        yield f"it cannot be checked: {error}"
