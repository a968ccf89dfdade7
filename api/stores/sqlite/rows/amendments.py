"""Amendments of commits in the SQLite ledger: an erasure overwrites rows, and seals the pieces of their commits anew,
so that the chain still tells what was committed from what was not.

A commit is amended in pieces of at most 64 rows. Before one of its rows is overwritten, all of its pieces are sealed as
they are; from then on they count, not the digest of the whole. So what an erasure costs does not grow with a commit:
the rows of an earlier version are one.
"""

import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from api.stores.sqlite.rows.commits import TABLES, Ends, Piece, between, encode, pieces

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

    def __init__(self, conn: sqlite3.Connection, form: int):
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

    def _unsealed(self, commit: _Commit) -> Sequence[Piece]:
        """Pieces of a commit that have no seal; none, at the cost of one query, if the last of them has one."""
        all_of_it = list(pieces(commit.before, commit.now))
        query = "SELECT 1 FROM seals WHERE part = ? AND first = ?"
        if self._conn.execute(query, all_of_it[-1][:2]).fetchone():  # they are sealed in order
            return ()
        known = set[tuple[str, int]]()
        for table, after, end in zip(TABLES, commit.before, commit.now, strict=True):
            if end > after:
                found = self._conn.execute(
                    "SELECT first FROM seals WHERE part = ? AND first > ? AND first <= ?", (table, after, end)
                )
                known |= {(table, first) for (first,) in found}
        return [piece for piece in all_of_it if piece[:2] not in known]

    def _piece_of(self, table: str, seq: int) -> Piece:
        commit = self._commit_of(table, seq)
        return next(p for p in pieces(commit.before, commit.now) if p.table == table and p.first <= seq <= p.last)

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
