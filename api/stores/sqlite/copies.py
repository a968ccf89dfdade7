"""Backups of a SQLite ledger: made while a service writes, checked, and put back.

A copy is made under another name in the same folder, checked, synced, and renamed: what has its final name is whole. It
is one file in SQLite's rollback mode, so nothing beside it belongs to it. A write-ahead log that lies beside the file
that is replaced is of another file: SQLite would mix both ("database disk image is malformed"), so it is moved away.
"""

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import sqlite_utils

from api.stores.decision_log import RowCounts
from api.stores.sql.schema import SCHEMA
from api.stores.sqlite.file import known, own, read_transaction, schema_of
from api.stores.sqlite.store import SqliteStore
from bandit.errors import LedgerError

_PAGES = 2048  # of 4 KB, copied between two looks at signals
_TABLES = RowCounts._fields
_BESIDE = ("-wal", "-shm", "-journal")

Step = Callable[[int, int, int], object]
"""Called after each part of a copy, with SQLite's status, the pages left and all pages."""


class LedgerCopy(NamedTuple):
    """Contents of a copy, for the operator to compare: rows by table, the number of its tables' form, and when its last
    decision was made (µs since 1970; 0: none). `aside`: where the ledger that it replaced is now.
    """

    counts: RowCounts
    schema: int
    last: int
    aside: Path | None = None


def back_up(source: Path, target: Path, *, force: bool = False, step: Step | None = None) -> LedgerCopy:
    """Copy a ledger to `target` while its service runs: the state between two of its commits, checked and on disk. For
    `journey-bandit backup`; `step` is called as the copy goes on.

    Raises LedgerError if there is no ledger, something is at `target` (unless `force`, and nobody uses it), or the copy
    does not pass its checks; then `target` is as it was.
    """
    if not source.exists():
        raise LedgerError(f"{source} does not exist: give the file of a service's --store")
    if target.exists() and target.samefile(source):
        raise LedgerError(f"{target} is the ledger itself: give the copy another name")
    with _unused(target, force=force), _partial(target) as partial:
        copied = _copy(source, partial, step)
        if force:
            _remove_beside(target)
            partial.replace(target)
        else:
            _put(partial, target)
        _sync(target.parent)
    return copied


def restore(backup: Path, target: Path, now: dt.datetime, *, force: bool = False) -> LedgerCopy:
    """Put a copy in place of a ledger, whose service is stopped. With `force` an existing one is kept aside, with its
    write-ahead log, under a name with `now` in UTC, to the second.

    Raises LedgerError if a service holds the ledger, it exists and `force` is not given, or the backup is not whole.
    """
    if not backup.exists():
        raise LedgerError(f"{backup} does not exist: give a file that `journey-bandit backup` made")
    target = target.resolve()
    if target.exists() and target.samefile(backup):
        raise LedgerError(f"{backup} is the ledger itself: there is nothing to restore")
    with closing(own(target)):
        if target.exists() and not force:
            raise LedgerError(f"{target} exists: --force replaces it, and keeps it aside under a dated name")
        with _partial(target) as partial:
            copied = _copy(backup, partial, None, still=not backup.with_name(backup.name + "-wal").exists())
            _like(partial, target)
            aside = _set_aside(target, now)
            _remove_beside(target)
            partial.replace(target)
            _sync(target.parent)
    return copied._replace(aside=aside)


@contextlib.contextmanager
def to_look_at(path: Path) -> Iterator[SqliteStore]:
    """Context with a ledger open for reading, as this version reads it; its service may be running. A ledger that an
    earlier version wrote is brought up to date in a temporary copy, and left as it is. Raises LedgerError.
    """
    with contextlib.ExitStack() as opened:
        if path.exists() and _form(path) < SCHEMA:
            folder = opened.enter_context(tempfile.TemporaryDirectory())
            back_up(path, copy := Path(folder) / "ledger.db")
            opened.enter_context(closing(SqliteStore(copy)))
            path = copy
        yield opened.enter_context(closing(SqliteStore(path, read_only=True)))


