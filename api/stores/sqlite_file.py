"""Opening the SQLite file: its owner, its connections, its settings and its tables."""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlite_utils

from api.stores.sqlite_schema import migrations
from bandit.errors import LedgerError

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA secure_delete = ON",
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
)


@contextmanager
def read_transaction(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Several reads of one state of the ledger."""
    conn.execute("BEGIN")
    try:
        yield conn
    finally:
        conn.execute("COMMIT")


def connect(path: Path, mode: str, busy_seconds: float, opening: ExitStack) -> sqlite_utils.Database:
    """A connection that `opening` closes. `mode`: "ro" or "rwc"."""
    uri = f"{path.resolve().as_uri()}?mode={mode}"  # as_uri quotes: a file may have %, ? or # in its name
    conn = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=busy_seconds)
    opening.callback(conn.close)
    return sqlite_utils.Database(conn)


def prepare(database: sqlite_utils.Database) -> str:
    """Settings of the writing connection and the tables; what `synchronous` really is then."""
    for pragma in _PRAGMAS:
        database.conn.execute(pragma).fetchall()
    migrations.apply(database)
    level = database.conn.execute("PRAGMA synchronous").fetchone()[0]
    return ("OFF", "NORMAL", "FULL", "EXTRA")[level]


def own(path: Path) -> Any:
    """An advisory lock that ends with the process. LedgerError if another process holds it."""
    path = path.resolve()  # a symbolic link is the same file
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.with_name(path.name + ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise LedgerError(f"{path} is in use by another process: one service owns one file") from error
    return handle
