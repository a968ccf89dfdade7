"""Free space is overwritten beneath SQLite's feet: it must keep every row, whatever the pages look like."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.stores.sqlite.free_space import FreeSpace

GONE = b"GONE-GONE-GONE-GONE"
TABLES = ("rows", "keyed")


def changed_at_random(path: Path, seed: int, *pragmas: str) -> sqlite3.Connection:
    """A file whose pages were split, emptied, joined and filled again, some with values of many pages."""
    chance = random.Random(seed)
    conn = sqlite3.connect(path, isolation_level=None)
    for pragma in (*pragmas, "journal_mode = WAL", "secure_delete = ON"):
        conn.execute(f"PRAGMA {pragma}").fetchall()
    conn.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, value BLOB)")
    conn.execute("CREATE TABLE keyed (id BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
    conn.execute("CREATE INDEX rows_value ON rows (value)")
    for _ in range(40):
        conn.execute("BEGIN")
        for _ in range(50):
            size = chance.choice((10, 10, 100, 900, 5000, 20_000))
            key, value = chance.randbytes(16), GONE + chance.randbytes(size)
            conn.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (chance.randrange(3000), value))
            conn.execute("INSERT OR REPLACE INTO keyed VALUES (?, ?)", (key, value))
        low = chance.randrange(3000)
        conn.execute("DELETE FROM rows WHERE id BETWEEN ? AND ?", (low, low + 400))
        conn.execute("DELETE FROM keyed WHERE id > ?", (chance.randbytes(1) + bytes(15),))
        conn.execute("COMMIT")
    return conn


def contents(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return {name: conn.execute(f"SELECT * FROM {name} ORDER BY id").fetchall() for name in TABLES}  # noqa: S608


def overwrite(path: Path, conn: sqlite3.Connection, most: int) -> None:
    space, page = FreeSpace(path), 1
    while page:
        page = space.overwrite(conn, page, most)
    conn.execute("INSERT INTO rows VALUES (-1, x'00')")  # the same connection goes on
    conn.execute("DELETE FROM rows WHERE id = -1")
    conn.close()
    space.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", [1024, 4096, 65_536])
def test_every_row_is_kept(seed: int, size: int, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    conn = changed_at_random(path, seed, f"page_size = {size}")
    before = contents(path)
    overwrite(path, conn, (1, 7, 10_000)[seed % 3])
    assert contents(path) == before
    assert any(before.values())


def test_what_was_deleted_is_gone(tmp_path: Path) -> None:
    left = []
    for name in ("as it was", "overwritten"):
        path = tmp_path / f"{name}.db"
        conn = changed_at_random(path, 5)
        conn.execute("DELETE FROM rows")
        conn.execute("DELETE FROM keyed WHERE length(value) < 4000")
        kept = conn.execute("SELECT count(*) FROM keyed").fetchone()[0]
        if name == "overwritten":
            overwrite(path, conn, 100)
        else:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            conn.close()
        left.append(path.read_bytes().count(GONE) - kept)
    assert left[0] > 0
    assert left[1] == 0


def test_a_file_whose_pages_move_is_left_as_it_is(tmp_path: Path) -> None:
    """Its pages of pointers begin with numbers that could be taken for the kind of a tree."""
    path = tmp_path / "some.db"
    conn = changed_at_random(path, 1, "auto_vacuum = FULL")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before, space = path.read_bytes(), FreeSpace(path)
    assert space.overwrite(conn, 1, 10_000) == 0
    assert path.read_bytes() == before
    conn.close()
    space.close()
