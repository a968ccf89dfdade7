"""Ramps and holdouts that operators set: in force at once, in propensities and receipts, and after a crash."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from api.http.keys import create as create_key
from api.learning import holdout
from api.ledger import audit
from api.messages.decisions import DecisionRequest
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit import engine
from bandit.catalogue.loading import parse
from bandit.errors import CatalogueError, InvalidRequest
from bandit.records import CROSSED, OperatorAction
from journey_bandit.testing.store_builders import START
from tests.api.releases.test_judged import judge, other
from tests.api.releases.test_releases import live, release, teach
from tests.waiting import PATIENCE

Serving = Callable[..., AbstractContextManager[Any]]
Working = Callable[..., AbstractContextManager[Any]]

WHY = {"by": "ana", "reason": "slowly"}
FIXED = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "fixed", arm = "ten" }
floor = 0.0
reward = { kind = "binary", window = "1h" }
features = {}
[stages.cart.nudges.ten]
type = "help"
format = "banner"
"""


def post(client: Any, verb: str, share: float | None, stage: str = "signup", **more: Any) -> Any:
    return client.post(f"/v1/policies/{stage}/{verb}", json={**WHY, "share": share, **more})


def setting(verb: Any, share: float | None, at: int = START) -> OperatorAction:
    return OperatorAction(at=at, who="ana", stage="cart", nudge="", verb=verb, reason="slowly", share=share)


def proven(store: Store, salt: str = "salt") -> None:
    key = audit.salt_of(store, salt)
    assert [found.seq for found in store.decisions() if audit.differences(store, found, key)] == []


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "ledger.db")


def test_a_ramp_is_in_force_for_the_next_decision_and_receipts_count_with_it(serving: Serving, ledger: Store) -> None:
    with serving(ledger) as client:
        before = client.ask()["propensities"]
        done = post(client, "ramp", 0.25).json()
        assert (done["number"], done["action"], done["share"], done["nudge"]) == (1, "ramp", 0.25, None)
        made = client.ask()["propensities"]
        assert sum(made.values()) == 1.0
        floor = 0.01
        for arm in before.keys() - {"none"}:
            assert made[arm] == pytest.approx(max(0.25 * before[arm], floor), abs=floor)
        assert made["none"] > 0.7
        policy = client.learned()["signup"]
        assert policy["ramp"] == {"share": 0.25, "declared": 1.0, "set": done}
        assert policy["holdout_share"]["set"] is None
        again = post(client, "ramp", 0.25, reason="again").json()
        assert again == done
        ended = post(client, "ramp", None).json()
        assert (ended["number"], ended["share"]) == (2, None)
        assert client.ask()["propensities"] == before
        assert client.learned()["signup"]["ramp"] == {"share": 1.0, "declared": 1.0, "set": None}
        assert client.get("/v1/operator-actions").json()["actions"] == [done, ended]
        proven(ledger)


def test_a_ramp_holds_while_what_was_learned_changes_and_after_it_ended(
    serving: Serving, later: Callable[[float], int], ledger: Store
) -> None:
    with serving(ledger) as client:
        teach(client, later)
        post(client, "ramp", 0.5).raise_for_status()
        teach(client, later)
        post(client, "holdout", 0.3).raise_for_status()
        teach(client, later)
        post(client, "ramp", None).raise_for_status()
        teach(client, later)
        assert client.learned()["signup"]["version"] > 100
        assert all(result.equal for result in audit.rebuild(ledger, audit.stages(ledger)))
        proven(ledger)


def test_a_release_and_both_halves_of_a_judged_one_keep_to_the_ramp(
    serving: Serving, later: Callable[[float], int], ledger: Store
) -> None:
    context = {"age": 44, "plan": "pro"}
    with serving(ledger) as client:
        teach(client, later)
        mine = live(client)
        ramped = msgspec.structs.replace(mine, stage_spec=msgspec.structs.replace(mine.stage_spec, ramp=0.9))
        release(client, ramped)
        whole = client.ask(context=context)["propensities"]
        post(client, "ramp", 0.5).raise_for_status()
        made = client.ask(context=context)["propensities"]
        assert made["none"] > 0.5
        assert made["none"] > whole["none"]
        told = client.learned()["signup"]["ramp"]
        assert (told["share"], told["declared"]) == (0.5, 0.9)
        candidate = other(mine)
        judge(client, candidate)
        both = client.ask(context=context)
        receipt = client.get(f"/v1/decisions/{both['decision_id']}").json()
        spec = msgspec.structs.replace(candidate.stage_spec, live_ramp=0.5)
        policy = engine.prepare(msgspec.structs.replace(candidate, stage_spec=spec))
        x = next(one for one in ledger.decisions() if str(one.decision.id) == both["decision_id"]).decision.x
        may = np.array([arm not in receipt["excluded"] for arm in spec.arms])
        own = engine.choose(policy, x, may).propensity
        assert list(receipt["candidate"].values()) == own.tolist()
        proven(ledger)


