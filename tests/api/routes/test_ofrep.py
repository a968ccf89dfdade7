"""OFREP: stages as flags, one decision for one question, and nothing learned that was never shown."""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.decisions.flags import Flags, read
from api.http.keys import create
from api.stores.decision_log import OutcomeReceipt, RecordedDecision
from api.stores.memory.store import MemoryStore
from api.stores.protocol import Store
from api.stores.sqlite.store import SqliteStore
from bandit.errors import Overloaded, Unavailable

FLAGS = "/ofrep/v1/evaluate/flags"


def ask(client: Any, key: str, user: str = "ann", **attributes: Any) -> Any:
    reply = client.post(f"{FLAGS}/{key}", json={"context": {"targetingKey": user, **attributes}})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json"), reply.text
    return reply.json()


def bulk(client: Any, tag: str | None = None, user: str = "ann", **attributes: Any) -> Any:
    headers = {"If-None-Match": tag} if tag else {}
    return client.post(FLAGS, json={"context": {"targetingKey": user, **attributes}}, headers=headers)


def test_a_stage_is_a_flag_whose_variant_is_the_nudge(client: Any) -> None:
    flag = ask(client, "signup", age=44, plan="pro", unrelated={"deep": [1]}, tags=["a"])
    assert flag.keys() == {"key", "value", "reason", "variant", "metadata"}
    assert (flag["key"], flag["reason"]) == ("signup", "SPLIT")
    known = flag["metadata"]
    assert all(isinstance(value, str | int | float | bool) for value in known.values())
    receipt = client.get(f"/v1/decisions/{known['decisionId']}").json()
    assert receipt["nudge"]["id"] == flag["variant"]
    assert receipt["nudge"]["payload"] == flag["value"]
    assert receipt["arms"][flag["variant"]]["propensity"] == known["probability"]
    assert receipt["x"]["age"] == pytest.approx(-0.12, abs=1e-3)
    assert receipt["x"]["plan=pro"] == 1.0


def test_the_three_flags_of_a_stage_show_one_decision(client: Any) -> None:
    for n in range(12):
        flags = [ask(client, key, f"u{n}") for key in ("signup", "signup.nudge", "signup.show")]
        assert len({flag["metadata"]["decisionId"] for flag in flags}) == 1
        assert flags[1]["value"] == flags[0]["variant"]
        assert flags[2]["value"] is (flags[0]["variant"] != "none")
    assert client.get("/health/ready").json()["status"] == "ok"


def test_the_same_question_gets_the_same_decision_while_a_visit_lasts(
    client: Any, later: Callable[[float], int]
) -> None:
    first = ask(client, "signup", age=30)
    assert ask(client, "signup", age=30.0) == first  # one number, whatever a client calls it
    assert ask(client, "signup", age=30, clock="12:01") == first  # nothing the stage knows of
    assert ask(client, "signup", age=31)["metadata"]["decisionId"] != first["metadata"]["decisionId"]
    assert ask(client, "signup", "bob", age=30)["metadata"]["decisionId"] != first["metadata"]["decisionId"]
    later(3600)
    assert ask(client, "signup", age=30)["metadata"]["decisionId"] != first["metadata"]["decisionId"]


def test_a_restart_does_not_change_the_answer(serving: Callable[..., AbstractContextManager[Any]]) -> None:
    store = MemoryStore()
    store.close = lambda: None  # type: ignore[method-assign]
    with serving(store) as one:
        first = ask(one, "signup", age=30)
    with serving(store) as two:
        assert ask(two, "signup", age=30) == first
        assert store.counts().decisions == 1


def test_what_was_never_shown_is_never_learned(client: Any, later: Callable[[float], int]) -> None:
    seen = ask(client, "signup", "seen")["metadata"]["decisionId"]
    unseen = ask(client, "signup", "unseen")["metadata"]["decisionId"]
    rewarded = ask(client, "signup", "rewarded")["metadata"]["decisionId"]
    client.tell({"decision_id": seen}, "activation")
    client.tell({"decision_id": rewarded}, "reward")  # a reward says nothing about those who were silent
    later(3601)
    (arms,) = [p["arms"] for s, p in client.learned().items() if s == "signup"]
    assert sum(arm["learned"] for arm in arms) == 1
    whys = {n: client.get(f"/v1/decisions/{n}").json()["settled"]["why"] for n in (seen, unseen, rewarded)}
    assert whys == {seen: "silence", unseen: "not activated", rewarded: "not activated"}


