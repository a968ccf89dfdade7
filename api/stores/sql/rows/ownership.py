"""Ownership of a SQL ledger: one row that says who writes, with a number that grows by one with each owner.

A lock on a file beside the ledger keeps a second service out, but anybody can remove that file. So each commit looks at
the number: who finds another than its own has been followed by somebody, and writes no more.
"""

import datetime as dt
import os
import socket

from api.stores.sql.connection import SqlConnection
from bandit.errors import Unavailable

_CLAIM = """INSERT INTO ledger_owner (only, epoch, process, host, since) VALUES (1, 1, ?, ?, ?)
            ON CONFLICT (only) DO UPDATE SET epoch = ledger_owner.epoch + 1,
            process = excluded.process, host = excluded.host,
            since = excluded.since RETURNING epoch"""


def claim(conn: SqlConnection) -> int:
    """Take the ledger over, durably; returns the number (epoch) of this owner. The connection must not be in a
    transaction, and what locks the file is held.
    """
    conn.execute("BEGIN IMMEDIATE")
    try:
        epoch = take(conn)
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")
    return epoch


def take(conn: SqlConnection) -> int:
    """Take the ledger over in a transaction of the caller; returns the number (epoch) of this owner."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    (epoch,) = conn.execute(_CLAIM, (os.getpid(), socket.gethostname(), now)).fetchone()
    return int(epoch)


def check(conn: SqlConnection, epoch: int) -> None:
    """Check within a writing transaction that its ledger is still this owner's. Raises Unavailable, which names the
    other, if it is not: the transaction must be rolled back.
    """
    found = conn.execute("SELECT epoch FROM ledger_owner").fetchone()
    if found is None or found[0] != epoch:
        raise Unavailable(f"{owner(conn) or 'nobody'} owns this ledger now, and this service writes no more: stop it")


def owner(conn: SqlConnection) -> str:
    """Who owns the ledger, or did last, in words; "" if nobody ever has."""
    found = conn.execute("SELECT process, host, since FROM ledger_owner").fetchone()
    return "" if found is None else f"process {found[0]} on {found[1]} (since {found[2]})"
