"""The id of a request: from the client if it is safe to log, made otherwise, the same wherever the request is told."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.testing import TestClient

from api.http.keys import create
from api.telemetry.request_context import CURRENT, RequestContext
from bandit.errors import Unavailable

Serving = Callable[..., AbstractContextManager[TestClient[Litestar]]]
ASK = {"stage": "signup", "user_id": "u"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/decisions", 200), ("GET", "/v1/policies", 200), ("GET", "/nowhere", 404), ("HEAD", "/metrics", 200)],
)
def test_a_safe_id_comes_back_and_without_one_each_request_gets_its_own(
    serving: Serving, method: str, path: str, status: int
) -> None:
    with serving() as client:
        body = ASK if method == "POST" else None
        named = client.request(method, path, json=body, headers={"X-Request-Id": "01J-a.b_c"})
        assert (named.status_code, named.headers.get_list("x-request-id")) == (status, ["01J-a.b_c"])
        made = {client.request(method, path, json=body).headers["x-request-id"] for _ in range(3)}
        assert len(made) == 3
        assert "01J-a.b_c" not in made


@pytest.mark.parametrize(
    "unsafe", ["", "-", "a b", "a" * 65, 'x"}', "alice@example.com", "a\tb", "\xe9", "a,b", "<script>", "%0a"]
)
def test_an_id_that_is_not_safe_to_log_is_replaced(unsafe: str) -> None:
    made = RequestContext([(b"x-request-id", unsafe.encode("latin-1"))]).id
    assert made != unsafe
    assert 1 < len(made) <= 64
    assert RequestContext([(b"x-request-id", made.encode())]).id == made


def test_two_ids_are_none() -> None:
    assert RequestContext([(b"x-request-id", b"a"), (b"x-request-id", b"b")]).id not in {"a", "b"}
    assert RequestContext([(b"x-request-id", b"a"), (b"x-request-id", b"a")]).id != "a"


def test_a_problem_and_a_refusal_by_a_limit_name_the_request(serving: Serving, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    key = create(keys, "backend", ["decide"], quota={"rate": 1, "burst": 1})
    with serving(keys=str(keys)) as client:
        for number, status in enumerate((404, 429, 429)):  # the second refusal is encoded already
            headers = {"x-api-key": key, "x-request-id": f"r-{number}"}
            reply = client.post("/v1/decisions", json=ASK | {"stage": "sign"}, headers=headers)
            assert (reply.status_code, reply.json()["request_id"]) == (status, f"r-{number}")
            assert reply.headers["x-request-id"] == f"r-{number}"
            assert int(reply.headers["content-length"]) == len(reply.content)


def test_a_line_of_a_request_has_its_id_and_its_trace(
    serving: Serving, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[tuple[str, str]]()

    class Noting(logging.Filter):
        def filter(self, _: logging.LogRecord) -> bool:
            context = CURRENT.get()
            seen.append((context.id, context.trace_id) if context else ("", ""))
            return True

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    caplog.handler.addFilter(noting := Noting())
    try:
        with serving() as client:
            monkeypatch.setattr("api.decisions.service.DecisionService.stages", broken)
            headers = {"x-request-id": "r-9", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert client.get("/v1/stages", headers=headers).status_code == 500
    finally:
        caplog.handler.removeFilter(noting)
    assert caplog.messages == ["unexpected ZeroDivisionError"]
    assert seen == [("r-9", TRACE)]
    assert CURRENT.get() is None


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-later", TRACE),  # a version that is not out yet
        (f"ff-{TRACE}-00f067aa0ba902b7-01", ""),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", ""),
        (f"00-{TRACE}", ""),
        ("alice@example.com", ""),
    ],
)
def test_a_trace_is_that_of_a_valid_traceparent(header: str, trace: str) -> None:
    assert RequestContext([(b"traceparent", header.encode())]).trace_id == trace
    assert RequestContext([(b"traceparent", header.encode())] * 2).trace_id == ""


def test_the_error_of_an_own_kind_keeps_its_words(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Unavailable("the disk is away")

    with serving() as client:
        monkeypatch.setattr("api.decisions.service.DecisionService.stages", broken)
        reply = client.get("/v1/stages", headers={"x-request-id": "r"})
        assert (reply.status_code, reply.json()["request_id"]) == (503, "r")
