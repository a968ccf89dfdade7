"""Sums of rows of the SQLite ledger's changing tables: for each table one number that its rows add up to, so that a bit
which was flipped in a message, a journey or a cursor is found, as `commits` finds it in what is append-only.

The sum of a table is that of the BLAKE2b-128 of its rows modulo 2¹²⁸ (an additive multiset hash: Bellare & Micciancio
1997). Rows may come, change and go in any order. Triggers of the writing connection keep it, so no statement that
writes needs to know of it. Tables of which `damages` and a rebuild compute every row anew are left out.
Decisions of which an erasure left nothing have no user, and wait for nothing.
"""

import hashlib
import sqlite3
from collections.abc import Iterator

import msgspec

from api.stores.sql.rows import commits
from bandit.records import NOT_NOW

COMPUTED = (
    "pending",
    "versions",
    "statistics",
    "drift_sums",
    "answer_delays",
    "exposures",
    "exposure_effects",
    "nudge_sums",
    "nudge_days",
)
"""Tables that are compared with what the append-only ones say."""

_OTHERS = ("commits", "row_sums", "ledger_owner", "_sqlite_migrations")
_MODULUS = 2**128
_encode = msgspec.msgpack.Encoder().encode


def tables(conn: sqlite3.Connection) -> list[str]:
    """Names of the tables that have a sum: all that are not append-only, not computed, and not SQLite's own."""
    left_out = {*commits.TABLES, *COMPUTED, *_OTHERS}
    names = conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return sorted(name for (name,) in names if name not in left_out)


class RowSums:
    """Sums of one ledger, for its writing connection. `save` is called in every transaction before it is committed,
    `forget` if it is not known whether it was; `copy` and `put_back` around what may be rolled back inside one.
    """

    def __init__(self, conn: sqlite3.Connection):
        self._sums, self._saved = dict[str, int](), dict[str, int]()
        self._known = False
        conn.create_function("sum_row", -1, self._add)
        conn.execute("PRAGMA recursive_triggers = ON")  # else rows that REPLACE takes away are not told of
        for table in tables(conn):
            new, old = _columns(conn, table, "NEW."), _columns(conn, table, "OLD.")
            for event, calls in (
                ("INSERT", (f"sum_row(1, '{table}', {new})",)),
                ("DELETE", (f"sum_row(-1, '{table}', {old})",)),
                ("UPDATE", (f"sum_row(-1, '{table}', {old})", f"sum_row(1, '{table}', {new})")),
            ):
                conn.execute(
                    f"CREATE TEMP TRIGGER {table}_{event.lower()}_summed AFTER {event} ON main.{table} "
                    f"BEGIN SELECT {', '.join(calls)}; END"
                )

    def begin(self, conn: sqlite3.Connection) -> None:
        """Read what is saved, if that is not known. Called in a transaction before anything is written."""
        if not self._known:
            self._saved = dict.fromkeys(tables(conn), 0) | saved(conn)
            self._sums, self._known = dict(self._saved), True

    def save(self, conn: sqlite3.Connection) -> None:
        """Save the sums that have changed."""
        changed = [(name, _bytes(n)) for name, n in self._sums.items() if n != self._saved.get(name)]
        if changed:
            conn.executemany("INSERT OR REPLACE INTO row_sums VALUES (?, ?)", changed)
            self._saved = dict(self._sums)

    def forget(self) -> None:
        """Read what is saved before the next transaction: this one failed, or may have."""
        self._known = False

    def copy(self) -> dict[str, int]:
        """The sums now."""
        return dict(self._sums)

    def put_back(self, sums: dict[str, int]) -> None:
        """Take the sums as they were: what was written since is rolled back."""
        self._sums = sums

    def _add(self, sign: int, table: str, *row: object) -> None:
        self._sums[table] = (self._sums.get(table, 0) + sign * _number(row)) % _MODULUS


def saved(conn: sqlite3.Connection) -> dict[str, int]:
    """Sums as they are saved, by table."""
    return {name: int.from_bytes(data, "big") for name, data in conn.execute("SELECT name, sum FROM row_sums")}


def write(conn: sqlite3.Connection) -> None:
    """Save the sums of all tables as they are, in a transaction of the caller: after migrations, which may have changed
    any of them.
    """
    conn.execute("DELETE FROM row_sums")
    rows = [(table, _bytes(_counted(conn, table))) for table in tables(conn)]
    conn.executemany("INSERT INTO row_sums VALUES (?, ?)", rows)


def unlike(conn: sqlite3.Connection) -> Iterator[str]:
    """Where changing tables are not what was written, in words; nothing if they are. All rows are read once."""
    known = saved(conn)
    for table in tables(conn):
        if _counted(conn, table) != known.pop(table, 0):
            yield f"{table}: a row is not what was written"
    yield from (f"row_sums: it has a sum of {name}, which is no table" for name in known)
    for number, words in zip(conn.execute(_PENDING, (NOT_NOW,)).fetchone(), _WORDS, strict=True):
        if number:
            yield f"pending: {number:,} {words}"


_WORDS = (
    "rows are of no open decision",
    "are due at another time than the end of their window",
    "open decisions are missing",
)
_PENDING = """
    WITH settled AS (SELECT decision_seq FROM settlements)
    SELECT (SELECT count(*) FROM pending WHERE decision_seq NOT IN (SELECT seq FROM decisions)
                OR decision_seq IN settled),
           (SELECT count(*) FROM pending p JOIN decisions d ON d.seq = p.decision_seq
                WHERE p.due NOT IN (0, d.expires)),
           (SELECT count(*) FROM decisions WHERE moment <> ? AND user <> x'' AND seq NOT IN settled
                AND seq NOT IN (SELECT decision_seq FROM pending))"""


def _counted(conn: sqlite3.Connection, table: str) -> int:
    rows = conn.execute(f"SELECT {_columns(conn, table)} FROM {table}")  # noqa: S608
    return sum(map(_number, rows)) % _MODULUS


def _columns(conn: sqlite3.Connection, table: str, before: str = "") -> str:
    found = conn.execute("SELECT name FROM pragma_table_info(?) ORDER BY cid", (table,))
    return ", ".join(f'{before}"{name}"' for (name,) in found)


def _number(row: tuple[object, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(_encode(row), digest_size=16).digest(), "big")


def _bytes(number: int) -> bytes:
    return number.to_bytes(16, "big")
