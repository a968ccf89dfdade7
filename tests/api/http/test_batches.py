"""One bad item never costs the others: each is answered as if it had been sent alone, through every protocol."""

import itertools
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.http import lenient_json

SHOP = Path(__file__).parents[2] / "journey_shop.toml"
Serving = Callable[..., AbstractContextManager[Any]]
BAD_VALUES = [b"NaN", b"Infinity", b"-Infinity", b"1e999", rb'"\ud83d"', b'"\xff"', b"[" * 3000 + b"]" * 3000]
KINDS = ["decisions", "outcomes", "events"]
PATHS = {"decisions": "/v1/decisions/batch", "outcomes": "/v1/outcomes/batch", "events": "/v1/events"}
numbers = itertools.count()


def item(kind: str, fields: bytes = b"", n: int | None = None) -> bytes:
    """A valid item and more fields, of which the last counts."""
    n = next(numbers) if n is None else n
    own = {
        "decisions": {"stage": "signup", "user_id": f"u{n}", "decision_id": f"00000000-0000-4000-8000-{n:012d}"},
        "outcomes": {"decision_id": f"00000000-0000-4000-8000-{n:012d}", "kind": "activation"},
        "events": {"event_id": f"e{n}", "event": "Product Viewed", "user_id": f"u{n}"},
    }[kind]
    return json.dumps(own).encode()[:-1] + (b", " + fields if fields else b"") + b"}"


def broken(kind: str) -> st.SearchStrategy[bytes]:
    """An item with something wrong."""
    inner = {
        "decisions": b'"context": {"age": %s}',
        "outcomes": b'"value": %s',
        "events": b'"properties": {"price": %s}',
    }
    fields = [inner[kind] % value for value in BAD_VALUES] + [
        b'"user_id": 42', b'"decision_id": 42', b'"event_id": 42', b'"x": {"y": 1}', b'"x": NaN', b'"kind": null',
        rb'"user_id": "a\ud800"', rb'"\udfff": 1', b'"\xc3\x28": 1', b'"occurred_at": "yesterday"', b'"a": "b\nc"',
        b'"a": [1, 2',
    ]  # fmt: skip
    wholes = [b"7", b"null", b"[]", b'"x"', b"{}", b"tru", b"[1 2]", b"{'a': 1}", b"NaN", b"[" * 4000 + b"]" * 4000]
    paired = [field for field in fields if field.count(b"[") == field.count(b"]")]
    return st.sampled_from([*wholes, *(item(kind, field) for field in paired)])


