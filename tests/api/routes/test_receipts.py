"""What the API tells of the ledger and of itself: receipts, policies, health, metrics."""

import datetime as dt
import itertools
import random
import threading
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.ledger import audit
from api.settings import Settings
from api.stores import open_store
from api.stores.memory.store import MemoryStore
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.catalogue.model import Catalogue
from bandit.errors import LedgerMismatch, Unavailable
from bandit.propensity.draw import draw
from bandit.snapshot import from_zip

Client = Any  # conftest.Caller
Refused = Callable[[Any, int, str], Any]
Serving = Callable[..., AbstractContextManager[Client]]
Later = Callable[[float], int]

HOUR = 3600
STARTED = dt.datetime(2025, 10, 9, 8, 53, 20, tzinfo=dt.UTC)
UNKNOWN = str(uuid.UUID(int=404))


# -- receipts and what is live ---------------------------------------------------------------------------------


def test_a_receipt_repeats_the_decision_and_what_became_of_it(client: Client, later: Later) -> None:
    reply = client.ask(context={"age": 20}, evidence={"stock": 2, "deadline": "2026-01-01T00:00:00+01:00"})
    later(60)
    client.tell(reply, occurred_at="2025-10-09T08:54:00Z")
    later(HOUR)
    client.learned()
    receipt = client.get(f"/v1/decisions/{reply['decision_id']}").json()
    shared = ("decision_id", "stage", "nudge", "excluded", "policy", "policy_version", "holdout", "expires_at", "notes")
    assert {name: receipt[name] for name in shared} == {name: reply[name] for name in shared}
    assert {a: receipt["arms"][a]["propensity"] for a in receipt["eligible"]} == reply["propensities"]
    assert receipt["evidence"] == {"stock": 2, "deadline": "2025-12-31T23:00:00Z"}
    assert 0 <= receipt["u"] < 1
    assert receipt["seq"] == 1
    assert receipt["decided_at"] == "2025-10-09T08:53:20Z"
    (outcome,) = receipt["outcomes"]
    assert (outcome["occurred_at"], outcome["received_at"]) == ("2025-10-09T08:54:00Z", "2025-10-09T08:54:20Z")
    assert receipt["settled"] == {
        "seq": 1, "reward": 1.0, "why": "reward", "learned": True, "settled_at": "2025-10-09T09:54:20Z",
    }  # fmt: skip


def test_a_decision_nobody_made_has_no_receipt(client: Client, refused: Refused) -> None:
    refused(client.get(f"/v1/decisions/{UNKNOWN}"), 404, "decision_id")


def random_requests(rng: random.Random, count: int) -> list[dict[str, Any]]:
    contexts: dict[str, Callable[[], dict[str, Any]]] = {
        "signup": lambda: {"age": rng.uniform(-50, 150), "plan": rng.choice(["free", "pro", "x"])},
        "basket": lambda: {"items": rng.randrange(30)},
        "instant": lambda: {"country": rng.choice(["de", "fr", None])},
        "shown": lambda: {"score": rng.gauss(0, 1)},
    }
    requests = []
    for _ in range(count):
        stage = rng.choice(list(contexts))
        evidence: dict[str, Any] = {"stock": rng.randrange(9)} if rng.random() < 0.5 else {}
        evidence |= {"deadline": "2025-10-10T00:00:00Z"} if rng.random() < 0.5 else {}
        exclude = ["tip"] if stage == "signup" and rng.random() < 0.2 else []
        user = f"user {rng.randrange(count)}"
        request = {"stage": stage, "user_id": user, "context": contexts[stage](), "evidence": evidence}
        requests.append({**request, "exclude": exclude})
    return requests


