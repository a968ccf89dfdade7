"""Copies of a ledger: whole while a service writes, nothing when interrupted, put back beside whatever lies there."""

import datetime as dt
import gzip
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from api.ledger import audit
from api.stores.sql.schema import SCHEMA
from api.stores.sqlite import copies
from api.stores.sqlite.copies import back_up, restore
from api.stores.sqlite.store import SqliteStore
from bandit.errors import LedgerError
from tests.waiting import PATIENCE

Working = Callable[..., AbstractContextManager[Any]]

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
OLD = Path(__file__).parents[2] / "data" / "ledgers" / "1-ledger.db.gz"


@pytest.fixture
def path(working: Working, later: Callable[[float], int], tmp_path: Path) -> Path:
    """A closed ledger with a bit of everything in it, in a folder of its own."""
    path = tmp_path / "live" / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        for n in range(1, 9):
            desk.ask(n, ("signup", "basket")[n % 2], user=f"u{n}")
            desk.report(n)
        later(3600)
        desk.learn()
        desk.ask(9)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "monday.db"


def held(path: Path) -> Any:
    """What a ledger holds, whose every belief follows from its rows."""
    with closing(SqliteStore(path, read_only=True)) as store:
        assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
        return [(found.seq, found.decision.id) for found in store.decisions()], store.counts(), store.meta()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def grown(path: Path) -> None:
    """The ledger's process dies after one more decision, which is in the log beside the file alone."""
    code = (
        "import msgspec, os, sys, uuid; from pathlib import Path; from api.stores.sqlite.store import SqliteStore"
        "; s = SqliteStore(Path(sys.argv[1])); d = next(s.decisions()).decision"
        "; s.record([msgspec.structs.replace(d, id=uuid.UUID(int=99))], [], d.at, s.specs()); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=PATIENCE, check=False, capture_output=True)
    assert done.returncode == -9
    assert path.with_name(path.name + "-wal").stat().st_size


# -- backup ----------------------------------------------------------------------------------------------------


def test_a_copy_made_while_the_service_writes_is_one_state_of_the_ledger(
    path: Path, target: Path, working: Working
) -> None:
    """Every part of the copy is followed by another decision. None of them is in it, and it ends all the same."""
    with closing(SqliteStore(path)) as store, working(store) as desk:
        desk.ask(100)
        numbers = iter(range(200, 10_000))
        before = store.counts()
        copied = back_up(path, target, step=lambda *_: desk.ask(next(numbers)))
        assert store.counts().decisions > before.decisions
    assert copied.counts == before
    assert copied.schema == SCHEMA
    decisions, counts, _ = held(target)
    assert (decisions[-1][1], counts) == (uuid.UUID(int=100), before)
    assert names(target.parent) == {target.name}


def test_a_large_ledger_is_copied_in_parts_that_commits_do_not_start_again(
    path: Path, target: Path, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_PAGES", 1)
    left = list[int]()
    with closing(SqliteStore(path)) as store, working(store) as desk:
        numbers = iter(range(200, 10_000))

        def step(_status: int, remaining: int, _total: int) -> None:
            left.append(remaining)
            desk.ask(next(numbers))

        back_up(path, target, step=step)
    assert len(left) > 10
    assert left == sorted(left, reverse=True), "it never began again"
    assert left[-1] == 0
    held(target)


def test_the_log_of_a_service_that_died_is_part_of_the_copy(path: Path, target: Path) -> None:
    grown(path)
    back_up(path, target)
    assert uuid.UUID(int=99) in [one for _, one in held(target)[0]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_half_way_nothing_is_left(path: Path, target: Path, error: type[BaseException]) -> None:
    def step(*_: int) -> None:
        raise error

    with pytest.raises(error):
        back_up(path, target, step=step)
    assert names(target.parent) == set()


def test_killed_half_way_nothing_is_left_that_looks_like_a_backup(path: Path, target: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from api.stores.sqlite.copies import back_up"
        "; back_up(Path(sys.argv[1]), Path(sys.argv[2]), step=lambda *_: os.kill(os.getpid(), 9))"
    )
    command = [sys.executable, "-c", code, str(path), str(target)]
    assert subprocess.run(command, timeout=PATIENCE, check=False).returncode == -9
    assert all(name.startswith(".") and ".partial" in name for name in names(target.parent))
    back_up(path, target)
    assert held(target) == held(path)


def test_what_is_there_is_not_overwritten_unless_that_is_asked_for(path: Path, target: Path) -> None:
    target.write_text("something else")
    with pytest.raises(LedgerError, match="--force overwrites it"):
        back_up(path, target)
    assert target.read_text() == "something else"
    back_up(path, target, force=True)
    assert held(target) == held(path)


def test_what_comes_to_be_meanwhile_is_not_overwritten_either(path: Path, target: Path) -> None:
    with pytest.raises(LedgerError, match="came to be meanwhile"):
        back_up(path, target, step=lambda *_: target.write_text("something else"))
    assert target.read_text() == "something else"
    assert names(target.parent) == {target.name}


def test_a_stale_log_beside_the_name_of_the_copy_does_not_become_its_own(path: Path, target: Path) -> None:
    log = target.with_name(target.name + "-wal")
    grown(path)
    shutil.copy(path.with_name(path.name + "-wal"), log)
    with pytest.raises(LedgerError, match=r"monday\.db-wal in .*: --force"):
        back_up(path, target)
    back_up(path, target, force=True)
    assert not log.exists()
    assert held(target) == held(path)


def test_the_ledger_itself_and_one_that_a_service_holds_are_never_the_target(
    path: Path, target: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    for same in (path, link):
        with pytest.raises(LedgerError, match="is the ledger itself"):
            back_up(path, same, force=True)
    with closing(SqliteStore(target)), pytest.raises(LedgerError, match="in use by another process"):
        back_up(path, target, force=True)


def test_a_damaged_ledger_makes_no_backup(path: Path, target: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'settlements_stage'").fetchone()
        (size,) = conn.execute("PRAGMA page_size").fetchone()
    with path.open("rb+") as file:  # an index whose entries point to rows that are not there
        file.seek((root - 1) * size + 200)
        file.write(b"\x7f" * (size - 200))
    with pytest.raises(LedgerError, match=r"damaged|malformed"):
        back_up(path, target)
    assert names(target.parent) == set()


@pytest.mark.parametrize("content", [b"", b"not a database" * 100], ids=len)
def test_what_is_no_ledger_makes_no_backup_and_is_none(
    tmp_path: Path, path: Path, target: Path, content: bytes
) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(content)
    with pytest.raises(LedgerError, match=r"could not be copied|cannot be used as a ledger"):
        back_up(other, target)
    before = held(path)
    with pytest.raises(LedgerError, match=r"could not be copied|cannot be used as a ledger"):
        restore(other, path, NOW, force=True)
    with pytest.raises(LedgerError, match="does not exist"):
        back_up(tmp_path / "typo.db", target)
    with pytest.raises(LedgerError, match="does not exist"):
        restore(tmp_path / "typo.db", path, NOW, force=True)
    assert held(path) == before
    assert names(target.parent) == set()


# -- restore ---------------------------------------------------------------------------------------------------


def test_a_copy_by_hand_beside_a_stale_log_is_what_restoring_avoids(path: Path, target: Path) -> None:
    """Copied by hand over the file of a service that died, a backup is mixed with that service's log."""
    back_up(path, target)
    grown(path)
    by_hand = path.with_name("by_hand.db")
    for end in ("-wal", ""):
        shutil.copy(path.with_name(path.name + end), by_hand.with_name(by_hand.name + end))
    shutil.copy(target, by_hand)
    with closing(sqlite3.connect(by_hand)) as conn, pytest.raises((sqlite3.DatabaseError, AssertionError)):
        assert conn.execute("SELECT count(*) FROM decisions").fetchone() == (9,)
    before = held(target)
    restore(target, path, NOW, force=True)
    assert held(path) == before
    assert not path.with_name(path.name + "-wal").exists() or not path.with_name(path.name + "-wal").stat().st_size


def test_what_was_replaced_is_kept_whole_with_its_log(path: Path, target: Path) -> None:
    back_up(path, target)
    grown(path)
    copied = restore(target, path, NOW, force=True)
    assert copied.aside is not None
    assert copied.aside.name == "ledger.db.replaced-20260301T120000Z"
    assert uuid.UUID(int=99) in [one for _, one in held(copied.aside)[0]], "the decision that was in the log alone"
    again = restore(target, path, NOW, force=True)
    assert again.aside is not None
    assert again.aside != copied.aside
    assert held(again.aside) == held(path)


def test_without_force_an_existing_ledger_stays(path: Path, target: Path) -> None:
    back_up(path, target)
    grown(path)
    before = held(path)
    with pytest.raises(LedgerError, match="--force replaces it, and keeps it aside"):
        restore(target, path, NOW)
    assert held(path) == before


def test_a_ledger_that_a_service_holds_is_not_replaced(path: Path, target: Path) -> None:
    back_up(path, target)
    with closing(SqliteStore(path)) as store:
        with pytest.raises(LedgerError, match="in use by another process"):
            restore(target, path, NOW, force=True)
        assert store.counts().decisions == 9


def test_a_lost_ledger_comes_back_and_the_service_goes_on(path: Path, target: Path, working: Working) -> None:
    back_up(path, target)
    before = held(path)
    grown(path)
    path.unlink()  # its log is still there
    copied = restore(target, path, NOW)
    assert held(path) == before
    assert copied.aside is not None
    assert copied.aside.with_name(copied.aside.name + "-wal").stat().st_size, "the log alone is kept too"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        desk.ask(300)
        assert [found.seq for found in store.decisions()] == list(range(1, 11))
    assert held(target) == before, "the backup is left as it is"


def test_a_copy_by_hand_of_a_stopped_ledger_is_read_where_nobody_may_write(
    path: Path, target: Path, tmp_path: Path
) -> None:
    """Its header says that it has a log. SQLite would make one beside it, in a folder that may be read-only."""
    shutil.copy(path, target)
    target.chmod(0o400)
    restore(target, tmp_path / "new.db", NOW)
    assert names(target.parent) == {target.name}, "nothing was made beside it"
    assert held(tmp_path / "new.db") == held(path)
    assert (tmp_path / "new.db").stat().st_mode & 0o200


def test_a_ledger_of_an_earlier_version_is_copied_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.db").write_bytes(gzip.decompress(OLD.read_bytes()))
    copied = back_up(tmp_path / "old.db", tmp_path / "copy.db")
    assert (copied.schema, copied.counts.decisions) == (1, 38)
    assert restore(tmp_path / "copy.db", tmp_path / "new.db", NOW).schema == 1
    with closing(SqliteStore(tmp_path / "new.db")) as store:
        assert store.counts().decisions == 38


def test_a_ledger_of_a_later_version_is_refused(path: Path, target: Path) -> None:
    back_up(path, target)
    with closing(sqlite3.connect(target, isolation_level=None)) as conn:
        conn.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(LedgerError, match="later version"):
        restore(target, path, NOW, force=True)
