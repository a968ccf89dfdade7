"""A candidate that is judged decides half of every decision: exactly, provably, and until the next release."""

import json
import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.ledger import audit
from api.ledger.candidates import candidate
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from api.webhooks.config import released
from bandit import engine, receipt
from bandit.arrays import Array
from bandit.engine import DecisionQuery
from bandit.numerics import versions
from bandit.policies import Linear, Uniform
from bandit.propensity.floor import UNITS
from bandit.records import Release
from bandit.snapshot import Snapshot
from tests.api.ledger.test_loss_account import centred_file, traffic  # noqa: F401 - a fixture
from tests.api.releases.test_releases import back, body, live, release, teach

Serving = Callable[..., Any]
Later = Callable[[float], int]
N = 4000


def judge(client: Any, snapshot: Snapshot, version: str = "9", **more: Any) -> Any:
    return release(client, snapshot, version, judge=True, decisions=N, **more)


def other(snapshot: Snapshot, **changed: Any) -> Snapshot:
    """The snapshot under another policy or floor."""
    given = {"policy": Linear(alpha=2.0), "floor": 0.05, **changed}
    return msgspec.structs.replace(snapshot, stage_spec=msgspec.structs.replace(snapshot.stage_spec, **given))


def vector(made: Any, arms: tuple[str, ...]) -> Array:
    return np.array([made["propensities"].get(arm, 0.0) for arm in arms])


def alone(snapshot: Snapshot, context: dict[str, Any]) -> Array:
    """What a snapshot would draw from."""
    ask = DecisionQuery(id=uuid.uuid4(), user_id="u", context=context)
    return engine.decide(engine.prepare(snapshot), ask, now=0, salt=b"").propensity


def proven(store: Store, ids: list[str], salt: str = "salt") -> None:
    """Every decision follows from the ledger, to the bit, with both halves."""
    found = store.decisions_by_id([uuid.UUID(i) for i in ids])
    key = audit.salt_of(store, salt)
    for row in found.values():
        assert audit.differences(store, row, key) == []


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "ledger.db")


def test_half_of_a_candidate_and_half_of_what_is_learned(serving: Serving, later: Later, ledger: Store) -> None:
    """The logged propensity is the probability of the draw, and learning goes on in the other half."""
    context = {"age": 44, "plan": "pro"}
    with serving(ledger) as client:
        teach(client, later)
        mine = other(live(client))
        told = judge(client, mine)
        assert (told["judge"], told["decisions"], told["rolls_back_to"]) == (True, N, "")
        ids, seen = [], []
        for _ in range(3):
            learned, arms = live(client), mine.stage_spec.arms
            made = client.ask(context=context)
            assert made["release"] == {
                "number": 1,
                "model": "shop-signup",
                "version": "9",
                "sha256": told["sha256"],
                "judge": True,
            }
            p, halves = vector(made, arms), 0.5 * (alone(learned, context) + alone(mine, context))
            np.testing.assert_allclose(p, halves, rtol=0.0, atol=len(arms) / UNITS)
            assert p.sum() == 1.0
            receipt_ = client.get(f"/v1/decisions/{made['decision_id']}").json()
            assert receipt_["candidate"] == dict(zip(arms, alone(mine, context).tolist(), strict=True))
            assert made["policy_version"] == learned.version
            ids.append(made["decision_id"])
            seen.append(learned.version)
            teach(client, later)
        assert len(set(seen)) == 3  # the live half has learned in between
        proven(ledger, [*ids, *(str(f.decision.id) for f in list(ledger.decisions("signup"))[-40:])])
        assert client.get("/health/ready").json()["releases"] == {"signup": "shop-signup 9 (judged, one half)"}
        assert all(result.equal for result in audit.rebuild(ledger, audit.stages(ledger)))