def test_every_row_of_the_ledger_is_a_distribution_above_the_floor_and_can_be_recomputed(
    serving: Serving, catalogue: Catalogue, later: Later
) -> None:
    """After random traffic with learning in between: the ledger alone gives the same numbers again."""
    store, rng = MemoryStore(), random.Random(11)
    with serving(store, salt="pepper") as client:
        for _ in range(12):
            replies = client.post("/v1/decisions/batch", json={"decisions": random_requests(rng, 60)}).json()
            decided = [item["decision"] for item in replies["decisions"]]
            outcomes = [
                {"decision_id": d["decision_id"], "kind": "reward", "value": float(rng.random() < 0.4)}
                for d in decided
                if rng.random() < 0.6
            ]
            client.post("/v1/outcomes/batch", json={"outcomes": outcomes})
            later(HOUR / 2)
            client.learned()
        found, salt, specs = list(store.decisions()), audit.salt_of(store, "pepper"), store.specs()
        assert len(found) == 720
        assert len({f.decision.settlement_version for f in found}) > 8
        for row in found:
            made, spec = row.decision, specs[row.decision.stage_digest]
            eligible = np.array([arm not in made.excluded for arm in spec.arms])
            assert abs(made.propensity.sum() - 1) < 1e-12
            assert (made.propensity[eligible] >= spec.common_floor * (1 - 1e-12)).all()
            assert (made.propensity[~eligible] == 0.0).all()
            assert spec.arms[draw(made.propensity, made.u)] == made.arm
        for row in found[::45]:
            made = row.decision
            again = engine.recompute(engine.prepare(audit.past(store, row)), made, salt)
            for name in ("propensity", "mean", "sd"):
                assert getattr(again, name).tobytes() == getattr(made, name).tobytes()
            assert (again.u, again.arm) == (made.u, made.arm)


def test_stages_are_told_as_declared(serving: Serving, catalogue: Catalogue) -> None:
    with serving(window_scale=0.001) as client:
        reply = client.get("/v1/stages").json()
        assert client.ask()["expires_at"] == "2025-10-09T08:53:23.600000Z"
    assert (reply["app"], reply["currency"]) == ("shop", "EUR")
    assert [s["stage"] for s in reply["stages"]] == list(catalogue.stages)
    signup = reply["stages"][0]
    assert list(signup["nudges"]) == list(catalogue.stages["signup"].arms)
    assert (signup["window_seconds"], signup["declared_seconds"]) == (3.6, 3600.0)
    assert (signup["features"]["age"]["max"], signup["floor"], signup["policy"]["name"]) == (100.0, 0.02, "linear")


def test_policies_tell_what_each_arm_taught(client: Client, later: Later) -> None:
    decisions = [client.ask("instant", decision_id=str(uuid.UUID(int=n))) for n in range(12)]
    for n, decision in enumerate(decisions):
        client.tell(decision, value=10.0 * n - 10)
    policies = client.learned()
    assert policies["instant"]["version"] == 12
    assert policies["signup"]["version"] == 0
    for arm in policies["instant"]["arms"]:
        rewards = [10.0 * n - 10 for n, d in enumerate(decisions) if d["nudge"]["id"] == arm["arm"]]
        assert arm["learned"] == len(rewards) > 0
        assert arm["mean_reward"] == pytest.approx(np.mean(np.clip(rewards, -10, 100)), abs=1e-5)
    assert {a["mean_reward"] for a in policies["signup"]["arms"]} == {None}


def test_a_snapshot_is_the_live_policy(client: Client, later: Later, refused: Refused) -> None:
    client.tell(client.ask())
    later(HOUR)
    policy = client.learned()["signup"]
    reply = client.get("/v1/policies/signup/snapshot")
    assert reply.headers["content-type"] == "application/zip"
    snapshot = from_zip(reply.content)
    assert (snapshot.app, snapshot.stage, snapshot.version) == ("shop", "signup", policy["version"])
    assert snapshot.belief.digest() == policy["belief_sha256"]
    refused(client.get("/v1/policies/nope/snapshot"), 404, "stage")


# -- operating -------------------------------------------------------------------------------------------------


