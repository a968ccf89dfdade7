"""Approved snapshots decide to the bit what was approved, learning goes on beside them, and nothing unsound decides."""

import asyncio
import base64
import datetime as dt
import hashlib
import io
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.http.keys import create
from api.ledger import audit
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.engine import DecisionQuery
from bandit.policies import Linear, Uniform
from bandit.records import Release
from bandit.snapshot import Snapshot, from_zip, pack

Serving = Callable[..., Any]
WHEN = "2025-10-09T08:00:00Z"


def body(snapshot: Snapshot | None, version: str = "1", **more: Any) -> dict[str, Any]:
    """What `registry sync` sends."""
    told = {"model": "shop-signup", "version": version, "approved_by": "ana", "approved_at": WHEN, "reason": "better"}
    if snapshot is None:
        return {**told, **more}
    files = pack(snapshot)
    sent = {name.split(".")[0]: base64.b64encode(data).decode() for name, data in files.items()}
    sha = hashlib.sha256(files["policy.json"]).hexdigest()
    return {**told, **sent, "sha256": sha, "belief_sha256": snapshot.belief.digest(), **more}


def release(client: Any, snapshot: Snapshot | None, version: str = "1", stage: str = "signup", **more: Any) -> Any:
    reply = client.put(f"/v1/policies/{stage}/release", json=body(snapshot, version, **more))
    assert reply.status_code == 200, reply.text
    return reply.json()


def live(client: Any, stage: str = "signup") -> Snapshot:
    return from_zip(client.get(f"/v1/policies/{stage}/snapshot").content)


def teach(client: Any, later: Callable[[float], int], n: int = 40) -> None:
    """n decisions, half of them rewarded, learned."""
    for i in range(n):
        made = client.ask(user=f"u{i}", context={"age": i})
        if i % 2:
            client.tell(made)
    later(3700)
    client.learned()


def test_a_release_decides_bit_for_bit_while_learning_goes_on(client: Any, later: Callable[[float], int]) -> None:
    teach(client, later)
    approved = live(client)
    kept = release(client, approved)
    teach(client, later)
    made = client.ask(context={"age": 44, "plan": "pro"})
    assert made["release"] == {"number": 1, "model": "shop-signup", "version": "1", "sha256": kept["sha256"]}
    assert made["policy_version"] == approved.version
    ask = DecisionQuery(id=uuid.UUID(made["decision_id"]), user_id="u", context={"age": 44, "plan": "pro"})
    mine = engine.decide(engine.prepare(approved), ask, now=0, salt=b"")
    for arm, p in made["propensities"].items():
        assert p == mine.propensity[approved.stage_spec.arms.index(arm)]
    policy = client.learned()["signup"]
    assert policy["belief_sha256"] == approved.belief.digest()
    assert policy["release"]["version"] == "1"
    release(client, None, "", approved_at="2025-10-09T09:00:00Z")
    assert live(client).version > approved.version  # what was learned meanwhile
    assert "release" not in client.ask()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_another_policy_is_served_learned_from_proved_and_rolled_back(
    serving: Serving, later: Callable[[float], int], tmp_path: Path, kind: str
) -> None:
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "ledger.db")
    with serving(store) as client:
        teach(client, later)
        first = live(client)
        second = msgspec.structs.replace(
            first, stage_spec=msgspec.structs.replace(first.stage_spec, policy=Linear(alpha=1.0), floor=0.05)
        )
        release(client, first, "1")
        made = [client.ask(user="a", context={"age": 9})]
        release(client, second, "2")
        teach(client, later)
        made.append(client.ask(user="b", context={"age": 9}))
        again = release(client, first, "1", approved_at="2025-10-09T09:00:00Z", reason="conversion fell")
        assert again["belief_sha256"] == first.belief.digest()
        made.append(client.ask(user="c", context={"age": 9}))
        assert [m["release"]["version"] for m in made] == ["1", "2", "1"]
        assert made[0]["propensities"] == made[2]["propensities"] != made[1]["propensities"]
        assert min(made[1]["propensities"].values()) >= 0.05 - 1e-12
        for m in made:
            receipt = client.get(f"/v1/decisions/{m['decision_id']}").json()
            assert receipt["release"] == m["release"]
        history = client.get("/v1/releases").json()["releases"]
        assert [(r["number"], r["version"], r["reason"]) for r in history] == [
            (1, "1", "better"), (2, "2", "better"), (3, "1", "conversion fell"),
        ]  # fmt: skip
        ids = [uuid.UUID(m["decision_id"]) for m in made]
        found = store.decisions_by_id(ids)
        for i in ids:  # receipts recompute
            decision = found[i].decision
            mine = engine.recompute(audit.deciding(store, found[i]), decision, audit.salt_of(store, "salt"))
            for name in ("propensity", "mean", "sd"):
                assert np.array_equal(getattr(mine, name), getattr(decision, name)), name
            assert mine.arm == decision.arm
        for result in audit.rebuild(store, audit.stages(store)):
            assert result.equal


