"""Nothing a caller sends makes the service answer 5xx: what cannot be used is refused by name, strings are inert."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.testing import TestClient

from api.app import create_app
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.records import Decision

Client = TestClient[Litestar]

DECIDE, MANY, REPORT, REPORTS = "/v1/decisions", "/v1/decisions/batch", "/v1/outcomes", "/v1/outcomes/batch"
KNOWN = uuid.UUID(int=1)
VALID: dict[str, dict[str, Any]] = {
    DECIDE: {"stage": "signup", "user_id": "u", "context": {"age": 30}},
    REPORT: {"decision_id": str(KNOWN), "kind": "activation"},
}
MARK = "@@"


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(scope="module")
def client(
    store: MemoryStore, catalogue_text: str, tmp_path_factory: pytest.TempPathFactory, decide: Any
) -> Iterator[Client]:
    """One service for all bodies, with one decision known to it."""
    file = tmp_path_factory.mktemp("app") / "shop.toml"
    file.write_text(catalogue_text, encoding="utf-8")
    known: Decision = decide(1)
    app = create_app(Settings(app=str(file), dev=True), clock=lambda: known.at, store=store)
    store.record([known], [], known.at, store.specs())
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


def body(path: str, field: str, raw: str | bytes) -> bytes:
    """A valid body but for one (dotted) field, which holds the raw text instead."""
    value: Any = MARK
    for part in reversed(field.split(".")):
        value = {part: value}
    filled = json.dumps({**VALID[path], **value}).encode()
    return filled.replace(f'"{MARK}"'.encode(), raw.encode() if isinstance(raw, str) else raw)


def in_batch(path: str, raw: bytes) -> bytes:
    return b'{"%s": [%s]}' % (b"decisions" if path == MANY else b"outcomes", raw)


NOT_JSON = {
    "empty": b"",
    "blank": b" \n\t ",
    "truncated": b'{"stage": "signup", "user_id": "u"',
    "cut in a string": b'{"stage": "sig',
    "trailing comma": b'{"stage": "signup", "user_id": "u",}',
    "two values": b'{"stage": "signup", "user_id": "u"} {}',
    "single quotes": b"{'stage': 'signup', 'user_id': 'u'}",
    "a form": b"stage=signup&user_id=u",
    "xml": b"<stage>signup</stage>",
    "a byte order mark": b'\xef\xbb\xbf{"stage": "signup", "user_id": "u"}',
    "UTF-16": '{"stage": "signup", "user_id": "u"}'.encode("utf-16"),
    "UTF-32": '{"stage": "signup", "user_id": "u"}'.encode("utf-32-le"),
    "latin-1": '{"stage": "signup", "user_id": "é"}'.encode("latin-1"),
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "NUL bytes": b"\0" * 50,
    "a comment": b'{"stage": "signup", /* me */ "user_id": "u"}',
    "30,000 arrays": b"[" * 30_000,
}

WRONG: list[tuple[str, bytes, str]] = [  # path, body, the field that must be named
    *((DECIDE, raw, "user_id" if name == "latin-1" else "(body)") for name, raw in NOT_JSON.items()),
    *((path, raw, "(body)") for path in (REPORT, MANY, REPORTS) for raw in NOT_JSON.values() if raw[:2] != b'{"'),
    *((path, b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "a") for path in (DECIDE, REPORT, MANY, REPORTS)),
    *((path, raw, "(body)") for path in (DECIDE, REPORT, MANY, REPORTS) for raw in (b"[]", b"null", b"7", b'"x"')),
    (DECIDE, b"{}", "user_id"),
    (DECIDE, b'{"stage": "signup"}', "user_id"),
    (DECIDE, b'{"user_id": "u"}', "stage"),
    (DECIDE, body(DECIDE, "x", "1"), "x"),  # an unknown field
    (DECIDE, body(DECIDE, "arm", '"tip"'), "arm"),
    (DECIDE, body(DECIDE, "propensity", "1"), "propensity"),
    # strings
    (DECIDE, body(DECIDE, "user_id", "7"), "user_id"),
    (DECIDE, body(DECIDE, "user_id", "null"), "user_id"),
    (DECIDE, body(DECIDE, "user_id", '""'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", f'"{"x" * 257}"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", '["u"]'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", r'"\ud800"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", r'"\udc00\ud800"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", r'"a\ud83dz"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", b'"\xed\xa0\x80"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", b'"\xc0\xae"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", b'"\xff"'), "user_id"),
    (DECIDE, body(DECIDE, "user_id", '"a\x00b"'), "(body)"),
    (DECIDE, body(DECIDE, "user_id", '"a\nb"'), "(body)"),
    (DECIDE, body(DECIDE, "user_id", r'"\x41"'), "(body)"),
    (DECIDE, body(DECIDE, "user_id", r'"\u12"'), "(body)"),
    (DECIDE, body(DECIDE, "stage", '""'), "stage"),
    (DECIDE, body(DECIDE, "stage", f'"{"s" * 65}"'), "stage"),
    (DECIDE, body(DECIDE, "stage", "{}"), "stage"),
    # numbers
    (DECIDE, body(DECIDE, "context.age", "NaN"), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "Infinity"), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "-Infinity"), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "1e999"), "context[...]"),
    (DECIDE, body(DECIDE, "context.age", "-1e999"), "context[...]"),
    (DECIDE, body(DECIDE, "context.age", "1" + "0" * 400), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "-1" + "0" * 400), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "1" + "0" * 4290), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "1" + "0" * 5000), "context[...]"),
    (DECIDE, body(DECIDE, "context.age", "1" + "0" * 60_000), "context[...]"),
    (DECIDE, body(DECIDE, "context.age", "01"), "(body)"),
    (DECIDE, body(DECIDE, "context.age", "+1"), "(body)"),
    (DECIDE, body(DECIDE, "context.age", "0x10"), "(body)"),
    (DECIDE, body(DECIDE, "context.age", ".5"), "(body)"),
    # contexts
    (DECIDE, body(DECIDE, "context", "[1]"), "context"),
    (DECIDE, body(DECIDE, "context", "7"), "context"),
    (DECIDE, body(DECIDE, "context", '"age"'), "context"),
    (DECIDE, body(DECIDE, "context.agee", "30"), "context.agee"),
    (DECIDE, body(DECIDE, "context.age", '"30"'), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "true"), "context.age"),
    (DECIDE, body(DECIDE, "context.age", "[30]"), "context.age"),
    (DECIDE, body(DECIDE, "context.age", '{"a": 1}'), "context.age"),
    (DECIDE, body(DECIDE, "context.plan", "1"), "context.plan"),
    (DECIDE, body(DECIDE, "context.plan", r'"\ud800"'), "context.plan"),
    (DECIDE, body(DECIDE, "context.plan", r'["\udfff"]'), "context.plan[0]"),
    (DECIDE, body(DECIDE, "context.returning", "0"), "context.returning"),
    (DECIDE, body(DECIDE, "context.returning", '"true"'), "context.returning"),
    (DECIDE, body(DECIDE, "context", json.dumps({f"f{n}": 1 for n in range(201)})), "context"),
    (DECIDE, body(DECIDE, "context", json.dumps({"k" * 65: 1})), "context"),
    (DECIDE, body(DECIDE, "context", '{"": 1}'), "context"),
    (DECIDE, body(DECIDE, "context", r'{"\ud800": 1}'), "context.\\ud800"),
    # evidence, lists, ids
    (DECIDE, body(DECIDE, "evidence", "[1]"), "evidence"),
    (DECIDE, body(DECIDE, "evidence.proof", "1"), "evidence.proof"),
    (DECIDE, body(DECIDE, "evidence.stock", "-1"), "evidence.stock"),
    (DECIDE, body(DECIDE, "evidence.stock", "3.5"), "evidence.stock"),
    (DECIDE, body(DECIDE, "evidence.stock", '"3"'), "evidence.stock"),
    (DECIDE, body(DECIDE, "evidence.stock", "1" + "0" * 30), "evidence.stock"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"2026-01-01T00:00:00"'), "evidence.deadline"),  # whose midnight?
    (DECIDE, body(DECIDE, "evidence.deadline", '"2026-02-30T00:00:00Z"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"2026-01-01"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"tomorrow"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", "1767225600"), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"2026-01-01T00:00:00+25:00"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"9999-12-31T23:59:59-14:00"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"0001-01-01T00:00:00+14:00"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "evidence.deadline", '"10000-01-01T00:00:00Z"'), "evidence.deadline"),
    (DECIDE, body(DECIDE, "include", '"tip"'), "include"),
    (DECIDE, body(DECIDE, "include", "[1]"), "include[0]"),
    (DECIDE, body(DECIDE, "include", '["tip", "; DROP TABLE decisions"]'), "include[1]"),
    (DECIDE, body(DECIDE, "include", json.dumps(["tip"] * 101)), "include"),
    (DECIDE, body(DECIDE, "exclude", "null"), "exclude"),
    (DECIDE, body(DECIDE, "exclude", '["none"]'), "exclude"),
    (DECIDE, body(DECIDE, "decision_id", '"7"'), "decision_id"),
    (DECIDE, body(DECIDE, "decision_id", '""'), "decision_id"),
    (DECIDE, body(DECIDE, "decision_id", "7"), "decision_id"),
    (DECIDE, body(DECIDE, "decision_id", f'"{KNOWN}x"'), "decision_id"),
    (DECIDE, body(DECIDE, "decision_id", '"gggggggg-gggg-gggg-gggg-gggggggggggg"'), "decision_id"),
    (DECIDE, b'{"stage": "signup", "user_id": "u", "user_id": 7}', "user_id"),  # of a repeated key the last one counts
    # outcomes
    (REPORT, b"{}", "decision_id"),
    (REPORT, body(REPORT, "decision_id", '"not-a-uuid"'), "decision_id"),
    (REPORT, body(REPORT, "decision_id", "null"), "decision_id"),
    (REPORT, body(REPORT, "kind", '"click"'), "kind"),
    (REPORT, body(REPORT, "kind", "1"), "kind"),
    (REPORT, body(REPORT, "kind", '"REWARD"'), "kind"),
    (REPORT, body(REPORT, "value", '"1"'), "value"),
    (REPORT, body(REPORT, "value", "true"), "value"),
    (REPORT, body(REPORT, "value", "NaN"), "value"),
    (REPORT, body(REPORT, "value", "1e400"), "value"),
    (REPORT, body(REPORT, "value", "1e13"), "value"),
    (REPORT, body(REPORT, "value", "-1e13"), "value"),
    (REPORT, body(REPORT, "value", "1" + "0" * 400), "value"),
    (REPORT, body(REPORT, "value", "1"), "value"),  # an activation has none
    (REPORT, body(REPORT, "outcome_id", '""'), "outcome_id"),
    (REPORT, body(REPORT, "outcome_id", f'"{"o" * 65}"'), "outcome_id"),
    (REPORT, body(REPORT, "outcome_id", r'"\ud800"'), "outcome_id"),
    (REPORT, body(REPORT, "outcome_id", "7"), "outcome_id"),
    (REPORT, body(REPORT, "occurred_at", '"2025-10-09T08:53:20"'), "occurred_at"),
    (REPORT, body(REPORT, "occurred_at", "1760000000"), "occurred_at"),
    (REPORT, body(REPORT, "occurred_at", '"0001-01-01T00:00:00+14:00"'), "occurred_at"),
    (REPORT, body(REPORT, "occurred_at", '"9999-12-31T23:59:59-14:00"'), "occurred_at"),
    (REPORT, body(REPORT, "late", "false"), "late"),
    # batches
    (MANY, b"{}", "decisions"),
    (MANY, b'{"decisions": [], "more": 1}', "more"),
    (MANY, b'{"decisions": {}}', "decisions"),
    (MANY, b'{"decisions": null}', "decisions"),
    (MANY, in_batch(MANY, b",".join([json.dumps(VALID[DECIDE]).encode()] * 1001)), "decisions"),
    (REPORTS, in_batch(REPORTS, b",".join([json.dumps(VALID[REPORT]).encode()] * 1001)), "outcomes"),
]  # fmt: skip


def check(reply: Any, status: int) -> Any:
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json"), reply.text
    problem = reply.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert all(e["field"] and e["problem"] and e["fix"] for e in problem["errors"])
    return problem["errors"][0]


@pytest.mark.parametrize(
    ("path", "raw", "field"),
    [pytest.param(*case, id=f"{i} {case[0]} {case[1][-30:]!r}") for i, case in enumerate(WRONG)],
)
def test_a_body_that_cannot_be_used_is_refused_by_name(
    client: Client, store: MemoryStore, path: str, raw: bytes, field: str
) -> None:
    before = store.counts()
    assert check(client.post(path, content=raw), 400)["field"] == field
    assert store.counts() == before


BAD_ITEMS = [  # path, the item, the field that must be named within it
    (MANY, b"1", ""),
    (MANY, b'{"stage": "signup"}', ".user_id"),
    (MANY, body(DECIDE, "user_id", "7"), ".user_id"),
    (MANY, body(DECIDE, "user_id", r'"\ud83d"'), ".user_id"),
    (MANY, body(DECIDE, "user_id", b'"\xff"'), ".user_id"),
    (MANY, body(DECIDE, "context.age", "NaN"), ".context.age"),
    (MANY, body(DECIDE, "context.age", "-Infinity"), ".context.age"),
    (MANY, body(DECIDE, "context.age", "1e999"), ".context[...]"),
    (MANY, body(DECIDE, "context.agee", "1"), ".context.agee"),
    (MANY, body(DECIDE, "context", "[1]"), ".context"),
    (MANY, body(DECIDE, "x", "1"), ".x"),
    (MANY, body(DECIDE, "x", b"[" * 5000 + b"]" * 5000), ".x"),
    (MANY, body(DECIDE, "context.age", b"[" * 5000 + b"]" * 5000), ""),
    (MANY, body(DECIDE, "stage", '"signed_up"'), ".stage"),
    (MANY, b"nonsense", ""),
    (REPORTS, body(REPORT, "value", '"x"'), ".value"),
    (REPORTS, body(REPORT, "value", "NaN"), ".value"),
    (REPORTS, body(REPORT, "outcome_id", r'"\ud800"'), ".outcome_id"),
    (REPORTS, body(REPORT, "decision_id", f'"{uuid.UUID(int=99)}"'), ".decision_id"),
]


@pytest.mark.parametrize(("path", "item", "field"), BAD_ITEMS, ids=[f"{i} {c[2]}" for i, c in enumerate(BAD_ITEMS)])
def test_a_bad_item_of_a_batch_is_refused_by_name_and_the_others_are_answered(
    client: Client, path: str, item: bytes, field: str
) -> None:
    good = json.dumps(VALID[path.removesuffix("/batch")]).encode()
    name = "decisions" if path == MANY else "outcomes"
    reply = client.post(path, content=in_batch(path, b", ".join([good, item, good])))
    assert reply.status_code == 200, reply.text
    first, bad, last = reply.json()[name]
    assert (first["status"], last["status"]) == (200, 200)
    assert bad["status"] == bad["problem"]["status"] == (404 if field in (".stage", ".decision_id") else 400)
    assert bad["problem"]["errors"][0]["field"] == f"{name}[1]{field}"
    assert all(e["problem"] and e["fix"] for e in bad["problem"]["errors"])


@pytest.mark.parametrize("empty", ["[]", "null", "{}"])
@pytest.mark.parametrize("field", ["context", "evidence", "consent"])
def test_an_empty_array_or_null_stands_for_an_object_that_may_be_left_out(
    client: Client, field: str, empty: str
) -> None:
    assert client.post(DECIDE, content=body(DECIDE, field, empty)).status_code == 200
    check(client.post(DECIDE, content=body(DECIDE, field, "[1]")), 400)


def test_there_are_many_such_bodies() -> None:
    assert len({raw for _, raw, _ in WRONG}) > 100
    for path, valid in VALID.items():
        assert (path, json.dumps(valid).encode()) not in [case[:2] for case in WRONG]


@pytest.mark.parametrize("depth", range(920, 1010, 3))
@pytest.mark.parametrize("bracket", [(b"[", b"]"), (b'{"a":', b"}")], ids=["array", "object"])
def test_no_depth_of_nesting_is_an_error_of_ours(client: Client, depth: int, bracket: tuple[bytes, bytes]) -> None:
    """Around the interpreter's limit, where reading may still work and writing not."""
    deep = bracket[0] * depth + b"1" + bracket[1] * depth
    assert (
        "context" in check(client.post(DECIDE, content=body(DECIDE, "context.age", deep)), 400)["field"] or depth > 950
    )


