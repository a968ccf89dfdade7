"""Connections to a ledger in PostgreSQL: the one that writes, and those that read."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader

from api.stores.ingest import EarlierJourneys
from api.stores.postgres.statements import TableForm, numbered, translated
from api.stores.sqlite.file import SCHEMA
from api.stores.sqlite.rows import ownership
from api.stores.sqlite.rows.commits import CommitChain
from api.stores.sqlite.schema import migrations
from bandit.errors import LedgerError, Unavailable

_NUMBERS = """CREATE OR REPLACE FUNCTION next_number(part text, number text) RETURNS bigint LANGUAGE plpgsql AS
    $$ DECLARE found bigint; BEGIN
    EXECUTE format('SELECT coalesce(max(%I), 0) + 1 FROM %I', number, part) INTO found; RETURN found; END $$"""
_FORMS = """SELECT c.table_name, c.column_name, k.column_name IS NOT NULL FROM information_schema.columns c
    LEFT JOIN information_schema.table_constraints t ON t.table_schema = c.table_schema
        AND t.table_name = c.table_name AND t.constraint_type = 'PRIMARY KEY'
    LEFT JOIN information_schema.key_column_usage k ON k.constraint_name = t.constraint_name
        AND k.table_schema = c.table_schema AND k.table_name = c.table_name AND k.column_name = c.column_name
    WHERE c.table_schema = current_schema() ORDER BY c.table_name, c.ordinal_position"""

_NUL, _ESCAPE = "\0", "\ue000"
_CLAIMED = "SELECT pg_try_advisory_lock(hashtextextended(current_schema() || ' journey_bandit ledger', 0))"


class PostgresConnection:
    """One connection of psycopg's, with the calls of sqlite3's that the parts of a store make. Rows come as tuples of
    int, float, str, bytes and None, with the bits that were written.
    """

    def __init__(self, conn: psycopg.Connection):
        self.conn = conn
        self._tables: Mapping[str, TableForm] = {}
        self._known = dict[str, str]()

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Cursor over the rows of a statement."""
        cursor = self.conn.cursor(binary=True)
        return cursor.execute(self._statement(statement), _named(statement, values))  # type: ignore[arg-type]

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> Any:
        """Cursor after running a statement for each row; its `rowcount` is of all of them."""
        cursor = self.conn.cursor(binary=True)
        cursor.executemany(self._statement(statement), [_named(statement, row) for row in rows])  # type: ignore[arg-type]
        return cursor

    def forms_changed(self) -> None:
        """Read again which tables there are: statements are put into words by their columns."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for table, column, in_key in self.conn.execute(_FORMS).fetchall():
            columns, key = found.setdefault(table, ([], []))
            columns.append(column)
            key.extend([column] if in_key else [])
        self._tables = {table: TableForm(tuple(columns), tuple(key)) for table, (columns, key) in found.items()}
        self._known.clear()

    def _statement(self, statement: str) -> str:
        known = self._known.get(statement)
        if known is None:
            known = self._known[statement] = translated(statement, self._tables)
        return known


def _named(statement: str, values: Sequence[Any]) -> Sequence[Any] | Mapping[str, Any]:
    plain = [_plain(value) for value in values]
    return {f"v{i}": value for i, value in enumerate(plain, 1)} if numbered(statement) else plain


def _plain(value: Any) -> Any:
    """A value as PostgreSQL keeps it: whether something is so as 0 or 1, and text without NUL, which it cannot hold."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and (_NUL in value or _ESCAPE in value):
        return value.replace(_ESCAPE, _ESCAPE + "1").replace(_NUL, _ESCAPE + "0")
    return value


