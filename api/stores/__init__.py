"""Ledger stores: `open_store` picks the store of a URL, SQLite or memory. All of them pass one contract suite."""

import importlib.metadata
from pathlib import Path

from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.errors import LedgerError
from bandit.policies import registry

__all__ = ["Store", "file_of", "open_store"]

_FILE = "sqlite:///"


def open_store(url: str, *, read_only: bool = False) -> Store:
    """Store that a URL names, opened: `sqlite:///FILE` or `memory://`. `read_only` opens a file that a running service
    may own. Raises LedgerError for another URL, for a file that is no ledger, when another process
    owns it, or when a policy that it names is not installed.
    """
    registry.search(importlib.metadata.entry_points)
    if url == "memory://":
        return MemoryStore()
    if url.startswith(_FILE) and len(url) > len(_FILE):
        return SqliteStore(file_of(url), read_only=read_only)
    raise LedgerError(f"store {url!r} is not known: use sqlite:///FILE or memory://")


def file_of(url: str) -> Path:
    """Path of a SQLite store's file, for commands that copy or restore it. Raises LedgerError for a store that is not
    in a file.
    """
    if not url.startswith(_FILE) or len(url) == len(_FILE):
        raise LedgerError(f"store {url!r} is no file: use sqlite:///FILE")
    return Path(url.removeprefix(_FILE))
