"""Nudges that operators pause, resume and retire: in force at once, in receipts and propensities, and after a crash."""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.http.keys import create as create_key
from api.ledger import audit
from api.messages.decisions import DecisionRequest
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.catalogue.loading import parse
from bandit.errors import Conflict, Unavailable
from bandit.records import OperatorAction
from journey_bandit.testing.store_builders import START
from tests.waiting import PATIENCE

Serving = Callable[..., AbstractContextManager[Any]]
Working = Callable[..., AbstractContextManager[Any]]

WHY = {"by": "ana", "reason": "refunds rose"}
SAID = "paused by ana: refunds rose"
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
[stages.cart.nudges.few]
type = "help"
format = "banner"
"""


def post(client: Any, verb: str, stage: str = "signup", **more: str) -> Any:
    return client.post(f"/v1/policies/{stage}/{verb}", json={**WHY, **more})


def test_a_pause_is_in_force_for_the_next_decision_and_its_receipt_says_who_and_why(client: Any) -> None:
    assert "tip" in client.ask()["propensities"]
    done = post(client, "pause", nudge="tip").json()
    assert (done["number"], done["stage"], done["nudge"], done["action"]) == (1, "signup", "tip", "pause")
    assert (done["who"], done["reason"], done["at"]) == ("ana", "refunds rose", "2025-10-09T08:53:20Z")
    made = client.ask()
    assert made["excluded"]["tip"] == SAID
    assert "tip" not in made["propensities"]
    assert sum(made["propensities"].values()) == 1.0
    receipt = client.get(f"/v1/decisions/{made['decision_id']}").json()
    assert (receipt["excluded"]["tip"], receipt["arms"]["tip"]["propensity"]) == (SAID, 0.0)
    again = client.get(f"/v1/decisions/{made['decision_id']}/recomputation").json()
    assert (again["verdict"], again["differences"], again["said"]) == ("equal", [], "equal, bit for bit")
    assert client.learned()["signup"]["paused"] == [done]
    assert client.learned()["basket"]["paused"] == []


def test_what_changes_nothing_is_answered_with_what_is_in_force(client: Any) -> None:
    first = post(client, "pause", nudge="tip").json()
    assert post(client, "pause", nudge="tip", reason="again").json() == first
    second = post(client, "resume", nudge="tip").json()
    assert post(client, "resume", nudge="tip").json() == second
    assert "tip" in client.ask()["propensities"]
    assert client.get("/v1/operator-actions").json()["actions"] == [first, second]
    assert client.learned()["signup"]["paused"] == []


def test_a_retired_nudge_never_comes_back(client: Any, refused: Any) -> None:
    post(client, "retire", nudge="tip").raise_for_status()
    for verb in ("resume", "pause"):
        said = refused(post(client, verb, nudge="tip"), 409, "nudge")
        assert said["problem"] == "signup.tip: retired by ana: refunds rose"
    assert client.ask()["excluded"]["tip"] == "retired by ana: refunds rose"
    assert post(client, "retire", nudge="tip").json()["number"] == 1


def test_a_stage_that_is_paused_shows_nothing(client: Any) -> None:
    post(client, "pause").raise_for_status()
    made = client.ask(evidence={"stock": 3})
    assert made["propensities"] == {"none": 1.0}
    assert made["excluded"]["tip"] == made["excluded"]["last_units"] == SAID
    assert "tip" in client.ask("signup", user="other")["excluded"]
    assert client.ask("basket")["excluded"].get("reminder") != SAID
    post(client, "resume").raise_for_status()
    assert "tip" in client.ask()["propensities"]


@pytest.mark.parametrize(
    ("verb", "stage", "body", "status", "field"),
    [
        ("pause", "nowhere", {"nudge": "tip"}, 404, "stage"),
        ("pause", "signup", {"nudge": "tpi"}, 400, "nudge"),
        ("retire", "signup", {}, 400, "nudge"),
        ("resume", "signup", {"nudge": "tip"}, 409, "nudge"),
        ("pause", "signup", {"nudge": "tip", "reason": ""}, 400, "reason"),
        ("pause", "signup", {"nudge": ""}, 400, "nudge"),
        ("pause", "signup", {"nudge": "tip", "until": "later"}, 400, "until"),
    ],
)
def test_what_cannot_be_done_names_the_field_and_changes_nothing(
    client: Any, refused: Any, verb: str, stage: str, body: dict[str, str], status: int, field: str
) -> None:
    refused(client.post(f"/v1/policies/{stage}/{verb}", json={**WHY, **body}), status, field)
    assert client.get("/v1/operator-actions").json() == {"actions": []}


def test_only_a_key_with_admin_may_and_the_ledger_names_it(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    read, admin = create_key(file, "viewer", ["read"]), create_key(file, "ops", ["admin"])
    with serving(keys=str(file)) as client:
        body = {**WHY, "nudge": "tip"}
        assert client.post("/v1/policies/signup/pause", json=body).status_code == 401
        assert client.post("/v1/policies/signup/pause", json=body, headers={"X-API-Key": read}).status_code == 403
        done = client.post("/v1/policies/signup/pause", json=body, headers={"X-API-Key": admin}).json()
        listed = client.get("/v1/operator-actions", headers={"X-API-Key": read}).json()["actions"]
    assert done["who"] == "key ops, for ana"
    assert listed == [done]


def test_a_pause_outlives_the_process(serving: Serving, tmp_path: Path) -> None:
    """Nothing is done at the end of the first service: its ledger is opened as it was committed."""
    with serving(store=SqliteStore(tmp_path / "a.db")) as client:
        post(client, "pause", nudge="tip").raise_for_status()
        copy = SqliteStore(tmp_path / "a.db", read_only=True)
        assert [one.nudge for one in copy.operator_actions()] == ["tip"]
        copy.close()
    with serving(store=SqliteStore(tmp_path / "a.db")) as client:
        assert client.ask()["excluded"]["tip"] == SAID


def operate(at: int, nudge: str = "ten", verb: Any = "pause") -> OperatorAction:
    return OperatorAction(at=at, who="ana", stage="cart", nudge=nudge, verb=verb, reason="refunds rose")


def test_decisions_that_were_drawn_before_a_pause_and_not_written_are_made_again(
    working: Working, store: Store
) -> None:
    """They were drawn before it was done, and reach the writer after."""
    with working(store, parse(FIXED)) as desk:

        async def race() -> list[Any]:
            asked = [DecisionRequest(stage="cart", user_id=f"u{n}", context={}) for n in range(20)]
            pending = [desk.service.maker.prepare(one, START) for one in asked]
            assert {one.decision.arm for one in pending} == {"ten"}
            await asyncio.wrap_future(desk.worker.operate(operate(START)))
            return list(await desk.service.writer.write(pending))

        written = desk.run(race())
        assert {one.decision.arm for one in written} == {"none"}
        assert {one.decision.excluded["ten"] for one in written} == {SAID}
        made = list(store.decisions())
        assert [one.decision.arm for one in made] == ["none"] * 20
        assert [one.seq for one in made if audit.differences(store, one, desk.salt)] == []
        assert desk.service.maker._sessions.session(written[0].decision.user).in_flight == {}


def test_a_retry_of_what_was_shown_before_is_still_its_answer(working: Working, store: Store) -> None:
    with working(store, parse(FIXED)) as desk:
        assert desk.ask(1, "cart").nudge.id == "ten"
        desk.worker.operate(operate(START)).result(PATIENCE)
        assert (desk.ask(1, "cart").nudge.id, desk.ask(1, "cart").duplicate) == ("ten", True)
        assert desk.ask(2, "cart").nudge.id == "none"


def test_a_pause_that_is_in_the_ledger_counts_although_its_writing_and_reading_failed(
    working: Working, tmp_path: Path
) -> None:
    class Full(SqliteStore):
        failing = 0

        def operate(self, asked: OperatorAction) -> OperatorAction:
            super().operate(asked)
            self.failing = 1
            raise OSError("disk full")

        def operator_actions(self) -> list[OperatorAction]:
            if self.failing:
                self.failing -= 1
                raise Unavailable("the disk does not answer")
            return super().operator_actions()

    store = Full(tmp_path / "a.db")
    with working(store, parse(FIXED)) as desk:
        with pytest.raises(Unavailable, match="disk full"):
            desk.worker.operate(operate(START)).result(PATIENCE)
        with pytest.raises(Unavailable):
            desk.ask(1, "cart")
        assert desk.ask(2, "cart").nudge.id == "none"
        assert [one.nudge for one in desk.worker.pauses.of("cart")] == ["ten"]
    store.close()


def test_a_conflict_says_what_is_in_force(working: Working) -> None:
    with working(MemoryStore(), parse(FIXED)) as desk, pytest.raises(Conflict, match=r"cart\.ten: not paused"):
        desk.worker.operate(operate(START, verb="resume")).result(PATIENCE)


def test_a_loop_that_is_paused_answers_with_its_baseline(serving: Serving, tmp_path: Path) -> None:
    loop = tmp_path / "loop.toml"
    loop.write_text(
        'app = "news"\ncurrency = "EUR"\n[stages.front]\npolicy = { name = "shared" }\n'
        'reward = { kind = "continuous", window = "1h", min = 0.0, max = 1.0, default = 0.0 }\n'
    )
    ask = {"contextFeatures": [{"hour": 9}], "actions": [{"id": n, "features": [{"x": n}]} for n in ("a", "b", "c")]}
    with serving(app=str(loop)) as client:

        def rank(excluded: list[str]) -> Any:
            body = {**ask, "eventId": str(uuid.uuid4()), "excludedActions": excluded}
            reply = client.post("/personalizer/v1.0/rank", json=body)
            assert reply.status_code == 201, reply.text
            return {one["id"]: one["probability"] for one in reply.json()["ranking"]}

        assert min(rank([]).values()) > 0
        assert post(client, "pause", stage="front").status_code == 200
        assert rank([]) == {"a": 1.0, "b": 0.0, "c": 0.0}
        assert rank(["a"])["b"] == 1.0
        assert client.post("/v1/policies/front/pause", json={**WHY, "nudge": "a"}).status_code == 400
