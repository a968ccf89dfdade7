"""A ledger from before `centred` was the default: it goes on as it was, and a new schema number begins the new policy
with what was learned.
"""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from api.ledger import audit
from api.ledger.catalogue_changes import as_begun, fates
from api.ledger.statistics_store import load
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.policies import Centred, Hierarchical

Serving = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

APP = """
app = "shop"
currency = "EUR"
[stages.cart]
POLICY
floor = 0.1
drift = { watch = false }
reward = { kind = "binary", window = "1d", value = 20.0 }
[stages.cart.features]
mobile = { type = "boolean", default = true }
[stages.cart.nudges]
five = { type = "discount", format = "banner" }
mail = { type = "reminder", format = "mail" }
"""
BEFORE = APP.replace("POLICY", 'policy = { name = "hierarchical" }')
NOW = APP.replace("POLICY", "")
ANEW = APP.replace("POLICY", "schema = 2")


@pytest.fixture
def ledger(serving: Serving, later: Later, tmp_path: Path) -> Path:
    """Ledger of 400 settled decisions, under the earlier default: `five` brings 0.8, everything else 0.1. The floor
    shows each often enough to tell.
    """
    path, rng = tmp_path / "ledger.db", random.Random(1)
    with serving(SqliteStore(path), app=written(tmp_path, BEFORE), salt="pepper") as client:
        for _ in range(8):
            asked = [
                {"stage": "cart", "user_id": f"user {rng.randrange(10**6)}", "context": {"mobile": rng.random() < 0.5}}
                for _ in range(50)
            ]
            made = client.post("/v1/decisions/batch", json={"decisions": asked}).json()["decisions"]
            told = [
                {"decision_id": d["decision"]["decision_id"], "kind": "reward", "value": 1.0}
                for d in made
                if rng.random() < (0.8 if d["decision"]["nudge"]["id"] == "five" else 0.1)
            ]
            client.post("/v1/outcomes/batch", json={"outcomes": told})
            later(2 * 86_400)
            client.learned()
    return path


def written(folder: Path, text: str) -> str:
    file = folder / "shop.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_stage_that_declares_no_policy_goes_on_under_the_default_it_learned_with(
    serving: Serving, ledger: Path, tmp_path: Path
) -> None:
    with closing(SqliteStore(ledger)) as store:
        before = load(store, audit.stages(store))["cart"].snapshot("shop", "cart").belief.digest()
        (fate,) = fates(store, parse(NOW), "pepper")
        assert fate.what == "kept"
        assert "goes on under `hierarchical`" in fate.why
        assert as_begun(store, parse(NOW)).stages["cart"].policy == Hierarchical()
    with serving(SqliteStore(ledger), app=written(tmp_path, NOW), salt="pepper") as client:
        client.post("/v1/decisions", json={"stage": "cart", "user_id": "u", "context": {}})
    with closing(SqliteStore(ledger)) as store:
        assert audit.stages(store)["cart"].policy == Hierarchical()
        assert load(store, audit.stages(store))["cart"].snapshot("shop", "cart").belief.digest() == before
        assert all(one.equal for one in audit.rebuild(store, audit.stages(store)))


def test_a_higher_schema_number_begins_the_new_default_with_what_was_learned(
    serving: Serving, ledger: Path, tmp_path: Path
) -> None:
    with closing(SqliteStore(ledger)) as store:
        (fate,) = fates(store, parse(ANEW), "pepper")
        assert (fate.what, "400 learned decision(s) teach its policy anew" in fate.why) == ("anew", True)
    shown = []
    for _ in range(2):  # a restart changes nothing
        with serving(SqliteStore(ledger), app=written(tmp_path, ANEW), salt="pepper") as client:
            client.post("/v1/decisions", json={"stage": "cart", "user_id": "u", "context": {"mobile": True}})
        with closing(SqliteStore(ledger)) as store:
            stage = audit.stages(store)["cart"]
            assert (stage.policy, stage.schema) == (Centred(), 2)
            snapshot = load(store, {"cart": stage})["cart"].snapshot("shop", "cart")
            shown.append(snapshot.belief.digest())
            assert snapshot.belief.n[:3].sum() == 400
            assert all(one.equal for one in audit.rebuild(store, audit.stages(store)))
            salt = audit.salt_of(store, "pepper")
            assert [row.seq for row in store.decisions("cart") if audit.differences(store, row, salt)] == []
            newest = list(store.decisions("cart"))[-1].decision
            assert newest.mean[1] > 0.5
            assert newest.mean[0] < 0.3
    assert shown[0] == shown[1]


def test_what_a_crash_cut_off_is_done_at_the_next_start(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(SqliteStore(ledger)) as store:
        with monkeypatch.context() as broken:
            broken.setattr(SqliteStore, "put_warm_start", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                audit.claim(store, parse(ANEW), "pepper")
        assert audit.stages(store)["cart"].schema == 1
        audit.claim(store, parse(ANEW), "pepper")
        stage = audit.stages(store)["cart"]
        assert load(store, {"cart": stage})["cart"].snapshot("shop", "cart").belief.n[:3].sum() == 400


def test_a_stage_whose_features_changed_too_begins_with_nothing(ledger: Path) -> None:
    other = parse(ANEW.replace("mobile = {", "tablet = {"))
    with closing(SqliteStore(ledger)) as store:
        (fate,) = fates(store, other, "pepper")
        assert "stay in the ledger, unused" in fate.why
        audit.claim(store, other, "pepper")
        stage = audit.stages(store)["cart"]
        assert load(store, {"cart": stage})["cart"].snapshot("shop", "cart").belief.n.sum() == 0
