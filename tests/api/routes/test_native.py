"""The native API as a caller sees it: decisions and outcomes, and what is wrong with them."""

import datetime as dt
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from bandit.catalogue.model import Catalogue

Client = Any  # conftest.Caller
Refused = Callable[[Any, int, str], Any]
Serving = Callable[..., AbstractContextManager[Client]]
Later = Callable[[float], int]

HOUR = 3600
STARTED = dt.datetime(2025, 10, 9, 8, 53, 20, tzinfo=dt.UTC)
UNKNOWN = str(uuid.UUID(int=404))


# -- decisions -------------------------------------------------------------------------------------------------


def test_a_decision_says_what_to_show_and_every_probability(client: Client, catalogue: Catalogue) -> None:
    reply = client.ask(context={"age": 41, "plan": "pro", "returning": True})
    assert reply.keys() == {
        "decision_id", "stage", "nudge", "propensity", "propensities", "excluded", "policy", "policy_version",
        "holdout", "expires_at", "notes", "duplicate",
    }  # fmt: skip
    stage = catalogue.stages["signup"]
    assert {*reply["propensities"], *reply["excluded"]} == set(stage.arms)
    assert reply["excluded"].keys() == {"offer", "last_units"}
    assert abs(sum(reply["propensities"].values()) - 1) < 1e-12
    assert reply["propensity"] == reply["propensities"][reply["nudge"]["id"]]
    assert (reply["stage"], reply["policy"], reply["policy_version"]) == ("signup", "linear", 0)
    assert (reply["holdout"], reply["notes"], reply["duplicate"]) == (False, [], False)
    assert dt.datetime.fromisoformat(reply["expires_at"]) == STARTED + dt.timedelta(hours=1)
    assert uuid.UUID(reply["decision_id"]).version == 7


def test_a_nudge_comes_as_declared_and_no_nudge_is_one_too(client: Client) -> None:
    seen = {d["nudge"]["id"]: d["nudge"] for d in (client.ask(user=str(n)) for n in range(80))}
    assert seen["tip"] == {"id": "tip", "type": "help", "format": "tooltip", "payload": {"title": "Tip"}}
    assert seen["none"] == {"id": "none", "type": "none", "format": "none", "payload": {}}


def test_the_same_request_with_the_same_id_is_answered_the_same(client: Client) -> None:
    request: dict[str, Any] = {
        "decision_id": str(uuid.uuid4()),
        "context": {"age": 7, "plan": "pro"},
        "evidence": {"stock": 3},
    }
    first = client.ask(**request)
    again = client.ask(**dict(reversed(request.items())))
    assert first["duplicate"] is False
    assert again == {**first, "duplicate": True}


@pytest.mark.parametrize(
    "other",
    [
        {"context": {"age": 8}},
        {"context": {}},
        {"stage": "basket", "context": {}},
        {"user_id": "another"},
        {"evidence": {"stock": 3}},
        {"include": ["tip"]},
        {"exclude": ["tip"]},
    ],
    ids=str,
)
def test_the_same_id_with_other_content_is_a_conflict(client: Client, other: dict[str, Any], refused: Refused) -> None:
    request = {"stage": "signup", "user_id": "u", "context": {"age": 7}, "decision_id": str(uuid.uuid4())}
    first = client.post("/v1/decisions", json=request).json()
    reply = client.post("/v1/decisions", json={**request, **other})
    assert "new id" in refused(reply, 409, "decision_id")["fix"]
    assert client.post("/v1/decisions", json=request).json() == {**first, "duplicate": True}


def test_a_retry_after_learning_still_gets_the_first_answer(client: Client, later: Later) -> None:
    request: dict[str, Any] = {"decision_id": str(uuid.uuid4()), "context": {"age": 7}}
    first = client.ask(**request)
    client.tell(first)
    later(HOUR)
    assert client.learned()["signup"]["version"] == 1
    assert client.ask(**request) == {**first, "duplicate": True}