def harmless(kind: str) -> list[bytes]:
    """What is no mistake, although it looks like one: PHP's empty array, commas and brackets in texts, signs."""
    return {
        "decisions": [b'"context": []', b'"context": null', b'"evidence": []', rb'"user_id": "a]},{[\"\\"'],
        "outcomes": [b'"occurred_at": null', rb'"outcome_id": "],{\"\\"'],
        "events": [b'"properties": []', b'"properties": null', rb'"properties": {"product_id": "]},{\"\\", "n": [{}]}',
                   rb'"properties": {"product_id": "\ud83d\ude00"}'],
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_item_is_answered_as_if_it_had_been_sent_alone(serving: Serving, kind: str) -> None:
    """Any mix of valid and broken items. Two services: one is sent the batch, one each item by itself."""
    valid = st.builds(lambda fields: item(kind, fields), st.sampled_from([b"", *harmless(kind)]))
    seen = {200: 0, 400: 0, 404: 0}
    with serving() as together, serving() as alone:

        @settings(max_examples=60, deadline=None, derandomize=True, database=None)
        @given(st.lists(valid | broken(kind), max_size=6), st.sampled_from([b", ", b",", b"\n ,\t"]))
        def check(items: list[bytes], comma: bytes) -> None:
            body = b' {"%s" :[%s] }\n' % (kind.encode(), comma.join(items))
            reply = together.post(PATHS[kind], content=body)
            assert reply.status_code == 200, (reply.text, body)
            answers = reply.json()[kind]
            assert len(answers) == len(items)
            for i, (raw, answer) in enumerate(zip(items, answers, strict=True)):
                own = alone.post(PATHS[kind], content=b'{"%s": [%s]}' % (kind.encode(), raw))
                assert own.status_code == 200, own.text
                (expected,) = own.json()[kind]
                text = json.dumps(expected).replace(f"{kind}[0]", f"{kind}[{i}]")
                assert answer == json.loads(text)
                seen[answer["status"]] += 1

        check()
    assert min(seen[400], seen[200] + seen[404]) > 50, seen


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"events": [', b'{"events": [{]}', b'{"events": [NaN,]}', b'{"events": [,NaN]}',
     b'{"events": [NaN}]',
     b'{"events": [NaN], "x": 1}', b'{"events": NaN}', b'{"evens": [NaN]}', b'{"events": [NaN] []}',
     b'{"events" [NaN]}',
     b'{"events": [NaN' + b",[]" * 300_000 + b"]}",
     b'{"events": [' + b"NaN," * 1000 + b"1]}", b'{"events": ["NaN]}', b'{"events": [NaN]} {}', b'NaN'],
)  # fmt: skip
def test_only_an_envelope_that_cannot_be_used_refuses_the_whole(client: Any, body: bytes) -> None:
    reply = client.post("/v1/events", content=body)
    assert reply.status_code == 400
    assert reply.json()["errors"][0]["field"] in ("(body)", "events", "evens", "x")


bad_values = st.sampled_from(BAD_VALUES)


def message(n: int, properties: bytes = b"{}", more: bytes = b"") -> bytes:
    return b'{"type": "track", "event": "Product Viewed", "userId": "u%d", "messageId": "m%d", "properties": %s%s}' % (
        n,
        n,
        properties,
        more,
    )


@pytest.mark.parametrize("value", BAD_VALUES[:-1])
def test_a_segment_message_is_taken_without_the_property_that_cannot_be_used(serving: Serving, value: bytes) -> None:
    with serving(app=str(SHOP)) as client:
        items = [message(1), message(2, b'{"price": %s, "product_id": "p", "l": [%s]}' % (value, value)), message(3)]
        batch = b'{"batch": [%s], "context": {"x": %s}, "sentAt": null}' % (b",".join(items), value)
        assert client.post("/v1/batch", content=batch).json() == {"success": True}
        single = message(4, b'{"price": %s}' % value)
        assert client.post("/v1/track", content=single).json() == {"success": True}
        for n in (1, 2, 3, 4):
            assert client.get(f"/v1/users/u{n}/journey").json()["events"]["viewed"]["count"] == 1
        metrics = client.get("/metrics").text
        assert 'journey_bandit_values_unusable_total{protocol="segment"} 3.0' in metrics
        assert client.post(
            "/v1/batch", content=b'{"batch": [%s]}' % message(5, b"{}", b', "userId": %s' % value)
        ).json()
        assert 'status="dropped"} 1.0' in client.get("/metrics").text


def test_any_mix_of_segment_messages_loses_only_the_broken(serving: Serving) -> None:
    with serving(app=str(SHOP)) as client:
        count = itertools.count()

        @settings(max_examples=40, deadline=None, derandomize=True, database=None)
        @given(st.lists(st.none() | bad_values | st.sampled_from([b"[1 2]", b"{}", b"nul"]), min_size=1, max_size=6))
        def check(mix: list[bytes | None]) -> None:
            named = [(next(count), bad) for bad in mix]
            items = [message(n) if bad is None else bad for n, bad in named]
            assert client.post("/v1/batch", content=b'{"batch": [%s]}' % b",".join(items)).status_code == 200
            for n, bad in named:
                assert client.get(f"/v1/users/u{n}/journey").json()["visits"] == (bad is None)

        check()


def test_any_mix_of_collected_events_loses_only_the_broken(serving: Serving) -> None:
    def tracked(n: int, more: bytes = b"") -> bytes:
        return b'{"kind": "tracking", "key": "Product Viewed", "userKey": "u%d"%s}' % (n, more)

    with serving(app=str(SHOP)) as client:
        good = [b', "trackingEventDetails": %s' % v for v in (b'{"price": NaN}', b"[]", b"null", rb'{"a": "\ud800"}')]
        bad = [b', "userKey": 7', b', "key": ""', b', "creationDate": "x"', b', "x": ' + BAD_VALUES[-1]]
        items = [tracked(n, more) for n, more in enumerate(good + bad)] + [b"7", b'{"kind": "feature", "x": NaN}']
        reply = client.post("/v1/data/collector", content=b'{"meta": {"v": NaN}, "events": [%s]}' % b",".join(items))
        assert (reply.status_code, reply.json()) == (200, {"ingestedContentCount": len(good)})
        assert [client.get(f"/v1/users/u{n}/journey").json()["visits"] for n in range(8)] == [1] * 4 + [0] * 4
        assert 'event="(unusable)",status="dropped"} 5.0' in client.get("/metrics").text
        assert client.post("/v1/data/collector", content=b"{}").status_code == 400


@pytest.mark.parametrize("value", BAD_VALUES[:-1])
def test_an_attribute_that_json_cannot_hold_is_as_if_it_had_not_been_sent(client: Any, value: bytes) -> None:
    bad = b'{"context": {"targetingKey": "ann", "age": %s, "other": [%s]}}' % (value, value)
    without = {"context": {"targetingKey": "ann"}}
    for path in ("/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/signup"):
        assert client.post(path, content=bad).json() == client.post(path, json=without).json()
    key = client.post("/ofrep/v1/evaluate/flags/signup", content=b'{"context": {"targetingKey": %s}}' % value)
    assert (key.status_code, key.json()["errorCode"]) == (400, "INVALID_CONTEXT")


texts = st.text(alphabet='[]{},:"\\ a\ud800é\n', max_size=6)
leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | texts
values = st.recursive(leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=20)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(values, max_size=5), st.dictionaries(st.text(max_size=4), values, max_size=4), st.integers(0, 2))
def test_brackets_are_found_whatever_is_between_them(array: list[Any], table: dict[str, Any], indent: int) -> None:
    raw = json.dumps(array, indent=indent or None).encode()
    assert list(map(repr, map(lenient_json.lenient, lenient_json.elements(raw)))) == list(map(repr, array))
    members = lenient_json.members(json.dumps(table, indent=indent or None).encode())
    assert {name: repr(lenient_json.lenient(part)) for name, part in members.items()} == {
        n: repr(v) for n, v in table.items()
    }
    found = lenient_json.clean(raw)
    json.dumps(found.value, allow_nan=False, ensure_ascii=False).encode()  # what is left is JSON
    assert bool(found.flaws) == (found.value != array or repr(found.value) != repr(array))
