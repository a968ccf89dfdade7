"""Backups of a SQLite ledger: made while a service writes, checked, and put back whole.

A backup is one file without a write-ahead log: SQLite copies one state of the ledger, whatever is committed meanwhile.
Copying the file by hand leaves out what only the log holds, and a copy put beside another ledger's log is malformed.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from api.stores.sqlite import SqliteStore
from api.stores.sqlite_file import own
from bandit.errors import LedgerError

_LOGS = ("-wal", "-shm")


class Copied(NamedTuple):
    """What a checked copy holds, and where the ledger that it replaced was put (None: there was none)."""

    app: str
    decisions: int
    outcomes: int
    settlements: int
    replaced: Path | None = None


def back_up(ledger: Path, target: Path, *, force: bool = False) -> Copied:
    """Copy a ledger that may be in use, check the copy, then give it its name.

    LedgerError if there is no such ledger, if `target` exists (unless `force`), or if the copy is not sound. Whatever
    happens, what has the name is whole.
    """
    if target.exists() and not force:
        raise LedgerError(f"{target} exists: give another name, or --force to replace it")
    if target.exists() and target.samefile(ledger):
        raise LedgerError(f"{target} is the ledger itself: give another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _copy(ledger, target) as part:
        found = _checked(part)
        _place(part, target)
    return found


def restore(backup: Path, ledger: Path, stamp: str) -> Copied:
    """Put a backup in the ledger's place, after checking it. What was there is kept beside it under `stamp`.

    LedgerError if a service has the ledger open, or if the backup is not sound; then nothing has changed.
    """
    if ledger.exists() and backup.exists() and backup.samefile(ledger):
        raise LedgerError(f"{backup} is the ledger itself: give a backup")
    with closing(own(ledger)), _copy(backup, ledger) as part:
        found = _checked(part)
        replaced = _set_aside(ledger, stamp)
        _place(part, ledger)
    return found._replace(replaced=replaced)


@contextmanager
def _copy(source: Path, target: Path) -> Iterator[Path]:
    """A copy beside `target` under another name, removed unless it was moved away."""
    if not source.is_file():
        raise LedgerError(f"{source} does not exist: give the file of a service's --store, or a backup of it")
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        try:
            with (
                closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
                closing(sqlite3.connect(part)) as new,
            ):
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE").fetchall()
        except sqlite3.Error as error:
            raise LedgerError(f"{source} cannot be copied: {error}{_advice(source)}") from error
        yield part
    finally:
        for name in (part, *_with_logs(part)):
            name.unlink(missing_ok=True)


def _advice(source: Path) -> str:
    """A log that is not the file's own makes it look malformed."""
    logs = [log.name for log in _with_logs(source) if log.exists()]
    return f"; {' and '.join(logs)} beside it may be of another ledger: move them away and try again" if logs else ""


def _checked(part: Path) -> Copied:
    """What the copy holds. LedgerError if SQLite finds it damaged, or if it is no ledger that this version reads."""
    try:
        with closing(sqlite3.connect(part)) as conn:
            wrong = [row[0] for row in conn.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
            wrong += [f"a row of {row[0]} refers to nothing" for row in conn.execute("PRAGMA foreign_key_check")][:5]
    except sqlite3.Error as error:
        wrong = [str(error)]
    if wrong:
        raise LedgerError(f"the copy is damaged, so it was thrown away: {'; '.join(wrong)}")
    with closing(SqliteStore(part, read_only=True)) as store:
        last = store.last()
        return Copied(store.meta().get("app", ""), last.decision, last.outcome, last.settlement)


def _set_aside(ledger: Path, stamp: str) -> Path | None:
    """Where the ledger that is there was put, with its logs."""
    aside = ledger.with_name(f"{ledger.name}.replaced-{stamp}")
    if ledger.exists():
        try:
            with closing(sqlite3.connect(ledger)) as conn:  # so that the file alone is whole
                conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:  # it is damaged, which is why somebody restores: kept as it is
            pass
        ledger.rename(aside)
    for log in _with_logs(ledger):
        if log.exists():
            log.rename(aside.with_name(aside.name + log.name.removeprefix(ledger.name)))
    return aside if aside.exists() else None


def _place(part: Path, target: Path) -> None:
    """Give the copy its name, on disk before anybody hears of it."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _with_logs(file: Path) -> list[Path]:
    return [file.with_name(file.name + log) for log in _LOGS]
