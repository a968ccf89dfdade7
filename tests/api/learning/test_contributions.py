"""One user's contribution to what is learned is limited: forged rewards of one person move no nudge."""

import logging
import random
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.ledger import audit
from api.messages.decisions import DecisionReply, DecisionRequest, OutcomeRequest
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.catalogue.model import Catalogue
from bandit.errors import CatalogueError
from journey_bandit.testing.store_builders import CATALOGUE
from journey_bandit.workflows import ledger_log

Working = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]
DAY = 86_400.0
PLACE = "[stages.signup]\n"


def limited(most: int = 5, per: str = "7d") -> Catalogue:
    assert PLACE in CATALOGUE
    return parse(CATALOGUE.replace(PLACE, f'{PLACE}contribution = {{ most = {most}, per = "{per}" }}\n', 1))


def whys(store: Store) -> list[str]:
    return [found.settlement.why for found in store.decisions() if found.settlement]


def decide(desk: Any, user: str, n: int | None = None, include: list[str] | None = None) -> DecisionReply:
    given = None if n is None else uuid.UUID(int=n)
    ask = DecisionRequest(stage="signup", user_id=user, context={}, decision_id=given, include=include)
    reply: DecisionReply = desk.run(desk.service.decide(ask))
    return reply


def test_a_user_teaches_as_often_as_is_declared_in_any_period(working: Working, store: Store, later: Later) -> None:
    with working(store, limited(3, "7d")) as desk:
        for _ in range(5):
            desk.ask(user="often")
            desk.ask(user=f"once-{later(1)}")
        later(7 * DAY - 6)
        desk.ask(user="often")  # the first is still within the period
        later(1.5)
        desk.ask(user="often")
        later(7 * DAY)
        desk.learn()
    found = [(f.decision.contribution, f.settlement) for f in store.decisions()]
    often = [done and (done.why, done.learned) for _, done in (found[0:10:2] + found[10:])]
    assert often == [*[("silence", True)] * 3, *[("over limit", False)] * 3, ("silence", True)]
    assert all(done and done.learned for _, done in found[1:10:2])
    assert [took for took, _ in found[0:10:2]] == [1, 1, 1, 0, 0]


def test_a_request_that_chooses_among_the_nudges_takes_the_whole_limit(working: Working, later: Later) -> None:
    store = MemoryStore()
    with working(store, limited(3)) as desk:
        decide(desk, "aims", include=["tip"])
        decide(desk, "aims", include=["tip"])
        desk.ask(user="aims")
        desk.ask(user="plays")
        decide(desk, "plays", include=["tip"])
        desk.ask(user="plays")
        later(DAY)
        desk.learn()
    assert [found.decision.contribution for found in store.decisions()] == [3, 0, 0, 1, 0, 1]
    assert whys(store) == ["silence", "over limit", "over limit", "silence", "over limit", "silence"]


def test_a_restart_knows_what_was_contributed(working: Working, tmp_path: Path) -> None:
    for expected in ([1, 1], [1, 0]):
        store = SqliteStore(tmp_path / "ledger.db")
        with working(store, limited(3)) as desk:
            for _ in range(2):
                desk.ask(user="u")
        assert [found.decision.contribution for found in store.decisions()][-2:] == expected
        store.close()


def test_a_retry_is_counted_once(working: Working) -> None:
    store = MemoryStore()
    with working(store, limited(3)) as desk:
        for _ in range(3):
            assert decide(desk, "u", n=7).decision_id == uuid.UUID(int=7)
        desk.ask(user="u")
        desk.ask(user="u")
        desk.ask(user="u")
    assert [found.decision.contribution for found in store.decisions()] == [1, 1, 1, 0]


def test_what_was_not_written_took_nothing(working: Working, clock: Callable[[], int]) -> None:
    store = MemoryStore()
    with working(store, limited(1)) as desk:
        ask = DecisionRequest(stage="signup", user_id="u", context={})
        desk.service.maker.cancel(desk.service.maker.prepare(ask, clock()))
        desk.ask(user="u")
        desk.ask(user="u")
    assert [found.decision.contribution for found in store.decisions()] == [1, 0]


def test_joined_ids_have_one_limit(serving: Callable[..., Any], tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "journey_shop.toml").read_text(encoding="utf-8")
    place = "[stages.look]\n"
    assert place in text
    (tmp_path / "app.toml").write_text(
        text.replace(place, f'{place}contribution = {{ most = 2, per = "7d" }}\n', 1), encoding="utf-8"
    )
    store = MemoryStore()
    with serving(store, app=str(tmp_path / "app.toml")) as client:
        client.ask(stage="look", user="phone")
        client.ask(stage="look", user="ada")
        joined = {"event_id": "1", "event": "identify", "user_id": "ada", "anonymous_id": "phone"}
        assert client.post("/v1/events", json={"events": [joined]}).json()["events"][0]["status"] == 200
        client.ask(stage="look", user="ada")
        client.ask(stage="look", user="phone")
        assert [found.decision.contribution for found in store.decisions()] == [1, 1, 0, 0]


