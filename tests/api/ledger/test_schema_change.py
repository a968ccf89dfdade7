"""A change that makes old statistics meaningless: refused, or begun anew under a new schema number, old rows kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.settings import Settings
from api.stores import open_store
from bandit import engine
from bandit.errors import LedgerMismatch

APP = """
app = "shoes"
currency = "EUR"
[stages.cart]
policy = {{ name = "hierarchical", prior_mean = 0.2 }}
reward = {{ kind = "binary", window = "1h", value = 10.0 }}
{schema}
[stages.cart.features]
price = {{ type = "number", min = 0, max = {top}, default = 20 }}
{more}
[stages.cart.nudges]
mail = {{ type = "reminder", format = "mail" }}
push = {{ type = "reminder", format = "push" }}
"""
HOUR = 3_600_000_000
MORE = 'mobile = { type = "boolean", default = true }'


class Clock:
    now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


def serve(folder: Path, clock: Clock, people: int, *, mature: bool = True, **change: Any) -> Any:
    """People come to the service as declared now; the policy afterwards."""
    path = folder / "shoes.toml"
    path.write_text(APP.format(**{"top": 100, "more": "", "schema": "", **change}))
    settings = Settings(app=str(path), store=f"sqlite:///{folder / 'ledger.db'}", dev=True, salt="s")
    with TestClient(create_app(settings, clock=clock)) as client:
        rng = np.random.default_rng(people)
        if people:
            asks = [
                {
                    "stage": "cart",
                    "user_id": rng.bytes(8).hex(),
                    "context": {"price": rng.uniform(0, 99)},
                }
                for _ in range(people)
            ]
            items = client.post("/v1/decisions/batch", json={"decisions": asks}).json()["decisions"]
            bought = [i["decision"]["decision_id"] for i in items if rng.random() < 0.3]
            client.post("/v1/outcomes/batch", json={"outcomes": [{"decision_id": i, "kind": "reward"} for i in bought]})
        clock.now += (HOUR + 1) * mature
        return client.get("/v1/policies?wait=true").json()["policies"][0]


def learned(policy: Any) -> int:
    return sum(arm["learned"] for arm in policy["arms"])


def checked(folder: Path, of: int) -> None:
    """The ledger rebuilds, and every decision of any schema can be recomputed."""
    store = open_store(f"sqlite:///{folder / 'ledger.db'}", read_only=True)
    assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
    decisions = list(store.decisions())
    assert len(decisions) == of
    for found in decisions[::9]:
        again = engine.recompute(engine.prepare(audit.past(store, found)), found.decision, audit.salt_of(store, "s"))
        assert np.array_equal(again.propensity, found.decision.propensity)
    store.close()


def test_a_changed_range_is_refused_with_the_way_out(tmp_path: Path) -> None:
    serve(tmp_path, Clock(), 20)
    with pytest.raises(LedgerMismatch, match=r"undo the change, or declare schema = 2 in \[stages.cart\]"):
        serve(tmp_path, Clock(), 0, top=50)


def test_a_new_schema_begins_anew_and_keeps_the_old_rows(tmp_path: Path) -> None:
    clock = Clock()
    assert learned(serve(tmp_path, clock, 60)) == 60
    late = serve(tmp_path, clock, 30, mature=False)
    assert learned(late) == 60
    new: dict[str, Any] = {"top": 500, "more": MORE, "schema": "schema = 2"}
    assert learned(serve(tmp_path, clock, 40, **new)) == 40, "neither the old rows nor those that settle late"
    store = open_store(f"sqlite:///{tmp_path / 'ledger.db'}", read_only=True)
    why = [s.why for s, *_ in store.settled("cart")]
    assert why.count("other schema") == 30
    assert len(why) == 130
    store.close()
    assert learned(serve(tmp_path, clock, 10, **new)) == 50, "a restart goes on"
    checked(tmp_path, of=140)


def test_a_schema_that_is_over_does_not_come_back(tmp_path: Path) -> None:
    clock = Clock()
    serve(tmp_path, clock, 5)
    serve(tmp_path, clock, 5, top=500, schema="schema = 2")
    with pytest.raises(LedgerMismatch, match="schema 1 is over, the ledger is at 2: declare 2 or more"):
        serve(tmp_path, clock, 0)


def test_a_higher_number_without_a_change_also_begins_anew(tmp_path: Path) -> None:
    clock = Clock()
    serve(tmp_path, clock, 25)
    assert learned(serve(tmp_path, clock, 10, schema="schema = 3")) == 10
    checked(tmp_path, of=35)


def test_a_new_ledger_may_start_at_any_schema(tmp_path: Path) -> None:
    assert learned(serve(tmp_path, Clock(), 12, schema="schema = 7")) == 12
    checked(tmp_path, of=12)
