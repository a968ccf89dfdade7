"""The learned price of a served stage: a function of the ledger, whatever the order, shown with its evidence."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.ledger import audit, nudges
from api.ledger.statistics_store import key_of, load, recount
from api.stores.learning_state import StatisticsUpdate
from api.stores.protocol import Store
from bandit import engine, receipt
from bandit.numerics import versions

Serving = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

DAY = 86_400


@pytest.fixture
def priced_file(tmp_path: Path, catalogue_text: str) -> Path:
    """The small catalogue, its stage `signup` under the centred policy without a loss account, with a holdout."""
    path = tmp_path / "priced.toml"
    text = catalogue_text.replace("floor = 0.02\n", "", 1)
    head, declared, rest = text.partition('policy = { name = "linear"')
    assert declared
    start = '\nloss = "none"\npolicy = { name = "centred", prior_mean = 0.2'
    path.write_text(head.rstrip() + start + rest[rest.index(" }") :], encoding="utf-8")
    return path


def traffic(client: Any, later: Later, seed: int, days: int) -> None:
    """Two batches a day of forty people; every third reward comes, some people tire."""
    rng = random.Random(seed)
    for _ in range(2 * days):
        people = rng.sample(range(40), 20)
        asked = [
            {"stage": "signup", "user_id": f"user {i}", "context": {"age": rng.uniform(18, 80)}} for i in sorted(people)
        ]
        made = [
            r["decision"] for r in client.post("/v1/decisions/batch", json={"decisions": asked}).json()["decisions"]
        ]
        told = [{"decision_id": d["decision_id"], "kind": "reward", "value": 1.0} for d in made if rng.random() < 1 / 3]
        client.post("/v1/outcomes/batch", json={"outcomes": told})
        later(DAY / 2)
        client.learned()


def test_the_price_is_a_function_of_the_ledger(serving: Serving, later: Later, priced_file: Path, store: Store) -> None:
    """What the service keeps is what a rebuild counts, to the bit; a change of the last bit is found; receipts hold."""
    with serving(store, app=str(priced_file), salt="pepper") as client:
        traffic(client, later, 1, 14)
        stage = audit.stages(store)["signup"]
        kept = store.statistics(key_of("signup", stage), (), 0).nudges
        assert kept == recount(store, "signup", stage)[0].nudges
        assert kept == load(store, {"signup": stage})["signup"].nudges
        assert kept.decisions > 200
        assert kept.instrument > 0.0
        assert next(iter(audit.rebuild(store, {"signup": stage}))).equal
        found, salt = list(store.decisions("signup")), audit.salt_of(store, "pepper")
        prices = set()
        for row in found[:: len(found) // 20]:
            live = audit.deciding(store, row)
            again = engine.recompute(live, row.decision, salt)
            assert receipt.differences(row.decision, again, live.snapshot.stage_spec.arms, versions.ARITHMETIC) == []
            assert live.snapshot.nudge_price is not None
            prices.add(live.snapshot.nudge_price.price)
        assert len(prices) > 5  # it moves with what is known
        wrong = kept._replace(score=kept.score + 2.0**-24)
        store.replace_statistics(StatisticsUpdate(key_of("signup", stage), (), {}, nudges=wrong))
        assert not next(iter(audit.rebuild(store, {"signup": stage}))).equal


def test_recent_nudges_are_those_of_the_persons_earlier_decisions(
    serving: Serving, later: Later, priced_file: Path, store: Store
) -> None:
    """By hand from the ledger's rows; decisions of the holdout have no part in it."""
    with serving(store, app=str(priced_file), salt="pepper") as client:
        traffic(client, later, 2, 6)
        rows = [row for row in store.decisions("signup") if row.settlement is not None and row.settlement.learned]
        found = nudges.past(store)([(row.decision, row.settlement) for row in rows if row.settlement])
        every = [row for row in store.decisions() if not row.decision.holdout]
        for i, row in enumerate(rows):
            mine = [e.decision for e in every if e.decision.user == row.decision.user and e.seq < row.seq]
            felt = [0.85 ** ((row.decision.at - d.at) / (1e6 * DAY)) for d in mine]
            drawn = [(d.arm != "none") - (1.0 - d.propensity[0]) for d in mine]
            assert found.centred[i] == pytest.approx(float(np.dot(felt, drawn)), abs=1e-5)
            assert found.visits[i] == pytest.approx(sum(felt), abs=1e-5)
            assert bool(found.first[i]) == (not mine)
        assert found.first.sum() == len({row.decision.user for row in rows})