def test_one_and_many_have_the_same_bits(client: Any, later: Later) -> None:
    teach(client, later)
    learned = live(client)
    policy = engine.beside(engine.prepare(learned), engine.prepare(other(learned)))
    rng = np.random.default_rng(5)
    d, k = len(policy.schema.columns), len(learned.stage_spec.arms)
    x = np.column_stack([np.ones(300), np.rint(rng.uniform(-1, 1, (300, d - 1)) * 4096) / 4096])
    may = rng.random((300, k)) < 0.7
    may[:, 0] = True
    many = engine.choose_many(policy, x, may)
    for i in range(300):
        one = engine.choose(policy, x[i], may[i])
        for name in ("propensity", "mean", "sd"):
            assert np.array_equal(getattr(one, name), getattr(many, name)[i]), name
        assert (one.propensity[~may[i]] == 0.0).all()


def test_beside_a_release_through_a_restart_and_a_rollback_in_the_middle(
    serving: Serving, later: Later, tmp_path: Path
) -> None:
    file, context = tmp_path / "ledger.db", {"age": 9}
    ids = list[str]()
    with serving(SqliteStore(file)) as client:
        teach(client, later)
        first = live(client)
        release(client, first, "1")
        mine = other(first)
        judge(client, mine, "2", approved_at="2025-10-09T09:00:00Z")
        ids.append((before := client.ask(user="a", context=context))["decision_id"])
    with serving(SqliteStore(file)) as client:
        again = client.ask(user="b", context=context)
        assert again["release"]["judge"]
        assert again["propensities"] == before["propensities"]
        judge(client, other(first, policy=Uniform()), "3", approved_at="2025-10-09T10:00:00Z")
        second = client.ask(user="c", context=context)
        np.testing.assert_allclose(
            vector(second, first.stage_spec.arms),
            0.5 * (alone(first, context) + alone(other(first, policy=Uniform()), context)),
            atol=1e-6,
        )  # the other half is version 1, not the candidate before
        done = back(client)
        assert (done["version"], done["judge"], done["decisions"]) == ("1", False, 0)
        after = client.ask(user="d", context=context)
        assert vector(after, first.stage_spec.arms).tolist() == alone(first, context).tolist()
        promoted = release(client, mine, "2", approved_at="2025-10-09T11:00:00Z")
        assert (promoted["judge"], promoted["rolls_back_to"]) == (False, "1")
        alone_now = client.ask(user="e", context=context)
        assert vector(alone_now, first.stage_spec.arms).tolist() == alone(mine, context).tolist()
        ids += [made["decision_id"] for made in (again, second, after, alone_now)]
        history = client.get("/v1/releases").json()["releases"]
        assert [(r["version"], r["judge"]) for r in history] == [
            ("1", False), ("2", True), ("3", True), ("1", False), ("2", False),
        ]  # fmt: skip
    store = SqliteStore(file)
    proven(store, ids)
    assert all(result.equal for result in audit.rebuild(store, audit.stages(store)))
    store.close()