@pytest.fixture
def probability(working: Working, later: Later) -> Callable[..., tuple[float, float]]:
    """probability(catalogue, aimed=): of the nudge `call`, which loses, before and after one user's forged rewards."""

    def attack(catalogue: Catalogue, *, aimed: bool) -> tuple[float, float]:
        store, chance = MemoryStore(), random.Random(5)
        rates = {"none": 0.3, "tip": 0.45, "call": 0.1}
        with working(store, catalogue) as desk:

            def report(made: DecisionReply) -> None:
                desk.run(desk.service.report(OutcomeRequest(decision_id=made.decision_id, kind="reward")))

            for n in range(900):
                made = desk.ask(user=f"honest-{n}")
                if chance.random() < rates[made.nudge.id]:
                    report(made)
                if n % 100 == 99:
                    later(3700)
                    desk.learn()
            before, highest = desk.ask(user="looks").propensities["call"], 0.0
            for n in range(400):
                made = decide(desk, "forges", include=["call"] if aimed else None)
                if made.nudge.id == "call":
                    report(made)
                if n % 100 == 99:
                    later(300)
                    desk.learn()
                    highest = max(highest, desk.ask(user=f"looks-{n}").propensities["call"])
            later(3700)
            desk.learn()
            after = desk.ask(user="looks again").propensities["call"]
            (rebuilt,) = audit.rebuild(store, {"signup": catalogue.stages["signup"]})
            assert rebuilt.equal
        return before, max(highest, after)

    return attack


def test_forged_rewards_of_one_user_move_a_nudge_by_less_than_two_points(
    probability: Callable[..., tuple[float, float]],
) -> None:
    """Open or settled. Without a limit the same rewards make the losing nudge the usual one: the attack is real."""
    before, after = probability(limited(5), aimed=True)
    assert after - before < 0.02
    before, after = probability(limited(5), aimed=False)
    assert after - before < 0.02
    before, after = probability(parse(CATALOGUE), aimed=True)
    assert after - before > 0.5


def test_who_is_over_the_limit_is_named_by_hash(
    serving: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, later: Later
) -> None:
    path = tmp_path / "app.toml"
    path.write_text(
        CATALOGUE.replace(PLACE, f'{PLACE}contribution = {{ most = 2, per = "7d" }}\n', 1), encoding="utf-8"
    )
    caplog.set_level(logging.WARNING, "journey_bandit.decisions")
    store = SqliteStore(tmp_path / "ledger.db")
    with serving(store, app=str(path)) as client:
        for n in range(5):
            client.ask(user="forges")
            client.ask(user="rarely" if n < 3 else f"once-{n}")
        named, rarely = (found.decision.user.hex() for found in list(store.decisions())[:2])
        found = client.learned()["signup"]["over_limit"]
        assert [(one["user"], one["decisions"]) for one in found] == [
            (named, 3),
            (rarely, 1),
        ]
        assert 'journey_bandit_decisions_over_limit_total{stage="signup"} 4.0' in client.get("/metrics").text
        told = [record.getMessage() for record in caplog.records if named in record.getMessage()]
        assert len(told) == 1
        assert "more than 2 decisions at signup within 7d" in told[0]
        later(8 * DAY)
        assert client.learned()["signup"]["over_limit"] == []


def test_evaluations_leave_out_what_is_over_the_limit_in_both_groups(
    serving: Callable[..., Any], tmp_path: Path
) -> None:
    """What cannot teach the policy cannot turn its review either."""
    path, place = tmp_path / "app.toml", "[stages.basket]\n"
    assert place in CATALOGUE
    path.write_text(
        CATALOGUE.replace(place, f'{place}contribution = {{ most = 2, per = "7d" }}\n', 1), encoding="utf-8"
    )
    with serving(SqliteStore(tmp_path / "ledger.db"), app=str(path)) as client:
        held = {client.ask(stage="basket", user=f"u{n}")["holdout"] for n in range(8)}
        for n in range(8):
            for _ in range(4):
                client.ask(stage="basket", user=f"u{n}")
    assert held == {False, True}
    log = ledger_log.open_log(str(tmp_path / "ledger.db"), "basket")
    counted = Counter(found.decision.user for found in log.records())
    assert len(counted) == 8
    assert set(counted.values()) == {2}


def test_a_limit_that_is_none_names_the_field() -> None:
    with pytest.raises(CatalogueError, match=r"stages\.signup\.contribution\.per"):
        limited(per="soon")
    with pytest.raises(CatalogueError, match=r"stages\.signup\.contribution\.most"):
        limited(most=0)
