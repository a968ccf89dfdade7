"""Opening of a SQLite ledger: the lock of its owner, connections, settings and tables."""

import fcntl
import functools
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import sqlite_utils

from api import private_files
from api.stores.ingest import EarlierJourneys
from api.stores.sql.connection import SqlConnection
from api.stores.sql.known_users import KnownUsers
from api.stores.sql.rows import ownership
from api.stores.sql.rows.commits import CommitChain
from api.stores.sql.schema import SCHEMA, migrations
from api.stores.sqlite import row_sums
from api.stores.sqlite.free_space import FreeSpace
from api.stores.sqlite.row_sums import RowSums
from bandit.errors import LedgerError, Unavailable

Conn = TypeVar("Conn", bound=SqlConnection)

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA secure_delete = ON",
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
)


@contextmanager
def read_transaction(conn: Conn) -> Iterator[Conn]:
    """Transaction of several reads, which all see one state of the ledger. The connection must not be in
    a transaction.
    """
    conn.execute("BEGIN")
    try:
        yield conn
    finally:
        conn.execute("COMMIT")


def connect(path: Path, mode: str, busy_seconds: float, opening: ExitStack) -> sqlite_utils.Database:
    """Connection to the ledger's file, which `opening` closes; threads may share it under a lock. `mode` is "ro" or
    "rwc"; `busy_seconds` is how long it waits for a lock of SQLite's. Raises sqlite3.Error.
    """
    uri = f"{path.resolve().as_uri()}?mode={mode}"  # as_uri quotes: a file may have %, ? or # in its name
    conn = sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=busy_seconds)
    opening.callback(conn.close)
    return sqlite_utils.Database(conn)


def prepare(database: sqlite_utils.Database) -> str:
    """Prepare the writing connection: settings, then the present tables, which an empty file gets at once, and an
    earlier ledger by migrations. Returns what `synchronous` really is then, for health. Raises LedgerError for a file
    of a later version, sqlite3.Error for one that is no ledger.
    """
    for pragma in _PRAGMAS:
        database.conn.execute(pragma).fetchall()
    known(database)
    if not database.table_names():
        with closing(sqlite3.connect(":memory:")) as new:
            new.deserialize(_new_ledger())
            new.backup(database.conn)  # one transaction
    elif migrations.pending(database):
        with database.atomic():  # what is interrupted is begun anew by the next start
            _migrate(database)
    level = database.conn.execute("PRAGMA synchronous").fetchone()[0]
    return ("OFF", "NORMAL", "FULL", "EXTRA")[level]


@functools.cache
def _new_ledger() -> bytes:
    """Content of a ledger in which nothing was recorded."""
    with closing(sqlite3.connect(":memory:")) as conn:
        _migrate(sqlite_utils.Database(conn))
        return conn.serialize()


def _migrate(database: sqlite_utils.Database) -> None:
    """Bring tables up to date, with the sums of their rows."""
    migrations.apply(database)
    with database.atomic():
        row_sums.write(database.conn)
        database.conn.execute(f"PRAGMA user_version = {SCHEMA}")


def check_schema(database: sqlite_utils.Database, path: Path) -> None:
    """Check that a file which is only read has the present tables. Raises LedgerError for a file without tables, and
    for one that only this version's service (which would migrate it), or only a later version, can read.
    """
    known(database)
    if not migrations.applied(database):
        raise LedgerError(f"{path} cannot be used as a ledger: it has none of its tables")
    missing = [migration.name for migration in migrations.pending(database)]
    if missing:
        raise LedgerError(
            f"{path} was written by an earlier version (its tables lack: {', '.join(missing)}): "
            "start the service on it once, which brings it up to date"
        )


def known(database: sqlite_utils.Database) -> None:
    """Check that no later version has changed the tables. Raises LedgerError if one has: what it keeps there would be
    passed over in silence.
    """
    number = schema_of(database)
    if number > SCHEMA:
        what = f"schema {number}, this one reads up to {SCHEMA}"
        raise LedgerError(f"it was written by a later version ({what}): upgrade this one")


def schema_of(database: sqlite_utils.Database) -> int:
    """Number of the form that a file's tables have; beyond SCHEMA if a later version has changed them."""
    with closing(sqlite3.connect(":memory:")) as new:
        ours = {migration.name for migration in migrations.pending(sqlite_utils.Database(new))}
    applied = [migration.name for migration in migrations.applied(database)]
    later = [name for name in applied if name not in ours]
    number = int(database.conn.execute("PRAGMA user_version").fetchone()[0])
    return max(number, SCHEMA + len(later)) if later else max(number, len(applied))


def own(path: Path) -> Any:
    """Advisory lock on a ledger, as an open file that releases it when closed; it also ends with the process. A store
    that writes holds it while it is open. Raises LedgerError if another process holds it.
    """
    path = path.resolve()  # a symbolic link is the same file
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = private_files.lock_file(path.with_name(path.name + ".lock"))
    except OSError as error:
        raise LedgerError(f"{path} cannot be locked: {error}; remove what is there") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise LedgerError(f"{path} is in use by another process{_owner(path)}: one service owns one file") from error
    return handle


