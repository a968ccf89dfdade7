"""The loss account of a served stage: a receipt computes it again, a restart and another order change nothing."""

import html
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from api.learning.learner import Learner
from api.ledger import audit, exposures
from api.ledger.statistics_store import key_of
from api.metrics import Metrics
from api.stores.learning_state import StatisticsUpdate
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine, receipt, snapshot
from bandit.catalogue.loading import parse
from bandit.learning.loss_account import FIRST
from bandit.numerics import versions
from bandit.records import OperatorAction
from experiments.reports import html_report, review
from journey_bandit.main import group
from journey_bandit.workflows import publishing
from journey_bandit.workflows.policy_evidence import gather
from journey_bandit.workflows.publishing import PublishRequest
from tests.experiments.reports.test_review_sections import ABOUT

Serving = Callable[..., AbstractContextManager[Any]]
Later = Callable[[float], int]

DAY = 86_400


@pytest.fixture
def centred_file(tmp_path: Path, catalogue_text: str) -> Path:
    """The small catalogue, its stage `signup` under the centred policy."""
    path = tmp_path / "centred.toml"
    text = catalogue_text.replace("floor = 0.02\n", "", 1)
    head, declared, rest = text.partition('policy = { name = "linear"')
    assert declared
    policy = 'policy = { name = "centred", prior_mean = 0.2'
    path.write_text(head + policy + rest[rest.index(" }") :], encoding="utf-8")
    return path


def traffic(client: Any, later: Later, rng: random.Random, days: int) -> list[dict[str, Any]]:
    """Four batches a day; every third nudge and every sixth silence is answered with a reward."""
    replies: list[dict[str, Any]] = []
    for _ in range(4 * days):
        asked = [
            {"stage": "signup", "user_id": f"user {rng.randrange(500)}", "context": {"age": rng.uniform(18, 80)}}
            for _ in range(25)
        ]
        made = [
            r["decision"] for r in client.post("/v1/decisions/batch", json={"decisions": asked}).json()["decisions"]
        ]
        told = [
            {"decision_id": d["decision_id"], "kind": "reward", "value": 1.0}
            for d in made
            if rng.random() < (0.2 if d["nudge"] == "none" else 0.35)
        ]
        client.post("/v1/outcomes/batch", json={"outcomes": told})
        replies += made
        later(DAY / 4)
        client.learned()
    return replies


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_every_decision_of_a_stage_with_a_loss_account_is_recomputed_to_the_bit(
    serving: Serving, later: Later, centred_file: Path, tmp_path: Path, kind: str
) -> None:
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "ledger.db")
    with serving(store, app=str(centred_file), salt="pepper") as client:
        traffic(client, later, random.Random(1), 6)
        found, salt = list(store.decisions("signup")), audit.salt_of(store, "pepper")
        shares = set()
        for row in found[:: len(found) // 40]:
            live = audit.deciding(store, row)
            again = engine.recompute(live, row.decision, salt)
            assert receipt.differences(row.decision, again, live.snapshot.stage_spec.arms, versions.ARITHMETIC) == []
            assert live.snapshot.loss_account is not None
            assert row.decision.loss_account == live.snapshot.loss_account  # of SQLite: read back from the file
            shares.add(live.snapshot.loss_account.share)
        assert FIRST in shares
        assert len(shares) > 4  # it moves with what is known


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_restart_goes_on_with_the_account_that_the_ledger_keeps(
    serving: Serving, later: Later, centred_file: Path, tmp_path: Path, kind: str
) -> None:
    """The kept sums are those of the decisions; a learner that loads them has the log of one that never stopped."""
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "ledger.db")
    with serving(store, app=str(centred_file), salt="pepper") as client:
        traffic(client, later, random.Random(2), 5)
        stage = audit.stages(store)["signup"]
        kept = store.statistics(key_of("signup", stage), (), 0).exposures
        assert kept is not None
        assert 0 < kept.through <= store.last().decision
        again, anew = exposures.load(store, {"signup": stage})["signup"], exposures.count(store, "signup", stage, 10**9)
        assert again.sums.n == anew.sums.n == sum(not row.decision.holdout for row in store.decisions("signup"))
        for one, other in zip(again.sums, anew.sums, strict=True):
            np.testing.assert_array_equal(one, other)
        assert again.newest is not None
        assert anew.newest is not None
        for mine, other in zip(again.newest, anew.newest, strict=True):
            np.testing.assert_array_equal(mine, other)
        (result,) = audit.rebuild(store, {"signup": stage})
        assert result.equal
        wrong = kept._replace(cost=kept.cost + 2.0**-24)
        store.replace_statistics(StatisticsUpdate(key_of("signup", stage), (), {}, exposures=wrong))
        assert next(iter(audit.rebuild(store, {"signup": stage}))).wrong_exposures