def test_a_release_survives_a_restart(serving: Serving, later: Callable[[float], int], tmp_path: Path) -> None:
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        teach(client, later)
        approved = live(client)
        release(
            client,
            msgspec.structs.replace(
                approved, stage_spec=msgspec.structs.replace(approved.stage_spec, policy=Uniform())
            ),
        )
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        made = client.ask()
        assert (made["policy"], made["release"]["version"]) == ("uniform", "1")
        assert client.get("/health/ready").json()["releases"] == {"signup": "shop-signup 1"}


def test_a_repeated_release_changes_nothing(client: Any) -> None:
    first = release(client, live(client))
    assert release(client, live(client)) == first
    assert len(client.get("/v1/releases").json()["releases"]) == 1


def back(client: Any, stage: str = "signup", **more: Any) -> Any:
    words = {"approved_by": "ben", "reason": "refunds rose", **more}
    reply = client.post(f"/v1/policies/{stage}/rollback", json=words)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_rollback_leads_to_what_decided_before_and_needs_only_the_ledger(
    client: Any, later: Callable[[float], int]
) -> None:
    """1, 2 and the mistake 3: back to 2, then to 1, then to what is learned live; never to what was taken back."""
    teach(client, later)
    first = live(client)
    for version in ("1", "2", "3"):
        release(client, first, version)
        later(1)
    listed = client.get("/v1/releases").json()["releases"]
    assert [one["rolls_back_to"] for one in listed] == ["", "1", "2"]
    for version in ("2", "1", ""):
        done = back(client)
        later(1)
        assert (done["kind"], done["version"], done["approved_by"]) == ("rollback", version, "ben")
        made = client.ask(user=f"after-{version}")
        assert made.get("release", {}).get("version", "") == version
        assert version == "" or live(client).belief.digest() == first.belief.digest()
    assert back(client, to="3")["rolls_back_to"] == "2"


def test_a_repeated_rollback_goes_back_once(client: Any) -> None:
    for version in ("1", "2", "3"):
        release(client, live(client), version)
    done = [back(client, approved_at="2025-10-09T09:00:00Z")["version"] for _ in range(3)]
    assert done == ["2", "2", "2"]
    assert back(client, approved_at="2025-10-09T09:00:01Z")["version"] == "1"


class LoopWatch(MemoryStore):
    """A store that says how often releases were read, and how often inside an event loop."""

    read, inside = 0, 0

    def releases(self, stage: str | None = None) -> list[Release]:
        self.read += 1
        self.inside += asyncio._get_running_loop() is not None
        return super().releases(stage)


