"""The SQLite ledger as a file: it outlives the process, has one owner, and says when it cannot be written."""

import datetime as dt
import os
import sqlite3
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from api.stores import open_store
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.memory.store import MemoryStore
from api.stores.sqlite.copies import back_up, restore
from api.stores.sqlite.store import SqliteStore
from bandit.belief import empty
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError, Unavailable
from bandit.records import Decision, Outcome
from tests.waiting import PATIENCE

Working = Callable[..., AbstractContextManager[Any]]
Decide = Callable[..., Decision]

START = 1_760_000_000_000_000
SIGNUP = StatisticsKey("signup", 1)


def everything(store: SqliteStore) -> Any:
    found = [(f.seq, repr(f.decision), f.outcomes, f.settlement) for f in store.decisions()]
    learned = store.statistics(SIGNUP, ("none", "tip"), 9)
    belief, version = learned.epochs[0], (learned.version, learned.drift_state, learned.delays, store.declarations())
    settled = [(s, x.tobytes()) for s, x, _ in store.settled("signup")]
    return store.meta(), dict(store.specs()), found, belief.digest(), version, settled, store.counts()


@pytest.fixture
def path(working: Working, later: Callable[[float], int], tmp_path: Path) -> Path:
    """A closed ledger with a bit of everything in it."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        for n in range(1, 9):
            desk.ask(n, ("signup", "basket")[n % 2], user=f"u{n}")
            desk.report(n)
        desk.report(2, "retraction", None, "part 👀")
        later(3600)
        desk.learn()
        desk.ask(9)
        desk.report(9, "activation")
    return path


def test_a_reopened_file_holds_everything(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        before = everything(store)
    with closing(SqliteStore(path)) as store:
        assert everything(store) == before
        assert store.counts()._asdict() == {"decisions": 9, "outcomes": 10, "settlements": 8, "pending": 1}
    with closing(SqliteStore(path, read_only=True)) as store:
        assert everything(store) == before


def test_numbers_go_on_where_they_ended(path: Path, working: Working, later: Callable[[float], int]) -> None:
    with closing(SqliteStore(path)) as store, working(store) as desk:
        desk.ask(10)
        later(3600)
        assert desk.learn()["signup"][0] == 10
        assert [f.seq for f in store.decisions()] == list(range(1, 11))


def test_a_read_only_ledger_cannot_be_written(path: Path, catalogue: Catalogue, decide: Decide) -> None:
    with closing(SqliteStore(path, read_only=True)) as store:
        before = everything(store)
        outcome = Outcome(
            decision=uuid.UUID(int=9), id="r", kind="reward", value=1.0, occurred=START, received=START + 10**10
        )
        writes: list[Callable[[], object]] = [
            lambda: store.record([decide(77)], [], START, store.specs()),
            lambda: store.record([], [outcome], START, store.specs()),
            lambda: store.settle([]),
            lambda: store.replace_statistics(StatisticsUpdate(SIGNUP, ("none",), {0: empty(1, 9)})),
            lambda: store.declare({}, {}, None, None),
            lambda: store.set_meta({"app": "bank"}),
            lambda: store.register(catalogue.stages),
            lambda: store.matured(START, 1, ["signup"]),
        ]
        for write in writes:
            with pytest.raises(LedgerError, match="read-only"):
                write()
        assert everything(store) == before


def test_readers_see_what_the_owner_committed_while_it_runs(path: Path, working: Working) -> None:
    with (
        closing(SqliteStore(path)) as owner,
        closing(SqliteStore(path, read_only=True)) as reader,
        working(owner) as desk,
    ):
        desk.ask(50)
        assert uuid.UUID(int=50) in reader.decisions_by_id([uuid.UUID(int=50)])


def test_a_second_owner_is_refused_until_the_first_is_done(path: Path) -> None:
    first = SqliteStore(path)
    with pytest.raises(LedgerError, match=rf"in use by another process, process {os.getpid()} on .* \(since 20"):
        SqliteStore(path)
    first.close()
    SqliteStore(path).close()


def test_who_is_followed_by_another_owner_commits_nothing_and_says_who_it_is(
    path: Path, decide: Decide, catalogue: Catalogue
) -> None:
    """Somebody has removed the lock file, and started a second service."""
    with closing(SqliteStore(path)) as first:
        first.record([decide(50)], [], START, first.specs())
        path.with_name(f"{path.name}.lock").unlink()
        with closing(SqliteStore(path)) as second:
            with pytest.raises(Unavailable, match=rf"process {os.getpid()} on .* owns this ledger now.*: stop it"):
                first.record([decide(51)], [], START, first.specs())
            second.record([decide(52)], [], START, second.specs())
            with pytest.raises(Unavailable, match="writes no more"), first.atomic():
                first.set_meta({"a": "b"})
            found = second.decisions_by_id([uuid.UUID(int=n) for n in (50, 51, 52)])
            assert sorted(one.int for one in found) == [50, 52]
            assert "a" not in second.meta()
            assert list(second.damages()) == []
    with closing(SqliteStore(path)) as third:
        third.record([decide(51)], [], START, third.specs())


def test_files_of_a_ledger_are_their_users_alone(tmp_path: Path, decide: Decide, catalogue: Catalogue) -> None:
    with closing(SqliteStore(tmp_path / "new.db")) as store:
        store.register(catalogue.stages)
        store.record([decide(1)], [], START, store.specs())
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm", "new.db.lock"), 0o600)
    back_up(tmp_path / "new.db", tmp_path / "copy.db")
    restore(tmp_path / "copy.db", tmp_path / "again.db", dt.datetime.now(dt.UTC))
    for name in ("copy.db", "again.db"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_lock_that_leads_to_another_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept", encoding="ascii")
    (tmp_path / "new.db.lock").symlink_to(other)
    with pytest.raises(LedgerError, match=r"cannot be locked: .*remove what is there"):
        SqliteStore(tmp_path / "new.db")
    assert other.read_text(encoding="ascii") == "kept"


OPEN = (
    "import sys; from pathlib import Path; from api.stores.sqlite.store import SqliteStore; "
    "SqliteStore(Path(sys.argv[1]))"
)


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(path)]
    with closing(SqliteStore(path)):
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert second.returncode == 1
    assert "LedgerError" in second.stderr
    assert "in use by another process" in second.stderr
    dies_without_closing = [sys.executable, "-c", OPEN + "; import os; os._exit(9)", str(path)]
    assert subprocess.run(dies_without_closing, capture_output=True, timeout=PATIENCE, check=False).returncode == 9
    SqliteStore(path).close()


def test_a_reader_of_a_missing_file_is_told_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="does not exist"):
        SqliteStore(tmp_path / "typo.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000], ids=len)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, content: bytes, read_only: bool) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    for _ in range(2):  # the second time too: the first left no lock behind
        with pytest.raises(LedgerError, match="cannot be used as a ledger"):
            SqliteStore(file, read_only=read_only)
    assert file.read_bytes() == content


def test_a_database_of_something_else_is_no_ledger_to_read(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    with pytest.raises(LedgerError, match="cannot be used as a ledger"):
        SqliteStore(tmp_path / "other.db", read_only=True)


@pytest.mark.parametrize("name", ["a b.db", "100%25.db", "what?.db", "c#.db", "ünïcode 👀.db", "a&mode=memory.db"])
def test_the_file_is_the_one_that_was_named(tmp_path: Path, decide: Decide, catalogue: Catalogue, name: str) -> None:
    for _ in range(2):
        with closing(SqliteStore(tmp_path / name)) as store:
            store.register(catalogue.stages)
            store.record([decide(1)], [], START, store.specs())
            assert store.counts().decisions == 1
    assert {f.name for f in tmp_path.iterdir()} == {name, f"{name}.lock"}


def test_a_locked_file_is_unavailable_and_works_again_afterwards(
    tmp_path: Path, decide: Decide, catalogue: Catalogue
) -> None:
    with closing(SqliteStore(tmp_path / "ledger.db", busy_seconds=0.05)) as store:
        store.register(catalogue.stages)
        with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable, match="could not be written: database is locked"):
                store.record([decide(1)], [], START, store.specs())
            assert store.decisions_by_id([uuid.UUID(int=1)]) == {}  # reading goes on
        kept, _ = store.record([decide(1)], [], START, store.specs())
        assert [k.duplicate for k in kept] == [False]


def test_what_is_acknowledged_survives_a_kill(path: Path) -> None:
    """The process dies at once after `record` returned: nothing is flushed, closed or checkpointed."""
    dies = OPEN.replace("SqliteStore(Path", "s = SqliteStore(Path") + (
        "; import msgspec, os, uuid"
        "; d = next(s.decisions()).decision"
        "; s.record([msgspec.structs.replace(d, id=uuid.UUID(int=99))], [], d.at, s.specs())"
        "; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", dies, str(path)], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == -9
    with closing(SqliteStore(path)) as store:
        assert uuid.UUID(int=99) in store.decisions_by_id([uuid.UUID(int=99)])


def test_every_transaction_is_synced_to_disk_and_health_says_so(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        facts = store.describe()
    assert (facts["synchronous"], facts["sqlite_version"]) == ("FULL", sqlite3.sqlite_version)
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_store_is_opened_by_its_url(tmp_path: Path) -> None:
    assert isinstance(open_store("memory://"), MemoryStore)
    with closing(open_store(f"sqlite:///{tmp_path}/deep/er/ledger.db")):
        assert (tmp_path / "deep" / "er" / "ledger.db").exists()
    for url in ("", "sqlite://", "sqlite:///", "mysql://host/db", "ledger.db", "memory", "SQLITE:///x"):
        with pytest.raises(LedgerError, match="sqlite:///FILE, postgresql://HOST/DATABASE or memory://"):
            open_store(url)


def test_a_symbolic_link_is_the_same_file(tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "ledger.db")
    owner = open_store(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(LedgerError, match="in use by another process"):
        open_store(f"sqlite:///{link}")
    owner.close()
    open_store(f"sqlite:///{link}").close()