def test_shown_in_the_context_says_that_it_is_being_shown(client: Any, later: Callable[[float], int]) -> None:
    before = ask(client, "signup")
    shown = ask(client, "signup", shown=True)
    assert shown == before  # the same question: the decision is activated, not made again
    assert ask(client, "signup", shown=True) == before
    client.tell({"decision_id": shown["metadata"]["decisionId"]}, "reward")
    later(3601)
    (arms,) = [p["arms"] for s, p in client.learned().items() if s == "signup"]
    assert [(a["learned"], a["mean_reward"]) for a in arms if a["learned"]] == [(1, 1.0)]


def test_a_decision_that_has_settled_is_not_given_again(client: Any) -> None:
    """A stage that learns from the first report: the next question of the same visit is a new decision."""
    ids = []
    for _ in range(10):
        flag = ask(client, "instant", shown=True)
        ids.append(flag["metadata"]["decisionId"])
        client.tell({"decision_id": ids[-1]}, "reward", value=1)
        client.learned()
    assert len(set(ids)) == 10
    (arms,) = [p["arms"] for s, p in client.learned().items() if s == "instant"]
    assert sum(arm["learned"] for arm in arms) == 10


def test_evidence_and_its_end(client: Any, later: Callable[[float], int]) -> None:
    excluded = client.get(f"/v1/decisions/{ask(client, 'signup')['metadata']['decisionId']}").json()["excluded"]
    assert set(excluded) == {"offer", "last_units"}
    flags = [
        ask(client, "signup", f"u{n}", evidence={"stock": 2, "deadline": "2025-10-09T09:00:00Z"}) for n in range(400)
    ]
    offered = [n for n, flag in enumerate(flags) if flag["variant"] == "offer"]
    assert offered
    later(401)  # the deadline has passed, the visit has not
    n = offered[0]
    again = ask(client, "signup", f"u{n}", evidence={"stock": 2, "deadline": "2025-10-09T09:00:00Z"})
    assert again["variant"] != "offer"


def test_bulk_is_every_flag_and_304_while_nothing_changes(client: Any, later: Callable[[float], int]) -> None:
    first = bulk(client, age=30)
    assert first.status_code == 200
    stages = ("signup", "basket", "instant", "shown")
    assert [flag["key"] for flag in first.json()["flags"]] == [s + v for s in stages for v in ("", ".nudge", ".show")]
    tag = first.headers["etag"]
    again = bulk(client, tag, age=30)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert bulk(client, f'"x", W/{tag}', age=30).status_code == 304
    assert bulk(client, tag, age=31).status_code == 200  # same user, other attributes
    assert bulk(client, tag, user="bob", age=30).status_code == 200
    assert ask(client, "signup", age=30) == first.json()["flags"][0]
    later(3600)
    assert bulk(client, tag, age=30).status_code == 200