def test_releases_are_read_beside_the_event_loop(serving: Serving) -> None:
    """Each holds the bytes of its snapshot: reading many of them would keep decisions waiting."""
    store = LoopWatch()
    with serving(store=store) as client:
        before = store.read, store.inside
        assert release(client, live(client))["rolls_back_to"] == ""
        assert release(client, live(client), "2")["rolls_back_to"] == "1"
        assert back(client)["version"] == "1"
        assert len(client.get("/v1/releases").json()["releases"]) == 3
        assert store.read >= before[0] + 4
        assert store.inside == before[1]


def test_a_rollback_that_cannot_be_names_the_field(
    client: Any, refused: Callable[..., Any], later: Callable[[float], int]
) -> None:
    words, path = {"approved_by": "ben", "reason": "refunds rose"}, "/v1/policies/signup/rollback"
    assert "nothing was ever released" in refused(client.post(path, json=words), 400, "to")["problem"]
    release(client, live(client), "7")
    found = refused(client.post(path, json={**words, "to": "8"}), 400, "to")
    assert (found["problem"], found["fix"]) == ("version 8 was never released at signup", "one of 7")
    refused(client.post(path, json={"reason": "x"}), 400, "approved_by")
    assert client.post("/v1/policies/nowhere/rollback", json=words).status_code == 404
    assert len(client.get("/v1/releases").json()["releases"]) == 1


def _npz(change: Callable[[dict[str, Any]], None], posterior: bytes) -> bytes:
    with np.load(io.BytesIO(posterior)) as arrays:
        found = {name: arrays[name].copy() for name in arrays.files}
    change(found)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, values in found.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, values, allow_pickle=False)
            archive.writestr(f"{name}.npy", data.getvalue())
    return out.getvalue()


def _negative(belief: Any) -> Any:
    precision = belief.precision.copy()
    precision[1] = -np.eye(precision.shape[1])
    return belief._replace(precision=precision)


def test_nothing_unsound_is_served_and_the_last_good_one_stays(
    client: Any, refused: Callable[..., Any], later: Callable[[float], int]
) -> None:
    teach(client, later)
    good = live(client)
    release(client, good)
    files = pack(good)
    tampered = base64.b64encode(_npz(lambda a: a["shift"].__setitem__((0, 0), 9.0), files["posterior.npz"])).decode()
    bent = msgspec.structs.replace(good, belief=_negative(good.belief))
    other = msgspec.structs.replace(good, stage="basket")
    wild = msgspec.structs.replace(good, belief=good.belief._replace(shift=good.belief.shift + 1e200))
    costly = {**good.stage_spec.nudges, "call": msgspec.structs.replace(good.stage_spec.nudges["call"], cost=2.0)}
    dearer = msgspec.structs.replace(good, stage_spec=msgspec.structs.replace(good.stage_spec, nudges=costly))
    for given, why in (
        (body(good, "2", posterior=tampered), "sha256 differs"),
        (body(good, "2", policy=base64.b64encode(files["policy.json"] + b" ").decode()), "sha256 differs"),
        (body(good, "2", belief_sha256="0" * 64), "digest differs"),
        (body(bent, "2"), "eigenvalue"),
        (body(wild, "2"), "cannot decide"),
        (body(dearer, "2", sha256=body(good)["sha256"]), "not the one that was approved"),
        (body(other, "2"), "shop/basket"),
        (body(dearer, "2"), "other costs"),
    ):
        reply = client.put("/v1/policies/signup/release", json=given)
        assert why in refused(reply, 400, "policy")["problem"], why
    assert client.ask()["release"]["version"] == "1"
    assert len(client.get("/v1/releases").json()["releases"]) == 1
    metrics = client.get("/metrics").text
    assert 'journey_bandit_releases_refused_total{stage="signup"} 8.0' in metrics
    assert 'journey_bandit_release{stage="signup"} 1.0' in metrics


def test_a_body_that_is_not_one_names_the_field(client: Any, refused: Callable[..., Any]) -> None:
    good = body(live(client))
    for field, value in (("reason", ""), ("sha256", "xyz"), ("approved_at", "2025-10-09T08:00:00"), ("policy", "%%")):
        refused(client.put("/v1/policies/signup/release", json={**good, field: value}), 400, field)
    refused(client.put("/v1/policies/nowhere/release", json=good), 404, "stage")


