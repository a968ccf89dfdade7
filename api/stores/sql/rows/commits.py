"""Commits of a SQL ledger: for each, how far the append-only tables went and a digest of the rows that it
appended, chained to the one before. A bit that was flipped later, a row that is gone and a row that nobody committed
are found.

Digests are BLAKE2b-128 of the rows as SQLite gives them, in MessagePack. A row has the columns that its table had when
it was committed: migrations append columns, and `FORMS` says how many there were.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from api.stores.sql.connection import SqlConnection

_CHANGES: Mapping[int, Mapping[str, int]] = {
    15: {"decisions": 30, "outcomes": 10, "settlements": 10, "events": 9, "releases": 15},
    16: {"decisions": 31},
    19: {"erasures": 10, "seals": 6},
    20: {"outcomes": 11, "events": 10},
    21: {"outcomes": 12, "settlements": 12, "withdrawals": 7},
    23: {"acknowledgements": 8},
    24: {"operator_actions": 7},
    25: {"operator_actions": 8},
}
"""What each form changed: columns of new tables, and of tables that it gave more."""

FORMS: Mapping[int, Mapping[str, int]] = {
    number: {table: n for form in _CHANGES if form <= number for table, n in _CHANGES[form].items()}
    for number in _CHANGES
}
"""Append-only tables with consecutive numbers, in the order in which a commit's rows are digested, and how many columns
each had, by the number of the tables' form (`user_version`) that changed it. New tables come last.
"""

TABLES = tuple(FORMS[max(FORMS)])
"""Append-only tables of the present form."""

Ends = tuple[int, ...]
"""Last number of each table of a form."""

_NO_END = 2**62
encode = msgspec.msgpack.Encoder().encode


class CommitChain:
    """Chain of one ledger's commits, for its writing connection: `seal` is called in every transaction before it is
    committed, `confirm` after, `forget` if it is not known whether it was. Where other processes write too, `begin` is
    called first.
    """

    def __init__(self, form: int):
        self._form = form
        self._tables = tuple(columns_in(form))
        self._ends: Ends | None = None  # of the tables, as committed; None: to be read again
        self._chain, self._queries = b"", dict[str, str]()
        self._next: Ends = (0,) * len(self._tables)
        self.number = 0  # of the newest commit, as `begin` met it or `seal` made it
        self._seen: _ChainEnd | None = None  # where the chain ended when `begin` or `confirm` met it last
        newest = (f"(SELECT coalesce(max(seq), 0) FROM {table})" for table in self._tables)  # noqa: S608
        self._newest = f"SELECT {', '.join(newest)}"
        columns = ("form", *self._tables, "rows", "chain")
        marks = ", ".join("?" * len(columns))
        self._append = f"INSERT INTO commits ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608

    def begin(self, conn: SqlConnection) -> "Others | None":
        """Read where the chain ends; returns what was appended since the last call beside what was sealed here, None if
        nothing was. What is not known to be committed counts as that of others.
        """
        before, now = self._seen, _last(conn, self._tables)
        (self._ends, self._chain, self.number), self._seen = now, now
        if before is None or before == now:
            return None
        known = conn.execute("SELECT chain FROM commits WHERE seq = ?", (before.number,)).fetchone()
        return Others(before.ends, now.ends, same=before.number == 0 or known == (before.chain,))

    def seal(self, conn: SqlConnection) -> None:
        """Append a row for what this transaction appended, if it did."""
        if self._ends is None:
            self._ends, self._chain, self.number = _last(conn, self._tables)
        if not self._queries:
            self._queries = {table: between(conn, table, self._form) for table in self._tables}
        self._next = conn.execute(self._newest).fetchone()
        if self._next == self._ends:
            return
        digest = hashlib.blake2b(digest_size=16)
        for table, after, end in zip(self._tables, self._ends, self._next, strict=True):
            if end > after:
                for row in conn.execute(self._queries[table], (after, end)):
                    digest.update(encode(row))
        self._chain = chained(self._chain, self._form, self._next, digest.digest())
        conn.execute(self._append, (self._form, *self._next, digest.digest(), self._chain))
        self.number += 1

    def confirm(self) -> None:
        """Take the sealed transaction for committed."""
        self._ends = self._next
        self._seen = _ChainEnd(self._next, self._chain, self.number)

    def forget(self) -> None:
        """Read where the chain ends before the next transaction: this one failed, or may have."""
        self._ends = None


class Others(NamedTuple):
    """What others appended: numbers of the last rows of all tables before it, and with it. `same`: the commits that
    were there before are still there; otherwise the database has lost some, and numbers may mean other rows.
    """

    before: Ends
    through: Ends
    same: bool = True

    def of(self, table: str) -> tuple[int, int]:
        """Numbers of the last row of one table, before and with it."""
        place = TABLES.index(table)
        return self.before[place], self.through[place]


def newest(conn: SqlConnection) -> int:
    """Number of the newest commit, 0 before any."""
    return int(conn.execute("SELECT coalesce(max(seq), 0) FROM commits").fetchone()[0])


def columns_in(form: int) -> Mapping[str, int]:
    """How many columns each table had in a form of the tables."""
    return FORMS[max(number for number in FORMS if number <= form)]


def chained(before: bytes, form: int, ends: Ends, digest: bytes) -> bytes:
    """Link of the chain after `before`: of a commit that ends at these numbers, and whose rows have this digest."""
    return hashlib.blake2b(before + encode((form, *ends)) + digest, digest_size=16).digest()


class _ChainEnd(NamedTuple):
    """End of the chain: last numbers of the tables in the newest commit, its link and its number."""

    ends: Ends
    chain: bytes
    number: int


def _last(conn: SqlConnection, tables: Sequence[str]) -> _ChainEnd:
    query = f"SELECT {', '.join(tables)}, chain, seq FROM commits ORDER BY seq DESC LIMIT 1"  # noqa: S608
    found = conn.execute(query).fetchone()
    return _ChainEnd((0,) * len(tables), b"", 0) if found is None else _ChainEnd(tuple(found[:-2]), *found[-2:])


def between(conn: SqlConnection, table: str, form: int) -> str:
    """Query for the rows of a table from one number (without it) to another, with the columns that it had in a form."""
    known = [column[0] for column in conn.execute(f"SELECT * FROM {table} LIMIT 0").description]  # noqa: S608
    columns = ", ".join(known[: columns_in(form)[table]])
    return f"SELECT {columns} FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq"  # noqa: S608


class Piece(NamedTuple):
    """Piece of a commit: rows of one of its tables, numbered `first` to `last`."""

    table: str
    first: int
    last: int


_SIZE = 64  # rows of a piece at most: what one erased row costs to digest again


def pieces(ends: Ends, now: Ends) -> Iterator[Piece]:
    """Pieces of the commit that went from `ends` to `now`, in order."""
    for table, after, end in zip(TABLES, ends, now, strict=True):
        yield from pieces_of(table, after, end)


def pieces_of(table: str, after: int, end: int) -> Iterator[Piece]:
    """Pieces of the rows of one table and one commit, numbered above `after` up to `end`, in order."""
    first = after + 1
    while first <= end:
        piece = piece_at(table, after, end, first)
        yield piece
        first = piece.last + 1


def piece_at(table: str, after: int, end: int, seq: int) -> Piece:
    """The piece that row number `seq` is in, among those of the rows numbered above `after` up to `end`."""
    block = (seq - 1) // _SIZE * _SIZE
    return Piece(table, max(after, block) + 1, min(end, block + _SIZE))


def unlike(conn: SqlConnection) -> Iterator[str]:
    """Where the tables are not what was committed, in words; nothing if they are. All rows are read once.

    A commit of which an erasure has overwritten rows is compared with the digests of its pieces that the erasure has
    sealed, which are rows of a later commit. They count once all of the commit's pieces are sealed.
    """
    readers = {table: _Reader(conn, table) for table in TABLES}
    seals = sealed(conn)
    before, ends = b"", (0,) * len(TABLES)
    query = f"SELECT seq, form, {', '.join(TABLES)}, rows, chain FROM commits ORDER BY seq"  # noqa: S608
    for expected, (seq, form, *now, said, link) in enumerate(conn.execute(query), 1):
        where = f"commit {seq:,}"
        if seq != expected:
            yield f"commit {expected:,} is missing"
            return
        if form < min(FORMS) or chained(before, form, tuple(now[: len(columns_in(form))]), said) != link:
            yield f"{where}: its own row is not what was committed; what follows it cannot be checked"
            return
        wrong = _unlike(readers, form, (ends, tuple(now)), said, seals)
        if wrong:
            yield f"{where}: a row is not what was committed, among {', '.join(wrong)}"
        before, ends = link, tuple(now)
    for (table, reader), end in zip(readers.items(), ends, strict=True):
        if (found := reader.newest()) > end:
            yield f"{table} {end + 1:,} to {found:,} belong to no commit"


Seals = Mapping[tuple[str, int], tuple[int, int, bytes]]
"""Newest seal of each piece, by table and first number: last number, form of the tables, digest."""


def sealed(conn: SqlConnection) -> Seals:
    """Newest seals of all pieces that erasures have sealed."""
    rows = conn.execute("SELECT part, first, last, form, rows FROM seals ORDER BY seq")
    return {(table, first): (last, form, digest) for table, first, last, form, digest in rows}


def _unlike(
    readers: Mapping[str, "_Reader"], form: int, ends: tuple[Ends, Ends], said: bytes, seals: Seals
) -> list[str]:
    """Which rows of a commit are not what was committed, in words."""
    amended = list(pieces(*ends))
    known = [seals.get((piece.table, piece.first)) for piece in amended]
    whole, wrong = not amended or any(k is None or k[0] != p.last for k, p in zip(known, amended, strict=True)), []
    digest, parts = hashlib.blake2b(digest_size=16), list[str]()
    for (table, reader), after, end in zip(readers.items(), *ends, strict=True):
        if end > after and whole:
            parts.append(f"{table} {after + 1:,} to {end:,}")
            for row in reader.through(end, form):
                digest.update(encode(row))
    if whole:
        return parts if digest.digest() != said else []
    for piece, seal in zip(amended, known, strict=True):
        if seal is not None and readers[piece.table].digest(piece.last, seal[1]) != seal[2]:
            wrong.append(f"{piece.table} {piece.first:,} to {piece.last:,}")
    return wrong


class _Reader:
    """Reader of one table from its first row to its last."""

    def __init__(self, conn: SqlConnection, table: str):
        self._conn, self._table = conn, table
        self._form, self._after = 0, 0
        self._cursor: Iterator[tuple[object, ...]] = iter(())
        self._ahead: tuple[object, ...] | None = None

    def digest(self, end: int, form: int) -> bytes:
        """Digest of the rows that follow, up to this number."""
        found = hashlib.blake2b(digest_size=16)
        for row in self.through(end, form):
            found.update(encode(row))
        return found.digest()

    def through(self, end: int, form: int) -> Iterator[tuple[object, ...]]:
        if form != self._form:
            query = between(self._conn, self._table, form)
            self._cursor = iter(self._conn.execute(query, (self._after, _NO_END)))
            self._form, self._ahead = form, None
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