def test_a_snapshot_is_published_as_it_was_declared(client: Any) -> None:
    before = live(client)
    post(client, "ramp", 0.25).raise_for_status()
    post(client, "holdout", 0.25).raise_for_status()
    assert live(client).stage_spec == before.stage_spec


def test_a_holdout_takes_people_in_and_lets_them_go_again(serving: Serving, ledger: Store) -> None:
    people = [f"person {n}" for n in range(200)]
    with serving(ledger) as client:
        assert [one for one in people if client.ask(user=one)["holdout"]] == []
        post(client, "holdout", 0.2).raise_for_status()
        few = {one for one in people if client.ask(user=one)["holdout"]}
        assert 20 < len(few) < 60  # 200 people at 0.2: beyond by chance in fewer than 1 of 1000 salts
        post(client, "holdout", 0.5).raise_for_status()
        more = {one for one in people if client.ask(user=one)["holdout"]}
        assert few < more
        assert 70 < len(more) < 130
        post(client, "holdout", None).raise_for_status()
        assert [one for one in people if client.ask(user=one)["holdout"]] == []
        held = [one.decision for one in ledger.decisions() if one.decision.holdout]
        assert {one.arm for one in held} == {"none"}
        assert any(CROSSED in one.notes for one in held)
        specs = ledger.specs()
        assert {specs[one.stage_digest].holdout for one in held} == {0.2, 0.5}
        proven(ledger)


def test_the_audit_counts_what_was_decided_under_the_share_of_now(
    serving: Serving, later: Callable[[float], int], ledger: Store
) -> None:
    with serving(ledger) as client:
        post(client, "holdout", 0.9).raise_for_status()
        teach(client, later, 60)
        post(client, "holdout", 0.5).raise_for_status()
        teach(client, later, 30)
        stage = client.learned()["signup"]
        assert stage["holdout"]["people"] + stage["holdout"]["holdout"] == 30
        spec = msgspec.structs.replace(ledger.specs()[next(iter(ledger.specs()))], holdout=0.9)
        earlier = holdout.audit_of(ledger, "signup", spec)
        assert earlier is not None
        assert earlier.people + earlier.holdout == 60


def test_decisions_that_were_drawn_before_a_setting_and_not_written_are_made_again(
    working: Working, store: Store
) -> None:
    with working(store, parse(FIXED)) as desk:

        async def race(verb: Any, share: float | None, first: int) -> list[Any]:
            asked = [DecisionRequest(stage="cart", user_id=f"u{first + n}", context={}) for n in range(20)]
            pending = [desk.service.maker.prepare(one, START) for one in asked]
            await asyncio.wrap_future(desk.worker.operate(setting(verb, share)))
            return [one.decision for one in await desk.service.writer.write(pending)]

        ramped = desk.run(race("ramp", 0.25, 0))
        assert {tuple(one.propensity) for one in ramped} == {(0.75, 0.25)}
        ended = desk.run(race("ramp", None, 20))
        assert {tuple(one.propensity) for one in ended} == {(0.0, 1.0)}
        held = desk.run(race("holdout", 0.999, 40))
        assert sum(one.holdout for one in held) >= 19
        assert [one.seq for one in store.decisions() if audit.differences(store, one, desk.salt)] == []


def test_a_setting_outlives_the_process_and_another_catalogue(
    serving: Serving, catalogue_file: Path, tmp_path: Path
) -> None:
    """Nothing is done at the end of the first service: its ledger is opened as it was committed."""
    with serving(store=SqliteStore(tmp_path / "a.db")) as client:
        post(client, "ramp", 0.25).raise_for_status()
        post(client, "holdout", 0.999).raise_for_status()
        copy = SqliteStore(tmp_path / "a.db", read_only=True)
        assert [(one.verb, one.share) for one in copy.operator_actions()] == [("ramp", 0.25), ("holdout", 0.999)]
        copy.close()
    store, text = SqliteStore(tmp_path / "a.db"), catalogue_file.read_text(encoding="utf-8")
    declared = text.replace("[stages.signup]\n", "[stages.signup]\nramp = 0.9\nholdout = 0.001\n")
    assert declared != text
    catalogue_file.write_text(declared, encoding="utf-8")
    with serving(store=store, app=str(catalogue_file)) as client:
        assert client.ask()["holdout"]
        told = client.learned()["signup"]
        assert [told[what]["share"] for what in ("ramp", "holdout_share")] == [0.25, 0.999]
        assert [told[what]["declared"] for what in ("ramp", "holdout_share")] == [0.9, 0.001]
        post(client, "holdout", None).raise_for_status()
        made = client.ask()
        assert not made["holdout"]
        assert made["propensities"]["none"] > 0.7
        proven(store)