def test_a_context_that_does_not_fit_one_stage_fails_its_flags_only(client: Any) -> None:
    flags = {flag["key"]: flag for flag in bulk(client, age="old").json()["flags"]}
    assert flags["signup"].keys() == {"key", "errorCode", "errorDetails"}
    assert flags["signup"]["errorCode"] == "INVALID_CONTEXT"
    assert "age" in flags["signup"]["errorDetails"]
    assert "variant" in flags["basket"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "words"),
    [
        ("/signup", b"{", 400, "PARSE_ERROR", "JSON"),
        ("/signup", b"\xff", 400, "PARSE_ERROR", "JSON"),
        ("/signup", b'{"context": ' + b'{"a":' * 2000, 400, "PARSE_ERROR", "JSON"),
        ("/signup", b"[]", 400, "PARSE_ERROR", "JSON"),
        ("/signup", b"{}", 400, "INVALID_CONTEXT", "object"),
        ("/signup", b'{"context": {}}', 400, "TARGETING_KEY_MISSING", "targeting key"),
        ("/signup", b'{"context": {"targetingKey": ""}}', 400, "TARGETING_KEY_MISSING", "targeting key"),
        ("/signup", b'{"context": {"targetingKey": 5}}', 400, "INVALID_CONTEXT", "targetingKey"),
        ("/signup", b'{"context": {"targetingKey": "u", "age": true}}', 400, "INVALID_CONTEXT", "age"),
        ("/signup", b'{"context": {"targetingKey": "u", "age": NaN}', 400, "PARSE_ERROR", "JSON"),
        ("/signup", rb'{"context": {"targetingKey": "\ud83d", "age": 3}}', 400, "INVALID_CONTEXT", "targetingKey"),
        ("/signup", b'{"context": {"targetingKey": "u", "shown": 1}}', 400, "INVALID_CONTEXT", "shown"),
        ("/signup", b'{"context": {"targetingKey": "u", "evidence": 1}}', 400, "INVALID_CONTEXT", "evidence"),
        ("/nope", b'{"context": {"targetingKey": "u"}}', 404, "FLAG_NOT_FOUND", "nope"),
        ("/signup.no", b'{"context": {"targetingKey": "u"}}', 404, "FLAG_NOT_FOUND", "signup.no"),
        ("/a%2Fb%3Ac", b'{"context": {"targetingKey": "u"}}', 404, "FLAG_NOT_FOUND", "a/b:c"),
        ("/a/b:c", b'{"context": {"targetingKey": "u"}}', 404, "FLAG_NOT_FOUND", "a/b:c"),
        ("/journey", b'{"context": {"targetingKey": "u"}}', 404, "FLAG_NOT_FOUND", "journey"),
        ("", b"{", 400, "PARSE_ERROR", "JSON"),
        ("", b'{"context": {}}', 400, "TARGETING_KEY_MISSING", "targeting key"),
    ],
)
def test_errors_have_the_shape_that_every_client_reads(
    client: Any, path: str, body: bytes, status: int, code: str, words: str
) -> None:
    reply = client.post(FLAGS + path, content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/json"), reply.text
    told = reply.json()
    assert told.keys() == ({"key", "errorCode", "errorDetails"} if path else {"errorCode", "errorDetails"})
    assert told["errorCode"] == code
    assert words in told["errorDetails"]
    assert told.get("key", "") == {"/a%2Fb%3Ac": "a/b:c"}.get(path, path[1:])


@pytest.mark.parametrize("path", ["/ofrep/v1/nothing", "/ofrep", "/tenant/ofrep/v2/evaluate/flags/x"])
def test_a_path_that_is_not_there_answers_in_the_same_shape(client: Any, path: str) -> None:
    reply = client.post(path, content=b"{}")
    assert reply.status_code == 404
    assert reply.json()["errorCode"] == "GENERAL"


def test_a_wrong_method_and_prefixes(client: Any) -> None:
    assert client.get(f"{FLAGS}/signup").status_code == 405
    assert client.get(f"{FLAGS}/signup").json()["errorCode"] == "GENERAL"
    for path in ("/tenant/a" + FLAGS, f"{client.base_url}/" + FLAGS):
        reply = client.post(f"{path}/signup", json={"context": {"targetingKey": "ann"}})
        assert reply.json() == ask(client, "signup")


def test_keys_by_either_header(serving: Callable[..., AbstractContextManager[Any]], tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, other = create(file, "web", ["decide"]), create(file, "other", ["read"])
    body = {"context": {"targetingKey": "ann"}}
    with serving(keys=str(file)) as client:
        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
            assert client.post(f"{FLAGS}/signup", json=body, headers=headers).status_code == 200
        for headers, status in (({}, 401), ({"X-API-Key": "web.no"}, 401), ({"X-API-Key": other}, 403)):
            reply = client.post(f"{FLAGS}/signup", json=body, headers=headers)
            assert reply.status_code == status
            assert reply.json().keys() == {"key", "errorCode", "errorDetails"}
            assert reply.json()["errorCode"] == "GENERAL"


def test_a_body_that_is_too_large_is_told_in_the_same_shape(client: Any) -> None:
    reply = client.post(f"{FLAGS}/signup", content=b" " * 70_000)
    assert (reply.status_code, reply.json()["errorCode"], reply.json()["key"]) == (413, "GENERAL", "signup")


SHOP = Path(__file__).parents[2] / "journey_shop.toml"


def test_the_journey_as_a_flag(
    serving: Callable[..., AbstractContextManager[Any]], later: Callable[[float], int]
) -> None:
    """The moment asks, the visit gets one decision; before it, the flag is off and nothing is learned."""
    with serving(app=str(SHOP)) as client:

        def happened(n: int, event: str) -> None:
            body = {"event_id": f"e{n}", "event": event, "user_id": "ann", "properties": {"product_id": "shoe"}}
            assert client.post("/v1/events", json={"events": [body]}).status_code == 200

        off = ask(client, "journey", shown=True)
        assert (off["reason"], off["variant"], off["value"]) == ("DISABLED", "none", {})
        for n in range(3):
            happened(n, "Product Viewed")
        flag = ask(client, "journey", mobile=True)
        assert (flag["metadata"]["stage"], flag["metadata"]["moment"]) == ("look", "hesitates")
        assert ask(client, "journey.nudge", mobile=True)["value"] == flag["variant"]
        assert ask(client, "journey", shown=True)["metadata"] == flag["metadata"]
        happened(3, "Product Added")
        later(24 * 3600 + 1)
        (arm,) = [a for a in client.learned()["look"]["arms"] if a["learned"]]
        assert (arm["arm"], arm["learned"], arm["mean_reward"]) == (flag["variant"], 1, 1.0)
        assert "journey" not in [f["key"] for f in bulk(client).json()["flags"]]


def test_a_tracking_event_is_an_event_of_the_user(
    serving: Callable[..., AbstractContextManager[Any]], later: Callable[[float], int], hands: Any
) -> None:
    """As GO Feature Flag's providers send it: an order rewards the decision that was shown, once."""
    with serving(app=str(SHOP)) as client:
        flag = ask(client, "basket", "ann", shown=True)
        later(60)

        def track(key: str, **details: Any) -> Any:
            event = {
                "kind": "tracking",
                "key": key,
                "userKey": "ann",
                "contextKind": "user",
                "creationDate": hands.now // 1_000_000,
                "trackingEventDetails": details,
                "evaluationContext": {"plan": "free"},
            }
            evaluated = {"kind": "feature", "key": "basket", "userKey": "ann", "variation": "reminder"}
            body = {"meta": {"provider": "x"}, "events": [event, evaluated]}
            return client.post("/v1/data/collector", json=body)

        for _ in range(2):  # a retry
            reply = track("Order Completed", value=9.5, order_id="A")
            assert (reply.status_code, reply.json()) == (200, {"ingestedContentCount": 1})
        receipt = client.get(f"/v1/decisions/{flag['metadata']['decisionId']}").json()
        assert [(o["kind"], o["value"]) for o in receipt["outcomes"]] == [("activation", None), ("reward", 1.0)]
        assert track("").json() == {"ingestedContentCount": 0}


CONSENTED = """
app = "shop"
currency = "EUR"
[journey.events.identified]
names = ["identify"]
properties = { mail = "mail" }
[journey.consent]
mail = { event = "identified", property = "mail" }
[stages.cart]
policy = { name = "fixed", arm = "news" }
floor = 0.0
reward = { kind = "binary", window = "1h" }
features = {}
nudges.news = { type = "mail", format = "mail", consent = ["mail"] }
"""


def test_consent_that_is_taken_back_ends_what_it_allowed(
    serving: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    (tmp_path / "consented.toml").write_text(CONSENTED, encoding="utf-8")
    with serving(app=str(tmp_path / "consented.toml")) as client:

        def says(n: int, mail: bool) -> None:
            event = {"event_id": f"e{n}", "event": "identify", "user_id": "ann", "properties": {"mail": mail}}
            assert client.post("/v1/events", json={"events": [event]}).status_code == 200

        assert ask(client, "cart")["variant"] == "none"
        assert ask(client, "cart", consent={"mail": True})["variant"] == "news"
        says(1, mail=True)
        first = ask(client, "cart", "ann", other=1)
        assert first["variant"] == "none"  # the same question: the visit's answer
        assert ask(client, "cart", consent={"x": True})["variant"] == "news"
        says(2, mail=False)
        assert ask(client, "cart", consent={"x": True})["variant"] == "none"


CAPPED = """
app = "shop"
currency = "EUR"
[stages.cart]
policy = { name = "fixed", arm = "tip" }
floor = 0.0
reward = { kind = "binary", window = "1h" }
features = {}
nudges.tip = { type = "help", format = "popup", limits = { total = 1 } }
"""


def test_what_was_not_shown_counts_against_a_cap_until_its_window_ends(
    serving: Callable[..., AbstractContextManager[Any]], later: Callable[[float], int], tmp_path: Path
) -> None:
    (tmp_path / "capped.toml").write_text(CAPPED, encoding="utf-8")
    with serving(SqliteStore(tmp_path / "l.db"), app=str(tmp_path / "capped.toml")) as client:
        assert ask(client, "cart")["variant"] == "tip"
        assert "cap" in client.ask("cart", "ann")["excluded"]["tip"]
        later(3601)
        assert client.ask("cart", "ann", deferred=True)["nudge"]["id"] == "tip"  # the first was never shown
    later(3601)
    with serving(SqliteStore(tmp_path / "l.db"), app=str(tmp_path / "capped.toml")) as client:  # read from the ledger
        assert ask(client, "cart", shown=True)["variant"] == "tip"
        later(7200)
        assert ask(client, "cart")["variant"] == "none"


def test_fifty_callers_with_one_question_get_one_decision(
    working: Callable[..., AbstractContextManager[Any]], store: Store
) -> None:
    with working(store) as desk:
        flags = Flags(desk.service, store, salt=desk.salt, clock=desk.clock)
        asked = read({"targetingKey": "ann", "age": 30})

        async def everybody() -> list[Any]:
            return await asyncio.gather(*(flags.one("signup", asked) for _ in range(50)))

        found = desk.run(everybody())
        assert len({(one.reply.decision_id, one.reply.nudge.id) for one in found}) == 1
        assert store.counts().decisions == 1


class Failing(MemoryStore):
    """Every write of decisions fails."""

    error: Exception = Unavailable("the disk is gone")

    def record(self, *_: Any) -> tuple[list[RecordedDecision], list[OutcomeReceipt]]:
        raise self.error


def test_what_was_decided_is_answered_although_the_ledger_cannot_be_written(
    serving: Callable[..., AbstractContextManager[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(store := MemoryStore()) as client:
        known = bulk(client).json()

        def fail(*_: Any, **__: Any) -> None:
            raise Unavailable("the disk is gone")

        monkeypatch.setattr(store, "record", fail)
        assert bulk(client).json() == known
        assert client.post(f"{FLAGS}/signup", json={"context": {"targetingKey": "new"}}).status_code == 503


def test_a_failing_ledger_is_503_and_an_overload_429_both_with_whole_seconds(
    serving: Callable[..., AbstractContextManager[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"context": {"targetingKey": "ann"}}
    with serving(Failing()) as client:
        reply = client.post(f"{FLAGS}/signup", json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")

        def full(*_: Any, **__: Any) -> None:
            raise Overloaded("the ledger's queue is full")

        monkeypatch.setattr("api.learning.worker.Worker.submit", full)
        reply = client.post(FLAGS, json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert reply.json()["errorCode"] == "GENERAL"


def test_pages_of_declared_origins_may_call(serving: Callable[..., AbstractContextManager[Any]]) -> None:
    origin = {"Origin": "https://shop.example"}
    with serving(cors="https://shop.example, https://b.example") as client:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,if-none-match",
        }
        allowed = client.options(FLAGS, headers={**origin, **asked})
        assert allowed.status_code in (200, 204)
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        for name in ("content-type", "if-none-match", "x-api-key", "authorization"):
            assert name in allowed.headers["access-control-allow-headers"].lower()
        reply = client.post(FLAGS, json={"context": {"targetingKey": "ann"}}, headers=origin)
        assert {"etag", "retry-after"} <= {
            h.strip().lower() for h in reply.headers["access-control-expose-headers"].split(",")
        }
        refused = client.post(f"{FLAGS}/nope", json={"context": {"targetingKey": "ann"}}, headers=origin)
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        other = client.post(
            FLAGS, json={"context": {"targetingKey": "ann"}}, headers={"Origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in other.headers


def test_ids_are_ordered_by_time_and_are_uuids_of_version_8(client: Any) -> None:
    found = uuid.UUID(ask(client, "signup")["metadata"]["decisionId"])
    assert (found.version, found.variant) == (8, uuid.RFC_4122)