def test_a_release_that_the_catalogue_has_outgrown_does_not_decide(
    serving: Serving, catalogue_file: Path, catalogue_text: str, tmp_path: Path
) -> None:
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        release(client, live(client))
    catalogue_file.write_text(catalogue_text.replace("cost = 0.5", "cost = 0.7"), encoding="utf-8")
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        health = client.get("/health/ready")
        assert health.status_code == 200
        assert "other costs" in health.json()["failing"]["release signup"]
        assert "release" not in client.ask()


def test_texts_and_limits_of_today_hold_for_a_release_of_yesterday(
    serving: Serving, catalogue_file: Path, catalogue_text: str, tmp_path: Path
) -> None:
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        release(client, live(client))
    text = catalogue_text.replace('title = "Tip"', 'title = "New"').replace(
        'format = "popup"\ncost', 'format = "popup"\npaused = true\ncost'
    )
    assert parse(text).stages["signup"].nudges["call"].paused
    catalogue_file.write_text(text, encoding="utf-8")
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        made = [client.ask(user=f"u{i}") for i in range(30)]
        assert all(m["release"]["version"] == "1" and "call" in m["excluded"] for m in made)
        assert {"New"} == {m["nudge"]["payload"]["title"] for m in made if m["nudge"]["id"] == "tip"}


def test_another_policy_goes_on_deciding_under_the_texts_of_today(
    serving: Serving, catalogue_file: Path, catalogue_text: str, tmp_path: Path
) -> None:
    """What decides is then declared nowhere else: neither by the catalogue nor when the release was admitted."""
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        first = live(client)
        release(client, msgspec.structs.replace(
            first, stage_spec=msgspec.structs.replace(first.stage_spec, policy=Uniform())
        ))  # fmt: skip
    catalogue_file.write_text(catalogue_text.replace('title = "Tip"', 'title = "New"'), encoding="utf-8")
    with serving(SqliteStore(tmp_path / "ledger.db")) as client:
        made = client.ask()
        assert (made["policy"], made["release"]["version"]) == ("uniform", "1")
        assert client.get(f"/v1/decisions/{made['decision_id']}").status_code == 200


def test_health_says_what_the_sync_said_and_when_it_fell_silent(client: Any, later: Callable[[float], int]) -> None:
    def health() -> Any:
        reply = client.get("/health/ready")
        assert reply.status_code == 200  # decisions do not need the registry
        return reply.json()["failing"]

    assert health() == {}
    word = {"reachable": True, "since": WHEN, "every": 5.0}
    assert client.post("/v1/registry", json=word).status_code == 200
    assert health() == {}
    client.post("/v1/registry", json={**word, "reachable": False, "detail": "timed out", "backlog": 3})
    assert health() == {"registry": "unreachable since 2025-10-09T08:00:00Z: timed out"}
    assert "journey_bandit_registry_backlog 3.0" in client.get("/metrics").text
    later(31)
    assert health()["registry"].startswith("no word from `registry sync` since 2025-10-09T08:53:20Z")
    client.post("/v1/registry", json={**word, "refused": {"signup": "alias moved without an approval"}})
    assert health() == {"registry signup": "alias moved without an approval"}


