"""GO Feature Flag's data collector: what OpenFeature's `track()` sends with its providers.

A tracking event is an event of the user. What else a provider collects (which flags it evaluated) shows nothing, and is
ignored: evaluating is not showing.
"""

import hashlib
from typing import Any

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler

from api.bodies import read
from api.events import Events, Sent
from bandit.errors import InvalidRequest, Problem

PATH = "/v1/data/collector"
_BODY_BYTES = 1_000_000


class _Body(msgspec.Struct):
    """Unknown fields are theirs."""

    events: list[dict[str, Any]]


class _Tracking(msgspec.Struct, rename="camel"):
    key: str
    user_key: str
    creation_date: float | None = None  # seconds
    tracking_event_details: dict[str, Any] = {}


_BODY = msgspec.json.Decoder(_Body)


def routes(events: Events) -> list[HTTPRouteHandler]:
    """The handlers of one service."""

    @post(PATH, status_code=200, request_max_body_size=_BODY_BYTES, opt={"scope": "events"}, include_in_schema=False)
    async def collect(request: Request[Any, Any, Any]) -> dict[str, int]:
        body = await read(request, _BODY)
        sent = [_sent(i, one) for i, one in enumerate(body.events) if one.get("kind") == "tracking"]
        await events.take(sent)
        return {"ingestedContentCount": len(sent)}

    return [collect]


def _sent(i: int, given: dict[str, Any]) -> Sent:
    try:
        event = msgspec.convert(given, _Tracking)
    except msgspec.ValidationError as error:
        raise InvalidRequest(Problem(f"events[{i}]", str(error)[:120], "send key and userKey")) from error
    if not 0 < len(event.user_key) <= 256 or not event.key:
        raise InvalidRequest(Problem(f"events[{i}].userKey", "not 1 to 256 characters", "send the targeting key"))
    at = None if event.creation_date is None else round(min(max(event.creation_date, -1e12), 1e12) * 1e6)
    words = msgspec.json.encode(given, order="deterministic")  # it has no id: the same words are the same event
    name = f"track:{hashlib.blake2b(words, digest_size=16).hexdigest()}"
    return Sent(name, event.key, event.user_key, None, event.tracking_event_details, at, f"events[{i}].creationDate")
