"""One connection to a ledger in PostgreSQL, by psycopg."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format, TransactionStatus

from api.stores.postgres.statements import TableForm, is_numbered, translated
from api.stores.sql.connection import SqlCursor

_NUL, _ESCAPE = "\0", "\ue000"
_FORMS = b"""SELECT c.table_name, c.column_name, k.column_name IS NOT NULL FROM information_schema.columns c
    LEFT JOIN information_schema.table_constraints t ON t.table_schema = c.table_schema
        AND t.table_name = c.table_name AND t.constraint_type = 'PRIMARY KEY'
    LEFT JOIN information_schema.key_column_usage k ON k.constraint_name = t.constraint_name
        AND k.table_schema = c.table_schema AND k.table_name = c.table_name AND k.column_name = c.column_name
    WHERE c.table_schema = current_schema() ORDER BY c.table_name, c.ordinal_position"""


class PostgresConnection:
    """`SqlConnection` to PostgreSQL. Rows are tuples of int, float, str, bytes and None, with the bits that were
    written. With `streaming`, rows of queries come as they are read, within a transaction.
    """

    def __init__(self, conn: psycopg.Connection[Any], *, streaming: bool = False):
        self._conn, self._streaming = conn, streaming
        self._streams = list[psycopg.ServerCursor[Any]]()
        conn.adapters.register_loader("text", _Text)
        self._known = dict[str, bytes]()
        self._tables: Mapping[str, TableForm] = {}
        self.look_at_tables()

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> SqlCursor:
        """Run a statement. Raises psycopg.Error."""
        if self._streaming:
            named = self._conn.cursor(f"read_{len(self._streams)}")
            named.itersize = 2000
            self._streams.append(named)
            return named.execute(self._statement(statement), _given(statement, values), binary=True)
        return self._conn.cursor(binary=True).execute(self._statement(statement), _given(statement, values))

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> SqlCursor:
        """Run a statement for each row. Raises psycopg.Error."""
        cursor = self._conn.cursor(binary=True)
        cursor.executemany(self._statement(statement), [_given(statement, row) for row in rows])
        return cursor

    def control(self, statement: str) -> None:
        """Run a statement of PostgreSQL's own, without values and rows. Raises psycopg.Error."""
        self._conn.execute(statement.encode())

    def transaction(self) -> AbstractContextManager[object]:
        """Transaction, or a savepoint in one."""
        return self._conn.transaction()

    def end_reading(self) -> None:
        """End a reading transaction, and what streams in it. Raises psycopg.Error."""
        for stream in self._streams:
            stream.close()
        self.control("ROLLBACK")

    @property
    def status(self) -> TransactionStatus:
        """Whether a transaction is under way."""
        return self._conn.info.transaction_status

    @property
    def lost(self) -> bool:
        """Whether it is known to be lost."""
        return self._conn.closed

    @property
    def table_names(self) -> frozenset[str]:
        """Tables of the ledger's schema."""
        return frozenset(self._tables)

    def close(self) -> None:
        """Close it."""
        self._conn.close()

    def look_at_tables(self) -> None:
        """Read again which columns tables have: statements are put into words by them."""
        found: dict[str, tuple[list[str], list[str]]] = {}
        for table, column, in_key in self._conn.execute(_FORMS):
            columns, key = found.setdefault(table, ([], []))
            columns.append(column)
            key.extend([column] if in_key else [])
        self._tables = {table: TableForm(tuple(columns), tuple(key)) for table, (columns, key) in found.items()}
        self._known.clear()

    def _statement(self, statement: str) -> bytes:
        known = self._known.get(statement)
        if known is None:
            known = self._known[statement] = translated(statement, self._tables).encode()
        return known


def _given(statement: str, values: Sequence[Any]) -> Sequence[Any] | Mapping[str, Any]:
    plain = [_plain(value) for value in values]
    return {f"v{i}": value for i, value in enumerate(plain, 1)} if is_numbered(statement) else plain


def _plain(value: Any) -> Any:
    """A value as PostgreSQL keeps it: whether something is so as 0 or 1, and text without NUL, which it cannot hold."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and (_NUL in value or _ESCAPE in value):
        return value.replace(_ESCAPE, _ESCAPE + "1").replace(_NUL, _ESCAPE + "0")
    return value


class _Text(Loader):
    """Text as it was before `_plain`."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        text = str(data, "utf-8")
        if _ESCAPE in text:
            return text.replace(_ESCAPE + "0", _NUL).replace(_ESCAPE + "1", _ESCAPE)
        return text