def test_a_number_outside_its_range_is_clipped_and_said(client: Client) -> None:
    reply = client.ask(context={"age": 1e300, "plan": "free", "returning": False})
    assert len(reply["notes"]) == 1
    assert "age" in reply["notes"][0]
    assert "clipped to 100" in reply["notes"][0]
    top = client.ask(context={"age": 100, "plan": "free", "returning": False})
    assert (top["propensities"], top["notes"]) == (reply["propensities"], [])


def test_a_missing_feature_takes_its_default_and_is_said(client: Client) -> None:
    reply = client.ask(context={"plan": "pro", "returning": None})
    assert reply["notes"] == ["missing, declared defaults used: age, returning"]
    x = client.get(f"/v1/decisions/{reply['decision_id']}").json()["x"]
    assert (x["age"], x["returning"]) == (round((2 * 30 / 100 - 1) * 4096) / 4096, 0.0)
    assert (x["age missing"], x["returning missing"], x["plan missing"]) == (1.0, 1.0, 0.0)


def test_an_undeclared_category_is_taken_as_other_where_other_is_declared(client: Client, refused: Refused) -> None:
    reply = client.ask(context={"age": 1, "plan": "gold", "returning": True})
    assert ["plan" in note and "gold" in note and "other" in note for note in reply["notes"]] == [True]
    request = {"stage": "instant", "user_id": "u", "context": {"country": "df"}}
    assert "de" in refused(client.post("/v1/decisions", json=request), 400, "context.country")["fix"]


@pytest.mark.parametrize(
    ("evidence", "eligible", "reason"),
    [
        ({}, [], "no evidence"),
        ({"stock": 3}, ["last_units"], "no evidence"),
        ({"stock": 6}, [], "not true: stock is 6"),
        ({"stock": 0}, [], "not true: stock is 0"),
        ({"deadline": "2025-10-09T10:53:21+02:00"}, ["offer"], "no evidence"),
        ({"deadline": "2025-10-09T08:53:20Z"}, [], "not true: the deadline has passed"),
        ({"stock": 1, "deadline": "9999-12-31T23:59:59Z"}, ["offer", "last_units"], None),
    ],
    ids=str,
)
def test_a_claim_is_shown_only_with_evidence(
    client: Client, evidence: dict[str, Any], eligible: list[str], reason: str | None
) -> None:
    reply = client.ask(evidence=evidence)
    assert reply["propensities"].keys() == {"none", "tip", "call", *eligible}
    reasons = " ".join(reply["excluded"].values())
    assert reason in reasons if reason else reasons == ""
    receipt = client.get(f"/v1/decisions/{reply['decision_id']}").json()
    assert receipt["evidence"].keys() == evidence.keys()
    assert receipt["excluded"] == reply["excluded"]


def test_the_caller_may_narrow_the_choice(client: Client, refused: Refused) -> None:
    assert client.ask(include=["tip"])["propensities"].keys() == {"none", "tip"}
    assert client.ask(include=[])["propensities"] == {"none": 1.0}
    assert client.ask(exclude=["tip"])["propensities"].keys() == {"none", "call"}
    assert client.ask(include=["none", "call"], exclude=["call"])["propensities"] == {"none": 1.0}
    for more, field in (
        ({"include": ["tip", "tipp"]}, "include[1]"),
        ({"exclude": ["x"]}, "exclude[0]"),
        ({"exclude": ["none"]}, "exclude"),
    ):
        refused(client.post("/v1/decisions", json={"stage": "signup", "user_id": "u", **more}), 400, field)


def test_a_held_out_user_always_gets_no_nudge(client: Client) -> None:
    replies = {n: [client.ask("basket", user=f"u{n}") for _ in range(3)] for n in range(60)}
    held = {n for n, (first, *_) in replies.items() if first["holdout"]}
    assert 0 < len(held) < 60
    for n, answers in replies.items():
        assert {a["holdout"] for a in answers} == {n in held}
        if n in held:
            assert {(a["nudge"]["id"], a["propensity"]) for a in answers} == {("none", 1.0)}
            assert "holdout" in answers[0]["excluded"]["reminder"]


