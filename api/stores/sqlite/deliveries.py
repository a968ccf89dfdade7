"""Rows of letters in the SQLite ledger."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from api.stores.protocol import WebhookDelivery

_COLUMNS = "endpoint, event, body, attempts, due, error, dead, at"


def letters(
    rows: Callable[[str, Sequence[Any]], list[Any]], endpoint: str | None, *, dead: bool
) -> list[WebhookDelivery]:
    """Those of an endpoint, or all."""
    query = f"""SELECT {_COLUMNS} FROM letters WHERE dead = ?2 AND (?1 IS NULL OR endpoint = ?1)
                ORDER BY due, endpoint, event"""  # noqa: S608
    return [WebhookDelivery(*row)._replace(dead=bool(row[6])) for row in rows(query, (endpoint, int(dead)))]


def keep_letters(
    conn: sqlite3.Connection, put: Sequence[WebhookDelivery], gone: Sequence[tuple[str, str]], most_dead: int | None
) -> None:
    """Add or replace, forget, and of dead ones keep the newest."""
    conn.executemany(f"INSERT OR REPLACE INTO letters ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", put)  # noqa: S608
    conn.executemany("DELETE FROM letters WHERE endpoint = ? AND event = ?", gone)
    if most_dead is not None:
        query = """DELETE FROM letters WHERE endpoint = ?1 AND event IN (SELECT event FROM letters
                   WHERE endpoint = ?1 AND dead = 1 ORDER BY at DESC, event DESC LIMIT -1 OFFSET ?2)"""
        conn.executemany(query, [(one, most_dead) for one in {letter.endpoint for letter in put}])
