"""The filter of known users: nobody the ledger knows is taken for a stranger, and strangers are known as such."""

import secrets
import sqlite3
from pathlib import Path

import pytest

from api.stores.sql.known_users import COLUMNS, KnownUsers
from api.stores.sqlite.store import SqliteStore

COUNT = 5_000  # ten pages, and nothing after them


def ledger(users: dict[str, list[bytes]]) -> sqlite3.Connection:
    """Tables of a ledger, with these users in each column ("decisions.user")."""
    conn = sqlite3.connect(":memory:")
    conn.execute("CREATE TABLE decisions (user BLOB)")
    conn.execute("CREATE TABLE journeys (user BLOB)")
    conn.execute("CREATE TABLE owners (alias BLOB, owner BLOB)")
    for place, ids in users.items():
        table, column = place.split(".")
        conn.executemany(f"INSERT INTO {table} ({column}) VALUES (?)", [(i,) for i in ids])  # noqa: S608
    return conn


def completed(conn: sqlite3.Connection) -> KnownUsers:
    """Filter that has read the whole ledger."""
    known = KnownUsers()
    for _ in range(1_000):
        known.read(conn)
    assert known.complete
    return known


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_whoever_is_in_any_column_is_no_stranger(table: str, column: str) -> None:
    ids = [secrets.token_bytes(16) for _ in range(COUNT)]
    known = completed(ledger({f"{table}.{column}": ids + ids[:10] * 20}))
    assert not any(known.is_stranger(user) for user in ids)


def test_strangers_are_known_as_such() -> None:
    known = completed(ledger({"decisions.user": [secrets.token_bytes(16) for _ in range(COUNT)]}))
    strangers = sum(known.is_stranger(secrets.token_bytes(16)) for _ in range(10_000))
    assert strangers >= 9_990  # a false alarm has a probability of (4 × 5,000 / 2²⁷)⁴ < 1e-15: 10 never happen


def test_nobody_is_a_stranger_before_the_whole_ledger_was_read() -> None:
    known, conn = KnownUsers(), ledger({"owners.owner": [secrets.token_bytes(16) for _ in range(COUNT)]})
    while not known.complete:
        assert not known.is_stranger(secrets.token_bytes(16))
        known.read(conn)
    assert known.is_stranger(secrets.token_bytes(16))


def test_who_was_added_is_no_stranger_and_other_ids_are_never_strangers() -> None:
    known, user = completed(ledger({})), secrets.token_bytes(16)
    assert known.is_stranger(user)
    known.add([user, b"short"])
    assert not known.is_stranger(user)
    assert not known.is_stranger(b"short")
    assert not known.is_stranger(b"another")


def test_only_a_ledger_that_is_written_here_has_a_filter(tmp_path: Path) -> None:
    with_filter = SqliteStore(tmp_path / "a.db")
    assert with_filter._ledger.known is not None
    reader = SqliteStore(tmp_path / "a.db", read_only=True)
    assert reader._ledger.known is None
    reader.close()
    with_filter.close()