def test_an_unknown_stage_is_named_with_the_known_ones(client: Client, refused: Refused) -> None:
    reply = client.post("/v1/decisions", json={"stage": "sign_up", "user_id": "u"})
    fix = refused(reply, 404, "stage")["fix"]
    assert "signup" in fix
    assert "basket" in fix


def test_every_mistake_of_a_context_is_named_at_once(client: Client) -> None:
    context = {"agee": 1, "age": "old", "plan": 3, "returning": "yes"}
    reply = client.post("/v1/decisions", json={"stage": "signup", "user_id": "u", "context": context})
    errors = {e["field"]: e["fix"] for e in reply.json()["errors"]}
    assert errors.keys() == {"context.agee", "context.age", "context.plan", "context.returning"}
    assert "age" in errors["context.agee"]


def test_a_batch_answers_each_in_order_with_the_status_it_would_have_alone(client: Client) -> None:
    one, two = str(uuid.uuid4()), str(uuid.uuid4())
    requests = [
        {"stage": "signup", "user_id": "a", "decision_id": one},
        {"stage": "nope", "user_id": "a"},
        {"stage": "signup", "user_id": "a", "context": {"age": "x"}},
        {"stage": "signup", "user_id": "a", "decision_id": one},
        {"stage": "signup", "user_id": "b", "decision_id": one},
        {"stage": "basket", "user_id": "b", "decision_id": two},
    ]
    reply = client.post("/v1/decisions/batch", json={"decisions": requests})
    items = reply.json()["decisions"]
    assert [item["status"] for item in items] == [200, 404, 400, 200, 409, 200]
    assert [item["decision"]["duplicate"] for item in items if "decision" in item] == [False, True, False]
    assert [item["problem"]["errors"][0]["field"] for item in items if "problem" in item] == [
        "decisions[1].stage", "decisions[2].context.age", "decisions[4].decision_id",
    ]  # fmt: skip
    assert all(("decision" in item) != ("problem" in item) for item in items)
    assert client.ask(user="a", decision_id=one) == {**items[0]["decision"], "duplicate": True}


def test_a_batch_takes_a_thousand(client: Client) -> None:
    requests = [{"stage": "signup", "user_id": f"u{n}", "context": {"age": n % 100}} for n in range(1000)]
    items = client.post("/v1/decisions/batch", json={"decisions": requests}).json()["decisions"]
    ids = [item["decision"]["decision_id"] for item in items]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)  # time-ordered
    outcomes = [{"decision_id": i, "kind": "reward"} for i in ids]
    done = client.post("/v1/outcomes/batch", json={"outcomes": outcomes}).json()["outcomes"]
    assert [item["status"] for item in done] == [200] * 1000
    assert client.post("/v1/decisions/batch", json={"decisions": []}).json() == {"decisions": []}


# -- outcomes --------------------------------------------------------------------------------------------------


def test_an_outcome_is_recorded_once(client: Client) -> None:
    decision = client.ask()
    assert client.tell(decision) == {"recorded": True, "duplicate": False, "late": False}
    assert client.tell(decision, value=1) == {"recorded": True, "duplicate": True, "late": False}
    assert client.tell(decision, "activation")["duplicate"] is False
    assert client.tell(decision, "retraction")["duplicate"] is False
    seen = client.get(f"/v1/decisions/{decision['decision_id']}").json()["outcomes"]
    assert [(o["outcome_id"], o["kind"], o["value"]) for o in seen] == [
        ("reward", "reward", 1.0), ("activation", "activation", None), ("retraction", "retraction", None),
    ]  # fmt: skip


def test_the_same_outcome_with_another_value_is_a_conflict(client: Client, refused: Refused) -> None:
    decision = client.ask("instant")
    client.tell(decision, value=3.5, outcome_id="order 7")
    body = {"decision_id": decision["decision_id"], "kind": "reward", "value": 4, "outcome_id": "order 7"}
    refused(client.post("/v1/outcomes", json=body), 409, "outcome_id")
    body["outcome_id"] = "order 8"  # which of two rewards was first must not matter to a stage that learns from one
    refused(client.post("/v1/outcomes", json=body), 409, "outcome_id")


