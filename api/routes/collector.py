"""Route of GO Feature Flag's data collector: what OpenFeature's `track()` sends with its providers.

A tracking event is an event of the user; one that cannot be used is dropped and counted, the others are taken. What
else a provider collects (which flags it evaluated) shows nothing, and is ignored: evaluating is not showing.
"""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler

from api.components import CurrentParts
from api.events.service import EventReceipt, EventService, ReceivedEvent, check_number
from api.http import lenient_json
from api.http.access import Reporter
from api.http.batch_items import BatchEnvelope
from api.http.request_body import body
from api.metrics import Metrics
from api.traffic.request_limits import charge
from bandit.errors import InvalidRequest, Problem

PATH = "/v1/data/collector"
_BODY_BYTES = 1_000_000
_KIND = "tracking"


class _TrackingBody(msgspec.Struct):
    """Unknown fields are theirs."""

    events: list[msgspec.Raw]


class _TrackingEvent(msgspec.Struct, rename="camel"):
    key: str
    user_key: str
    creation_date: float | None = None  # seconds
    tracking_event_details: Any = None


_BODY = BatchEnvelope(_TrackingBody, "events")


def routes(current: CurrentParts, reporter: Reporter) -> list[HTTPRouteHandler]:
    """Route handler of one service's collector. Events are durable before it answers how many were taken. `reporter`:
    the name of the key that a request presents.
    """

    @post(PATH, status_code=200, request_max_body_size=_BODY_BYTES, opt={"scope": "events"}, include_in_schema=False)
    async def collect(request: Request[Any, Any, Any]) -> dict[str, int]:
        told = _BODY.read(await body(request)).events
        check_number("events", len(told))
        charge(request.scope, len(told))
        given = [_readable(bytes(one), current.ground.metrics) for one in told]
        async with current.inside() as parts:
            sent = [_sent(one, parts.events) for one in given if not one or one.get("kind") == _KIND]
            taken = await parts.events.take(sent, reporter(request))
        return {"ingestedContentCount": sum(isinstance(one, EventReceipt) for one in taken)}

    return [collect]


def _readable(raw: bytes, metrics: Metrics) -> dict[str, Any]:
    """An event with NaN in place of values that JSON cannot hold; empty if nothing is left."""
    try:
        given, unusable = lenient_json.marked(raw)
    except (ValueError, RecursionError):
        return {}
    metrics.unusable.labels("collector").inc(len(unusable))
    return given if isinstance(given, dict) else {}


def _sent(given: dict[str, Any], events: EventService) -> ReceivedEvent | InvalidRequest:
    try:
        event = msgspec.convert(given, _TrackingEvent)
    except msgspec.ValidationError as error:
        return InvalidRequest(Problem("events", str(error)[:120], "send key and userKey"))
    if not 0 < len(event.user_key) <= 256 or not event.key:
        return InvalidRequest(Problem("userKey", "not 1 to 256 characters, or key is empty", "send key and userKey"))
    at = None if event.creation_date is None else round(min(max(event.creation_date, -1e12), 1e12) * 1e6)
    words = msgspec.json.encode(given, order="deterministic")  # it has no id: the same words are the same event
    details = event.tracking_event_details if isinstance(event.tracking_event_details, dict) else {}
    ids = f"track:{events.id_of(words)}", f"track:{events.earlier_id_of(words)}"
    return ReceivedEvent(ids[0], event.key, event.user_key, None, details, at, "creationDate", ids[1])
