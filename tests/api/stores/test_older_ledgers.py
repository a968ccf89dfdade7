"""Ledgers as earlier versions wrote them: opened, brought up to date, rebuilt and recomputed."""

import gzip
import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils

from api.ledger import audit, statistics_store
from api.stores.learning_state import StatisticsKey
from api.stores.sql.schema import SCHEMA, migrations
from api.stores.sqlite import row_sums
from api.stores.sqlite.store import SqliteStore
from api.stores.webhook_queue import WebhookCursor
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.errors import LedgerError
from bandit.learning.pending import answered
from bandit.snapshot import pooled
from tests.data.ledgers.full import declared_anew

LEDGERS = Path(__file__).parents[2] / "data" / "ledgers"
FILES = sorted(LEDGERS.glob("[0-9]-*.db.gz"))
FULL = sorted(LEDGERS.glob("full-*.db.gz"))
SHOP = parse((LEDGERS / "shop.toml").read_text(encoding="utf-8"))


@pytest.fixture(params=FILES, ids=lambda path: path.name.removesuffix(".db.gz"))
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress(request.param.read_bytes()))
    return path


@pytest.fixture
def store_name(request: pytest.FixtureRequest) -> str:
    """Which of the files it is."""
    return str(request.node.callspec.id)


@pytest.fixture
def store(file: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(file)
    yield opened
    opened.close()


def test_there_is_one_of_each_schema() -> None:
    assert len(FILES) == 6


def test_a_ledger_of_an_earlier_version_is_rebuilt_to_the_bit_and_its_receipts_hold(
    store: SqliteStore, store_name: str
) -> None:
    salt = audit.claim(store, SHOP, "pepper")
    decided = list(store.decisions())
    assert len(decided) == 38
    assert store.counts().settlements == 30
    assert all(one.equal for one in audit.rebuild(store, audit.stages(store)))
    specs, guessed = store.specs(), 0
    for found in decided:
        assert audit.arithmetic_of(store, found.seq) == 1
        if not (different := audit.differences(store, found, salt)):
            continue
        assert "u" not in different
        guessed += 1  # how late answers come was guessed once, and the guess was not recorded
        assert audit.rests_on_a_guess(found.decision, specs[found.decision.stage_digest])
    assert (guessed > 0) == (store_name == "2-basis")


def test_how_late_answers_came_is_counted_from_what_an_earlier_version_wrote(store: SqliteStore) -> None:
    """Without it, open decisions would be weighed as if nobody had ever answered."""
    audit.claim(store, SHOP, "pepper")
    (tally,) = statistics_store.load(store, audit.stages(store)).values()
    late = [f for f in store.decisions() if f.settlement and f.settlement.learned and answered(f.outcomes)]
    assert tally.delays.sum() == len([f for f in late if f.settlement and f.settlement.why != "silence"]) > 0


def test_people_of_an_earlier_version_keep_their_group(store: SqliteStore) -> None:
    """Decisions did not record what groups are drawn from: the id says it."""
    audit.claim(store, SHOP, "pepper")
    (found,) = store.decisions_by_id([uuid.UUID(int=1)]).values()
    assert found.decision.unit == b""
    person = store.person(found.decision.user, 10)
    assert person.first
    assert (person.first.user, person.first.unit, person.first.holdout) == (found.decision.user, b"", False)
    unit = engine.unit_from_group(person.first.user, held=person.first.holdout, share=0.1)
    assert not engine.in_holdout(unit, 0.1)


def test_a_reader_says_that_an_older_file_must_be_brought_up_to_date(file: Path) -> None:
    with pytest.raises(LedgerError, match="start the service on it once"):
        SqliteStore(file, read_only=True)
    SqliteStore(file).close()
    SqliteStore(file, read_only=True).close()


def test_an_upgrade_that_is_cut_off_changes_nothing_and_is_begun_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(_: sqlite3.Connection) -> None:
        raise KeyboardInterrupt

    before = content(file)
    with monkeypatch.context() as patch:
        patch.setattr(row_sums, "write", cut_off)
        with pytest.raises(KeyboardInterrupt):
            SqliteStore(file)
    assert content(file) == before
    with closing(SqliteStore(file)) as store:
        assert list(store.damages()) == []


def test_a_new_ledger_is_what_its_migrations_make_of_an_empty_one(tmp_path: Path) -> None:
    path, one_by_one = tmp_path / "new.db", sqlite_utils.Database(tmp_path / "one-by-one.db")
    with closing(one_by_one):
        migrations.apply(one_by_one)
    with closing(SqliteStore(path)) as store:
        assert list(store.damages()) == []
        assert store.describe()["synchronous"] == "FULL"
    made, expected = content(path), content(tmp_path / "one-by-one.db")
    assert {name for name in made if made[name] != expected[name]} == {"ledger_owner", "row_sums", "user_version"}
    assert made["user_version"] == [SCHEMA]


def content(path: Path) -> dict[str, list[object]]:
    """Declarations and rows of all tables, without the times at which migrations were applied."""
    with closing(sqlite3.connect(path)) as conn:
        names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows: dict[str, list[object]] = {name: conn.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608
        rows["_sqlite_migrations"] = conn.execute("SELECT migration_set, name FROM _sqlite_migrations").fetchall()
        declared = conn.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        return {**rows, "declared": declared, "user_version": list(conn.execute("PRAGMA user_version").fetchone())}


@pytest.mark.parametrize("read_only", [False, True])
def test_a_ledger_of_a_later_version_is_refused(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "new.db"
    SqliteStore(path).close()
    for statement in (
        f"PRAGMA user_version = {SCHEMA + 1}",
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('journey_bandit_ledger', 'next', '')",
    ):
        conn = sqlite3.connect(path)
        conn.execute(statement)
        conn.commit()
        conn.close()
        with pytest.raises(LedgerError, match="later version"):
            SqliteStore(path, read_only=read_only)
        conn = sqlite3.connect(path)
        conn.execute(f"PRAGMA user_version = {SCHEMA}")
        conn.commit()
        conn.close()


@pytest.mark.parametrize("packed", FULL, ids=lambda path: path.name.removesuffix(".db.gz"))
def test_a_full_ledger_of_an_earlier_version_keeps_all_it_knew(packed: Path, tmp_path: Path) -> None:
    """Three stages, drift epochs, a warm start, a schema that was raised, a retired nudge, events, a release, an
    endpoint that never answered: the old program's own versions and digests of beliefs stand beside the file.
    """
    said = json.loads(packed.with_suffix("").with_suffix(".json").read_text(encoding="utf-8"))
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    text = declared_anew((LEDGERS / "full.toml").read_text(encoding="utf-8"))
    with closing(SqliteStore(path)) as store:
        salt = audit.claim(store, parse(text), "pepper")
        stages, declared = audit.stages(store), store.declarations()
        learned = statistics_store.load(store, stages)
        served = pooled([statistics.snapshot("shop", name) for name, statistics in learned.items()])
        digests = {snapshot.stage: [snapshot.version, snapshot.belief.digest()] for snapshot in served}
        assert digests == said["policies"]
        assert all(one.equal for one in audit.rebuild(store, stages))
        assert (len(declared.eras), declared.served["plan"].schema, learned["plan"].spec.schema) == (
            3,
            2,
            2,
        )  # the form of declarations has changed since
        assert store.first_settlement(StatisticsKey("plan", 2)) == 300
        before = store.statistics(StatisticsKey("plan", 1), ("none", "trial"), 3)
        assert [alarm.through for alarm in before.drift_state.alarms] == [272]
        assert [epoch.n.sum() for epoch in before.epochs] == [68.0, 7.0]
        assert learned["cart"].retired == {"few_left": "social"}
        assert learned["pay"].warm is not None
        assert store.webhook_cursor("crm") == WebhookCursor(
            decision=352, settlement=342, alarms={"cart": 0, "pay": 0, "plan": 0}, era=313, release=1
        )
        assert len(store.webhook_deliveries(dead=False)) == 696
        assert [release.version for release in store.releases()] == ["1"]
        specs = store.specs()
        different = [
            found.seq
            for found in store.decisions()
            if audit.differences(store, found, salt)
            and not audit.rests_on_a_guess(found.decision, specs[found.decision.stage_digest])
        ]
        assert different == []
    SqliteStore(path, read_only=True).close()


@pytest.mark.parametrize("packed", FULL, ids=lambda path: path.name.removesuffix(".db.gz"))
def test_a_stage_that_declared_no_delay_waited_then(packed: Path, tmp_path: Path) -> None:
    """Its decisions note a basis all the same; by the rule of today 82 of the 188 receipts would not hold."""
    path = tmp_path / "old.db"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    with closing(SqliteStore(path)) as store:
        salt = audit.claim(store, parse(declared_anew((LEDGERS / "full.toml").read_text(encoding="utf-8"))), "pepper")
        cart = list(store.decisions("cart"))
        specs = {found.decision.stage_digest for found in cart}
        assert all(store.specs()[digest].reward.delay is None for digest in specs)
        assert sum(found.decision.pending_basis.at > 0 for found in cart) == 150
        assert [found.seq for found in cart if audit.differences(store, found, salt)] == []
