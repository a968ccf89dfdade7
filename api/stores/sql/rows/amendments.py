"""Amendments of commits in a SQL ledger: an erasure overwrites rows, and seals the pieces of their commits anew,
so that the chain still tells what was committed from what was not.

A commit is amended in pieces of at most 64 rows. Before one of its rows is overwritten, all of its pieces are sealed as
they are; from then on they count, not the digest of the whole. So what an erasure costs does not grow with a commit:
the rows of an earlier version are one.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from api.stores.sql.connection import SqlConnection
from api.stores.sql.rows.commits import TABLES, Ends, Piece, between, encode, piece_at, pieces_of

Row = tuple[str, int]
"""Table and number of a row."""

_COMMIT = f"SELECT {', '.join(TABLES)} FROM commits WHERE seq = ?"  # noqa: S608
_SEAL = "INSERT INTO seals (part, first, last, form, rows) VALUES (?, ?, ?, ?, ?)"


class _Commit(NamedTuple):
    """Commit of a row: its number, and where the tables ended before it and with it."""

    seq: int
    before: Ends
    now: Ends


class Amendment:
    """Amendment of the commits of some rows, in one transaction of the writing connection: `prepare`, overwrite, then
    `seal`. `form` is the number of the tables' present form.
    """

    def __init__(self, conn: SqlConnection, form: int):
        self._conn, self._form = conn, form
        self._queries = {table: between(conn, table, form) for table in TABLES}

    def prepare(self, rows: Collection[Row], most: int) -> bool:
        """Seal what is not sealed yet of the commits of these rows, at most about so many rows. Returns whether all is:
        if not, nothing may be overwritten, and the next transaction goes on.
        """
        left, done = most, set[int]()
        for table, seq in rows:
            commit = self._commit_of(table, seq)
            if commit.seq in done:
                continue
            done.add(commit.seq)
            for piece in self._unsealed(commit):
                if left <= 0:
                    return False
                self._seal(piece)
                left -= piece.last - piece.first + 1
        return True

    def seal(self, rows: Iterable[Row]) -> None:
        """Seal the pieces of rows that were overwritten."""
        touched = dict.fromkeys(self._piece_of(table, seq) for table, seq in rows)
        for piece in touched:
            self._seal(piece)

    def _seal(self, piece: Piece) -> None:
        digest = hashlib.blake2b(digest_size=16)
        for row in self._conn.execute(self._queries[piece.table], (piece.first - 1, piece.last)):
            digest.update(encode(row))
        self._conn.execute(_SEAL, (*piece, self._form, digest.digest()))

    def _unsealed(self, commit: _Commit) -> Iterator[Piece]:
        """Pieces of a commit that have no seal: they are sealed in order, so those after the last that has one."""
        query = "SELECT last FROM seals WHERE part = ? AND first > ? AND first <= ? ORDER BY first DESC LIMIT 1"
        for table, after, end in zip(TABLES, commit.before, commit.now, strict=True):
            if end > after:
                found = self._conn.execute(query, (table, after, end)).fetchone()
                yield from pieces_of(table, found[0] if found else after, end)

    def _piece_of(self, table: str, seq: int) -> Piece:
        commit, place = self._commit_of(table, seq), TABLES.index(table)
        return piece_at(table, commit.before[place], commit.now[place], seq)

    def _commit_of(self, table: str, seq: int) -> _Commit:
        """The commit that appended a row, found by halving: numbers of commits have no gaps."""
        low, high = 1, self._conn.execute("SELECT max(seq) FROM commits").fetchone()[0]
        place = TABLES.index(table)
        while low < high:
            middle = (low + high) // 2
            if self._ends(middle)[place] >= seq:
                high = middle
            else:
                low = middle + 1
        return _Commit(low, self._ends(low - 1), self._ends(low))

    def _ends(self, seq: int) -> Ends:
        return tuple(self._conn.execute(_COMMIT, (seq,)).fetchone()) if seq else (0,) * len(TABLES)
