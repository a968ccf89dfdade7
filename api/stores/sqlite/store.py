"""SQLite store: a ledger in one file, in WAL mode with synchronous=FULL, one writing connection and read-only readers.

sqlite-utils opens the file, migrates it and supplies the transactions; hot writes are `executemany` inside `atomic()`.
One process owns the file (an advisory lock beside it, and a row that each commit looks at), which also keeps SQLite's
WAL-reset bug (3.7.0–3.51.2) from forming: it needs two connections that commit or checkpoint.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from api.stores.replica_log import Unshared
from api.stores.sql.rows import commits
from api.stores.sql.store import SqlStore
from api.stores.sqlite import row_sums
from api.stores.sqlite.file import LedgerConnections
from bandit.errors import LedgerError

_STEPS = 10_000  # of SQLite's machine between two looks whether a check is to end


class SqliteStore(SqlStore, Unshared):
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
                self._file = LedgerConnections(path, opening, read_only=read_only, busy_seconds=busy_seconds)
                super().__init__(self._file, opening)
            except sqlite3.Error as error:
                raise LedgerError(f"{path} cannot be used as a ledger: {error}") from error
            self._opened = opening.pop_all()

    def describe(self) -> dict[str, str]:
        """As `Store.describe`: SQLite's version, its real `synchronous`, and whether it has the WAL-reset bug."""
        return {
            "engine": "sqlite",
            "sqlite_version": sqlite3.sqlite_version,
            "synchronous": self._file.synchronous,
            "wal_reset_bug": "fixed"
            if sqlite3.sqlite_version_info >= (3, 51, 3)
            else "avoided: one writing connection",
        }

    def damages(self) -> Iterator[str]:
        """As `Store.damages`: SQLite's own check of all pages, indexes and references, then the digests of all
        commits, and the sums of the tables that change.
        """
        with self._file.beside() as conn:
            yield from _checked(conn, "PRAGMA integrity_check(20)")
            yield from _checked(conn, "PRAGMA foreign_key_check", lambda row: f"{row[0]} refers to a missing {row[2]}")
            try:
                yield from commits.unlike(conn)
                yield from row_sums.unlike(conn)
            except sqlite3.Error as error:
                yield f"it cannot be read to its end: {error}"

    def quick_damages(self, over: Callable[[], bool] = lambda: False) -> list[str]:
        """As `Store.quick_damages`: SQLite's check of all pages without that of indexes against their tables."""
        with self._file.beside() as conn:
            conn.set_progress_handler(over, _STEPS)
            found = list(_checked(conn, "PRAGMA quick_check(5)"))
            return [] if over() else found


def _checked(
    conn: sqlite3.Connection, pragma: str, words: Callable[[tuple[Any, ...]], str] = lambda row: str(row[0])
) -> Iterator[str]:
    """What one of SQLite's checks finds."""
    try:
        yield from (said for row in conn.execute(pragma) if (said := words(row)) != "ok")
    except sqlite3.Error as error:
        yield f"it cannot be checked: {error}"
