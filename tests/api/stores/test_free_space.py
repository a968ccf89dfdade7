"""Free space is overwritten beneath SQLite's feet: it must keep every row, whatever the pages look like."""

import os
import random
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.stores.sqlite import free_space
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


def unclean(path: Path) -> list[int]:
    """Pages with something left in their free space, by a look at every page."""
    file = path.read_bytes()
    (size,) = struct.unpack_from(">H", file, 16)
    found = list[int]()
    for number in range(2, len(file) // size + 1):
        page = file[(number - 1) * size : number * size]
        begin, stop = free_space._gap(page, size)
        if any(page[begin:stop]):
            found.append(number)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_later_passes_look_only_at_pages_that_changed_and_leave_none_out(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite moves its log into the file and begins it anew many times between two passes, as it likes."""
    path, chance, looked = tmp_path / "file.db", random.Random(seed), [0]
    real = free_space._overwritten

    def counted(file: int, first: int, end: int, *sizes: int) -> bool:
        looked[0] += end - first
        return real(file, first, end, *sizes)

    monkeypatch.setattr(free_space, "_overwritten", counted)
    conn, space, changed = changed_at_random(path, seed), FreeSpace(path), 0
    conn.execute("PRAGMA wal_autocheckpoint = 20")
    assert space.overwrite(conn, 1, 10**6) == 0
    whole = looked[0]
    assert whole > 500
    for _ in range(12):
        looked[0] = 0
        for _ in range(chance.randrange(1, 15)):  # mostly a few pages each, so that the log begins anew in between
            space.watch()
            conn.execute("BEGIN")
            low, key = chance.randrange(3000), chance.randbytes(16)
            conn.execute("DELETE FROM rows WHERE id BETWEEN ? AND ?", (low, low + 5))
            for _ in range(chance.choice((1, 1, 12))):
                value = GONE + chance.randbytes(chance.choice((10, 900)))
                conn.execute("INSERT OR REPLACE INTO keyed VALUES (?, ?)", (key[:15] + chance.randbytes(1), value))
                conn.execute("INSERT OR REPLACE INTO rows VALUES (?, ?)", (chance.randrange(3000), value))
            conn.execute("COMMIT")
        first = 1
        while first := space.overwrite(conn, first, chance.choice((3, 10, 10**6))):
            pass
        changed += looked[0]
        assert unclean(path) == []
    assert 0 < changed < 6 * whole  # of twelve passes
    conn.close()
    space.close()


def test_a_log_that_cannot_be_read_makes_the_next_pass_look_at_every_page(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    conn, space = changed_at_random(path, 1), FreeSpace(path)
    assert space.overwrite(conn, 1, 10**6) == 0
    index = space._index
    assert index is not None
    os.ftruncate(empty := os.open(tmp_path / "empty", os.O_RDWR | os.O_CREAT), 0)
    space._index = empty
    space.watch()
    os.close(empty)
    space._index = index
    conn.execute("PRAGMA wal_autocheckpoint = 1")
    conn.execute("DELETE FROM rows WHERE id < 300")  # moved into the file with nobody watching
    conn.execute("DELETE FROM rows WHERE id < 600")
    assert space.overwrite(conn, 1, 10**6) == 0
    assert unclean(path) == []
    conn.close()
    space.close()