def test_what_decisions_exposed_people_to_is_kept_at_the_end_although_nothing_settled(
    serving: Serving, centred_file: Path, tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    with serving(store, app=str(centred_file), salt="pepper") as client:
        for i in range(7):
            assert client.post("/v1/decisions", json={"stage": "signup", "user_id": f"u{i}"}).status_code == 200
        stage = audit.stages(store)["signup"]
    store = SqliteStore(tmp_path / "ledger.db")
    kept = store.statistics(key_of("signup", stage), (), 0).exposures
    assert kept is not None
    assert kept.through == store.last().decision == 7
    assert store.last().settlement == 0
    assert not exposures.differs(kept, exposures.stored(stage, exposures.count(store, "signup", stage, 7), 7))
    store.close()


def test_what_a_killed_service_did_not_keep_the_next_one_keeps(
    serving: Serving, centred_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that was killed before it kept anything, and again: a start keeps what it had to count."""
    monkeypatch.setattr(Learner, "keep", lambda *_: None)
    with serving(SqliteStore(tmp_path / "ledger.db"), app=str(centred_file), salt="pepper") as client:
        for i in range(7):
            assert client.post("/v1/decisions", json={"stage": "signup", "user_id": f"u{i}"}).status_code == 200
    monkeypatch.undo()
    store = SqliteStore(tmp_path / "ledger.db")
    catalogue = parse(centred_file.read_text(encoding="utf-8"), "shop.toml")
    key = key_of("signup", catalogue.stages["signup"])
    assert store.statistics(key, (), 0).exposures is None
    anew = Learner(store, catalogue, Metrics(), lambda _: None, now=store.last().decision)
    anew.keep(5)
    anew.close()
    kept = store.statistics(key, (), 0).exposures
    assert kept is not None
    assert kept.through == 7
    store.close()


def test_a_stage_under_another_range_counts_its_exposures_again(
    serving: Serving, later: Later, centred_file: Path, tmp_path: Path
) -> None:
    """The kept sums are of contexts in the old range: they are left aside."""
    ledger = tmp_path / "ledger.db"
    with serving(SqliteStore(ledger), app=str(centred_file), salt="pepper") as client:
        traffic(client, later, random.Random(3), 2)
    wide = tmp_path / "wide.toml"
    text = centred_file.read_text(encoding="utf-8")
    assert "min = 0, max = 100" in text
    wide.write_text(text.replace("min = 0, max = 100", "min = 0, max = 200"), encoding="utf-8")
    store = SqliteStore(ledger)
    with serving(store, app=str(wide), salt="pepper") as client:
        stage = audit.stages(store)["signup"]
        log, anew = exposures.load(store, {"signup": stage})["signup"], exposures.count(store, "signup", stage, 10**9)
        for one, other in zip(log.sums, anew.sums, strict=True):
            np.testing.assert_array_equal(one, other)
        traffic(client, later, random.Random(4), 1)
        assert next(iter(audit.rebuild(store, {"signup": stage}))).equal


def test_receipts_policies_and_metrics_show_the_account_that_the_engine_used(
    serving: Serving, later: Later, centred_file: Path, tmp_path: Path
) -> None:
    """The share to the bit, amounts in currency: a unit of the reward is worth 20."""
    store = SqliteStore(tmp_path / "ledger.db")
    text = centred_file.read_text(encoding="utf-8")
    assert text.count("value = 10.0") == 1
    centred_file.write_text(text.replace("value = 10.0", "value = 20.0", 1), encoding="utf-8")
    with serving(store, app=str(centred_file), salt="pepper") as client:
        first = client.post("/v1/decisions", json={"stage": "signup", "user_id": "u"}).json()
        begun = client.get(f"/v1/decisions/{first['decision_id']}").json()["loss"]
        assert (begun["share"], begun["declared"], begun["budget"]) == (FIRST, 0.02, 0.0)
        assert "first day" in begun["why"]
        made = traffic(client, later, random.Random(5), 4)
        found = {str(row.decision.id): row.decision for row in store.decisions("signup")}
        for reply in made[:: len(made) // 20]:
            shown, used = (
                client.get(f"/v1/decisions/{reply['decision_id']}").json()["loss"],
                found[reply["decision_id"]],
            )
            account = used.loss_account
            assert account is not None
            assert shown["share"] == account.share
            assert shown["budget"] == 20.0 * account.budget
            assert shown["spent"] == -20.0 * account.gain
            assert shown["left"] == 20.0 * account.room
            assert shown["spent_at_most"] == pytest.approx(20.0 * (1.64 * account.sd - account.gain), abs=1e-9)
            assert shown["why"]
        policy = client.get("/v1/policies").json()["policies"][0]
        assert policy["stage"] == "signup"
        loss = policy["loss"]
        assert loss["budget"] > 0.0
        lines = client.get("/metrics").text.splitlines()
        gauges = {
            line.partition("{")[0].removeprefix("journey_bandit_loss_"): float(line.split()[-1])
            for line in lines
            if line.startswith("journey_bandit_loss_") and 'stage="signup"' in line
        }
        assert gauges == {name: loss[name] for name in ("share", "budget", "spent", "spent_at_most", "left")}


def test_a_receipt_whose_account_is_not_that_of_the_ledger_says_so(
    serving: Serving, later: Later, centred_file: Path
) -> None:
    store = MemoryStore()
    with serving(store, app=str(centred_file), salt="pepper") as client:
        traffic(client, later, random.Random(6), 2)
        row, salt = list(store.decisions("signup"))[-1], audit.salt_of(store, "pepper")
        assert audit.differences(store, row, salt) == []
        account = row.decision.loss_account
        assert account is not None
        other = msgspec.structs.replace(account, room=account.room + 1e-9)
        wrong = msgspec.structs.replace(row.decision, loss_account=other)
        assert audit.differences(store, row._replace(decision=wrong), salt) == ["loss_account"]
        older = msgspec.structs.replace(row.decision, loss_account=None)  # recorded before ledgers kept it
        assert audit.differences(store, row._replace(decision=older), salt) == []


def test_a_review_says_at_once_what_learning_may_cost_what_it_has_cost_and_what_it_decides(
    serving: Serving, later: Later, centred_file: Path, tmp_path: Path
) -> None:
    """Of what is live by its own account; of a candidate, that it has none and would decide everything."""
    ledger = tmp_path / "ledger.db"
    with serving(SqliteStore(ledger), app=str(centred_file), salt="pepper") as client:
        traffic(client, later, random.Random(7), 6)
        live = snapshot.from_zip(client.get("/v1/policies/signup/snapshot").content)
    command = ["catalogue", "check", str(centred_file), "--store", f"sqlite:///{ledger}", "--salt", "pepper"]
    checked = CliRunner().invoke(group, command).output  # 600 decisions in 5¾ days
    assert f"a month at {599 * 30 / 5.75:,.0f} decisions" in checked
    account = live.loss_account
    assert account is not None
    found = gather(str(ledger), "signup", None)
    said = {}
    for kind, mine in (("live", live), ("candidate", msgspec.structs.replace(live, loss_account=None))):
        own = publishing._loss(PublishRequest(str(ledger), "signup", mine, kind), found.log)
        about = ABOUT._replace(stage="signup", kind=kind, arms=found.log.arms, floor=0.0, **own)
        report = review.build(about, publishing._found(found))
        text = html_report.render(report)
        assert text.index("What learning costs") < text.index('<li id="q1">')
        assert all(html.escape(sentence) in text for sentence in report.loss)
        assert report.facts["loss"] == "2%"
        said[kind] = report.loss
        (table,) = [t for t in report.answers[5].tables if t.title == "Support of each nudge"]
        assert [row.name for row in table.rows] == ["none", "tip", "call"]  # the others lack their evidence
    may, has, decides = said["live"]
    assert may.startswith("Learning may cost 2% of what is earned with no nudge, and ")
    for amount, sentence in ((account.budget, may), (abs(account.gain), has), (account.room, has)):
        written = 10.0 * amount
        assert f"EUR {written:,.2f}" in sentence or f"EUR {written:.3g}" in sentence  # small ones with three digits
    assert decides.startswith(f"It decides {100 * account.share:.3g}% of the traffic outside the holdout: ")
    assert len(said["candidate"]) == 4
    assert "no loss account of its own: once approved, it decides 100%" in said["candidate"][3]
    ramped = found.log._replace(store=Ramped(found.log.store))
    for kind, mine in (("live", live), ("candidate", msgspec.structs.replace(live, loss_account=None))):
        own = publishing._loss(PublishRequest(str(ledger), "signup", mine, kind), ramped)
        assert own["loss"].traffic == pytest.approx(0.25 * own["loss"].share), "an operator has set the ramp to 25 %"
    assert own["unbounded"] == 0.25


class Ramped:
    """A store in which an operator has set the ramp of the sign-up to 25 %."""

    def __init__(self, store: Any):
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def operator_actions(self) -> list[OperatorAction]:
        told: dict[str, Any] = {"verb": "ramp", "share": 0.25, "reason": "a first look"}
        return [OperatorAction(at=1, who="ana", stage="signup", nudge="", **told)]
