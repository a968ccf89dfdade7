"""One connection of a SQL store, as each engine supplies it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class SqlCursor(Protocol):
    """Cursor over the rows of a statement, each a tuple of int, float, str, bytes and None."""

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        ...

    @property
    def description(self) -> Any:
        """Columns, each beginning with its name."""
        ...

    def fetchone(self) -> Any:
        """Next row; None after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class SqlConnection(Protocol):
    """Connection that runs statements of the ledger, in SQL as SQLite understands it, with ? for values. A statement
    outside a transaction is one of its own.
    """

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> SqlCursor:
        """Run a statement."""
        ...

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> SqlCursor:
        """Run a statement for each row."""
        ...
