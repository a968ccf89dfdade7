"""Where the ledger lives. `open_store` picks the store for a URL; all of them pass one contract suite."""

from pathlib import Path

from api.stores.memory import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite import SqliteStore
from bandit.errors import LedgerError

__all__ = ["Store", "open_store"]


def open_store(url: str, *, read_only: bool = False) -> Store:
    """`sqlite:///FILE` or `memory://`. LedgerError for anything else, or when another process owns the file."""
    if url == "memory://":
        return MemoryStore()
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteStore(Path(url.removeprefix("sqlite:///")), read_only=read_only)
    raise LedgerError(f"store {url!r} is not known: use sqlite:///FILE or memory://")
