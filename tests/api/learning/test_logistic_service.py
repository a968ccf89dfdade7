"""A stage that learns by assumed density filtering keeps the ledger's promises: rebuild, restart, receipts."""

import uuid
from pathlib import Path

import numpy as np
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.settings import Settings
from api.stores import Store, open_store
from bandit import engine
from bandit.errors import LedgerMismatch

TEXT = """
app = "shoes"
currency = "EUR"
[stages.cart]
policy = {{ name = "{policy}", prior_mean = 0.2 }}
holdout = 0.1
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
features = {{ price = {{ type = "number", min = 0, max = 100, default = 20 }} }}
[stages.cart.nudges]
mail = {{ type = "reminder", format = "mail" }}
push = {{ type = "reminder", format = "push", cost = 0.1 }}
five = {{ type = "discount", format = "banner", cost_when_rewarded = 2.0 }}
[stages.shelf]
policy = {{ name = "{policy}", prior_mean = {shelf} }}
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
features = {{ price = {{ type = "number", min = 0, max = 100, default = 20 }} }}
[stages.shelf.nudges]
ten = {{ type = "discount", format = "banner", cost_when_rewarded = 2.0 }}
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


def settings(folder: Path, policy: str, shelf: float = 0.3) -> Settings:
    catalogue = folder / "shoes.toml"
    catalogue.write_text(TEXT.format(policy=policy, shelf=shelf))
    return Settings(app=str(catalogue), store=f"sqlite:///{folder / 'ledger.db'}", dev=True, salt="s")


def shop(folder: Path, policy: str, clock: Clock, rounds: int, shelf: float = 0.3) -> str:
    """Let people come to both stages, answer and mature; the digest of the cart's live belief."""
    rng = np.random.default_rng(rounds)
    with TestClient(create_app(settings(folder, policy, shelf), clock=clock)) as client:
        for _ in range(rounds):
            people = [
                {
                    "stage": "cart" if i % 5 else "shelf",
                    "user_id": uuid.UUID(bytes=rng.bytes(16)).hex,
                    "context": {"price": rng.uniform(0, 100)},
                }
                for i in range(60)
            ]
            items = client.post("/v1/decisions/batch", json={"decisions": people}).json()["decisions"]
            bought = [i["decision"]["decision_id"] for i in items if rng.random() < 0.3]
            outcomes = [{"decision_id": i, "kind": "reward"} for i in bought]
            client.post("/v1/outcomes/batch", json={"outcomes": outcomes})
            clock.now += 3_700_000_000
            found = client.get("/v1/policies?wait=true").json()["policies"][0]
        assert sum(arm["learned"] for arm in found["arms"]) > 30 * rounds, found
        digest: str = found["belief_sha256"]
        return digest


def opened(folder: Path) -> Store:
    return open_store(f"sqlite:///{folder / 'ledger.db'}", read_only=True)


@pytest.mark.parametrize("policy", ["hierarchical", "logistic"])
def test_rebuild_restart_and_receipts_are_exact(tmp_path: Path, policy: str) -> None:
    """Also of decisions that rest on what another stage had learned, under a declaration that has changed since."""
    clock = Clock()
    shop(tmp_path, policy, clock, rounds=3)
    live = shop(tmp_path, policy, clock, rounds=2, shelf=0.2)  # a second process goes on where the first stopped
    store = opened(tmp_path)
    cart, shelf = audit.rebuild(store, audit.stages(store))
    assert cart.equal
    assert shelf.equal
    assert cart.belief.digest() == live
    tau = [settlement.tau for settlement, *_ in store.settled("cart") if settlement.learned]
    assert 0 < min(tau) <= max(tau) <= 0.25
    shared = 0
    for found in list(store.decisions())[::7]:
        decision, past = found.decision, audit.past(store, found)
        shared += past.cross_stage_factor is not None
        again = engine.recompute(engine.prepare(past), decision, audit.salt_of(store, "s"))
        for name in ("propensity", "mean", "sd", "u", "arm"):
            assert np.array_equal(getattr(again, name), getattr(decision, name)), name
        assert decision.propensity.sum() == pytest.approx(1.0, abs=1e-12)
    assert bool(shared) == (policy == "hierarchical")
    store.close()


def test_what_one_link_learned_is_not_given_to_another(tmp_path: Path) -> None:
    shop(tmp_path, "hierarchical", Clock(), rounds=1)
    with pytest.raises(LedgerMismatch, match="no longer means the same"):
        create_app(settings(tmp_path, "linear"))
    assert shop(tmp_path, "logistic", Clock(), rounds=2)