class Broken(MemoryStore):
    """Cannot write while `broken`."""

    broken = False

    def record(self, *args: Any) -> Any:
        if self.broken:
            raise Unavailable("the ledger could not be written: disk full")
        return super().record(*args)

    def set_meta(self, *args: Any) -> None:
        if self.broken:
            raise Unavailable("the ledger could not be written: disk full")
        super().set_meta(*args)


def test_a_ledger_that_cannot_be_written_is_a_503_and_unready_until_it_can(serving: Serving) -> None:
    store = Broken()
    with serving(store) as client:
        assert client.get("/health/ready").json()["status"] == "ok"
        store.broken = True
        body = {"stage": "signup", "user_id": "u", "decision_id": str(uuid.uuid4())}
        for path, content in (("/v1/decisions", body), ("/v1/decisions/batch", {"decisions": [body]})):
            reply = client.post(path, json=content)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.headers["content-type"] == "application/problem+json"
            assert "retry with the same id" in reply.json()["detail"]
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "failing")
        assert "disk full" in ready.json()["failing"]["write"]
        assert client.get("/health/live").status_code == 200
        assert client.get("/v1/stages").status_code == 200
        store.broken = False
        tries = itertools.takewhile(lambda _: client.get("/health/ready").status_code == 503, range(2000))
        assert len(list(tries)) < 2000
        assert client.post("/v1/decisions", json=body).json()["duplicate"] is False


def test_without_its_writer_the_service_is_not_ready(catalogue_file: Path) -> None:
    """The lifespan was not entered, so no writer runs."""
    app = create_app(Settings(app=str(catalogue_file), dev=True), store=MemoryStore())
    reply = TestClient(app).get("/health/ready")
    assert (reply.status_code, reply.json()["status"]) == (503, "failing")
    assert "writer" in reply.json()["failing"]


def test_metrics_count_what_happens(client: Client) -> None:
    decision = client.ask()
    client.tell(decision)
    client.tell(decision)
    client.post("/v1/decisions", content=b"{")
    reply = client.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = reply.text.splitlines()
    arm = decision["nudge"]["id"]
    for expected in (
        f'journey_bandit_decisions_total{{arm="{arm}",holdout="false",stage="signup"}} 1.0',
        'journey_bandit_outcomes_total{kind="reward",status="recorded"} 1.0',
        'journey_bandit_outcomes_total{kind="reward",status="duplicate"} 1.0',
        'journey_bandit_http_responses_total{method="POST",route="/v1/decisions",status="400"} 1.0',
        'journey_bandit_http_responses_total{method="POST",route="/v1/outcomes",status="200"} 2.0',
    ):
        assert expected in lines


def test_everything_acknowledged_is_in_the_file_after_shutdown(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with serving(store=SqliteStore(path)) as client:
        ids = [client.ask(user=str(n))["decision_id"] for n in range(20)]
    assert "ledger-writer" not in {thread.name for thread in threading.enumerate()}
    with closing(SqliteStore(path)) as store:  # closed by the shutdown: nobody owns it any more
        assert [str(f.decision.id) for f in store.decisions()] == ids


def test_a_ledger_of_another_app_is_refused_and_not_held(serving: Serving, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with serving(store=open_store(url)):
        pass
    with pytest.raises(LedgerMismatch, match="'shop'") as refused:
        create_app(Settings(app="travel", store=url, dev=True))
    open_store(url).close()
    assert refused.value.__traceback__  # which would keep the refused one open


def test_a_store_is_opened_from_the_settings(serving: Serving, tmp_path: Path, catalogue_file: Path) -> None:
    settings = Settings(app=str(catalogue_file), store=f"sqlite:///{tmp_path}/own.db", dev=True)
    with TestClient(create_app(settings)) as client:
        assert client.get("/health/ready").json()["store"]["engine"] == "sqlite"
    assert (tmp_path / "own.db").exists()