def _form(path: Path) -> int:
    """The number of the form that a file's tables have."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as conn:
            return schema_of(sqlite_utils.Database(conn))
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be used as a ledger: {error}") from error


def _checked(conn: sqlite3.Connection, path: Path) -> LedgerCopy:
    held = _held(conn, path)
    wrong = [row[0] for row in conn.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
    wrong += [f"a row of {row[0]} refers to one of {row[2]} that is missing" for row in _dangling(conn)]
    if wrong:
        raise LedgerError(f"{path} is damaged: {'; '.join(wrong)}")
    return held


def _dangling(conn: sqlite3.Connection) -> list[tuple[str, int, str, int]]:
    return conn.execute("PRAGMA foreign_key_check").fetchmany(5)


def _held(conn: sqlite3.Connection, path: Path) -> LedgerCopy:
    database = sqlite_utils.Database(conn)
    if not {*_TABLES, "meta"} <= set(database.table_names()):
        raise LedgerError(f"{path} cannot be used as a ledger: it has none of its tables")
    known(database)
    rows = (conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in _TABLES)  # noqa: S608
    last = conn.execute("SELECT coalesce(max(at), 0) FROM decisions").fetchone()[0]
    return LedgerCopy(RowCounts(*rows), schema_of(database), last)


def _copy(source: Path, partial: Path, step: Step | None, *, still: bool = False) -> LedgerCopy:
    """One state of `source` in `partial`, checked and on disk. The transaction keeps what is committed meanwhile out of
    it: otherwise SQLite would begin again with each commit, and never end. `still`: nobody writes to `source`, and it
    has no log, so that its folder may be read-only.
    """
    uri = f"{source.resolve().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as reading,
            closing(sqlite3.connect(partial, isolation_level=None)) as writing,
        ):
            with read_transaction(reading):
                before = _held(reading, source)
                reading.backup(writing, pages=_PAGES, progress=step or (lambda *_: None))
            writing.execute("PRAGMA journal_mode = DELETE").fetchall()
            copied = _checked(writing, partial)
    except sqlite3.Error as error:
        raise LedgerError(f"{source} could not be copied: {error}") from error
    if copied != before:
        raise LedgerError(f"the copy holds {copied.counts}, {source} holds {before.counts}: nothing was written")
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    return copied


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A file beside `target` that nobody takes for it, and that is gone afterwards if it was not renamed."""
    if not target.parent.is_dir():
        raise LedgerError(f"{target.parent} is no folder: make it first, or name another file")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
    finally:
        for gone in (partial, *_beside(partial)):
            gone.unlink(missing_ok=True)


@contextlib.contextmanager
def _unused(target: Path, *, force: bool) -> Iterator[None]:
    """Nothing is at `target`, or, with `force`, nothing that a service has open."""
    there = [path.name for path in (target, *_beside(target)) if path.exists()]
    if there and not force:
        raise LedgerError(f"{', '.join(there)} in {target.parent}: --force overwrites it, or give another name")
    if not target.with_name(target.name + ".lock").exists():
        yield
        return
    with closing(own(target)):
        yield


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in _BESIDE]


def _remove_beside(path: Path) -> None:
    for stale in _beside(path):
        stale.unlink(missing_ok=True)


def _put(partial: Path, target: Path) -> None:
    """Rename without overwriting what came there meanwhile. LedgerError if something did."""
    try:
        target.hardlink_to(partial)
    except FileExistsError:
        raise LedgerError(f"{target} came to be meanwhile: --force overwrites it, or give another name") from None
    except OSError:  # a file system without hard links
        partial.replace(target)


def _set_aside(target: Path, now: dt.datetime) -> Path | None:
    """Keep what is at `target`, byte by byte, under a dated name: the file and the log that lies beside it."""
    log = target.with_name(target.name + "-wal")
    there = [path for path in (target, log) if path.exists() and path.stat().st_size]
    if not there:
        return None
    stem = f"{target.name}.replaced-{now.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}"
    aside, n = target.with_name(stem), 1
    while aside.exists() or aside.with_name(f"{aside.name}-wal").exists():
        n += 1
        aside = target.with_name(f"{stem}-{n}")
    for path in there:
        _link(path, aside if path == target else aside.with_name(f"{aside.name}-wal"))
    _sync(target.parent)
    return aside


def _link(path: Path, other: Path) -> None:
    """Another name for a file, or a copy where the file system has no hard links."""
    try:
        other.hardlink_to(path)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(path, other)


def _like(partial: Path, target: Path) -> None:
    """Give the file the mode and owner of the one that it replaces. A new one is its user's alone."""
    if target.exists():
        was = target.stat()
        partial.chmod(was.st_mode & 0o777)
        with contextlib.suppress(PermissionError):
            os.chown(partial, was.st_uid, was.st_gid)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
