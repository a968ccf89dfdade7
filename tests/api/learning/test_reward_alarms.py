"""Alarms about keys that report more rewards than were usual: raised by the service, told, kept, the same after a
restart and from the ledger alone.
"""

import logging
import random
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from api.ledger import audit, statistics_store
from api.ledger.statistics_store import key_of, watched
from api.messages.decisions import DecisionRequest, OutcomeRequest
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError
from bandit.learning.statistics import nothing

Working = Callable[..., AbstractContextManager[Any]]
HOUR = 3600
SHOP = """
app = "shop"
currency = "EUR"
[stages.signup]
policy = {{ name = "uniform" }}
{alarm}
reward = {{ kind = "binary", window = "1h" }}
features = {{}}
[stages.signup.nudges]
call = {{ type = "help", format = "popup" }}
"""


def shop(alarm: str = "") -> Catalogue:
    return parse(SHOP.format(alarm=alarm))


def visit(desk: Any, n: int, key: str = "", chance: float = 1.0, include: list[str] | None = None) -> None:
    """Somebody new is decided for, and the key reports a reward, with that chance."""
    one = uuid.UUID(int=n)
    ask = DecisionRequest(stage="signup", user_id=f"u{n}", decision_id=one, include=include)
    desk.run(desk.service.decide(ask))
    if random.Random(n).random() < chance:
        desk.run(desk.service.report(OutcomeRequest(one, "reward"), key))


def attacked(desk: Any, later: Callable[[float], int], forger: str = "stolen") -> None:
    """Honest people of the key `web`, then invented ones of the forger between them."""
    for n in range(1, 301):
        visit(desk, n, "web", 0.1)
    later(2 * HOUR)
    desk.learn()
    for n in range(1001, 1121):
        visit(desk, n, forger, include=["call"])
        if n % 3 == 0:
            visit(desk, n + 1000, "web", 0.1)
    later(2 * HOUR)
    desk.learn()


def alarms(desk: Any) -> list[Any]:
    (policy,) = desk.run(desk.service.policies()).policies
    return list(policy.reward_alarms)


def test_a_key_that_forges_is_named(
    working: Working, store: Store, later: Callable[[float], int], caplog: pytest.LogCaptureFixture
) -> None:
    with working(store, shop()) as desk, caplog.at_level(logging.WARNING, "journey_bandit.learner"):
        attacked(desk, later)
        (alarm,) = alarms(desk)
        assert alarm.reporter == "stolen"
        assert alarm.rate > alarm.usual_at_most
    (line,) = [record.getMessage() for record in caplog.records if "reward_alarm" in record.getMessage()]
    assert "the key 'stolen'" in line
    assert "stage signup" in line


def test_a_restart_neither_forgets_an_alarm_nor_raises_it_again(
    working: Working, store: Store, later: Callable[[float], int], caplog: pytest.LogCaptureFixture
) -> None:
    with working(store, shop()) as desk:
        attacked(desk, later)
        before = alarms(desk), dict(desk.worker.learning.reward_watches)
    caplog.clear()
    with working(store, shop()) as desk:
        desk.learn()
        assert (alarms(desk), dict(desk.worker.learning.reward_watches)) == before
    assert not [record for record in caplog.records if "reward_alarm" in record.getMessage()]


def test_the_watch_follows_from_the_settlements_in_any_batches(
    working: Working, store: Store, later: Callable[[float], int]
) -> None:
    with working(store, shop()) as desk:
        attacked(desk, later)
    stage = shop().stages["signup"]
    kept = store.statistics(key_of("signup", stage), (), 0).reward_watch
    assert kept.alarms
    log, again = iter(store.settlements_after(0, 10_000)), nothing(stage)
    while batch := list(islice(log, 37)):
        again = watched(again, [(one.decision, one.outcomes, one.settlement) for _, one in batch if one.settlement])
    assert again.reward_watch == kept


def test_a_stage_that_wants_no_alarm_watches_nobody(
    working: Working, store: Store, later: Callable[[float], int]
) -> None:
    catalogue = shop('reward_alarm = "none"')
    with working(store, catalogue) as desk:
        attacked(desk, later)
        assert alarms(desk) == []
        assert not desk.worker.learning.reward_watches["signup"].arms


def test_nobody_is_accused_where_no_key_is_known(working: Working, store: Store, later: Callable[[float], int]) -> None:
    with working(store, shop()) as desk:
        attacked(desk, later, forger="")
        assert alarms(desk) == []


def test_an_alarm_changes_nothing_that_is_learned(
    working: Working, tmp_path: Path, later: Callable[[float], int]
) -> None:
    """And a rebuild confirms the ledger, whose row of the watch has a sum: a changed bit is found."""
    path = tmp_path / "shop.db"
    with closing(SqliteStore(path)) as store:
        with working(store, shop()) as desk:
            attacked(desk, later)
            assert alarms(desk)
        assert all(one.equal for one in audit.rebuild(store, audit.stages(store)))
        (counted,) = statistics_store.load(store, audit.stages(store)).values()
        assert sum(float(epoch.n.sum()) for epoch in counted.epochs) == 460
        assert list(store.damages()) == []
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("UPDATE reward_watches SET state = zeroblob(3)")
        conn.commit()
    with closing(SqliteStore(path, read_only=True)) as store:
        assert any("reward_watches" in one for one in store.damages())


def test_the_word_is_checked_and_the_usual_one_changes_no_digest() -> None:
    with pytest.raises(CatalogueError, match="reward_alarm"):
        shop('reward_alarm = "stop"')
    plain, told, none, pause = (
        shop(alarm).stages["signup"]
        for alarm in ("", *(f'reward_alarm = "{word}"' for word in ("tell", "none", "pause")))
    )
    assert plain.digest() == told.digest()
    assert len({told.digest(), none.digest(), pause.digest()}) == 3
    assert plain.learning_digest() == none.learning_digest() == pause.learning_digest()
