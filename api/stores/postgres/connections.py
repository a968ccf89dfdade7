"""Connections to a ledger in PostgreSQL: the one that writes, and those that read. A connection that was lost is opened
again by whoever needs it next.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from api.stores.ingest import EarlierJourneys
from api.stores.postgres import tables
from api.stores.postgres.connection import PostgresConnection
from api.stores.sql.connection import SqlConnection
from api.stores.sql.known_users import KnownUsers
from api.stores.sql.rows import ownership
from api.stores.sql.rows.commits import CommitChain, Others, newest
from api.stores.sql.schema import SCHEMA
from bandit.errors import LedgerError, Unavailable

_KEY = "hashtextextended('journey-bandit {} ' || current_schema(), 0)"
_OWN = f"SELECT pg_try_advisory_lock({_KEY.format('ledger')})"
_DISOWN = f"SELECT pg_advisory_unlock({_KEY.format('ledger')})"
_JOIN = f"SELECT pg_advisory_lock_shared({_KEY.format('ledger')})"
_LEAD = f"SELECT pg_try_advisory_lock({_KEY.format('leader')})"
_TURN = f"SELECT pg_advisory_xact_lock({_KEY.format('turn')})"
_START = f"SELECT pg_advisory_lock({_KEY.format('start')})"
_STARTED = f"SELECT pg_advisory_unlock({_KEY.format('start')})"
_WRITER, _READER, _LOOKER = "writer", "reader", "looker"
_ONE_STATE = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_IDLE = "SET idle_in_transaction_session_timeout = '60s'"
_SETTINGS = (
    "SET tcp_keepalives_idle = 10",  # a machine that is gone lets go of the ledger within half a minute
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
    "SET lock_timeout = '75s'",  # longer than a process that hangs in a transaction is waited for
    _IDLE,
    "SET client_min_messages = warning",
)
_USUAL = "SET statement_timeout = '90s'"  # of connections that others wait for


class PostgresConnections:
    """Connections to one ledger in PostgreSQL, shared by the parts of a store: one that writes, one for reads of the
    ledger, and one for look-ups of persons and events.

    `opening` closes them. With `read_only` nothing is claimed, and writing raises LedgerError. With `shared`, others
    that share it may write too, one transaction at a time; otherwise this process owns the ledger. All claims are locks
    of the writing connection, which end with it. Threads: one thread writes; the two reading connections serve any
    thread, each behind a lock. `synchronous` is how durable a commit is, for health. Raises LedgerError for a database
    that cannot be used, and for a ledger that is claimed otherwise.
    """

    def __init__(self, url: str, opening: ExitStack, *, read_only: bool, shared: bool = False):
        self._url = url
        self._reading, self._looking = threading.Lock(), threading.Lock()
        self.known: KnownUsers | None = None  # it must know of all that is written, and another process may write
        self.earlier = EarlierJourneys()
        self._commits = CommitChain(SCHEMA)
        self._epoch = 0
        self._read_only, self.shared = read_only, shared
        self._others: Others | None = None  # what others appended, and `others` has not told yet
        self._looked = 0  # number of the newest commit that the last transaction began with, or made
        self._leading: PostgresConnection | None = None
        self._old = set[str]()  # names of connections that are to be opened again
        self._open = dict[str, PostgresConnection]()
        opening.callback(self._close)
        if not read_only:
            self._prepare(self._connection(_WRITER))
        reader = self._connection(_READER)
        if read_only:
            tables.check(reader)
        self.synchronous = str(reader.execute("SHOW synchronous_commit").fetchone()[0])

    @contextmanager
    def reading(self) -> Iterator[PostgresConnection]:
        """The connection for reads, in one reading transaction, for this thread alone."""
        with self._reading, _readable(), _one_state(self._connection(_READER)) as conn:
            yield conn

    @contextmanager
    def looking(self) -> Iterator[PostgresConnection]:
        """The connection for look-ups, for this thread alone; in no transaction."""
        with self._looking, _readable():
            yield self._connection(_LOOKER)

    def one_state(self, conn: SqlConnection) -> AbstractContextManager[object]:
        """Transaction of several reads on a connection for reading, which all see one state of the ledger."""
        return _one_state(conn)

    @contextmanager
    def beside(self) -> Iterator[PostgresConnection]:
        """A connection of its own for one long read, which keeps nobody waiting and brings rows as they are read; in
        one reading transaction.
        """
        with _readable():
            conn = self._connect(streaming=True)
            try:
                with _one_state(conn):
                    yield conn
            finally:
                conn.close()

    def log_bytes(self) -> int:
        """0: the log is the database's own matter."""
        return 0

    def overwrite_free(self, first: int, most: int) -> int:
        """0, after the database has let go of what was overwritten: see the guide on people for what stays in its
        files.
        """
        del first, most
        return 0

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        """All rows of one query, on the connection for reads."""
        with self.reading() as conn:
            return conn.execute(query, tuple(values)).fetchall()

    def number(self, query: str) -> int:
        """The one number that a query gives, on the connection for reads."""
        return int(self.rows(query)[0][0])

    def writer(self) -> PostgresConnection:
        """The writing connection. Raises LedgerError if the ledger was opened read-only, Unavailable if the database is
        away, or another process has taken the ledger over.
        """
        if self._read_only:
            raise LedgerError("the ledger was opened read-only")
        known, conn = self._open.get(_WRITER), self._connection(_WRITER)
        if conn is not known:
            try:
                claimed = self._claimed(conn)
            except psycopg.Error as error:
                conn.close()
                raise Unavailable(f"the ledger could not be claimed again: {error}") from error
            if not claimed:
                found = ownership.owner(conn)
                conn.close()
                raise Unavailable(f"{found or 'another process'} owns this ledger now: stop this service")
        return conn

    @property
    def others(self) -> Others | None:
        """What others appended since the last call of `told`, as the transaction that goes on has found it."""
        return self._others

    def told(self) -> None:
        """Forget what others appended: it is known now."""
        self._others = None

    def has_others(self) -> bool:
        """Whether others have committed what was not told yet. Raises Unavailable."""
        try:
            return self._others is not None or newest(self.writer()) != self._looked
        except psycopg.Error as error:
            raise Unavailable(f"the ledger could not be read: {error}") from error

    def leads(self) -> bool:
        """Whether this process leads those that share the ledger, from now on if nobody did. Raises Unavailable."""
        conn = self.writer()
        if self._leading is conn:
            return True
        try:
            leads = bool(conn.execute(_LEAD).fetchone()[0])
        except psycopg.Error as error:
            raise Unavailable(f"the ledger could not be reached: {error}") from error
        self._leading = conn if leads else None
        return leads

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Context in which no other process that shares the ledger starts. Raises Unavailable."""
        conn = self.writer()
        try:
            conn.execute(_START)
            conn.control("SET idle_in_transaction_session_timeout = 0")  # what it begins with is read meanwhile
        except psycopg.Error as error:
            raise Unavailable(f"another replica has been starting for long: {error}") from error
        try:
            yield
        finally:
            with suppress(psycopg.OperationalError):  # lost: its locks have ended with it
                conn.control(_IDLE)
                conn.execute(_STARTED)

    @contextmanager
    def transaction(self) -> Iterator[PostgresConnection]:
        """One durable transaction of the writing connection; inner ones become savepoints. Raises Unavailable when the
        database cannot say that it was committed and when another process has taken the ledger over, LedgerError for a
        row that the tables refuse.
        """
        conn = self.writer()
        outermost = conn.status == TransactionStatus.IDLE
        try:
            with ExitStack() as begun:
                conn = self._begin(begun, conn, again=outermost)
                if outermost and self.shared:
                    self._take_turn(conn)
                yield conn
                if outermost:
                    if not self.shared:
                        ownership.check(conn, self._epoch)
                    self._commits.seal(conn)
            if outermost:
                self._commits.confirm()
                self._looked = self._commits.number
        except BaseException as error:
            if outermost:
                self._commits.forget()
            if isinstance(error, psycopg.IntegrityError | psycopg.DataError):
                raise LedgerError(f"the ledger refused a row: {error}") from error
            if isinstance(error, psycopg.Error):
                raise Unavailable(f"the ledger could not be written: {error}") from error
            raise

    def _begin(self, begun: ExitStack, conn: PostgresConnection, *, again: bool) -> PostgresConnection:
        """Begin a transaction, and return its connection: with `again` another one where this was lost, because nothing
        was done in it yet.
        """
        try:
            begun.enter_context(conn.transaction())
        except psycopg.OperationalError:
            if not again:
                raise
            conn = self.writer()
            begun.enter_context(conn.transaction())
        return conn

    def _take_turn(self, conn: PostgresConnection) -> None:
        """Wait until no other process is in a transaction that writes, and look at what they appended."""
        conn.execute(_TURN)
        found = self._commits.begin(conn)
        if found is not None:
            first = found if self._others is None else self._others
            self._others = Others(first.before, found.through, first.same and found.same)

    def _prepare(self, conn: PostgresConnection) -> None:
        """Claim the ledger for this process, and bring its tables up to date."""
        if conn.execute("SELECT CAST(pg_is_in_recovery() AS int)").fetchone()[0]:
            fix = "give the address of its primary, or several hosts with target_session_attrs=read-write"
            raise LedgerError(f"the database is a standby, which only reads: {fix}")
        if self.shared:
            self._join(conn)
            return
        tables.enter(conn)
        if not self._claimed(conn):
            known = conn.execute("SELECT CAST(to_regclass('ledger_owner') IS NOT NULL AS int)").fetchone()[0]
            found = ownership.owner(conn) if known else ""
            raise LedgerError(f"the ledger is in use by another process{found and ', '}{found}: one service owns it")
        with conn.transaction():
            tables.migrate(conn)
            self._epoch = ownership.take(conn)

    def _join(self, conn: PostgresConnection) -> None:
        """Share the ledger with others. Tables are brought up to date by whoever comes first, while nobody else is
        there.
        """
        conn.execute(_START)
        try:
            tables.enter(conn)
            if conn.execute(_OWN).fetchone()[0]:
                with conn.transaction():
                    tables.migrate(conn)
                conn.execute(_JOIN)
                conn.execute(_DISOWN)
                return
            conn.look_at_tables()
            number = tables.schema_of(conn)
            if 0 < number < SCHEMA:
                fix = "stop the replicas of the earlier version, then start this one"
                raise LedgerError(f"the tables are of an earlier version (schema {number} of {SCHEMA}): {fix}")
            conn.execute(_JOIN)
        except psycopg.errors.LockNotAvailable as error:
            found = ownership.owner(conn) if "ledger_owner" in conn.table_names else ""
            raise LedgerError(f"the ledger is in use by another process{found and ', '}{found}: end it") from error
        finally:
            if not conn.lost:
                conn.execute(_STARTED)

    def _claimed(self, conn: PostgresConnection) -> bool:
        if self.shared:
            conn.execute(_JOIN)
            return True
        return bool(conn.execute(_OWN).fetchone()[0])

    def _connection(self, name: str) -> PostgresConnection:
        """The connection of this name, opened again if it was lost. Raises LedgerError at the first time, and
        Unavailable later.
        """
        known = self._open.get(name)
        if known is not None and not known.lost and name not in self._old:
            return known
        if known is not None:
            known.close()
        self._old.discard(name)
        if name == _WRITER and known is not None:
            self._old |= self._open.keys() - {_WRITER}  # they may lead to a server that is no primary any more
        try:
            self._open[name] = self._connect()
        except LedgerError as error:
            if known is None:
                raise
            raise Unavailable(str(error)) from error
        return self._open[name]

    def _close(self) -> None:
        for conn in self._open.values():
            conn.close()

    def _connect(self, *, streaming: bool = False) -> PostgresConnection:
        try:
            conn = psycopg.connect(self._url, autocommit=True, application_name="journey-bandit", connect_timeout=10)
        except psycopg.Error as error:
            raise LedgerError(f"the database cannot be used: {str(error).strip()}") from error
        try:
            for setting in (*_SETTINGS, *(() if streaming else (_USUAL,))):
                conn.execute(setting.encode())
            tables.go_to_schema(conn)
            return PostgresConnection(conn, streaming=streaming)
        except psycopg.Error as error:
            conn.close()
            raise LedgerError(f"the database cannot be used: {str(error).strip()}") from error
        except BaseException:
            conn.close()
            raise


@contextmanager
def _one_state(conn: SqlConnection) -> Iterator[PostgresConnection]:
    """Transaction of several reads, which all see one state of the ledger."""
    if not isinstance(conn, PostgresConnection):
        raise TypeError("the connection is of another engine")
    conn.control(_ONE_STATE)
    try:
        yield conn
    finally:
        with suppress(psycopg.OperationalError):  # lost: it ends with the connection, and whoever reads is told
            conn.end_reading()


@contextmanager
def _readable() -> Iterator[None]:
    """Context in which an error of the database's is Unavailable."""
    try:
        yield
    except psycopg.Error as error:
        raise Unavailable(f"the ledger could not be read: {error}") from error