@pytest.mark.parametrize("path", [DECIDE, REPORT])
def test_a_large_body_is_refused_before_it_is_read(client: Client, path: str) -> None:
    assert check(client.post(path, content=b" " * 70_000), 413)["field"] == "(request)"
    chunks = (b" " * 1000 for _ in range(70))
    assert check(client.post(path, content=chunks), 413)["field"] == "(request)"
    valid = json.dumps(VALID[path]).encode()
    assert client.post(path, content=valid + b" " * (64_000 - len(valid))).status_code == 200


def test_a_batch_may_be_larger(client: Client) -> None:
    raw = json.dumps({"decisions": [VALID[DECIDE]] * 1000}).encode()
    assert client.post(MANY, content=raw + b" " * (3_900_000 - len(raw))).status_code == 200
    assert check(client.post(MANY, content=b" " * 4_100_000), 413)["fix"]


def test_the_content_type_is_not_what_counts(client: Client) -> None:
    raw = json.dumps(VALID[DECIDE]).encode()
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/xml; charset=x",
    ):
        assert client.post(DECIDE, content=raw, headers={"content-type": kind}).status_code == 200


WORDS = [
    "'; DROP TABLE decisions; --",
    '" OR 1=1 --',
    "../../../../etc/passwd",
    "{{7*7}} ${jndi:ldap://x} %s %n",
    "<script>alert(1)</script>",
    "\0",
    "\x1b[31m\r\nX-Injected: 1",
    "\u202e\ufeff\u200b",
    "e\u0301 é 👩‍👩‍👧 \U0010ffff",
]


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_strange_strings_are_only_strings(client: Client, store: MemoryStore, word: str) -> None:
    decided = client.post(DECIDE, json={"stage": "signup", "user_id": word, "context": {"plan": word}})
    assert decided.status_code == 200
    assert 'taken as "other"' in decided.json()["notes"][0]
    decision = decided.json()["decision_id"]
    outcome = {"decision_id": decision, "kind": "reward", "outcome_id": word}
    assert client.post(REPORT, json=outcome).json()["duplicate"] is False
    assert client.post(REPORT, json=outcome).json()["duplicate"] is True
    receipt = client.get(f"/v1/decisions/{decision}").json()
    assert [o["outcome_id"] for o in receipt["outcomes"]] == [word]
    for wrong in ({"stage": word}, {"include": [word]}, {"context": {word: 1}}):
        check(client.post(DECIDE, json={**VALID[DECIDE], **wrong}), 404 if "stage" in wrong else 400)


