"""Damage to a ledger's file, as a bad disk does it."""

import sqlite3
from contextlib import closing
from pathlib import Path


def overwrite_page(path: Path, name: str) -> None:
    """Overwrite the first page of this table or index of a ledger, which nobody writes to just now."""
    with closing(sqlite3.connect(path)) as conn:
        (root,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        (size,) = conn.execute("PRAGMA page_size").fetchone()
    with path.open("rb+") as file:
        file.seek((root - 1) * size)
        file.write(b"\x05" + bytes(99))
