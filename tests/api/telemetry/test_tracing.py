"""Traces: what a request's span says and what it never says, that it joins the caller's trace, and that it arrives."""

import http.server
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from api.app import create_app
from api.clocks import Clock
from api.settings import Settings
from api.stores.memory.store import MemoryStore
from bandit.errors import InvalidRequest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from api.telemetry.tracing import Tracing
from tests.api.webhooks.test_webhooks import SECRET, Receiver
from tests.waiting import eventually

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ASK = {"stage": "signup", "user_id": "alice.q7", "context": {}}
Traced = Callable[..., AbstractContextManager[tuple[Any, InMemorySpanExporter]]]


@pytest.fixture
def traced(clock: Clock, catalogue_file: Path) -> Traced:
    """traced(**settings): a client of a service, and the spans that it makes."""

    @contextmanager
    def running(**settings: Any) -> Iterator[tuple[Any, InMemorySpanExporter]]:
        spans = InMemorySpanExporter()
        tracing = Tracing(SimpleSpanProcessor(spans), "shop", "1")
        chosen = Settings(app=str(catalogue_file), salt="salt", dev=True, **settings)
        with TestClient(create_app(chosen, clock=clock, store=MemoryStore(), tracing=tracing)) as client:
            yield client, spans

    return running


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [one for one in spans.get_finished_spans() if one.name == name]


def said(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("journey_bandit."): value for name, value in (span.attributes or {}).items()}


def test_a_decision_is_a_span_with_its_commit_below_it_in_the_callers_trace(traced: Traced) -> None:
    with traced() as (client, spans):
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "r-1"}
        asked = client.post("/v1/decisions", json=ASK, headers=headers)
        made = asked.json()
        again = ASK | {"decision_id": made["decision_id"]}
        client.post("/v1/decisions", json=again)
    first, second = named(spans, "POST /v1/decisions")
    commit, _ = named(spans, "ledger.commit")
    assert first.parent is not None
    assert (f"{first.parent.trace_id:032x}", f"{first.parent.span_id:016x}") == (TRACE, PARENT)
    assert commit.parent is not None
    assert commit.parent.span_id == first.context.span_id
    assert first.kind is SpanKind.SERVER
    arms = len(made["propensities"])
    assert said(first) == {
        "request_id": "r-1", "http.request.method": "POST", "http.route": "/v1/decisions",
        "http.response.status_code": 200, "decisions": 1, "stage": "signup", "arms": arms, "duplicate": False,
    }  # fmt: skip
    assert arms > 1
    assert said(commit) == {"decisions": 1, "stage": "signup", "arms": arms}
    assert second.parent is None
    assert said(second)["duplicate"] is True


def test_outcomes_and_events_say_how_many_and_whether_they_came_before(traced: Traced) -> None:
    with traced() as (client, spans):
        made = client.post("/v1/decisions", json=ASK).json()
        outcome = {"decision_id": made["decision_id"], "kind": "reward"}
        events = {"events": [{"event": "Opened", "event_id": "e", "user_id": "alice.q7"}]}
        for path, body in (("/v1/outcomes", outcome), ("/v1/events", events)):
            for _ in range(2):
                client.post(path, json=body).raise_for_status()
    for path, name in (("/v1/outcomes", "outcomes"), ("/v1/events", "events")):
        found = [(said(one).get(name), said(one).get("duplicate")) for one in named(spans, f"POST {path}")]
        assert found == [(1, False), (1, True)], path


def test_no_span_holds_what_people_sent(traced: Traced) -> None:
    with traced() as (client, spans):
        mark = "alice.q7"
        client.post("/v1/decisions", json=ASK | {"context": {mark: mark}})
        client.post("/v1/decisions", json=ASK | {"stage": mark})
        client.get(f"/v1/users/{mark}/journey", params={mark: mark}, headers={"user-agent": mark, "tracestate": mark})
        client.get(f"/{mark}")
    found = spans.get_finished_spans()
    assert len(found) >= 4
    assert [one.to_json() for one in found if mark in one.to_json()] == []


def test_the_line_of_a_request_has_the_trace_of_its_span(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    from api.telemetry.request_context import CURRENT

    caplog.set_level("INFO")
    seen = list[str]()

    def note(_: Any) -> bool:
        context = CURRENT.get()
        seen.append(context.trace_id if context else "")
        return True

    caplog.handler.addFilter(note)
    try:
        with traced(access_log=True) as (client, spans):
            client.get("/health/live")
    finally:
        caplog.handler.removeFilter(note)
    (span,) = spans.get_finished_spans()
    assert f"{span.context.trace_id:032x}" in seen


def test_a_webhook_carries_the_trace_of_its_decision_also_when_it_is_sent_again(
    traced: Traced, tmp_path: Path, later: Callable[[float], int]
) -> None:
    receiver, file = Receiver(), tmp_path / "webhooks.toml"
    receiver.answers = lambda _: 500 if len(receiver.got) == 1 else 200
    file.write_text(
        f'[endpoints.crm]\nurl = "{receiver.url}"\nsecret = "{SECRET}"\nprivate = true\nevents = ["decision"]\n'
    )
    try:
        with traced(webhooks=str(file)) as (client, _):
            client.post("/v1/decisions", json=ASK, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
            receiver.wait(1)

            def again() -> bool:
                later(2.0)
                return len(receiver.got) >= 2

            assert eventually(again)
            (first, body), (second, same) = receiver.got[:2]
    finally:
        receiver.close()
    assert first["traceparent"].startswith(f"00-{TRACE}-")
    assert second["traceparent"] == first["traceparent"]
    assert same == body
    assert json.loads(body)["traceparent"] == first["traceparent"]


def test_spans_arrive_at_a_receiver_of_otlp(clock: Clock, catalogue_file: Path) -> None:
    got = list[tuple[str, ExportTraceServiceRequest]]()

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            got.append((self.path, message))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        settings = Settings(app=str(catalogue_file), salt="salt", dev=True, otlp=f"{url}/")
        with TestClient(create_app(settings, clock=clock, store=MemoryStore())) as client:
            client.post("/v1/decisions", json=ASK).raise_for_status()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (path, message), *_ = got
    (resource,) = message.resource_spans
    assert path == "/v1/traces"
    about = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (about["service.name"], about["journey_bandit.app"]) == ("journey-bandit", "shop")
    spans = [one for scope in resource.scope_spans for one in scope.spans]
    assert sorted(one.name for one in spans) == ["POST /v1/decisions", "ledger.commit"]
    assert len({one.trace_id for one in spans}) == 1


def test_without_the_extra_the_error_says_how_to_install_it(
    catalogue_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.exporter.otlp.proto.http"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidRequest, match=r"pip install 'journey-bandit\[otel\]', or leave --otlp out"):
        create_app(Settings(app=str(catalogue_file), dev=True, store="memory://", otlp="http://127.0.0.1:1"))