def test_what_was_sent_is_not_echoed_at_length(client: Client) -> None:
    huge = "secret" * 5000
    for raw in (body(DECIDE, "context.plan", json.dumps([huge])), body(DECIDE, "context.age", json.dumps(huge))):
        reply = client.post(DECIDE, content=raw)
        assert reply.status_code == 400
        assert len(reply.content) < 1500
    accepted = client.post(DECIDE, content=body(DECIDE, "context.plan", json.dumps(huge)))
    assert (accepted.status_code, len(accepted.content) < 2000) == (200, True)


# -- at random -------------------------------------------------------------------------------------------------

EXTREME = st.sampled_from([10**400, -(10**30), "\ud800", 2**63, "x" * 300])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | EXTREME,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = {
    DECIDE: ["stage", "user_id", "context", "evidence", "include", "exclude", "decision_id", "x"],
    REPORT: ["decision_id", "kind", "value", "outcome_id", "occurred_at", "x"],
}


def harmless(reply: Any) -> None:
    assert reply.status_code in {200, 400, 404, 409}
    if reply.status_code != 200:
        check(reply, reply.status_code)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data(), path=st.sampled_from([DECIDE, REPORT]))
def test_any_json_in_any_field_is_answered_without_an_error_of_ours(client: Client, data: Any, path: str) -> None:
    changes = data.draw(st.dictionaries(st.sampled_from(FIELDS[path]), JSON, min_size=1, max_size=3))
    harmless(client.post(path, content=json.dumps({**VALID[path], **changes})))
    context = data.draw(st.dictionaries(st.sampled_from(["age", "plan", "returning", "z"]), JSON))
    harmless(client.post(DECIDE, content=json.dumps({**VALID[DECIDE], "context": context})))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from([DECIDE, REPORT, MANY, REPORTS]), st.data())
def test_any_bytes_are_answered_without_an_error_of_ours(client: Client, path: str, data: Any) -> None:
    valid = json.dumps(VALID.get(path) or {"decisions": [VALID[DECIDE]], "outcomes": []}).encode()
    at, cut = data.draw(st.integers(0, len(valid))), data.draw(st.integers(0, 9))
    harmless(client.post(path, content=valid[:at] + data.draw(st.binary(max_size=9)) + valid[at + cut :]))
