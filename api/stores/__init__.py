"""Ledger stores: `open_store` picks the store of a URL: SQLite, PostgreSQL or memory. All of them pass one contract
suite.
"""

import importlib.metadata
import re
from pathlib import Path

from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.errors import LedgerError
from bandit.policies import registry

__all__ = ["Store", "file_of", "is_database", "open_store", "shown"]

_FILE = "sqlite:///"
_DATABASE = ("postgresql://", "postgres://")


def open_store(url: str, *, read_only: bool = False, shared: bool = False) -> Store:
    """Store that a URL names, opened: `sqlite:///FILE`, `postgresql://…` as libpq reads it, or `memory://`. `read_only`
    opens a ledger that a running service may own; `shared` opens one in PostgreSQL for one of several replicas, and
    says nothing about others. Raises LedgerError for another URL, for what is no ledger, when
    another process owns it, when a policy that it names is not installed, or what PostgreSQL needs is not.
    """
    registry.search(importlib.metadata.entry_points)
    if url == "memory://":
        return MemoryStore()
    if url.startswith(_FILE) and len(url) > len(_FILE):
        return SqliteStore(file_of(url), read_only=read_only)
    if is_database(url):
        return _database(url, read_only=read_only, shared=shared)
    raise LedgerError(f"store {url!r} is not known: use sqlite:///FILE, postgresql://HOST/DATABASE or memory://")


def _database(url: str, *, read_only: bool, shared: bool) -> Store:
    try:
        from api.stores.postgres.store import PostgresStore
    except ModuleNotFoundError as error:
        raise LedgerError(f"{error.name} is not installed: pip install 'journey-bandit[postgres]'") from error
    return PostgresStore(url, read_only=read_only, shared=shared)


def is_database(url: str) -> bool:
    """Whether a URL names a ledger in PostgreSQL."""
    return url.startswith(_DATABASE)


def shown(url: str) -> str:
    """A URL to show, without the password that it may hold."""
    return re.sub(r"((?:^|[?&])password=)[^&]*", r"\1***", re.sub(r"(://[^:/?@]*):[^/?]*@", r"\1:***@", url))


def file_of(url: str) -> Path:
    """Path of a SQLite store's file, for commands that copy or restore it. Raises LedgerError for a store that is not
    in a file.
    """
    if is_database(url):
        raise LedgerError(
            "a ledger in PostgreSQL is copied and restored by pg_dump and pg_restore, not by this command"
        )
    if not url.startswith(_FILE) or len(url) == len(_FILE):
        raise LedgerError(f"store {url!r} is no file: use sqlite:///FILE")
    return Path(url.removeprefix(_FILE))
