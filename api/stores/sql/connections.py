"""Connections that the parts of a SQL store share, as each engine supplies them."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from api.stores.ingest import EarlierJourneys
from api.stores.sql.connection import SqlConnection
from api.stores.sql.known_users import KnownUsers


class SqlConnections(Protocol):
    """Connections to one ledger: one that writes, one for reads of the ledger, which long reads hold only for a page,
    and one for look-ups of persons and events, which never waits for a long read. `known` is the filter of user ids of
    a ledger that only this process writes, else None; `earlier` are journeys as they were, for late events.

    Threads: one thread writes; the others serve any thread. Reading raises Unavailable where the ledger cannot be read.
    """

    known: KnownUsers | None
    earlier: EarlierJourneys

    def reading(self) -> AbstractContextManager[SqlConnection]:
        """The connection for reads, in one reading transaction, for this thread alone."""
        ...

    def looking(self) -> AbstractContextManager[SqlConnection]:
        """The connection for look-ups, for this thread alone; in no transaction."""
        ...

    def one_state(self, conn: SqlConnection) -> AbstractContextManager[object]:
        """Transaction of several reads on a connection for reading, which all see one state of the ledger."""
        ...

    def beside(self) -> AbstractContextManager[SqlConnection]:
        """A connection of its own for one long read, which keeps nobody waiting; in one reading transaction."""
        ...

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        """All rows of one query, on the connection for reads."""
        ...

    def number(self, query: str) -> int:
        """The one number that a query gives, on the connection for reads."""
        ...

    def writer(self) -> SqlConnection:
        """The writing connection. Raises LedgerError if the ledger was opened read-only."""
        ...

    def transaction(self) -> AbstractContextManager[SqlConnection]:
        """One durable transaction of the writing connection; inner ones become savepoints. Raises Unavailable when it
        is not known to be committed, or another process has taken the ledger over, and LedgerError for a row that the
        tables refuse.
        """
        ...

    def log_bytes(self) -> int:
        """Bytes that were committed and are not yet where they belong."""
        ...

    def overwrite_free(self, first: int, most: int) -> int:
        """Overwrite what neither rows nor indexes use, in at most so many pages from `first` on; the page to go on
        with, 0 after the last.
        """
        ...


class SqlPart:
    """Base of the parts of a SQL store: what they share is the ledger's connections, and nothing else."""

    def __init__(self, ledger: SqlConnections):
        self._ledger = ledger
