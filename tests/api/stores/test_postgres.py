"""PostgreSQL: what its store does beside the contract of all stores. The server is a real one."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.ledger import audit, statistics_store
from api.stores import open_store, shown
from api.stores.postgres.statements import TableForm, translated
from api.stores.postgres.store import PostgresStore
from api.stores.protocol import Store
from api.stores.sql.rows import commits
from api.stores.sql.schema import SCHEMA, table_names
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerError, Unavailable
from tests import postgres
from tests.postgres import PostgresServer

Later = Callable[[float], int]
Working = Callable[..., AbstractContextManager[Any]]

FORMS = {"owners": TableForm(("alias", "owner"), ("alias",)), "versions": TableForm(("stage", "version"), ("stage",))}


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql://jb:s3cret@db/shop", "postgresql://jb:***@db/shop"),
        ("postgresql://jb:s3c:r@et@db:5432/shop?sslmode=require", "postgresql://jb:***@db:5432/shop?sslmode=require"),
        ("postgresql:///shop?user=jb&password=s3cret&host=/run", "postgresql:///shop?user=jb&password=***&host=/run"),
        ("postgresql://jb@db/shop", "postgresql://jb@db/shop"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_a_password_is_not_shown(url: str, instead: str) -> None:
    assert shown(url) == instead


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.schema() as address:
        yield address


def visits(desk: Any, later: Later) -> None:
    """Decisions of forty people: some answered, some silent and settled, some open."""
    for n in range(1, 41):
        desk.ask(n, user=f"user {n % 13}", stage="signup")
        if n % 3 == 0:
            desk.report(n)
        later(600)
    later(3 * 3600)
    desk.learn()
    for n in range(41, 50):
        desk.ask(n, user=f"user {n % 13}")


def sums(store: Store) -> dict[str, Any]:
    """What was learned, as values that are equal only bit for bit."""
    found = statistics_store.load(store, audit.stages(store))
    return {name: ([e.digest() for e in one.epochs], one.delays.tobytes(), one.nudges) for name, one in found.items()}


def proved(store: Store, salt: bytes) -> None:
    """Beliefs and receipts follow from the rows, and the rows are those that were committed."""
    assert [one.stage for one in audit.rebuild(store, audit.stages(store)) if not one.equal] == []
    assert [one.seq for one in store.decisions() if audit.differences(store, one, salt)] == []
    assert list(store.damages()) == []


def rows(store: Any) -> dict[str, list[bytes]]:
    """All rows of a ledger, but who owns it and sums of one engine."""
    with store._ledger.beside() as conn:
        return {
            table: sorted(commits.encode(row) for row in conn.execute(f"SELECT * FROM {table}"))  # noqa: S608
            for table in table_names()
            if table not in ("ledger_owner", "row_sums")
        }


@pytest.mark.parametrize(
    ("statement", "instead"),
    [
        ("SELECT user FROM d WHERE d.user = ?", 'SELECT "user" FROM d WHERE d."user" = %s'),
        ("SELECT x'', x'0aff'", r"SELECT '\x'::bytea, '\x0aff'::bytea"),
        ("SELECT * FROM users", "SELECT * FROM users"),
        ("SELECT 7 % 3, '%'", "SELECT 7 %% 3, '%%'"),
        ("WHERE ? IS NULL OR stage = ?", "WHERE CAST(%s AS TEXT) IS NULL OR stage = %s"),
        ("WHERE d = ?2 OR ?1 IS NULL OR e = ?1", "WHERE d = %(v2)s OR CAST(%(v1)s AS TEXT) IS NULL OR e = %(v1)s"),
        ("FROM pending p CROSS JOIN decisions d ON d.seq = 1", "FROM pending p JOIN decisions d ON d.seq = 1"),
        (
            "FROM asked a CROSS JOIN decisions d ON d.seq IN (SELECT seq FROM decisions WHERE seq < a.n LIMIT ?) ORDER",
            "FROM asked a CROSS JOIN LATERAL (SELECT seq FROM decisions WHERE seq < a.n LIMIT %s) AS newest "
            "JOIN decisions d ON d.seq = newest.seq ORDER",
        ),
        ("INSERT OR IGNORE INTO owners VALUES (?, ?)", "INSERT INTO owners VALUES (%s, %s) ON CONFLICT DO NOTHING"),
        (
            "INSERT OR REPLACE INTO owners VALUES (?, ?)",
            "INSERT INTO owners VALUES (%s, %s) ON CONFLICT (alias) DO UPDATE SET owner = excluded.owner",
        ),
        (
            "INSERT OR REPLACE INTO versions (stage, version) VALUES (?, ?)",
            "INSERT INTO versions (stage, version) VALUES (%s, %s) "
            "ON CONFLICT (stage) DO UPDATE SET version = excluded.version",
        ),
        (
            "CREATE TABLE t (seq INTEGER PRIMARY KEY, x BLOB, u REAL) STRICT",
            "CREATE TABLE t (seq BIGINT PRIMARY KEY DEFAULT next_number('t', 'seq'), x BYTEA, u DOUBLE PRECISION)",
        ),
        (
            "CREATE TABLE t (a TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
            'CREATE TABLE t (a TEXT COLLATE "C" PRIMARY KEY)',
        ),
    ],
)  # fmt: skip
def test_a_statement_is_put_into_the_words_of_postgresql(statement: str, instead: str) -> None:
    assert translated(statement, FORMS) == instead


def test_a_ledger_is_copied_there_and_back_with_every_bit(
    url: str, tmp_path: Path, working: Working, later: Later, catalogue: Catalogue
) -> None:
    with closing(SqliteStore(tmp_path / "first.db")) as first:
        with working(first, catalogue) as desk:
            visits(desk, later)
            salt, learned = desk.salt, desk.learn()
        with closing(PostgresStore(url)) as second, closing(SqliteStore(tmp_path / "third.db")) as third:
            assert second.copy_from(first)["decisions"] == 49
            third.copy_from(second)
            assert rows(first) == rows(second) == rows(third)
            assert sums(first) == sums(second) == sums(third)
            for one in (second, third):
                proved(one, salt)
            with working(second, catalogue) as desk:  # it goes on where it was
                assert desk.learn() == learned
                visits_again = desk.ask(50, user="user 1")
            assert not visits_again.duplicate


def test_only_an_empty_ledger_is_copied_into(url: str, tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "first.db")) as first, closing(PostgresStore(url)) as second:
        second.set_meta({"app": "other"})
        with pytest.raises(LedgerError, match="the target is not empty"):
            second.copy_from(first)


def test_a_copy_that_is_not_what_was_read_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteStore(tmp_path / "first.db")) as first, closing(PostgresStore(url)) as second:
        first.set_meta({"app": "travel"})
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("""CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS
                            $$ BEGIN NEW.value := 'another'; RETURN NEW; END $$""")
            conn.execute("CREATE TRIGGER other BEFORE INSERT ON meta FOR EACH ROW EXECUTE FUNCTION other()")
        with pytest.raises(LedgerError, match="the copy is not what was read: meta"):
            second.copy_from(first)


def test_one_process_owns_a_ledger_and_others_read_it(url: str) -> None:
    with closing(PostgresStore(url)) as owner:
        owner.set_meta({"app": "travel"})
        with pytest.raises(LedgerError, match=r"in use by another process, process \d+ on .*: one service owns it"):
            PostgresStore(url)
        with closing(open_store(url, read_only=True)) as reader:
            assert reader.meta() == {"app": "travel"}
            with pytest.raises(LedgerError, match="opened read-only"):
                reader.set_meta({"app": "other"})
    PostgresStore(url).close()


def test_an_owner_that_lost_the_ledger_writes_no_more(url: str) -> None:
    with closing(PostgresStore(url)) as first:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                         "AND application_name = 'journey-bandit'")  # fmt: skip
        with closing(PostgresStore(url)) as second:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    first.set_meta({"app": "mine"})
            with pytest.raises(Unavailable, match="owns this ledger now: stop this service"):
                first.set_meta({"app": "mine"})
            second.set_meta({"app": "theirs"})
            assert second.meta() == {"app": "theirs"}


def test_a_server_that_stops_at_once_loses_nothing_acknowledged(
    working: Working, later: Later, catalogue: Catalogue
) -> None:
    """The store opens its connections again by itself."""
    with (
        postgres.server(durable=True) as server,
        server.schema() as url,
        closing(PostgresStore(url)) as store,
        working(store, catalogue) as desk,
    ):
        visits(desk, later)
        told = desk.learn()
        server.stop("immediate")
        with pytest.raises(Unavailable):
            desk.ask(60)
        server.start()
        while "write" in desk.worker.failing:
            desk.run(asyncio.sleep(0.01))
        assert not desk.ask(61).duplicate
        assert desk.learn() == told
        salt = desk.salt
        assert {one.decision.id.int for one in store.decisions()} >= {*range(1, 50), 61}
        proved(store, salt)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("postgresql://postgres@/postgres?host=/nowhere", "the database cannot be used: .*No such file or directory"),
        ("postgresql://nobody@/postgres?host={}", 'the database cannot be used: .*role "nobody" does not exist'),
        ("postgresql://postgres@/none?host={}", 'the database cannot be used: .*database "none" does not exist'),
        ("postgresql://postgres@/postgres?nonsense=1", "the database cannot be used: .*nonsense"),
        ("{url}&options=-csearch_path%3Dnone", "the database has no schema none, which the address names"),
        ("postgresql://reader@/postgres?host={}", "the user may not create schema journey_bandit in this database"),
        ("postgresql://postgres@/latin?host={}", "the database keeps text as LATIN1"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_with_the_fix(
    postgres_server: PostgresServer, address: str, why: str
) -> None:
    with psycopg.connect(postgres_server.url(), autocommit=True) as conn:
        if not conn.execute("SELECT 1 FROM pg_roles WHERE rolname = 'reader'").fetchone():
            conn.execute("CREATE ROLE reader LOGIN")
            conn.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    where = address.format(postgres_server.folder, url=postgres_server.url())
    with pytest.raises(LedgerError, match=f"(?s){why}"):
        open_store(where)


def test_a_ledger_of_another_version_is_refused_or_brought_up_to_date(url: str) -> None:
    with pytest.raises(LedgerError, match="the database has no ledger"):
        open_store(url, read_only=True)
    PostgresStore(url).close()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("INSERT INTO ledger_schema VALUES (%s, 'later')", (SCHEMA + 1,))
        for read_only in (False, True):
            with pytest.raises(
                LedgerError, match=rf"later version \(schema {SCHEMA + 1}, this one reads up to {SCHEMA}\)"
            ):
                open_store(url, read_only=read_only)
        conn.execute("DELETE FROM ledger_schema WHERE number >= %s", (SCHEMA,))
        with pytest.raises(LedgerError, match=f"earlier version \\(schema {SCHEMA - 1} of {SCHEMA}\\)"):
            open_store(url, read_only=True)


def test_a_changed_row_is_found(url: str, working: Working, later: Later, catalogue: Catalogue) -> None:
    with closing(PostgresStore(url)) as store:
        with working(store, catalogue) as desk:
            visits(desk, later)
        assert list(store.damages()) == []
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("UPDATE settlements SET reward = 1 - reward WHERE seq = 7")
        (said,) = store.damages()
        assert "settlements" in said
