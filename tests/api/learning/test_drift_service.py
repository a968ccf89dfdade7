"""A change of people's behaviour, seen by a running service: alarm, new epoch, restart, rebuild, receipts."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.settings import Settings
from api.stores import open_store

APP = """
app = "shoes"
currency = "EUR"
[stages.cart]
policy = { name = "linear", prior_mean = 0.2 }
reward = { kind = "binary", window = "1h", value = 10.0 }
features = {}
[stages.cart.nudges]
mail = { type = "reminder", format = "mail" }
[stages.shelf]
policy = { name = "hierarchical", prior_mean = 0.2 }
reward = { kind = "binary", window = "1h", value = 10.0 }
features = {}
[stages.shelf.nudges]
mail = { type = "reminder", format = "mail" }
[stages.till]
policy = { name = "centred", prior_mean = 0.2 }
reward = { kind = "binary", window = "1h", value = 10.0 }
features = {}
[stages.till.nudges]
mail = { type = "reminder", format = "mail" }
"""
HOUR = 3_600_000_000


class Clock:
    now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


def live(folder: Path, clock: Clock, rates: list[float], seed: int) -> tuple[list[Any], str]:
    """200 people at each stage for each rate in turn: the policies afterwards, and the metrics."""
    path = folder / "shoes.toml"
    path.write_text(APP)
    rng = np.random.default_rng(seed)
    settings = Settings(app=str(path), store=f"sqlite:///{folder / 'ledger.db'}", dev=True, salt="s")
    with TestClient(create_app(settings, clock=clock)) as client:
        for rate in rates:
            asks = [
                {"stage": s, "user_id": uuid.UUID(bytes=rng.bytes(16)).hex} for s in ("cart", "shelf", "till") * 100
            ]
            items = client.post("/v1/decisions/batch", json={"decisions": asks}).json()["decisions"]
            bought = [i["decision"]["decision_id"] for i in items if rng.random() < rate]
            client.post("/v1/outcomes/batch", json={"outcomes": [{"decision_id": i, "kind": "reward"} for i in bought]})
            clock.now += 9 * HOUR
            client.get("/v1/policies?wait=true")
        return client.get("/v1/policies").json()["policies"], client.get("/metrics").text


def test_a_change_is_seen_survives_restarts_and_is_rebuilt_exactly(tmp_path: Path) -> None:
    clock = Clock()
    quiet, _ = live(tmp_path, clock, [0.2] * 8, seed=1)
    assert [p["drift"] for p in quiet] == [[], [], []]
    policies, metrics = live(tmp_path, clock, [0.6] * 4, seed=2)
    for policy in policies:
        assert policy["drift"], policy
        assert {a["direction"] for a in policy["drift"]} == {"up"}
        assert policy["drift"][0]["through_version"] > 1600
        learned = sum(arm["learned"] for arm in policy["arms"])
        assert learned < 600, "what was learned before weighs a twentieth"
        assert f'journey_bandit_drift_alarms{{stage="{policy["stage"]}"}} {len(policy["drift"])}' in metrics
    again, _ = live(tmp_path, clock, [], seed=3)
    for before, after in zip(policies, again, strict=True):
        assert after == before
    store = open_store(f"sqlite:///{tmp_path / 'ledger.db'}", read_only=True)
    for result, policy in zip(audit.rebuild(store, audit.stages(store)), policies, strict=True):
        assert result.equal
        assert len(result.tally.epochs) == 1 + len(policy["drift"])
        assert sum(e.n.sum() for e in result.tally.epochs) == 1200
        assert result.belief.digest() == policy["belief_sha256"]
    for found in list(store.decisions())[::37]:
        assert audit.differences(store, found, audit.salt_of(store, "s")) == []
    judged = [d.decision for d in store.decisions() if d.decision.loss_account and d.decision.loss_account.budget]
    assert len(judged) > 400, "the account of the default policy was made anew, also after an alarm"
    store.close()