class _Text(Loader):
    """Text as it was before `_plain`."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: Buffer) -> str:
        text = str(data, "utf-8")
        if _ESCAPE in text:
            return text.replace(_ESCAPE + "0", _NUL).replace(_ESCAPE + "1", _ESCAPE)
        return text


class LedgerConnections:
    """Connections to one ledger in PostgreSQL, shared by the parts of a store: one that writes, one for reads of the
    ledger, and one for look-ups of persons and events. They open again after the database was away.

    `opening` closes them. With `read_only` nothing is claimed, and writing raises LedgerError. Threads: one thread
    writes; the two reading connections serve any thread, each behind a lock. Raises LedgerError for a database that
    cannot be used.
    """

    known = None  # the filter of user ids is right for one process that writes; here others may
    synchronous: str

    def __init__(self, url: str, opening: ExitStack, *, read_only: bool):
        self._url, self._opening = url, opening
        self._reading, self._looking = threading.Lock(), threading.Lock()
        self.earlier = EarlierJourneys()
        self._commits = CommitChain(SCHEMA)
        self._epoch = 0
        self._write = None if read_only else self._connect()
        if self._write is not None:
            self._prepare(self._write)
        self._read, self._people = self._connect(), self._connect()
        if read_only:
            _check_schema(self._read)
        self.synchronous = self._read.execute("SHOW synchronous_commit").fetchone()[0]

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """The connection for reads, in one reading transaction, for this thread alone."""
        with self._reading, _readable():
            self._read = self._alive(self._read)
            with _one_state(self._read) as conn:
                yield conn

    @contextmanager
    def looking(self) -> Iterator[Any]:
        """The connection for look-ups, for this thread alone; in no transaction."""
        with self._looking, _readable():
            self._people = self._alive(self._people)
            yield self._people

    @contextmanager
    def beside(self) -> Iterator[Any]:
        """A connection of its own for one long read, which keeps nobody waiting; in one reading transaction."""
        with _readable():
            conn = self._connect()
            try:
                with _one_state(conn):
                    yield conn
            finally:
                conn.conn.close()

    def log_bytes(self) -> int:
        """0: PostgreSQL's log is its own matter."""
        return 0

    def overwrite_free(self, first: int, most: int) -> int:
        """Nothing to do here, which 0 says: the database overwrites what is deleted when it needs the room."""
        del first, most
        return 0

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        """All rows of one query, on the connection for reads."""
        with self.reading() as conn:
            return list(conn.execute(query, tuple(values)).fetchall())

    def number(self, query: str) -> int:
        """The one number that a query gives, on the connection for reads."""
        return int(self.rows(query)[0][0])

    def writer(self) -> Any:
        """The writing connection. Raises LedgerError if the ledger was opened read-only."""
        return self._writing()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """One durable transaction of the writing connection; inner ones become savepoints. Raises Unavailable when the
        database cannot say that it was committed and when another process has taken the ledger over, LedgerError for a
        row that the tables refuse.
        """
        database = self._writing()
        outermost = database.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        try:
            with database.conn.transaction():
                if outermost:
                    ownership.check(database, self._epoch)  # type: ignore[arg-type]
                yield database
                if outermost:
                    self._commits.seal(database)  # type: ignore[arg-type]
            if outermost:
                self._commits.confirm()
        except BaseException as error:
            if outermost:
                self._commits.forget()
            if isinstance(error, psycopg.IntegrityError | psycopg.DataError):
                raise LedgerError(f"the ledger refused a row: {error}") from error
            if isinstance(error, psycopg.Error):
                raise Unavailable(f"the ledger could not be written: {error}") from error
            raise

    def _writing(self) -> PostgresConnection:
        if self._write is None:
            raise LedgerError("the ledger was opened read-only")
        self._write = self._alive(self._write)
        return self._write

    def _alive(self, conn: PostgresConnection) -> PostgresConnection:
        """The connection, or another in its place if it was lost."""
        if not conn.conn.closed:
            return conn
        try:
            return self._connect()
        except LedgerError as error:
            raise Unavailable(str(error)) from error

    def _connect(self) -> PostgresConnection:
        try:
            conn = psycopg.connect(self._url, autocommit=True, application_name="journey-bandit")
        except psycopg.Error as error:
            raise LedgerError(f"the database cannot be reached: {error}") from error
        self._opening.callback(conn.close)
        conn.adapters.register_loader("text", _Text)
        found = PostgresConnection(conn)
        found.forms_changed()
        return found

    def _prepare(self, database: PostgresConnection) -> None:
        """Claim the ledger for this process, and bring its tables up to date."""
        if not database.conn.execute(_CLAIMED).fetchone()[0]:  # type: ignore[index]
            raise LedgerError("the ledger is in use by another process: one service owns one ledger")
        with database.conn.transaction():
            database.conn.execute("CREATE TABLE IF NOT EXISTS ledger_schema (number BIGINT NOT NULL, name TEXT)")
            _migrate(database)
            self._epoch = ownership.take(database)  # type: ignore[arg-type]


class _Migrated:
    """What a migration is given: the connection, under the name that sqlite-utils has for it."""

    def __init__(self, conn: PostgresConnection):
        self.conn = conn


def _migrate(database: PostgresConnection) -> None:
    database.conn.execute(_NUMBERS)
    done = _schema_of(database)
    for number, migration in enumerate(migrations._migrations[done:], done + 1):
        migration.fn(_Migrated(database))  # type: ignore[arg-type]
        database.forms_changed()
        database.conn.execute("INSERT INTO ledger_schema VALUES (%s, %s)", (number, migration.name))
    database.forms_changed()


def _schema_of(database: PostgresConnection) -> int:
    """Number of the form that the tables have. Raises LedgerError for one of a later version."""
    if "ledger_schema" not in database._tables:
        database.forms_changed()
    if "ledger_schema" not in database._tables:
        return 0
    number = int(database.conn.execute("SELECT coalesce(max(number), 0) FROM ledger_schema").fetchone()[0])  # type: ignore[index]
    if number > SCHEMA:
        what = f"schema {number}, this one reads up to {SCHEMA}"
        raise LedgerError(f"it was written by a later version ({what}): upgrade this one")
    return number


def _check_schema(database: PostgresConnection) -> None:
    number = _schema_of(database)
    if number == 0:
        raise LedgerError("the database cannot be used as a ledger: it has none of its tables")
    if number < SCHEMA:
        raise LedgerError("the ledger was written by an earlier version: start the service on it once")


@contextmanager
def _one_state(conn: PostgresConnection) -> Iterator[PostgresConnection]:
    """Transaction of several reads, which all see one state of the ledger."""
    conn.conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield conn
    finally:
        if not conn.conn.closed:
            conn.conn.execute("ROLLBACK")


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise Unavailable(f"the ledger could not be read: {error}") from error