def test_a_vector_of_the_candidate_that_was_changed_shows(serving: Serving, later: Later, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.db")
    with serving(store) as client:
        teach(client, later)
        judge(client, other(live(client)))
        made = client.ask()
        (found,) = store.decisions_by_id([uuid.UUID(made["decision_id"])]).values()
        wrong = msgspec.structs.replace(found.decision, candidate=found.decision.candidate[::-1].copy())
        again = engine.recompute(audit.deciding(store, found), wrong, audit.salt_of(store, "salt"))
        arms = store.specs()[wrong.stage_digest].arms
        assert receipt.differences(wrong, again, arms, versions.ARITHMETIC) == ["candidate"]


def test_the_number_that_was_declared_cannot_be_changed_unseen(client: Any, later: Later) -> None:
    """The same request again changes nothing; another number is another release, from which counting begins anew."""
    mine = other(live(client))
    assert judge(client, mine) == judge(client, mine)
    assert release(client, mine, "9", judge=True, decisions=N // 2)["number"] == 2
    listed = client.get("/v1/releases").json()["releases"]
    assert [(one["judge"], one["decisions"]) for one in listed] == [(True, N), (True, N // 2)]
    assert client.ask()["release"]["number"] == 2


def test_what_cannot_be_judged_names_the_field(client: Any, refused: Callable[..., Any]) -> None:
    path, mine = "/v1/policies/signup/release", live(client)
    for field, given in (
        ("decisions", body(mine, judge=True)),
        ("decisions", body(mine, judge=True, decisions=99)),
        ("decisions", body(mine, judge=True, decisions=-1)),
        ("decisions", body(mine, judge=True, decisions="4000")),
        ("decisions", body(mine, decisions=4000)),
        ("version", body(None, "", judge=True, decisions=4000)),
        ("kind", body(mine, judge=True, decisions=4000, kind="rollback")),
        ("judge", body(mine, judge="yes", decisions=4000)),
    ):
        refused(client.put(path, json=given), 400, field)
    judge(client, other(mine))
    words = {"approved_by": "ben", "reason": "back", "to": "9"}
    found = refused(client.post("/v1/policies/signup/rollback", json=words), 400, "to")
    assert found["problem"] == "version 9 was never released at signup"  # it was only judged
    assert len(client.get("/v1/releases").json()["releases"]) == 1


def test_a_candidate_that_the_catalogue_has_outgrown_leaves_the_other_half(
    serving: Serving, catalogue_file: Path, catalogue_text: str, tmp_path: Path
) -> None:
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        release(client, live(client), "1")
        judge(client, other(live(client)), "2", approved_at="2025-10-09T09:00:00Z")
    catalogue_file.write_text(catalogue_text.replace("cost = 0.5", "cost = 0.7"), encoding="utf-8")
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        assert "2 is not served" in client.get("/health/ready").json()["failing"]["release signup"]
        assert "release" not in client.ask()  # version 1 was made for the same catalogue
    catalogue_file.write_text(catalogue_text, encoding="utf-8")
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        assert client.ask()["release"]["judge"]


def test_the_loss_account_counts_what_the_candidate_exposes_people_to(
    serving: Serving,
    later: Later,
    centred_file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Both halves have the share of the account, and its sums hold the mixture that was drawn from."""
    store = SqliteStore(tmp_path / "ledger.db")
    with serving(store, app=str(centred_file), salt="pepper") as client:
        traffic(client, later, random.Random(1), 3)
        stage = audit.stages(store)["signup"]
        spec = msgspec.structs.replace(stage, policy=Linear(alpha=1.0), floor=0.0)
        judge(client, candidate(store, "signup", store.last().settlement, spec))
        traffic(client, later, random.Random(2), 3)
        judged = [row for row in store.decisions("signup") if row.decision.release]
        assert judged
        proven(store, [str(row.decision.id) for row in judged[::20]], "pepper")
        for row in judged[::20]:
            account = audit.deciding(store, row).snapshot.loss_account
            assert account is not None
            if not row.decision.holdout:
                assert row.decision.candidate[0] >= 1.0 - account.share - 1e-6
        (result,) = audit.rebuild(store, {"signup": audit.stages(store)["signup"]})
        assert result.equal


def test_a_webhook_says_that_a_release_is_judged_and_keeps_what_decided_before() -> None:
    told: dict[str, Any] = {"model": "m", "sha256": "a", "belief_sha256": "b", "approved_by": "ana", "reason": "r"}
    one = Release(seq=1, stage="signup", version="1", approved_at=0, **told)
    two = msgspec.structs.replace(one, seq=2, version="2", judge=True, decisions=N)
    data = json.loads(released("shop", one, two).body)["data"]
    assert (data["before"]["version"], data["after"]["version"]) == ("1", "2")
    assert (data["judge"], data["decisions"]) == (True, N)
    assert "judge" not in json.loads(released("shop", two, one).body)["data"]