def _owner(path: Path) -> str:
    """Who owns a ledger that is in use, after a comma; "" where that is not known."""
    with suppress(sqlite3.Error), ExitStack() as opening:
        found = ownership.owner(connect(path, "ro", 0.0, opening).conn)
        return f", {found}" if found else ""
    return ""


@contextmanager
def _readable() -> Iterator[None]:
    """Context in which an error of SQLite's is Unavailable."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(f"the ledger could not be read: {error}") from error


class LedgerConnections:
    """Connections to one ledger, shared by the parts of a store: one that writes, one for reads of the ledger, which
    long reads hold only for a page, and one for look-ups of persons and events, which never waits for a long read.
    `known` is the filter of user ids of a ledger that is written here, None of one that another process may write;
    `earlier` are journeys as they were, for late events.

    `opening` closes them and lets go of the file. With `read_only` nothing is locked, and writing raises LedgerError.
    Threads: one thread writes; the two reading connections serve any thread, each behind a lock. `synchronous` is what
    SQLite really does, for health. Raises sqlite3.Error or LedgerError for a file that cannot be used.
    """

    def __init__(self, path: Path, opening: ExitStack, *, read_only: bool, busy_seconds: float):
        self._path, self._busy_seconds = path, busy_seconds
        self._reading, self._looking = threading.Lock(), threading.Lock()
        if not read_only:
            opening.enter_context(own(path))
            private_files.make(path)  # SQLite gives its files beside it the same mode
        self._free = FreeSpace(path)
        opening.callback(self._free.close)  # after the connections
        self._write = None if read_only else connect(path, "rwc", busy_seconds, opening)
        self.synchronous = prepare(self._write) if self._write else "read only"
        self._epoch = ownership.claim(self._write.conn) if self._write else 0
        self._read = connect(path, "ro", busy_seconds, opening)
        if read_only:
            check_schema(self._read, path)
        self._people = connect(path, "ro", busy_seconds, opening)
        self.known = None if read_only else KnownUsers()
        self.earlier = EarlierJourneys()
        self._commits = CommitChain(SCHEMA)
        self._sums = RowSums(self._write.conn) if self._write else None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for reads, in one reading transaction, for this thread alone."""
        with self._reading, _readable(), read_transaction(self._read.conn) as conn:
            yield conn

    @contextmanager
    def looking(self) -> Iterator[sqlite3.Connection]:
        """The connection for look-ups, for this thread alone; in no transaction."""
        with self._looking, _readable():
            yield self._people.conn

    @contextmanager
    def beside(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for one long read, which keeps nobody waiting; in one reading transaction."""
        with _readable(), ExitStack() as opening:
            conn = connect(self._path, "ro", self._busy_seconds, opening).conn
            conn.execute("BEGIN")  # ends with the connection: a damaged file may refuse even that
            yield conn

    def log_bytes(self) -> int:
        """Bytes of the write-ahead log beside the file."""
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def one_state(self, conn: SqlConnection) -> AbstractContextManager[object]:
        """Transaction of several reads on a connection for reading, which all see one state of the ledger."""
        return read_transaction(conn)

    def overwrite_free(self, first: int, most: int) -> int:
        """Overwrite what neither rows nor indexes use: as `FreeSpace.overwrite`, in the thread that writes."""
        try:
            return self._free.overwrite(self.writer(), first, most)
        except sqlite3.Error as error:
            raise Unavailable(f"the ledger could not be overwritten: {error}") from error

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        """All rows of one query, on the connection for reads."""
        with self._reading, _readable():
            return self._read.conn.execute(query, tuple(values)).fetchall()

    def number(self, query: str) -> int:
        """The one number that a query gives, on the connection for reads."""
        return int(self.rows(query)[0][0])

    def writer(self) -> sqlite3.Connection:
        """The writing connection. Raises LedgerError if the ledger was opened read-only."""
        return self._writing()[0].conn

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction of the writing connection; inner ones become savepoints. Raises Unavailable when
        SQLite cannot say that it was committed and when another process has taken the ledger over, LedgerError for a
        row that the tables refuse.
        """
        database, sums = self._writing()
        outermost = not database.conn.in_transaction
        before = sums.copy()
        if outermost:
            self._free.watch()
        try:
            with database.atomic():
                if outermost:
                    sums.begin(database.conn)
                yield database.conn
                if outermost:
                    ownership.check(database.conn, self._epoch)
                    sums.save(database.conn)
                    self._commits.seal(database.conn)
            if outermost:
                self._commits.confirm()
        except BaseException as error:
            if outermost:
                self._commits.forget()
                sums.forget()
            else:
                sums.put_back(before)
            if isinstance(error, sqlite3.IntegrityError):
                raise LedgerError(f"the ledger refused a row: {error}") from error
            if isinstance(error, sqlite3.Error):
                raise Unavailable(f"the ledger could not be written: {error}") from error
            raise

    def _writing(self) -> tuple[sqlite_utils.Database, RowSums]:
        if self._write is None or self._sums is None:
            raise LedgerError("the ledger was opened read-only")
        return self._write, self._sums
