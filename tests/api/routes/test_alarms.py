"""Alarms about keys where an operator looks, and how they are acknowledged."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.http.keys import create as create_key
from api.stores.learning_state import StatisticsKey, StatisticsUpdate
from api.stores.memory.store import MemoryStore
from bandit.reporters.reward_watch import RewardAlarm, RewardWatch
from journey_bandit.testing.store_builders import START

Serving = Callable[..., AbstractContextManager[Any]]
PATH = "/v1/policies/signup/reward-alarms/acknowledge"
BODY = {"reporter": "stolen", "verdict": "honest", "acknowledged_by": "ana", "reason": "a campaign"}


@pytest.fixture
def accused() -> MemoryStore:
    """Ledger with one alarm: settlement 0, of before, has accused the key `stolen` at the stage `signup`."""
    store = MemoryStore()
    alarm = RewardAlarm(reporter="stolen", arm="tip", through=0, at=START, decisions=8, reward=6.0, allowed=0.2)
    watch = RewardWatch(alarms=(alarm,))
    store.replace_statistics(StatisticsUpdate(StatisticsKey("signup", 1), (), {}, reward_watch=watch))
    return store


def test_health_warns_until_an_alarm_is_acknowledged_and_is_ready_all_the_same(
    serving: Serving, accused: MemoryStore
) -> None:
    """It needs no key, so it says that there is an alarm and not which key it is about."""
    with serving(accused) as client:
        reply = client.get("/health/ready")
        assert (reply.status_code, reply.json()["status"], reply.json()["failing"]) == (200, "ok", {})
        assert list(reply.json()["warnings"]) == ["reward_alarms signup"]
        assert "stolen" not in reply.text
        assert 'journey_bandit_reward_alarms_open{stage="signup"} 1.0' in client.get("/metrics").text
        client.post(PATH, json=BODY).raise_for_status()
        assert client.get("/health/ready").json()["warnings"] == {}
        told = client.get("/metrics").text
    assert 'journey_bandit_reward_alarms_open{stage="signup"} 0.0' in told
    assert 'journey_bandit_reward_alarms{stage="signup"} 1.0' in told


def test_policies_say_who_acknowledged_what_and_a_restart_knows_it(serving: Serving, accused: MemoryStore) -> None:
    with serving(accused) as client:
        (alarm,) = client.learned()["signup"]["reward_alarms"]
        assert (alarm["acknowledged"], alarm["held"]) == (None, False)
        first, again = (client.post(PATH, json=BODY).json() for _ in range(2))
        assert first == again
        assert (first["number"], first["verdict"], first["reason"]) == (1, "honest", "a campaign")
        (alarm,) = client.learned()["signup"]["reward_alarms"]
        assert alarm["acknowledged"] == first
    assert [one.who for one in accused.acknowledgements()] == ["ana"]
    with serving(accused) as client:
        assert client.learned()["signup"]["reward_alarms"] == [alarm]
        assert client.get("/health/ready").json()["warnings"] == {}


def test_the_key_of_an_operator_is_kept_with_whom_it_names(
    serving: Serving, accused: MemoryStore, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    reader, admin = create_key(file, "reader", ["read"]), create_key(file, "ops", ["admin"])
    with serving(accused, keys=str(file)) as client:
        assert client.post(PATH, json=BODY, headers={"X-API-Key": reader}).status_code == 403
        client.post(PATH, json=BODY, headers={"X-API-Key": admin}).raise_for_status()
    assert [one.who for one in accused.acknowledgements()] == ["key ops, for ana"]


@pytest.mark.parametrize(
    ("path", "change", "status", "field"),
    [
        (PATH, {"reporter": "web"}, 404, "reporter"),
        (PATH, {"verdict": "perhaps"}, 400, "verdict"),
        (PATH, {"acknowledged_by": ""}, 400, "acknowledged_by"),
        (PATH.replace("signup", "nowhere"), {}, 404, "stage"),
    ],
)
def test_what_cannot_be_acknowledged_is_refused_with_its_field(
    serving: Serving, accused: MemoryStore, refused: Any, path: str, change: dict[str, str], status: int, field: str
) -> None:
    with serving(accused) as client:
        refused(client.post(path, json=BODY | change), status, field)
    assert accused.acknowledgements() == []
