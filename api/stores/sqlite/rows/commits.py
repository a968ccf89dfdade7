"""Commits of the SQLite ledger: for each, how far the append-only tables went and a digest of the rows that it
appended, chained to the one before. A bit that was flipped later, a row that is gone and a row that nobody committed
are found.

Digests are BLAKE2b-128 of the rows as SQLite gives them, in MessagePack. A row has the columns that its table had when
it was committed: migrations append columns, and `FORMS` says how many there were.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping

import msgspec

TABLES = ("decisions", "outcomes", "settlements", "events", "releases")
"""Append-only tables with consecutive numbers, in the order in which a commit's rows are digested."""

FORMS: Mapping[int, Mapping[str, int]] = {
    15: {"decisions": 30, "outcomes": 10, "settlements": 10, "events": 9, "releases": 15},
    16: {"decisions": 31, "outcomes": 10, "settlements": 10, "events": 9, "releases": 15},
}
"""How many columns each table had, by the number of the tables' form (`user_version`) that changed it."""

Ends = tuple[int, ...]
"""Last number of each of `TABLES`."""

_NO_END = 2**62
_encode = msgspec.msgpack.Encoder().encode
_LAST = ", ".join(TABLES)
_ENDS = f"SELECT {', '.join(f'(SELECT coalesce(max(seq), 0) FROM {table})' for table in TABLES)}"  # noqa: S608
_APPEND = f"INSERT INTO commits (form, {_LAST}, rows, chain) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


class CommitChain:
    """Chain of one ledger's commits, for its writing connection: `seal` is called in every transaction before it is
    committed, `confirm` after, `forget` if it is not known whether it was.
    """

    def __init__(self, form: int):
        self._form = form
        self._ends: Ends | None = None  # of the tables, as committed; None: to be read again
        self._chain, self._queries = b"", dict[str, str]()
        self._next: Ends = (0,) * len(TABLES)

    def seal(self, conn: sqlite3.Connection) -> None:
        """Append a row for what this transaction appended, if it did."""
        if self._ends is None:
            self._ends, self._chain = last(conn)
            self._queries = {table: _between(conn, table, self._form) for table in TABLES}
        self._next = conn.execute(_ENDS).fetchone()
        if self._next == self._ends:
            return
        digest = hashlib.blake2b(digest_size=16)
        for table, after, end in zip(TABLES, self._ends, self._next, strict=True):
            if end > after:
                for row in conn.execute(self._queries[table], (after, end)):
                    digest.update(_encode(row))
        self._chain = chained(self._chain, self._form, self._next, digest.digest())
        conn.execute(_APPEND, (self._form, *self._next, digest.digest(), self._chain))

    def confirm(self) -> None:
        """Take the sealed transaction for committed."""
        self._ends = self._next

    def forget(self) -> None:
        """Read where the chain ends before the next transaction: this one failed, or may have."""
        self._ends = None


def columns_in(form: int) -> Mapping[str, int]:
    """How many columns each table had in a form of the tables."""
    return FORMS[max(number for number in FORMS if number <= form)]


def chained(before: bytes, form: int, ends: Ends, digest: bytes) -> bytes:
    """Link of the chain after `before`: of a commit that ends at these numbers, and whose rows have this digest."""
    return hashlib.blake2b(before + _encode((form, *ends)) + digest, digest_size=16).digest()


def last(conn: sqlite3.Connection) -> tuple[Ends, bytes]:
    """Last numbers of the tables in the newest commit, and the link of the chain."""
    found = conn.execute(f"SELECT {_LAST}, chain FROM commits ORDER BY seq DESC LIMIT 1").fetchone()  # noqa: S608
    return ((0,) * len(TABLES), b"") if found is None else (tuple(found[:-1]), found[-1])


def _between(conn: sqlite3.Connection, table: str, form: int) -> str:
    """Query for the rows of a table from one number (without it) to another, with the columns that it had in a form."""
    known = [row[0] for row in conn.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    columns = ", ".join(known[: columns_in(form)[table]])
    return f"SELECT {columns} FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq"  # noqa: S608


def unlike(conn: sqlite3.Connection) -> Iterator[str]:
    """Where the tables are not what was committed, in words; nothing if they are. All rows are read once."""
    tables = {table: _Reader(conn, table) for table in TABLES}
    before, ends = b"", (0,) * len(TABLES)
    commits = conn.execute(f"SELECT seq, form, {_LAST}, rows, chain FROM commits ORDER BY seq")  # noqa: S608
    for expected, (seq, form, *now, said, link) in enumerate(commits, 1):
        where = f"commit {seq:,}"
        if seq != expected:
            yield f"commit {expected:,} is missing"
            return
        if form < min(FORMS) or chained(before, form, tuple(now), said) != link:
            yield f"{where}: its own row is not what was committed; what follows it cannot be checked"
            return
        digest, parts = hashlib.blake2b(digest_size=16), list[str]()
        for (table, reader), after, end in zip(tables.items(), ends, now, strict=True):
            if end > after:
                parts.append(f"{table} {after + 1:,} to {end:,}")
                for row in reader.through(end, form):
                    digest.update(_encode(row))
        if digest.digest() != said:
            yield f"{where}: a row is not what was committed, among {', '.join(parts)}"
        before, ends = link, tuple(now)
    for (table, reader), end in zip(tables.items(), ends, strict=True):
        if (found := reader.newest()) > end:
            yield f"{table} {end + 1:,} to {found:,} belong to no commit"


class _Reader:
    """Reader of one table from its first row to its last."""

    def __init__(self, conn: sqlite3.Connection, table: str):
        self._conn, self._table = conn, table
        self._form, self._after = 0, 0
        self._cursor: Iterator[tuple[object, ...]] = iter(())
        self._ahead: tuple[object, ...] | None = None

    def through(self, end: int, form: int) -> Iterator[tuple[object, ...]]:
        if form != self._form:
            query = _between(self._conn, self._table, form)
            self._cursor, self._form, self._ahead = self._conn.execute(query, (self._after, _NO_END)), form, None
        while True:
            row = self._ahead if self._ahead is not None else next(self._cursor, None)
            self._ahead = None
            if row is None:
                return
            if int(str(row[0])) > end:
                self._ahead = row
                return
            self._after = int(str(row[0]))
            yield row

    def newest(self) -> int:
        return int(self._conn.execute(f"SELECT coalesce(max(seq), 0) FROM {self._table}").fetchone()[0])  # noqa: S608
