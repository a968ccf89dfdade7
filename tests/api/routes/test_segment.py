"""Segment's tracking API: what its clients send is taken, what they must be told is told in their words."""

import base64
import datetime as dt
import gzip
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from api.http.keys import create
from api.routes import segment
from api.stores.memory.store import MemoryStore
from bandit.errors import Unavailable

SHOP = Path(__file__).parents[2] / "journey_shop.toml"
Serving = Callable[..., AbstractContextManager[Any]]
NOW = dt.datetime(2025, 10, 9, 8, 53, 20, tzinfo=dt.UTC)  # where the clock of the tests stands


def iso(seconds: float = 0.0) -> str:
    return (NOW + dt.timedelta(seconds=seconds)).isoformat()


def track(event: str = "Product Viewed", **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": event, "userId": "ann", "messageId": f"m{len(more)}-{event}", **more}


@pytest.fixture
def client(serving: Serving) -> Any:
    with serving(app=str(SHOP)) as running:
        yield running


def send(client: Any, *batch: Any, path: str = "/v1/batch", **more: Any) -> Any:
    return client.post(path, json={"batch": list(batch), "sentAt": iso(), **more})


def took(client: Any, user: str = "ann") -> Any:
    """Events of the user by name, with the seconds before now of the last."""
    found = client.get(f"/v1/users/{user}/journey").json()["events"]
    return {
        name: (seen["count"], (NOW - dt.datetime.fromisoformat(seen["last_at"])).total_seconds())
        for name, seen in found.items()
    }


def refused(reply: Any, status: int, code: str) -> None:
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/json"), reply.text
    body = reply.json()
    assert (body["success"], body["code"]) == (False, code)
    assert body["message"]


def test_a_batch_of_too_many_messages_is_refused_before_any_is_read(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[int]()
    message = segment._SegmentReader.message

    def counting(self: Any, *given: Any) -> Any:
        read.append(1)
        return message(self, *given)

    monkeypatch.setattr(segment._SegmentReader, "message", counting)
    many = gzip.compress(json.dumps({"batch": [track()] * 5001}).encode())
    reply = client.post("/v1/batch", content=many, headers={"content-encoding": "gzip"})
    refused(reply, 400, "invalid_request")
    assert reply.json()["message"] == "batch: 5,001 events → send 5,000 at most, the rest in another"
    assert read == []
    most = client.post("/v1/batch", content=json.dumps({"batch": [track()] * 5000}).encode())
    assert (most.status_code, len(read)) == (200, 5000)


# -- what is taken -------------------------------------------------------------------------------------------------


def test_a_batch_is_taken_once_whatever_is_sent_again(client: Any) -> None:
    messages = [track(messageId="a"), track(messageId="b"), track("Product Added", messageId="c")]
    for _ in range(2):
        reply = send(client, *messages)
        assert (reply.status_code, reply.json()["success"], "dropped" in reply.json()) == (200, True, False)
        (report,) = reply.json()["reports"]  # a reward of nobody
        assert (report["messageId"], report["credited"], list(report["not_credited"])) == ("c", {}, ["look"])
    assert took(client) == {"viewed": (2, 0.0), "added": (1, 0.0)}


def test_events_a_client_captured_are_understood(client: Any) -> None:
    """As segment's Python client sent them, nulls included."""
    captured = (
        '{"batch":[{"integrations":{},"anonymousId":null,"properties":{"product_id":"p1","price":19.99},"timestamp":'
        '"2025-10-09T08:53:10.366+00:00","context":{"library":{"name":"analytics-python","version":"2.4.0"}},'
        '"userId":"u1","type":"track","event":"Product Viewed","messageId":"9c2d"}],'
        '"sentAt":"2025-10-09T08:53:15.366+00:00","writeKey":"test-key"}'
    )
    assert client.post("/v1/batch", content=captured).json() == {"success": True}
    assert took(client, "u1") == {"viewed": (1, 5.0)}


@pytest.mark.parametrize(
    ("message", "sent_at", "ago"),
    [
        ({"timestamp": iso(-60)}, iso(-20), 40.0),  # sent 40 s after it happened, on whatever clock
        ({"timestamp": iso(-7200)}, iso(-7200 + 5), 5.0),  # a clock two hours slow
        ({"timestamp": iso(7200)}, iso(7200 + 5), 5.0),  # a clock two hours fast
        ({"originalTimestamp": iso(-60)}, iso(), 60.0),
        ({"timestamp": iso(-60), "sentAt": iso(-50)}, iso(), 10.0),
        ({"timestamp": iso(-60)}, None, 60.0),
        ({"timestamp": iso(60)}, iso(), 0.0),  # not before it was sent
        ({"timestamp": iso(60)}, None, 0.0),
        ({"timestamp": "2025-10-09T08:53:10"}, iso(), 10.0),
        ({"timestamp": iso(-60)}, "yesterday", 60.0),  # a sending time that says nothing corrects nothing
        ({"timestamp": iso(-60)}, "0001-01-01T00:00:00Z", 60.0),
        ({"timestamp": None, "originalTimestamp": ""}, iso(), 0.0),
        ({}, iso(), 0.0),
    ],
)
def test_the_clients_clock_is_corrected(client: Any, message: Any, sent_at: Any, ago: float) -> None:
    send(client, track(**message), sentAt=sent_at)
    assert took(client)["viewed"] == (1, pytest.approx(ago))


def test_identify_and_alias_join_and_a_track_with_both_ids_too(client: Any) -> None:
    for path, body in (
        ("identify", {"userId": "ann", "anonymousId": "a1", "traits": {"wants_mail": True}}),
        ("alias", {"userId": "ann", "previousId": "old"}),
        ("track", {"userId": "ann", "anonymousId": "a2", "event": "Product Viewed"}),
    ):
        assert client.post(f"/v1/{path}", json=body).json() == {"success": True}
    for who in ("a1", "old", "a2"):
        assert send(client, {"type": "track", "event": "Product Viewed", "anonymousId": who}).status_code == 200
    assert took(client)["viewed"] == (4, 0.0)
    assert client.get("/v1/users/ann/journey").json()["consent"] == ["mail"]


def test_traits_may_stand_in_the_context_as_rudderstack_sends_them(client: Any) -> None:
    send(client, {"type": "identify", "userId": "ann", "context": {"traits": {"wants_mail": True}}})
    assert client.get("/v1/users/ann/journey").json()["consent"] == ["mail"]


@pytest.mark.parametrize("kind", ["track", "identify", "page", "screen", "group", "alias"])
def test_every_single_call_has_its_path_and_its_short_one(client: Any, kind: str) -> None:
    body = {"userId": "ann", "event": "Product Viewed", "previousId": "old", "name": "Home", "groupId": "g"}
    for path in segment._SINGLE[kind]:
        reply = client.post(path, json=body)
        assert (reply.status_code, reply.json()) == (200, {"success": True})
    assert client.get("/v1/users/ann/journey").json()["last_event_at"] is not None


def test_without_a_message_id_the_same_words_of_the_same_time_are_one_message(client: Any) -> None:
    for _ in range(2):
        client.post("/v1/track", json={"userId": "ann", "event": "Product Viewed", "timestamp": iso(-5)})
        client.post("/v1/track", json={"userId": "bob", "event": "Product Viewed"})
    assert took(client)["viewed"][0] == 1
    assert took(client, "bob")["viewed"][0] == 2


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_content_type_does_not_matter(client: Any, content_type: str | None, packed: bool) -> None:
    raw = json.dumps({"batch": [track()]}).encode()
    headers = {"content-encoding": "gzip"} if packed else {}
    headers |= {"content-type": content_type} if content_type else {}
    reply = client.post("/v1/batch", content=gzip.compress(raw) if packed else raw, headers=headers)
    assert (reply.status_code, reply.json()) == (200, {"success": True})
    assert took(client)["viewed"][0] == 1


def test_one_bad_message_does_not_fail_the_others(client: Any) -> None:
    bad: list[Any] = [
        None,
        7,
        "track",
        [],
        {},
        {"type": "track", "userId": "ann"},
        {"type": "track", "event": "Product Viewed"},
        {"type": "track", "event": "", "userId": "ann"},
        {"type": "track", "event": 5, "userId": "ann"},
        {"type": "dance", "event": "Product Viewed", "userId": "ann"},
        {"type": "alias", "userId": "ann"},
        {"type": "track", "event": "Product Viewed", "userId": {"x": 1}},
        {"type": "track", "event": "Product Viewed", "userId": "u" * 257},
    ]
    reply = send(client, *bad, track(properties=None, context=5, timestamp=None), *bad)
    assert (reply.status_code, reply.json()["success"]) == (200, True)
    assert [one["index"] for one in reply.json()["dropped"]] == [i for i in range(27) if i != 13]
    assert took(client)["viewed"][0] == 1
    assert 'journey_bandit_events_total{event="(unusable)",status="dropped"} 26.0' in client.get("/metrics").text


def test_half_a_megabyte_and_rudderstacks_four_are_taken(client: Any) -> None:
    for size in (500_000, 3_900_000):
        padded = track(messageId=str(size), properties={"product_id": "p", "blurb": "x" * size})
        assert send(client, padded).json() == {"success": True}
    assert took(client)["viewed"][0] == 2


@pytest.mark.parametrize(
    "message",
    [
        {"timestamp": "yesterday"},
        {"timestamp": 1_760_000_000_000},
        {"timestamp": "1760000000"},
        {"timestamp": "10/09/2025 10:11:12 AM"},
        {"timestamp": {}},
        {"timestamp": "", "originalTimestamp": "soon"},
        {"timestamp": "0001-01-01T00:00:00Z"},
        {"timestamp": "0001-01-01T00:00:00+14:00"},
        {"timestamp": "1970-01-01T00:00:05Z"},
        {"timestamp": iso(3600)},
    ],
)
@pytest.mark.parametrize("sent_at", [None, iso(), iso(30), "0001-01-01T00:00:00Z", "yesterday"])
def test_a_time_that_cannot_be_read_is_not_now(client: Any, message: Any, sent_at: Any) -> None:
    """A message with no time happened now; one whose time is unreadable, absurd or in the future is dropped, counted
    and named.
    """
    reply = send(client, track(**message), track(messageId="good"), sentAt=sent_at)
    (dropped,) = reply.json()["dropped"]
    assert (dropped["index"], dropped["field"]) in ((0, "timestamp"), (0, "originalTimestamp"))
    assert took(client) == {"viewed": (1, 0.0)}
    assert 'journey_bandit_events_refused_total{field="' + dropped["field"] + '"} 1.0' in client.get("/metrics").text
    assert client.post("/v1/track", json={**track(**message), "sentAt": sent_at}).status_code == 400


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"batch": ' + b"[" * 100_000, "invalid_json"),
        (b"[" * 100_000, "invalid_request"),
        (b"[]", "invalid_request"),
        (b"{}", "invalid_request"),
        (b'{"batch": 5}', "invalid_request"),
        (b'{"batch": {}}', "invalid_request"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_with_code_and_message(client: Any, body: bytes, code: str) -> None:
    refused(client.post("/v1/batch", content=body), 400, code)
    packed = client.post("/v1/batch", content=gzip.compress(body), headers={"content-encoding": "gzip"})
    refused(packed, 400, code)


def test_gzip_that_is_broken_cut_or_a_bomb_is_refused(client: Any) -> None:
    raw = gzip.compress(json.dumps({"batch": [track()]}).encode())
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 64_000
    for body, status, code in (
        (b"no gzip", 400, "invalid_gzip"),
        (raw[:-9], 400, "invalid_gzip"),
        (raw + b"more", 400, "invalid_gzip"),
        (bomb, 413, "payload_too_large"),
    ):
        refused(client.post("/v1/batch", content=body, headers={"content-encoding": "gzip"}), status, code)


def test_sizes_are_limited(client: Any) -> None:
    refused(client.post("/v1/batch", content=b" " * 4_000_001), 413, "payload_too_large")
    big = {"userId": "ann", "event": "Product Viewed", "properties": {"x": "x" * 32_768}}
    refused(client.post("/v1/track", json=big), 400, "message_too_large")


def test_a_single_call_that_cannot_be_used_is_told_so(client: Any) -> None:
    refused(client.post("/v1/track", json={"userId": "ann"}), 400, "invalid_message")
    refused(client.post("/v1/alias", json={"userId": "ann"}), 400, "invalid_message")
    refused(client.post("/v1/identify", content=b"[]"), 400, "invalid_request")


def test_a_wrong_method_is_told_in_segments_words(client: Any) -> None:
    for path in segment.PATHS:
        refused(client.get(path), 405, "method_not_allowed")


def test_a_ledger_that_cannot_be_written_is_a_503_to_be_repeated(serving: Serving) -> None:
    class Broken(MemoryStore):
        def ingest(self, *_: Any) -> Any:
            raise Unavailable("disk full")

    with serving(Broken(), app=str(SHOP)) as client:
        reply = send(client, track())
        refused(reply, 503, "unavailable")
        assert reply.headers["retry-after"] == "1"


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_write_key_opens_every_path_in_each_of_its_places(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    key, other = create(file, "web", ["events"]), create(file, "backend", ["decide", "reward", "read"])

    def basic(name: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:".encode()).decode()}

    body = {"batch": [], "userId": "ann", "event": "x", "previousId": "old"}
    with serving(app=str(SHOP), keys=str(file)) as client:
        for path in segment.PATHS:
            for headers, extra in (
                (basic(key), {}),
                ({}, {"writeKey": key}),
                ({"X-API-Key": key}, {}),
                ({"Authorization": f"Bearer {key}"}, {}),
            ):
                reply = client.post(path, json=body | extra, headers=headers)
                assert (reply.status_code, reply.json()) == (200, {"success": True}), (path, headers)
            for headers in (
                {},
                basic("web.wrong"),
                {"Authorization": "Basic !!!"},
                basic(""),
            ):
                refused(client.post(path, json=body, headers=headers), 401, "unauthorized")
            refused(client.post(path, json=body, headers=basic(other)), 403, "forbidden")
