"""A clock that its client drives: time stands still, and nothing is learned, until it is asked for."""

from typing import Any

import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.clocks import START
from api.settings import Settings
from api.stores import open_store
from bandit.errors import InvalidRequest, LedgerError

ASK = {"stage": "cart", "user_id": "u", "context": {}}


def service(**more: Any) -> TestClient[Any]:
    return TestClient(create_app(Settings(app="travel", store="memory://", dev=True, **more)))


def settled(client: TestClient[Any]) -> int:
    policies = client.get("/v1/policies?wait=true").json()["policies"]
    return int(next(p["version"] for p in policies if p["stage"] == "cart"))


def test_time_passes_when_the_client_says_so() -> None:
    with service(clock="driven") as client:
        assert client.get("/v1/clock").json() == {"now": START}
        assert client.post("/v1/clock", json={"microseconds": 5}).json() == {"now": START + 5}
        assert client.post("/v1/decisions", json=ASK).status_code == 200
        assert settled(client) == 0
        client.post("/v1/clock", json={"microseconds": 31 * 86_400_000_000})
        assert settled(client) == 1
        assert client.post("/v1/clock", json={"microseconds": -1}).status_code == 400
        assert client.post("/v1/clock", json={}).status_code == 400


def test_the_clock_of_the_wall_cannot_be_driven() -> None:
    with service() as client:
        assert client.get("/v1/clock").status_code == 404
        assert client.post("/v1/clock", json={"microseconds": 5}).status_code == 404


def test_a_driven_clock_is_for_trials_on_a_ledger_of_its_own(tmp_path: Any) -> None:
    with pytest.raises(InvalidRequest, match="--dev"):
        create_app(Settings(app="travel", store="memory://", clock="driven"))
    store = f"sqlite:///{tmp_path / 'a.db'}"
    with TestClient(create_app(Settings(app="travel", store=store, dev=True))) as client:
        assert client.post("/v1/decisions", json=ASK).status_code == 200
    with pytest.raises(LedgerError, match="empty ledger"):
        create_app(Settings(app="travel", store=store, dev=True, clock="driven"))
    open_store(store).close()