def test_the_policies_route_shows_the_price_with_its_evidence(
    serving: Serving, later: Later, priced_file: Path, store: Store
) -> None:
    with serving(store, app=str(priced_file), salt="pepper") as client:
        traffic(client, later, 3, 4)
        shown = client.get("/v1/policies").json()["policies"]
        (signup,) = [one for one in shown if one["stage"] == "signup"]
        price = signup["nudge_price"]
        assert price["low"] <= price["price"] <= price["high"]
        assert price["charged"]
        assert f"{price['decisions']:,} settled decisions of {price['people']:,} people" in price["evidence"]
        assert all(one["nudge_price"] is None for one in shown if one["stage"] != "signup")
        declared = audit.stages(store)["signup"].holdout
        assert (signup["holdout"] is not None) == (declared > 0.0)


def test_a_holdout_is_an_audit_beside_the_price(
    serving: Serving, later: Later, priced_file: Path, tmp_path: Path, store: Store
) -> None:
    """Totals of people by hand, from the ledger's rows."""
    text = priced_file.read_text(encoding="utf-8").replace('\nloss = "none"\n', '\nloss = "none"\nholdout = 0.3\n', 1)
    path = tmp_path / "held.toml"
    path.write_text(text, encoding="utf-8")
    with serving(store, app=str(path), salt="pepper") as client:
        traffic(client, later, 4, 5)
        (signup,) = [one for one in client.get("/v1/policies").json()["policies"] if one["stage"] == "signup"]
        held, brought = set(), dict[bytes, float]()
        stage = audit.stages(store)["signup"]
        for row in store.decisions("signup"):
            if row.settlement is not None:
                made, arm = row.decision, row.settlement.arm
                a, value = stage.arms.index(arm), stage.reward.value
                cost = 0.0 if a == 0 else stage.nudges[arm].cost
                gain = value - (0.0 if a == 0 else stage.nudges[arm].cost_when_rewarded)
                brought[made.user] = brought.get(made.user, 0.0) + gain * row.settlement.reward - cost
                held |= {made.user} if made.holdout else set()
        without = [v for user, v in brought.items() if user in held]
        nudged = [v for user, v in brought.items() if user not in held]
        shown = signup["holdout"]
        assert (shown["people"], shown["holdout"]) == (len(nudged), len(without))
        assert shown["with_nudges"] == pytest.approx(np.mean(nudged))
        assert shown["without"] == pytest.approx(np.mean(without))
        error = np.sqrt(np.var(nudged, ddof=1) / len(nudged) + np.var(without, ddof=1) / len(without))
        assert shown["high"] - shown["low"] == pytest.approx(2 * 1.959963984540054 * error)


def test_an_opt_out_is_a_consent_that_was_there_before(
    serving: Serving, later: Later, priced_file: Path, tmp_path: Path, store: Store
) -> None:
    """Of thirty people ten withdraw their consent after six decisions: those who had seen a nudge count, once each."""
    text = priced_file.read_text(encoding="utf-8")
    path = tmp_path / "consent.toml"
    path.write_text(text.replace('type = "help"\n', 'type = "help"\nconsent = ["nudges"]\n', 2), encoding="utf-8")
    with serving(store, app=str(path), salt="pepper") as client:
        for day in range(10):
            asked = [
                {"stage": "signup", "user_id": f"user {i}", "context": {}, "consent": {"nudges": day < 6 or i >= 10}}
                for i in range(30)
            ]
            assert client.post("/v1/decisions/batch", json={"decisions": asked}).status_code == 200
            later(DAY)
            client.learned()
        made = list(store.decisions("signup"))
        gone = {m.decision.user for m in made if any("consent" in reason for reason in m.decision.excluded.values())}
        had = {m.decision.user for m in made if m.decision.arm != "none"}
        kept = store.statistics(key_of("signup", audit.stages(store)["signup"]), (), 0).nudges
        assert len(gone) == 10
        assert kept.opt_outs == len(gone & had)
        assert kept.opt_outs >= 2
