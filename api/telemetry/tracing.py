"""Traces of a service by OpenTelemetry, sent as OTLP over HTTP: a span for each request, with a child for the ledger's
commit. Only made where `serve --otlp` asks for it; the packages are the extra `otel`.

No span holds an id of a person or anything of a body, and no error's words.
"""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from litestar.types import HTTPScope, Message, Receive, Send
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.telemetry.access_log import Serve, method_of, route_of
from api.telemetry.request_context import CURRENT
from bandit.records import Decision

log = logging.getLogger("journey_bandit.traces")

_REMEMBERED = 10_000  # decisions whose traces webhooks may still ask for
_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Tracing of one service. Spans are made in its event loop; `traceparent` may be asked by any thread; a thread of
    the SDK sends what has ended.
    """

    def __init__(self, processor: SpanProcessor, app: str, version: str):
        """`processor` gets the spans, as those of `otlp` do."""
        names = {"service.name": "journey-bandit", "service.version": version, "journey_bandit.app": app}
        self._provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("journey_bandit", version)
        self._decided: OrderedDict[UUID, str] = OrderedDict()

    def traced(self, serve: Serve) -> Serve:
        """`serve` with a span for each request, a child of the caller's span if `traceparent` names one."""

        async def tracing_each(scope: HTTPScope, receive: Receive, send: Send) -> None:
            context, method, status = CURRENT.get(), method_of(scope), 0
            came = _W3C.extract({"traceparent": context.traceparent}) if context else None

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            with self._tracer.start_as_current_span(
                method, came, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
            ) as span:
                if context:
                    context.trace_id = f"{span.get_span_context().trace_id:032x}"
                    span.set_attribute("journey_bandit.request_id", context.id)
                try:
                    await serve(scope, receive, noting)
                finally:
                    route = route_of(scope)
                    span.update_name(f"{method} {route}")
                    span.set_attributes(
                        {"http.request.method": method, "http.route": route, "http.response.status_code": status}
                    )
                    if status >= 500 or not status:
                        span.set_status(StatusCode.ERROR)

        return tracing_each

    def commit(self, decisions: Sequence[Decision], outcomes: int, events: int, written: Any) -> None:
        """Span of a commit, from now until the future `written` is done; the request's span says what was decided.
        Called in the event loop, while the request is served.
        """
        request = get_current_span()
        if isinstance(request, NonRecordingSpan):
            return
        self._remember(decisions)
        said = _said(decisions, outcomes, events)
        request.set_attributes(said)
        span = self._tracer.start_span("ledger.commit", attributes=said)

        def ended(future: Any) -> None:
            if future.cancelled() or future.exception() is not None:
                span.set_status(StatusCode.ERROR)
            else:
                request.set_attribute("journey_bandit.duplicate", _duplicate(future.result()))
            span.end()

        written.add_done_callback(ended)

    def traceparent(self, decision: UUID) -> str:
        """W3C `traceparent` of the request that made a decision; "" if it is not known any more."""
        return self._decided.get(decision, "")

    def stop(self) -> None:
        """Send what has ended, and end the SDK's thread. Blocks for a few seconds at most."""
        self._provider.shutdown()

    def _remember(self, decisions: Sequence[Decision]) -> None:
        if not decisions:
            return
        carrier = dict[str, str]()
        _W3C.inject(carrier)
        for one in decisions:
            self._decided[one.id] = carrier["traceparent"]
        while len(self._decided) > _REMEMBERED:
            self._decided.popitem(last=False)


def otlp(url: str, app: str, version: str) -> Tracing:
    """Tracing that sends its spans to a receiver of OTLP over HTTP, to `url`/v1/traces. Raises ImportError without the
    extra.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter: SpanExporter = OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces", timeout=5)
    return Tracing(BatchSpanProcessor(exporter), app, version)


def _said(decisions: Sequence[Decision], outcomes: int, events: int) -> dict[str, Any]:
    """Attributes of rows: how many, of which stages, and of one decision how many arms it chose among."""
    found: dict[str, Any] = {"decisions": len(decisions), "outcomes": outcomes, "events": events}
    found = {name: count for name, count in found.items() if count}
    if decisions:
        found["stage"] = ",".join(sorted({one.stage for one in decisions}))
    if len(decisions) == 1:
        (decision,) = decisions
        found["arms"] = len(decision.propensity) - len(decision.excluded)
    return {f"journey_bandit.{name}": value for name, value in found.items()}


def _duplicate(answer: Any) -> bool:
    """Whether any row was in the ledger already: of decisions and outcomes, or of events."""
    if isinstance(answer, tuple):
        decisions, outcomes = answer
        return any(one is not None and one.duplicate for one in decisions) or any(
            one.status == "duplicate" for one in outcomes
        )
    return isinstance(answer, list) and any(status == "duplicate" for status, _ in answer)