def test_only_an_admin_key_releases(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    plain, admin = create(file, "app", ["decide", "reward", "read", "events"]), create(file, "ops", ["admin"])
    with serving(keys=str(file)) as client:
        for key, status in ((plain, 403), (admin, 200)):
            headers = {"X-API-Key": key}
            assert (
                client.post("/v1/registry", json={"reachable": True, "since": WHEN}, headers=headers).status_code
                == status
            )
            given = body(None, "")
            assert client.put("/v1/policies/signup/release", json=given, headers=headers).status_code == status


def test_a_store_keeps_releases_in_order_with_every_byte(store: Store) -> None:
    def make(stage: str, version: str) -> Release:
        now = round(dt.datetime(2025, 10, 9, tzinfo=dt.UTC).timestamp() * 1e6)
        return Release(
            stage=stage, model=f"shop-{stage}", version=version, sha256="a" * 64, belief_sha256="b" * 64,
            approved_by="ana", approved_at=now, reason="ünïcode", at=now + 1, policy=b"\x00{",
            posterior=bytes(range(256)),
        )  # fmt: skip

    made = [make("signup", "1"), make("basket", "1"), make("signup", "2")]
    kept = [store.publish(one) for one in made]
    assert kept == [msgspec.structs.replace(one, seq=i) for i, one in enumerate(made, 1)]
    assert store.releases() == kept
    assert store.releases("signup") == [kept[0], kept[2]]


BACK = {"approved_by": "ben", "approved_at": WHEN, "reason": "refunds rose", "to": "none"}


def test_no_nudge_for_anybody_needs_no_release_and_holds_through_restarts_and_new_catalogues(
    serving: Serving, later: Callable[[float], int], catalogue_file: Path, tmp_path: Path
) -> None:
    """Whatever the catalogue declares later: it never falls back to what is learned live by itself."""
    path = tmp_path / "ledger.db"
    with serving(SqliteStore(path)) as client:
        teach(client, later)
        kept = client.post("/v1/policies/signup/rollback", json=BACK)
        assert kept.status_code == 200, kept.text
        assert (kept.json()["version"], kept.json()["kind"], kept.json()["rolls_back_to"]) == ("none", "rollback", "")
        assert client.post("/v1/policies/signup/rollback", json=BACK).json()["number"] == kept.json()["number"]
        asked = [client.ask(user=f"n{i}", context={"age": i}) for i in range(30)]
    text = catalogue_file.read_text(encoding="utf-8")
    more = '\n[stages.signup.nudges.letter]\ntype = "letter"\nformat = "mail"\ncost = 0.2\n'
    catalogue_file.write_text(text + more, encoding="utf-8")
    store = SqliteStore(path)
    with serving(store) as client:
        assert client.get("/health/ready").json()["failing"] == {}
        asked += [client.ask(user=f"m{i}", context={"age": i}) for i in range(30)]
        assert "letter" in asked[-1]["propensities"]
        for made in asked:
            assert (made["nudge"]["id"], made["propensity"], made["release"]["version"]) == ("none", 1.0, "none")
        found = store.decisions_by_id([uuid.UUID(made["decision_id"]) for made in asked])
        salt = audit.salt_of(store, "salt")
        assert [d for one in found.values() for d in audit.differences(store, one, salt)] == []
        back = {**BACK, "to": "", "approved_at": "2025-10-09T09:00:00Z"}
        assert client.post("/v1/policies/signup/rollback", json=back).json()["version"] == ""
        assert "release" not in client.ask()


def test_the_version_none_brings_no_files(client: Any) -> None:
    reply = client.put("/v1/policies/signup/release", json=body(live(client), "none"))
    assert reply.status_code == 400
    assert "shows nothing to anybody" in reply.text
    assert "release" not in client.ask()


def test_who_approved_is_the_key_that_was_presented(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key = create(file, "ops", ["admin", "read", "decide"])
    with serving(keys=str(file)) as client:
        client.headers["X-API-Key"] = key
        kept = client.post("/v1/policies/signup/rollback", json=BACK).json()
        assert kept["approved_by"] == "key ops, for ben"
        again = client.post("/v1/policies/signup/rollback", json=BACK).json()
        assert again["number"] == kept["number"]
        sent = body(None, "none", approved_by="key boss", approved_at="2025-10-09T09:00:00Z")
        assert client.put("/v1/policies/signup/release", json=sent).json()["approved_by"] == "key ops, for key boss"
