"""Form 25 of the tables: what operators did and what was reported keep every bit, and ramps and opt-outs fit in."""

import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlite_utils

from api.stores.postgres import connections, tables
from api.stores.postgres.store import PostgresStore
from api.stores.sql import schema
from api.stores.sqlite import file, row_sums
from api.stores.sqlite.store import SqliteStore
from bandit.records import OperatorAction, Outcome
from journey_bandit.testing.store_builders import START
from tests.postgres import PostgresServer

BEFORE = 24
ACTIONS = [
    OperatorAction(seq=1, at=START, who="ana", stage="signup", nudge="tip", verb="pause", reason="r"),
    OperatorAction(seq=2, at=START + 1, who="eva", stage="signup", nudge="", verb="resume", reason="s"),
    OperatorAction(seq=3, at=START + 2, who="ana", stage="signup", nudge="tip", verb="retire", reason="t"),
]


def earlier_file() -> bytes:
    """A SQLite ledger of the earlier form in which nothing was recorded."""
    with closing(sqlite3.connect(":memory:")) as conn:
        database = sqlite_utils.Database(conn)
        schema.migrations.apply(database, stop_before="traffic_settings")
        with database.atomic():
            row_sums.write(database.conn)
            conn.execute(f"PRAGMA user_version = {BEFORE}")
        return conn.serialize()


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """opened(before): the store of one ledger; as the earlier version opened it, with `before`."""
    sqlite = request.param == "sqlite"
    with request.getfixturevalue("postgres_server").schema() as url:

        def store(*, before: bool) -> Any:
            monkeypatch.undo()
            if before and sqlite:
                monkeypatch.setattr(file, "_new_ledger", earlier_file)
            if before:
                monkeypatch.setattr(tables, "MIGRATIONS", schema.MIGRATIONS[:BEFORE])
                for module in (tables, connections, file):
                    monkeypatch.setattr(module, "SCHEMA", BEFORE)
            return SqliteStore(tmp_path / "a.db") if sqlite else PostgresStore(url)

        yield store


def test_what_was_kept_keeps_every_bit_and_what_is_new_fits(
    opened: Callable[..., Any], catalogue: Any, decide: Any, postgres_server: PostgresServer
) -> None:
    made = decide(1)
    told = [
        Outcome(decision=made.id, id=kind, kind=kind, value=value, occurred=START, received=START)  # type: ignore[arg-type]
        for kind, value in (("reward", 1.0), ("retraction", None))
    ]
    with closing(opened(before=True)) as store:
        store.register(catalogue.stages)
        store.record([made], told, START, store.specs())
        with store._ledger.transaction() as conn:
            for one in ACTIONS:
                row = (one.seq, one.at, one.who, one.stage, one.nudge, one.verb, one.reason)
                conn.execute("INSERT INTO operator_actions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        before = list(store.decisions())
        assert list(store.damages()) == []
    with closing(opened(before=False)) as store:
        assert store.operator_actions() == ACTIONS
        assert [one.outcomes for one in store.decisions()] == [one.outcomes for one in before]
        assert [one.id for one in before[0].outcomes] == ["reward", "retraction"]
        ramp = OperatorAction(at=START, who="ana", stage="signup", nudge="", verb="ramp", reason="r", share=0.1)
        assert store.operate(ramp).seq == 4
        late = Outcome(decision=made.id, id="x", kind="opt_out", value=None, occurred=START, received=START)
        _, (receipt,) = store.record([], [late], START, store.specs())
        assert receipt.status == "recorded"
        assert [one.share for one in store.operator_actions()] == [None, None, None, 0.1]
        assert [one.kind for one in next(iter(store.decisions())).outcomes] == ["reward", "retraction", "opt_out"]
        assert store.decisions_by_id([uuid.UUID(int=9)]) == {}
        assert list(store.damages()) == []