def test_an_outcome_id_that_means_another_kind_is_refused(client: Client, refused: Refused) -> None:
    decision = client.ask("instant")
    body = {"decision_id": decision["decision_id"], "kind": "reward", "value": 4, "outcome_id": "activation"}
    refused(client.post("/v1/outcomes", json=body), 400, "outcome_id")
    assert client.tell(decision, "activation")["duplicate"] is False


@pytest.mark.parametrize("value", [0.3, 0, -1])
def test_a_retraction_takes_back_and_never_gives(client: Client, refused: Refused, value: float) -> None:
    decision = client.ask("signup")
    client.tell(decision, value=1)
    body = {"decision_id": decision["decision_id"], "kind": "retraction", "value": value}
    refused(client.post("/v1/outcomes", json=body), 400, "value")


def test_a_whole_number_sent_as_a_float_is_the_same_request(client: Client) -> None:
    first = client.ask("signup", decision_id=UNKNOWN, context={"age": 42})
    again = client.ask("signup", decision_id=UNKNOWN, context={"age": 42.0})
    assert again == first | {"duplicate": True}


def test_an_outcome_of_an_unknown_decision_is_not_found(client: Client, refused: Refused) -> None:
    refused(client.post("/v1/outcomes", json={"decision_id": UNKNOWN, "kind": "reward"}), 404, "decision_id")


@pytest.mark.parametrize(
    ("stage", "body", "field"),
    [
        ("signup", {"kind": "reward", "value": 0.5}, "value"),
        ("signup", {"kind": "activation", "value": 1}, "value"),
        ("instant", {"kind": "reward"}, "value"),
        ("signup", {"kind": "reward", "occurred_at": "2025-10-09T09:00:00Z"}, "occurred_at"),
        ("signup", {"kind": "reward", "occurred_at": "2025-10-09T08:48:19Z"}, "occurred_at"),
        ("signup", {"kind": "reward", "occurred_at": "0001-01-01T00:00:00+14:00"}, "occurred_at"),
        ("signup", {"kind": "reward", "occurred_at": "9999-12-31T23:59:59-14:00"}, "occurred_at"),
    ],
    ids=str,
)
def test_an_outcome_that_does_not_fit_its_stage_is_refused(
    client: Client,
    stage: str,
    body: dict[str, Any],
    field: str,
    refused: Refused,
) -> None:
    decision = client.ask(stage)
    reply = client.post("/v1/outcomes", json={"decision_id": decision["decision_id"], **body})
    refused(reply, 400, field)
    assert client.get(f"/v1/decisions/{decision['decision_id']}").json()["outcomes"] == []


def test_an_outcome_after_maturity_is_recorded_as_late_and_not_learned(client: Client, later: Later) -> None:
    decision = client.ask()
    later(HOUR)
    before = client.learned()
    assert client.tell(decision) == {"recorded": True, "duplicate": False, "late": True}
    assert client.tell(decision) == {"recorded": True, "duplicate": True, "late": True}
    assert client.learned() == before
    receipt = client.get(f"/v1/decisions/{decision['decision_id']}").json()
    assert receipt["settled"]["why"] == "silence"
    assert [o["late"] for o in receipt["outcomes"]] == [True]


def test_a_batch_of_outcomes_answers_each_in_order(client: Client) -> None:
    known = client.ask()["decision_id"]
    outcomes: list[dict[str, Any]] = [
        {"decision_id": known, "kind": "reward"},
        {"decision_id": UNKNOWN, "kind": "reward"},
        {"decision_id": known, "kind": "reward", "value": 0},
        {"decision_id": known, "kind": "reward", "value": 0.5, "outcome_id": "other"},
        {"decision_id": known, "kind": "reward"},
    ]
    items = client.post("/v1/outcomes/batch", json={"outcomes": outcomes}).json()["outcomes"]
    assert [item["status"] for item in items] == [200, 404, 409, 400, 200]
    assert [item["outcome"]["duplicate"] for item in items if "outcome" in item] == [False, True]
