"""Commits of a ledger in one file: what was appended is what was committed, bit by bit."""

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from api.stores.sql.rows import commits
from api.stores.sql.schema import SCHEMA
from api.stores.sqlite.store import SqliteStore
from bandit.errors import LedgerError
from journey_bandit.main import group

Working = Callable[..., AbstractContextManager[Any]]


@pytest.fixture
def path(working: Working, later: Callable[[float], int], tmp_path: Path) -> Path:
    """A closed ledger: 40 decisions, each in a commit, 40 outcomes, 30 settlements, and what was learned."""
    path = tmp_path / "ledger.db"
    with closing(SqliteStore(path)) as store, working(store) as desk:
        for n in range(1, 41):
            desk.ask(n, ("signup", "basket")[n % 2], user=f"u{n}")
            desk.report(n)
            if n == 30:
                later(3600)
                desk.learn()
    return path


def unlike(path: Path, *statements: str) -> list[str]:
    """What is found after these changes, which no service made."""
    with closing(sqlite3.connect(path)) as conn:
        for statement in statements:
            assert conn.execute(statement).rowcount, statement
        conn.commit()
        return list(commits.unlike(conn))


def test_what_was_committed_is_what_is_there_also_after_more(path: Path, working: Working) -> None:
    assert unlike(path) == []
    with closing(SqliteStore(path)) as store, working(store) as desk:
        desk.ask(99)
        assert list(store.damages()) == []
    assert unlike(path) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE decisions SET u = u / 2 WHERE seq = 7", "a row is not what was committed, among decisions 7 to 7"),
        ("UPDATE outcomes SET value = 0 WHERE seq = 5", "a row is not what was committed, among outcomes 5 to 5"),
        ("UPDATE settlements SET reward = reward + 1 WHERE seq = 30", "a row is not what was committed, among settle"),
        ("DELETE FROM decisions WHERE seq = 12", "a row is not what was committed, among decisions 12 to 12"),
        ("DELETE FROM outcomes WHERE seq = 40", "a row is not what was committed, among outcomes 40 to 40"),
        (
            "INSERT INTO outcomes SELECT 41, decision, 'more', kind, value, occurred, received, late, fact, voids, "
            "'', 0 FROM outcomes WHERE seq = 1",
            "outcomes 41 to 41 belong to no commit",
        ),
        ("UPDATE commits SET outcomes = outcomes + 1 WHERE seq = 9", "commit 9: its own row is not what was committed"),
        ("UPDATE commits SET rows = x'00' WHERE seq = 9", "commit 9: its own row is not what was committed"),
        ("DELETE FROM commits WHERE seq = 9", "commit 9 is missing"),
        ("DELETE FROM commits WHERE seq = (SELECT max(seq) FROM commits)", "outcomes 40 to 40 belong to no commit"),
    ],
)
def test_a_change_that_no_service_made_is_found(path: Path, statement: str, said: str) -> None:
    found = unlike(path, statement)
    assert len(found) == 1
    assert said in found[0]


EVENT = "INSERT INTO events VALUES (NULL, ?, x'00', NULL, 1, 1, 'e', '{}', 0, '')"


def take(store: SqliteStore, *ids: str, error: Exception | None = None) -> None:
    with store.atomic(), store.atomic():
        for one in ids:
            store._ledger.writer().execute(EVENT, (one,))
        if error:
            raise error


def test_a_transaction_that_failed_is_in_no_commit(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        with pytest.raises(LedgerError, match="refused a row"):
            take(store, "a", "a")
        with pytest.raises(ZeroDivisionError):
            take(store, "b", error=ZeroDivisionError())
        take(store, "c")
        assert list(store.damages()) == []
    assert unlike(path) == []
    assert "events 1 to 1" in unlike(path, "UPDATE events SET name = 'f'")[0]


def test_a_form_knows_the_columns_that_the_tables_have(tmp_path: Path) -> None:
    """A migration that adds a column to an append-only table adds an entry to FORMS."""
    path = tmp_path / "new.db"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as conn:
        here = {table: len(conn.execute(f"PRAGMA table_info({table})").fetchall()) for table in commits.TABLES}
    assert here == dict(commits.columns_in(SCHEMA))


def test_the_chain_depends_on_every_part() -> None:
    links = {
        commits.chained(*parts)
        for parts in (
            (b"", 15, (1, 0, 0, 0, 0), b"a"),
            (b"b", 15, (1, 0, 0, 0, 0), b"a"),
            (b"", 16, (1, 0, 0, 0, 0), b"a"),
            (b"", 15, (1, 0, 0, 0, 1), b"a"),
            (b"", 15, (1, 0, 0, 0, 0), b"c"),
        )
    }
    assert len(links) == 5


def test_verifying_says_what_is_damaged_and_fails(path: Path) -> None:
    verify = ["rebuild", "--verify", "--store", f"sqlite:///{path}"]
    good = CliRunner().invoke(group, verify)
    assert good.exit_code == 0, good.output
    assert "DAMAGED" not in good.output
    unlike(path, "UPDATE decisions SET x = zeroblob(length(x)) WHERE seq = 35")
    wrong = CliRunner().invoke(group, verify)
    assert wrong.exit_code == 1
    assert "DAMAGED: commit" in wrong.output
    assert "decisions 35 to 35" in wrong.output


def test_an_index_that_disagrees_with_its_table_is_found(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        (root,) = conn.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decisions_user'").fetchone()
        (size,) = conn.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    with closing(SqliteStore(path, read_only=True)) as store:
        user = store.decisions_by_id([uuid.UUID(int=1)]).popitem()[1].decision.user
    page = data[(root - 1) * size : root * size]
    at = (root - 1) * size + page.index(user)
    data[at] ^= 1
    path.write_bytes(data)
    with closing(SqliteStore(path, read_only=True)) as store:
        found = list(store.damages())
    assert any("decisions_user" in one for one in found), found