@pytest.mark.parametrize(
    ("verb", "stage", "body", "status", "field"),
    [
        ("ramp", "nowhere", {"share": 0.5}, 404, "stage"),
        ("ramp", "signup", {"share": 0.0}, 400, "share"),
        ("ramp", "signup", {"share": 1.5}, 400, "share"),
        ("ramp", "signup", {"share": "half"}, 400, "share"),
        ("ramp", "signup", {}, 400, "share"),
        ("ramp", "signup", {"share": None}, 400, "share"),
        ("holdout", "signup", {"share": 1.0}, 400, "share"),
        ("holdout", "signup", {"share": -0.1}, 400, "share"),
        ("holdout", "signup", {"share": 0.5, "reason": ""}, 400, "reason"),
        ("holdout", "signup", {"share": 0.5, "nudge": "tip"}, 400, "nudge"),
    ],
)
def test_what_cannot_be_set_names_the_field_and_changes_nothing(
    client: Any, refused: Any, verb: str, stage: str, body: dict[str, Any], status: int, field: str
) -> None:
    refused(client.post(f"/v1/policies/{stage}/{verb}", json={**WHY, **body}), status, field)
    assert client.get("/v1/operator-actions").json() == {"actions": []}


def test_only_a_key_with_admin_may(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    read, admin = create_key(file, "viewer", ["read"]), create_key(file, "ops", ["admin"])
    with serving(keys=str(file)) as client:
        body = {**WHY, "share": 0.5}
        for verb in ("ramp", "holdout"):
            path = f"/v1/policies/signup/{verb}"
            assert client.post(path, json=body).status_code == 401
            assert client.post(path, json=body, headers={"X-API-Key": read}).status_code == 403
            done = client.post(path, json=body, headers={"X-API-Key": admin}).json()
            assert done["who"] == "key ops, for ana"


def test_a_loop_has_a_holdout_and_no_ramp(working: Working) -> None:
    loop = parse(
        'app = "news"\ncurrency = "EUR"\n[stages.cart]\npolicy = { name = "shared" }\n'
        'reward = { kind = "continuous", window = "1h", min = 0.0, max = 1.0, default = 0.0 }\n'
    )
    with working(MemoryStore(), loop) as desk:
        with pytest.raises(InvalidRequest, match="the actions of this stage come with each request"):
            desk.worker.operate(setting("ramp", 0.5)).result(PATIENCE)
        assert desk.worker.operate(setting("holdout", 0.5)).result(PATIENCE).share == 0.5
        assert desk.worker.prepared["cart"].snapshot.stage_spec.holdout == 0.5


def test_a_stage_that_becomes_a_loop_has_no_ramp_any_more(working: Working) -> None:
    loop = parse(
        'app = "shop"\ncurrency = "EUR"\n[stages.cart]\nschema = 2\npolicy = { name = "shared" }\n'
        'reward = { kind = "binary", window = "1h" }\n'
    )
    store = MemoryStore()
    with working(store, parse(FIXED)) as desk:
        desk.worker.operate(setting("ramp", 0.05)).result(PATIENCE)
    with working(store, loop) as desk:
        assert desk.worker.prepared["cart"].snapshot.stage_spec.traffic == 1.0
        assert desk.worker.operate(setting("ramp", None, START + 1)).result(PATIENCE).share is None
    with working(store, parse(FIXED.replace("[stages.cart]", "[stages.cart]\nschema = 3"))) as desk:
        assert desk.worker.prepared["cart"].snapshot.stage_spec.traffic == 1.0


def test_no_catalogue_declares_what_operators_set() -> None:
    with pytest.raises(CatalogueError, match=r"stages\.cart\.live_ramp: operators set it"):
        parse(FIXED.replace("floor = 0.0", "floor = 0.0\nlive_ramp = 0.5"))
